/* SPDX-License-Identifier: MIT */
/*
 * The template: a single-threaded process forked when a pool opens, which
 * forks the workers and their replacements. So nothing is forked from an owner that
 * may have threads by then, and all workers see the globals of the same moment. It
 * is the workers' parent: it reaps them and reports how they ended. When the owner's
 * end closes it kills what is left and goes.
 */
#ifndef AC__TEMPLATE_H
#define AC__TEMPLATE_H

#include "socket.h"
#include "forkguard.h"
#include "ring.h"

/* What the workers are made from: the pool's, read after the fork. */
struct ac__template_plan {
	const struct ac__board *board;
	struct ac__fd owner_bell;
	int (*init)(void *arg);
	void *init_arg;
	const char *name;
	struct ac__forkguard *guard;	/* the pool's: its group stays in the template */
	void (*let_go)(void *arg);	/* close what is the owner's alone */
	void *let_go_arg;
};

struct ac__template {
	struct ac__socket socket;	/* ours is the owner's end */
	pid_t pid;
};

struct ac__template_event {
	uint32_t seat;
	int32_t pid;	/* 0: it could not be forked */
	int32_t status;	/* as of waitpid; -errno when pid is 0 */
	uint64_t peak_rss; /* bytes, 0 when pid is 0 */
};

int ac__template_open(struct ac__template *template,
		      const struct ac__template_plan *plan);
/* Start a worker for seat with its end of a private socket. Its death, or that it could not
 * be started, comes as an event. */
int ac__template_start(struct ac__template *template, unsigned seat, int process_end);
/* The workers were told to leave: it goes with the last (-EPIPE from next), and reports no more. */
int ac__template_leave(struct ac__template *template);
/* What came: 1 and *event; 0: nothing now; -EPIPE: the template is gone. */
int ac__template_next(struct ac__template *template, struct ac__template_event *event);
/* It does not answer: its end is seen by next. */
void ac__template_kill(struct ac__template *template);
/* Let it kill what is left, and reap it. True: it went in good order, the last of its
 * workers before it. Safe to call twice. */
bool ac__template_close(struct ac__template *template);

#endif

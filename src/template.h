/* SPDX-License-Identifier: MIT */
/*
 * The template (a fork server): a single-threaded process, forked when a pool opens, which forks
 * the workers and their replacements. So nothing is forked from an owner that may have threads
 * by then, and all workers see the globals of the same moment. The template is the workers'
 * parent: it reaps them, reports how they ended, and kills one by its pid when it is told to. When
 * the owner's end of the socket closes, the template kills what is left and exits.
 */
#ifndef AC__TEMPLATE_H
#define AC__TEMPLATE_H

#include "socket.h"
#include "forkguard.h"
#include "ring.h"

/* What the workers are made from. Constant while the pool is open; read after the fork. */
struct ac__template_plan {
	const struct ac__board *board;
	struct ac__fd owner_bell;
	int (*init)(void *arg);
	void *init_arg;
	const char *name;
	const void *group;	/* of the pool's forkguards: they stay on the list in the template */
	/* By seat: the pid of the worker that the template has forked, 0 for none. The worker writes
	 * it as the first thing that it does, and then gives this memory up. The template clears an
	 * entry before it reaps the process: so while an entry stands the pid is that worker's. */
	_Atomic int32_t *pids;
	void (*let_go)(void *arg);	/* close the descriptors that are the owner's alone */
	void *let_go_arg;
};

struct ac__template {
	struct ac__socket socket;	/* ours is the owner's end; -1: no template */
	pid_t pid;
	int pidfd;		/* -1: this system has none */
};

struct ac__template_event {
	uint32_t seat;
	int32_t pid;	/* 0: it could not be forked */
	int32_t status;	/* as of waitpid; -errno when pid is 0 */
	uint64_t peak_rss; /* bytes, 0 when pid is 0 */
};

/* Forks: not to be called under a lock that the child may need. */
int ac__template_open(struct ac__template *template, const struct ac__template_plan *plan);
/* Start a worker for seat with its end of a socket pair. Its end, or that it could not be
 * started, comes as an event. -EPIPE, -ECONNRESET: the template is gone. */
int ac__template_start(struct ac__template *template, unsigned seat, int process_end);
/* Kill the seat's worker by its pid, as its parent. Never blocks: -EAGAIN where the order does not
 * fit into the socket. */
int ac__template_kill_worker(struct ac__template *template, unsigned seat);
/* The workers were told to leave: the template exits with the last of them (-EPIPE from next),
 * and reports no more. */
int ac__template_leave(struct ac__template *template);
/* The next event: 1 and *event; 0: none now; -EPIPE: the template is gone. */
int ac__template_next(struct ac__template *template, struct ac__template_event *event);
/* The table of pids: for plan->pids, NULL: no memory; and its end. */
_Atomic int32_t *ac__template_make_pids(uint32_t seats);
void ac__template_free_pids(_Atomic int32_t *pids, uint32_t seats);
/* Kill a template that does not answer. ac__template_next then tells of its end. */
void ac__template_kill(struct ac__template *template);
/* Let it kill what is left, and reap it. True: it exited in good order, the last of its workers
 * before it. Safe to call twice. */
bool ac__template_close(struct ac__template *template);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The template (a fork server): a single-threaded process, forked when a pool opens, which forks
 * the workers and their replacements. So nothing is forked from an owner that may have threads
 * by then, and all workers see the globals of the same moment. The template is the workers'
 * parent: it reports how they ended, reaps them, and sends one a signal when it is told to. When
 * the owner's end of the socket closes, the template kills what is left and exits.
 *
 * The kernel may kill the template for want of memory, and the owner must not fork another one: it
 * may have threads by then. So the template forks a reserve, a copy of itself that waits on a
 * socket of its own. When the template ends the reserve is the template, and forks the next reserve.
 * The first one is forked a moment after the pool was opened.
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
	const struct ac_runtime *runtime; /* NULL: the workers are C's */
	const char *name;
	const void *group;	/* of the pool's forkguards: they stay on the list in the template */
	/* By seat: the pid of the worker that the template has forked, 0 for none. Both write it: the
	 * worker, as the first thing that it does, since the template may be killed just then, and
	 * the template, since the worker may be stopped. The worker then gives this memory up. The
	 * template clears an entry before it reaps the process: so while an entry stands the pid is
	 * that worker's. The entry of the owner's seat is the number of the template's threads. */
	_Atomic int32_t *pids;
	void (*let_go)(void *arg);	/* close the descriptors that are the owner's alone */
	void *let_go_arg;
};

/* What the owner has of a template, or of its reserve. */
struct ac__template_process {
	int socket;		/* the owner's end; -1: there is no such process */
	pid_t pid;
	int pidfd;		/* -1: this system has none */
	bool is_child;		/* of the owner's */
};

struct ac__template {
	struct ac__template_process now, reserve;
	int process_end;	/* of the socket, while the template is forked */
	char end[AC_TEXT_SIZE];	/* how the last one ended of which that is known */
};

struct ac__template_event {
	uint32_t seat;
	int32_t pid;	/* 0: it could not be forked */
	int32_t status;	/* as of waitpid; -errno when pid is 0 */
	uint64_t peak_rss; /* bytes, 0 when pid is 0 */
};

void ac__template_init(struct ac__template *template);
/* Forks: not to be called under a lock that the child may need. */
int ac__template_open(struct ac__template *template, const struct ac__template_plan *plan);
static inline bool ac__template_is_open(const struct ac__template *template)
{
	return template->now.socket >= 0;
}
/* Start a worker for seat with its end of a socket pair. Its end, or that it could not be
 * started, comes as an event. -EPIPE, -ECONNRESET: the template is gone. */
int ac__template_start(struct ac__template *template, unsigned seat, uint64_t tag,
		       int process_end);
/* The two never block: -EAGAIN where the order does not fit into the socket. */
/* Send the seat's worker a signal by its pid, as its parent, unless it has ended. */
int ac__template_signal_worker(struct ac__template *template, unsigned seat, int signal);
/* The event of the worker's end was taken: reap it. A start in its seat says the same. */
int ac__template_reap_worker(struct ac__template *template, unsigned seat);
/* The workers were told to leave: the template exits (-EPIPE from next) once all of them are
 * reaped. */
int ac__template_leave(struct ac__template *template);
/* It exits as if the owner had ended: it kills what is left. ac__template_next then tells of its end. */
void ac__template_dismiss(struct ac__template *template);
/* The next event: 1 and *event; 0: none now; -EPIPE: the template is gone. */
int ac__template_next(struct ac__template *template, struct ac__template_event *event);
/* The table of pids: for plan->pids, NULL: no memory; and its end. */
_Atomic int32_t *ac__template_make_pids(uint32_t seats);
void ac__template_free_pids(_Atomic int32_t *pids, uint32_t seats);
/* Kill a template that does not answer. ac__template_next then tells of its end. */
void ac__template_kill(struct ac__template *template);
/* The template is gone: close what is left of it; the reserve takes its place. False: there is no
 * reserve. */
bool ac__template_replace(struct ac__template *template);
/* Let it kill what is left, and wait until it and its reserve are gone. Safe to call twice. */
void ac__template_close(struct ac__template *template);
/* In a forked child: close the descriptors. */
void ac__template_let_go(struct ac__template *template);

#endif

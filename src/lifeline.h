/* SPDX-License-Identifier: MIT */
/*
 * The lifeline: a process of the library dies when its owner's end of their
 * private socket closes, or when the owner sends a byte there. The kernel does
 * the killing (see ac__sys_lifeline), whatever the process is doing. But the
 * first process of a pid namespace, such as the entry point of a container, is
 * killed by no signal that comes from within, not even by this one. There a
 * thread watches the socket and ends the process.
 */
#ifndef AC__LIFELINE_H
#define AC__LIFELINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base.h"
#include "fd.h"

struct ac__lifeline {
	struct ac__fd sock;
	bool watched;		/* by the thread */
	pthread_t thread;
	struct ac__fd stop[2];	/* wakes the thread */
	_Atomic bool stopping;
};

/* No arming yet. The socket stays the caller's, and open longer than this. */
void ac__lifeline_init(struct ac__lifeline *line, int sock);
/* From now on this process ends with its owner. -EPIPE: the owner has gone already. */
int ac__lifeline_arm(struct ac__lifeline *line);
/* The process lives on. Joins the thread. */
void ac__lifeline_disarm(struct ac__lifeline *line);
/* In a forked child, which has no such thread. */
void ac__lifeline_drop(struct ac__lifeline *line);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Noticing that processes have ended. Ways in which the owner learns it:
 *	report		the template saw its end, or could not fork it
 *	its socket	ended, or its pidfd is readable: of processes that the user started, and of
 *			those whose template is lost
 *	given up	a start that nothing can tell of: it is taken for ended, and its socket closed
 * And the template itself may be lost (seat 0).
 */
#ifndef AC__WORKERS_END_H
#define AC__WORKERS_END_H

#include "workers.h"

/* How a process ended, or (seat 0) that the template did. */
struct ac__worker_end {
	unsigned seat;
	struct ac__ending ending;
	bool was_ready;
	bool unseated;		/* it had not taken its seat yet: none of the user's work began */
	bool killed;		/* by the owner */
	bool not_forked;	/* the system refused to start it */
	bool refused;		/* its initialiser failed; ending.text says what it said */
	bool left;		/* it exited as a worker does that was told to, or was recycled */
	bool orphaned;		/* it is one of the starts that were lost with their template */
	bool starts_lost;	/* seat 0: workers were being started */
};

/* A tag of the pool's epoll. */
void ac__workers_note(struct ac__workers *workers, uint64_t tag);
/* The next end: false: none is known. The caller ends what the seat held, then calls
 * ac__workers_forget. */
bool ac__workers_next_end(struct ac__workers *workers, struct ac__worker_end *end);
/* The process is gone and all that it held was dealt with: the seat is free. */
void ac__workers_forget(struct ac__workers *workers, unsigned seat);
/* When ac__workers_next_end, or a start, is due though nothing happens; INT64_MAX: never. */
int64_t ac__workers_next_check(const struct ac__workers *workers);

#endif

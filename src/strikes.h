/* SPDX-License-Identifier: MIT */
/*
 * When a pool has to give up on its workers: starts that fail again and again, and workers that
 * end again and again without having worked. Counts only; knows of no process and of no lock.
 */
#ifndef AC__STRIKES_H
#define AC__STRIKES_H

#include "base.h"

struct ac__strikes {
	unsigned failed_starts;	/* in a row, with no worker getting ready in between */
	unsigned outside_ends;	/* starts that were ended from outside, the same way in a row */
	int64_t outside_since;	/* since then no worker has been ready, and starts end so */
	unsigned idle_ends;	/* in quick succession, with no task collected in between */
	uint64_t idle_collected; /* tasks collected when the last idle end came */
	int64_t idle_end_at;
	char reason[AC_TEXT_SIZE];
};

/* What the decision about a failed start depends on. */
struct ac__start_failure {
	bool refused;		/* the system refused to start the process; else the process ended */
	bool from_outside;	/* somebody else ended the process by a signal */
	bool any_ready;		/* some other worker is ready */
	bool any_coming;	/* some other worker is being started */
	unsigned workers;	/* seats of the pool */
	const char *why;
};

/* A worker is ready. */
static inline void ac__strikes_clear(struct ac__strikes *strikes)
{
	strikes->failed_starts = strikes->outside_ends = 0;
}

/*
 * A start failed. NULL: try again, after *pause_ns (0: at once); else the reason why the
 * pool cannot go on, valid until the next call.
 */
const char *ac__strikes_failed_start(struct ac__strikes *strikes,
				     const struct ac__start_failure *failure, int64_t now,
				     int64_t *pause_ns);

/*
 * A worker that was ready ended without having held a task. collected: tasks that the pool
 * has ever collected. NULL, or the reason why the pool cannot go on.
 */
const char *ac__strikes_idle_end(struct ac__strikes *strikes, uint64_t collected, int64_t now,
				 unsigned workers, const char *why);

#endif

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
	unsigned idle_ends;	/* in quick succession, with no task collected in between */
	uint64_t idle_collected; /* tasks collected when the last idle end came */
	int64_t idle_end_at;
	char reason[AC_TEXT_SIZE];
};

/* What the decision about a failed start depends on. */
struct ac__start_failure {
	bool refused;		/* the system refused to start the process; else the process ended */
	bool any_ready;		/* some other worker is ready */
	bool any_coming;	/* some other worker is being started */
	unsigned workers;	/* seats of the pool */
	const char *why;
};

/* A worker is ready. */
static inline void ac__strikes_clear(struct ac__strikes *strikes)
{
	strikes->failed_starts = 0;
}

/*
 * A start failed. NULL: try again, at once or (*later) after a pause; else the reason why the
 * pool cannot go on, valid until the next call.
 */
const char *ac__strikes_failed_start(struct ac__strikes *strikes,
				     const struct ac__start_failure *failure, bool *later);

/*
 * A worker that was ready ended without having held a task. collected: tasks that the pool
 * has ever collected. NULL, or the reason why the pool cannot go on.
 */
const char *ac__strikes_idle_end(struct ac__strikes *strikes, uint64_t collected, int64_t now,
				 unsigned workers, const char *why);

#endif

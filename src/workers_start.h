/* SPDX-License-Identifier: MIT */
/*
 * Starting worker processes: by the template, which is forked when the pool is opened, or by
 * the user's start function. Forking and the user's functions run without the pool's lock:
 * so a start has three parts, and only the one in the middle runs without it.
 */
#ifndef AC__WORKERS_START_H
#define AC__WORKERS_START_H

#include "workers.h"

/* What a start does without the lock. */
struct ac__start {
	unsigned seat;		/* 0: the template is to be forked */
	int process_end;
	pid_t pid;		/* what the user's function returned */
	uint64_t tag;		/* the runtime's */
	int error;		/* what opening the template, or the runtime, returned */
};

/* What ac__workers_begin_start returns beside a negative code: the start failed. */
#define AC__START_NONE 0	/* nothing is to be started now */
#define AC__START_DONE 1	/* a worker is on its way; ask again */
#define AC__START_RUN 2		/* call ac__start_run without the lock, then ac__workers_end_start */

/* Start the process of one vacant seat, or the template. To be called again until NONE. */
int ac__workers_begin_start(struct ac__workers *workers, struct ac__start *start);
/* Without the lock: may take long, and may call the library. */
void ac__start_run(struct ac__workers *workers, struct ac__start *start);
/* 0, or why it failed. */
int ac__workers_end_start(struct ac__workers *workers, const struct ac__start *start);
/* The next start is not before pause_ns from now. */
void ac__workers_retry_later(struct ac__workers *workers, int64_t pause_ns);
/* Has any worker become ready since this was last asked? */
bool ac__workers_take_got_ready(struct ac__workers *workers);
/* Some start is under way that may yet succeed. */
bool ac__workers_any_coming(const struct ac__workers *workers);

#endif

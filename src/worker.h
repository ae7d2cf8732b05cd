/* SPDX-License-Identifier: MIT */
/*
 * A worker's side: taking its seat, waiting for tasks, running them, completing
 * them. One thread per worker. It knows the board, and nothing of the owner's private records.
 */
#ifndef AC__WORKER_H
#define AC__WORKER_H

#include "block.h"
#include "forkguard.h"
#include "lifeline.h"
#include "ring.h"

/* The pace: how many items to claim at a time, from how long the last ones took. */
struct ac__pace {
	uint32_t step, steps;
	int64_t since;
};

struct ac_call {
	struct ac_worker *worker;
	struct ac__task_shm *task;
	uint32_t index;
	const void *arg;
	size_t arg_len;
	const void *bound;		/* NULL: none */
	size_t bound_len;
	struct ac__block result;	/* id 0: small or none */
	size_t result_len;
	int64_t started_ns;		/* 0 unless traced */
	bool divisible;
	uint32_t claimed;		/* units that are this worker's and have not begun */
	struct ac__pace pace;		/* step 0: no unit was claimed yet */
	/* A small result is kept here until the argument, whose place it
	 * takes, is no longer needed. */
	char small[AC__INLINE] AC__ALIGNED(16);
	char text[AC_TEXT_SIZE];
};

struct ac_worker {
	struct ac__board board;
	struct ac__arena arena;		/* of an adopted process; else unused */
	unsigned seat;
	struct ac__lifeline lifeline;
	struct ac__fd owner_bell;
	int region_fd, bell_fd;		/* of an adopted process, as they came; else -1 */
	bool adopted;			/* it was not forked by the template */
	bool flushes;			/* stdout and stderr, when it falls idle */
	bool attached;			/* it mapped the arena itself */
	bool forked;			/* this is a child that a task forked: not a worker */
	bool stranded;			/* user code has closed a descriptor that it needs */
	bool condemned;			/* its task was: the owner is killing it */
	bool idle;
	uint32_t left;			/* tasks until it is recycled; unused when not */
	struct ac__forkguard guard;
	struct ac_call call;
};

/* A forked worker takes its seat: board is the view that it inherited. */
int ac__worker_sit(struct ac_worker *worker, const struct ac__board *board,
		   unsigned seat, int lifeline, const struct ac__fd *owner_bell,
		   const char *name);
/* Say READY or REFUSED. */
void ac__worker_announce(struct ac_worker *worker, int status, const char *text);
/* Take and run tasks until it is time to exit. */
void ac__worker_serve(struct ac_worker *worker);

/* Prepare the call of a task just taken: 0, or -ENOMEM when its argument can't be mapped. */
int ac__call_begin(struct ac_call *call, struct ac_worker *worker, uint32_t index);
/* Write down how the task ended, all but the word. */
void ac__call_end(struct ac_call *call, int value);

#endif

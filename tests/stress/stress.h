/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the long random run share: a pot is a pool that several
 * threads use, and that is closed and opened again under them, with what happened to it so
 * far. That says which outcomes are possible: a worker that nobody killed may not have died.
 */
#ifndef AC_STRESS_H
#define AC_STRESS_H

#include <pthread.h>
#include <stdatomic.h>

#include "crash.h"

struct job;

struct pot {
	/* Held by users for reading, for writing by whoever closes and opens. */
	pthread_rwlock_t lock;
	struct ac_pool *pool;
	unsigned number, workers;
	bool limited;		/* memory is: -ENOMEM is possible */
	bool kills;		/* from outside are allowed in this life */
	bool traced;
	bool loop;		/* driven by ac_pool_dispatch */
	atomic_bool shut;	/* or terminated */
	atomic_bool terminated;
	atomic_bool struck;	/* a worker was killed from outside */
	atomic_bool beheaded;	/* the template was: how workers end may be unknown */
	atomic_bool uncounted;	/* something that may or may not have been taken */
	_Atomic uint64_t submitted, callbacks_due, callbacks_run;
	pthread_mutex_t late_lock;
	struct job *late;	/* ended or not, looked at after the close */
};

/* A thread of the owner that uses pots. */
struct hand {
	pthread_t thread;
	uint64_t seed;
	unsigned number;
	const char *volatile doing;
};

/* Counts up whenever something has ended: the watchdog looks at it. */
extern _Atomic uint64_t stress_moves;
extern atomic_bool stress_over;

/* Before the first fork: what workers and owner both count in. */
void stress_share(void);

/* From 0 to below - 1. */
uint64_t stress_below(uint64_t *seed, uint64_t below);

/* One random thing, on a pot that is held for reading. */
void stress_act(struct hand *hand, struct pot *pot);
/* Late jobs whose results keep a block. All have ended. */
unsigned stress_count_blocks(struct pot *pot);
/* After the close: results are still there. */
void stress_check_late(struct pot *pot);

/* bulk.c */
void stress_map(struct hand *hand, struct pot *pot);
/* Was it all that made the status possible? For all that is not the function's own doing. */
bool stress_is_possible(const struct pot *pot, const struct ac_outcome *outcome,
			bool cancelled, bool timed);
#define STRESS_RUNS (1u << 20)
/* Shared: how often what has this number was run. */
extern _Atomic uint32_t *stress_runs;
uint64_t stress_number(void);

#endif

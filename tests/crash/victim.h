/* SPDX-License-Identifier: MIT */
/*
 * A pool of which one worker, the victim, is traced. It is fresh for each run, is driven by an
 * event loop so that no thread of the library's acts by itself, and its other workers
 * are stopped until the victim is through.
 */
#ifndef AC_VICTIM_H
#define AC_VICTIM_H

#include <stdatomic.h>

#include "crash.h"
#include "engine.h"
#include "trace.h"

#define SEAT 1
#define RUNS 64

/* Where the victim's path begins. */
enum victim_birth {
	VICTIM_ASLEEP,	/* ready, and waiting for work */
	VICTIM_FORKED,	/* by the template, in a dead one's place */
	VICTIM_ADOPTED,	/* by the test, on its way to ac_worker_open */
};

struct victim_plan {
	enum victim_birth birth;
	unsigned workers, recycle;
};

extern struct ac_pool *pool;
/* How often each piece of work was begun, by whichever worker. */
extern _Atomic unsigned *runs;
/* How many tasks were in the victim's hand when it was killed. */
extern unsigned held;

void victim_start(struct trace *trace, const struct victim_plan *plan,
		  void (*before_birth)(void));
/* Its end, or its release; what was in its hand is counted; the others go on. */
void victim_end(struct trace *trace, bool killed);
/* All seats are filled again, all counts agree, the pool works; then it goes, and leaves nothing. */
void victim_check(bool killed);
void victim_close(void);
/* With what is READY, a lone worker that sleeps has missed a waking. */
void victim_check_asleep(void);
/* Tell the workers to leave; they are not waited for. */
void victim_dismiss(void);
/* A task is in its hand, or its completion under way. */
bool victim_is_critical(void);
/* None is, and nobody would wake it. */
bool victim_is_idle(void);
/* Work of the task's own, of about the same time at whatever speed it is stepped. */
void victim_burn(void);

#endif

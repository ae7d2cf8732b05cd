/* SPDX-License-Identifier: MIT */
/*
 * The engine: what a pool is, and the one file that makes its parts work together. The parts (the
 * table of tasks, the worker processes, the sleeping threads...) never call each other and
 * never call the engine; what they find out they return to it as values.
 *
 * One lock guards a pool. Workers never know of it. It is released in five places, all in engine.c:
 *
 *	sleep		a thread waits for results, ends of processes, or for another thread
 *	spin		the same, for a moment, awake
 *	callback	a function of the user's runs: done, progress
 *	start		the user's function start or ended runs, or the template is forked
 *	copy		a long argument or result is copied
 *
 * In each of them other threads may do anything: collect, cancel, fail or terminate the pool. Only
 * closing and freeing can't come in between: their caller promises to be the last.
 */
#ifndef AC__ENGINE_H
#define AC__ENGINE_H

#include <pthread.h>

#include "callbacks.h"
#include "forkguard.h"
#include "pool_memory.h"
#include "sleep.h"
#include "slots.h"
#include "strikes.h"
#include "workers.h"

/* The one thread that a pool may have in its owner: see helper.h. */
struct ac__helper {
	bool started;	/* thread is to be joined */
	bool running;
	bool stop;	/* it is to end, and none is to be started any more */
	pthread_t thread;
};

struct ac_pool {
	pthread_mutex_t lock;
	struct ac__memory *memory;
	struct ac__board board;
	struct ac__forkguard guard;
	_Atomic bool forked;	/* this is not the owner: a worker, or a child of the user's */
	bool interruptible;
	bool gentle;		/* AC_POOL_GENTLE */
	bool shut, terminated;
	bool closing;		/* workers were told to leave */
	bool past_deadline;	/* at leave_by all that remained had ended, or were killed */
	int64_t leave_by;
	struct ac__ending failure; /* status 0: none; else why the pool can't go on */
	uint64_t deaths;
	uint64_t dispatched;	/* ends that ac_pool_dispatch has told of */
	uint32_t spin_ns;	/* the owner's own copy */
	int64_t audit_at;
	struct ac__slots slots;
	struct ac__workers workers;
	struct ac__strikes strikes;
	struct ac__sleep sleep;
	struct ac__callbacks callbacks;
	struct ac__helper helper;
};

static inline struct ac__arena *ac__pool_arena(struct ac_pool *pool)
{
	return &pool->memory->arena;
}
static inline bool ac__pool_is_forked(const struct ac_pool *pool)
{
	return atomic_load_explicit(&pool->forked, memory_order_relaxed);
}
static inline void ac__pool_lock(struct ac_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
}
static inline void ac__pool_unlock(struct ac_pool *pool)
{
	pthread_mutex_unlock(&pool->lock);
}

/* All of the following: under the lock. "Releases": it may be released meanwhile. */

/* 0, or why nothing can be handed in: AC_ECLOSED, AC_EBROKEN, AC_ESTART. */
static inline int ac__engine_accepts(const struct ac_pool *pool)
{
	if (AC__LIKELY(!pool->shut)) /* a pool that fails is shut, too */
		return 0;
	return pool->failure.status ? pool->failure.status : AC_ECLOSED;
}
/* All unfinished work ends with this; no more is taken. */
void ac__engine_fail(struct ac_pool *pool, int status, const char *text);
/* All that is due: results, ends of processes, time limits, starts, pieces for the free slots.
 * Releases (start). */
void ac__engine_advance(struct ac_pool *pool);
/* Collect what is done, and see to it if that is damaged. */
void ac__engine_collect(struct ac_pool *pool);
/* Look at processes, too, without sleeping; then advance. Releases (start). */
void ac__engine_poll(struct ac_pool *pool);
/* End the task in slot that runs, by killing its worker. False: it runs no more. */
bool ac__engine_kill_task(struct ac_pool *pool, uint32_t slot);
/* What the collecting thread, or the event loop, should wake for has changed. */
void ac__engine_changed(struct ac_pool *pool);
/* Start all workers, of a pool that is being opened: 0, or why one could not be started. Releases
 * (start). */
int ac__engine_start_all(struct ac_pool *pool);

/* ---- the places where the lock is released ---- */

/* Sleep, until something has happened that wait may be interested in, or the deadline. 0,
 * -ETIMEDOUT, -EINTR. */
int ac__engine_sleep(struct ac_pool *pool, const struct ac__wait *wait, int64_t deadline);
/* Poll for results for a moment, awake: a worker that is about to finish then saves both sides a
 * wake-up. */
void ac__engine_spin(struct ac_pool *pool);
/* A long copy. to and from must stay valid whatever others do meanwhile. */
void ac__engine_copy(struct ac_pool *pool, void *to, const void *from, size_t len);
/* Make one copy that a slot waits for, and publish its task. False: none waits. */
bool ac__engine_fill_one(struct ac_pool *pool);

/* The cleanup handlers around them need an unwinder. A program in which functions throw has one
 * (C++'s); others do without, and the library needs none. Being weak, these two names do not bring
 * the unwinder in: where it comes after the library, or in an archive
 * from which nothing else takes it, no handler runs. */
__asm__(".weak _Unwind_Resume\n\t.weak __gcc_personality_v0");

/* A function of the user's that runs in this thread, on behalf of pool. */
struct ac__calling {
	struct ac_pool *pool;
	struct ac__calling *outer;
};
/* Before and after such a function. The latter may be a cleanup handler, for a function that
 * throws: it takes the lock again. */
void ac__engine_begin_callback(struct ac_pool *pool, struct ac__calling *calling);
void ac__engine_end_callback(struct ac__calling *calling);
/* Is this thread inside such a function of pool's? Needs no lock. */
bool ac__engine_is_calling_back(const struct ac_pool *pool);

#endif

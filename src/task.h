/* SPDX-License-Identifier: MIT */
/* A single call as its owner sees it: a job of one piece, and the user's handle. */
#ifndef AC__TASK_H
#define AC__TASK_H

#include "engine.h"

#define AC__TASK_SMALL 64

struct ac_task {
	struct ac__job job;
	struct ac_pool *pool;	/* not to be touched once the task has ended: it may be closed */
	struct ac__memory *memory; /* used while a result lies in it */
	_Atomic int ended;	/* 0: not yet; 1: success; else the status */
	/* The engine sets released as its last step with the task. The user gives the handle up
	 * (under the lock), which sets unwanted. The second of the two frees the task. */
	_Atomic bool released;
	bool unwanted;

	ac_call_fn *fn;
	void *copy;		/* of the argument while the task waits for its turn */
	const void *arg;
	size_t arg_len;
	int64_t timeout_ns;
	unsigned retries;
	uint32_t slot;		/* while in_slot */
	bool in_slot;		/* else it waits for its turn, or has ended */
	uint32_t units;		/* divisible into so many, now; 0: not */
	uint64_t index;		/* its place in a stream */
	void *user;		/* as it was pushed */
	struct ac_bound *bound;	/* one use while it waits, which its slot takes over; or NULL */

	void (*done)(void *done_arg, struct ac_task *task);
	void *done_arg;
	struct ac__callback callback;
	/* A stream's: called under the lock when the task has ended. */
	void (*ended_hook)(void *hook_arg, struct ac_task *task);
	void *hook_arg;
	struct ac_task *next_in_stream, **at_in_stream;

	void *result;		/* small, the heap's, or a block's */
	size_t result_len;
	uint32_t result_block;
	struct ac_outcome *failure; /* NULL: success */
	pid_t pid;
	unsigned seat;
	char small[AC__TASK_SMALL] AC__ALIGNED(16);
};

static inline struct ac_task *ac__task_of_callback(struct ac__callback *callback)
{
	return AC__CONTAINER(callback, struct ac_task, callback);
}
static inline bool ac__task_has_ended(const struct ac_task *task)
{
	return atomic_load_explicit(&task->ended, memory_order_acquire) != 0;
}

/* Nobody but the user knows of it any more, and its pool may be gone. */
static inline bool ac__task_is_released(const struct ac_task *task)
{
	return atomic_load_explicit(&task->released, memory_order_acquire);
}

/* Make one for a call of fn, which takes its turn among the pool's single calls. NULL: no memory. */
struct ac_task *ac__task_make(struct ac_pool *pool, ac_call_fn *fn, const void *arg, size_t len);
/* A task that was never submitted, or that nobody holds any more. */
void ac__task_destroy(struct ac_task *task);

/* All of the following: under the lock. "Releases": it may be released meanwhile. */

/* The engine has finished with it. */
void ac__task_release(struct ac_task *task);
/* The user has, or whoever stands for the user. */
void ac__task_give_up(struct ac_task *task);
/* May a task be handed in? 0, or why not. Releases (start): whatever else the answer depends on is
 * looked at after it. */
int ac__task_admit(struct ac_pool *pool);
/* A task that was admitted: into a slot, or behind the others of its source with a copy of its
 * argument. Releases (copy) where the argument is long. */
int ac__task_submit(struct ac_task *task);
/* The single call in slot that a worker runs and that has more than one unit, some of them not
 * begun; NULL. *left: how many. */
struct ac_task *ac__task_divisible(struct ac_pool *pool, uint32_t slot, uint32_t *left);
/* As ac_task_cancel. */
int ac__task_cancel(struct ac_task *task, int kill);

#endif

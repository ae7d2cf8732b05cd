/* SPDX-License-Identifier: MIT */
/* A single call as its owner sees it: a job of one piece, and the user's handle. */
#ifndef AC__TASK_H
#define AC__TASK_H

#include "pool.h"

#define AC__TASK_SMALL 64

struct ac_task {
	struct ac__job job;
	struct ac_pool *pool;	/* not to be touched once ended: it may be closed */
	struct ac__room *room;	/* used while a result lies in it */
	_Atomic int ended;	/* 0: not yet; 1: success; else the status */
	/* Who frees it: the engine sets released as the last that it does with
	 * it, the user abandons it (under the lock) if that has not come yet. */
	_Atomic bool released;
	bool abandoned;

	ac_call_fn *fn;
	void *copy;		/* of the argument while it waits in the queue */
	const void *arg;
	size_t arg_len;
	int64_t timeout_ns;
	unsigned retries;
	uint32_t slot;		/* while published */
	bool published;
	uint32_t units;		/* divisible into so many, now; 0: not */
	uint64_t index;		/* its place in a stream */

	void (*done)(void *done_arg, struct ac_task *task);
	void *done_arg;
	struct ac_task *next_callback;
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

/* The engine is through with it. Under the lock. */
void ac__task_release(struct ac_task *task);
/* The user is, or who stands for him. Under the lock. */
void ac__task_abandon(struct ac_task *task);
/* May a task be handed in? 0, or why not. Under the lock, which it may give up: what else
 * the answer depends on is looked at after it. */
int ac__task_admit(struct ac_pool *pool);
/* A task that is written and was admitted: into a slot, or into the queue with a copy of
 * its argument. Under the lock. */
int ac__task_submit(struct ac_task *task);
/* It is handed in, and its caller goes away: see to it that somebody does what it needs.
 * Under the lock. */
void ac__task_see_to(struct ac_task *task);
/* The single call in slot that a worker is at and that has more than one unit, some of
 * them not begun; NULL. *left: how many. Under the lock. */
struct ac_task *ac__task_divisible(struct ac_pool *pool, uint32_t slot, uint32_t *left);
/* Make one for a call of fn. NULL: no memory. */
struct ac_task *ac__task_make(struct ac_pool *pool, ac_call_fn *fn,
			      const void *arg, size_t len);
/* One that was never submitted, or that nobody holds any more. */
void ac__task_destroy(struct ac_task *task);
/* As ac_task_cancel, under the lock. */
int ac__task_cancel(struct ac_task *task, int kill);

#endif

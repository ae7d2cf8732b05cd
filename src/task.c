/* SPDX-License-Identifier: MIT */
/* Single calls: bytes in, bytes out, waited for, cancelled, called back. */
#include "task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the handle ---- */

static void release_result(struct ac_task *task)
{
	if (task->result_block) {
		ac__block_give(&task->memory->arena, AC__OWNER_SEAT, task->result_block);
		ac__memory_release(task->memory);
	} else if (task->result != task->small) {
		free(task->result);
	}
}

static void release_bound(struct ac_task *task)
{
	struct ac_bound *bound = task->bound;

	if (AC__LIKELY(!bound))
		return;
	task->bound = NULL;
	ac__bound_release(bound);
}

void ac__task_destroy(struct ac_task *task)
{
	release_result(task);
	release_bound(task);
	free(task->copy);
	free(task->failure);
	free(task);
}

void ac__task_release(struct ac_task *task)
{
	if (task->unwanted)
		ac__task_destroy(task);
	else
		atomic_store_explicit(&task->released, true,
				      memory_order_release);
}

void ac__task_give_up(struct ac_task *task)
{
	if (ac__task_is_released(task))
		ac__task_destroy(task);
	else
		task->unwanted = true;
}

static const struct ac__job_ops task_ops;

struct ac_task *ac__task_make(struct ac_pool *pool, ac_call_fn *fn,
			      const void *arg, size_t len)
{
	struct ac_task *task = malloc(sizeof *task);

	if (!task)
		return NULL;
	memset(task, 0, offsetof(struct ac_task, small));
	task->job.ops = &task_ops;
	task->job.source = &pool->slots.calls;
	task->pool = pool;
	task->memory = pool->memory;
	task->fn = fn;
	task->arg = arg;
	task->arg_len = len;
	task->result = task->small;
	return task;
}

/* ---- ending ---- */

static void note_failure(struct ac_task *task, const struct ac__ending *ending)
{
	task->failure = malloc(sizeof *task->failure);
	if (task->failure) /* else the status alone, in ended, must do */
		ac__ending_fill(ending, task->index, task->failure);
}

static void end_task(struct ac_task *task, const struct ac__ending *ending)
{
	struct ac_pool *pool = task->pool;

	task->in_slot = false;
	release_bound(task); /* it has never come into a slot */
	task->pid = ending->pid;
	task->seat = ending->seat;
	if (ending->status)
		note_failure(task, ending);
	ac__slots_count(&pool->slots, ending->status, 1);
	if (task->ended_hook)
		task->ended_hook(task->hook_arg, task);
	if (task->done)
		ac__callbacks_push(&pool->callbacks, &task->callback);
	atomic_store_explicit(&task->ended, ending->status ? ending->status : 1,
			      memory_order_release);
	if (!task->done)
		ac__task_release(task);
}

/* A long result stays where it is. */
static int keep_block(struct ac_task *task, const struct ac__block *block, uint32_t holder)
{
	if (!ac__block_pass(&task->memory->arena, block->id, holder, AC__OWNER_SEAT))
		return AC_EBROKEN;
	task->result = block->data;
	task->result_block = block->id;
	ac__memory_use(task->memory);
	return 0;
}

/* A shorter one is copied, so that its block is free again at once. */
static int keep_copy(struct ac_task *task, const void *data, size_t len)
{
	if (len > sizeof task->small) {
		task->result = malloc(len);
		if (!task->result) {
			task->result = task->small;
			return -ENOMEM;
		}
	}
	memcpy(task->result, data, len);
	return 0;
}

/* Where the result lies and how long it is, the region says: read once, checked. */
static int take_result(struct ac_task *task, uint32_t slot)
{
	struct ac__arena *arena = &task->memory->arena;
	const struct ac__task_shm *row = ac__slots_task(&task->pool->slots, slot);
	uint64_t len = *(volatile const uint64_t *)&row->len;
	bool small = !(row->flags & AC__TASK_RESULT_BLOCK);
	uint32_t id = small ? 0 : *(volatile const uint32_t *)&row->result_block;
	uint32_t holder = AC__HOLDER_TASK | slot;
	struct ac__block block;
	int r;

	task->result_len = len;
	if (small)
		return len <= AC__INLINE ? keep_copy(task, row->data, len) : AC_EBROKEN;
	r = ac__block_check(arena, id, holder, len, &block);
	if (r == 0 && len > AC__COPY_LOCKED)
		return keep_block(task, &block, holder);
	if (r == 0)
		r = keep_copy(task, block.data, len);
	ac__block_give(arena, holder, id);
	return r;
}

/* ---- a job of one piece ---- */

/* The worker claims units from the cursor, the owner takes back by moving its end. */
static void write_units(struct ac__slots *slots, struct ac_task *task, uint32_t slot)
{
	struct ac__task_shm *row = ac__slots_task(slots, slot);

	if (!task->units)
		return;
	row->flags |= AC__TASK_UNITS;
	slots->slots[slot].end = task->units;
	atomic_store_explicit(&row->cursor, (uint64_t)task->units << 32, memory_order_relaxed);
}

static void bind_to_slot(struct ac__slots *slots, struct ac_task *task, uint32_t slot)
{
	if (AC__LIKELY(!task->bound))
		return;
	ac__slots_bind(slots, slot, task->bound);
	task->bound = NULL;
}

/* A retry writes a small argument anew, since the dead worker may have begun to write its result
 * over it; one in a block is still there. */
static bool needs_copy_for_retries(const struct ac_task *task)
{
	return task->retries && task->arg_len <= AC__INLINE;
}

/* What the slot is to free after it has copied from there. */
static void *disown_copy(struct ac_task *task)
{
	void *copy = task->copy;

	if (!copy || needs_copy_for_retries(task))
		return NULL;
	task->copy = NULL;
	task->arg = NULL;
	return copy;
}

/* Into the slot, or -ENOMEM: no memory for the argument. */
static int write_task(struct ac_task *task, uint32_t slot)
{
	struct ac__slots *slots = &task->pool->slots;
	struct ac__task_shm *row = ac__slots_task(slots, slot);
	void *to = ac__slots_arg(slots, slot, task->arg_len);
	const void *from = task->arg;

	if (!to)
		return -ENOMEM;
	ac__slots_write_arg(slots, slot, to, from, task->arg_len, disown_copy(task));
	row->kind = AC__KIND_CALL;
	row->fn = (uintptr_t)task->fn;
	write_units(slots, task, slot);
	bind_to_slot(slots, task, slot);
	task->slot = slot;
	task->in_slot = true;
	if (task->timeout_ns)
		ac__slots_limit(slots, slot, task->timeout_ns);
	return 0;
}

static int write_piece(struct ac__slots *slots, struct ac__job *job, uint32_t slot)
{
	static const struct ac__ending no_memory = {
		.status = -ENOMEM,
		.exit_code = -1,
		.text = "no shared memory for the argument"
	};
	struct ac_task *task = AC__CONTAINER(job, struct ac_task, job);
	int r = write_task(task, slot);

	if (r == 0)
		return 0;
	if (ac__slots_any_out(slots))
		return AC__WRITE_NO_MEMORY;
	ac__turns_dequeue(&slots->turns, job);
	end_task(task, &no_memory);
	return r;
}

static void rewrite_task(struct ac__slots *slots, struct ac_task *task, uint32_t slot)
{
	struct ac__task_shm *row = ac__slots_task(slots, slot);

	row->len = task->arg_len;
	row->flags = slots->slots[slot].arg_block ? AC__TASK_ARG_BLOCK : 0;
	if (!slots->slots[slot].arg_block && task->arg_len)
		memcpy(row->data, task->copy, task->arg_len);
	write_units(slots, task, slot);
	ac__slots_write_bound(slots, slot);
}

static enum ac__collected collect_piece(struct ac__slots *slots, struct ac__job *job,
					uint32_t slot, const struct ac__ending *ending)
{
	struct ac_task *task = AC__CONTAINER(job, struct ac_task, job);
	struct ac__ending lost;
	int r;

	if (ending->status == AC_EDIED && task->retries && !slots->over.status) {
		task->retries--;
		rewrite_task(slots, task, slot);
		return AC__PIECE_AGAIN;
	}
	r = ending->status ? 0 : take_result(task, slot);
	if (AC__LIKELY(r == 0)) {
		end_task(task, ending);
		return AC__PIECE_OVER;
	}
	lost = *ending;
	lost.status = r;
	strcpy(lost.text, r == -ENOMEM ? "no memory for the result" :
					 "the result is not where it should be");
	end_task(task, &lost);
	return r == AC_EBROKEN ? AC__PIECE_DAMAGED : AC__PIECE_OVER;
}

static void fail_rest(struct ac__slots *slots, struct ac__job *job,
		      const struct ac__ending *ending)
{
	(void)slots;
	end_task(AC__CONTAINER(job, struct ac_task, job), ending);
}

static const struct ac__job_ops task_ops = {
	.write = write_piece,
	.collect = collect_piece,
	.fail_rest = fail_rest,
	.damage = "a task's result",
};

/* ---- handing in ---- */

/* Of the argument, which is the caller's until ac_pool_submit returns. Releases (copy). */
static int copy_arg(struct ac_task *task)
{
	void *copy;

	if (task->copy || !task->arg_len)
		return 0;
	copy = malloc(task->arg_len);
	if (!copy)
		return -ENOMEM;
	if (task->arg_len > AC__COPY_LOCKED)
		ac__engine_copy(task->pool, copy, task->arg, task->arg_len);
	else
		memcpy(copy, task->arg, task->arg_len);
	task->arg = task->copy = copy;
	return 0;
}

static int queue_task(struct ac_task *task)
{
	int r = copy_arg(task);

	if (r == 0) /* again: the lock may have been released */
		r = ac__engine_accepts(task->pool);
	if (r == 0)
		ac__turns_enqueue(&task->pool->slots.turns, &task->job);
	return r;
}

/* The copy is made by this thread, without the lock. Nobody else knows of the task yet, so it can't
 * be cancelled; but the pool may be shut, terminated or fail meanwhile. */
static int fill_now(struct ac_task *task, uint32_t slot)
{
	struct ac_pool *pool = task->pool;
	const struct ac__fill fill = pool->slots.slots[slot].fill;
	int r;

	ac__slots_begin_fill(&pool->slots, slot, NULL);
	ac__engine_copy(pool, fill.to, fill.from, fill.len);
	r = ac__engine_accepts(pool);
	if (r == 0)
		pool->slots.slots[slot].job = &task->job;
	else
		task->in_slot = false;
	ac__slots_end_fill(&pool->slots, slot);
	return r;
}

static int publish_now(struct ac_task *task)
{
	struct ac__slots *slots = &task->pool->slots;
	uint32_t slot = (uint32_t)ac__slots_take(slots);
	int r = write_task(task, slot);

	if (AC__UNLIKELY(r < 0)) {
		ac__slots_give_back(slots, slot);
		return ac__slots_any_out(slots) ? queue_task(task) : r;
	}
	if (AC__UNLIKELY(task->arg_len > AC__COPY_LOCKED))
		return fill_now(task, slot);
	ac__slots_publish(slots, slot, &task->job);
	return 0;
}

/* Without advancing where there are free slots and no job waits: this is every call's path. */
int ac__task_admit(struct ac_pool *pool)
{
	int r = ac__engine_accepts(pool);

	if (r < 0 || (ac__slots_any_free(&pool->slots) && !ac__slots_any_waits(&pool->slots)))
		return r;
	ac__engine_advance(pool);
	return ac__engine_accepts(pool); /* it may have failed */
}

/* Not before those that wait; and not with memory for which another piece waits. */
static bool may_publish_now(const struct ac__slots *slots, const struct ac_task *task)
{
	return ac__slots_any_free(slots) && ac__source_is_idle(task->job.source) &&
	       !(slots->lacks_memory && task->arg_len > AC__INLINE);
}

int ac__task_submit(struct ac_task *task)
{
	struct ac__slots *slots = &task->pool->slots;
	int r = needs_copy_for_retries(task) ? copy_arg(task) : 0;

	if (r == 0)
		r = may_publish_now(slots, task) ? publish_now(task) : queue_task(task);
	if (r == 0)
		slots->tally.submitted++;
	return r;
}

/* ---- cancelling ---- */

/* Take out a task that no worker has taken yet. */
static bool take_out(struct ac__slots *slots, struct ac_task *task)
{
	if (!task->in_slot) {
		ac__turns_dequeue(&slots->turns, &task->job);
		return true;
	}
	if (slots->slots[task->slot].state == AC__SLOT_FILLING) {
		ac__slots_abandon_fill(slots, task->slot);
		return true;
	}
	return ac__slots_withdraw(slots, task->slot);
}

int ac__task_cancel(struct ac_task *task, int kill)
{
	static const struct ac__ending cancelled = { .status = AC_ECANCELED,
						     .exit_code = -1,
						     .text = "cancelled" };
	struct ac_pool *pool = task->pool;

	ac__engine_collect(pool);
	if (ac__task_has_ended(task))
		return -EALREADY;
	if (!take_out(&pool->slots, task)) {
		if (!kill)
			return -EBUSY;
		if (!ac__engine_kill_task(pool, task->slot)) {
			ac__engine_collect(pool);
			return ac__task_has_ended(task) ? -EALREADY : -EBUSY;
		}
		pool->slots.slots[task->slot].job = NULL;
	}
	end_task(task, &cancelled);
	return 0;
}

/* ---- dividing ---- */

struct ac_task *ac__task_divisible(struct ac_pool *pool, uint32_t slot, uint32_t *left)
{
	const struct ac__slot *mine = &pool->slots.slots[slot];
	struct ac_task *task;

	if (mine->state != AC__SLOT_PUBLISHED || !mine->job || mine->job->ops != &task_ops)
		return NULL;
	task = AC__CONTAINER(mine->job, struct ac_task, job);
	if (task->units < 2)
		return NULL;
	*left = ac__slots_units_left(&pool->slots, slot);
	return *left ? task : NULL;
}

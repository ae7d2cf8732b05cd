/* SPDX-License-Identifier: MIT */
/* Single calls: bytes in, bytes out, waited for, cancelled, called back. */
#include "task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A result up to this is copied, so that its block is free again at once; a larger one
 * stays where it is. */
#define COPY_UP_TO 65536

/* ---- the handle ---- */

static void release_result(struct ac_task *task)
{
	if (task->result_block) {
		ac__block_give(&task->room->arena, AC__OWNER_SEAT,
			       task->result_block);
		ac__room_leave(task->room);
	} else if (task->result != task->small) {
		free(task->result);
	}
}

void ac__task_destroy(struct ac_task *task)
{
	release_result(task);
	free(task->copy);
	free(task->failure);
	free(task);
}

void ac__task_release(struct ac_task *task)
{
	if (task->abandoned)
		ac__task_destroy(task);
	else
		atomic_store_explicit(&task->released, true,
				      memory_order_release);
}

static bool is_released(struct ac_task *task)
{
	return atomic_load_explicit(&task->released, memory_order_acquire);
}

void ac__task_abandon(struct ac_task *task)
{
	if (is_released(task))
		ac__task_destroy(task);
	else
		task->abandoned = true;
}

void ac_task_free(struct ac_task *task)
{
	struct ac_pool *pool;

	if (!task)
		return;
	/* Released: its pool may be gone, and nobody else knows of it. */
	if (is_released(task)) {
		ac__task_destroy(task);
		return;
	}
	pool = task->pool;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed)) {
		ac__task_destroy(task); /* this child's copy: nothing will end it here */
		return;
	}
	ac__pool_lock(pool);
	ac__task_abandon(task);
	ac__pool_unlock(pool);
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
	task->pool = pool;
	task->room = pool->room;
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
		ac__outcome_fill(task->failure, ending, task->index);
}

static void count_end(struct ac_pool *pool, int status)
{
	if (status == 0)
		pool->done++;
	else if (status == AC_ECANCELED)
		pool->cancelled++;
	else
		pool->failed++;
}

static void end_task(struct ac_pool *pool, struct ac_task *task,
		     const struct ac__ending *ending)
{
	task->published = false;
	task->pid = ending->pid;
	task->seat = ending->seat;
	if (ending->status)
		note_failure(task, ending);
	count_end(pool, ending->status);
	if (task->ended_hook)
		task->ended_hook(task->hook_arg, task);
	if (task->done)
		ac__helper_push(pool, task);
	atomic_store_explicit(&task->ended, ending->status ? ending->status : 1,
			      memory_order_release);
	if (!task->done)
		ac__task_release(task);
}

static int keep_block(struct ac_pool *pool, struct ac_task *task,
		      const struct ac__block *block, uint32_t holder)
{
	if (!ac__block_pass(ac__pool_arena(pool), block->id, holder, AC__OWNER_SEAT))
		return AC_EBROKEN;
	task->result = block->data;
	task->result_block = block->id;
	ac__room_use(task->room);
	return 0;
}

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
static int take_result(struct ac_pool *pool, struct ac_task *task, uint32_t slot)
{
	const struct ac__task_shm *row = ac__books_task(pool, slot);
	uint64_t len = *(volatile const uint64_t *)&row->len;
	bool small = !(row->flags & AC__TASK_RESULT_BLOCK);
	uint32_t id = small ? 0 : *(volatile const uint32_t *)&row->result_block;
	uint32_t holder = AC__HOLDER_TASK | slot;
	struct ac__block block;
	int r;

	task->result_len = len;
	if (small)
		return len <= AC__INLINE ? keep_copy(task, row->data, len) :
					   AC_EBROKEN;
	r = ac__block_check(ac__pool_arena(pool), id, holder, len, &block);
	if (r == 0 && len > COPY_UP_TO)
		return keep_block(pool, task, &block, holder);
	if (r == 0)
		r = keep_copy(task, block.data, len);
	ac__block_give(ac__pool_arena(pool), holder, id);
	return r;
}

/* ---- a job of one piece ---- */

/* The worker claims units from the cursor, the owner takes back by moving its end. */
static void write_units(struct ac_pool *pool, struct ac_task *task, uint32_t slot)
{
	struct ac__task_shm *row = ac__books_task(pool, slot);

	if (!task->units)
		return;
	row->flags |= AC__TASK_UNITS;
	pool->slots[slot].end = task->units;
	atomic_store_explicit(&row->cursor, (uint64_t)task->units << 32,
			      memory_order_relaxed);
}

/* Into the slot, or -ENOMEM: no room for the argument. */
static int write_task(struct ac_pool *pool, struct ac_task *task, uint32_t slot)
{
	struct ac__task_shm *row = ac__books_task(pool, slot);
	void *room = ac__books_arg_room(pool, slot, task->arg_len);

	if (!room)
		return -ENOMEM;
	if (task->arg_len)
		memcpy(room, task->arg, task->arg_len);
	row->kind = AC__KIND_CALL;
	row->fn = (uintptr_t)task->fn;
	write_units(pool, task, slot);
	task->slot = slot;
	task->published = true;
	if (task->timeout_ns) {
		pool->slots[slot].timeout_ns = task->timeout_ns;
		pool->timed++;
	}
	return 0;
}

static void drop_copy(struct ac_task *task)
{
	free(task->copy);
	task->copy = NULL;
}

static int prepare_task(struct ac_pool *pool, struct ac__job *job, uint32_t slot)
{
	static const struct ac__ending no_memory = {
		.status = -ENOMEM,
		.exit_code = -1,
		.text = "no shared memory for the argument"
	};
	struct ac_task *task = AC__CONTAINER(job, struct ac_task, job);
	int r = write_task(pool, task, slot);

	/* What is under way will give memory back. */
	if (r < 0 && pool->published)
		return -EAGAIN;
	if (r < 0) {
		ac__books_dequeue(pool, job);
		end_task(pool, task, &no_memory);
	} else if (!task->retries) {
		drop_copy(task);
	}
	return r;
}

/* The dead worker may have begun to write a small result over the argument. */
static void rewrite_task(struct ac_pool *pool, struct ac_task *task, uint32_t slot)
{
	struct ac__task_shm *row = ac__books_task(pool, slot);

	row->len = task->arg_len;
	row->flags = pool->slots[slot].arg_block ? AC__TASK_ARG_BLOCK : 0;
	if (!pool->slots[slot].arg_block && task->arg_len)
		memcpy(row->data, task->copy, task->arg_len);
	write_units(pool, task, slot);
}

static bool settle_task(struct ac_pool *pool, struct ac__job *job, uint32_t slot,
			const struct ac__ending *ending)
{
	struct ac_task *task = AC__CONTAINER(job, struct ac_task, job);
	struct ac__ending lost;
	int r;

	if (ending->status == AC_EDIED && task->retries && !pool->terminated &&
	    !pool->failure.status) {
		task->retries--;
		rewrite_task(pool, task, slot);
		return true;
	}
	r = ending->status ? 0 : take_result(pool, task, slot);
	if (AC__LIKELY(r == 0)) {
		end_task(pool, task, ending);
		return false;
	}
	lost = *ending;
	lost.status = r;
	strcpy(lost.text, r == -ENOMEM ? "no memory for the result" :
					 "the result is not where it should be");
	end_task(pool, task, &lost);
	if (r == AC_EBROKEN)
		ac__pool_break(pool, "a task's result");
	return false;
}

static void abort_task(struct ac_pool *pool, struct ac__job *job,
		       const struct ac__ending *ending)
{
	end_task(pool, AC__CONTAINER(job, struct ac_task, job), ending);
}

static const struct ac__job_ops task_ops = {
	.prepare = prepare_task,
	.settle = settle_task,
	.abort = abort_task,
};

/* ---- handing in ---- */

static int copy_arg(struct ac_task *task)
{
	if (task->copy || !task->arg_len)
		return 0;
	task->copy = malloc(task->arg_len);
	if (!task->copy)
		return -ENOMEM;
	memcpy(task->copy, task->arg, task->arg_len);
	task->arg = task->copy;
	return 0;
}

static int queue_task(struct ac_pool *pool, struct ac_task *task)
{
	int r = copy_arg(task);

	if (r == 0)
		ac__books_enqueue(pool, &task->job);
	return r;
}

static int publish_now(struct ac_pool *pool, struct ac_task *task, uint32_t slot)
{
	int r = write_task(pool, task, slot);

	if (r == 0) {
		ac__books_publish(pool, slot, &task->job);
		return 0;
	}
	ac__books_return_slot(pool, slot);
	return pool->published ? queue_task(pool, task) : r;
}

int ac__task_admit(struct ac_pool *pool)
{
	int r = ac__pool_accepts(pool);

	if (r < 0 || (pool->free_count && !pool->first_job))
		return r;
	ac__wait_advance(pool);
	return ac__pool_accepts(pool); /* it may have broken */
}

int ac__task_submit(struct ac_task *task)
{
	struct ac_pool *pool = task->pool;
	int64_t slot;
	int r = task->retries ? copy_arg(task) : 0;

	if (r < 0)
		return r;
	slot = pool->first_job ? -1 : ac__books_take_slot(pool);
	r = slot < 0 ? queue_task(pool, task) :
		       publish_now(pool, task, (uint32_t)slot);
	if (r == 0)
		pool->submitted++;
	return r;
}

void ac__task_see_to(struct ac_task *task)
{
	struct ac_pool *pool = task->pool;

	if (!pool->helper)
		ac__helper_need(pool);
	/* Who sleeps without a thought of an audit: now there is something to audit. */
	if (task->done || task->timeout_ns || pool->first_job || pool->timer >= 0 ||
	    (pool->collecting && pool->audit_at == INT64_MAX))
		ac__wait_changed(pool);
}

static int take_opts(struct ac_task *task, const struct ac_submit_opts *user)
{
	struct ac_submit_opts opts;
	int r = ac__opts_copy(&opts, sizeof opts, user);

	if (r < 0)
		return r;
	if (opts.flags)
		return -EINVAL;
	task->done = opts.done;
	task->done_arg = opts.done_arg;
	task->timeout_ns = AC__MAX(opts.timeout_ns, 0);
	task->retries = opts.retries;
	return 0;
}

int ac_pool_submit(struct ac_pool *pool, struct ac_task **out, ac_call_fn *fn,
		   const void *arg, size_t arg_len,
		   const struct ac_submit_opts *opts)
{
	struct ac_task *task;
	int r;

	if (!pool || !fn || (!arg && arg_len))
		return -EINVAL;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	task = ac__task_make(pool, fn, arg, arg_len);
	if (!task)
		return -ENOMEM;
	task->abandoned = !out;
	r = opts ? take_opts(task, opts) : 0;
	if (r < 0)
		goto err_task;
	ac__pool_lock(pool);
	r = ac__task_admit(pool);
	if (r == 0)
		r = ac__task_submit(task);
	if (r == 0) {
		pool->callbacks += task->done != NULL;
		if (out)
			*out = task;
		ac__task_see_to(task);
	}
	ac__pool_unlock(pool);
	if (r == 0)
		return 0;
err_task:
	ac__task_destroy(task);
	return r;
}

/* ---- waiting and taking ---- */

static int end_of(struct ac_task *task)
{
	return atomic_load_explicit(&task->ended, memory_order_acquire);
}

static bool task_is_over(void *arg)
{
	return end_of(arg) != 0;
}

int ac_task_ready(struct ac_task *task)
{
	struct ac_pool *pool;

	if (!task)
		return -EINVAL;
	if (end_of(task))
		return 1;
	pool = task->pool;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	/* Nobody may be collecting: a look must be enough to see an end. */
	if (ac__done_any(&pool->board)) {
		ac__pool_lock(pool);
		ac__wait_advance(pool);
		ac__wait_changed(pool);
		ac__pool_unlock(pool);
	}
	return end_of(task) != 0;
}

int ac_task_wait(struct ac_task *task, int64_t timeout_ns)
{
	struct ac_pool *pool;
	int64_t deadline;
	int r;

	if (!task)
		return -EINVAL;
	if (end_of(task))
		return 0;
	pool = task->pool;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	deadline = ac__sys_deadline(timeout_ns);
	ac__pool_lock(pool);
	r = ac__wait(pool, task_is_over, task, deadline);
	ac__pool_unlock(pool);
	return r;
}

static void fill_outcome(const struct ac_task *task, struct ac_outcome *outcome)
{
	if (task->failure) {
		*outcome = *task->failure;
		return;
	}
	memset(outcome, 0, sizeof *outcome);
	outcome->exit_code = -1;
	outcome->pid = task->pid;
	outcome->worker = task->seat ? task->seat - 1 : 0;
	outcome->index = task->index;
}

int ac_task_outcome(struct ac_task *task, struct ac_outcome *outcome)
{
	int end;

	if (!task || !outcome)
		return -EINVAL;
	end = end_of(task);
	if (!end)
		return -EAGAIN;
	fill_outcome(task, outcome);
	outcome->status = end < 0 ? end : 0;
	return 0;
}

int ac_task_result(struct ac_task *task, const void **data, size_t *len)
{
	int end;

	if (!task || !data)
		return -EINVAL;
	end = end_of(task);
	if (end <= 0)
		return end ? end : -EAGAIN;
	*data = task->result;
	if (len)
		*len = task->result_len;
	return 0;
}

/* ---- cancelling ---- */

static bool is_waiting(struct ac_pool *pool, struct ac_task *task)
{
	if (!task->published) {
		ac__books_dequeue(pool, &task->job);
		return true;
	}
	return ac__books_withdraw(pool, task->slot);
}

int ac__task_cancel(struct ac_task *task, int kill)
{
	struct ac__ending ending = { .status = AC_ECANCELED, .exit_code = -1 };
	struct ac_pool *pool = task->pool;

	ac__books_collect(pool);
	if (end_of(task))
		return -EALREADY;
	strcpy(ending.text, "cancelled");
	if (!is_waiting(pool, task)) {
		if (!kill)
			return -EBUSY;
		if (!ac__books_condemn(pool, task->slot)) {
			ac__books_collect(pool);
			return end_of(task) ? -EALREADY : -EBUSY;
		}
		pool->slots[task->slot].job = NULL;
	}
	end_task(pool, task, &ending);
	return 0;
}

int ac_task_cancel(struct ac_task *task, int kill)
{
	struct ac_pool *pool;
	int r;

	if (!task)
		return -EINVAL;
	if (end_of(task))
		return -EALREADY;
	pool = task->pool;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	ac__pool_lock(pool);
	r = ac__task_cancel(task, kill);
	ac__wait_advance(pool);
	ac__wait_changed(pool);
	ac__pool_unlock(pool);
	return r;
}

/* ---- dividing ---- */

struct ac_task *ac__task_divisible(struct ac_pool *pool, uint32_t slot, uint32_t *left)
{
	const struct ac__slot *mine = &pool->slots[slot];
	struct ac_task *task;

	if (!mine->published || !mine->job || mine->job->ops != &task_ops)
		return NULL;
	task = AC__CONTAINER(mine->job, struct ac_task, job);
	if (task->units < 2)
		return NULL;
	*left = ac__books_units_left(pool, slot);
	return *left ? task : NULL;
}

/* ---- submit and wait ---- */

static void copy_result(const struct ac_task *task, void *result, size_t *len)
{
	size_t room = len ? *len : 0;

	if (result)
		memcpy(result, task->result, AC__MIN(room, task->result_len));
	if (len)
		*len = task->result_len;
}

int ac_pool_call(struct ac_pool *pool, ac_call_fn *fn, const void *arg,
		 size_t arg_len, void *result, size_t *len,
		 struct ac_outcome *outcome)
{
	struct ac_task *task;
	int r;

	if (!pool || !fn || (!arg && arg_len))
		return -EINVAL;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	task = ac__task_make(pool, fn, arg, arg_len);
	if (!task)
		return -ENOMEM;
	ac__pool_lock(pool);
	r = ac__task_admit(pool);
	if (r < 0 && outcome && pool->failure.status)
		ac__outcome_fill(outcome, &pool->failure, 0);
	if (r == 0)
		r = ac__task_submit(task);
	if (r < 0) {
		ac__pool_unlock(pool);
		ac__task_destroy(task);
		return r;
	}
	r = ac__wait(pool, task_is_over, task, INT64_MAX);
	if (r < 0) /* interrupted */
		ac__task_cancel(task, 0);
	ac__pool_unlock(pool);
	if (r == 0) {
		r = end_of(task) < 0 ? end_of(task) : 0;
		if (r == 0)
			copy_result(task, result, len);
		if (outcome)
			ac_task_outcome(task, outcome);
	}
	ac_task_free(task);
	return r;
}

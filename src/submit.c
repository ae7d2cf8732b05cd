/* SPDX-License-Identifier: MIT */
/* Section 3 of the header, the owner's side: handing single calls in, waiting for them. */
#include <errno.h>
#include <string.h>

#include "helper.h"
#include "wait.h"

/* ---- handing in ---- */

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
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	task = ac__task_make(pool, fn, arg, arg_len);
	if (!task)
		return -ENOMEM;
	task->unwanted = !out;
	r = opts ? take_opts(task, opts) : 0;
	if (r < 0)
		goto err_task;
	ac__pool_lock(pool);
	r = ac__task_admit(pool);
	if (r == 0)
		r = ac__task_submit(task);
	if (r == 0) {
		pool->callbacks.pending += task->done != NULL;
		if (out)
			*out = task;
		ac__helper_take_over(task);
	}
	ac__pool_unlock(pool);
	if (r == 0)
		return 0;
err_task:
	ac__task_destroy(task);
	return r;
}

/* ---- waiting and taking ---- */

static int end_of(const struct ac_task *task)
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
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	/* Maybe no thread collects: asking must be enough to see an end. */
	if (ac__done_any(&pool->board)) {
		ac__pool_lock(pool);
		ac__engine_advance(pool);
		ac__wait_fill(pool);
		ac__engine_changed(pool);
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
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	deadline = ac__sys_deadline(timeout_ns);
	ac__pool_lock(pool);
	r = ac__wait_until(pool, task_is_over, task, deadline);
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
	/* In a forked child the block may have become another task's since. */
	if (task->result_block && ac__region_is_private(&task->memory->arena.region))
		return AC_EFORK;
	*data = task->result;
	if (len)
		*len = task->result_len;
	return 0;
}

/* ---- cancelling and freeing ---- */

int ac_task_cancel(struct ac_task *task, int kill)
{
	struct ac_pool *pool;
	int r;

	if (!task)
		return -EINVAL;
	if (end_of(task))
		return -EALREADY;
	pool = task->pool;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	r = ac__task_cancel(task, kill);
	ac__engine_advance(pool);
	ac__engine_changed(pool);
	ac__pool_unlock(pool);
	return r;
}

void ac_task_free(struct ac_task *task)
{
	struct ac_pool *pool;

	if (!task)
		return;
	/* Its pool may be gone, and nobody else knows of the task. */
	if (ac__task_is_released(task)) {
		ac__task_destroy(task);
		return;
	}
	pool = task->pool;
	if (ac__pool_is_forked(pool)) {
		ac__task_destroy(task); /* this child's copy: nothing will end it here */
		return;
	}
	ac__pool_lock(pool);
	ac__task_give_up(task);
	ac__pool_unlock(pool);
}

/* ---- submit and wait ---- */

static void copy_result(const struct ac_task *task, void *result, size_t *len)
{
	size_t size = len ? *len : 0;

	if (result)
		memcpy(result, task->result, AC__MIN(size, task->result_len));
	if (len)
		*len = task->result_len;
}

/* A call that was refused, too, tells what became of it. */
static int refuse(struct ac_outcome *outcome, int code)
{
	struct ac__ending ending = { .status = code, .exit_code = -1 };

	if (!outcome)
		return code;
	strncpy(ending.text, ac_strerror(code), sizeof ending.text - 1);
	ac__ending_fill(&ending, 0, outcome);
	return code;
}

/* Submit and wait, under the lock. */
static int run_task(struct ac_task *task, struct ac_outcome *outcome)
{
	struct ac_pool *pool = task->pool;
	int r = ac__task_admit(pool);

	if (r == 0)
		r = ac__task_submit(task);
	if (r < 0) {
		refuse(outcome, r);
		if (outcome && r == pool->failure.status)
			ac__ending_fill(&pool->failure, 0, outcome);
		ac__task_release(task); /* the engine has never had it */
		return r;
	}
	r = ac__wait_until(pool, task_is_over, task, INT64_MAX);
	if (r < 0) { /* interrupted */
		ac__task_cancel(task, 0);
		refuse(outcome, r);
	}
	return r;
}

int ac_pool_call(struct ac_pool *pool, ac_call_fn *fn, const void *arg,
		 size_t arg_len, void *result, size_t *len,
		 struct ac_outcome *outcome)
{
	struct ac_task *task;
	int r;

	if (!pool || !fn || (!arg && arg_len))
		return refuse(outcome, -EINVAL);
	if (ac__pool_is_forked(pool))
		return refuse(outcome, AC_EFORK);
	task = ac__task_make(pool, fn, arg, arg_len);
	if (!task)
		return refuse(outcome, -ENOMEM);
	ac__pool_lock(pool);
	r = run_task(task, outcome);
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

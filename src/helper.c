/* SPDX-License-Identifier: MIT */
/* The helper thread, and callbacks: see the header. */
#include "helper.h"

#include "wait.h"

/* ---- callbacks ---- */

/* In a scope of its own: a callback that throws leaves through it. */
static void call_back(struct ac_pool *pool, struct ac_task *task)
{
	struct ac__calling calling __attribute__((cleanup(ac__engine_end_callback)));

	ac__engine_begin_callback(pool, &calling);
	task->done(task->done_arg, task);
}

static void end_running(struct ac_pool **pool)
{
	(*pool)->callbacks.running = false;
	/* A thread that joins waits for the last callback's return. */
	ac__sleep_wake_finished(&(*pool)->sleep);
}

static void end_callback(struct ac_task **task)
{
	(*task)->pool->callbacks.pending--;
	ac__task_release(*task);
}

static void run_next(struct ac_pool *pool)
{
	struct ac_task *task __attribute__((cleanup(end_callback))) =
		ac__task_of_callback(ac__callbacks_pop(&pool->callbacks));

	call_back(pool, task);
}

/* One after the other, also when an event loop and a closing thread both come here. */
static void run_callbacks(struct ac_pool *pool, bool by_helper)
{
	struct ac_pool *running __attribute__((cleanup(end_running))) = pool;

	running->callbacks.running = true;
	/* Once an event loop drives the pool, only that runs them. */
	while (pool->callbacks.first && !(by_helper && ac__sleep_is_looped(&pool->sleep)))
		run_next(pool);
}

static void run_if_none_runs(struct ac_pool *pool, bool by_helper)
{
	if (!pool->callbacks.running)
		run_callbacks(pool, by_helper);
}

void ac__helper_run_callbacks(struct ac_pool *pool)
{
	run_if_none_runs(pool, false);
}

/* ---- the thread ---- */

static bool has_work(void *arg)
{
	const struct ac_pool *pool = arg;

	return (pool->callbacks.first && !pool->callbacks.running) || pool->helper.stop ||
	       pool->slots.first_fill;
}

static void *run_helper(void *arg)
{
	struct ac_pool *pool = arg;

	ac__sys_name("allcores-helper");
	ac__pool_lock(pool);
	while (!pool->helper.stop) {
		ac__wait_helping(pool, has_work, pool);
		while (ac__engine_fill_one(pool))
			;
		run_if_none_runs(pool, true);
	}
	pool->helper.running = false;
	/* Callbacks that it leaves are an event loop's, or those of a thread that joins. */
	ac__sleep_wake_finished(&pool->sleep);
	ac__sleep_hand_on(&pool->sleep);
	ac__engine_changed(pool);
	ac__pool_unlock(pool);
	return NULL;
}

void ac__helper_need(struct ac_pool *pool)
{
	struct ac__helper *helper = &pool->helper;

	if (helper->running || helper->stop || ac__sleep_is_looped(&pool->sleep))
		return;
	/* Without a thread all is done by whichever thread waits: slower, never lost. */
	helper->started = helper->running =
		ac__sys_thread(&helper->thread, run_helper, pool) == 0;
}

void ac__helper_take_over(struct ac_task *task)
{
	struct ac_pool *pool = task->pool;
	bool matters = task->done || task->timeout_ns || ac__sleep_is_looped(&pool->sleep);

	if (!pool->helper.running)
		ac__helper_need(pool);
	/* While its argument was copied for the queue, all that was out may have ended: then no end
	 * will come that lets it go out. Afterwards the task may be gone. */
	if (AC__UNLIKELY(task->job.at && ac__slots_any_free(&pool->slots)))
		ac__engine_advance(pool);
	/* The collecting thread may sleep without an audit in mind: now there is something to
	 * audit. */
	if (matters || ac__slots_any_waits(&pool->slots) ||
	    (pool->sleep.collector && pool->audit_at == INT64_MAX))
		ac__engine_changed(pool);
}

void ac__helper_dismiss(struct ac_pool *pool)
{
	pool->helper.stop = true;
	ac__sleep_wake_finished(&pool->sleep);
}

void ac__helper_stop(struct ac_pool *pool)
{
	ac__pool_lock(pool);
	ac__helper_dismiss(pool);
	ac__pool_unlock(pool);
	if (pool->helper.started)
		pthread_join(pool->helper.thread, NULL);
	pool->helper.started = false;
}

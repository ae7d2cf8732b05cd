/* SPDX-License-Identifier: MIT */
/*
 * The helper: the one thread that a pool may have in its owner. It does what
 * nobody waits for: runs callbacks, stops what is over its limit, replaces the
 * dead, refills the ring from a long queue. Started by the first call that returns before
 * its work is done; a pool used through blocking calls never has it, nor one that an
 * event loop drives.
 */
#include "pool.h"

#include "task.h"

/* With a queue behind it the ring is refilled when so little is left in it. Not less than there
 * are workers: an entry that was taken is counted until its taker has moved the head, and
 * one that idles beside the queue would ring nobody (tests/model/collect.pml, FEW). */
#define REFILL_BELOW(pool) ((pool)->board.task_count / 4)

int64_t ac__helper_below(struct ac_pool *pool)
{
	if (pool->callbacks)
		return UINT32_MAX;
	return pool->first_job ? (int64_t)REFILL_BELOW(pool) : -1;
}

void ac__helper_push(struct ac_pool *pool, struct ac_task *task)
{
	task->next_callback = NULL;
	*pool->last_callback = task;
	pool->last_callback = &task->next_callback;
}

static struct ac_task *pop_callback(struct ac_pool *pool)
{
	struct ac_task *task = pool->first_callback;

	pool->first_callback = task->next_callback;
	if (!pool->first_callback)
		pool->last_callback = &pool->first_callback;
	return task;
}

/* One after the other, also when an event loop and a closing thread both come here. */
static void run_callbacks(struct ac_pool *pool, bool by_helper)
{
	if (pool->in_callback)
		return;
	pool->in_callback = true;
	/* Once an event loop drives the pool, only that runs them. */
	while (pool->first_callback && !(by_helper && pool->timer >= 0)) {
		struct ac_task *task = pop_callback(pool);

		ac__pool_unlock(pool);
		task->done(task->done_arg, task);
		ac__pool_lock(pool);
		pool->callbacks--;
		ac__task_release(task);
	}
	pool->in_callback = false;
	/* Whoever joins waits for the last callback's return. */
	ac__wait_wake_finished(pool);
}

void ac__helper_run(struct ac_pool *pool)
{
	run_callbacks(pool, false);
}

static bool has_callbacks(void *arg)
{
	struct ac_pool *pool = arg;

	return pool->first_callback || pool->helper_stop;
}

static void *run_helper(void *arg)
{
	struct ac_pool *pool = arg;

	ac__sys_name("allcores-helper");
	ac__pool_lock(pool);
	while (!pool->helper_stop) {
		ac__wait_helping(pool, has_callbacks);
		run_callbacks(pool, true);
	}
	pool->helper = false;
	pthread_cond_broadcast(&pool->helper_gone);
	ac__pool_unlock(pool);
	return NULL;
}

void ac__helper_need(struct ac_pool *pool)
{
	pthread_t thread;

	if (pool->helper || pool->timer >= 0 || pool->helper_stop)
		return;
	/* Without a thread all is done by whoever waits: slower, never lost. */
	pool->helper = ac__sys_thread(&thread, run_helper, pool) == 0;
	if (pool->helper)
		pthread_detach(thread);
}

void ac__helper_dismiss(struct ac_pool *pool)
{
	pool->helper_stop = true;
	ac__wait_wake_finished(pool);
}

void ac__helper_stop(struct ac_pool *pool)
{
	ac__helper_dismiss(pool);
	while (pool->helper) {
		ac__wait_advance(pool);
		pthread_cond_wait(&pool->helper_gone, &pool->lock);
	}
}

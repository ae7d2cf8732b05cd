/* SPDX-License-Identifier: MIT */
/*
 * A pthread pool: one mutex, one list, one condition for "there is work" and
 * one for "something has ended". It is given what a careful author would give
 * it: one lock for each task in a worker, no signal when nobody waits, and a
 * look at the task before the lock is taken to wait for it.
 */
#include "peer_pthread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "bench.h"

struct peer_task {
	struct peer_task *next;
	ac_map_fn *fn;
	uint64_t arg, result;
	atomic_bool ended;
};

struct peer_pthread {
	pthread_mutex_t lock;
	pthread_cond_t work, ended;
	struct peer_task *first, **last;
	unsigned idle, waiting;
	bool closing;
	unsigned threads;
	pthread_t thread[];
};

/* With the lock held: the next task, or NULL at the end. */
static struct peer_task *pop_task(struct peer_pthread *pool)
{
	struct peer_task *task;

	while (!pool->first) {
		if (pool->closing)
			return NULL;
		pool->idle++;
		pthread_cond_wait(&pool->work, &pool->lock);
		pool->idle--;
	}
	task = pool->first;
	pool->first = task->next;
	if (!pool->first)
		pool->last = &pool->first;
	return task;
}

static void *run_thread(void *arg)
{
	struct peer_pthread *pool = arg;
	struct peer_task *task;

	pthread_mutex_lock(&pool->lock);
	while ((task = pop_task(pool))) {
		pthread_mutex_unlock(&pool->lock);
		task->fn(&task->arg, &task->result, NULL);
		pthread_mutex_lock(&pool->lock);
		atomic_store_explicit(&task->ended, true, memory_order_release);
		if (pool->waiting)
			pthread_cond_broadcast(&pool->ended);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

struct peer_pthread *peer_pthread_open(unsigned threads)
{
	struct peer_pthread *pool = calloc(1, sizeof *pool + threads * sizeof *pool->thread);

	if (!pool)
		bench_die("no memory");
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	pthread_cond_init(&pool->ended, NULL);
	pool->last = &pool->first;
	pool->threads = threads;
	for (unsigned i = 0; i < threads; i++)
		if (pthread_create(&pool->thread[i], NULL, run_thread, pool) != 0)
			bench_die("pthread_create failed");
	return pool;
}

struct peer_task *peer_pthread_submit(struct peer_pthread *pool, ac_map_fn *fn, uint64_t arg)
{
	struct peer_task *task = malloc(sizeof *task);

	if (!task)
		bench_die("no memory");
	*task = (struct peer_task){ .fn = fn, .arg = arg };
	pthread_mutex_lock(&pool->lock);
	*pool->last = task;
	pool->last = &task->next;
	if (pool->idle)
		pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	return task;
}

static void wait_task(struct peer_pthread *pool, struct peer_task *task)
{
	pthread_mutex_lock(&pool->lock);
	pool->waiting++;
	while (!atomic_load_explicit(&task->ended, memory_order_relaxed))
		pthread_cond_wait(&pool->ended, &pool->lock);
	pool->waiting--;
	pthread_mutex_unlock(&pool->lock);
}

uint64_t peer_pthread_collect(struct peer_pthread *pool, struct peer_task *task)
{
	uint64_t result;

	if (!atomic_load_explicit(&task->ended, memory_order_acquire))
		wait_task(pool, task);
	result = task->result;
	free(task);
	return result;
}

void peer_pthread_close(struct peer_pthread *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->threads; i++)
		pthread_join(pool->thread[i], NULL);
	pthread_cond_destroy(&pool->work);
	pthread_cond_destroy(&pool->ended);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

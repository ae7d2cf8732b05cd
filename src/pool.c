/* SPDX-License-Identifier: MIT */
/*
 * A pool's life: open, shut, terminate, join, close; event loops; and what a user's fork leaves of
 * it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpus.h"
#include "helper.h"
#include "wait.h"
#include "workers_kill.h"

/* Tasks published at a time; the rest waits in the owner's memory. */
#define TASKS_LEAST 1024
#define BLOCKS 65536
/* Longer than a wake-up takes (25 us on a virtual machine), so that work that
 * follows at once finds a thread awake; short against a time slice. */
#define SPIN_NS 50000
/* Workers that were told to leave and don't are killed; then the template, if it does not tell
 * of it. */
#define LEAVE_NS (INT64_C(10) * 1000000000)
#define TELL_NS (INT64_C(2) * 1000000000)
/* What a worker of a gentle pool may take to leave once the pool is terminated. */
#define GENTLE_NS (INT64_C(2) * 1000000000)

/* ---- a user's fork ---- */

/* In the template: descriptors that only the owner needs. The bell is the workers' to ring. */
static void be_no_owner(void *arg)
{
	struct ac_pool *pool = arg;

	atomic_store(&pool->forked, true);
	ac__workers_let_go(&pool->workers, true);
	ac__sleep_let_go(&pool->sleep, true);
}

/* In a child of the user's. The region has a guard of its own. */
static void leave_in_child(struct ac__forkguard *guard)
{
	struct ac_pool *pool = AC__CONTAINER(guard, struct ac_pool, guard);

	atomic_store(&pool->forked, true);
	ac__workers_let_go(&pool->workers, false);
	ac__sleep_let_go(&pool->sleep, false);
}

/* ---- opening ---- */

static unsigned count_workers(int wanted, int cpus)
{
	if (wanted > 0)
		return (unsigned)wanted;
	cpus = AC__MIN(cpus, AC__SEATS_MOST - 1);
	return cpus > -(int64_t)wanted ? (unsigned)(cpus + wanted) : 1;
}

/* *runtime is a copy of the user's, which may be of a later version. */
static int check_opts(struct ac_pool_opts *opts, struct ac_runtime *runtime)
{
	int r = 0;

	if (opts->workers >= AC__SEATS_MOST ||
	    opts->flags & ~(AC_POOL_INTERRUPTIBLE | AC_POOL_GENTLE) || opts->trace > 1u << 20)
		return -EINVAL;
	if (!opts->runtime)
		return 0;
	r = ac__opts_copy(runtime, sizeof *runtime, opts->runtime);
	if (r == 0 && (!runtime->run || runtime->flags & ~(uint64_t)AC_RUNTIME_EAGER ||
		       opts->init || opts->start))
		r = -EINVAL;
	opts->runtime = runtime;
	return r;
}

static int open_memory(struct ac_pool *pool, const struct ac_pool_opts *opts, unsigned workers,
		       int cpus)
{
	uint32_t seats = workers + 1;
	struct ac__board_plan board = {
		.tasks = (uint32_t)ac__power_of_two(AC__MAX(TASKS_LEAST, 4 * workers)),
		.trace = opts->trace,
		.recycle = opts->recycle,
		.spin_ns = cpus > 1 ? SPIN_NS : 0,
	};
	struct ac__arena_plan plan = { .seats = seats,
				       .blocks = BLOCKS,
				       .root_len = ac__board_size(&board, seats),
				       .memory = opts->memory,
				       .group = pool };
	int r = ac__memory_open(&pool->memory, &plan);

	if (r < 0)
		return r;
	ac__board_init(&pool->board, &pool->memory->arena, &board);
	pool->spin_ns = board.spin_ns;
	return 0;
}

static int open_workers(struct ac_pool *pool, const struct ac_pool_opts *opts, unsigned workers)
{
	struct ac__template_plan plan = {
		.board = &pool->board,
		.owner_bell = pool->sleep.bell[1],
		.init = opts->init,
		.init_arg = opts->init_arg,
		.group = pool,
		.let_go = be_no_owner,
		.let_go_arg = pool,
	};
	int r = ac__workers_open(&pool->workers, &pool->board, workers, pool->sleep.epoll, opts,
				 &plan);

	if (r < 0)
		return r;
	r = ac__engine_start_all(pool);
	if (r < 0)
		ac__workers_close(&pool->workers);
	return r;
}

static int open_parts(struct ac_pool *pool, const struct ac_pool_opts *opts)
{
	int cpus = ac_cpus(0), r;
	unsigned workers = count_workers(opts->workers, cpus);

	ac__forkguard_add(&pool->guard);
	r = open_memory(pool, opts, workers, cpus);
	if (r < 0)
		goto err_guard;
	r = ac__sleep_open(&pool->sleep, &pool->board);
	if (r < 0)
		goto err_memory;
	/* Before the table of tasks: the less the template has, the faster it forks. */
	r = open_workers(pool, opts, workers);
	if (r < 0)
		goto err_sleep;
	r = ac__slots_open(&pool->slots, &pool->board, workers);
	if (r == 0)
		return 0;
	ac__workers_close(&pool->workers);
err_sleep:
	ac__sleep_close(&pool->sleep);
err_memory:
	ac__memory_release(pool->memory);
err_guard:
	ac__forkguard_remove(&pool->guard);
	return r;
}

static void init_pool(struct ac_pool *pool, const struct ac_pool_opts *opts)
{
	pthread_mutex_init(&pool->lock, NULL);
	pool->interruptible = opts->flags & AC_POOL_INTERRUPTIBLE;
	pool->gentle = opts->flags & AC_POOL_GENTLE;
	pool->audit_at = INT64_MAX;
	pool->guard.left = leave_in_child;
	pool->guard.group = pool;
	ac__callbacks_init(&pool->callbacks);
	ac__template_init(&pool->workers.template);
	pool->sleep.epoll = pool->sleep.timer = -1;
	pool->sleep.bell[0] = pool->sleep.bell[1] = AC__FD_NONE;
}

int ac_pool_open(struct ac_pool **out, const struct ac_pool_opts *user)
{
	struct ac_pool_opts opts;
	struct ac_runtime runtime;
	struct ac_pool *pool;
	int r = ac__opts_copy(&opts, sizeof opts, user);

	if (!out)
		return -EINVAL;
	if (r == 0)
		r = check_opts(&opts, &runtime);
	if (r < 0)
		return r;
	pool = ac__sys_calloc(1, sizeof *pool);
	if (!pool)
		return -ENOMEM;
	init_pool(pool, &opts);
	/* The engine releases it while it starts processes. */
	ac__pool_lock(pool);
	r = open_parts(pool, &opts);
	ac__pool_unlock(pool);
	if (r < 0) {
		pthread_mutex_destroy(&pool->lock);
		free(pool);
		return r;
	}
	*out = pool;
	return 0;
}

/* ---- stopping ---- */

/* 0, or why this caller may not use the pool. */
static int check_caller(const struct ac_pool *pool)
{
	if (!pool)
		return -EINVAL;
	return ac__pool_is_forked(pool) ? AC_EFORK : 0;
}

int ac_pool_shut(struct ac_pool *pool)
{
	int r = check_caller(pool);

	if (r < 0)
		return r;
	ac__pool_lock(pool);
	pool->shut = true;
	/* A thread that takes a stream's results may wait for what could have been pushed yet. */
	ac__sleep_wake_finished(&pool->sleep);
	ac__pool_unlock(pool);
	return 0;
}

/* Within that time; then see_workers_off kills them. */
static void tell_to_leave(struct ac_pool *pool, int64_t within_ns)
{
	int64_t leave_by = ac__sys_deadline(within_ns);

	pool->leave_by = pool->closing ? AC__MIN(pool->leave_by, leave_by) : leave_by;
	if (pool->closing)
		return;
	pool->closing = true;
	pool->workers.retry_at = INT64_MAX;
	atomic_store(&pool->board.shm->closing, 1);
	ac__workers_dismiss(&pool->workers);
}

int ac_pool_terminate(struct ac_pool *pool)
{
	static const struct ac__ending cancelled = { .status = AC_ECANCELED,
						     .exit_code = -1,
						     .text = "the pool was terminated" };
	int r = check_caller(pool);
	bool first;

	if (r < 0)
		return r;
	ac__pool_lock(pool);
	first = !pool->terminated;
	pool->shut = pool->terminated = true;
	pool->workers.retry_at = INT64_MAX;
	/* What is done already counts as done. */
	ac__engine_collect(pool);
	if (!pool->gentle)
		ac__workers_kill_all(&pool->workers);
	else if (first) /* a second SIGTERM would interrupt what the first has begun */
		ac__workers_stop_all(&pool->workers);
	ac__slots_end_all(&pool->slots, &cancelled);
	if (pool->gentle)
		tell_to_leave(pool, GENTLE_NS);
	ac__engine_advance(pool);
	ac__engine_changed(pool);
	ac__pool_unlock(pool);
	return 0;
}

/* ---- joining ---- */

static bool is_work_over(const struct ac_pool *pool)
{
	return !pool->callbacks.pending && ac__slots_all_over(&pool->slots);
}

/* Where there is no helper thread, a thread that joins runs the callbacks. */
static bool is_joiner_needed(void *arg)
{
	const struct ac_pool *pool = arg;

	return is_work_over(pool) || (pool->callbacks.first && !pool->helper.running &&
				      !pool->callbacks.running);
}

static bool are_workers_gone(void *arg)
{
	const struct ac_pool *pool = arg;

	return ac__workers_all_ended(&pool->workers);
}

static bool is_template_gone(void *arg)
{
	const struct ac_pool *pool = arg;

	return !ac__workers_has_template(&pool->workers);
}

/* A worker that is stopped does not notice that it is to leave, and a template that is stopped
 * does not report ends. A template that has none to report yet is left alone: it reaps those that
 * still start, or take their time. */
static void kill_those_that_stay(struct ac_pool *pool, bool closing)
{
	bool past_deadline;

	if (closing || pool->terminated)
		ac__workers_kill_all(&pool->workers);
	else
		ac__workers_kill_unresponsive(&pool->workers);
	past_deadline = ac__workers_only_news_missing(&pool->workers);
	if (past_deadline && pool->past_deadline)
		ac__template_kill(&pool->workers.template);
	pool->past_deadline = past_deadline;
	pool->leave_by = ac__sys_deadline(TELL_NS);
}

static int await_ends(struct ac_pool *pool, bool (*is_over)(void *pool), int64_t deadline,
		      bool closing)
{
	int r;

	for (;;) {
		r = ac__wait_until(pool, is_over, pool, AC__MIN(deadline, pool->leave_by));
		if (r != -ETIMEDOUT)
			return r;
		if (ac__sys_now() >= pool->leave_by)
			kill_those_that_stay(pool, closing);
		if (ac__sys_now() >= deadline)
			return r;
	}
}

/* Until the workers are gone, and then the template. A thread that only joins lets those that leave
 * take their time: a Python worker's finalizers run then. It kills the others even if it joins with a
 * limit. */
static int see_workers_off(struct ac_pool *pool, int64_t deadline, bool closing)
{
	int r;

	if (!pool->closing)
		tell_to_leave(pool, LEAVE_NS);
	r = await_ends(pool, are_workers_gone, deadline, closing);
	if (r != 0)
		return r;
	ac__workers_dismiss_template(&pool->workers);
	return await_ends(pool, is_template_gone, deadline, closing);
}

/* A thread that joins runs the callbacks of an event loop's pool: no other is left to do it. */
static int join_work(struct ac_pool *pool, int64_t deadline)
{
	int r;

	if (pool->callbacks.pending)
		ac__helper_need(pool);
	do {
		r = ac__wait_until(pool, is_joiner_needed, pool, deadline);
		if (!pool->helper.running)
			ac__helper_run_callbacks(pool);
	} while (r == 0 && !is_work_over(pool));
	return r;
}

static int join(struct ac_pool *pool, int64_t deadline)
{
	int r;

	/* Where no time is left to wait for ends, those that have come are seen. */
	ac__engine_poll(pool);
	ac__engine_changed(pool);
	r = join_work(pool, deadline);
	if (r == 0 && pool->shut)
		r = see_workers_off(pool, deadline, false);
	return r;
}

/* Of a scope that runs callbacks, which may throw. */
static void unlock_at_end(struct ac_pool **pool)
{
	ac__pool_unlock(*pool);
}

#define LOCKED_SCOPE(pool)                                                              \
	struct ac_pool *locked_ __attribute__((cleanup(unlock_at_end), unused)) = pool; \
	ac__pool_lock(pool)

int ac_pool_join(struct ac_pool *pool, int64_t timeout_ns)
{
	int64_t deadline = ac__sys_deadline(timeout_ns);
	int r = check_caller(pool);

	if (r < 0)
		return r;
	/* It would wait for itself to return. */
	if (ac__engine_is_calling_back(pool))
		return -EDEADLK;
	LOCKED_SCOPE(pool);
	return join(pool, deadline);
}

/* ---- closing ---- */

static void free_pool(struct ac_pool *pool)
{
	ac__slots_close(&pool->slots);
	ac__memory_release(pool->memory);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* Neither can be interrupted. */
static void finish(struct ac_pool *pool)
{
	LOCKED_SCOPE(pool);
	pool->shut = true;
	while (join_work(pool, INT64_MAX) != 0)
		;
	while (see_workers_off(pool, INT64_MAX, true) != 0)
		;
}

int ac_pool_close(struct ac_pool *pool)
{
	int r = check_caller(pool);

	if (!pool)
		return 0;
	if (r == AC_EFORK) {
		free(pool->workers.records);
		free_pool(pool);
		return r;
	}
	if (ac__engine_is_calling_back(pool))
		return -EDEADLK;
	finish(pool);
	ac__helper_stop(pool);
	ac__workers_close(&pool->workers);
	ac__sleep_close(&pool->sleep);
	ac__forkguard_remove(&pool->guard);
	free_pool(pool);
	return 0;
}

/* ---- event loops ---- */

/* Ends that other calls have noticed since the last dispatch are told of, too. */
static int count_ends(struct ac_pool *pool)
{
	const struct ac__tally *tally = &pool->slots.tally;
	uint64_t ended = tally->done + tally->failed + tally->cancelled;
	uint64_t news = ended - pool->dispatched;

	pool->dispatched = ended;
	return (int)AC__MIN(news, INT32_MAX);
}

int ac_pool_fd(struct ac_pool *pool)
{
	int r = check_caller(pool);

	if (r < 0)
		return r;
	ac__pool_lock(pool);
	r = ac__sleep_open_timer(&pool->sleep);
	if (r == 0 && !pool->helper.stop)
		count_ends(pool); /* those before the first call are not told of */
	if (r == 0) {
		ac__helper_dismiss(pool);
		ac__engine_changed(pool);
		r = pool->sleep.epoll;
	}
	ac__pool_unlock(pool);
	return r;
}

/* What waited behind the pieces that were filled can go out after it, or be filled next time. */
static void fill_slots(struct ac_pool *pool)
{
	bool any = false;

	while (ac__engine_fill_one(pool))
		any = true;
	if (any)
		ac__engine_advance(pool);
}

int ac_pool_dispatch(struct ac_pool *pool)
{
	int r = check_caller(pool);

	if (r < 0)
		return r;
	LOCKED_SCOPE(pool);
	ac__engine_poll(pool);
	fill_slots(pool);
	ac__helper_run_callbacks(pool);
	ac__engine_changed(pool);
	return count_ends(pool);
}

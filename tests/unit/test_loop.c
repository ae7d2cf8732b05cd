/* SPDX-License-Identifier: MIT */
/*
 * A pool driven by an event loop: its descriptor is readable when there is
 * something to do and only then, and dispatch does it: results, callbacks, deaths, limits.
 */
#include "alone_help.h"

#include <poll.h>

static struct ac_pool *pool;
static int fd;

/* One, and those of a sanitizer or an emulator. */
static unsigned threads_before;

static int set_up(void **state)
{
	threads_before = count_threads();
	help_set_up(state);
	pool = open_pool(2);
	/* That the template has a reserve is news, too. */
	EVENTUALLY(has_reserve(pool));
	fd = ac_pool_fd(pool);
	return fd >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	/* Nobody but the test itself may have done the work. */
	bool alone = count_threads() == threads_before;

	ac_pool_close(pool);
	return help_tear_down(state) == 0 && alone ? 0 : -1;
}

static bool wait_readable(int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

struct loop {
	unsigned wakeups, ended, called;
	pthread_t thread;
	bool wrong;
};

static void note_done(void *arg, struct ac_task *task)
{
	struct loop *loop = arg;

	loop->wrong |= ac_task_ready(task) != 1;
	loop->wrong |= !pthread_equal(loop->thread, pthread_self());
	loop->called++;
}

/* As a program would: until so many callbacks have come. */
static void run_loop(struct loop *loop, unsigned count)
{
	int64_t end = now() + 20 * SECOND;

	while (loop->called < count) {
		int r;

		assert_true(now() < end);
		assert_true(wait_readable(10000));
		loop->wakeups++;
		r = ac_pool_dispatch(pool);
		assert_true(r >= 0);
		loop->ended += (unsigned)r;
	}
}

/* Wake-ups while nothing is due: starts of workers may cause a few. */
static unsigned quiet_wakeups(int ms)
{
	int64_t end = now() + ms * MS;
	unsigned n = 0;

	while (now() < end) {
		if (!wait_readable((int)((end - now()) / MS) + 1))
			continue;
		n++;
		assert_int_equal(ac_pool_dispatch(pool), 0);
	}
	return n;
}

static void submit_noted(struct loop *loop, ac_call_fn *fn, int arg, int64_t limit)
{
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .done = note_done,
				       .done_arg = loop,
				       .timeout_ns = limit };

	assert_int_equal(ac_pool_submit(pool, NULL, fn, &arg, sizeof arg, &opts), 0);
}

static void test_loop_descriptor_stays_the_same(void **state)
{
	(void)state;
	assert_int_equal(ac_pool_fd(pool), fd);
	assert_int_equal(ac_pool_dispatch(pool), 0);
	assert_int_equal(ac_pool_fd(pool), fd);
	assert_int_equal(count_threads(), threads_before);
}

static void test_loop_is_quiet_when_nothing_is_due(void **state)
{
	struct loop loop = { .thread = pthread_self() };

	(void)state;
	assert_works(pool);
	ac_pool_dispatch(pool); /* it may count that call */
	assert_true(quiet_wakeups(300) <= 5);
	submit_noted(&loop, nap_ms, 600, 0);
	assert_true(quiet_wakeups(300) <= 5);
	run_loop(&loop, 1);
	assert_int_equal(loop.called, 1);
	assert_false(wait_readable(50));
}

static void test_loop_dispatch_never_blocks(void **state)
{
	struct ac_task *task = submit_int(pool, nap_ms, 400);
	int64_t start = now();

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(ac_pool_dispatch(pool), 0);
	assert_true(now() - start < 300 * MS);
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
}

static void test_loop_runs_callbacks_in_dispatch(void **state)
{
	struct loop loop = { .thread = pthread_self() };

	(void)state;
	for (int i = 0; i < 500; i++)
		submit_noted(&loop, i % 5 ? echo : fail_with, 1, 0);
	assert_int_equal(loop.called, 0);
	run_loop(&loop, 500);
	assert_int_equal(loop.called, 500);
	assert_int_equal(loop.ended, 500);
	assert_false(loop.wrong);
	assert_true(loop.wakeups <= 520);
	assert_false(wait_readable(20));
}

static void submit_next(void *arg, struct ac_task *task)
{
	struct loop *loop = arg;
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .done = submit_next,
				       .done_arg = arg };

	(void)task;
	if (++loop->called < 100)
		loop->wrong |= ac_pool_submit(pool, NULL, echo, NULL, 0, &opts) != 0;
}

static void test_loop_callbacks_may_submit(void **state)
{
	struct loop loop = { .called = 0 };

	(void)state;
	submit_next(&loop, NULL);
	run_loop(&loop, 100);
	assert_int_equal(loop.called, 100);
	assert_false(loop.wrong);
}

static void test_loop_long_queue_is_refilled(void **state)
{
	struct loop loop = { .thread = pthread_self() };

	(void)state;
	for (int i = 0; i < 5000; i++)
		submit_noted(&loop, echo, i, 0);
	run_loop(&loop, 5000);
	assert_int_equal(loop.called, 5000);
	assert_false(loop.wrong);
}

static void test_loop_attends_deaths(void **state)
{
	struct loop loop = { .thread = pthread_self() };
	struct ac_pool_stat stat;

	(void)state;
	for (int i = 0; i < 12; i++)
		submit_noted(&loop, i % 3 ? echo : die_so, SIGKILL, 0);
	run_loop(&loop, 12);
	assert_int_equal(loop.called, 12);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.failed, 4);
	assert_int_equal(stat.deaths, 4);
}

static void test_loop_replaces_idle_workers_that_die(void **state)
{
	struct ac_worker_stat stats[2], after[2];
	struct loop loop = { .thread = pthread_self() };

	(void)state;
	assert_works(pool);
	EVENTUALLY(ac_pool_workers(pool, stats, 2) == 2 &&
		   stats[0].state == AC_WORKER_IDLE && stats[1].state == AC_WORKER_IDLE);
	while (wait_readable(0))
		ac_pool_dispatch(pool);
	kill(stats[0].pid, SIGKILL);
	kill(stats[1].pid, SIGKILL);
	EVENTUALLY(wait_readable(100) && ac_pool_dispatch(pool) >= 0 &&
		   ac_pool_workers(pool, after, 2) == 2 && after[0].starts == 2 &&
		   after[1].starts == 2);
	submit_noted(&loop, echo, 1, 0);
	run_loop(&loop, 1);
	assert_int_equal(loop.called, 1);
}

static void test_loop_keeps_time_limits(void **state)
{
	struct loop loop = { .thread = pthread_self() };
	struct ac_pool_stat stat;
	int64_t start = now();

	(void)state;
	submit_noted(&loop, nap_ms, 30000, 200 * MS);
	submit_noted(&loop, nap_ms, 10, 20 * SECOND);
	run_loop(&loop, 2);
	assert_true(now() - start >= 190 * MS && now() - start < 10 * SECOND);
	assert_int_equal(loop.called, 2);
	assert_true(loop.wakeups < 30);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.failed, 1);
	assert_int_equal(stat.done, 1);
}

static void test_loop_wakes_for_cancelled_callbacks(void **state)
{
	struct loop loop = { .thread = pthread_self() };
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .done = note_done,
				       .done_arg = &loop };
	struct ac_task *task;
	int ms = 30000;

	(void)state;
	assert_int_equal(ac_pool_submit(pool, &task, nap_ms, &ms, sizeof ms, &opts), 0);
	nap(50 * MS);
	assert_int_equal(ac_task_cancel(task, 1), 0);
	assert_int_equal(loop.called, 0); /* only inside dispatch */
	assert_true(wait_readable(5000));
	ac_pool_dispatch(pool);
	assert_int_equal(loop.called, 1);
	ac_task_free(task);
}

/* Blocking calls work beside the loop. */
static void test_loop_and_blocking_calls_mix(void **state)
{
	struct loop loop = { .thread = pthread_self() };
	struct ac_task *task;

	(void)state;
	for (int i = 0; i < 50; i++) {
		submit_noted(&loop, echo, i, 0);
		task = submit_int(pool, echo, i);
		assert_int_equal(status_of(task), 0);
		ac_task_free(task);
		assert_works(pool);
	}
	EVENTUALLY(ac_pool_dispatch(pool) >= 0 && loop.called == 50);
	assert_false(loop.wrong);
}

static void test_loop_join_and_close_run_what_is_left(void **state)
{
	struct loop loop = { .thread = pthread_self() };

	(void)state;
	for (int i = 0; i < 50; i++)
		submit_noted(&loop, echo, i, 0);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_int_equal(loop.called, 50);
	for (int i = 0; i < 50; i++)
		submit_noted(&loop, echo, i, 0);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(loop.called, 100);
	assert_false(loop.wrong);
	pool = open_pool(1); /* for tear_down */
}

static void test_loop_begun_after_a_helper(void **state)
{
	struct loop loop = { .thread = pthread_self() };
	struct ac_task *task;

	(void)state;
	SKIP_UNDER_TSAN();
	ac_pool_close(pool);
	pool = open_pool(2);
	task = submit_int(pool, nap_ms, 10);
	fd = ac_pool_fd(pool);
	assert_true(fd >= 0);
#ifndef __SANITIZE_THREAD__ /* it has threads of its own */
	EVENTUALLY(count_threads() == threads_before);
#endif
	submit_noted(&loop, echo, 1, 0);
	run_loop(&loop, 1);
	assert_false(loop.wrong);
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
}

static struct ac_pool *asked;
static _Atomic int answer;

static void ask_for_descriptor(void *arg, struct ac_task *task)
{
	(void)arg, (void)task;
	answer = ac_pool_fd(asked);
}

static void test_loop_may_begin_in_a_callback(void **state)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = ask_for_descriptor };

	(void)state;
	SKIP_UNDER_TSAN();
	asked = open_pool(1);
	answer = -1;
	assert_int_equal(ac_pool_submit(asked, NULL, echo, NULL, 0, &opts), 0);
	EVENTUALLY(answer >= 0);
	assert_int_equal(ac_pool_join(asked, 20 * SECOND), 0);
	assert_int_equal(ac_pool_fd(asked), answer);
	assert_int_equal(ac_pool_close(asked), 0);
}

static void look_at(struct ac_task *task, int way)
{
	struct ac_worker_stat workers[2];
	struct ac_pool_stat stat;

	if (way == 0)
		ac_pool_workers(pool, workers, 2);
	else if (way == 1)
		ac_pool_stat(pool, &stat, sizeof stat);
	else
		ac_task_ready(task);
}

/* Looking may take what has ended: what ends later must be told all the same. */
static void test_loop_is_told_after_somebody_looked(void **state)
{
	struct ac_task *first, *second;
	int ended;

	(void)state;
	for (int way = 0; way < 3; way++) {
		assert_works(pool);
		while (wait_readable(20))
			ac_pool_dispatch(pool);
		first = submit_int(pool, echo, 1);
		nap(50 * MS);
		look_at(first, way);
		second = submit_int(pool, nap_ms, 20);
		for (ended = 0; !ended || !ac_task_ready(second);) {
			assert_true(wait_readable(10000));
			ended += ac_pool_dispatch(pool);
		}
		assert_int_equal(status_of(first), 0);
		ac_task_free(first);
		ac_task_free(second);
	}
}

static void test_loop_join_waits_for_work_without_callbacks(void **state)
{
	struct loop loop = { .thread = pthread_self() };
	struct ac_pool_stat stat;
	int ms = 500;

	(void)state;
	assert_int_equal(ac_pool_submit(pool, NULL, nap_ms, &ms, sizeof ms, NULL), 0);
	submit_noted(&loop, nap_ms, 1, 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.done, 2);
	assert_int_equal(loop.called, 1);
	assert_false(loop.wrong);
}

#define LOOP_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOP_TEST(test_loop_descriptor_stays_the_same),
		LOOP_TEST(test_loop_is_quiet_when_nothing_is_due),
		LOOP_TEST(test_loop_dispatch_never_blocks),
		LOOP_TEST(test_loop_runs_callbacks_in_dispatch),
		LOOP_TEST(test_loop_callbacks_may_submit),
		LOOP_TEST(test_loop_long_queue_is_refilled),
		LOOP_TEST(test_loop_attends_deaths),
		LOOP_TEST(test_loop_replaces_idle_workers_that_die),
		LOOP_TEST(test_loop_keeps_time_limits),
		LOOP_TEST(test_loop_wakes_for_cancelled_callbacks),
		LOOP_TEST(test_loop_and_blocking_calls_mix),
		LOOP_TEST(test_loop_join_and_close_run_what_is_left),
		LOOP_TEST(test_loop_begun_after_a_helper),
		LOOP_TEST(test_loop_may_begin_in_a_callback),
		LOOP_TEST(test_loop_is_told_after_somebody_looked),
		LOOP_TEST(test_loop_join_waits_for_work_without_callbacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Time limits and cancelling: what is stopped is exactly what was meant, and is told at once. */
#include "pool_help.h"

static struct ac_pool *pool; /* two workers */
static _Atomic unsigned *begun; /* shared: calls of count_and_nap */

static int count_and_nap(struct ac_call *call)
{
	atomic_fetch_add(begun, 1);
	nap(*(const int *)ac_call_arg(call, NULL) * MS);
	atomic_fetch_add(begun + 1, 1);
	return 0;
}

static int set_up(void **state)
{
	help_set_up(state);
	begun = share(2 * sizeof *begun);
	pool = open_pool(2);
	assert_works(pool);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running && stat.deaths == 0;

	ac_pool_close(pool);
	munmap((void *)begun, 2 * sizeof *begun);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

static struct ac_task *submit_limited(int ms, int64_t limit)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .timeout_ns = limit };
	struct ac_task *task = NULL;

	assert_int_equal(ac_pool_submit(pool, &task, count_and_nap, &ms, sizeof ms, &opts),
			 0);
	return task;
}

/* ---- time limits ---- */

static void test_limit_stops_one_task_and_no_other(void **state)
{
	struct ac_task *other = submit_int(pool, count_and_nap, 600);
	struct ac_task *task = submit_limited(30000, 100 * MS);
	struct ac_outcome outcome;
	int64_t start = now();
	const void *data;

	(void)state;
	assert_int_equal(status_of(task), AC_ETIMEOUT);
	assert_true(now() - start < 10 * SECOND && now() - start >= 90 * MS);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_true(outcome.pid > 0 && outcome.text[0]);
	assert_int_equal(ac_task_result(task, &data, NULL), AC_ETIMEOUT);
	EVENTUALLY(!is_alive(outcome.pid)); /* its worker was killed */
	assert_int_equal(status_of(other), 0);
	assert_int_equal(begun[1], 1);
	ac_task_free(task);
	ac_task_free(other);
	assert_works(pool);
}

static void test_limit_counts_from_the_start_of_the_function(void **state)
{
	struct ac_task *blockers[2], *tasks[2];

	(void)state;
	for (int i = 0; i < 2; i++)
		blockers[i] = submit_int(pool, count_and_nap, 700);
	for (int i = 0; i < 2; i++)
		tasks[i] = submit_limited(1, 400 * MS);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(status_of(blockers[i]), 0);
		assert_int_equal(status_of(tasks[i]), 0);
		ac_task_free(blockers[i]);
		ac_task_free(tasks[i]);
	}
}

static void test_limit_holds_though_nobody_waits(void **state)
{
	struct ac_task *task = submit_limited(30000, 50 * MS);
	int64_t start = now();

	(void)state;
	EVENTUALLY(ac_task_ready(task) == 1);
	assert_true(now() - start < 10 * SECOND);
	assert_int_equal(status_of(task), AC_ETIMEOUT);
	ac_task_free(task);
}

static void test_limit_of_many_at_once(void **state)
{
	struct ac_task *tasks[12];

	(void)state;
	for (unsigned i = 0; i < COUNT(tasks); i++)
		tasks[i] = submit_limited(i % 3 ? 5 : 30000, i % 3 ? 5 * SECOND : 60 * MS);
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		assert_int_equal(status_of(tasks[i]), i % 3 ? 0 : AC_ETIMEOUT);
		ac_task_free(tasks[i]);
	}
}

static void test_limit_zero_and_negative_are_none(void **state)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .timeout_ns = -1 };
	struct ac_task *task = submit_limited(30, 0), *other = NULL;
	struct ac_task *huge = submit_limited(30, INT64_MAX);

	(void)state;
	assert_int_equal(status_of(task), 0);
	assert_int_equal(status_of(huge), 0);
	ac_task_free(task);
	ac_task_free(huge);
	/* "As a limit: negative is no limit", everywhere. */
	assert_int_equal(ac_pool_submit(pool, &other, echo, NULL, 0, &opts), 0);
	assert_int_equal(status_of(other), 0);
	ac_task_free(other);
}

static void test_limit_over_is_not_retried(void **state)
{
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .timeout_ns = 50 * MS,
				       .retries = 3 };
	struct ac_task *task;
	int ms = 30000;

	(void)state;
	assert_int_equal(ac_pool_submit(pool, &task, count_and_nap, &ms, sizeof ms, &opts),
			 0);
	assert_int_equal(status_of(task), AC_ETIMEOUT);
	ac_task_free(task);
	assert_works(pool);
	assert_int_equal(*begun, 1);
}

/* ---- cancelling ---- */

static void test_limit_cancel_of_one_that_waits(void **state)
{
	struct ac_task *blockers[2], *tasks[3000];
	struct ac_outcome outcome;
	struct ac_pool_stat stat;

	(void)state;
	for (int i = 0; i < 2; i++)
		blockers[i] = submit_int(pool, count_and_nap, 400);
	EVENTUALLY(*begun == 2);
	for (unsigned i = 0; i < COUNT(tasks); i++)
		tasks[i] = submit_int(pool, count_and_nap, 0);
	for (unsigned i = 0; i < COUNT(tasks); i++)
		if (i % 100) {
			assert_int_equal(ac_task_cancel(tasks[i], i % 2), 0);
			assert_int_equal(ac_task_ready(tasks[i]), 1);
			assert_int_equal(ac_task_cancel(tasks[i], 0), -EALREADY);
			assert_int_equal(ac_task_outcome(tasks[i], &outcome), 0);
			assert_int_equal(outcome.status, AC_ECANCELED);
			assert_int_equal(outcome.pid, 0);
		}
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		assert_int_equal(status_of(tasks[i]), i % 100 ? AC_ECANCELED : 0);
		ac_task_free(tasks[i]);
	}
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(*begun, 2 + COUNT(tasks) / 100);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.cancelled, COUNT(tasks) - COUNT(tasks) / 100);
	ac_task_free(blockers[0]);
	ac_task_free(blockers[1]);
}

static void test_limit_cancel_of_one_that_runs(void **state)
{
	struct ac_task *task = submit_int(pool, count_and_nap, 200);

	(void)state;
	EVENTUALLY(*begun == 1);
	assert_int_equal(ac_task_cancel(task, 0), -EBUSY);
	assert_int_equal(status_of(task), 0); /* it was left to end */
	assert_int_equal(ac_task_cancel(task, 0), -EALREADY);
	assert_int_equal(ac_task_cancel(task, 1), -EALREADY);
	ac_task_free(task);
}

static void test_limit_cancel_kills_only_its_worker(void **state)
{
	struct ac_task *other = submit_int(pool, count_and_nap, 500);
	struct ac_task *task;
	struct ac_outcome outcome;
	int64_t start;

	(void)state;
	EVENTUALLY(*begun == 1);
	task = submit_int(pool, count_and_nap, 30000);
	EVENTUALLY(*begun == 2);
	start = now();
	assert_int_equal(ac_task_cancel(task, 1), 0);
	assert_int_equal(ac_task_ready(task), 1); /* at once */
	assert_true(now() - start < SECOND);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_int_equal(outcome.status, AC_ECANCELED);
	assert_int_equal(ac_task_cancel(task, 1), -EALREADY);
	ac_task_free(task);
	assert_int_equal(status_of(other), 0);
	ac_task_free(other);
	assert_works(pool);
	assert_int_equal(begun[1], 1);
}

static void test_limit_cancel_of_the_ended(void **state)
{
	struct ac_task *good = submit_int(pool, echo, 1);
	struct ac_task *bad = submit_int(pool, fail_with, 1);

	(void)state;
	assert_int_equal(status_of(good), 0);
	assert_int_equal(status_of(bad), AC_ETASK);
	assert_int_equal(ac_task_cancel(good, 1), -EALREADY);
	assert_int_equal(ac_task_cancel(bad, 0), -EALREADY);
	assert_int_equal(status_of(good), 0);
	ac_task_free(good);
	ac_task_free(bad);
}

/* Cancel hits tasks in every state: each ends exactly once. */
static void test_limit_cancel_at_any_moment(void **state)
{
	unsigned done = 0, cancelled = 0;
	uint64_t seed = seats_seed();
	struct ac_pool_stat stat;

	(void)state;
	for (int i = 0; i < 200; i++) {
		struct ac_task *task = submit_int(pool, echo, i);
		int64_t until = now() + (int64_t)(seats_random(&seed) % 60000), status;
		int r;

		while (now() < until)
			;
		r = ac_task_cancel(task, i % 8 == 0);
		assert_true(r == 0 || r == -EBUSY || r == -EALREADY);
		status = status_of(task);
		assert_int_equal(status, r == 0 ? AC_ECANCELED : 0);
		done += status == 0;
		cancelled += status != 0;
		ac_task_free(task);
	}
	assert_works(pool);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.done, done + 2); /* set_up's, and the one above */
	assert_int_equal(stat.cancelled, cancelled);
}

/* ---- whoever sleeps is told ---- */

struct sleeper {
	struct ac_pool *pool;
	struct ac_task *task; /* NULL: join */
	int64_t woken_at;
	int r;
};

static void *sleep_for_an_end(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->r = sleeper->task ? ac_task_wait(sleeper->task, 6 * SECOND) :
				     ac_pool_join(sleeper->pool, 6 * SECOND);
	sleeper->woken_at = now();
	return NULL;
}

static int sleep_in_init(void *arg)
{
	(void)arg;
	nap(2500 * MS);
	return 0;
}

/* No worker is there yet, so that nothing else wakes anybody. */
static void cancel_under_a_sleeper(bool loop, bool join)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .init = sleep_in_init };
	struct sleeper sleeper = { .r = 1 };
	struct ac_task *task;
	pthread_t thread;
	int64_t start;

	assert_int_equal(ac_pool_open(&sleeper.pool, &opts), 0);
	if (loop)
		assert_true(ac_pool_fd(sleeper.pool) >= 0);
	task = submit_int(sleeper.pool, echo, 1);
	sleeper.task = join ? NULL : task;
	assert_int_equal(pthread_create(&thread, NULL, sleep_for_an_end, &sleeper), 0);
	nap(100 * MS);
	start = now();
	assert_int_equal(ac_task_cancel(task, 0), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(ac_pool_terminate(sleeper.pool), 0);
	assert_int_equal(ac_pool_close(sleeper.pool), 0);
	ac_task_free(task);
	assert_int_equal(sleeper.r, 0);
	assert_true(sleeper.woken_at - start < 800 * MS);
}

static void test_limit_cancel_wakes_who_waits(void **state)
{
	(void)state;
	cancel_under_a_sleeper(false, false);
	cancel_under_a_sleeper(false, true);
}

static void test_limit_cancel_wakes_who_waits_beside_a_loop(void **state)
{
	(void)state;
	cancel_under_a_sleeper(true, false);
	cancel_under_a_sleeper(true, true);
}

/* ---- in long queues ---- */

static void test_limit_cancel_of_a_long_queue_from_the_back(void **state)
{
	enum { QUEUED = 20000 };
	struct ac_task **tasks = calloc(QUEUED, sizeof(struct ac_task *));
	struct ac_task *naps[2];
	int64_t start;

	(void)state;
	for (int i = 0; i < 2; i++)
		naps[i] = submit_int(pool, count_and_nap, 45000);
	EVENTUALLY(*begun == 2);
	for (int i = 0; i < QUEUED; i++)
		tasks[i] = submit_int(pool, echo, i);
	start = now();
	for (int i = QUEUED; i-- > 0;) {
		assert_int_equal(ac_task_cancel(tasks[i], 0), 0);
		ac_task_free(tasks[i]);
	}
	assert_true(now() - start < 5 * SECOND);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ac_task_cancel(naps[i], 1), 0);
		ac_task_free(naps[i]);
	}
	assert_works(pool);
	free(tasks);
}

/* Nobody holds it: it fails where it waits, once, and is freed once. */
static void test_limit_queued_call_beyond_memory_fails_once(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .memory = 65536 };
	char *big = calloc(1, MB);
	struct ac_pool_stat stat;
	struct ac_pool *small;
	struct ac_task *task;
	int r;

	(void)state;
	assert_int_equal(ac_pool_open(&small, &opts), 0);
	task = submit_int(small, nap_ms, 200);
	r = ac_pool_submit(small, NULL, echo, big, MB, NULL);
	assert_true(r == 0 || r == -ENOMEM);
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
	assert_int_equal(ac_pool_join(small, 20 * SECOND), 0);
	assert_int_equal(ac_pool_stat(small, &stat, sizeof stat), 0);
	assert_true(sum_holds(&stat));
	assert_int_equal(stat.done, 1);
	assert_int_equal(stat.failed, r == 0);
	assert_works(small);
	assert_int_equal(ac_pool_close(small), 0);
	free(big);
}

#define LIMIT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LIMIT_TEST(test_limit_stops_one_task_and_no_other),
		LIMIT_TEST(test_limit_counts_from_the_start_of_the_function),
		LIMIT_TEST(test_limit_holds_though_nobody_waits),
		LIMIT_TEST(test_limit_of_many_at_once),
		LIMIT_TEST(test_limit_zero_and_negative_are_none),
		LIMIT_TEST(test_limit_over_is_not_retried),
		LIMIT_TEST(test_limit_cancel_of_one_that_waits),
		LIMIT_TEST(test_limit_cancel_of_one_that_runs),
		LIMIT_TEST(test_limit_cancel_kills_only_its_worker),
		LIMIT_TEST(test_limit_cancel_of_the_ended),
		LIMIT_TEST(test_limit_cancel_at_any_moment),
		LIMIT_TEST(test_limit_cancel_wakes_who_waits),
		LIMIT_TEST(test_limit_cancel_wakes_who_waits_beside_a_loop),
		LIMIT_TEST(test_limit_cancel_of_a_long_queue_from_the_back),
		LIMIT_TEST(test_limit_queued_call_beyond_memory_fails_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

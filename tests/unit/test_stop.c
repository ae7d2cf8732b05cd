/* SPDX-License-Identifier: MIT */
/*
 * How pools end and how calls are interrupted: shut, terminate, join, close,
 * signal handlers, and work from several threads at once while one terminates.
 */
#include "pool_help.h"

/* ---- what workers run ---- */

struct counters {
	_Atomic unsigned begun, ended;
};

static struct counters *counters; /* shared; set before a pool is opened */

static int count_slowly(struct ac_call *call)
{
	size_t len;
	const int *ms = ac_call_arg(call, &len);

	atomic_fetch_add(&counters->begun, 1);
	if (len)
		nap(*ms * MS);
	atomic_fetch_add(&counters->ended, 1);
	return 0;
}

static int count_item(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	atomic_fetch_add(&counters->begun, 1);
	nap(*(const int *)item * MS);
	return 0;
}

static int set_up(void **state)
{
	counters = share(sizeof *counters);
	return help_set_up(state);
}

static int tear_down(void **state)
{
	munmap(counters, sizeof *counters);
	return help_tear_down(state);
}

static int no_more(void *arg, const void **data, size_t *len)
{
	(void)arg, (void)data, (void)len;
	return 0;
}

static void assert_takes_no_more(struct ac_pool *pool)
{
	struct ac_stream_opts source = { .size = sizeof source, .source = no_more };
	struct ac_stream *stream;
	struct ac_task *task;
	int item = 0;

	assert_int_equal(ac_pool_submit(pool, &task, echo, NULL, 0, NULL), AC_ECLOSED);
	assert_int_equal(ac_pool_call(pool, echo, NULL, 0, NULL, NULL, NULL),
			 AC_ECLOSED);
	assert_int_equal(ac_pool_map(pool, count_item, NULL, &item, sizeof item, NULL,
				     0, 1), AC_ECLOSED);
	assert_int_equal(ac_stream_open(&stream, pool, echo, &source), AC_ECLOSED);
}

static bool workers_gone(struct ac_pool *pool, const pid_t *pids, int n)
{
	struct ac_worker_stat stats[8];

	assert_int_equal(ac_pool_workers(pool, stats, COUNT(stats)), n);
	for (int i = 0; i < n; i++) {
		bool alive = is_alive(pids[i]);

		if (stats[i].state == AC_WORKER_ABSENT && !stats[i].pid && !alive)
			continue;
		fprintf(stderr, "worker %d: state %d, pid %d; %d is %s\n", i,
			stats[i].state, (int)stats[i].pid, (int)pids[i],
			alive ? "alive" : "gone");
		return false;
	}
	return true;
}

static void find_pids(struct ac_pool *pool, pid_t *pids, int n)
{
	struct ac_worker_stat stats[8];

	for (int i = 0; i < n; i++)
		do
			ac_pool_workers(pool, stats, COUNT(stats));
		while (stats[i].state < AC_WORKER_IDLE);
	for (int i = 0; i < n; i++)
		pids[i] = stats[i].pid;
}

/* ---- NULL ---- */

static void test_stop_null_pools_are_refused(void **state)
{
	(void)state;
	assert_int_equal(ac_pool_close(NULL), 0);
	assert_int_equal(ac_pool_shut(NULL), -EINVAL);
	assert_int_equal(ac_pool_terminate(NULL), -EINVAL);
	assert_int_equal(ac_pool_join(NULL, 0), -EINVAL);
	assert_int_equal(ac_pool_fd(NULL), -EINVAL);
	assert_int_equal(ac_pool_dispatch(NULL), -EINVAL);
}

/* ---- shut, join, close ---- */

static void test_stop_shut_finishes_what_was_handed_in(void **state)
{
	struct ac_pool *pool = open_pool(2);
	pid_t pids[2];
	int ms = 2;

	(void)state;
	find_pids(pool, pids, 2);
	for (int i = 0; i < 50; i++)
		assert_int_equal(ac_pool_submit(pool, NULL, count_slowly, &ms,
						sizeof ms, NULL), 0);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_takes_no_more(pool);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(counters->ended, 50);
	assert_true(workers_gone(pool, pids, 2));
	assert_takes_no_more(pool);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_join(pool, 0), 0);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_stop_join_of_an_open_pool_waits_for_work_only(void **state)
{
	struct ac_pool *pool = open_pool(2);
	pid_t pids[2];

	(void)state;
	assert_int_equal(ac_pool_join(pool, 0), 0); /* nothing to wait for */
	find_pids(pool, pids, 2);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ac_pool_submit(pool, NULL, count_slowly, NULL, 0,
						NULL), 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(counters->ended, 20);
	assert_true(is_alive(pids[0]) && is_alive(pids[1]));
	assert_works(pool);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_false(is_alive(pids[0]) || is_alive(pids[1]));
}

static void test_stop_join_keeps_its_time_limit(void **state)
{
	struct ac_pool *pool = open_pool(1);
	int64_t start = now();
	int ms = 1000;

	(void)state;
	assert_int_equal(ac_pool_submit(pool, NULL, count_slowly, &ms, sizeof ms, NULL),
			 0);
	assert_int_equal(ac_pool_join(pool, 0), -ETIMEDOUT);
	assert_int_equal(ac_pool_join(pool, 50 * MS), -ETIMEDOUT);
	assert_true(now() - start < 900 * MS);
	assert_true(now() - start >= 50 * MS);
	assert_int_equal(ac_pool_join(pool, 30 * SECOND), 0);
	assert_int_equal(counters->ended, 1);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_stop_close_finishes_all_work(void **state)
{
	struct ac_pool *pool = open_pool(2);

	(void)state;
	for (int i = 0; i < 5000; i++)
		assert_int_equal(ac_pool_submit(pool, NULL, count_slowly, NULL, 0,
						NULL), 0);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(counters->ended, 5000);
}

static void test_stop_close_right_after_open(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(ac_pool_close(open_pool(1 + i % 4)), 0);
}

/* Some of its workers were never forked. */
static void test_stop_shut_right_after_open_is_no_death(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		struct ac_pool *pool = open_pool(16);
		struct ac_pool_stat stat;

		assert_int_equal(ac_pool_shut(pool), 0);
		assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
		assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
		assert_int_equal(stat.deaths, 0);
		assert_int_equal(ac_pool_close(pool), 0);
	}
}

static void test_stop_tasks_outlive_their_pool(void **state)
{
	struct ac_pool *pool = open_pool(2);
	struct ac_task *good = submit_int(pool, echo, 7);
	struct ac_task *bad = submit_int(pool, fail_with, 9);
	struct ac_outcome outcome;
	const void *data;
	size_t len;

	(void)state;
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(ac_task_ready(good), 1);
	assert_int_equal(ac_task_wait(good, 0), 0);
	assert_int_equal(ac_task_result(good, &data, &len), 0);
	assert_int_equal(len, sizeof(int));
	assert_int_equal(*(const int *)data, 7);
	assert_int_equal(ac_task_cancel(good, 1), -EALREADY);
	assert_int_equal(ac_task_outcome(bad, &outcome), 0);
	assert_int_equal(outcome.value, 9);
	ac_task_free(good);
	ac_task_free(bad);
}

/* ---- terminate ---- */

struct mapper {
	struct ac_pool *pool;
	int r;
};

static void *map_slowly(void *arg)
{
	struct mapper *mapper = arg;
	int items[100];

	for (int i = 0; i < 100; i++)
		items[i] = 10000;
	mapper->r = ac_pool_map(mapper->pool, count_item, NULL, items, sizeof *items,
				NULL, 0, 100);
	return NULL;
}

static void test_stop_terminate_cancels_all_unfinished_work(void **state)
{
	struct ac_pool *pool = open_pool(2);
	struct ac_task *done = submit_int(pool, echo, 1), *tasks[1500];
	struct ac_pool_stat stat;
	struct ac_outcome outcome;
	int64_t start;
	pid_t pids[2];

	(void)state;
	find_pids(pool, pids, 2);
	assert_int_equal(status_of(done), 0);
	for (unsigned i = 0; i < COUNT(tasks); i++)
		tasks[i] = submit_int(pool, count_slowly, 20000);
	EVENTUALLY(counters->begun == 2);
	start = now();
	assert_int_equal(ac_pool_terminate(pool), 0);
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		assert_int_equal(ac_task_ready(tasks[i]), 1);
		assert_int_equal(ac_task_outcome(tasks[i], &outcome), 0);
		assert_int_equal(outcome.status, AC_ECANCELED);
		assert_true(outcome.text[0]);
		ac_task_free(tasks[i]);
	}
	assert_takes_no_more(pool);
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_true(workers_gone(pool, pids, 2));
	assert_true(now() - start < 5 * SECOND);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(sum_holds(&stat));
	assert_int_equal(stat.done, 1);
	assert_int_equal(stat.cancelled, COUNT(tasks));
	assert_int_equal(stat.deaths, 0); /* it was our asking */
	assert_int_equal(counters->begun, 2);
	assert_int_equal(ac_pool_close(pool), 0);
	ac_task_free(done);
}

static void test_stop_terminate_ends_maps(void **state)
{
	struct ac_pool *pool = open_pool(2);
	struct mapper mapper = { pool, 1 };
	int64_t start = now();
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, map_slowly, &mapper), 0);
	EVENTUALLY(counters->begun == 2);
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(mapper.r, AC_ECANCELED);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_true(now() - start < 8 * SECOND);
}

static void test_stop_terminate_before_workers_are_ready(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct ac_pool *pool = open_pool(3);
		struct ac_task *task = submit_int(pool, nap_ms, 20000);

		assert_int_equal(ac_pool_terminate(pool), 0);
		assert_int_equal(status_of(task), AC_ECANCELED);
		ac_task_free(task);
		assert_int_equal(ac_pool_close(pool), 0);
	}
}

/* ---- interruptions ---- */

struct kicker {
	pthread_t target, thread;
	_Atomic bool stop;
};

static void on_signal(int signal)
{
	(void)signal;
}

static void *kick(void *arg)
{
	struct kicker *kicker = arg;

	while (!kicker->stop) {
		nap(20 * MS);
		pthread_kill(kicker->target, SIGUSR1);
	}
	return NULL;
}

static void start_kicking(struct kicker *kicker)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
	kicker->target = pthread_self();
	kicker->stop = false;
	assert_int_equal(pthread_create(&kicker->thread, NULL, kick, kicker), 0);
}

static void stop_kicking(struct kicker *kicker)
{
	kicker->stop = true;
	assert_int_equal(pthread_join(kicker->thread, NULL), 0);
}

static void test_stop_signals_interrupt_when_asked(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = 2,
				     .flags = AC_POOL_INTERRUPTIBLE };
	struct ac_outcome outcomes[50];
	struct ac_map_opts map = { .size = sizeof map, .outcomes = outcomes };
	int items[50], ms = 300;
	unsigned done = 0, cancelled = 0;
	struct kicker kicker;
	struct ac_pool *pool;
	struct ac_task *task;

	(void)state;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_works(pool);
	for (int i = 0; i < 50; i++)
		items[i] = 200;
	task = submit_int(pool, nap_ms, 400);
	start_kicking(&kicker);
	assert_int_equal(ac_task_wait(task, -1), -EINTR);
	assert_int_equal(ac_pool_join(pool, -1), -EINTR);
	assert_int_equal(ac_pool_call(pool, nap_ms, &ms, sizeof ms, NULL, NULL, NULL),
			 -EINTR);
	assert_int_equal(ac_pool_map(pool, count_item, &map, items, sizeof *items,
				     NULL, 0, 50), -EINTR);
	stop_kicking(&kicker);
	/* What had not begun is cancelled, what ran has ended. */
	for (int i = 0; i < 50; i++) {
		done += outcomes[i].status == 0;
		cancelled += outcomes[i].status == AC_ECANCELED;
	}
	assert_int_equal(done + cancelled, 50);
	assert_int_equal(done, counters->begun);
	assert_true(cancelled > 0);
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_stop_signals_do_not_interrupt_unasked(void **state)
{
	struct ac_pool *pool = open_pool(2);
	struct ac_task *task = submit_int(pool, nap_ms, 150);
	int items[4] = { 60, 60, 60, 60 }, ms = 100;
	struct kicker kicker;

	(void)state;
	start_kicking(&kicker);
	assert_int_equal(ac_task_wait(task, -1), 0);
	assert_int_equal(ac_pool_call(pool, nap_ms, &ms, sizeof ms, NULL, NULL, NULL), 0);
	assert_int_equal(ac_pool_map(pool, count_item, NULL, items, sizeof *items,
				     NULL, 0, 4), 0);
	assert_int_equal(ac_pool_submit(pool, NULL, nap_ms, &ms, sizeof ms, NULL), 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_close(pool), 0);
	stop_kicking(&kicker);
	ac_task_free(task);
}

/* ---- from several threads ---- */

#define THREADS 4

struct crowd {
	struct ac_pool *pool;
	_Atomic bool stop;
	_Atomic unsigned wrong, rounds;
	_Atomic uint64_t submitted;
};

static bool expected(struct crowd *crowd, int r)
{
	if (r == 0 || (crowd->stop && (r == AC_ECLOSED || r == AC_ECANCELED)))
		return true;
	fprintf(stderr, "unexpected: %s\n", ac_errname(r));
	crowd->wrong++;
	return false;
}

static void crowd_submits(struct crowd *crowd, int seed)
{
	struct ac_task *tasks[8];
	const void *data;
	int r;

	for (int i = 0; i < 8; i++) {
		int arg = seed + i;

		tasks[i] = NULL;
		if (expected(crowd, ac_pool_submit(crowd->pool, &tasks[i], echo, &arg,
						   sizeof arg, NULL)) && tasks[i])
			crowd->submitted++;
	}
	if (tasks[7]) {
		r = ac_task_cancel(tasks[7], seed % 16 == 0);
		if (r != 0 && r != -EBUSY && r != -EALREADY)
			crowd->wrong++;
	}
	for (int i = 0; i < 8; i++) {
		if (!tasks[i])
			continue;
		crowd->wrong += ac_task_wait(tasks[i], -1) != 0;
		r = ac_task_result(tasks[i], &data, NULL);
		if (r == 0 && *(const int *)data != seed + i)
			crowd->wrong++;
		if (r != 0 && i != 7)
			expected(crowd, r);
		ac_task_free(tasks[i]);
	}
}

static int double_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(int *)result = *(const int *)item * 2;
	return 0;
}

static void crowd_maps(struct crowd *crowd, int seed)
{
	int items[64], results[64];

	for (int i = 0; i < 64; i++)
		items[i] = seed + i;
	crowd->submitted += 64;
	int r = ac_pool_map(crowd->pool, double_item, NULL, items, sizeof *items,
			    results, sizeof *results, 64);

	if (r == AC_ECLOSED)
		crowd->submitted -= 64;
	if (!expected(crowd, r) || r != 0)
		return;
	for (int i = 0; i < 64; i++)
		crowd->wrong += results[i] != 2 * items[i];
}

static void *be_one_of_many(void *arg)
{
	struct crowd *crowd = arg;
	int round = 0;

	while (!crowd->stop) {
		crowd_submits(crowd, round * 16);
		crowd_maps(crowd, round);
		round++;
		crowd->rounds++;
	}
	/* And once more on the terminated pool. */
	crowd_submits(crowd, round);
	return NULL;
}

static void *look_all_the_time(void *arg)
{
	struct crowd *crowd = arg;
	struct ac_pool_stat stat;

	while (!crowd->stop) {
		if (ac_pool_stat(crowd->pool, &stat, sizeof stat) || !sum_holds(&stat))
			crowd->wrong++;
		nap(MS);
	}
	return NULL;
}

static void test_stop_terminate_while_threads_use_the_pool(void **state)
{
	struct crowd crowd = { .pool = open_pool(3) };
	pthread_t threads[THREADS + 1];
	struct ac_pool_stat stat;

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, be_one_of_many,
						&crowd), 0);
	assert_int_equal(pthread_create(&threads[THREADS], NULL, look_all_the_time,
					&crowd), 0);
	EVENTUALLY(crowd.rounds > 100);
	crowd.stop = true;
	assert_int_equal(ac_pool_terminate(crowd.pool), 0);
	for (int i = 0; i <= THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(ac_pool_join(crowd.pool, 20 * SECOND), 0);
	assert_int_equal(ac_pool_stat(crowd.pool, &stat, sizeof stat), 0);
	assert_int_equal(crowd.wrong, 0);
	assert_int_equal(stat.submitted, crowd.submitted);
	assert_int_equal(stat.done + stat.cancelled, stat.submitted);
	assert_int_equal(ac_pool_close(crowd.pool), 0);
}

/* ---- after the end ---- */

static void test_stop_terminated_pool_refuses_after_its_join(void **state)
{
	struct ac_pool *pool = open_pool(2);
	struct ac_task *task = submit_int(pool, count_slowly, 45000);

	(void)state;
	EVENTUALLY(counters->begun == 1);
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(status_of(task), AC_ECANCELED);
	/* The books are looked over each second. */
	for (int i = 0; i < 3; i++, nap(800 * MS))
		assert_takes_no_more(pool);
	ac_task_free(task);
	assert_int_equal(ac_pool_close(pool), 0);
}

#define STOP_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* The template is told of each end that was taken, unless it reads too slowly. */
static void test_stop_join_needs_no_order_to_be_read(void **state)
{
	struct ac_pool *pool;
	int64_t start;

	(void)state;
	pool = open_pool(2);
	assert_works(pool);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, 0), -ETIMEDOUT);
	ac__fault_arm(AC__SYS_SEND, 1, UINT32_MAX, EAGAIN);
	start = now();
	assert_int_equal(ac_pool_join(pool, 30 * SECOND), 0);
	assert_true(now() - start < 5 * SECOND);
	assert_int_equal(ac_pool_close(pool), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STOP_TEST(test_stop_null_pools_are_refused),
		STOP_TEST(test_stop_shut_finishes_what_was_handed_in),
		STOP_TEST(test_stop_join_of_an_open_pool_waits_for_work_only),
		STOP_TEST(test_stop_join_keeps_its_time_limit),
		STOP_TEST(test_stop_close_finishes_all_work),
		STOP_TEST(test_stop_close_right_after_open),
		STOP_TEST(test_stop_shut_right_after_open_is_no_death),
		STOP_TEST(test_stop_tasks_outlive_their_pool),
		STOP_TEST(test_stop_terminate_cancels_all_unfinished_work),
		STOP_TEST(test_stop_terminate_ends_maps),
		STOP_TEST(test_stop_terminate_before_workers_are_ready),
		STOP_TEST(test_stop_signals_interrupt_when_asked),
		STOP_TEST(test_stop_signals_do_not_interrupt_unasked),
		STOP_TEST(test_stop_terminate_while_threads_use_the_pool),
		STOP_TEST(test_stop_terminated_pool_refuses_after_its_join),
		STOP_TEST(test_stop_join_needs_no_order_to_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

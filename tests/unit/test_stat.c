/* SPDX-License-Identifier: MIT */
/* Seeing: what is said of workers, counts and events is true, complete and never in the way. */
#include "pool_help.h"

static struct ac_pool *pool;

static int set_up(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .trace = 1000 };

	help_set_up(state);
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	return 0;
}

static int tear_down(void **state)
{
	assert_int_equal(ac_pool_close(pool), 0);
	return help_tear_down(state);
}

static struct ac_pool_stat look(void)
{
	struct ac_pool_stat stat;

	memset(&stat, 0xee, sizeof stat);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(sum_holds(&stat));
	return stat;
}

static bool both_are(int state)
{
	struct ac_worker_stat stats[2];

	assert_int_equal(ac_pool_workers(pool, stats, 2), 2);
	return stats[0].state == state && stats[1].state == state;
}

/* ---- refusals ---- */

static void test_stat_refuses_what_can_not_be(void **state)
{
	struct ac_pool_stat stat;
	struct ac_worker_stat worker;
	struct ac_trace_event event;

	(void)state;
	assert_int_equal(ac_pool_stat(NULL, &stat, sizeof stat), -EINVAL);
	assert_int_equal(ac_pool_stat(pool, NULL, sizeof stat), -EINVAL);
	assert_int_equal(ac_pool_stat(pool, &stat, 0), -EINVAL);
	assert_int_equal(ac_pool_workers(NULL, &worker, 1), -EINVAL);
	assert_int_equal(ac_pool_workers(pool, NULL, 1), -EINVAL);
	assert_int_equal(ac_pool_workers(pool, NULL, 0), 2);
	assert_int_equal(ac_pool_trace(NULL, &event, sizeof event, 1), -EINVAL);
	assert_int_equal(ac_pool_trace(pool, NULL, sizeof event, 1), -EINVAL);
	assert_int_equal(ac_pool_trace(pool, &event, 0, 1), -EINVAL);
	assert_int_equal(ac_pool_trace(pool, &event, 4097, 1), -EINVAL);
	assert_int_equal(ac_pool_stat(pool, (struct ac_pool_stat *)&event, 4097), -EINVAL);
	assert_int_equal(ac_pool_trace(pool, NULL, sizeof event, 0), 0);
}

static void test_stat_of_other_sizes(void **state)
{
	struct {
		struct ac_pool_stat stat;
		uint64_t newer[2];
	} larger;
	struct ac_pool_stat smaller;

	(void)state;
	assert_works(pool);
	memset(&larger, 0xee, sizeof larger);
	assert_int_equal(ac_pool_stat(pool, &larger.stat, sizeof larger), 0);
	assert_int_equal(larger.stat.done, 1);
	assert_int_equal(larger.newer[0], 0);
	assert_int_equal(larger.newer[1], 0);
	memset(&smaller, 0xee, sizeof smaller);
	assert_int_equal(ac_pool_stat(pool, &smaller, sizeof smaller.submitted), 0);
	assert_int_equal(smaller.submitted, 1);
	assert_int_equal(smaller.waiting, UINT64_C(0xeeeeeeeeeeeeeeee));
}

static void test_stat_fills_at_most_n_workers(void **state)
{
	struct ac_worker_stat stats[4];

	(void)state;
	memset(stats, 0xee, sizeof stats);
	assert_int_equal(ac_pool_workers(pool, stats, 1), 2);
	assert_true(stats[0].state >= 0 && stats[0].state <= AC_WORKER_BUSY);
	assert_int_equal(stats[1].pid, (pid_t)0xeeeeeeee);
	assert_int_equal(ac_pool_workers(pool, stats, 4), 2);
	assert_int_equal(stats[2].pid, (pid_t)0xeeeeeeee);
}

/* ---- workers ---- */

static void test_stat_workers_are_idle_or_busy(void **state)
{
	struct ac_worker_stat stats[2];
	struct ac_task *tasks[2];

	(void)state;
	EVENTUALLY(both_are(AC_WORKER_IDLE));
	for (int i = 0; i < 2; i++)
		tasks[i] = submit_int(pool, nap_ms, 300);
	EVENTUALLY(both_are(AC_WORKER_BUSY));
	ac_pool_workers(pool, stats, 2);
	assert_true(stats[0].task != stats[1].task);
	assert_in_range(stats[0].task, 1, 2);
	assert_in_range(stats[1].task, 1, 2);
	for (int i = 0; i < 2; i++) {
		assert_true(is_alive(stats[i].pid));
		assert_int_equal(stats[i].tasks, 0);
		assert_int_equal(stats[i].starts, 1);
		assert_int_equal(status_of(tasks[i]), 0);
		ac_task_free(tasks[i]);
	}
	EVENTUALLY(both_are(AC_WORKER_IDLE));
	ac_pool_workers(pool, stats, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stats[i].task, 0);
		assert_int_equal(stats[i].tasks, 1);
		assert_true(stats[i].busy_ns > 290 * MS);
		assert_true(stats[i].busy_ns < 900 * MS);
	}
}

static int sleep_in_init(void *arg)
{
	(void)arg;
	nap(300 * MS);
	return 0;
}

static void test_stat_workers_start(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .init = sleep_in_init };
	struct ac_worker_stat stat;
	struct ac_pool *slow;

	(void)state;
	assert_int_equal(ac_pool_open(&slow, &opts), 0);
	assert_int_equal(ac_pool_workers(slow, &stat, 1), 1);
	assert_int_equal(stat.state, AC_WORKER_STARTING);
	assert_works(slow);
	assert_int_equal(ac_pool_shut(slow), 0);
	assert_int_equal(ac_pool_join(slow, -1), 0);
	assert_int_equal(ac_pool_workers(slow, &stat, 1), 1);
	assert_int_equal(stat.state, AC_WORKER_ABSENT);
	assert_int_equal(stat.pid, 0);
	assert_int_equal(ac_pool_close(slow), 0);
}

static void test_stat_seats_keep_their_counts(void **state)
{
	struct ac_worker_stat stats[2];
	uint64_t tasks = 0;
	unsigned starts = 0;
	int how = SIGKILL;

	(void)state;
	for (int i = 0; i < 3; i++) {
		for (int k = 0; k < 10; k++)
			assert_works(pool);
		assert_int_equal(ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL,
					      NULL), AC_EDIED);
	}
	assert_works(pool);
	EVENTUALLY(both_are(AC_WORKER_IDLE));
	ac_pool_workers(pool, stats, 2);
	for (int i = 0; i < 2; i++) {
		tasks += stats[i].tasks;
		starts += stats[i].starts;
	}
	assert_int_equal(tasks, 31); /* done: those that killed are not */
	assert_int_equal(starts, 5);
}

/* ---- counts ---- */

static int fail_item(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	return *(const int *)item;
}

static void test_stat_counts_everything_once(void **state)
{
	int items[50] = { 0 }, how = SIGKILL, one = 1;
	struct ac_pool_stat stat = look();

	(void)state;
	assert_int_equal(stat.submitted, 0);
	for (int i = 0; i < 50; i += 5)
		items[i] = 1;
	assert_int_equal(ac_pool_map(pool, fail_item, NULL, items, sizeof *items, NULL,
				     0, 50), AC_ETASK);
	assert_works(pool);
	ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL);
	ac_pool_call(pool, fail_with, &one, sizeof one, NULL, NULL, NULL);
	stat = look();
	assert_int_equal(stat.submitted, 53);
	assert_int_equal(stat.done, 41);
	assert_int_equal(stat.failed, 12);
	assert_int_equal(stat.cancelled, 0);
	assert_int_equal(stat.waiting, 0);
	assert_int_equal(stat.running, 0);
	assert_int_equal(stat.deaths, 1);
}

static void test_stat_tells_waiting_from_running(void **state)
{
	struct ac_task *tasks[10];
	struct ac_pool_stat stat;

	(void)state;
	for (int i = 0; i < 10; i++)
		tasks[i] = submit_int(pool, nap_ms, i < 2 ? 300 : 0);
	EVENTUALLY(both_are(AC_WORKER_BUSY));
	stat = look();
	assert_int_equal(stat.running, 2);
	assert_int_equal(stat.waiting, 8);
	for (int i = 0; i < 10; i++) {
		status_of(tasks[i]);
		ac_task_free(tasks[i]);
	}
}

/* A pool without a helper notices a death when somebody waits. */
static bool works_and_deaths_are(uint64_t deaths)
{
	assert_works(pool);
	return look().deaths == deaths;
}

static void test_stat_deaths_of_idle_workers_count(void **state)
{
	struct ac_worker_stat stats[2];

	(void)state;
	EVENTUALLY(both_are(AC_WORKER_IDLE));
	ac_pool_workers(pool, stats, 2);
	kill(stats[0].pid, SIGKILL);
	kill(stats[1].pid, SIGTERM);
	assert_works(pool); /* by a replacement */
	EVENTUALLY(works_and_deaths_are(2));
	assert_int_equal(look().failed, 0);
}

/* Payloads count while they are there. */
static void test_stat_bytes_set_aside(void **state)
{
	size_t len = 20 * MB;
	char *data = calloc(1, len);

	(void)state;
	assert_int_equal(ac_pool_call(pool, tell_pid, data, len, NULL, NULL, NULL), 0);
	assert_true(look().bytes >= len && look().bytes <= 4 * len);
	free(data);
}

struct watch {
	_Atomic bool stop;
	_Atomic unsigned looks;
	unsigned wrong;
};

static void *watch_sum(void *arg)
{
	struct watch *watch = arg;
	struct ac_worker_stat stats[2];
	struct ac_pool_stat stat;
	uint64_t ended = 0;

	while (!watch->stop) {
		watch->wrong += ac_pool_stat(pool, &stat, sizeof stat) != 0 ||
				!sum_holds(&stat) ||
				stat.done + stat.failed + stat.cancelled < ended;
		ended = stat.done + stat.failed + stat.cancelled;
		watch->wrong += ac_pool_workers(pool, stats, 2) != 2;
		watch->looks++;
		nap(200000);
	}
	return NULL;
}

static void test_stat_sum_holds_at_any_moment(void **state)
{
	struct watch watch = { .stop = false };
	int items[300], how = SIGKILL;
	int64_t end = now() + HANG_SECONDS / 2 * SECOND;
	uint64_t rounds = 0;
	pthread_t thread;

	(void)state;
	memset(items, 0, sizeof items);
	items[77] = items[200] = 1;
	assert_int_equal(pthread_create(&thread, NULL, watch_sum, &watch), 0);
	for (; rounds < 20 || watch.looks <= 10; rounds++) {
		struct ac_task *tasks[40];

		assert_true(now() < end);

		for (int i = 0; i < 40; i++)
			tasks[i] = submit_int(pool, echo, i);
		for (int i = 0; i < 40; i += 3)
			ac_task_cancel(tasks[i], i % 2);
		ac_pool_map(pool, fail_item, NULL, items, sizeof *items, NULL, 0, 300);
		ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL);
		for (int i = 0; i < 40; i++)
			ac_task_free(tasks[i]);
	}
	assert_int_equal(ac_pool_join(pool, -1), 0);
	watch.stop = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(watch.wrong, 0);
	assert_int_equal(look().submitted, rounds * (40 + 300 + 1));
}

/* ---- the trace ---- */

static int nothing(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return 0;
}

static void test_stat_trace_is_complete_and_ordered(void **state)
{
	struct ac_trace_event events[600];
	bool seen[601] = { false };
	int64_t before = now();
	uint64_t items = 0;
	int n;

	(void)state;
	for (int i = 0; i < 200; i++)
		assert_works(pool);
	assert_int_equal(ac_pool_map(pool, nothing, NULL, NULL, 0, NULL, 0, 700), 0);
	n = ac_pool_trace(pool, events, sizeof *events, 600);
	assert_true(n > 200 && n < 600);
	for (int i = 0; i < n; i++) {
		const struct ac_trace_event *e = &events[i];

		assert_in_range(e->worker, 0, 1);
		assert_in_range(e->task, 1, 600);
		assert_false(seen[e->task]);
		seen[e->task] = true;
		assert_true(before <= e->start_ns && e->start_ns <= e->end_ns &&
			    e->end_ns <= now());
		if (e->task <= 200)
			assert_int_equal(e->items, 1);
		items += e->items;
		if (i && e->worker == e[-1].worker)
			assert_true(e[-1].end_ns <= e->start_ns);
		else if (i)
			assert_true(e->worker > e[-1].worker);
	}
	assert_int_equal(items, 900);
	for (int i = 1; i <= n; i++)
		assert_true(seen[i]);
	assert_int_equal(ac_pool_trace(pool, events, sizeof *events, 7), 7);
}

static void test_stat_trace_keeps_the_last(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .trace = 10 };
	struct ac_trace_event events[40];
	struct ac_pool *small;

	(void)state;
	assert_int_equal(ac_pool_open(&small, &opts), 0);
	for (int i = 0; i < 35; i++)
		assert_works(small);
	assert_int_equal(ac_pool_trace(small, events, sizeof *events, 40), 10);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(events[i].task, 26 + i);
	/* "The last events, at most n": fewer of them are still the last. */
	assert_int_equal(ac_pool_trace(small, events, sizeof *events, 3), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(events[i].task, 33 + i);
	assert_int_equal(ac_pool_close(small), 0);
}

/* A caller with an older header, and one with a newer. */
static void test_stat_trace_knows_the_caller_s_events(void **state)
{
	struct {
		struct ac_trace_event event;
		char more[24];
	} newer[3];
	struct ac_trace_event events[3];
	char older[3][offsetof(struct ac_trace_event, start_ns)];

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_works(pool);
	memset(newer, 1, sizeof newer);
	assert_int_equal(ac_pool_trace(pool, events, sizeof *events, 3), 3);
	assert_int_equal(ac_pool_trace(pool, (void *)newer, sizeof *newer, 3), 3);
	assert_int_equal(ac_pool_trace(pool, (void *)older, sizeof *older, 3), 3);
	for (int i = 0; i < 3; i++) {
		assert_memory_equal(&newer[i].event, &events[i], sizeof *events);
		assert_memory_equal(newer[i].more, (char[24]){ 0 }, 24);
		assert_memory_equal(older[i], &events[i], sizeof *older);
	}
}

static void *call_until(void *stop)
{
	while (!atomic_load((atomic_bool *)stop)) {
		for (int i = 0; i < 500; i++)
			ac_pool_submit(pool, NULL, echo, NULL, 0, NULL);
		ac_pool_join(pool, -1);
	}
	return NULL;
}

/* Read while the worker writes: parts of one event never go with parts of the next. */
static void test_stat_trace_has_no_torn_events(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .trace = 2 };
	struct ac_pool *before = pool;
	struct ac_trace_event e[2];
	atomic_bool stop = false;
	pthread_t thread;
	int torn = 0, n;

	(void)state;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_int_equal(pthread_create(&thread, NULL, call_until, &stop), 0);
	for (int64_t end = now() + SECOND; now() < end;) {
		n = ac_pool_trace(pool, e, sizeof *e, 2);
		for (int i = 0; i < n; i++)
			torn += e[i].start_ns > e[i].end_ns;
		if (n == 2)
			torn += e[0].task >= e[1].task || e[0].end_ns > e[1].start_ns;
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(ac_pool_close(pool), 0);
	pool = before;
	assert_int_equal(torn, 0);
}

static void test_stat_trace_only_where_asked(void **state)
{
	struct ac_trace_event event;
	struct ac_pool *plain = open_pool(1);

	(void)state;
	assert_works(plain);
	assert_int_equal(ac_pool_trace(plain, &event, sizeof event, 1), 0);
	assert_int_equal(ac_pool_close(plain), 0);
}

#define STAT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAT_TEST(test_stat_refuses_what_can_not_be),
		STAT_TEST(test_stat_of_other_sizes),
		STAT_TEST(test_stat_fills_at_most_n_workers),
		STAT_TEST(test_stat_workers_are_idle_or_busy),
		STAT_TEST(test_stat_workers_start),
		STAT_TEST(test_stat_seats_keep_their_counts),
		STAT_TEST(test_stat_counts_everything_once),
		STAT_TEST(test_stat_tells_waiting_from_running),
		STAT_TEST(test_stat_deaths_of_idle_workers_count),
		STAT_TEST(test_stat_bytes_set_aside),
		STAT_TEST(test_stat_sum_holds_at_any_moment),
		STAT_TEST(test_stat_trace_is_complete_and_ordered),
		STAT_TEST(test_stat_trace_keeps_the_last),
		STAT_TEST(test_stat_trace_knows_the_caller_s_events),
		STAT_TEST(test_stat_trace_has_no_torn_events),
		STAT_TEST(test_stat_trace_only_where_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

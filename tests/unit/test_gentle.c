/* SPDX-License-Identifier: MIT */
/*
 * Pools whose workers end in their own way when the pool is terminated (AC_POOL_GENTLE): those that
 * handle SIGTERM, those that are idle, and those for which only a kill is left.
 */
#include "runtime_help.h"

#define WORKERS 2
#define LONG (10 * SECOND)

static int set_up_gentle(void **state)
{
	runtime_flags = AC_POOL_GENTLE;
	return set_up(state);
}

static struct ac_pool *open_gentle(enum behaviour behaviour)
{
	struct ac_pool *pool;

	seen->behaviour = behaviour;
	pool = open_runtime(WORKERS);
	EVENTUALLY(has_run(FIRST_TAG) && has_run(FIRST_TAG + 1));
	return pool;
}

static bool are_idle(struct ac_pool *pool)
{
	struct ac_worker_stat stats[WORKERS];

	ac_pool_dispatch(pool);
	ac_pool_workers(pool, stats, WORKERS);
	return stats[0].state == AC_WORKER_IDLE && stats[1].state == AC_WORKER_IDLE;
}

/* Nothing but a signal ends it. */
static int wait_for_ever(struct ac_call *call)
{
	(void)call;
	for (;;)
		pause();
	return 0;
}

static void keep_busy(struct ac_pool *pool, struct ac_task *tasks[WORKERS])
{
	struct ac_pool_stat stat = { 0 };

	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(ac_pool_submit(pool, &tasks[i], wait_for_ever, NULL, 0, NULL), 0);
	EVENTUALLY(ac_pool_stat(pool, &stat, sizeof stat) == 0 && stat.running == WORKERS);
}

static void terminate(struct ac_pool *pool)
{
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(ac_pool_submit(pool, NULL, echo, "", 1, NULL), AC_ECLOSED);
}

/* While nobody waits in the pool, which would kill them when their time is over. */
static void assert_ended_at_once(void)
{
	for (unsigned n = 0; n < WORKERS; n++)
		EVENTUALLY(!is_alive(start_of(FIRST_TAG + n)->pid));
}

static void assert_all_cancelled(struct ac_task *tasks[WORKERS])
{
	for (unsigned i = 0; i < WORKERS; i++) {
		assert_int_equal(status_of(tasks[i]), AC_ECANCELED);
		ac_task_free(tasks[i]);
	}
}

static void assert_all_ended(struct ac_pool *pool, int signal, int exit_code)
{
	struct ac_outcome outcome;
	struct ac_pool_stat stat;

	assert_int_equal(ac_pool_join(pool, LONG), 0);
	for (unsigned n = 0; n < WORKERS; n++) {
		assert_int_equal(ac_pool_worker_join(pool, start_of(FIRST_TAG + n)->worker,
						     FIRST_TAG + n, 0, &outcome), 0);
		assert_int_equal(outcome.signal, signal);
		assert_int_equal(outcome.exit_code, exit_code);
	}
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.deaths, 0);
	/* None was started in the place of one of these. */
	assert_int_equal(seen->count, WORKERS);
}

static void test_gentle_idle_workers_leave(void **state)
{
	struct ac_pool *pool = open_gentle(SERVES);

	(void)state;
	EVENTUALLY(are_idle(pool));
	terminate(pool);
	assert_ended_at_once();
	assert_all_ended(pool, 0, 0);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_gentle_busy_workers_are_killed_at_once(void **state)
{
	struct ac_pool *pool = open_gentle(SERVES);
	struct ac_task *tasks[WORKERS];

	(void)state;
	keep_busy(pool, tasks);
	terminate(pool);
	assert_ended_at_once();
	assert_all_cancelled(tasks);
	assert_all_ended(pool, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_gentle_workers_that_start_are_killed_at_once(void **state)
{
	struct ac_pool *pool = open_gentle(NEVER_IS_READY);

	(void)state;
	terminate(pool);
	assert_ended_at_once();
	assert_all_ended(pool, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_gentle_handlers_run_in_busy_workers(void **state)
{
	struct ac_pool *pool = open_gentle(EXITS_AT_TERM);
	struct ac_task *tasks[WORKERS];

	(void)state;
	keep_busy(pool, tasks);
	terminate(pool);
	assert_ended_at_once();
	assert_all_cancelled(tasks);
	assert_all_ended(pool, 0, 5);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* The signal comes before they are told to leave. */
static void test_gentle_handlers_run_in_idle_workers(void **state)
{
	struct ac_pool *pool = open_gentle(EXITS_AT_TERM);

	(void)state;
	EVENTUALLY(are_idle(pool));
	terminate(pool);
	assert_ended_at_once();
	assert_all_ended(pool, 0, 5);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_gentle_workers_that_stay_are_killed(void **state)
{
	struct ac_pool *pool = open_gentle(STAYS_AT_TERM);
	struct ac_task *tasks[WORKERS];
	int64_t start;

	(void)state;
	keep_busy(pool, tasks);
	start = now();
	terminate(pool);
	assert_all_cancelled(tasks);
	assert_all_ended(pool, SIGKILL, -1);
	/* Two seconds, and not the ten that a pool which is closed gives. */
	assert_true(now() - start >= 3 * SECOND / 2 && now() - start < 8 * SECOND);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* Closed first, it had ten seconds. */
static void test_gentle_terminate_ends_a_long_close(void **state)
{
	struct ac_pool *pool = open_gentle(SERVES);
	struct ac_task *tasks[WORKERS];

	(void)state;
	keep_busy(pool, tasks);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, 50 * MS), -ETIMEDOUT);
	terminate(pool);
	assert_ended_at_once();
	assert_all_cancelled(tasks);
	assert_all_ended(pool, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_gentle_others_are_killed_though_idle(void **state)
{
	struct ac_pool *pool;

	(void)state;
	runtime_flags = 0;
	pool = open_gentle(EXITS_AT_TERM);
	EVENTUALLY(are_idle(pool));
	terminate(pool);
	assert_ended_at_once();
	assert_all_ended(pool, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

#define GENTLE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_gentle, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		GENTLE_TEST(test_gentle_idle_workers_leave),
		GENTLE_TEST(test_gentle_busy_workers_are_killed_at_once),
		GENTLE_TEST(test_gentle_workers_that_start_are_killed_at_once),
		GENTLE_TEST(test_gentle_handlers_run_in_busy_workers),
		GENTLE_TEST(test_gentle_handlers_run_in_idle_workers),
		GENTLE_TEST(test_gentle_workers_that_stay_are_killed),
		GENTLE_TEST(test_gentle_terminate_ends_a_long_close),
		GENTLE_TEST(test_gentle_others_are_killed_though_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * What goes wrong in a map is its item's fate and nobody else's: failures,
 * deaths of every kind, retries, stopping early, and what is told about each.
 */
#include "pool_help.h"

#define MOST 400

static struct ac_pool *pool;
static struct ac_outcome outcomes[MOST], failure;
static int items[MOST], results[MOST];
static _Atomic unsigned *runs; /* shared: how often each item was begun */

static int set_up(void **state)
{
	help_set_up(state);
	runs = share(MOST * sizeof *runs);
	memset(items, 0, sizeof items);
	memset(results, 0xee, sizeof results);
	memset(outcomes, 0xee, sizeof outcomes);
	memset(&failure, 0xee, sizeof failure);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	munmap((void *)runs, MOST * sizeof *runs);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

static int run_map(ac_map_fn *fn, unsigned count, struct ac_map_opts *opts)
{
	opts->size = sizeof *opts;
	opts->outcomes = outcomes;
	opts->failure = &failure;
	for (unsigned i = 0; i < count; i++)
		results[i] = -1;
	return ac_pool_map(pool, fn, opts, items, sizeof *items, results,
			   sizeof *results, count);
}

/* ---- functions that fail ---- */

static int item_fails(const void *item, void *result, const void *bound)
{
	int value = *(const int *)item;

	(void)bound;
	*(int *)result = 1;
	if (!value)
		return 0;
	if (value % 2)
		ac_call_fail(ac_call_current(), "item of %d", value);
	return value;
}

static void check_success(unsigned i)
{
	assert_int_equal(outcomes[i].status, 0);
	assert_int_equal(outcomes[i].value, 0);
	assert_int_equal(outcomes[i].signal, 0);
	assert_int_equal(outcomes[i].exit_code, -1);
	assert_true(outcomes[i].pid > 0);
	assert_in_range(outcomes[i].worker, 0, 1);
	assert_int_equal(outcomes[i].index, i);
	assert_string_equal(outcomes[i].text, "");
	assert_int_equal(results[i], 1);
}

static void check_failure(unsigned i)
{
	char text[64];

	snprintf(text, sizeof text, items[i] % 2 ? "item of %d" :
						   "the task's function returned %d", items[i]);
	assert_int_equal(outcomes[i].status, AC_ETASK);
	assert_int_equal(outcomes[i].value, items[i]);
	assert_int_equal(outcomes[i].signal, 0);
	assert_true(outcomes[i].pid > 0);
	assert_int_equal(outcomes[i].index, i);
	assert_string_equal(outcomes[i].text, text);
	assert_int_equal(results[i], -1); /* left as it was */
}

static void check_all(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (items[i])
			check_failure(i);
		else
			check_success(i);
}

static void test_mapfail_items_fail_everywhere(void **state)
{
	struct ac_map_opts opts = { 0 };

	(void)state;
	for (int i = 1; i < MOST; i += 3)
		items[i] = i;
	assert_int_equal(run_map(item_fails, MOST, &opts), AC_ETASK);
	check_all(MOST);
	assert_memory_equal(&failure, &outcomes[1], sizeof failure);
	for (int i = 0; i < MOST; i++)
		items[i] = -1 - i;
	assert_int_equal(run_map(item_fails, MOST, &opts), AC_ETASK);
	check_all(MOST);
	assert_int_equal(failure.index, 0);
	assert_int_equal(failure.value, -1);
}

static void test_mapfail_in_given_chunks(void **state)
{
	static const size_t chunks[] = { 1, 3, 50, MOST, 10 * MOST };
	struct ac_map_opts opts = { 0 };

	(void)state;
	for (int i = 7; i < MOST; i += 11)
		items[i] = i;
	for (size_t i = 0; i < COUNT(chunks); i++) {
		opts.chunk = chunks[i];
		assert_int_equal(run_map(item_fails, MOST, &opts), AC_ETASK);
		check_all(MOST);
		assert_int_equal(failure.index, 7);
	}
}

static int fail_early_late(const void *item, void *result, const void *bound)
{
	int ms = *(const int *)item;

	(void)result, (void)bound;
	if (ms)
		nap(ms * MS);
	return ms;
}

static void test_mapfail_lowest_index_wins(void **state)
{
	struct ac_map_opts opts = { 0 };

	(void)state;
	items[3] = 300; /* fails long after those behind it */
	items[50] = 1;
	items[99] = 1;
	assert_int_equal(run_map(fail_early_late, 100, &opts), AC_ETASK);
	assert_int_equal(failure.index, 3);
	assert_int_equal(failure.value, 300);
	assert_int_equal(failure.status, AC_ETASK);
}

static int long_words(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return ac_call_fail(ac_call_current(), "%0300d|", 7);
}

static void test_mapfail_words_are_cut(void **state)
{
	struct ac_map_opts opts = { 0 };

	(void)state;
	assert_int_equal(run_map(long_words, 3, &opts), AC_ETASK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(strlen(outcomes[i].text), AC_TEXT_SIZE - 1);
		assert_int_equal(outcomes[i].value, AC_ETASK);
	}
}

static void test_mapfail_success_fills_outcomes_too(void **state)
{
	struct ac_map_opts opts = { 0 };

	(void)state;
	assert_int_equal(run_map(item_fails, MOST, &opts), 0);
	check_all(MOST);
}

/* ---- stopping ---- */

static int nap_then_fail(const void *item, void *result, const void *bound)
{
	int value = *(const int *)item;

	(void)bound;
	*(int *)result = 1;
	nap(2 * MS);
	return value;
}

static void test_mapfail_stop_starts_no_further_item(void **state)
{
	struct ac_map_opts opts = { .flags = AC_MAP_STOP };
	unsigned done = 0, cancelled = 0, failed = 0;

	(void)state;
	items[20] = 5;
	assert_int_equal(run_map(nap_then_fail, MOST, &opts), AC_ETASK);
	for (unsigned i = 0; i < MOST; i++) {
		assert_int_equal(outcomes[i].index, i);
		done += outcomes[i].status == 0;
		failed += outcomes[i].status == AC_ETASK;
		cancelled += outcomes[i].status == AC_ECANCELED;
		assert_int_equal(results[i], outcomes[i].status == 0 ? 1 : -1);
		if (outcomes[i].status == AC_ECANCELED)
			assert_int_equal(outcomes[i].pid, 0);
	}
	assert_int_equal(failed, 1);
	assert_int_equal(done + cancelled, MOST - 1);
	assert_true(cancelled > MOST / 2);
	assert_int_equal(failure.index, 20);
	assert_int_equal(failure.status, AC_ETASK);
	assert_works(pool);
}

static void test_mapfail_stop_in_a_chunk(void **state)
{
	struct ac_map_opts opts = { .flags = AC_MAP_STOP, .chunk = MOST };

	(void)state;
	items[30] = 5;
	assert_int_equal(run_map(item_fails, MOST, &opts), AC_ETASK);
	for (unsigned i = 0; i < MOST; i++)
		assert_int_equal(outcomes[i].status,
				 i < 30 ? 0 : i == 30 ? AC_ETASK : AC_ECANCELED);
}

/* ---- workers that die ---- */

static int item_kills(const void *item, void *result, const void *bound)
{
	int how = *(const int *)item;
	unsigned i = (unsigned)how >> 8;

	(void)bound;
	atomic_fetch_add(&runs[i], 1);
	*(int *)result = 1;
	how = how & 0xff;
	if (how >= 128)
		die(128 - how); /* 128 + exit code */
	if (how)
		die(how);
	return 0;
}

static void check_death(unsigned i, int how)
{
	char pattern[24];

	assert_int_equal(outcomes[i].status, AC_EDIED);
	assert_int_equal(outcomes[i].signal, how < 128 ? how : 0);
	assert_int_equal(outcomes[i].exit_code, how < 128 ? -1 : how - 128);
	assert_true(outcomes[i].pid > 0);
	assert_in_range(outcomes[i].worker, 0, 1);
	assert_int_equal(outcomes[i].index, i);
	snprintf(pattern, sizeof pattern, how < 128 ? "signal %d" : "code %d",
		 how < 128 ? how : how - 128);
	if (!strstr(outcomes[i].text, pattern))
		fail_msg("\"%s\" lacks \"%s\"", outcomes[i].text, pattern);
	assert_int_equal(results[i], -1);
}

static int how_of(unsigned i)
{
	static const int ways[] = { SIGKILL, SIGSEGV, 128 + 3, 128 + 0, SIGABRT, SIGTERM };

	return i % 9 == 4 ? ways[i / 9 % COUNT(ways)] : 0;
}

static void kill_in_map(unsigned count, size_t chunk)
{
	struct ac_map_opts opts = { .chunk = chunk };
	struct ac_pool_stat before, after;
	unsigned deaths = 0;

	memset((void *)runs, 0, MOST * sizeof *runs);
	assert_int_equal(ac_pool_stat(pool, &before, sizeof before), 0);
	for (unsigned i = 0; i < count; i++)
		items[i] = (int)(i << 8) | how_of(i);
	assert_int_equal(run_map(item_kills, count, &opts), AC_EDIED);
	for (unsigned i = 0; i < count; i++) {
		if (how_of(i))
			check_death(i, how_of(i));
		else
			check_success(i);
		if (runs[i] != 1)
			fail_msg("item %u ran %u times", i, runs[i]);
		deaths += how_of(i) != 0;
	}
	assert_memory_equal(&failure, &outcomes[4], sizeof failure);
	assert_int_equal(ac_pool_stat(pool, &after, sizeof after), 0);
	assert_int_equal(after.deaths - before.deaths, deaths);
	assert_int_equal(after.failed - before.failed, deaths);
	assert_int_equal(after.done - before.done, count - deaths);
}

static void test_mapfail_each_death_costs_one_item(void **state)
{
	(void)state;
	kill_in_map(120, 0);
	kill_in_map(120, 1);
	kill_in_map(120, 7);
	kill_in_map(120, 120);
	assert_works(pool);
}

static int exit_normally(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	if (*(const int *)item)
		exit(3);
	return 0;
}

static void test_mapfail_exit_is_a_death(void **state)
{
	struct ac_map_opts opts = { 0 };

	(void)state;
	items[5] = 1;
	assert_int_equal(run_map(exit_normally, 10, &opts), AC_EDIED);
	assert_int_equal(failure.index, 5);
	assert_int_equal(failure.exit_code, 3);
	assert_int_equal(failure.signal, 0);
}

static void test_mapfail_all_items_kill(void **state)
{
	struct ac_map_opts opts = { 0 };

	(void)state;
	for (unsigned i = 0; i < 40; i++)
		items[i] = (int)(i << 8) | SIGKILL;
	assert_int_equal(run_map(item_kills, 40, &opts), AC_EDIED);
	for (unsigned i = 0; i < 40; i++)
		check_death(i, SIGKILL);
	assert_works(pool);
}

/* ---- retries ---- */

static int kill_first_time(const void *item, void *result, const void *bound)
{
	int i = *(const int *)item;

	(void)bound;
	if (atomic_fetch_add(&runs[i], 1) == 0 && i % 5 == 2)
		die(SIGKILL);
	*(int *)result = 1;
	return 0;
}

static void test_mapfail_retry_mends_a_single_death(void **state)
{
	struct ac_map_opts opts = { .retries = 1 };

	(void)state;
	for (int i = 0; i < 60; i++)
		items[i] = i;
	assert_int_equal(run_map(kill_first_time, 60, &opts), 0);
	for (unsigned i = 0; i < 60; i++) {
		check_success(i);
		assert_int_equal(runs[i], i % 5 == 2 ? 2 : 1);
	}
}

static void test_mapfail_retries_are_counted(void **state)
{
	struct ac_map_opts opts = { .retries = 2 };

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		items[i] = (int)(i << 8) | (i == 7 || i == 8 ? SIGKILL : 0);
	assert_int_equal(run_map(item_kills, 20, &opts), AC_EDIED);
	for (unsigned i = 0; i < 20; i++) {
		if (i == 7 || i == 8)
			check_death(i, SIGKILL);
		else
			check_success(i);
		assert_int_equal(runs[i], i == 7 || i == 8 ? 3 : 1);
	}
}

static int count_and_fail(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	atomic_fetch_add(&runs[*(const int *)item], 1);
	return 1;
}

static void test_mapfail_failures_are_not_retried(void **state)
{
	struct ac_map_opts opts = { .retries = 5 };

	(void)state;
	for (int i = 0; i < 10; i++)
		items[i] = i;
	assert_int_equal(run_map(count_and_fail, 10, &opts), AC_ETASK);
	for (int i = 0; i < 10; i++)
		assert_int_equal(runs[i], 1);
}

#define MAP_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MAP_TEST(test_mapfail_items_fail_everywhere),
		MAP_TEST(test_mapfail_in_given_chunks),
		MAP_TEST(test_mapfail_lowest_index_wins),
		MAP_TEST(test_mapfail_words_are_cut),
		MAP_TEST(test_mapfail_success_fills_outcomes_too),
		MAP_TEST(test_mapfail_each_death_costs_one_item),
		MAP_TEST(test_mapfail_exit_is_a_death),
		MAP_TEST(test_mapfail_all_items_kill),
		MAP_TEST(test_mapfail_retry_mends_a_single_death),
		MAP_TEST(test_mapfail_retries_are_counted),
		MAP_TEST(test_mapfail_failures_are_not_retried),
		MAP_TEST(test_mapfail_stop_starts_no_further_item),
		MAP_TEST(test_mapfail_stop_in_a_chunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

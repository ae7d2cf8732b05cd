/* SPDX-License-Identifier: MIT */
/* A map by the words of the public header: sizes, shared data, chunks, failures, deaths. */
#include "pool_help.h"

static struct ac_pool *pool; /* two workers, for all tests that need no other */

static int set_up(void **state)
{
	help_set_up(state);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

/* ---- how many ---- */

static int do_nothing(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return 0;
}

static int square(const void *item, void *result, const void *bound)
{
	int64_t n = *(const int32_t *)item;

	(void)bound;
	*(int64_t *)result = n * n;
	return 0;
}

static void square_many(size_t count)
{
	int32_t *items = calloc(count, sizeof *items);
	int64_t *results = calloc(count, sizeof *results);

	for (size_t i = 0; i < count; i++)
		items[i] = (int32_t)i - 5;
	assert_int_equal(ac_pool_map(pool, square, NULL, items, sizeof *items, results,
				     sizeof *results, count), 0);
	for (size_t i = 0; i < count; i++)
		if (results[i] != (int64_t)items[i] * items[i])
			fail_msg("wrong at %zu of %zu", i, count);
	free(items);
	free(results);
}

static void test_map_of_no_items(void **state)
{
	char item = 0;

	(void)state;
	assert_int_equal(ac_pool_map(pool, square, NULL, NULL, 0, NULL, 0, 0), 0);
	assert_int_equal(ac_pool_map(pool, square, NULL, NULL, 8, NULL, 8, 0), 0);
	assert_int_equal(ac_pool_map(pool, square, NULL, &item, 1, &item, 1, 0), 0);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_map(pool, square, NULL, NULL, 0, NULL, 0, 0),
			 AC_ECLOSED);
}

static void test_map_of_few_and_many_items(void **state)
{
	static const size_t counts[] = { 1, 2, 3, 7, 64, 1000, 100003 };

	(void)state;
	for (size_t i = 0; i < COUNT(counts); i++)
		square_many(counts[i]);
}

static void test_map_of_a_million_that_do_nothing(void **state)
{
	struct ac_pool_stat stat;

	(void)state;
	assert_int_equal(ac_pool_map(pool, do_nothing, NULL, NULL, 0, NULL, 0, 1000000),
			 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.submitted, 1000000);
	assert_int_equal(stat.done, 1000000);
}

/* ---- sizes ---- */

struct sizes {
	size_t item, result;
};

static int check_and_fill(const void *item, void *result, const void *bound)
{
	const struct sizes *sizes = bound;
	const unsigned char *in = item;
	unsigned char *out = result;

	for (size_t i = 0; i < sizes->result; i++)
		if (out[i])
			return 1; /* it was not zeroed */
	for (size_t i = 0; i < sizes->item; i++)
		if (in[i] != (unsigned char)(in[0] + i))
			return 2;
	for (size_t i = 0; i < sizes->result; i++)
		out[i] = (unsigned char)(i + (sizes->item ? in[0] : 0) + 1);
	return 0;
}

static void map_sizes(size_t item_size, size_t result_size, size_t count)
{
	struct sizes sizes = { item_size, result_size };
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = &sizes,
				    .bound_size = sizeof sizes };
	unsigned char *items = malloc(item_size * count + 1);
	unsigned char *results = malloc(result_size * count + 1);

	for (size_t i = 0; i < count * item_size; i++)
		items[i] = (unsigned char)(i / item_size + i % item_size);
	memset(results, 0xee, result_size * count + 1);
	assert_int_equal(ac_pool_map(pool, check_and_fill, &opts,
				     item_size ? items : NULL, item_size,
				     result_size ? results : NULL, result_size, count),
			 0);
	for (size_t i = 0; i < count * result_size; i++)
		if (results[i] != (unsigned char)(i % result_size + 1 +
						  (item_size ? i / result_size : 0)))
			fail_msg("sizes %zu, %zu: wrong at byte %zu", item_size,
				 result_size, i);
	assert_int_equal(results[count * result_size], 0xee);
	free(items);
	free(results);
}

static void test_map_of_odd_sizes(void **state)
{
	static const size_t sizes[] = { 0, 1, 3, 7, 100, 144, 145, 192, 193, 4097 };

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++)
		for (size_t j = 0; j < COUNT(sizes); j++)
			map_sizes(sizes[i], sizes[j], 40);
}

static void test_map_of_big_items(void **state)
{
	(void)state;
	map_sizes(MB, MB, 12);
	map_sizes(MB + 1, 1, 12);
	map_sizes(1, MB - 1, 12);
	map_sizes(40 * MB, 40 * MB, 1);
}

static int check_alignment(const void *item, void *result, const void *bound)
{
	size_t size = *(const size_t *)bound;

	return (uintptr_t)item % size || (uintptr_t)result % size;
}

static void align_to(size_t size)
{
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = &size,
				    .bound_size = sizeof size };
	size_t counts[] = { 1, 2, 5, 300 };
	char *items = malloc(size * 300 + 1), *results = malloc(size * 300 + 1);

	memset(items, 0, size * 300 + 1);
	/* However ill aligned the caller's own arrays are. */
	for (size_t i = 0; i < COUNT(counts); i++)
		assert_int_equal(ac_pool_map(pool, check_alignment, &opts, items + 1,
					     size, results + 1, size, counts[i]), 0);
	free(items);
	free(results);
}

static void test_map_aligns_items_and_results(void **state)
{
	(void)state;
	for (size_t size = 1; size <= 16; size *= 2)
		align_to(size);
}

/* A type of 32 or 64 bytes may be a vector, aligned to its size. */
static void test_map_aligns_vectors(void **state)
{
	(void)state;
	align_to(32);
	align_to(64);
}

/* ---- shared data ---- */

static int check_bound(const void *item, void *result, const void *bound)
{
	size_t len = *(const size_t *)item;
	const unsigned char *bytes = bound;

	(void)result;
	if ((uintptr_t)bound % 64)
		return 1;
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != (unsigned char)((i ^ i >> 8 ^ i >> 16) * 31 + 9))
			return 2;
	return 0;
}

static int expect_no_bound(const void *item, void *result, const void *bound)
{
	(void)item, (void)result;
	return bound != NULL;
}

static void map_bound(size_t len)
{
	unsigned char *bytes = malloc(len);
	struct ac_map_opts opts = { .size = sizeof opts, .bound = bytes, .bound_size = len };
	size_t items[20];

	fill_bytes(bytes, len, 9);
	for (int i = 0; i < 20; i++)
		items[i] = len;
	assert_int_equal(ac_pool_map(pool, check_bound, &opts, items, sizeof *items,
				     NULL, 0, 20), 0);
	free(bytes);
}

static void test_map_shares_bound_data(void **state)
{
	struct ac_map_opts opts = { .size = sizeof opts };

	(void)state;
	map_bound(1);
	map_bound(63);
	map_bound(5000);
	map_bound(10 * MB);
	assert_int_equal(ac_pool_map(pool, expect_no_bound, &opts, NULL, 0, NULL, 0, 9),
			 0);
	assert_int_equal(ac_pool_map(pool, expect_no_bound, NULL, NULL, 0, NULL, 0, 9),
			 0);
	opts.bound_size = 1;
	assert_int_equal(ac_pool_map(pool, expect_no_bound, &opts, NULL, 0, NULL, 0, 9),
			 -EINVAL);
}

static void test_map_gives_bound_data_back(void **state)
{
	struct ac_pool_stat stat;
	uint64_t bytes;

	(void)state;
	map_bound(4 * MB);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	bytes = stat.bytes;
	for (int i = 0; i < 20; i++)
		map_bound(4 * MB);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(stat.bytes <= bytes + 8 * MB);
}

/* ---- chunks ---- */

struct trail {
	pid_t pid;
	unsigned sequence;
};

static int leave_trail(const void *item, void *result, const void *bound)
{
	static unsigned sequence;
	struct trail *trail = result;

	(void)item, (void)bound;
	trail->pid = getpid();
	trail->sequence = sequence++;
	return 0;
}

static void obey_chunk(size_t chunk)
{
	struct ac_map_opts opts = { .size = sizeof opts, .chunk = chunk };
	struct trail trails[500];

	assert_int_equal(ac_pool_map(pool, leave_trail, &opts, NULL, 0, trails,
				     sizeof *trails, 500), 0);
	for (size_t i = 1; i < 500; i++) {
		if (i % chunk == 0)
			continue;
		assert_int_equal(trails[i].pid, trails[i - 1].pid);
		assert_int_equal(trails[i].sequence, trails[i - 1].sequence + 1);
	}
}

static void test_map_obeys_a_given_chunk(void **state)
{
	static const size_t chunks[] = { 1, 2, 7, 100, 499, 500, 501, 100000, SIZE_MAX };

	(void)state;
	for (size_t i = 0; i < COUNT(chunks); i++)
		obey_chunk(chunks[i]);
}

/* ---- arguments that can't be ---- */

static int map_raw(const void *items, size_t item_size, void *results,
		   size_t result_size, size_t count)
{
	return ac_pool_map(pool, do_nothing, NULL, items, item_size, results,
			   result_size, count);
}

static bool is_refusal(int r)
{
	return r == -EOVERFLOW || r == -EINVAL;
}

static void test_map_refuses_what_can_not_be(void **state)
{
	struct ac_map_opts opts = { 0 };
	char byte = 0;

	(void)state;
	assert_int_equal(ac_pool_map(NULL, do_nothing, NULL, NULL, 0, NULL, 0, 1),
			 -EINVAL);
	assert_int_equal(ac_pool_map(pool, NULL, NULL, NULL, 0, NULL, 0, 1), -EINVAL);
	assert_int_equal(map_raw(NULL, 1, &byte, 1, 1), -EINVAL);
	assert_int_equal(map_raw(&byte, 1, NULL, 1, 1), -EINVAL);
	assert_int_equal(ac_pool_map(pool, do_nothing, &opts, NULL, 0, NULL, 0, 1),
			 -EINVAL);
	opts.size = sizeof opts;
	opts.flags = AC_MAP_STOP << 1;
	assert_int_equal(ac_pool_map(pool, do_nothing, &opts, NULL, 0, NULL, 0, 1),
			 -EINVAL);
	assert_int_equal(map_raw(&byte, 2, NULL, 0, SIZE_MAX), -EOVERFLOW);
	assert_int_equal(map_raw(NULL, 0, &byte, 2, SIZE_MAX), -EOVERFLOW);
	assert_int_equal(map_raw(&byte, 16, NULL, 0, SIZE_MAX / 16 + 1), -EOVERFLOW);
	assert_int_equal(map_raw(&byte, 1, NULL, 0, SIZE_MAX), -EOVERFLOW);
	assert_true(is_refusal(map_raw(&byte, SIZE_MAX, NULL, 0, 2)));
	assert_true(is_refusal(map_raw(&byte, SIZE_MAX, NULL, 0, 1)));
	assert_true(is_refusal(map_raw(NULL, 0, &byte, (size_t)PTRDIFF_MAX + 1, 1)));
	assert_works(pool);
}

/* ---- progress ---- */

struct seen {
	pthread_t thread;
	size_t ended, count;
	unsigned calls;
	bool wrong;
};

static void see_progress(void *arg, size_t ended, size_t count)
{
	struct seen *seen = arg;
	struct ac_pool_stat stat;

	seen->wrong |= !pthread_equal(seen->thread, pthread_self());
	seen->wrong |= ended < seen->ended || count != seen->count || ended > count;
	/* It may use the pool. */
	seen->wrong |= ac_pool_stat(pool, &stat, sizeof stat) != 0;
	seen->ended = ended;
	seen->calls++;
}

/* So long that all pieces end meanwhile, and are collected by what it calls. */
static void see_progress_slowly(void *arg, size_t ended, size_t count)
{
	if (ended < count)
		nap(300 * MS);
	see_progress(arg, ended, count);
}

static int nap_item(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	nap(*(const int *)item * MS);
	return 0;
}

static void check_progress(void (*progress)(void *, size_t, size_t))
{
	struct seen seen = { .thread = pthread_self(), .count = 16 };
	struct ac_map_opts opts = { .size = sizeof opts,
				    .progress = progress,
				    .progress_arg = &seen };
	int items[16];

	for (int i = 0; i < 16; i++)
		items[i] = 20;
	assert_int_equal(ac_pool_map(pool, nap_item, &opts, items, sizeof *items, NULL,
				     0, 16), 0);
	assert_false(seen.wrong);
	assert_true(seen.calls >= 1);
	assert_int_equal(seen.ended, 16);
}

static void test_map_reports_progress(void **state)
{
	(void)state;
	check_progress(see_progress);
}

static void test_map_reports_the_end_that_came_during_a_report(void **state)
{
	(void)state;
	check_progress(see_progress_slowly);
}

/* ---- side by side ---- */

static void *map_repeatedly(void *arg)
{
	int32_t items[500];
	int64_t results[500];
	int seed = *(int *)arg;

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 500; i++)
			items[i] = seed * 1000 + i + round;
		if (ac_pool_map(pool, square, NULL, items, sizeof *items, results,
				sizeof *results, 500))
			return arg;
		for (int i = 0; i < 500; i++)
			if (results[i] != (int64_t)items[i] * items[i])
				return arg;
	}
	return NULL;
}

static void test_map_runs_beside_others(void **state)
{
	pthread_t threads[4];
	int seeds[4] = { 1, 2, 3, 4 };
	void *wrong;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, map_repeatedly,
						&seeds[i]), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &wrong), 0);
		assert_null(wrong);
	}
}

/* ---- one long item ---- */

struct times {
	int64_t ended[200];
};

static int note_time(const void *item, void *result, const void *bound)
{
	const int *ms = item;

	(void)bound;
	nap(*ms * MS);
	*(int64_t *)result = ac__sys_now();
	return 0;
}

static void map_skewed(int longest)
{
	int64_t ended[200], start = now(), last = 0, others = 0;
	int items[200];

	for (int i = 0; i < 200; i++)
		items[i] = i == longest ? 1200 : 1;
	assert_int_equal(ac_pool_map(pool, note_time, NULL, items, sizeof *items, ended,
				     sizeof *ended, 200), 0);
	for (int i = 0; i < 200; i++) {
		last = ended[i] > last ? ended[i] : last;
		if (i != longest && ended[i] > others)
			others = ended[i];
	}
	/* Alone the others take 0.2 s, or 0.1 on both workers. */
	assert_true(others < start + 1000 * MS);
	assert_true(last < start + 2400 * MS);
}

static void test_map_long_item_holds_nobody_up(void **state)
{
	(void)state;
	map_skewed(0);
	map_skewed(1);
	map_skewed(100);
	map_skewed(199);
}

/* Entries of tasks that were cancelled lie in the queue before the map's. */
static void test_map_behind_cancelled_tasks_is_not_held_up(void **state)
{
	struct ac_pool *one = open_pool(1);
	struct ac_task *tasks[1000], *busy;
	int64_t start;

	(void)state;
	for (int round = 0; round < 20; round++) {
		start = now();
		busy = submit_int(one, nap_ms, 20);
		nap(3 * MS);
		for (unsigned i = 0; i < COUNT(tasks); i++)
			tasks[i] = submit_int(one, echo, 1);
		for (unsigned i = 0; i < COUNT(tasks); i++) {
			ac_task_cancel(tasks[i], 0);
			ac_task_free(tasks[i]);
		}
		assert_int_equal(ac_pool_map(one, do_nothing, NULL, NULL, 0, NULL, 0, 10), 0);
		assert_true(now() - start < 5 * SECOND);
		assert_int_equal(status_of(busy), 0);
		ac_task_free(busy);
	}
	assert_int_equal(ac_pool_close(one), 0);
}

static int fail_odd(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	return *(const int *)item % 2;
}

static void test_map_failed_items_count_as_done_by_their_worker(void **state)
{
	struct ac_worker_stat stats[2];
	int items[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		items[i] = i;
	assert_int_equal(ac_pool_map(pool, fail_odd, NULL, items, sizeof *items, NULL, 0,
				     100), AC_ETASK);
	EVENTUALLY(ac_pool_workers(pool, stats, 2) == 2 &&
		   stats[0].tasks + stats[1].tasks == 100);
}

#define MAP_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		MAP_TEST(test_map_of_no_items),
		MAP_TEST(test_map_of_few_and_many_items),
		MAP_TEST(test_map_of_a_million_that_do_nothing),
		MAP_TEST(test_map_of_odd_sizes),
		MAP_TEST(test_map_of_big_items),
		MAP_TEST(test_map_aligns_items_and_results),
		MAP_TEST(test_map_aligns_vectors),
		MAP_TEST(test_map_shares_bound_data),
		MAP_TEST(test_map_gives_bound_data_back),
		MAP_TEST(test_map_obeys_a_given_chunk),
		MAP_TEST(test_map_refuses_what_can_not_be),
		MAP_TEST(test_map_reports_progress),
		MAP_TEST(test_map_reports_the_end_that_came_during_a_report),
		MAP_TEST(test_map_runs_beside_others),
		MAP_TEST(test_map_long_item_holds_nobody_up),
		MAP_TEST(test_map_behind_cancelled_tasks_is_not_held_up),
		MAP_TEST(test_map_failed_items_count_as_done_by_their_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

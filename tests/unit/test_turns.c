/* SPDX-License-Identifier: MIT */
/*
 * Turns: single calls together, each map and each stream share the workers. What is short
 * does not wait for what is long; within each, order is kept. Counted in pieces of
 * work, not in seconds.
 */
#include "alone_help.h"

static struct ac_pool *pool; /* two workers */

/* Of these, each 10 ms long, is what is long. */
#define LONG 160
/* A few handed out to each worker and a turn are about 10; a machine that is busy with
 * other things makes it more. */
#define FEW 60

/* All processes see it. */
static struct {
	_Atomic unsigned ended;		/* pieces of what is long */
	_Atomic bool go;
	_Atomic unsigned run;		/* how many numbers are in order[] */
	_Atomic int order[8192];	/* as they were run */
} *seen;

static int open_with(int workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers };

	return ac_pool_open(&pool, &opts);
}

static int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	return open_with(2);
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	munmap(seen, sizeof *seen);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

/* ---- what is long ---- */

static int nap_item(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	nap(10 * MS);
	seen->ended++;
	return 0;
}

static int nap_call(struct ac_call *call)
{
	(void)call;
	nap(10 * MS);
	seen->ended++;
	return 0;
}

static void *map_long(void *arg)
{
	*(int *)arg = ac_pool_map(pool, nap_item, NULL, NULL, 0, NULL, 0, LONG);
	return NULL;
}

static int next_nap(void *arg, const void **data, size_t *len)
{
	unsigned *left = arg;

	*data = left;
	*len = sizeof *left;
	return (*left)-- > 0;
}

static void *read_long(void *arg)
{
	unsigned left = LONG;
	struct ac_stream_opts opts = { .size = sizeof opts, .source = next_nap,
				       .source_arg = &left, .ahead = LONG };
	struct ac_stream *stream;
	struct ac_task *task;

	*(int *)arg = ac_stream_open(&stream, pool, nap_call, &opts);
	if (*(int *)arg < 0)
		return NULL;
	while (ac_stream_next(stream, &task, -1) == 1)
		ac_task_free(task);
	ac_stream_close(stream);
	return NULL;
}

static void *feed_long(void *arg)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream;
	struct ac_task *task;
	int r = ac_stream_open(&stream, pool, nap_call, &opts);

	for (int i = 0; r == 0 && i < LONG; i++)
		r = ac_stream_push(stream, &i, sizeof i, NULL, NULL);
	*(int *)arg = r;
	if (r < 0)
		return NULL;
	ac_stream_end(stream);
	while (ac_stream_next(stream, &task, -1) == 1)
		ac_task_free(task);
	ac_stream_close(stream);
	return NULL;
}

static void *call_long(void *arg)
{
	int r = 0;

	for (int i = 0; r == 0 && i < LONG; i++)
		r = ac_pool_submit(pool, NULL, nap_call, NULL, 0, NULL);
	*(int *)arg = r;
	return NULL;
}

/* ---- what is short ---- */

static void call_one(void)
{
	assert_works(pool);
}

static int short_item(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return 0;
}

static void map_few(void)
{
	char items[4] = { 0 };

	assert_int_equal(ac_pool_map(pool, short_item, NULL, items, 1, NULL, 0, 4), 0);
}

static void read_few(void)
{
	unsigned left = 4;
	struct ac_stream_opts opts = { .size = sizeof opts, .source = next_nap,
				       .source_arg = &left };
	struct ac_stream *stream;
	struct ac_task *task;

	assert_int_equal(ac_stream_open(&stream, pool, echo, &opts), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		ac_task_free(task);
	}
	ac_stream_close(stream);
}

/* Both: what is long begins, then what is short comes and goes. */
static void pass(void *(*long_work)(void *), void (*short_work)(void))
{
	unsigned before, after;
	pthread_t thread;
	int r = 0;

	assert_works(pool); /* the workers are there */
	assert_int_equal(pthread_create(&thread, NULL, long_work, &r), 0);
	EVENTUALLY(seen->ended >= 10);
	before = seen->ended;
	short_work();
	after = seen->ended;
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(r, 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(seen->ended, LONG);
	if (after - before > FEW)
		fail_msg("%u long pieces ended before the short work had", after - before);
}

static void test_turns_call_passes_a_map(void **state)
{
	(void)state;
	pass(map_long, call_one);
}

static void test_turns_call_passes_a_stream(void **state)
{
	(void)state;
	pass(read_long, call_one);
}

static void test_turns_call_passes_a_fed_stream(void **state)
{
	(void)state;
	pass(feed_long, call_one);
}

static void test_turns_map_passes_a_map(void **state)
{
	(void)state;
	pass(map_long, map_few);
}

static void test_turns_map_passes_a_fed_stream(void **state)
{
	(void)state;
	pass(feed_long, map_few);
}

static void test_turns_map_passes_many_calls(void **state)
{
	(void)state;
	pass(call_long, map_few);
}

static void test_turns_stream_passes_a_map(void **state)
{
	(void)state;
	pass(map_long, read_few);
}

static void test_turns_stream_passes_a_fed_stream(void **state)
{
	(void)state;
	pass(feed_long, read_few);
}

static void test_turns_stream_passes_many_calls(void **state)
{
	(void)state;
	pass(call_long, read_few);
}

/* ---- a share for each ---- */

static int item_of_the_other(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	nap(10 * MS);
	return 0;
}

/* 60 against 160 of the same length: by turns, at about 60 of each the short one is done. */
static void test_turns_two_maps_share_the_workers(void **state)
{
	pthread_t thread;
	unsigned before, after;
	int r = 0;

	(void)state;
	assert_works(pool);
	assert_int_equal(pthread_create(&thread, NULL, map_long, &r), 0);
	EVENTUALLY(seen->ended >= 10);
	before = seen->ended;
	assert_int_equal(ac_pool_map(pool, item_of_the_other, NULL, NULL, 0, NULL, 0, 60), 0);
	after = seen->ended;
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(r, 0);
	/* Neither waits for the other. */
	assert_in_range(after - before, 20, 60 + FEW);
}

/* ---- order ---- */

static int note_number(struct ac_call *call)
{
	seen->order[seen->run++] = *(const int *)ac_call_arg(call, NULL);
	return 0;
}

static void assert_in_order(int count)
{
	assert_int_equal(seen->run, count);
	for (int i = 0; i < count; i++)
		assert_int_equal(seen->order[i], i);
}

static void open_one_worker(void)
{
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(open_with(1), 0);
	assert_works(pool);
}

/* More than can be handed out at once, while a map takes turns with them. */
static void test_turns_calls_begin_in_their_order(void **state)
{
	enum { CALLS = 6000 };
	pthread_t thread;
	int r = 0;

	(void)state;
	open_one_worker();
	assert_int_equal(pthread_create(&thread, NULL, map_long, &r), 0);
	EVENTUALLY(seen->ended >= 2);
	for (int i = 0; i < CALLS; i++)
		assert_int_equal(ac_pool_submit(pool, NULL, note_number, &i, sizeof i, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(r, 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_in_order(CALLS);
}

static int wait_for_go(struct ac_call *call)
{
	(void)call;
	while (!seen->go)
		nap(MS);
	return 0;
}

/* While single calls and another stream come between. */
static void test_turns_pushed_calls_begin_in_their_order(void **state)
{
	enum { CALLS = 6000 };
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream, *other;
	struct ac_task *task;

	(void)state;
	open_one_worker();
	assert_int_equal(ac_stream_open(&stream, pool, note_number, &opts), 0);
	assert_int_equal(ac_stream_open(&other, pool, echo, &opts), 0);
	assert_int_equal(ac_pool_submit(pool, NULL, wait_for_go, NULL, 0, NULL), 0);
	for (int i = 0; i < CALLS; i++) {
		assert_int_equal(ac_stream_push(stream, &i, sizeof i, NULL, NULL), 0);
		assert_int_equal(ac_stream_push(other, &i, sizeof i, NULL, NULL), 0);
		if (i % 10 == 0)
			assert_int_equal(ac_pool_submit(pool, NULL, echo, &i, sizeof i, NULL), 0);
	}
	seen->go = true;
	for (int i = 0; i < CALLS; i++) {
		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		ac_task_free(task);
		assert_int_equal(ac_stream_next(other, &task, -1), 1);
		ac_task_free(task);
	}
	ac_stream_close(stream);
	ac_stream_close(other);
	assert_in_order(CALLS);
}

/* ---- what waits for its turn can be taken away ---- */

static void test_turns_calls_that_wait_are_cancelled(void **state)
{
	enum { CALLS = 3000 };
	static struct ac_task *tasks[CALLS];
	struct ac_pool_stat stat;
	int refused = 0;

	(void)state;
	open_one_worker();
	assert_int_equal(ac_pool_submit(pool, NULL, wait_for_go, NULL, 0, NULL), 0);
	for (int i = 0; i < CALLS; i++)
		tasks[i] = submit_int(pool, note_number, i);
	for (int i = 0; i < CALLS; i += 2)
		refused += ac_task_cancel(tasks[i], 0) != 0;
	seen->go = true;
	for (int i = 0; i < CALLS; i++) {
		assert_int_equal(status_of(tasks[i]), i % 2 ? 0 : AC_ECANCELED);
		ac_task_free(tasks[i]);
	}
	assert_int_equal(refused, 0);
	assert_int_equal(seen->run, CALLS / 2);
	for (int i = 0; i < CALLS / 2; i++)
		assert_int_equal(seen->order[i], 2 * i + 1);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.cancelled, CALLS / 2);
}

static void test_turns_all_that_waits_ends_with_terminate(void **state)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream;
	struct ac_pool_stat stat;
	struct ac_task *task;
	pthread_t thread;
	int r = 0, taken = 0;

	(void)state;
	assert_int_equal(ac_stream_open(&stream, pool, nap_call, &opts), 0);
	assert_int_equal(pthread_create(&thread, NULL, map_long, &r), 0);
	EVENTUALLY(seen->ended >= 2);
	for (int i = 0; i < 2000; i++) {
		assert_int_equal(ac_stream_push(stream, &i, sizeof i, NULL, NULL), 0);
		assert_int_equal(ac_pool_submit(pool, NULL, nap_call, NULL, 0, NULL), 0);
	}
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(r, AC_ECANCELED);
	while (ac_stream_next(stream, &task, -1) == 1) {
		taken++;
		ac_task_free(task);
	}
	assert_int_equal(taken, 2000);
	ac_stream_close(stream);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(sum_holds(&stat));
	assert_int_equal(stat.waiting + stat.running, 0);
}

#define TURNS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TURNS_TEST(test_turns_call_passes_a_map),
		TURNS_TEST(test_turns_call_passes_a_stream),
		TURNS_TEST(test_turns_call_passes_a_fed_stream),
		TURNS_TEST(test_turns_map_passes_a_map),
		TURNS_TEST(test_turns_map_passes_a_fed_stream),
		TURNS_TEST(test_turns_map_passes_many_calls),
		TURNS_TEST(test_turns_stream_passes_a_map),
		TURNS_TEST(test_turns_stream_passes_a_fed_stream),
		TURNS_TEST(test_turns_stream_passes_many_calls),
		TURNS_TEST(test_turns_two_maps_share_the_workers),
		TURNS_TEST(test_turns_calls_begin_in_their_order),
		TURNS_TEST(test_turns_pushed_calls_begin_in_their_order),
		TURNS_TEST(test_turns_calls_that_wait_are_cancelled),
		TURNS_TEST(test_turns_all_that_waits_ends_with_terminate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

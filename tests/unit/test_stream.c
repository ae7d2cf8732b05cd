/* SPDX-License-Identifier: MIT */
/* Streams by the words of the public header: order, reading ahead, ends, errors, leaving. */
#include "pool_help.h"

static struct ac_pool *pool; /* two workers */

static int set_up(void **state)
{
	help_set_up(state);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

/* ---- sources ---- */

struct numbers {
	int next, end;	   /* end 0: never */
	int error, fails_at; /* the code that comes in the place of a number */
	size_t len;	   /* of each argument; 0: an int */
	pthread_t thread;
	unsigned wrong;
	unsigned char *bytes;
};

static int next_number(void *arg, const void **data, size_t *len)
{
	struct numbers *n = arg;

	n->wrong += !pthread_equal(n->thread, pthread_self());
	if (n->error && n->next == n->fails_at) {
		n->fails_at = -1;
		return n->error;
	}
	if (n->end && n->next >= n->end)
		return 0;
	/* The same memory each time: valid until the next call only. */
	memcpy(n->bytes, &n->next, sizeof n->next);
	n->next++;
	*data = n->bytes;
	*len = n->len;
	return 1;
}

static void start_numbers(struct numbers *n, int end, size_t len)
{
	memset(n, 0, sizeof *n);
	n->end = end;
	n->len = len ? len : sizeof(int);
	n->bytes = calloc(1, n->len);
	n->thread = pthread_self();
}

static struct ac_stream *open_stream(ac_call_fn *fn, struct numbers *n,
				     struct ac_stream_opts opts)
{
	struct ac_stream *stream = NULL;

	opts.size = sizeof opts;
	opts.source = next_number;
	opts.source_arg = n;
	assert_int_equal(ac_stream_open(&stream, pool, fn, &opts), 0);
	assert_non_null(stream);
	return stream;
}

static int square(struct ac_call *call)
{
	int n = *(const int *)ac_call_arg(call, NULL);
	int64_t result = (int64_t)n * n;

	if (n % 16 == 3)
		nap(2 * MS); /* so that ends come out of order */
	return ac_call_return(call, &result, sizeof result);
}

/* The next result's place. */
static int take(struct ac_stream *stream, int64_t *result)
{
	struct ac_task *task = NULL;
	struct ac_outcome outcome;
	const void *data;
	size_t len;
	int r = ac_stream_next(stream, &task, -1);

	if (r != 1)
		return -1;
	assert_int_equal(ac_task_ready(task), 1);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_int_equal(outcome.status, 0);
	assert_int_equal(ac_task_result(task, &data, &len), 0);
	assert_int_equal(len, sizeof *result);
	memcpy(result, data, sizeof *result);
	ac_task_free(task);
	return (int)outcome.index;
}

/* ---- order ---- */

static void test_stream_gives_results_in_order(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;
	int64_t result;

	(void)state;
	start_numbers(&n, 2000, 0);
	stream = open_stream(square, &n, (struct ac_stream_opts){ 0 });
	for (int i = 0; i < 2000; i++) {
		assert_int_equal(take(stream, &result), i);
		assert_int_equal(result, (int64_t)i * i);
	}
	assert_int_equal(ac_stream_next(stream, &task, -1), 0);
	assert_int_equal(ac_stream_next(stream, &task, 0), 0);
	ac_stream_close(stream);
	assert_int_equal(n.wrong, 0);
	free(n.bytes);
}

static void test_stream_gives_results_as_they_come(void **state)
{
	static const size_t aheads[] = { 0, 1, 3, 1000 };
	struct numbers n;
	struct ac_task *task;
	int64_t result;

	(void)state;
	for (unsigned k = 0; k < COUNT(aheads); k++) {
		struct ac_stream *stream;
		bool seen[500] = { false };

		start_numbers(&n, 500, 0);
		stream = open_stream(square, &n,
				     (struct ac_stream_opts){ .flags = AC_STREAM_UNORDERED,
							      .ahead = aheads[k] });
		for (int i = 0; i < 500; i++) {
			int at = take(stream, &result);

			assert_in_range(at, 0, 499);
			assert_false(seen[at]);
			seen[at] = true;
			assert_int_equal(result, (int64_t)at * at);
		}
		assert_int_equal(ac_stream_next(stream, &task, -1), 0);
		ac_stream_close(stream);
		free(n.bytes);
	}
}

static void leave_after_one(unsigned flags, int first_taken)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_outcome outcome;
	struct ac_task *task;

	start_numbers(&n, 2, 0);
	stream = open_stream(nap_ms, &n, (struct ac_stream_opts){ .flags = flags });
	assert_int_equal(ac_stream_next(stream, &task, -1), 1);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	if (first_taken >= 0)
		assert_int_equal(outcome.index, first_taken);
	ac_task_free(task);
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_may_be_left_after_one(void **state)
{
	(void)state;
	leave_after_one(0, 0);
	leave_after_one(AC_STREAM_UNORDERED, -1);
}

/* ---- reading ahead ---- */

static void test_stream_reads_an_endless_source_in_bounds(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	int64_t result;

	(void)state;
	start_numbers(&n, 0, 0);
	stream = open_stream(square, &n, (struct ac_stream_opts){ .ahead = 5 });
	assert_int_equal(n.next, 0);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(take(stream, &result), i);
		assert_true(n.next <= i + 5);
	}
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_default_is_at_least_64_ahead(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	int64_t result;

	(void)state;
	start_numbers(&n, 0, 0);
	stream = open_stream(square, &n, (struct ac_stream_opts){ 0 });
	assert_int_equal(take(stream, &result), 0);
	assert_int_equal(n.next, 64);
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_bounds_the_bytes_ahead(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	int64_t result;

	(void)state;
	start_numbers(&n, 0, 10000);
	stream = open_stream(square, &n, (struct ac_stream_opts){ .ahead_bytes = 45000 });
	for (int i = 0; i < 50; i++) {
		assert_int_equal(take(stream, &result), i);
		assert_true(n.next <= i + 5);
	}
	ac_stream_close(stream);
	free(n.bytes);
	/* One is always under way, however big. */
	start_numbers(&n, 5, 100000);
	stream = open_stream(square, &n, (struct ac_stream_opts){ .ahead_bytes = 1 });
	for (int i = 0; i < 5; i++) {
		assert_int_equal(take(stream, &result), i);
		assert_int_equal(n.next, i + 1);
	}
	ac_stream_close(stream);
	free(n.bytes);
}

/* ---- ends and errors ---- */

static void error_in_place(unsigned flags)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;
	int64_t result;

	start_numbers(&n, 0, 0);
	n.error = -EIO;
	n.fails_at = 100;
	stream = open_stream(square, &n, (struct ac_stream_opts){ .flags = flags });
	for (int i = 0; i < 100; i++)
		assert_true(take(stream, &result) >= 0);
	assert_int_equal(ac_stream_next(stream, &task, -1), -EIO);
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_returns_its_sources_error_in_its_place(void **state)
{
	(void)state;
	error_in_place(0);
	error_in_place(AC_STREAM_UNORDERED);
}

static void test_stream_of_nothing(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;

	(void)state;
	start_numbers(&n, 1, 0);
	n.next = 1;
	stream = open_stream(square, &n, (struct ac_stream_opts){ 0 });
	assert_int_equal(ac_stream_next(stream, &task, -1), 0);
	ac_stream_close(stream);
	free(n.bytes);
}

static int nap_long(struct ac_call *call)
{
	(void)call;
	nap(250 * MS);
	return 0;
}

static void keep_time(unsigned flags)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;

	start_numbers(&n, 1, 0);
	stream = open_stream(nap_long, &n, (struct ac_stream_opts){ .flags = flags });
	assert_int_equal(ac_stream_next(stream, &task, 0), -ETIMEDOUT);
	assert_int_equal(ac_stream_next(stream, &task, 20 * MS), -ETIMEDOUT);
	assert_int_equal(ac_stream_next(stream, &task, -1), 1);
	ac_task_free(task);
	assert_int_equal(ac_stream_next(stream, &task, 0), 0);
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_keeps_its_time_limit(void **state)
{
	(void)state;
	keep_time(0);
	keep_time(AC_STREAM_UNORDERED);
}

static int fail_odd(struct ac_call *call)
{
	int n = *(const int *)ac_call_arg(call, NULL);

	if (n % 20 == 5)
		die(SIGKILL);
	return n % 2 ? ac_call_fail(call, "odd %d", n) : 0;
}

static void test_stream_gives_failed_tasks_too(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_outcome outcome;
	struct ac_task *task;
	char text[20];

	(void)state;
	start_numbers(&n, 60, 0);
	stream = open_stream(fail_odd, &n, (struct ac_stream_opts){ 0 });
	for (int i = 0; i < 60; i++) {
		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_int_equal(outcome.index, i);
		assert_int_equal(outcome.status,
				 i % 20 == 5 ? AC_EDIED : i % 2 ? AC_ETASK : 0);
		snprintf(text, sizeof text, "odd %d", i);
		if (outcome.status == AC_ETASK)
			assert_string_equal(outcome.text, text);
		ac_task_free(task);
	}
	assert_int_equal(ac_stream_next(stream, &task, -1), 0);
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_of_a_pool_that_ends(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;
	int64_t result;
	int r;

	(void)state;
	start_numbers(&n, 0, 0);
	stream = open_stream(square, &n, (struct ac_stream_opts){ .ahead = 10 });
	assert_int_equal(take(stream, &result), 0);
	assert_int_equal(ac_pool_shut(pool), 0);
	/* What was read ends as usual; what comes then is submit's code. */
	for (int i = 1; i < 10; i++)
		assert_int_equal(take(stream, &result), i);
	r = ac_stream_next(stream, &task, -1);
	assert_int_equal(r, AC_ECLOSED);
	ac_stream_close(stream);
	free(n.bytes);
}

/* ---- leaving, several ---- */

static void test_stream_closed_midway_cancels_what_waits(void **state)
{
	struct ac_pool_stat stat;
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *kept;

	(void)state;
	for (unsigned flags = 0; flags <= AC_STREAM_UNORDERED; flags++) {
		start_numbers(&n, 0, 0);
		stream = open_stream(nap_long, &n,
				     (struct ac_stream_opts){ .flags = flags, .ahead = 50 });
		assert_int_equal(ac_stream_next(stream, &kept, 20 * MS), -ETIMEDOUT);
		assert_int_equal(ac_stream_next(stream, &kept, -1), 1);
		ac_stream_close(stream);
		assert_int_equal(status_of(kept), 0); /* it is the caller's */
		ac_task_free(kept);
		free(n.bytes);
	}
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(stat.cancelled >= 80);
	assert_int_equal(stat.done + stat.cancelled, stat.submitted);
}

static int sleep_in_init(void *arg)
{
	(void)arg;
	nap(2500 * MS);
	return 0;
}

static void *join_it(void *arg)
{
	int64_t *woken_at = arg;

	if (ac_pool_join(pool, 6 * SECOND) == 0)
		*woken_at = now();
	return NULL;
}

/* No worker is there yet, so that nothing else wakes anybody. */
static void test_stream_closed_midway_wakes_who_joins(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .init = sleep_in_init };
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;
	int64_t woken_at = INT64_MAX, start;
	pthread_t thread;

	(void)state;
	ac_pool_close(pool);
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	start_numbers(&n, 10, 0);
	stream = open_stream(square, &n, (struct ac_stream_opts){ 0 });
	assert_int_equal(ac_stream_next(stream, &task, 0), -ETIMEDOUT);
	assert_int_equal(pthread_create(&thread, NULL, join_it, &woken_at), 0);
	nap(100 * MS);
	start = now();
	ac_stream_close(stream);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(ac_pool_terminate(pool), 0);
	free(n.bytes);
	assert_true(woken_at < start + 800 * MS);
}

static void test_stream_two_at_once(void **state)
{
	struct numbers n[2];
	struct ac_stream *streams[2];
	int64_t result;

	(void)state;
	for (int k = 0; k < 2; k++) {
		start_numbers(&n[k], 300, 0);
		streams[k] = open_stream(square, &n[k], (struct ac_stream_opts){ 0 });
	}
	for (int i = 0; i < 300; i++)
		for (int k = 0; k < 2; k++) {
			assert_int_equal(take(streams[k], &result), i);
			assert_int_equal(result, (int64_t)i * i);
		}
	for (int k = 0; k < 2; k++) {
		assert_int_equal(take(streams[k], &result), -1);
		ac_stream_close(streams[k]);
		free(n[k].bytes);
	}
}

static void test_stream_carries_large_results(void **state)
{
	struct numbers n;
	struct ac_stream *stream;
	struct ac_task *task;
	const void *data;
	size_t len;

	(void)state;
	start_numbers(&n, 40, MB);
	stream = open_stream(echo, &n, (struct ac_stream_opts){ .ahead_bytes = 4 * MB });
	for (int i = 0; i < 40; i++) {
		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		assert_int_equal(len, MB);
		assert_int_equal(*(const int *)data, i);
		ac_task_free(task);
	}
	ac_stream_close(stream);
	free(n.bytes);
}

static void test_stream_refuses_what_can_not_be(void **state)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .source = next_number };
	struct ac_stream *stream;
	struct ac_task *task;

	(void)state;
	assert_int_equal(ac_stream_open(NULL, pool, echo, &opts), -EINVAL);
	assert_int_equal(ac_stream_open(&stream, NULL, echo, &opts), -EINVAL);
	assert_int_equal(ac_stream_open(&stream, pool, NULL, &opts), -EINVAL);
	assert_int_equal(ac_stream_open(&stream, pool, echo, NULL), -EINVAL);
	opts.flags = AC_STREAM_UNORDERED << 1;
	assert_int_equal(ac_stream_open(&stream, pool, echo, &opts), -EINVAL);
	opts.flags = 0;
	opts.source = NULL;
	assert_int_equal(ac_stream_open(&stream, pool, echo, &opts), -EINVAL);
	opts.size = 0;
	assert_int_equal(ac_stream_open(&stream, pool, echo, &opts), -EINVAL);
	assert_int_equal(ac_stream_next(NULL, &task, 0), -EINVAL);
	ac_stream_close(NULL);
}

#define STREAM_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STREAM_TEST(test_stream_gives_results_in_order),
		STREAM_TEST(test_stream_gives_results_as_they_come),
		STREAM_TEST(test_stream_may_be_left_after_one),
		STREAM_TEST(test_stream_reads_an_endless_source_in_bounds),
		STREAM_TEST(test_stream_default_is_at_least_64_ahead),
		STREAM_TEST(test_stream_bounds_the_bytes_ahead),
		STREAM_TEST(test_stream_returns_its_sources_error_in_its_place),
		STREAM_TEST(test_stream_of_nothing),
		STREAM_TEST(test_stream_keeps_its_time_limit),
		STREAM_TEST(test_stream_gives_failed_tasks_too),
		STREAM_TEST(test_stream_of_a_pool_that_ends),
		STREAM_TEST(test_stream_closed_midway_cancels_what_waits),
		STREAM_TEST(test_stream_closed_midway_wakes_who_joins),
		STREAM_TEST(test_stream_two_at_once),
		STREAM_TEST(test_stream_carries_large_results),
		STREAM_TEST(test_stream_refuses_what_can_not_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

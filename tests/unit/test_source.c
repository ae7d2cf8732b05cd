/* SPDX-License-Identifier: MIT */
/*
 * A stream over a source that may block: with a limit of 0, ac_stream_next asks the source once at
 * most, and not at all while a result is ready and half of the read-ahead is under way.
 */
#include "alone_help.h"

static struct ac_pool *pool; /* two workers */

/* All processes see it. */
static struct {
	_Atomic bool go;
	_Atomic unsigned ended;
} *seen;

static int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	seen->go = true;
	ac_pool_close(pool);
	munmap(seen, sizeof *seen);
	return help_tear_down(state);
}

struct source {
	unsigned asked, end; /* end 0: never */
	int error;	     /* at the end */
};

static int next_number(void *arg, const void **data, size_t *len)
{
	struct source *source = arg;

	if (source->end && source->asked >= source->end) {
		source->asked++;
		return source->error;
	}
	source->asked++;
	*data = &source->asked;
	*len = sizeof source->asked;
	return 1;
}

static int end_when_told(struct ac_call *call)
{
	(void)call;
	while (!seen->go)
		nap(MS);
	seen->ended++;
	return 0;
}

static struct ac_stream *open_over(struct source *source, size_t ahead, unsigned flags)
{
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .source = next_number,
				       .source_arg = source,
				       .ahead = ahead,
				       .flags = flags };
	struct ac_stream *stream = NULL;

	assert_int_equal(ac_stream_open(&stream, pool, end_when_told, &opts), 0);
	return stream;
}

/* What ac_stream_next returns with a limit of 0, and how often it asked the source. */
static int look(struct ac_stream *stream, struct source *source, unsigned *asked)
{
	unsigned before = source->asked;
	struct ac_task *task = NULL;
	int r = ac_stream_next(stream, &task, 0);

	*asked = source->asked - before;
	if (r == 1) {
		assert_non_null(task);
		ac_task_free(task);
	}
	return r;
}

enum { AHEAD = 8 };

static void ask_once_each(unsigned flags)
{
	struct source source = { 0 };
	struct ac_stream *stream = open_over(&source, AHEAD, flags);
	unsigned asked;

	seen->go = false;
	/* Nothing is ready: one each, until as many are under way as may be. */
	for (unsigned i = 1; i <= AHEAD; i++) {
		assert_int_equal(look(stream, &source, &asked), -ETIMEDOUT);
		assert_int_equal(source.asked, i);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(look(stream, &source, &asked), -ETIMEDOUT);
		assert_int_equal(asked, 0);
	}
	seen->go = true;
	ac_stream_close(stream);
	assert_int_equal(ac_pool_join(pool, -1), 0);
}

static void test_source_is_asked_once_by_each_look(void **state)
{
	(void)state;
	ask_once_each(0);
	ask_once_each(AC_STREAM_UNORDERED);
}

static void take_what_is_ready(unsigned flags)
{
	struct source source = { 0 };
	struct ac_stream *stream = open_over(&source, AHEAD, flags);
	unsigned asked, taken = 0;

	seen->go = false;
	seen->ended = 0;
	for (unsigned i = 0; i < AHEAD; i++)
		assert_int_equal(look(stream, &source, &asked), -ETIMEDOUT);
	seen->go = true;
	EVENTUALLY(seen->ended == AHEAD);
	/* A call ends a moment after its function. */
	EVENTUALLY(ac_pool_join(pool, 0) == 0);
	/* More than half is under way: results, and the source is left alone. */
	for (; taken < AHEAD / 2 - 1; taken++) {
		assert_int_equal(look(stream, &source, &asked), 1);
		assert_int_equal(asked, 0);
	}
	/* From then on it is asked, once each, and results come as before. */
	for (int i = 0; i < 100; i++) {
		int r = look(stream, &source, &asked);

		assert_true(r == 1 || r == -ETIMEDOUT);
		assert_true(asked <= 1);
		assert_true(source.asked >= taken + AHEAD / 2);
		taken += r == 1;
		nap(MS / 2);
	}
	assert_true(taken > AHEAD);
	assert_true(source.asked > AHEAD);
	ac_stream_close(stream);
	assert_int_equal(ac_pool_join(pool, -1), 0);
}

static void test_source_is_left_alone_while_results_are_ready(void **state)
{
	(void)state;
	take_what_is_ready(0);
	take_what_is_ready(AC_STREAM_UNORDERED);
}

/* Looks alone come to the end, and to the source's own code. */
static void look_to_the_end(unsigned flags, int error)
{
	struct source source = { .end = 50, .error = error };
	struct ac_stream *stream = open_over(&source, AHEAD, flags);
	unsigned asked, taken = 0;
	int64_t end = now() + 20 * SECOND;
	int r;

	seen->go = true;
	do {
		assert_true(now() < end);
		r = look(stream, &source, &asked);
		assert_true(asked <= 1);
		taken += r == 1;
	} while (r == 1 || r == -ETIMEDOUT);
	assert_int_equal(r, error);
	assert_int_equal(taken, 50);
	assert_int_equal(source.asked, 51); /* and never after its end */
	ac_stream_close(stream);
}

static void test_source_is_read_to_its_end_by_looks(void **state)
{
	(void)state;
	look_to_the_end(0, 0);
	look_to_the_end(AC_STREAM_UNORDERED, 0);
	look_to_the_end(0, -EIO);
	look_to_the_end(AC_STREAM_UNORDERED, -EIO);
}

/* Who waits reads as far ahead as before. */
static void test_source_is_read_ahead_by_waits(void **state)
{
	struct source source = { 0 };
	struct ac_stream *stream = open_over(&source, AHEAD, 0);
	struct ac_task *task;

	(void)state;
	seen->go = true;
	assert_int_equal(ac_stream_next(stream, &task, -1), 1);
	ac_task_free(task);
	assert_int_equal(source.asked, AHEAD);
	ac_stream_close(stream);
}

#define SOURCE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SOURCE_TEST(test_source_is_asked_once_by_each_look),
		SOURCE_TEST(test_source_is_left_alone_while_results_are_ready),
		SOURCE_TEST(test_source_is_read_to_its_end_by_looks),
		SOURCE_TEST(test_source_is_read_ahead_by_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

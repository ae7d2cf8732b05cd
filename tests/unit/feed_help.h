/* SPDX-License-Identifier: MIT */
/* What the tests of fed streams and of divisible calls share: a pool, memory that all
 * processes see, pushing and taking. Internal headers come before it. */
#ifndef AC_TEST_FEED_HELP_H
#define AC_TEST_FEED_HELP_H

#include "pool_help.h"

static struct ac_pool *pool; /* two workers, unless a test opens another */

/* All processes see it. */
static struct {
	_Atomic unsigned runs;
	_Atomic bool go;
	_Atomic uint64_t cursor;	/* what lie() writes */
	_Atomic unsigned units[1000];	/* how often each was begun */
	_Atomic int pids[1000];		/* by whom last */
} *seen;

static inline void open_with(int workers, unsigned flags)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers, .flags = flags };

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
}

static inline int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	open_with(2, 0);
	return 0;
}

static inline int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	munmap(seen, sizeof *seen);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

static inline void open_other(int workers, unsigned flags)
{
	assert_int_equal(ac_pool_close(pool), 0);
	open_with(workers, flags);
}

static inline struct ac_stream *open_fed(ac_call_fn *fn, unsigned retries)
{
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .retries = retries,
				       .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream = NULL;

	assert_int_equal(ac_stream_open(&stream, pool, fn, &opts), 0);
	assert_non_null(stream);
	return stream;
}

static inline uint64_t push_int(struct ac_stream *stream, int arg, uint32_t units)
{
	uint64_t index = UINT64_MAX;

	assert_int_equal(ac_stream_push(stream, &arg, sizeof arg, UNITS(units), &index), 0);
	return index;
}

/* The next result's outcome, the task freed; what it returned, up to size. */
static inline struct ac_outcome take(struct ac_stream *stream, void *result, size_t size)
{
	struct ac_outcome outcome;
	struct ac_task *task = NULL;
	const void *data;
	size_t len;

	assert_int_equal(ac_stream_next(stream, &task, -1), 1);
	assert_int_equal(ac_task_ready(task), 1);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	if (result && outcome.status == 0) {
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		assert_int_equal(len, size);
		memcpy(result, data, len);
	}
	ac_task_free(task);
	return outcome;
}

#define FEED_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif

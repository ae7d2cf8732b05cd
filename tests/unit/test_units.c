/* SPDX-License-Identifier: MIT */
/* Divisible calls and what is taken back of them, by the words of the public header; and,
 * with internal names, cursors that lie. */
#include "pool_help.h"

#include "worker.h"

#include "feed_help.h"

/* ---- what workers run ---- */

struct span {
	unsigned first;
	int ms;		/* for each unit */
	int die_at;	/* in this one, when it has begun for the first time and seen->go
			 * is set; -1: none */
};

/* Units of 1000, from first on. */
static int run_units(struct ac_call *call)
{
	const struct span *span = ac_call_arg(call, NULL);
	unsigned n = 0;

	while (ac_call_next_unit(call) == 1) {
		unsigned unit = span->first + n++;

		seen->pids[unit] = getpid();
		if (++seen->units[unit] == 1 && (int)unit == span->die_at) {
			while (!seen->go)
				nap(MS);
			die(SIGKILL);
		}
		if (span->ms)
			nap(span->ms * MS);
	}
	if (ac_call_next_unit(call) != 0)
		return 1;
	return ac_call_return(call, &n, sizeof n);
}

static void push_span(struct ac_stream *stream, struct span span, uint32_t units)
{
	assert_int_equal(ac_stream_push(stream, &span, sizeof span, UNITS(units), NULL), 0);
}

/* ---- units ---- */

static void assert_begun(unsigned first, unsigned last, unsigned times)
{
	for (unsigned i = first; i < last; i++)
		assert_int_equal(seen->units[i], times);
}

static void test_units_each_begins_once(void **state)
{
	static const uint32_t counts[] = { 1, 2, 3, 63, 64, 65, 500 };
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned n = 0;

	(void)state;
	for (unsigned k = 0; k < COUNT(counts); k++) {
		memset(seen, 0, sizeof *seen);
		push_span(stream, (struct span){ .die_at = -1 }, counts[k]);
		assert_int_equal(take(stream, &n, sizeof n).status, 0);
		assert_int_equal(n, counts[k]);
		assert_begun(0, counts[k], 1);
		assert_begun(counts[k], 1000, 0);
	}
	push_span(stream, (struct span){ .die_at = -1 }, 0);
	assert_int_equal(take(stream, &n, sizeof n).status, 0);
	assert_int_equal(n, 0);
	ac_stream_close(stream);
}

/* As many as the argument says, 0: all. */
static int count_units(struct ac_call *call)
{
	uint32_t most = *(const uint32_t *)ac_call_arg(call, NULL), n = 0;

	while ((!most || n < most) && ac_call_next_unit(call))
		n++;
	return ac_call_return(call, &n, sizeof n);
}

static void test_units_as_many_as_were_pushed(void **state)
{
	uint32_t n = 0, counts[] = { 1, 2000000 };
	struct ac_stream *stream = open_fed(count_units, 0);

	(void)state;
	counts[1] = seats_scaled(counts[1]);
	for (unsigned k = 0; k < COUNT(counts); k++) {
		push_int(stream, 0, counts[k]);
		take(stream, &n, sizeof n);
		assert_int_equal(n, counts[k]);
	}
	ac_stream_close(stream);
}

static void test_units_one_may_stop_early(void **state)
{
	struct ac_stream *stream;
	uint32_t n = 0;

	(void)state;
	open_other(1, 0);
	stream = open_fed(count_units, 0);
	/* What it had claimed is not the next one's. */
	for (int i = 1; i < 1000; i += 9) {
		push_int(stream, i, UINT32_MAX);
		push_int(stream, 0, 5);
		for (int k = 0; k < 2; k++) {
			struct ac_outcome outcome = take(stream, &n, sizeof n);

			assert_int_equal(n, outcome.index % 2 ? 5 : i);
		}
	}
	ac_stream_close(stream);
}

static int no_unit(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return ac_call_next_unit(ac_call_current());
}

static void test_units_are_not_in_other_calls(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned n = 99;
	size_t len = sizeof n;
	struct span span = { .die_at = -1 };
	char items[100] = { 0 };

	(void)state;
	/* Slots are used again: what a divisible call left there is not seen. */
	push_span(stream, span, 10);
	take(stream, NULL, 0);
	assert_int_equal(ac_pool_call(pool, run_units, &span, sizeof span, &n, &len, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(ac_pool_map(pool, no_unit, NULL, items, 1, NULL, 0, 100), 0);
	ac_stream_close(stream);
}

/* ---- taking back ---- */

static void test_units_taken_back_are_run_by_the_other_worker(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 0);
	struct ac_outcome outcomes[2];
	unsigned n[2] = { 0 };
	uint64_t index = 99;
	uint32_t kept = 0;

	(void)state;
	push_span(stream, (struct span){ .ms = 10, .die_at = -1 }, 100);
	EVENTUALLY(seen->units[3] == 1);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 1);
	assert_int_equal(index, 0);
	assert_in_range(kept, 4, 99);
	push_span(stream, (struct span){ .first = kept, .ms = 10, .die_at = -1 }, 100 - kept);
	for (int i = 0; i < 2; i++) {
		unsigned counted;
		struct ac_outcome outcome = take(stream, &counted, sizeof counted);

		assert_int_equal(outcome.status, 0);
		outcomes[outcome.index] = outcome;
		n[outcome.index] = counted;
	}
	assert_int_equal(n[0], kept);
	assert_int_equal(n[1], 100 - kept);
	assert_begun(0, 100, 1);
	/* The first is at its last unit for 10 ms: the other worker is free. */
	assert_true(outcomes[0].pid != outcomes[1].pid);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(seen->pids[i], outcomes[i >= kept].pid);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 0);
	ac_stream_close(stream);
}

/* Before its first unit. */
static int begin_late(struct ac_call *call)
{
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return count_units(call);
}

static void test_units_begun_late_keep_one(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0);
	uint64_t index = 99;
	uint32_t kept = 0, n = 0;

	(void)state;
	push_int(stream, 0, 1);
	push_int(stream, 0, 50);
	EVENTUALLY(seen->runs == 2);
	/* Of two calls the one that has something to give. */
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 1);
	assert_int_equal(index, 1);
	assert_int_equal(kept, 1);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 0);
	seen->go = true;
	for (int i = 0; i < 2; i++) {
		take(stream, &n, sizeof n);
		assert_int_equal(n, 1);
	}
	ac_stream_close(stream);
}

static void test_units_of_calls_that_wait_are_left(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0), *other = open_fed(begin_late, 0);
	uint64_t index = 99;
	uint32_t kept = 99, n = 0;

	(void)state;
	/* Two run and can't be divided; one waits, and another stream's, too. */
	push_int(stream, 0, 0);
	push_int(stream, 0, 0);
	EVENTUALLY(seen->runs == 2);
	push_int(stream, 0, 50);
	push_int(other, 0, 60);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 0);
	assert_int_equal(ac_stream_take_back(other, &index, NULL, &kept), 0);
	assert_int_equal(index, 99);
	assert_int_equal(kept, 99);
	seen->go = true;
	for (int i = 0; i < 3; i++) {
		struct ac_outcome outcome = take(stream, &n, sizeof n);

		assert_int_equal(n, outcome.index == 2 ? 50 : 0);
	}
	take(other, &n, sizeof n);
	assert_int_equal(n, 60);
	ac_stream_close(stream);
	ac_stream_close(other);
}

static void test_units_of_a_closed_stream_are_nobodys(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0);
	uint64_t index;
	uint32_t kept;

	(void)state;
	push_int(stream, 0, 50);
	EVENTUALLY(seen->runs == 1);
	ac_stream_close(stream);
	stream = open_fed(begin_late, 0); /* where the other was, most likely */
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 0);
	seen->go = true;
	ac_stream_close(stream);
}

static void test_units_most_are_taken_first(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0);
	uint64_t index;
	uint32_t kept, n;

	(void)state;
	push_int(stream, 0, 10);
	push_int(stream, 0, 20);
	EVENTUALLY(seen->runs == 2);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 1);
	assert_int_equal(index, 1);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 1);
	assert_int_equal(index, 0);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 0);
	seen->go = true;
	take(stream, &n, sizeof n);
	take(stream, &n, sizeof n);
	ac_stream_close(stream);
}

/* Cut again and again while they run: each unit begins once, whoever has it. */
static void test_units_cut_at_random_begin_once(void **state)
{
	uint64_t seed = seats_seed(), index;
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned firsts[1000] = { 0 }, counts[1000] = { 0 }, calls = 1, done = 0, n;
	uint32_t kept;

	(void)state;
	counts[0] = 300;
	push_span(stream, (struct span){ .ms = 1, .die_at = -1 }, 300);
	while (done < calls) {
		struct ac_outcome outcome;
		struct ac_task *task;
		const void *data;
		size_t len;

		if (ac_stream_take_back(stream, &index, NULL, &kept) == 1) {
			assert_true(index < calls && kept > 0 && kept < counts[index]);
			firsts[calls] = firsts[index] + kept;
			counts[calls] = counts[index] - kept;
			counts[index] = kept;
			push_span(stream, (struct span){ .first = firsts[calls], .ms = 1,
							 .die_at = -1 }, counts[calls]);
			calls++;
		}
		if (ac_stream_next(stream, &task,
				   (int64_t)(seats_random(&seed) % 10) * MS) != 1)
			continue;
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		memcpy(&n, data, sizeof n);
		assert_int_equal(n, counts[outcome.index]);
		ac_task_free(task);
		done++;
	}
	assert_begun(0, 300, 1);
	assert_begun(300, 1000, 0);
	ac_stream_close(stream);
}

/* It dies in unit die_at, which is cut off behind. */
static uint32_t cut_and_kill(struct ac_stream *stream, int die_at)
{
	uint64_t index = 99;
	uint32_t kept = 0;

	push_span(stream, (struct span){ .die_at = die_at }, 100);
	EVENTUALLY(seen->units[die_at] == 1);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 1);
	assert_int_equal(index, 0);
	assert_in_range(kept, die_at + 1, 99);
	seen->go = true;
	return kept;
}

static void test_units_a_death_costs_what_was_kept(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned n = 0;
	uint32_t kept;

	(void)state;
	kept = cut_and_kill(stream, 3);
	assert_int_equal(take(stream, NULL, 0).status, AC_EDIED);
	push_span(stream, (struct span){ .first = kept, .die_at = -1 }, 100 - kept);
	assert_int_equal(take(stream, &n, sizeof n).status, 0);
	assert_int_equal(n, 100 - kept);
	assert_begun(0, 4, 1);
	assert_begun(kept, 100, 1);
	ac_stream_close(stream);
}

static void test_units_a_retry_runs_what_was_kept(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 1);
	unsigned n = 0;
	uint32_t kept;

	(void)state;
	kept = cut_and_kill(stream, 3);
	assert_int_equal(take(stream, &n, sizeof n).status, 0);
	assert_int_equal(n, kept);
	assert_begun(0, 4, 2);
	assert_begun(kept, 100, 0);
	ac_stream_close(stream);
}

/* ---- cursors that lie ---- */

static int lie(struct ac_call *call)
{
	atomic_store(&call->task->cursor, seen->cursor);
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return 0;
}

#define CURSOR(next, end) ((uint64_t)(end) << 32 | (uint32_t)(next))

static void test_units_lying_cursors_are_not_believed(void **state)
{
	/* Of 100 units. What can be true is taken for true. */
	static const struct {
		uint64_t cursor;
		uint32_t kept; /* 0: nothing is taken back */
	} lies[] = {
		{ CURSOR(0, 0), 0 },
		{ CURSOR(0, 99), 0 },
		{ CURSOR(0, 101), 0 },
		{ CURSOR(5, UINT32_MAX), 0 },
		{ CURSOR(UINT32_MAX, UINT32_MAX), 0 },
		{ CURSOR(UINT32_MAX, 100), 0 },
		{ CURSOR(100, 100), 0 },
		{ CURSOR(101, 100), 0 },
		{ CURSOR(100, 0), 0 },
		{ CURSOR(0, 100), 1 },
		{ CURSOR(99, 100), 99 },
	};
	struct ac_stream *stream = open_fed(lie, 0);

	(void)state;
	for (unsigned i = 0; i < COUNT(lies); i++) {
		uint64_t index = 99;
		uint32_t kept = 0;

		memset(seen, 0, sizeof *seen);
		seen->cursor = lies[i].cursor;
		push_int(stream, 0, 100);
		EVENTUALLY(seen->runs == 1);
		assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), lies[i].kept > 0);
		assert_int_equal(kept, lies[i].kept);
		assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 0);
		seen->go = true;
		assert_int_equal(take(stream, NULL, 0).status, 0);
	}
	ac_stream_close(stream);
	assert_works(pool);
}

static int rewrite(struct ac_call *call)
{
	uint64_t seed = 12345;

	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		atomic_store(&call->task->cursor,
			     CURSOR(seats_random(&seed) % 105, 95 + seats_random(&seed) % 10));
	return 0;
}

/* The end only comes nearer, whatever is written there meanwhile. */
static void test_units_cursor_that_changes_all_the_time(void **state)
{
	struct ac_stream *stream = open_fed(rewrite, 0);
	uint32_t kept, before = 100;
	uint64_t index;

	(void)state;
	push_int(stream, 0, 100);
	EVENTUALLY(seen->runs == 1);
	for (int i = 0; i < 2000; i++)
		if (ac_stream_take_back(stream, &index, NULL, &kept)) {
			assert_int_equal(index, 0);
			assert_in_range(kept, 1, before - 1);
			before = kept;
		}
	seen->go = true;
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FEED_TEST(test_units_each_begins_once),
		FEED_TEST(test_units_as_many_as_were_pushed),
		FEED_TEST(test_units_one_may_stop_early),
		FEED_TEST(test_units_are_not_in_other_calls),
		FEED_TEST(test_units_taken_back_are_run_by_the_other_worker),
		FEED_TEST(test_units_begun_late_keep_one),
		FEED_TEST(test_units_of_calls_that_wait_are_left),
		FEED_TEST(test_units_of_a_closed_stream_are_nobodys),
		FEED_TEST(test_units_most_are_taken_first),
		FEED_TEST(test_units_cut_at_random_begin_once),
		FEED_TEST(test_units_a_death_costs_what_was_kept),
		FEED_TEST(test_units_a_retry_runs_what_was_kept),
		FEED_TEST(test_units_lying_cursors_are_not_believed),
		FEED_TEST(test_units_cursor_that_changes_all_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

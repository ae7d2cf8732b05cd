/* SPDX-License-Identifier: MIT */
/* When a pool gives up on its workers. No process is needed to count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "strikes.h"

#define SECOND INT64_C(1000000000)

static struct ac__strikes strikes;

static int set_up(void **state)
{
	(void)state;
	memset(&strikes, 0, sizeof strikes);
	return 0;
}

/* n failed starts of which none may be the last; all but the first two ask for a pause. */
static void assert_goes_on(const struct ac__start_failure *failure, unsigned n)
{
	int64_t pause_ns;

	for (unsigned i = 0; i < n; i++)
		assert_null(ac__strikes_failed_start(&strikes, failure, SECOND, &pause_ns));
	assert_int_equal(pause_ns, n > 2 ? SECOND : 0);
}

static void assert_gives_up(const struct ac__start_failure *failure)
{
	int64_t pause_ns;
	const char *reason = ac__strikes_failed_start(&strikes, failure, SECOND, &pause_ns);

	assert_non_null(reason);
	assert_non_null(strstr(reason, failure->why));
}

static void test_strikes_third_failed_start_is_the_last(void **state)
{
	struct ac__start_failure failure = { .workers = 4, .why = "no memory" };

	(void)state;
	assert_goes_on(&failure, 2);
	assert_gives_up(&failure);
}

static void test_strikes_worker_that_gets_ready_clears(void **state)
{
	struct ac__start_failure failure = { .workers = 4, .why = "no memory" };

	(void)state;
	assert_goes_on(&failure, 2);
	ac__strikes_clear(&strikes);
	assert_goes_on(&failure, 2);
	assert_gives_up(&failure);
}

static void test_strikes_never_give_up_while_a_worker_is_ready(void **state)
{
	struct ac__start_failure failure = { .any_ready = true, .workers = 4, .why = "exit 1" };

	(void)state;
	assert_goes_on(&failure, 1000);
	failure.any_ready = false;
	assert_gives_up(&failure);
}

static void test_strikes_refused_starts_wait_for_workers_on_their_way(void **state)
{
	struct ac__start_failure failure = { .refused = true, .any_coming = true, .workers = 4,
					     .why = "EAGAIN" };

	(void)state;
	assert_goes_on(&failure, 1000);
	failure.any_coming = false;
	assert_gives_up(&failure);
}

/* Each may be excused by the next, but not for ever: three, and one for each seat. */
static void test_strikes_ended_starts_are_excused_once_for_each_seat(void **state)
{
	struct ac__start_failure failure = { .any_coming = true, .workers = 4, .why = "exit 1" };

	(void)state;
	assert_goes_on(&failure, 3 + 4 - 1);
	assert_gives_up(&failure);
}

/* Processes are ended from outside one after the other, the next one at once after the pause. Returns
 * when that is given up, or 0 when it goes on at the time until. */
static int64_t end_from_outside(const struct ac__start_failure *failure, int64_t now,
				int64_t until, unsigned *ends)
{
	int64_t pause_ns;

	for (*ends = 0; now < until; (*ends)++) {
		if (ac__strikes_failed_start(&strikes, failure, now, &pause_ns))
			return now;
		assert_true(pause_ns >= SECOND / 100 && pause_ns <= SECOND);
		now += pause_ns;
	}
	return 0;
}

static void test_strikes_ends_from_outside_are_excused_for_30_seconds(void **state)
{
	struct ac__start_failure failure = { .from_outside = true, .workers = 4, .why = "SIGTERM" };
	unsigned ends;
	int64_t end = end_from_outside(&failure, 5 * SECOND, 500 * SECOND, &ends);

	(void)state;
	assert_true(end >= 35 * SECOND && end <= 36 * SECOND);
	assert_true(ends < 40);
	assert_non_null(strstr(strikes.reason, "SIGTERM"));
}

static void test_strikes_ends_from_outside_at_once_are_excused(void **state)
{
	struct ac__start_failure failure = { .from_outside = true, .workers = 4, .why = "SIGKILL" };
	int64_t before = 0, pause_ns;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_null(ac__strikes_failed_start(&strikes, &failure, SECOND + i, &pause_ns));
		assert_true(pause_ns > before || pause_ns == SECOND);
		before = pause_ns;
	}
}

static void test_strikes_ends_from_outside_are_counted_anew_once_a_worker_is_ready(void **state)
{
	struct ac__start_failure failure = { .from_outside = true, .workers = 4, .why = "SIGINT" };
	unsigned ends;

	(void)state;
	for (int64_t start = SECOND; start < 200 * SECOND; start += 20 * SECOND) {
		assert_int_equal(end_from_outside(&failure, start, start + 20 * SECOND, &ends), 0);
		ac__strikes_clear(&strikes);
	}
}

/* The 30 seconds begin when the last one that was ready is not there any more. */
static void test_strikes_ends_from_outside_never_give_up_while_a_worker_is_ready(void **state)
{
	struct ac__start_failure failure = { .from_outside = true, .any_ready = true, .workers = 4,
					     .why = "SIGHUP" };
	unsigned ends;
	int64_t end;

	(void)state;
	assert_int_equal(end_from_outside(&failure, SECOND, 500 * SECOND, &ends), 0);
	failure.any_ready = false;
	end = end_from_outside(&failure, 500 * SECOND, 1000 * SECOND, &ends);
	assert_true(end >= 528 * SECOND && end <= 532 * SECOND);
}

/* As with those that end by themselves: for each seat once more. */
static void test_strikes_ends_from_outside_wait_for_workers_on_their_way(void **state)
{
	struct ac__start_failure failure = { .from_outside = true, .any_coming = true, .workers = 4,
					     .why = "SIGKILL" };
	unsigned ends;
	int64_t end = end_from_outside(&failure, 5 * SECOND, 500 * SECOND, &ends);

	(void)state;
	assert_true(end >= 38 * SECOND && end <= 41 * SECOND);
}

/* They are neither strikes themselves, nor do they wipe those that there are. */
static void test_strikes_ends_from_outside_are_no_failed_starts(void **state)
{
	struct ac__start_failure failure = { .workers = 4, .why = "exit 1" };
	struct ac__start_failure outside = { .from_outside = true, .workers = 4, .why = "SIGKILL" };
	int64_t pause_ns;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_null(ac__strikes_failed_start(&strikes, &outside, SECOND, &pause_ns));
		assert_goes_on(&failure, 1);
	}
	assert_null(ac__strikes_failed_start(&strikes, &outside, SECOND, &pause_ns));
	assert_gives_up(&failure);
}

static unsigned count_idle_ends(int64_t apart, uint64_t collected_each, unsigned most)
{
	for (unsigned i = 1; i <= most; i++)
		if (ac__strikes_idle_end(&strikes, i * collected_each, SECOND + i * apart, 8,
					 "exit 0"))
			return i;
	return 0;
}

static void test_strikes_idle_ends_in_quick_succession_are_too_many(void **state)
{
	(void)state;
	assert_int_equal(count_idle_ends(SECOND / 100, 0, 1000), 100 + 8);
	assert_non_null(strstr(strikes.reason, "exit 0"));
}

static void test_strikes_idle_ends_far_apart_are_none(void **state)
{
	(void)state;
	assert_int_equal(count_idle_ends(2 * SECOND, 0, 1000), 0);
}

static void test_strikes_idle_ends_between_tasks_are_none(void **state)
{
	(void)state;
	assert_int_equal(count_idle_ends(SECOND / 100, 1, 1000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_strikes_third_failed_start_is_the_last, set_up),
		cmocka_unit_test_setup(test_strikes_worker_that_gets_ready_clears, set_up),
		cmocka_unit_test_setup(test_strikes_never_give_up_while_a_worker_is_ready, set_up),
		cmocka_unit_test_setup(test_strikes_refused_starts_wait_for_workers_on_their_way,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ended_starts_are_excused_once_for_each_seat,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ends_from_outside_are_excused_for_30_seconds,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ends_from_outside_at_once_are_excused,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ends_from_outside_are_counted_anew_once_a_worker_is_ready,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ends_from_outside_never_give_up_while_a_worker_is_ready,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ends_from_outside_wait_for_workers_on_their_way,
				       set_up),
		cmocka_unit_test_setup(test_strikes_ends_from_outside_are_no_failed_starts,
				       set_up),
		cmocka_unit_test_setup(test_strikes_idle_ends_in_quick_succession_are_too_many,
				       set_up),
		cmocka_unit_test_setup(test_strikes_idle_ends_far_apart_are_none, set_up),
		cmocka_unit_test_setup(test_strikes_idle_ends_between_tasks_are_none, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

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
	bool later;

	for (unsigned i = 0; i < n; i++)
		assert_null(ac__strikes_failed_start(&strikes, failure, &later));
	assert_int_equal(later, n > 2);
}

static void assert_gives_up(const struct ac__start_failure *failure)
{
	bool later;
	const char *reason = ac__strikes_failed_start(&strikes, failure, &later);

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
		cmocka_unit_test_setup(test_strikes_idle_ends_in_quick_succession_are_too_many,
				       set_up),
		cmocka_unit_test_setup(test_strikes_idle_ends_far_apart_are_none, set_up),
		cmocka_unit_test_setup(test_strikes_idle_ends_between_tasks_are_none, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* How a map's items are cut into chunks: no item is lost or cut twice, and sizes follow time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cut.h"

#define ITEMS 100000

static struct ac__cut cut;
static unsigned char times_cut[ITEMS];

static int set_up(void **state)
{
	(void)state;
	cut = (struct ac__cut){ .count = ITEMS, .item_bytes = 8, .workers = 2, .item_ns = -1 };
	for (unsigned i = 0; i < ITEMS; i++)
		times_cut[i] = 0;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(cut.back.items);
	return 0;
}

static void note(struct ac__range range)
{
	assert_true(range.count > 0 && range.first + range.count <= ITEMS);
	for (uint64_t i = range.first; i < range.first + range.count; i++)
		times_cut[i]++;
}

static void assert_all_cut_once(void)
{
	for (unsigned i = 0; i < ITEMS; i++)
		assert_int_equal(times_cut[i], 1);
}

static void test_cut_begins_with_single_items(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 10; i++) {
		struct ac__range range = ac__cut_take(&cut);

		assert_int_equal(range.first, i);
		assert_int_equal(range.count, 1);
	}
	assert_int_equal(ac__cut_step(&cut), 1);
}

/* At most ten milliseconds, and a third of one worker's share of what is left. */
static void test_cut_follows_time(void **state)
{
	struct ac__range range;

	(void)state;
	ac__cut_learn(&cut, 1000000, 10); /* 100 us each */
	range = ac__cut_take(&cut);
	assert_int_equal(range.count, 100);
	assert_int_equal(ac__cut_step(&cut), 1);
	cut.item_ns = -1;
	ac__cut_learn(&cut, 100, 10); /* 10 ns each */
	range = ac__cut_take(&cut);
	assert_in_range(range.count, ITEMS / 6 - 100, ITEMS / 6);
	assert_int_equal(ac__cut_step(&cut), 64);
}

static void test_cut_obeys_the_user(void **state)
{
	(void)state;
	cut.chunk = 333;
	ac__cut_learn(&cut, 1000000, 1);
	while (ac__cut_any(&cut)) {
		struct ac__range range = ac__cut_take(&cut);

		assert_true(range.count == 333 || range.first + range.count == ITEMS);
		note(range);
	}
	assert_all_cut_once();
}

static void test_cut_first_cuts_what_came_back(void **state)
{
	struct ac__range range;

	(void)state;
	cut.chunk = 1000;
	range = ac__cut_take(&cut);
	range.count = 10; /* the others come back */
	note(range);
	assert_true(ac__ranges_add(&cut.back, 10, 990));
	range = ac__cut_take(&cut);
	assert_int_equal(range.first, 10);
	assert_int_equal(range.count, 990);
	note(range);
	while (ac__cut_any(&cut))
		note(ac__cut_take(&cut));
	assert_all_cut_once();
}

static void test_cut_gives_the_rest_in_ranges(void **state)
{
	struct ac__range range;

	(void)state;
	cut.chunk = 1000;
	note(ac__cut_take(&cut));
	for (unsigned i = 0; i < 50; i++)
		assert_true(ac__ranges_add(&cut.back, 20 * i, 5));
	for (unsigned i = 0; i < 50; i++)
		for (unsigned j = 20 * i; j < 20 * i + 5; j++)
			times_cut[j]--;
	while (ac__cut_take_rest(&cut, &range))
		note(range);
	assert_false(ac__cut_any(&cut));
	assert_all_cut_once();
}

#define CUT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CUT_TEST(test_cut_begins_with_single_items),
		CUT_TEST(test_cut_follows_time),
		CUT_TEST(test_cut_obeys_the_user),
		CUT_TEST(test_cut_first_cuts_what_came_back),
		CUT_TEST(test_cut_gives_the_rest_in_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

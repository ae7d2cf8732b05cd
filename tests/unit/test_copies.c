/* SPDX-License-Identifier: MIT */
/*
 * Copies of arguments and results are made without the pool's lock: while one thread copies,
 * calls that never block do not wait for it.
 */
#include "task.h"

#include "copies_help.h"

/* ---- calls that never block, while another thread copies ---- */

static int use_everything(void)
{
	struct ac_worker_stat workers[2];
	struct ac_pool_stat stat;
	struct ac_task *task, *waits;

	for (int i = 0; i < 20; i++) {
		SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0);
		SEAT_CHECK(sum_holds(&stat));
		SEAT_CHECK(ac_pool_workers(pool, workers, 2) == 2);
		SEAT_CHECK(ac_pool_submit(pool, &task, echo, &i, sizeof i, NULL) == 0);
		SEAT_CHECK(ac_pool_submit(pool, &waits, echo, &i, sizeof i, NULL) == 0);
		ac_task_cancel(waits, 0);
		SEAT_CHECK(COMES_TRUE(ac_task_ready(task) == 1, 10));
		SEAT_CHECK(ac_task_wait(waits, 10 * SECOND) == 0);
		SEAT_CHECK(works(pool));
		ac_task_free(task);
		ac_task_free(waits);
	}
	return 0;
}

static int go_on_during(int (*copy)(struct copier *))
{
	struct copier copier;

	SEAT_CHECK(start_copier(&copier, copy) == 0);
	SEAT_CHECK(use_everything() == 0);
	SEAT_CHECK(!copier.returned);
	SEAT_CHECK(finish_copier(&copier) == 0);
	return is_right(&copier);
}

static int during_submit(void) { return go_on_during(submit_gated); }
static int during_call(void) { return go_on_during(call_gated); }
static int during_push(void) { return go_on_during(push_gated); }
static int during_bound(void) { return go_on_during(map_gated_bound); }
static int during_items(void) { return go_on_during(map_gated_items); }
static int during_results(void) { return go_on_during(map_gated_results); }
static int during_result(void) { return go_on_during(take_gated_result); }

static void test_copies_of_an_argument_stop_nobody(void **state)
{
	(void)state;
	RUN(during_submit);
	RUN(during_call);
	RUN(during_push);
}

static void test_copies_of_bound_data_stop_nobody(void **state)
{
	(void)state;
	RUN(during_bound);
}

static void test_copies_of_items_stop_nobody(void **state)
{
	(void)state;
	RUN(during_items);
}

static void test_copies_of_results_stop_nobody(void **state)
{
	(void)state;
	RUN(during_results);
}

static void test_copies_of_a_result_stop_nobody(void **state)
{
	(void)state;
	RUN(during_result);
}

/* The copy into the owner's memory. */
static int during_queued_submit(void)
{
	struct ac_pool_stat stat;
	struct copier copier;

	SEAT_CHECK(fill_slots() == 0);
	SEAT_CHECK(start_copier(&copier, submit_gated) == 0);
	for (int i = 0; i < 20; i++) {
		SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0);
		SEAT_CHECK(sum_holds(&stat));
		SEAT_CHECK(ac_pool_submit(pool, NULL, echo, &i, sizeof i, NULL) == 0);
	}
	SEAT_CHECK(!copier.returned);
	SEAT_CHECK(finish_copier(&copier) == 0);
	seen->go = true;
	return is_right(&copier);
}

static void test_copies_of_a_queued_argument_stop_nobody(void **state)
{
	(void)state;
	RUN(during_queued_submit);
}

/* ---- from the owner's memory into the region, when the queued task's turn comes ---- */

/* The library's own thread copies, as soon as the workers go on. */
static int during_refill(void)
{
	struct ac_pool_stat stat;
	struct ac_task *task;

	SEAT_CHECK(fill_slots() == 0);
	SEAT_CHECK(ac_pool_submit(pool, &task, check_bytes, gate.memory, SIZE, NULL) == 0);
	SEAT_CHECK(task->copy);
	shut_gate(task->copy);
	seen->go = true;
	SEAT_CHECK(COMES_TRUE(gate.reached, 10));
	for (int i = 0; i < 20; i++) {
		SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0);
		SEAT_CHECK(ac_pool_submit(pool, NULL, echo, &i, sizeof i, NULL) == 0);
	}
	SEAT_CHECK(!gate.passed);
	gate.open = true;
	SEAT_CHECK(ac_task_wait(task, 10 * SECOND) == 0);
	SEAT_CHECK(ac_task_result(task, &(const void *){ NULL }, NULL) == 0);
	ac_task_free(task);
	return 0;
}

static void test_copies_out_of_the_queue_stop_nobody(void **state)
{
	(void)state;
	RUN(during_refill);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_copies_of_an_argument_stop_nobody),
		HELP_TEST(test_copies_of_bound_data_stop_nobody),
		HELP_TEST(test_copies_of_items_stop_nobody),
		HELP_TEST(test_copies_of_results_stop_nobody),
		HELP_TEST(test_copies_of_a_result_stop_nobody),
		HELP_TEST(test_copies_of_a_queued_argument_stop_nobody),
		HELP_TEST(test_copies_out_of_the_queue_stop_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

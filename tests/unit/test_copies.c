/* SPDX-License-Identifier: MIT */
/*
 * Copies of arguments and results are made without the pool's lock: while one thread copies,
 * calls that never block do not wait for it.
 */
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

/* ---- 400 MB, from the owner's memory into the region ---- */

static int64_t time_of_a_copy(const char *from)
{
	char *to = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int64_t start = now();

	if (to == MAP_FAILED)
		return 0;
	memcpy(to, from, LARGE);
	start = now() - start;
	munmap(to, LARGE);
	return start;
}

static void *wait_for_task(void *task)
{
	ac_task_wait(task, -1);
	return NULL;
}

/* The longest that a look took while the queued argument was written and its task ran. */
static int64_t longest_look(struct ac_task *task)
{
	int64_t longest = 0, start;
	struct ac_pool_stat stat;
	pthread_t thread;

	if (pthread_create(&thread, NULL, wait_for_task, task))
		return INT64_MAX;
	seen->go = true;
	do {
		start = now();
		ac_pool_stat(pool, &stat, sizeof stat);
		start = now() - start;
		longest = start > longest ? start : longest;
	} while (stat.waiting + stat.running);
	pthread_join(thread, NULL);
	return longest;
}

/* In a new pool, whose memory was not touched before: as slow as the copy that it is
 * compared to. */
static int look_during_refill(const char *large, int64_t *look)
{
	struct ac_task *task;

	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(open_with(2) == 0);
	seen->go = false;
	SEAT_CHECK(fill_slots() == 0);
	SEAT_CHECK(ac_pool_submit(pool, &task, touch_large, large, LARGE, NULL) == 0);
	*look = longest_look(task);
	SEAT_CHECK(ac_task_result(task, &(const void *){ NULL }, NULL) == 0);
	ac_task_free(task);
	return 0;
}

/* A machine that is busy may hold a look up once, the lock holds it up each time. */
static int during_refill(void)
{
	char *large = malloc(LARGE);
	int64_t copy, look = INT64_MAX;

	SEAT_CHECK(large);
	memset(large, 1, LARGE);
	copy = time_of_a_copy(large);
	SEAT_CHECK(copy > 0);
	for (int i = 0; i < 4 && look > copy / 4; i++)
		SEAT_CHECK(look_during_refill(large, &look) == 0);
	free(large);
	SEAT_CHECK(look <= copy / 4);
	return 0;
}

static void test_copies_out_of_the_queue_stop_nobody(void **state)
{
	(void)state;
	ALONE_FOR(run_with_pool, &(int (*)(void)){ during_refill }, 45);
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

/* SPDX-License-Identifier: MIT */
/*
 * What becomes of a task, a map or a pool while another thread copies an argument or a result:
 * each task ends once, and nothing is lost.
 */
#include "copies_help.h"

/* Handed in or refused, but not lost. */
static int is_settled(struct copier *copier, int expected)
{
	struct ac_outcome outcome;

	if (copier->result < 0) {
		SEAT_CHECK(copier->result == expected ||
			   (expected == AC_ECANCELED && copier->result == AC_ECLOSED));
		SEAT_CHECK(!copier->task);
		return 0;
	}
	if (!copier->task)
		return 0;
	SEAT_CHECK(ac_task_wait(copier->task, 10 * SECOND) == 0);
	SEAT_CHECK(ac_task_outcome(copier->task, &outcome) == 0);
	SEAT_CHECK(outcome.status == expected);
	ac_task_free(copier->task);
	return 0;
}

static int (*const copies[])(struct copier *) = {
	submit_gated, call_gated, push_gated, map_gated_bound, map_gated_items, map_gated_results,
};

static int reopen(void)
{
	SEAT_CHECK(ac_pool_join(pool, 10 * SECOND) == 0);
	SEAT_CHECK(check_counts() == 0);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	seen->go = seen->refuse = false;
	SEAT_CHECK(open_with(2) == 0 && works(pool));
	return 0;
}

static int terminate_during_each(void)
{
	for (unsigned i = 0; i < COUNT(copies); i++) {
		struct copier copier;
		struct ac_pool_stat stat;

		SEAT_CHECK(start_copier(&copier, copies[i]) == 0);
		SEAT_CHECK(ac_pool_terminate(pool) == 0);
		SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat));
		SEAT_CHECK(finish_copier(&copier) == 0);
		/* The results of a map that had ended are right all the same. */
		SEAT_CHECK(copies[i] == map_gated_results ?
				   copier.result == 0 || copier.result == AC_ECANCELED :
				   is_settled(&copier, AC_ECANCELED) == 0);
		SEAT_CHECK(reopen() == 0);
	}
	return 0;
}

static void test_copies_ends_in_a_pool_that_is_terminated(void **state)
{
	(void)state;
	RUN(terminate_during_each);
}

/* All workers die, and those in their place refuse. */
static int fail_pool(void)
{
	struct ac_worker_stat workers[2];

	SEAT_CHECK(COMES_TRUE(ac_pool_workers(pool, workers, 2) == 2 &&
				      workers[0].state >= AC_WORKER_IDLE &&
				      workers[1].state >= AC_WORKER_IDLE,
			      10));
	seen->refuse = true;
	for (int i = 0; i < 2; i++)
		SEAT_CHECK(workers[i].pid > 1 && kill(workers[i].pid, SIGKILL) == 0);
	SEAT_CHECK(COMES_TRUE(ac_pool_call(pool, echo, NULL, 0, NULL, NULL, NULL) == AC_ESTART,
			      10));
	return 0;
}

static int fail_during_each(void)
{
	for (unsigned i = 0; i < COUNT(copies); i++) {
		struct copier copier;

		SEAT_CHECK(start_copier(&copier, copies[i]) == 0);
		SEAT_CHECK(fail_pool() == 0);
		SEAT_CHECK(finish_copier(&copier) == 0);
		SEAT_CHECK(copies[i] == map_gated_results ?
				   copier.result == 0 || copier.result == AC_ESTART :
				   is_settled(&copier, AC_ESTART) == 0);
		SEAT_CHECK(reopen() == 0);
	}
	return 0;
}

static void test_copies_ends_in_a_pool_that_fails(void **state)
{
	(void)state;
	RUN(fail_during_each);
}

static void *join_it(void *arg)
{
	*(_Atomic int *)arg = ac_pool_join(pool, -1);
	return NULL;
}

/* Shut and joined: what was being handed in is refused or done, and none waits for ever. */
static int join_during_each(void)
{
	for (unsigned i = 0; i < COUNT(copies); i++) {
		_Atomic int joined = 1;
		struct copier copier;
		pthread_t thread;

		SEAT_CHECK(start_copier(&copier, copies[i]) == 0);
		SEAT_CHECK(ac_pool_shut(pool) == 0);
		SEAT_CHECK(pthread_create(&thread, NULL, join_it, &joined) == 0);
		nap(20 * MS);
		SEAT_CHECK(finish_copier(&copier) == 0);
		SEAT_CHECK(COMES_TRUE(joined != 1, 10) && joined == 0);
		pthread_join(thread, NULL);
		SEAT_CHECK(copier.result == 0 || copier.result == AC_ECLOSED);
		if (copier.result == 0)
			SEAT_CHECK(is_settled(&copier, 0) == 0);
		SEAT_CHECK(reopen() == 0);
	}
	return 0;
}

static void test_copies_ends_in_a_pool_that_is_joined(void **state)
{
	(void)state;
	RUN(join_during_each);
}

/* Workers die while a copy goes on: others come, and take it. */
static int kill_during_each(void)
{
	for (unsigned i = 0; i < COUNT(copies); i++) {
		struct ac_worker_stat workers[2];
		struct copier copier;

		SEAT_CHECK(start_copier(&copier, copies[i]) == 0);
		SEAT_CHECK(ac_pool_workers(pool, workers, 2) == 2);
		for (int k = 0; k < 2; k++)
			if (workers[k].pid > 1)
				kill(workers[k].pid, SIGKILL);
		for (int k = 0; k < 20; k++)
			SEAT_CHECK(works(pool));
		SEAT_CHECK(finish_copier(&copier) == 0);
		SEAT_CHECK(is_right(&copier) == 0);
	}
	return 0;
}

static void test_copies_ends_while_workers_die(void **state)
{
	(void)state;
	RUN(kill_during_each);
}

#define LARGE (seats_scaled(400) * MB)

static int touch_large(struct ac_call *call)
{
	size_t len;
	const char *arg = ac_call_arg(call, &len);

	return len != LARGE || arg[0] != 1 || arg[LARGE - 1] != 1;
}

/* 400 MB wait in the owner's memory. While they are written into a slot by whichever
 * thread has the time, their task is cancelled, or its pool terminated or closed. */
enum { CANCELS, TERMINATES, CLOSES, WAYS };

static void note_end(void *arg, struct ac_task *task)
{
	struct ac_outcome outcome;

	ac_task_outcome(task, &outcome);
	*(_Atomic int *)arg = outcome.status ? outcome.status : 1;
}

static int stop_during_refill(const char *large, int way, int64_t after_ns)
{
	_Atomic int ended = 0;
	struct ac_submit_opts opts = { .size = sizeof opts, .done = note_end,
				       .done_arg = &ended };
	struct ac_task *task;
	int r;

	SEAT_CHECK(fill_slots() == 0);
	SEAT_CHECK(ac_pool_submit(pool, &task, touch_large, large, LARGE, &opts) == 0);
	seen->go = true; /* the library's thread refills */
	nap(after_ns);
	switch (way) {
	case CANCELS:
		r = ac_task_cancel(task, 0);
		SEAT_CHECK(r == 0 || r == -EBUSY || r == -EALREADY);
		break;
	case TERMINATES:
		SEAT_CHECK(ac_pool_terminate(pool) == 0);
		break;
	default:
		break;
	}
	if (way != CLOSES)
		SEAT_CHECK(ac_pool_join(pool, 20 * SECOND) == 0 && check_counts() == 0);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(ended == 1 || (way != CLOSES && ended == AC_ECANCELED));
	SEAT_CHECK(ac_task_wait(task, 0) == 0);
	ac_task_free(task);
	seen->go = false;
	SEAT_CHECK(open_with(2) == 0 && works(pool));
	return 0;
}

static int stop_during_refills(void)
{
	char *large = malloc(LARGE);

	SEAT_CHECK(large);
	memset(large, 1, LARGE);
	for (int way = 0; way < WAYS; way++)
		for (int i = 0; i < (int)seats_scaled(4); i++)
			SEAT_CHECK(stop_during_refill(large, way, (2 + 15 * i) * MS) == 0);
	free(large);
	return 0;
}

static void test_copies_ends_out_of_the_queue_that_are_stopped(void **state)
{
	(void)state;
	ALONE_FOR(run_with_pool, &(int (*)(void)){ stop_during_refills }, 45);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_copies_ends_in_a_pool_that_is_terminated),
		HELP_TEST(test_copies_ends_in_a_pool_that_fails),
		HELP_TEST(test_copies_ends_in_a_pool_that_is_joined),
		HELP_TEST(test_copies_ends_while_workers_die),
		HELP_TEST(test_copies_ends_out_of_the_queue_that_are_stopped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

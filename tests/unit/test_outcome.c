/* SPDX-License-Identifier: MIT */
/*
 * What a caller is told: an outcome is filled whatever a call returns, a failure has words, and
 * dispatch counts every end.
 */
#include "alone_help.h"

static struct ac_pool *pool; /* two workers */

static int set_up(void **state)
{
	help_set_up(state);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	ac_pool_close(pool);
	return help_tear_down(state);
}

/* ---- calls that are refused ---- */

static int check_refusal(int expected, int r, const struct ac_outcome *outcome)
{
	SEAT_CHECK(r == expected);
	SEAT_CHECK(outcome->status == r);
	SEAT_CHECK(outcome->value == 0 && outcome->signal == 0 && outcome->pid == 0);
	SEAT_CHECK(outcome->exit_code == -1);
	SEAT_CHECK(outcome->index == 0 && outcome->ran_ns == 0 && outcome->peak_rss == 0);
	SEAT_CHECK(memchr(outcome->text, 0, sizeof outcome->text));
	SEAT_CHECK(outcome->text[0]);
	return 0;
}

static int call_refused(int expected, struct ac_pool *where, ac_call_fn *fn, const void *arg,
			size_t len)
{
	struct ac_outcome outcome;
	int r;

	memset(&outcome, 0x5a, sizeof outcome);
	r = ac_pool_call(where, fn, arg, len, NULL, NULL, &outcome);
	return check_refusal(expected, r, &outcome);
}

static void test_outcome_of_an_invalid_call(void **state)
{
	(void)state;
	assert_int_equal(call_refused(-EINVAL, NULL, echo, NULL, 0), 0);
	assert_int_equal(call_refused(-EINVAL, pool, NULL, NULL, 0), 0);
	assert_int_equal(call_refused(-EINVAL, pool, echo, NULL, 1), 0);
}

static void test_outcome_of_a_call_after_shut(void **state)
{
	(void)state;
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(call_refused(AC_ECLOSED, pool, echo, NULL, 0), 0);
}

static void test_outcome_of_a_call_after_terminate(void **state)
{
	(void)state;
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(call_refused(AC_ECLOSED, pool, echo, NULL, 0), 0);
}

static int call_in_child(void *arg)
{
	(void)arg;
	return call_refused(AC_EFORK, pool, echo, NULL, 0);
}

static void test_outcome_of_a_call_in_a_forked_child(void **state)
{
	(void)state;
	ALONE(call_in_child, NULL);
}

static int refuse_to_start(void *arg)
{
	(void)arg;
	return 1;
}

static void test_outcome_of_a_call_to_a_failed_pool(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .init = refuse_to_start };
	struct ac_pool *failed;

	(void)state;
	assert_int_equal(ac_pool_open(&failed, &opts), 0);
	EVENTUALLY(ac_pool_call(failed, echo, NULL, 0, NULL, NULL, NULL) == AC_ESTART);
	assert_int_equal(call_refused(AC_ESTART, failed, echo, NULL, 0), 0);
	ac_pool_close(failed);
}

static void test_outcome_of_a_call_without_memory(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .memory = MB };
	char *bytes = calloc(8, MB);
	struct ac_pool *small;

	(void)state;
	assert_int_equal(ac_pool_open(&small, &opts), 0);
	assert_int_equal(call_refused(-ENOMEM, small, echo, bytes, 8 * MB), 0);
	ac_pool_close(small);
	free(bytes);
}

/* ---- failures without words of their own ---- */

static int fail_silently(struct ac_call *call)
{
	(void)call;
	return 9;
}

static int fail_odd_item(const void *item, void *result, const void *bound)
{
	(void)result, (void)bound;
	return *(const char *)item % 2 * 9;
}

static void assert_has_words(const struct ac_outcome *outcome)
{
	assert_int_equal(outcome->status, AC_ETASK);
	assert_int_equal(outcome->value, 9);
	assert_true(outcome->text[0] != '\0');
	assert_non_null(memchr(outcome->text, 0, sizeof outcome->text));
}

static void test_outcome_of_a_failed_call_has_words(void **state)
{
	struct ac_outcome outcome;
	struct ac_task *task;

	(void)state;
	assert_int_equal(ac_pool_call(pool, fail_silently, NULL, 0, NULL, NULL, &outcome),
			 AC_ETASK);
	assert_has_words(&outcome);
	assert_int_equal(ac_pool_submit(pool, &task, fail_silently, NULL, 0, NULL), 0);
	assert_int_equal(ac_task_wait(task, -1), 0);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_has_words(&outcome);
	ac_task_free(task);
}

static void test_outcome_of_a_failed_item_has_words(void **state)
{
	struct ac_outcome outcomes[4], failure;
	struct ac_map_opts opts = { .size = sizeof opts, .outcomes = outcomes,
				    .failure = &failure };
	const char items[] = { 0, 1, 2, 3 };

	(void)state;
	assert_int_equal(ac_pool_map(pool, fail_odd_item, &opts, items, 1, NULL, 0, 4), AC_ETASK);
	assert_has_words(&outcomes[1]);
	assert_has_words(&outcomes[3]);
	assert_has_words(&failure);
	assert_int_equal(failure.index, 1);
	assert_string_equal(outcomes[0].text, "");
	assert_string_equal(outcomes[2].text, "");
}

/* ---- what dispatch counts ---- */

static void test_outcome_dispatch_counts_ends_that_others_noted(void **state)
{
	struct ac_worker_stat workers[2];
	struct ac_task *task;

	(void)state;
	assert_works(pool);
	assert_true(ac_pool_fd(pool) >= 0);
	ac_pool_dispatch(pool);
	for (int way = 0; way < 3; way++) {
		int counted = 0;
		int64_t end = now() + 10 * SECOND;

		task = submit_int(pool, way == 2 ? nap_ms : echo, 1);
		if (way == 0)
			EVENTUALLY(ac_task_ready(task));
		else if (way == 1)
			assert_int_equal(ac_task_wait(task, -1), 0);
		else
			EVENTUALLY(ac_pool_workers(pool, workers, 2) == 2 && ac_task_ready(task));
		while (!counted && now() < end)
			counted = ac_pool_dispatch(pool);
		assert_int_equal(counted, 1);
		assert_int_equal(ac_pool_dispatch(pool), 0);
		ac_task_free(task);
	}
}

static void test_outcome_dispatch_counts_what_was_cancelled(void **state)
{
	struct ac_task *naps[2], *waits;

	(void)state;
	assert_works(pool);
	assert_true(ac_pool_fd(pool) >= 0);
	ac_pool_dispatch(pool);
	for (int i = 0; i < 2; i++)
		naps[i] = submit_int(pool, nap_ms, 20000);
	waits = submit_int(pool, echo, 1);
	for (int i = 0; i < 2; i++)
		EVENTUALLY(ac_task_cancel(naps[i], 1) == 0);
	ac_task_cancel(waits, 0); /* a worker that has come may have it by now */
	EVENTUALLY(ac_task_ready(waits));
	assert_int_equal(ac_pool_dispatch(pool), 3);
	assert_int_equal(ac_pool_dispatch(pool), 0);
	for (int i = 0; i < 2; i++)
		ac_task_free(naps[i]);
	ac_task_free(waits);
}

#define OUTCOME_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OUTCOME_TEST(test_outcome_of_an_invalid_call),
		OUTCOME_TEST(test_outcome_of_a_call_after_shut),
		OUTCOME_TEST(test_outcome_of_a_call_after_terminate),
		OUTCOME_TEST(test_outcome_of_a_call_in_a_forked_child),
		OUTCOME_TEST(test_outcome_of_a_call_to_a_failed_pool),
		OUTCOME_TEST(test_outcome_of_a_call_without_memory),
		OUTCOME_TEST(test_outcome_of_a_failed_call_has_words),
		OUTCOME_TEST(test_outcome_of_a_failed_item_has_words),
		OUTCOME_TEST(test_outcome_dispatch_counts_ends_that_others_noted),
		OUTCOME_TEST(test_outcome_dispatch_counts_what_was_cancelled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* What a call of a fed stream is pushed with, by the words of the public header. */
#include "feed_help.h"

static int tell_index(struct ac_call *call)
{
	uint64_t n = *(const int *)ac_call_arg(call, NULL);

	return ac_call_return(call, &n, sizeof n);
}

static int begin_one_unit(struct ac_call *call)
{
	ac_call_next_unit(call);
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return 0;
}

static void test_push_gives_the_users_pointer_back(void **state)
{
	struct ac_stream *stream = open_fed(tell_index, 0);
	struct ac_push_opts opts = { .size = sizeof opts };
	struct ac_task *task, *other;
	struct ac_outcome outcome;
	int numbers[100];

	(void)state;
	for (int i = 0; i < 100; i++) {
		opts.user = i % 10 ? &numbers[i] : NULL;
		assert_int_equal(ac_stream_push(stream, &i, sizeof i, &opts, NULL), 0);
	}
	for (int i = 0; i < 100; i++) {
		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_ptr_equal(ac_task_user(task),
				 outcome.index % 10 ? &numbers[outcome.index] : NULL);
		ac_task_free(task);
	}
	push_int(stream, 0, 0);
	assert_int_equal(ac_stream_next(stream, &task, -1), 1);
	assert_null(ac_task_user(task));
	assert_int_equal(ac_pool_submit(pool, &other, tell_index, numbers, sizeof *numbers, NULL),
			 0);
	assert_null(ac_task_user(other));
	assert_null(ac_task_user(NULL));
	ac_task_free(task);
	ac_task_free(other);
	ac_stream_close(stream);
}

/* Of any size that it has in another version of the header. */
static void test_push_checks_its_options(void **state)
{
	struct { struct ac_push_opts known; uint64_t more; } opts = { .known = { .size = 0 } };
	struct ac_stream *stream = open_fed(tell_index, 0);
	struct ac_task *task;
	int number = 0;

	(void)state;
	assert_int_equal(ac_stream_push(stream, NULL, 0, &opts.known, NULL), -EINVAL);
	opts.known.size = sizeof opts;
	assert_int_equal(ac_stream_push(stream, &number, sizeof number, &opts.known, NULL), 0);
	opts.more = 1;
	assert_int_equal(ac_stream_push(stream, NULL, 0, &opts.known, NULL), -E2BIG);
	opts.known.size = sizeof opts.known;
	opts.known.flags = 1;
	assert_int_equal(ac_stream_push(stream, NULL, 0, &opts.known, NULL), -EINVAL);
	assert_int_equal(take(stream, NULL, 0).index, 0);
	assert_int_equal(ac_stream_next(stream, &task, 0), -ETIMEDOUT);
	ac_stream_close(stream);
}

static void test_push_names_the_call_whose_units_come_back(void **state)
{
	struct ac_stream *stream = open_fed(begin_one_unit, 0);
	struct ac_push_opts opts = { .size = sizeof opts };
	void *user = &user;
	uint32_t kept = 99;
	int names[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		opts.units = i ? 50 : 20;
		opts.user = &names[i];
		assert_int_equal(ac_stream_push(stream, NULL, 0, &opts, NULL), 0);
	}
	EVENTUALLY(seen->runs == 2);
	assert_int_equal(ac_stream_take_back(stream, NULL, &user, &kept), 1);
	assert_ptr_equal(user, &names[1]);
	assert_int_equal(kept, 1);
	assert_int_equal(ac_stream_take_back(stream, NULL, NULL, &kept), 1);
	user = &user;
	assert_int_equal(ac_stream_take_back(stream, NULL, &user, &kept), 0);
	assert_ptr_equal(user, &user);
	seen->go = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FEED_TEST(test_push_gives_the_users_pointer_back),
		FEED_TEST(test_push_checks_its_options),
		FEED_TEST(test_push_names_the_call_whose_units_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

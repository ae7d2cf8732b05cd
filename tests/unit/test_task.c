/* SPDX-License-Identifier: MIT */
/* Single calls by the words of the public header: bytes, ends, callbacks, limits, cancelling. */
#include "pool_help.h"

static struct ac_pool *pool; /* two workers */

static int set_up(void **state)
{
	help_set_up(state);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

static const size_t lengths[] = { 0, 1, 63, 64, 65, 144, 145, 192, 193, 4095, 4096,
				  4097, 65536, 65537, MB };

/* ---- bytes in, bytes out ---- */

/* Echo by ac_call_reserve, and look at the argument's address. */
static int echo_reserved(struct ac_call *call)
{
	size_t len;
	const unsigned char *arg = ac_call_arg(call, &len);
	void *room = ac_call_reserve(call, len);

	if (!arg || !room || (uintptr_t)arg % 16)
		return 1;
	if (len >= 4096 && (uintptr_t)arg % 4096)
		return 2;
	if (arg != ac_call_arg(call, NULL))
		return 3;
	memcpy(room, arg, len);
	return 0;
}

static void send_and_compare(ac_call_fn *fn, size_t len, unsigned seed)
{
	unsigned char *in = calloc(1, len + 1), *out = malloc(len + 1);
	size_t out_len = len + 1;
	struct ac_task *task;
	const void *data = NULL;

	fill_bytes(in, len, seed);
	out[len] = 0xee;
	assert_int_equal(ac_pool_call(pool, fn, in, len, out, &out_len, NULL), 0);
	assert_int_equal(out_len, len);
	assert_memory_equal(in, out, len);
	assert_int_equal(out[len], 0xee);
	assert_int_equal(ac_pool_submit(pool, &task, fn, len ? in : NULL, len, NULL), 0);
	memset(out, 0, len);
	memcpy(out, in, len);
	memset(in, 0, len); /* it was copied */
	assert_int_equal(status_of(task), 0);
	assert_int_equal(ac_task_result(task, &data, NULL), 0);
	assert_int_equal(ac_task_result(task, &data, &out_len), 0);
	assert_int_equal(out_len, len);
	assert_non_null(data);
	assert_memory_equal(data, out, len);
	ac_task_free(task);
	free(in);
	free(out);
}

static void test_task_bytes_go_in_and_come_out(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT(lengths); i++) {
		send_and_compare(echo, lengths[i], i);
		send_and_compare(echo_reserved, lengths[i], i + 100);
	}
}

static void test_task_carries_64_megabytes(void **state)
{
	(void)state;
	send_and_compare(echo, 64 * MB, 1);
	send_and_compare(echo_reserved, 64 * MB, 2);
}

static int reserve_again(struct ac_call *call)
{
	const size_t *lens = ac_call_arg(call, NULL);
	char *room = ac_call_reserve(call, lens[0]);

	if (!room)
		return 1;
	memset(room, 'a', lens[0]);
	room = ac_call_reserve(call, lens[1]);
	if (!room)
		return 2;
	memset(room, 'b', lens[1]);
	return 0;
}

static void test_task_second_reserve_replaces_the_first(void **state)
{
	char out[5000], expected[5000];
	size_t lens[2], len;

	(void)state;
	memset(expected, 'b', sizeof expected);
	for (unsigned i = 0; i < 9; i++) {
		lens[0] = (size_t[]){ 4, 150, 5000 }[i / 3];
		lens[1] = (size_t[]){ 4, 150, 5000 }[i % 3];
		len = sizeof out;
		assert_int_equal(ac_pool_call(pool, reserve_again, lens, sizeof lens,
					      out, &len, NULL), 0);
		assert_int_equal(len, lens[1]);
		assert_memory_equal(out, expected, len);
	}
}

static int reserve_too_much(struct ac_call *call)
{
	if (ac_call_reserve(call, SIZE_MAX) || ac_call_reserve(call, (size_t)1 << 60))
		return 1;
	return ac_call_return(call, "still here", 11) == 0 ? 0 : 2;
}

static void test_task_reserve_of_too_much_is_refused(void **state)
{
	char out[11];
	size_t len = sizeof out;

	(void)state;
	assert_int_equal(ac_pool_call(pool, reserve_too_much, NULL, 0, out, &len, NULL),
			 0);
	assert_int_equal(len, 11);
	assert_string_equal(out, "still here");
}

static void test_task_call_copies_no_more_than_asked(void **state)
{
	char out[8] = "-------";
	size_t len = 3;

	(void)state;
	assert_int_equal(ac_pool_call(pool, echo, "abcdef", 6, out, &len, NULL), 0);
	assert_int_equal(len, 6);
	assert_string_equal(out, "abc----");
	len = 0;
	assert_int_equal(ac_pool_call(pool, echo, "abcdef", 6, out, &len, NULL), 0);
	assert_int_equal(len, 6);
	assert_int_equal(ac_pool_call(pool, echo, "abcdef", 6, NULL, NULL, NULL), 0);
	assert_int_equal(ac_pool_call(pool, echo, "abcdef", 6, NULL, &len, NULL), 0);
	assert_int_equal(len, 6);
}

static void test_task_without_result_has_an_empty_one(void **state)
{
	struct ac_task *task = submit_int(pool, nap_ms, 0);
	const void *data;
	size_t len = 99;

	(void)state;
	assert_int_equal(status_of(task), 0);
	assert_int_equal(ac_task_result(task, &data, &len), 0);
	assert_int_equal(len, 0);
	ac_task_free(task);
}

/* ---- refusals ---- */

static void test_task_refuses_what_can_not_be(void **state)
{
	struct ac_submit_opts opts = { 0 };
	struct ac_outcome outcome;
	struct ac_task *task;
	const void *data;

	(void)state;
	assert_int_equal(ac_pool_submit(NULL, &task, echo, NULL, 0, NULL), -EINVAL);
	assert_int_equal(ac_pool_submit(pool, &task, NULL, NULL, 0, NULL), -EINVAL);
	assert_int_equal(ac_pool_submit(pool, &task, echo, NULL, 1, NULL), -EINVAL);
	assert_int_equal(ac_pool_submit(pool, &task, echo, NULL, 0, &opts), -EINVAL);
	assert_int_equal(ac_pool_call(NULL, echo, NULL, 0, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(ac_pool_call(pool, NULL, NULL, 0, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(ac_pool_call(pool, echo, NULL, 5, NULL, NULL, NULL), -EINVAL);
	assert_true(ac_task_ready(NULL) < 0);
	assert_true(ac_task_wait(NULL, 0) < 0);
	assert_true(ac_task_outcome(NULL, &outcome) < 0);
	assert_true(ac_task_result(NULL, &data, NULL) < 0);
	assert_true(ac_task_cancel(NULL, 0) < 0);
	ac_task_free(NULL);
}

static void test_task_too_long_an_argument_is_refused(void **state)
{
	struct ac_task *task;

	(void)state;
	assert_int_equal(ac_pool_submit(pool, &task, echo, &task, (size_t)1 << 60, NULL),
			 -ENOMEM);
	assert_works(pool);
}

/* ---- inside the call ---- */

static int tell_current(struct ac_call *call)
{
	unsigned worker = ac_call_worker(call);

	if (ac_call_current() != call)
		return 1;
	return ac_call_return(call, &worker, sizeof worker);
}

static void test_task_knows_its_call_and_worker(void **state)
{
	struct ac_outcome outcome;
	unsigned worker = 99;
	size_t len = sizeof worker;

	(void)state;
	assert_null(ac_call_current());
	for (int i = 0; i < 20; i++) {
		assert_int_equal(ac_pool_call(pool, tell_current, NULL, 0, &worker, &len,
					      &outcome), 0);
		assert_in_range(worker, 0, 1);
		assert_int_equal(outcome.worker, worker);
		assert_int_equal(outcome.status, 0);
		assert_string_equal(outcome.text, "");
		assert_true(outcome.pid > 0);
	}
}

static int fail_in_words(struct ac_call *call)
{
	size_t len;
	const char *text = ac_call_arg(call, &len);

	return ac_call_fail(call, "%.*s", (int)len, text);
}

static int use_no_call(struct ac_call *call)
{
	size_t len = 7;

	if (ac_call_arg(NULL, &len) || len || ac_call_arg(NULL, NULL) ||
	    ac_call_reserve(NULL, 1) || ac_call_return(NULL, "x", 1) != -EINVAL ||
	    ac_call_return(call, NULL, 1) != -EINVAL || ac_call_worker(NULL) ||
	    ac_call_next_unit(NULL) || ac_call_function(NULL) ||
	    ac_call_run(NULL) != -EINVAL || ac_call_fail(NULL, "x") != AC_ETASK)
		return 1;
	ac_worker_done(NULL, call, 0);
	return 0;
}

static void test_task_has_no_call_in_null(void **state)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .flags = 1 };

	(void)state;
	assert_int_equal(ac_pool_call(pool, use_no_call, NULL, 0, NULL, NULL, NULL), 0);
	assert_int_equal(ac_pool_submit(pool, NULL, use_no_call, NULL, 0, &opts), -EINVAL);
}

static void test_task_fails_in_words(void **state)
{
	char words[400];
	struct ac_outcome outcome;

	(void)state;
	memset(words, 'w', sizeof words);
	for (unsigned len = 1; len < sizeof words; len += 21) {
		unsigned kept = len < AC_TEXT_SIZE ? len : AC_TEXT_SIZE - 1;

		assert_int_equal(ac_pool_call(pool, fail_in_words, words, len, NULL,
					      NULL, &outcome), AC_ETASK);
		assert_int_equal(outcome.status, AC_ETASK);
		assert_int_equal(outcome.value, AC_ETASK);
		assert_int_equal(strlen(outcome.text), kept);
		assert_memory_equal(outcome.text, words, kept);
	}
	assert_int_equal(ac_pool_call(pool, fail_in_words, "", 0, NULL, NULL, &outcome),
			 AC_ETASK);
	assert_string_equal(outcome.text, "the task's function returned -20001");
}

static int return_and_fail(struct ac_call *call)
{
	ac_call_return(call, "result", 7);
	return 42;
}

static void test_task_that_failed_has_no_result(void **state)
{
	struct ac_task *task;
	struct ac_outcome outcome;
	const void *data;

	(void)state;
	assert_int_equal(ac_pool_submit(pool, &task, return_and_fail, NULL, 0, NULL), 0);
	assert_int_equal(status_of(task), AC_ETASK);
	assert_int_equal(ac_task_result(task, &data, NULL), AC_ETASK);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_int_equal(outcome.value, 42);
	assert_string_equal(outcome.text, "the task's function returned 42");
	assert_int_equal(outcome.signal, 0);
	ac_task_free(task);
	task = submit_int(pool, fail_with, INT_MIN);
	assert_int_equal(status_of(task), AC_ETASK);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_int_equal(outcome.value, INT_MIN);
	ac_task_free(task);
}

/* ---- before the end ---- */

static void test_task_can_be_waited_for(void **state)
{
	struct ac_task *task = submit_int(pool, nap_ms, 300);
	struct ac_outcome outcome;
	const void *data;
	int64_t start = now();

	(void)state;
	assert_int_equal(ac_task_ready(task), 0);
	assert_int_equal(ac_task_outcome(task, &outcome), -EAGAIN);
	assert_int_equal(ac_task_result(task, &data, NULL), -EAGAIN);
	assert_int_equal(ac_task_wait(task, 0), -ETIMEDOUT);
	assert_int_equal(ac_task_wait(task, 20 * MS), -ETIMEDOUT);
	assert_true(now() - start >= 20 * MS && now() - start < 280 * MS);
	assert_int_equal(ac_task_wait(task, INT64_MAX), 0);
	assert_int_equal(ac_task_ready(task), 1);
	assert_int_equal(ac_task_wait(task, 0), 0);
	assert_int_equal(ac_task_wait(task, -1), 0);
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
}

static void test_task_becomes_ready_without_a_wait(void **state)
{
	struct ac_task *task = submit_int(pool, nap_ms, 5);

	(void)state;
	EVENTUALLY(ac_task_ready(task) == 1);
	ac_task_free(task);
}

static void test_task_handle_may_be_freed_at_any_time(void **state)
{
	struct ac_pool_stat stat;

	(void)state;
	for (int i = 0; i < 300; i++) {
		struct ac_task *task = submit_int(pool, nap_ms, i % 30 == 0);

		if (i % 3 == 1)
			nap(10000);
		ac_task_free(task);
	}
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.done, 300);
}

/* ---- callbacks ---- */

struct heard {
	pthread_t thread;
	_Atomic unsigned calls, inside;
	unsigned wrong, more;
	int next; /* the argument expected */
};

static void hear(void *arg, struct ac_task *task)
{
	struct heard *heard = arg;
	const void *data;
	struct ac_submit_opts opts = { .size = sizeof opts, .done = hear, .done_arg = arg };

	heard->wrong += atomic_fetch_add(&heard->inside, 1) != 0;
	if (heard->calls == 0)
		heard->thread = pthread_self();
	heard->wrong += !pthread_equal(heard->thread, pthread_self());
	heard->wrong += ac_task_ready(task) != 1;
	if (ac_task_result(task, &data, NULL) == 0 && heard->next >= 0)
		heard->wrong += *(const int *)data != heard->next++;
	if (heard->more) {
		heard->more--;
		heard->wrong += ac_pool_submit(pool, NULL, echo, &heard->next,
					       sizeof(int), &opts) != 0;
	}
	atomic_fetch_sub(&heard->inside, 1);
	heard->calls++;
}

static void submit_heard(struct heard *heard, ac_call_fn *fn, int arg, struct ac_task **task)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = hear, .done_arg = heard };

	assert_int_equal(ac_pool_submit(pool, task, fn, &arg, sizeof arg, &opts), 0);
}

static void test_task_callbacks_come_once_from_one_thread(void **state)
{
	struct heard heard = { .next = -1 };
	struct ac_task *task;

	(void)state;
	for (int i = 0; i < 500; i++) {
		submit_heard(&heard, i % 7 ? echo : fail_with, i + 1,
			     i % 2 ? &task : NULL);
		if (i % 2)
			ac_task_free(task); /* the callback gets its own hold */
	}
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(heard.calls, 500);
	assert_int_equal(heard.wrong, 0);
	assert_false(pthread_equal(heard.thread, pthread_self()));
}

static void test_task_callbacks_may_submit_more(void **state)
{
	struct heard heard = { .more = 200 };

	(void)state;
	submit_heard(&heard, echo, 0, NULL);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(heard.calls, 201);
	assert_int_equal(heard.wrong, 0);
	assert_int_equal(heard.next, 201);
}

static void wait_inside(void *arg, struct ac_task *task)
{
	int in = 5, out = 0;
	size_t len = sizeof out;
	struct ac_task *other;

	(void)task;
	if (ac_pool_call(pool, echo, &in, sizeof in, &out, &len, NULL) == 0 && out == 5 &&
	    ac_pool_submit(pool, &other, echo, &in, sizeof in, NULL) == 0 &&
	    ac_task_wait(other, -1) == 0) {
		ac_task_free(other);
		*(int *)arg = 1;
	}
}

static void test_task_callbacks_may_wait_for_others(void **state)
{
	int good = 0;
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .done = wait_inside,
				       .done_arg = &good };

	(void)state;
	assert_int_equal(ac_pool_submit(pool, NULL, echo, NULL, 0, &opts), 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(good, 1);
}

static void test_task_callback_of_a_cancelled_one(void **state)
{
	struct heard heard = { .next = -1 };
	struct ac_task *blockers[2], *task;

	(void)state;
	blockers[0] = submit_int(pool, nap_ms, 200);
	blockers[1] = submit_int(pool, nap_ms, 200);
	submit_heard(&heard, echo, 1, &task);
	assert_int_equal(ac_task_cancel(task, 0), 0);
	assert_int_equal(status_of(task), AC_ECANCELED);
	EVENTUALLY(heard.calls == 1);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(heard.calls, 1);
	ac_task_free(task);
	ac_task_free(blockers[0]);
	ac_task_free(blockers[1]);
}

/* ---- a backlog ---- */

#define BACKLOG 100000

static unsigned char *order; /* shared: what one worker wrote, in its order */
static _Atomic unsigned *written;

static int append_byte(struct ac_call *call)
{
	order[atomic_fetch_add(written, 1)] = *(const unsigned char *)ac_call_arg(call, NULL);
	return 0;
}

static void test_task_backlog_has_no_bound_and_keeps_order(void **state)
{
	unsigned char *expected = malloc(BACKLOG), *memory;
	unsigned n = seats_scaled(BACKLOG);
	struct ac_pool *one;

	(void)state;
	memory = share(BACKLOG + 64);
	written = (_Atomic unsigned *)memory;
	order = memory + 64;
	one = open_pool(1);
	fill_bytes(expected, n, 3);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(ac_pool_submit(one, NULL, append_byte, &expected[i], 1,
						NULL), 0);
	assert_int_equal(ac_pool_join(one, -1), 0);
	assert_int_equal(*written, n);
	assert_memory_equal(order, expected, n);
	assert_int_equal(ac_pool_close(one), 0);
	munmap(memory, BACKLOG + 64);
	free(expected);
}

/* ---- retries, deaths ---- */

static _Atomic unsigned *lives; /* shared */

static int die_at_first(struct ac_call *call)
{
	unsigned deaths = *(const unsigned *)ac_call_arg(call, NULL);

	if (atomic_fetch_add(lives, 1) < deaths)
		die(SIGKILL);
	return ac_call_return(call, "alive", 6);
}

static int retry(unsigned deaths, unsigned retries, struct ac_outcome *outcome)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .retries = retries };
	struct ac_task *task;

	*lives = 0;
	assert_int_equal(ac_pool_submit(pool, &task, die_at_first, &deaths,
					sizeof deaths, &opts), 0);
	assert_int_equal(ac_task_wait(task, -1), 0);
	assert_int_equal(ac_task_outcome(task, outcome), 0);
	ac_task_free(task);
	return outcome->status;
}

static void test_task_is_retried_as_often_as_asked(void **state)
{
	struct ac_outcome outcome;

	(void)state;
	lives = share(sizeof *lives);
	ac_pool_close(pool);
	pool = open_pool(2); /* that sees lives */
	assert_int_equal(retry(1, 0, &outcome), AC_EDIED);
	assert_int_equal(*lives, 1);
	assert_int_equal(retry(1, 1, &outcome), 0);
	assert_int_equal(*lives, 2);
	assert_int_equal(retry(3, 2, &outcome), AC_EDIED);
	assert_int_equal(*lives, 3);
	assert_int_equal(outcome.signal, SIGKILL);
	assert_int_equal(retry(3, 3, &outcome), 0);
	assert_int_equal(*lives, 4);
	munmap((void *)lives, sizeof *lives);
}

static void test_task_death_tells_how(void **state)
{
	static const int ways[] = { SIGKILL, SIGSEGV, SIGABRT, SIGTERM, -3, 0, -255 };
	struct ac_outcome outcome;

	(void)state;
	for (unsigned i = 0; i < COUNT(ways); i++) {
		int how = ways[i];

		assert_int_equal(ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL,
					      &outcome), AC_EDIED);
		assert_int_equal(outcome.status, AC_EDIED);
		assert_int_equal(outcome.signal, how > 0 ? how : 0);
		assert_int_equal(outcome.exit_code, how > 0 ? -1 : -how);
		assert_true(outcome.pid > 0 && !is_alive(outcome.pid));
		assert_true(outcome.text[0]);
	}
	assert_works(pool);
}

#define TASK_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TASK_TEST(test_task_bytes_go_in_and_come_out),
		TASK_TEST(test_task_carries_64_megabytes),
		TASK_TEST(test_task_second_reserve_replaces_the_first),
		TASK_TEST(test_task_reserve_of_too_much_is_refused),
		TASK_TEST(test_task_call_copies_no_more_than_asked),
		TASK_TEST(test_task_without_result_has_an_empty_one),
		TASK_TEST(test_task_refuses_what_can_not_be),
		TASK_TEST(test_task_too_long_an_argument_is_refused),
		TASK_TEST(test_task_knows_its_call_and_worker),
		TASK_TEST(test_task_fails_in_words),
		TASK_TEST(test_task_has_no_call_in_null),
		TASK_TEST(test_task_that_failed_has_no_result),
		TASK_TEST(test_task_can_be_waited_for),
		TASK_TEST(test_task_becomes_ready_without_a_wait),
		TASK_TEST(test_task_handle_may_be_freed_at_any_time),
		TASK_TEST(test_task_callbacks_come_once_from_one_thread),
		TASK_TEST(test_task_callbacks_may_submit_more),
		TASK_TEST(test_task_callbacks_may_wait_for_others),
		TASK_TEST(test_task_callback_of_a_cancelled_one),
		TASK_TEST(test_task_backlog_has_no_bound_and_keeps_order),
		TASK_TEST(test_task_is_retried_as_often_as_asked),
		TASK_TEST(test_task_death_tells_how),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

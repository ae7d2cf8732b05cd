/* SPDX-License-Identifier: MIT */
/* Fed streams, by the words of the public header. */
#include "feed_help.h"

static int look(struct ac_stream *stream)
{
	struct ac_task *task = NULL;
	int r = ac_stream_next(stream, &task, 0);

	if (r == 1)
		ac_task_free(task);
	return r;
}

static int next_code(struct ac_stream *stream)
{
	struct ac_task *task = NULL;

	return ac_stream_next(stream, &task, 20 * SECOND);
}

/* ---- what workers run ---- */

static int count(struct ac_call *call)
{
	(void)call;
	atomic_fetch_add(&seen->runs, 1);
	return 0;
}

static int wait_for_go(struct ac_call *call)
{
	(void)call;
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return 0;
}

/* Positive: nap so many ms; negative: die by that signal; 0: at once. */
static int nap_or_die(struct ac_call *call)
{
	int arg = *(const int *)ac_call_arg(call, NULL);

	atomic_fetch_add(&seen->runs, 1);
	if (arg < 0)
		die(-arg);
	if (arg)
		nap(arg * MS);
	return 0;
}

static int tell_index(struct ac_call *call)
{
	uint64_t n = *(const int *)ac_call_arg(call, NULL);

	return ac_call_return(call, &n, sizeof n);
}

/* ---- threads of the owner ---- */

struct helper_thread {
	pthread_t thread;
	struct ac_stream *stream;
	int count, code;
	_Atomic bool waits;
};

static void *push_and_end(void *arg)
{
	struct helper_thread *me = arg;

	for (int i = 0; i < me->count && !me->code; i++)
		me->code = ac_stream_push(me->stream, &i, sizeof i, NULL, NULL);
	if (!me->code)
		me->code = ac_stream_end(me->stream);
	return NULL;
}

static void *take_all(void *arg)
{
	struct helper_thread *me = arg;
	struct ac_task *task;

	me->waits = true;
	while ((me->code = ac_stream_next(me->stream, &task, -1)) == 1) {
		me->count++;
		ac_task_free(task);
	}
	return NULL;
}

static void start(struct helper_thread *it, void *(*fn)(void *), struct ac_stream *stream)
{
	it->stream = stream;
	assert_int_equal(pthread_create(&it->thread, NULL, fn, it), 0);
}

static void join(struct helper_thread *it)
{
	assert_int_equal(pthread_join(it->thread, NULL), 0);
}

/* ---- pushing and taking ---- */

static void test_feed_gives_what_was_pushed(void **state)
{
	enum { N = 3000 };
	struct ac_stream *stream = open_fed(tell_index, 0);
	bool taken[N] = { false };
	uint64_t result;

	(void)state;
	assert_int_equal(look(stream), -ETIMEDOUT);
	for (int i = 0; i < N; i++)
		assert_int_equal(push_int(stream, i, 0), i);
	for (int i = 0; i < N; i++) {
		struct ac_outcome outcome = take(stream, &result, sizeof result);

		assert_int_equal(outcome.status, 0);
		assert_int_equal(outcome.index, result);
		assert_in_range(result, 0, N - 1);
		assert_false(taken[result]);
		taken[result] = true;
	}
	assert_int_equal(look(stream), -ETIMEDOUT);
	assert_int_equal(push_int(stream, 0, 0), N);
	take(stream, NULL, 0);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0, NULL, NULL), AC_ECLOSED);
	assert_int_equal(next_code(stream), 0);
	assert_int_equal(look(stream), 0);
	ac_stream_close(stream);
}

static void test_feed_carries_bytes_of_all_sizes(void **state)
{
	static const size_t lens[] = { 0, 1, 208, 209, 5000, 100000, 3 * MB };
	unsigned char *bytes = malloc(3 * MB);
	struct ac_stream *stream = open_fed(echo, 0);

	(void)state;
	for (unsigned i = 0; i < COUNT(lens); i++) {
		fill_bytes(bytes, lens[i], i);
		assert_int_equal(ac_stream_push(stream, bytes, lens[i], NULL, NULL), 0);
	}
	for (unsigned i = 0; i < COUNT(lens); i++) {
		struct ac_outcome outcome;
		struct ac_task *task;
		const void *data;
		size_t len;

		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		assert_in_range(outcome.index, 0, COUNT(lens) - 1);
		assert_int_equal(len, lens[outcome.index]);
		fill_bytes(bytes, len, (unsigned)outcome.index);
		assert_memory_equal(data, bytes, len);
		ac_task_free(task);
	}
	ac_stream_close(stream);
	free(bytes);
}

static void test_feed_from_one_thread_to_another(void **state)
{
	struct ac_stream *stream = open_fed(tell_index, 0);
	struct helper_thread pusher = { .count = (int)seats_scaled(100000) };
	bool *taken = calloc((size_t)pusher.count, sizeof *taken);
	uint64_t result;

	(void)state;
	start(&pusher, push_and_end, stream);
	for (int i = 0; i < pusher.count; i++) {
		struct ac_outcome outcome = take(stream, &result, sizeof result);

		assert_int_equal(outcome.status, 0);
		assert_int_equal(outcome.index, result);
		assert_true(result < (uint64_t)pusher.count && !taken[result]);
		taken[result] = true;
	}
	assert_int_equal(next_code(stream), 0);
	join(&pusher);
	assert_int_equal(pusher.code, 0);
	ac_stream_close(stream);
	free(taken);
}

static void test_feed_several_push_and_several_take(void **state)
{
	enum { N = 4, EACH = 2000 };
	struct ac_stream *stream = open_fed(count, 0);
	struct helper_thread takers[N] = { 0 };
	int total = 0;

	(void)state;
	for (int i = 0; i < N; i++)
		start(&takers[i], take_all, stream);
	for (int i = 0; i < N * EACH; i++)
		push_int(stream, i, 0);
	assert_int_equal(ac_stream_end(stream), 0);
	for (int i = 0; i < N; i++) {
		join(&takers[i]);
		assert_int_equal(takers[i].code, 0);
		total += takers[i].count;
	}
	assert_int_equal(total, N * EACH);
	assert_int_equal(seen->runs, N * EACH);
	ac_stream_close(stream);
}

static void test_feed_backlog_before_the_first_next(void **state)
{
	int n = (int)seats_scaled(200000);
	struct ac_stream *stream = open_fed(count, 0);

	(void)state;
	for (int i = 0; i < n; i++)
		assert_int_equal(push_int(stream, i, 0), i);
	assert_int_equal(ac_stream_end(stream), 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	assert_int_equal(next_code(stream), 0);
	assert_int_equal(seen->runs, n);
	ac_stream_close(stream);
}

static void test_feed_many_pass_a_slow_one(void **state)
{
	int n = (int)seats_scaled(100000);
	struct ac_stream *stream = open_fed(nap_or_die, 0);
	struct ac_outcome outcome;

	(void)state;
	/* It sleeps on while all others pass: its worker is killed for it in the end. */
	assert_int_equal(push_int(stream, HANG_SECONDS * 1000, 0), 0);
	for (int i = 1; i <= n; i += 100) {
		for (int j = 0; j < 100; j++)
			push_int(stream, 0, 0);
		for (int j = 0; j < 100; j++)
			assert_true(take(stream, NULL, 0).index > 0);
	}
	assert_int_equal(look(stream), -ETIMEDOUT);
	assert_int_equal(ac_pool_terminate(pool), 0);
	outcome = take(stream, NULL, 0);
	assert_int_equal(outcome.index, 0);
	assert_int_equal(outcome.status, AC_ECANCELED);
	ac_stream_close(stream);
}

static void test_feed_goes_on_while_nobody_takes(void **state)
{
	int how = -SIGKILL;
	struct ac_stream *stream;

	(void)state;
	open_other(1, 0);
	stream = open_fed(nap_or_die, 0);
	/* More than the table of tasks holds, and deaths in between: only if the backlog
	 * is refilled and the dead are replaced do all run. */
	for (int i = 0; i < 6000; i++)
		push_int(stream, i % 2500 ? 0 : how, 0);
	EVENTUALLY(seen->runs == 6000);
	ac_stream_close(stream);
}

/* ---- waiting ---- */

static void test_feed_end_wakes_who_waits(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);
	struct helper_thread takers[2] = { 0 };

	(void)state;
	for (int i = 0; i < 2; i++)
		start(&takers[i], take_all, stream);
	EVENTUALLY(takers[0].waits && takers[1].waits);
	nap(50 * MS); /* asleep by now, most likely; right either way */
	assert_int_equal(ac_stream_end(stream), 0);
	for (int i = 0; i < 2; i++) {
		join(&takers[i]);
		assert_int_equal(takers[i].code, 0);
	}
	ac_stream_close(stream);
}

static void test_feed_end_waits_for_what_is_under_way(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	push_int(stream, 0, 0);
	start(&taker, take_all, stream);
	assert_int_equal(ac_stream_end(stream), 0);
	EVENTUALLY(seen->runs == 1 && taker.waits);
	seen->go = true;
	join(&taker);
	assert_int_equal(taker.code, 0);
	assert_int_equal(taker.count, 1);
	ac_stream_close(stream);
}

static void test_feed_push_wakes_who_waits(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	start(&taker, take_all, stream);
	for (int i = 1; i <= 20; i++) {
		nap((i % 4) * MS);
		push_int(stream, 0, 0);
		EVENTUALLY(seen->runs == (unsigned)i);
	}
	assert_int_equal(ac_stream_end(stream), 0);
	join(&taker);
	assert_int_equal(taker.count, 20);
	ac_stream_close(stream);
}

static void test_feed_keeps_its_time_limit(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	struct ac_task *task = NULL;
	int64_t before = now();

	(void)state;
	assert_int_equal(ac_stream_next(stream, &task, 30 * MS), -ETIMEDOUT);
	push_int(stream, 0, 0);
	assert_int_equal(ac_stream_next(stream, &task, 30 * MS), -ETIMEDOUT);
	assert_true(now() - before >= 60 * MS);
	assert_int_equal(look(stream), -ETIMEDOUT);
	seen->go = true;
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

static void on_signal(int signal)
{
	(void)signal;
}

static void *kick(void *arg)
{
	struct helper_thread *me = arg;

	while (!me->waits) {
		nap(20 * MS);
		pthread_kill(me->thread, SIGUSR1);
	}
	return NULL;
}

static void test_feed_signals_interrupt_when_asked(void **state)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct helper_thread me = { .thread = pthread_self() };
	struct ac_stream *stream;
	struct ac_task *task;
	pthread_t kicker;

	(void)state;
	open_other(2, AC_POOL_INTERRUPTIBLE);
	stream = open_fed(count, 0);
	sigaction(SIGUSR1, &action, NULL);
	assert_int_equal(pthread_create(&kicker, NULL, kick, &me), 0);
	assert_int_equal(ac_stream_next(stream, &task, 20 * SECOND), -EINTR);
	me.waits = true; /* enough */
	assert_int_equal(pthread_join(kicker, NULL), 0);
	push_int(stream, 0, 0);
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

/* ---- ends of the pool ---- */

static void test_feed_shut_wakes_who_waits_in_vain(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	push_int(stream, 0, 0);
	start(&taker, take_all, stream);
	EVENTUALLY(seen->runs == 1 && taker.waits);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0, NULL, NULL), AC_ECLOSED);
	seen->go = true;
	join(&taker);
	assert_int_equal(taker.count, 1);
	assert_int_equal(taker.code, AC_ECLOSED);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(next_code(stream), 0);
	ac_stream_close(stream);
	/* With nothing at all under way. */
	open_other(1, 0);
	stream = open_fed(count, 0);
	taker.waits = false;
	start(&taker, take_all, stream);
	EVENTUALLY(taker.waits);
	nap(20 * MS);
	assert_int_equal(ac_pool_shut(pool), 0);
	join(&taker);
	assert_int_equal(taker.code, AC_ECLOSED);
	ac_stream_close(stream);
}

static void test_feed_terminate_ends_all(void **state)
{
	struct ac_stream *stream = open_fed(nap_or_die, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	for (int i = 0; i < 5000; i++)
		push_int(stream, HANG_SECONDS * 1000, 0);
	start(&taker, take_all, stream);
	EVENTUALLY(seen->runs == 2 && taker.waits);
	assert_int_equal(ac_pool_terminate(pool), 0);
	join(&taker);
	assert_int_equal(taker.count, 5000);
	assert_int_equal(taker.code, AC_ECLOSED);
	ac_stream_close(stream);
}

static int refuse(void *arg)
{
	(void)arg;
	nap(50 * MS);
	return 1;
}

static void test_feed_pool_that_does_not_start(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .init = refuse };
	struct ac_stream *stream;

	(void)state;
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	stream = open_fed(count, 0);
	assert_int_equal(next_code(stream), AC_ESTART);
	assert_int_equal(ac_stream_push(stream, NULL, 0, NULL, NULL), AC_ESTART);
	ac_stream_close(stream);
}

static void test_feed_close_with_work_under_way(void **state)
{
	struct ac_stream *stream = open_fed(nap_or_die, 0);

	(void)state;
	push_int(stream, 0, 0);
	push_int(stream, 0, 0);
	EVENTUALLY(seen->runs == 2);
	/* Ended and not taken, running, in the table, and in the owner's memory. */
	for (int i = 0; i < 5000; i++)
		push_int(stream, 100, 0);
	EVENTUALLY(seen->runs == 4);
	ac_stream_close(stream);
	ac_stream_close(NULL);
	assert_works(pool);
	assert_true(seen->runs < 10);
}

static void *close_now(void *arg)
{
	ac_stream_close(arg);
	return NULL;
}

static void test_feed_close_beside_another_stream(void **state)
{
	struct ac_stream *left = open_fed(count, 0), *right = open_fed(count, 0);
	int n = (int)seats_scaled(20000);
	pthread_t closer;

	(void)state;
	for (int i = 0; i < n; i++) {
		push_int(left, 0, 0);
		push_int(right, 0, 0);
	}
	assert_int_equal(pthread_create(&closer, NULL, close_now, left), 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(take(right, NULL, 0).status, 0);
	assert_int_equal(pthread_join(closer, NULL), 0);
	ac_stream_close(right);
}

/* ---- deaths ---- */

static void test_feed_death_costs_one_call(void **state)
{
	struct ac_stream *stream = open_fed(nap_or_die, 0);
	unsigned died = 0;

	(void)state;
	for (int i = 0; i < 60; i++)
		push_int(stream, i % 20 == 7 ? -SIGKILL : 0, 0);
	for (int i = 0; i < 60; i++) {
		struct ac_outcome outcome = take(stream, NULL, 0);

		assert_int_equal(outcome.status, outcome.index % 20 == 7 ? AC_EDIED : 0);
		assert_int_equal(outcome.signal, outcome.status ? SIGKILL : 0);
		died += outcome.status == AC_EDIED;
	}
	assert_int_equal(died, 3);
	ac_stream_close(stream);
}

static int die_once(struct ac_call *call)
{
	(void)call;
	if (atomic_fetch_add(&seen->runs, 1) == 0)
		die(SIGKILL);
	return 0;
}

static void test_feed_retries(void **state)
{
	struct ac_stream *stream = open_fed(die_once, 1);

	(void)state;
	push_int(stream, 0, 0);
	assert_int_equal(take(stream, NULL, 0).status, 0);
	assert_int_equal(seen->runs, 2);
	ac_stream_close(stream);
}

/* ---- event loops ---- */

static void test_feed_in_an_event_loop(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);
	int fd = ac_pool_fd(pool), taken = 0, r;

	(void)state;
	assert_true(fd >= 0);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 10; i++)
			push_int(stream, 0, 0);
		while (taken < 10 * (round + 1)) {
			assert_int_equal(ac__sys_poll(fd, ac__sys_deadline(20 * SECOND)), 0);
			assert_true(ac_pool_dispatch(pool) >= 0);
			while ((r = look(stream)) == 1)
				taken++;
			assert_int_equal(r, -ETIMEDOUT);
		}
	}
	ac_stream_close(stream);
}

/* ---- refusals ---- */

static int no_source(void *arg, const void **data, size_t *len)
{
	(void)arg, (void)data, (void)len;
	return 0;
}

static void test_feed_refuses_what_can_not_be(void **state)
{
	struct ac_stream_opts opts = { .size = sizeof opts };
	struct ac_stream *stream = NULL;
	struct ac_task *task;
	uint64_t index;
	uint32_t kept;

	(void)state;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), -EINVAL);
	assert_int_equal(ac_stream_open(&stream, pool, count, NULL), -EINVAL);
	opts.flags = AC_STREAM_UNORDERED;
	opts.ahead = 3;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), -EINVAL);
	opts.ahead = 0;
	opts.ahead_bytes = 3;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), -EINVAL);
	assert_null(stream);
	opts.ahead_bytes = 0;
	opts.source = no_source;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0, NULL, NULL), -EINVAL);
	assert_int_equal(ac_stream_end(stream), -EINVAL);
	assert_int_equal(ac_stream_wake(stream), -EINVAL);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), -EINVAL);
	ac_stream_close(stream);
	stream = open_fed(count, 0);
	assert_int_equal(ac_stream_push(NULL, NULL, 0, NULL, NULL), -EINVAL);
	assert_int_equal(ac_stream_push(stream, NULL, 1, NULL, NULL), -EINVAL);
	assert_int_equal(ac_stream_end(NULL), -EINVAL);
	assert_int_equal(ac_stream_wake(NULL), -EINVAL);
	assert_int_equal(ac_stream_next(stream, NULL, 0), -EINVAL);
	assert_int_equal(ac_stream_next(NULL, &task, 0), -EINVAL);
	assert_int_equal(ac_stream_take_back(stream, NULL, NULL, NULL), -EINVAL);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, NULL), -EINVAL);
	assert_int_equal(ac_stream_take_back(NULL, &index, NULL, &kept), -EINVAL);
	ac_stream_close(stream);
}

static int use_in_child(void *arg)
{
	struct ac_stream *stream = arg;
	struct ac_task *task;
	uint64_t index;
	uint32_t kept;

	if (ac_stream_push(stream, NULL, 0, NULL, NULL) != AC_EFORK ||
	    ac_stream_next(stream, &task, -1) != AC_EFORK ||
	    ac_stream_take_back(stream, &index, NULL, &kept) != AC_EFORK ||
	    ac_stream_wake(stream) != AC_EFORK || ac_stream_end(stream) != AC_EFORK)
		return 1;
	ac_stream_close(stream);
	return 0;
}

static void test_feed_in_a_forked_child(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);

	(void)state;
	push_int(stream, 0, 0);
	assert_int_equal(seats_in_child(use_in_child, stream, 20), 0);
	seen->go = true;
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FEED_TEST(test_feed_gives_what_was_pushed),
		FEED_TEST(test_feed_carries_bytes_of_all_sizes),
		FEED_TEST(test_feed_from_one_thread_to_another),
		FEED_TEST(test_feed_several_push_and_several_take),
		FEED_TEST(test_feed_backlog_before_the_first_next),
		FEED_TEST(test_feed_many_pass_a_slow_one),
		FEED_TEST(test_feed_goes_on_while_nobody_takes),
		FEED_TEST(test_feed_end_wakes_who_waits),
		FEED_TEST(test_feed_end_waits_for_what_is_under_way),
		FEED_TEST(test_feed_push_wakes_who_waits),
		FEED_TEST(test_feed_keeps_its_time_limit),
		FEED_TEST(test_feed_signals_interrupt_when_asked),
		FEED_TEST(test_feed_shut_wakes_who_waits_in_vain),
		FEED_TEST(test_feed_terminate_ends_all),
		FEED_TEST(test_feed_pool_that_does_not_start),
		FEED_TEST(test_feed_close_with_work_under_way),
		FEED_TEST(test_feed_close_beside_another_stream),
		FEED_TEST(test_feed_death_costs_one_call),
		FEED_TEST(test_feed_retries),
		FEED_TEST(test_feed_in_an_event_loop),
		FEED_TEST(test_feed_refuses_what_can_not_be),
		FEED_TEST(test_feed_in_a_forked_child),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

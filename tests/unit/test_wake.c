/* SPDX-License-Identifier: MIT */
/* Waking a thread that waits for a fed stream's results, by the words of the public header. */
#include "feed_help.h"

static int count(struct ac_call *call)
{
	(void)call;
	atomic_fetch_add(&seen->runs, 1);
	return 0;
}

static int wait_for_go(struct ac_call *call)
{
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return ac_call_return(call, NULL, 0);
}

static int next_code(struct ac_stream *stream, int64_t timeout_ns)
{
	struct ac_task *task = NULL;
	int r = ac_stream_next(stream, &task, timeout_ns);

	ac_task_free(task);
	return r;
}

/* ---- threads of the owner ---- */

struct taker {
	pthread_t thread;
	struct ac_stream *stream;
	_Atomic bool waits;
	_Atomic unsigned *returned; /* how many takers have */
	int code;
};

static void *take_once(void *arg)
{
	struct taker *me = arg;

	me->waits = true;
	me->code = next_code(me->stream, -1);
	atomic_fetch_add(me->returned, 1);
	return NULL;
}

/* They are asleep by then, most likely; right either way. */
static void start_takers(struct taker *takers, unsigned n, struct ac_stream *stream,
			 _Atomic unsigned *returned)
{
	for (unsigned i = 0; i < n; i++) {
		takers[i].stream = stream;
		takers[i].returned = returned;
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_once, &takers[i]), 0);
		EVENTUALLY(takers[i].waits);
	}
	nap(30 * MS);
}

/* ---- one thread ---- */

static void test_wake_of_one_that_waits(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	_Atomic unsigned returned = 0;
	struct taker taker = { 0 };

	(void)state;
	/* While there is nothing, and while a call runs. */
	for (unsigned i = 1; i <= 2; i++) {
		start_takers(&taker, 1, stream, &returned);
		assert_int_equal(returned, i - 1);
		assert_int_equal(ac_stream_wake(stream), 0);
		assert_int_equal(pthread_join(taker.thread, NULL), 0);
		assert_int_equal(taker.code, -EAGAIN);
		if (i == 1)
			push_int(stream, 0, 0);
	}
	assert_int_equal(next_code(stream, 20 * MS), -ETIMEDOUT);
	seen->go = true;
	assert_int_equal(next_code(stream, -1), 1);
	ac_stream_close(stream);
}

static void test_wake_of_the_next_one_if_none_waits(void **state)
{
	static const int64_t limits[] = { 0, 20 * MS, -1 };
	struct ac_stream *stream = open_fed(count, 0);

	(void)state;
	for (unsigned i = 0; i < COUNT(limits); i++) {
		assert_int_equal(ac_stream_wake(stream), 0);
		assert_int_equal(next_code(stream, limits[i]), -EAGAIN);
		assert_int_equal(next_code(stream, 0), -ETIMEDOUT);
	}
	ac_stream_close(stream);
}

static void test_wake_many_before_a_look_are_one(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(ac_stream_wake(stream), 0);
	assert_int_equal(next_code(stream, -1), -EAGAIN);
	assert_int_equal(next_code(stream, 0), -ETIMEDOUT);
	ac_stream_close(stream);
}

static void test_wake_after_results(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);

	(void)state;
	assert_int_equal(ac_stream_wake(stream), 0);
	for (int i = 0; i < 10; i++)
		push_int(stream, i, 0);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_int_equal(ac_stream_wake(stream), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(next_code(stream, i % 2 ? 0 : -1), 1);
	assert_int_equal(next_code(stream, -1), -EAGAIN);
	assert_int_equal(next_code(stream, 0), -ETIMEDOUT);
	ac_stream_close(stream);
}

/* Nobody waits there. */
static void test_wake_after_the_end(void **state)
{
	struct ac_stream *stream = open_fed(count, 0), *other = open_fed(count, 0);

	(void)state;
	assert_int_equal(ac_stream_wake(stream), 0);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(ac_stream_wake(stream), 0);
	assert_int_equal(next_code(stream, -1), 0);
	assert_int_equal(next_code(stream, 0), 0);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_stream_wake(other), 0);
	assert_int_equal(next_code(other, -1), AC_ECLOSED);
	ac_stream_close(stream);
	ac_stream_close(other);
}

static void test_wake_of_its_own_stream_alone(void **state)
{
	struct ac_stream *stream = open_fed(count, 0), *other = open_fed(count, 0);

	(void)state;
	assert_int_equal(ac_stream_wake(other), 0);
	assert_int_equal(next_code(stream, 20 * MS), -ETIMEDOUT);
	assert_int_equal(next_code(other, 20 * MS), -EAGAIN);
	ac_stream_close(stream);
	ac_stream_close(other);
}

static void test_wake_in_an_event_loop(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);

	(void)state;
	assert_true(ac_pool_fd(pool) >= 0);
	assert_int_equal(ac_stream_wake(stream), 0);
	assert_int_equal(next_code(stream, 0), -EAGAIN);
	push_int(stream, 0, 0);
	assert_int_equal(next_code(stream, -1), 1);
	assert_int_equal(next_code(stream, 0), -ETIMEDOUT);
	ac_stream_close(stream);
}

static int no_source(void *arg, const void **data, size_t *len)
{
	(void)arg, (void)data, (void)len;
	return 0;
}

static void test_wake_of_a_fed_stream_only(void **state)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .source = no_source };
	struct ac_stream *stream;

	(void)state;
	assert_int_equal(ac_stream_wake(NULL), -EINVAL);
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), 0);
	assert_int_equal(ac_stream_wake(stream), -EINVAL);
	assert_int_equal(next_code(stream, 0), 0);
	ac_stream_close(stream);
}

/* ---- several threads ---- */

static void test_wake_of_exactly_one(void **state)
{
	enum { N = 4 };
	struct ac_stream *stream = open_fed(count, 0);
	struct taker takers[N] = { 0 };
	_Atomic unsigned returned = 0;

	(void)state;
	start_takers(takers, N, stream, &returned);
	for (unsigned i = 1; i < N; i++) {
		assert_int_equal(ac_stream_wake(stream), 0);
		EVENTUALLY(returned == i);
		nap(20 * MS);
		assert_int_equal(returned, i);
	}
	push_int(stream, 0, 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(pthread_join(takers[i].thread, NULL), 0);
	for (unsigned i = 0, results = 0; i < N; i++) {
		results += takers[i].code == 1;
		assert_int_equal(takers[i].code, takers[i].code == 1 ? 1 : -EAGAIN);
		assert_true(i < N - 1 || results == 1);
	}
	ac_stream_close(stream);
}

struct order {
	struct ac_stream *stream;
	_Atomic unsigned given, taken;
	unsigned count;
};

/* Each order is given once the last one was taken: one that is not heard of is the last. */
static void *give_orders(void *arg)
{
	struct order *order = arg;

	for (unsigned i = 1; i <= order->count; i++) {
		order->given = i;
		ac_stream_wake(order->stream);
		while (order->taken != i)
			if (i % 2)
				sched_yield();
			else
				nap(MS / 100);
	}
	return NULL;
}

static void test_wake_is_never_lost(void **state)
{
	struct order order = { .stream = open_fed(count, 0), .count = seats_scaled(5000) };
	unsigned results = 0;
	pthread_t giver;
	int r;

	(void)state;
	assert_int_equal(pthread_create(&giver, NULL, give_orders, &order), 0);
	while (order.taken < order.count) {
		r = next_code(order.stream, -1);
		if (r == -EAGAIN) {
			assert_int_equal(order.given, order.taken + 1);
			/* Results come between, so that the thread is at each step of its wait. */
			if (order.given % 3 == 0)
				push_int(order.stream, 0, 0);
			order.taken = order.given;
		} else {
			assert_int_equal(r, 1);
			results++;
		}
	}
	assert_int_equal(pthread_join(giver, NULL), 0);
	while (next_code(order.stream, 50 * MS) == 1)
		results++;
	assert_int_equal(results, order.count / 3);
	ac_stream_close(order.stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FEED_TEST(test_wake_of_one_that_waits),
		FEED_TEST(test_wake_of_the_next_one_if_none_waits),
		FEED_TEST(test_wake_many_before_a_look_are_one),
		FEED_TEST(test_wake_after_results),
		FEED_TEST(test_wake_after_the_end),
		FEED_TEST(test_wake_of_its_own_stream_alone),
		FEED_TEST(test_wake_in_an_event_loop),
		FEED_TEST(test_wake_of_a_fed_stream_only),
		FEED_TEST(test_wake_of_exactly_one),
		FEED_TEST(test_wake_is_never_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * The library's one thread in the owner: it has ended when its pool is closed, so that the
 * library can be unloaded; and what would wait for itself, a close or a join inside a
 * callback, is refused.
 */
#include "alone_help.h"

#include <dlfcn.h>
#include <poll.h>

#ifndef AC_TEST_LIBRARY
#error "the shared library's path"
#endif

/* ---- the thread ends before close returns ---- */

static void count_callback(void *arg, struct ac_task *task)
{
	(void)task;
	++*(_Atomic unsigned *)arg;
}

static int submit_noted(struct ac_pool *pool, void (*done)(void *, struct ac_task *), void *arg)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = done, .done_arg = arg };
	int in = 1;

	return ac_pool_submit(pool, NULL, echo, &in, sizeof in, &opts);
}

/*
 * The thread's end takes a while: a callback has left it a destructor that sleeps. A thread that
 * was joined has run it; that the kernel counts it no more comes a moment later.
 */
static pthread_key_t key;
static _Atomic unsigned destroyed;

static void destroy_slowly(void *value)
{
	(void)value;
	nap(5 * MS);
	destroyed++;
}

static void leave_destructor(void *arg, struct ac_task *task)
{
	pthread_setspecific(key, "");
	count_callback(arg, task);
}

static int close_often(void *arg)
{
	bool dismisses = *(bool *)arg;
	_Atomic unsigned called = 0;
	unsigned before = count_threads();

	SEAT_CHECK(pthread_key_create(&key, destroy_slowly) == 0);
	for (unsigned i = 0; i < seats_scaled(100); i++) {
		struct ac_pool *pool = open_alone(1);

		SEAT_CHECK(pool && submit_noted(pool, leave_destructor, &called) == 0);
		if (dismisses) {
			SEAT_CHECK(COMES_TRUE(called > i, 10));
			SEAT_CHECK(ac_pool_fd(pool) >= 0);
		}
		SEAT_CHECK(ac_pool_close(pool) == 0);
		SEAT_CHECK(called == i + 1 && destroyed == i + 1);
		/* A sanitizer may have a thread of its own, from the first one on. */
		SEAT_CHECK(COMES_TRUE(count_threads() == before, 1) || i == 0);
		before = count_threads();
	}
	return 0;
}

static void test_threads_none_is_left_by_close(void **state)
{
	bool dismisses = false;

	(void)state;
	ALONE_FOR(close_often, &dismisses, 40);
}

static void test_threads_none_is_left_by_an_event_loop(void **state)
{
	bool dismisses = true;

	(void)state;
	ALONE_FOR(close_often, &dismisses, 40);
}

static struct ac_pool *begun; /* in whose callback an event loop begins */

static void begin_loop(void *arg, struct ac_task *task)
{
	ac_pool_fd(begun);
	leave_destructor(arg, task);
}

static int begin_in_callback(void *arg)
{
	_Atomic unsigned called = 0;
	unsigned before = count_threads();

	(void)arg;
	SEAT_CHECK(pthread_key_create(&key, destroy_slowly) == 0);
	for (unsigned i = 0; i < seats_scaled(100); i++) {
		begun = open_alone(1);
		SEAT_CHECK(begun && submit_noted(begun, begin_loop, &called) == 0);
		SEAT_CHECK(COMES_TRUE(called > i, 10));
		SEAT_CHECK(ac_pool_close(begun) == 0);
		SEAT_CHECK(called == i + 1 && destroyed == i + 1);
		/* A sanitizer may have a thread of its own, from the first one on. */
		SEAT_CHECK(COMES_TRUE(count_threads() == before, 1) || i == 0);
		before = count_threads();
	}
	return 0;
}

static void test_threads_none_is_left_by_a_loop_begun_in_a_callback(void **state)
{
	(void)state;
	ALONE_FOR(begin_in_callback, NULL, 40);
}

/* ---- a library that is unloaded ---- */

static int return_at_once(struct ac_call *call)
{
	(void)call;
	return 0;
}

static void ignore_callback(void *arg, struct ac_task *task)
{
	(void)arg, (void)task;
}

static int unload_often(void *arg)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = ignore_callback };
	int64_t enough = now() + 20 * SECOND; /* an emulator takes far longer for each round */

	(void)arg;
	for (unsigned i = 0; i < seats_scaled(500) && now() < enough; i++) {
		void *library = dlopen(AC_TEST_LIBRARY, RTLD_NOW | RTLD_LOCAL);
		__typeof__(&ac_pool_open) open_it;
		__typeof__(&ac_pool_submit) submit_to_it;
		__typeof__(&ac_pool_close) close_it;
		struct ac_pool *pool;

		SEAT_CHECK(library);
		open_it = (__typeof__(open_it))dlsym(library, "ac_pool_open");
		submit_to_it = (__typeof__(submit_to_it))dlsym(library, "ac_pool_submit");
		close_it = (__typeof__(close_it))dlsym(library, "ac_pool_close");
		SEAT_CHECK(open_it && submit_to_it && close_it);
		SEAT_CHECK(open_it(&pool, NULL) == 0);
		SEAT_CHECK(submit_to_it(pool, NULL, return_at_once, NULL, 0, &opts) == 0);
		SEAT_CHECK(close_it(pool) == 0);
		SEAT_CHECK(dlclose(library) == 0);
	}
	return 0;
}

static void test_threads_library_may_be_unloaded_after_close(void **state)
{
	(void)state;
	SKIP_UNDER_TSAN();
	ALONE_FOR(unload_often, NULL, 40);
}

/* ---- what would wait for itself ---- */

static struct {
	struct ac_pool *pool;
	_Atomic unsigned called;
	_Atomic int closed, joined, joined_at_once;
} in_callback;

static void close_and_join(void)
{
	in_callback.joined = ac_pool_join(in_callback.pool, -1);
	in_callback.joined_at_once = ac_pool_join(in_callback.pool, 0);
	in_callback.closed = ac_pool_close(in_callback.pool);
	in_callback.called++;
}

static void close_in_callback(void *arg, struct ac_task *task)
{
	(void)arg, (void)task;
	close_and_join();
}

static int start_callbacks(int workers)
{
	memset(&in_callback, 0, sizeof in_callback);
	in_callback.pool = open_alone(workers);
	SEAT_CHECK(in_callback.pool);
	return 0;
}

static int check_refused(unsigned called)
{
	SEAT_CHECK(in_callback.called == called);
	SEAT_CHECK(in_callback.closed == -EDEADLK);
	SEAT_CHECK(in_callback.joined == -EDEADLK);
	SEAT_CHECK(in_callback.joined_at_once == -EDEADLK);
	return 0;
}

/* And the pool is as it was. */
static int check_goes_on(void)
{
	SEAT_CHECK(works(in_callback.pool));
	SEAT_CHECK(ac_pool_join(in_callback.pool, -1) == 0);
	SEAT_CHECK(ac_pool_close(in_callback.pool) == 0);
	return 0;
}

static int refuse_in_the_thread(void *arg)
{
	(void)arg;
	SEAT_CHECK(start_callbacks(2) == 0);
	SEAT_CHECK(submit_noted(in_callback.pool, close_in_callback, NULL) == 0);
	SEAT_CHECK(COMES_TRUE(in_callback.called, 10));
	SEAT_CHECK(check_refused(1) == 0);
	return check_goes_on();
}

static int refuse_in_dispatch(void *arg)
{
	struct pollfd p = { .events = POLLIN };
	int64_t end = now() + 10 * SECOND;

	(void)arg;
	SEAT_CHECK(start_callbacks(2) == 0);
	p.fd = ac_pool_fd(in_callback.pool);
	SEAT_CHECK(p.fd >= 0 && submit_noted(in_callback.pool, close_in_callback, NULL) == 0);
	while (!in_callback.called && now() < end)
		if (poll(&p, 1, 1000) > 0)
			SEAT_CHECK(ac_pool_dispatch(in_callback.pool) >= 0);
	SEAT_CHECK(check_refused(1) == 0);
	return check_goes_on();
}

static int refuse_in_join(void *arg)
{
	(void)arg;
	SEAT_CHECK(start_callbacks(2) == 0 && ac_pool_fd(in_callback.pool) >= 0);
	SEAT_CHECK(submit_noted(in_callback.pool, close_in_callback, NULL) == 0);
	SEAT_CHECK(ac_pool_join(in_callback.pool, -1) == 0);
	SEAT_CHECK(check_refused(1) == 0);
	return check_goes_on();
}

static int refuse_in_close(void *arg)
{
	(void)arg;
	SEAT_CHECK(start_callbacks(2) == 0 && ac_pool_fd(in_callback.pool) >= 0);
	SEAT_CHECK(submit_noted(in_callback.pool, close_in_callback, NULL) == 0);
	SEAT_CHECK(ac_pool_close(in_callback.pool) == 0);
	return check_refused(1);
}

static void report_progress(void *arg, size_t ended, size_t count)
{
	(void)arg, (void)ended, (void)count;
	close_and_join();
}

static int do_nothing(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return 0;
}

static int refuse_in_progress(void *arg)
{
	struct ac_map_opts opts = { .size = sizeof opts, .progress = report_progress };
	char items[100] = { 0 };

	(void)arg;
	SEAT_CHECK(start_callbacks(2) == 0);
	SEAT_CHECK(ac_pool_map(in_callback.pool, do_nothing, &opts, items, 1, NULL, 0, 100) == 0);
	SEAT_CHECK(check_refused(in_callback.called) == 0 && in_callback.called > 0);
	return check_goes_on();
}

/* Only a callback's own thread and own pool: others may. */
static void close_other(void *arg, struct ac_task *task)
{
	struct ac_pool *other = arg;

	(void)task;
	in_callback.joined = ac_pool_join(other, -1);
	in_callback.closed = ac_pool_close(other);
	nap(50 * MS);
	in_callback.called++;
}

static int close_other_in_callback(void *arg)
{
	struct ac_pool *other = open_alone(1);

	(void)arg;
	SEAT_CHECK(other && works(other) && start_callbacks(1) == 0);
	in_callback.joined = in_callback.closed = 1;
	SEAT_CHECK(submit_noted(in_callback.pool, close_other, other) == 0);
	SEAT_CHECK(ac_pool_join(in_callback.pool, -1) == 0);
	SEAT_CHECK(in_callback.called == 1);
	SEAT_CHECK(in_callback.joined == 0 && in_callback.closed == 0);
	return check_goes_on();
}

static void test_threads_callback_of_the_thread_can_not_close_or_join(void **state)
{
	(void)state;
	ALONE(refuse_in_the_thread, NULL);
}

static void test_threads_callback_in_dispatch_can_not_close_or_join(void **state)
{
	(void)state;
	ALONE(refuse_in_dispatch, NULL);
}

static void test_threads_callback_in_join_can_not_close_or_join(void **state)
{
	(void)state;
	ALONE(refuse_in_join, NULL);
}

static void test_threads_callback_in_close_can_not_close_or_join(void **state)
{
	(void)state;
	ALONE(refuse_in_close, NULL);
}

static void test_threads_progress_can_not_close_or_join(void **state)
{
	(void)state;
	ALONE(refuse_in_progress, NULL);
}

static void test_threads_callback_may_close_another_pool(void **state)
{
	(void)state;
	ALONE(close_other_in_callback, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_threads_none_is_left_by_close),
		HELP_TEST(test_threads_none_is_left_by_an_event_loop),
		HELP_TEST(test_threads_none_is_left_by_a_loop_begun_in_a_callback),
		HELP_TEST(test_threads_library_may_be_unloaded_after_close),
		HELP_TEST(test_threads_callback_of_the_thread_can_not_close_or_join),
		HELP_TEST(test_threads_callback_in_dispatch_can_not_close_or_join),
		HELP_TEST(test_threads_callback_in_join_can_not_close_or_join),
		HELP_TEST(test_threads_callback_in_close_can_not_close_or_join),
		HELP_TEST(test_threads_progress_can_not_close_or_join),
		HELP_TEST(test_threads_callback_may_close_another_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

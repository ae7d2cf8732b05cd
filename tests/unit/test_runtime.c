/* SPDX-License-Identifier: MIT */
/*
 * Workers of a language with a runtime of its own: in which process and thread its functions are called,
 * how often, and what a worker finds when it begins.
 */
#include "runtime_help.h"

/* ---- the hooks around the fork ---- */

static void test_runtime_hooks_surround_the_only_fork(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(2);
	assert_int_equal(seen->before, 1);
	assert_int_equal(seen->after, 1);
	assert_int_equal(seen->before_thread, this_thread());
	assert_int_equal(seen->after_thread, this_thread());
	EVENTUALLY(seen->count == 2 && has_run(FIRST_TAG) && has_run(FIRST_TAG + 1));
	/* The template is the parent of both. */
	assert_true(seen->result > 0);
	assert_int_equal(start_of(FIRST_TAG)->parent, seen->result);
	assert_int_equal(start_of(FIRST_TAG + 1)->parent, seen->result);
	for (unsigned n = 0; n < 4; n++) {
		unsigned before = seen->count;

		assert_true(kill_and_wait(start_of(tag_of(n % 2))->pid));
		EVENTUALLY(ac_pool_dispatch(pool) >= 0 && seen->count == before + 1 &&
			   has_run(FIRST_TAG + before));
		assert_works(pool);
	}
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(seen->before, 1);
	assert_int_equal(seen->after, 1);
	assert_int_equal(seen->strangers, 0);
}

static void test_runtime_after_hook_is_told_of_a_failed_fork(void **state)
{
	struct ac_pool *pool = NULL;

	(void)state;
	ac__fault_arm(AC__SYS_FORK, 1, 1, EAGAIN);
	assert_int_equal(try_open_runtime(&pool, 2), -EAGAIN);
	assert_null(pool);
	assert_int_equal(seen->before, 1);
	assert_int_equal(seen->after, 1);
	assert_int_equal(seen->result, -EAGAIN);
	assert_int_equal(seen->count, 0);
	assert_int_equal(seen->strangers, 0);
}

static void *open_in_thread(void *thread)
{
	*(pid_t *)thread = this_thread();
	return open_runtime_alone(1);
}

static void test_runtime_hooks_run_in_the_thread_that_opens(void **state)
{
	struct ac_pool *pool;
	pid_t opener = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, open_in_thread, &opener), 0);
	pthread_join(thread, (void **)&pool);
	assert_non_null(pool);
	assert_int_not_equal(opener, this_thread());
	assert_int_equal(seen->before_thread, opener);
	assert_int_equal(seen->after_thread, opener);
	assert_works(pool);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(seen->strangers, 0);
}

static void test_runtime_only_run_is_needed(void **state)
{
	struct ac_runtime bare = { .size = sizeof bare, .run = run };
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .runtime = &bare };
	struct ac_pool *pool = NULL;
	pid_t pid;

	(void)state;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	/* It is a copy that the pool uses. */
	memset(&bare, 0, sizeof bare);
	assert_works(pool);
	/* All tags are 0: that is the process which is there. */
	for (unsigned n = 0; n < 3; n++) {
		EVENTUALLY((pid = ac_pool_worker_pid(pool, 1, 0)) > 0 && is_alive(pid));
		assert_int_equal(ac_pool_worker_kill(pool, 1, 0, SIGTERM), 0);
		EVENTUALLY(!is_alive(pid));
		assert_works(pool);
	}
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(seen->before + seen->after + seen->count, 0);
}

/* ---- starting ---- */

static void test_runtime_tags_arrive_in_run(void **state)
{
	struct ac_pool *pool;
	unsigned starts[3] = { 0 };

	(void)state;
	pool = open_runtime(3);
	EVENTUALLY(seen->count == 3 && has_run(FIRST_TAG) && has_run(FIRST_TAG + 1) &&
		   has_run(FIRST_TAG + 2));
	assert_true(kill_and_wait(start_of(tag_of(1))->pid));
	EVENTUALLY(ac_pool_dispatch(pool) >= 0 && seen->count == 4 && has_run(FIRST_TAG + 3));
	for (unsigned n = 0; n < 4; n++) {
		const struct start *start = start_of(FIRST_TAG + n);

		assert_in_range(start->worker, 0, 2);
		assert_int_equal(start->number, start->worker);
		starts[start->worker]++;
	}
	assert_int_equal(starts[0], 1);
	assert_int_equal(starts[1], 2);
	assert_int_equal(starts[2], 1);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(seen->strangers, 0);
}

static void test_runtime_start_that_fails_in_open_fails_it(void **state)
{
	struct ac_pool *pool = NULL;

	(void)state;
	seen->fails = 1;
	seen->error = -EPERM;
	assert_int_equal(try_open_runtime(&pool, 3), -EPERM);
	assert_null(pool);
	assert_int_equal(seen->before, 1);
	assert_int_equal(seen->after, 1);
}

static void test_runtime_start_that_fails_later_is_tried_again(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(1);
	assert_works(pool);
	seen->error = -EAGAIN;
	seen->fails = 2;
	assert_true(kill_and_wait(start_of(FIRST_TAG)->pid));
	assert_works(pool);
	assert_int_equal(seen->refused, 2);
	assert_int_equal(seen->count, 2);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(seen->strangers, 0);
}

static void test_runtime_starts_that_always_fail_fail_the_pool(void **state)
{
	struct ac_pool *pool;
	struct ac_task *task;

	(void)state;
	pool = open_runtime(2);
	assert_works(pool);
	EVENTUALLY(has_run(FIRST_TAG) && has_run(FIRST_TAG + 1));
	seen->error = -EAGAIN;
	seen->fails = 1000000;
	for (unsigned n = 0; n < 2; n++)
		assert_true(kill_and_wait(start_of(FIRST_TAG + n)->pid));
	if (ac_pool_submit(pool, &task, echo, "", 1, NULL) == 0) {
		assert_int_equal(status_of(task), AC_ESTART);
		ac_task_free(task);
	}
	assert_int_equal(ac_pool_submit(pool, NULL, echo, "", 1, NULL), AC_ESTART);
	assert_true(seen->refused < 100);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- what a worker finds ---- */

static void on_signal(int signal)
{
	(void)signal;
}

static void test_runtime_run_begins_with_all_signals_blocked(void **state)
{
	void (*before)(int) = signal(SIGINT, on_signal);
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(1);
	EVENTUALLY(has_run(FIRST_TAG));
	assert_true(kill_and_wait(start_of(FIRST_TAG)->pid));
	EVENTUALLY(ac_pool_dispatch(pool) >= 0 && seen->count == 2 && has_run(FIRST_TAG + 1));
	for (unsigned n = 0; n < 2; n++) {
		assert_true(start_of(FIRST_TAG + n)->blocked);
		assert_ptr_equal(start_of(FIRST_TAG + n)->sigint, on_signal);
	}
	assert_int_equal(ac_pool_close(pool), 0);
	signal(SIGINT, before);
}

static int change_directory(void *arg)
{
	char before[256];
	struct ac_pool *pool = open_runtime_alone(1);

	(void)arg;
	SEAT_CHECK(pool && getcwd(before, sizeof before) && strcmp(before, "/") != 0);
	SEAT_CHECK(chdir("/") == 0);
	SEAT_CHECK(COMES_TRUE(has_run(FIRST_TAG), 10));
	SEAT_CHECK(kill_and_wait(start_of(FIRST_TAG)->pid) && works(pool));
	SEAT_CHECK(strcmp(start_of(FIRST_TAG + 1)->directory, before) == 0);
	return ac_pool_close(pool);
}

static void test_runtime_replacement_has_the_directory_of_opening(void **state)
{
	(void)state;
	ALONE(change_directory, NULL);
}

/* ---- what a worker does ---- */

static int square(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(int *)result = *(const int *)item * *(const int *)item;
	return 0;
}

static void test_runtime_runs_calls_and_maps(void **state)
{
	struct ac_pool *pool;
	int items[500], results[500];
	struct ac_task *task;

	(void)state;
	pool = open_runtime(3);
	for (int i = 0; i < 500; i++)
		items[i] = i;
	assert_int_equal(ac_pool_map(pool, square, NULL, items, sizeof *items, results,
				     sizeof *results, 500), 0);
	for (int i = 0; i < 500; i++)
		assert_int_equal(results[i], i * i);
	assert_works(pool);
	task = submit_int(pool, fail_with, 9);
	assert_int_equal(status_of(task), AC_ETASK);
	ac_task_free(task);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_run_that_returns_is_replaced(void **state)
{
	struct ac_pool *pool;
	struct ac_outcome outcome;

	(void)state;
	seen->behaviour = SERVES_ONE;
	pool = open_runtime(1);
	for (unsigned n = 0; n < 5; n++) {
		assert_works(pool);
		assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG + n, 10 * SECOND,
						     &outcome), 0);
		assert_int_equal(outcome.signal, 0);
		assert_int_equal(outcome.exit_code, 0);
		assert_int_equal(outcome.pid, start_of(FIRST_TAG + n)->pid);
	}
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_run_may_exit(void **state)
{
	struct ac_pool *pool;
	struct ac_outcome outcome;

	(void)state;
	seen->behaviour = EXITS_WITH_7;
	pool = open_runtime(1);
	assert_works(pool);
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, 10 * SECOND, &outcome), 0);
	assert_int_equal(outcome.signal, 0);
	assert_int_equal(outcome.exit_code, 7);
	assert_works(pool);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_run_that_returns_at_once_fails_the_pool(void **state)
{
	struct ac_pool *pool;
	struct ac_outcome outcome = { 0 };

	(void)state;
	seen->behaviour = RETURNS;
	pool = open_runtime(2);
	assert_int_equal(ac_pool_call(pool, echo, "", 1, NULL, NULL, &outcome), AC_ESTART);
	assert_true(seen->count < 20);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_worker_says_why_it_is_not_ready(void **state)
{
	struct ac_pool *pool;
	struct ac_outcome outcome = { 0 };

	(void)state;
	seen->behaviour = IS_NOT_READY;
	pool = open_runtime(2);
	assert_int_equal(ac_pool_call(pool, echo, "", 1, NULL, NULL, &outcome), AC_ESTART);
	assert_non_null(strstr(outcome.text, "no licence"));
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- nothing is flushed ---- */

static int64_t size_of(const char *path)
{
	FILE *file = fopen(path, "r");
	int64_t size = -1;

	if (!file)
		return -1;
	if (fseek(file, 0, SEEK_END) == 0)
		size = ftell(file);
	fclose(file);
	return size;
}

#define OWNERS "from the owner\n"

static int print_and_look(void *arg)
{
	struct ac_pool *pool;

	seen->behaviour = PRINTS;
	SEAT_CHECK(freopen(arg, "w", stdout) && setvbuf(stdout, NULL, _IOFBF, 4096) == 0);
	printf(OWNERS);
	pool = open_runtime_alone(2);
	SEAT_CHECK(pool);
	for (unsigned n = 0; n < 6; n++)
		SEAT_CHECK(works(pool));
	/* Workers fall idle, where others flush. */
	nap(50 * MS);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(size_of(arg) == 0);
	fflush(stdout);
	SEAT_CHECK(size_of(arg) == strlen(OWNERS));
	return 0;
}

static void test_runtime_flushes_nothing(void **state)
{
	char path[] = "/tmp/test_runtime-XXXXXX";
	int fd, r;

	(void)state;
	SKIP_UNDER_TSAN();
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	r = status_alone(print_and_look, path, ALONE_SECONDS);
	unlink(path);
	assert_int_equal(r, 0);
}

/* ---- options ---- */

static int some_init(void *arg)
{
	(void)arg;
	return 0;
}

static pid_t some_start(void *arg, unsigned worker, int fd)
{
	(void)arg;
	(void)worker;
	(void)fd;
	return -EPERM;
}

static void test_runtime_options_are_checked(void **state)
{
	struct ac_runtime own = runtime;
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .runtime = &own };
	struct {
		struct ac_runtime runtime;
		uint64_t later;
	} newer = { .runtime = runtime };
	struct ac_pool *pool = NULL;

	(void)state;
	opts.init = some_init;
	assert_int_equal(ac_pool_open(&pool, &opts), -EINVAL);
	opts.init = NULL;
	opts.start = some_start;
	assert_int_equal(ac_pool_open(&pool, &opts), -EINVAL);
	opts.start = NULL;
	own.run = NULL;
	assert_int_equal(ac_pool_open(&pool, &opts), -EINVAL);
	own = runtime;
	own.size = 0;
	assert_int_equal(ac_pool_open(&pool, &opts), -EINVAL);
	newer.runtime.size = sizeof newer;
	newer.later = 1;
	opts.runtime = &newer.runtime;
	assert_int_equal(ac_pool_open(&pool, &opts), -E2BIG);
	assert_null(pool);
	assert_int_equal(seen->before + seen->after + seen->count, 0);
	/* What this version does not know is not asked for. */
	newer.later = 0;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_works(pool);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- the template's threads ---- */

static uint64_t template_threads(struct ac_pool *pool)
{
	struct ac_pool_stat stat = { 0 };

	return ac_pool_stat(pool, &stat, sizeof stat) == 0 ? stat.template_threads : UINT64_MAX;
}

static void test_runtime_template_has_one_thread(void **state)
{
	struct ac_pool *pools[2];

	(void)state;
	SKIP_UNDER_TSAN();
	pools[0] = open_runtime(1);
	pools[1] = open_pool(1);
	for (unsigned i = 0; i < 2; i++) {
		EVENTUALLY(template_threads(pools[i]) == 1);
		assert_works(pools[i]);
		assert_int_equal(template_threads(pools[i]), 1);
		assert_int_equal(ac_pool_close(pools[i]), 0);
	}
}

static void *sleep_for_ever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void start_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, sleep_for_ever, NULL);
}

static int count_with_thread(void *arg)
{
	struct ac_pool *pool;

	(void)arg;
	SEAT_CHECK(pthread_atfork(NULL, NULL, start_thread) == 0);
	pool = open_runtime_alone(1);
	SEAT_CHECK(pool && works(pool));
	SEAT_CHECK(COMES_TRUE(template_threads(pool) == 2, 10));
	return ac_pool_close(pool);
}

static void test_runtime_threads_of_fork_handlers_are_counted(void **state)
{
	(void)state;
	SKIP_UNDER_TSAN();
	ALONE(count_with_thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RUNTIME_TEST(test_runtime_hooks_surround_the_only_fork),
		RUNTIME_TEST(test_runtime_after_hook_is_told_of_a_failed_fork),
		RUNTIME_TEST(test_runtime_hooks_run_in_the_thread_that_opens),
		RUNTIME_TEST(test_runtime_only_run_is_needed),
		RUNTIME_TEST(test_runtime_tags_arrive_in_run),
		RUNTIME_TEST(test_runtime_start_that_fails_in_open_fails_it),
		RUNTIME_TEST(test_runtime_start_that_fails_later_is_tried_again),
		RUNTIME_TEST(test_runtime_starts_that_always_fail_fail_the_pool),
		RUNTIME_TEST(test_runtime_run_begins_with_all_signals_blocked),
		RUNTIME_TEST(test_runtime_replacement_has_the_directory_of_opening),
		RUNTIME_TEST(test_runtime_runs_calls_and_maps),
		RUNTIME_TEST(test_runtime_run_that_returns_is_replaced),
		RUNTIME_TEST(test_runtime_run_may_exit),
		RUNTIME_TEST(test_runtime_run_that_returns_at_once_fails_the_pool),
		RUNTIME_TEST(test_runtime_worker_says_why_it_is_not_ready),
		RUNTIME_TEST(test_runtime_flushes_nothing),
		RUNTIME_TEST(test_runtime_options_are_checked),
		RUNTIME_TEST(test_runtime_template_has_one_thread),
		RUNTIME_TEST(test_runtime_threads_of_fork_handlers_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

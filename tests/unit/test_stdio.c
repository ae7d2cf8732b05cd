/* SPDX-License-Identifier: MIT */
/*
 * The owner's stdio: a stream that another thread reads or has locked stops no call, and bytes
 * that were not flushed when processes were forked are written once.
 */
#include "alone_help.h"

#include <sys/stat.h>

/* ---- other threads that hold a stream ---- */

static void *read_stdin(void *arg)
{
	char line[64];

	(void)arg;
	while (fgets(line, sizeof line, stdin))
		;
	return NULL;
}

/* stdin is a pipe into which nothing is written; a thread is in fgets. */
static int block_on_stdin(void)
{
	pthread_t thread;
	int ends[2];

	SEAT_CHECK(pipe(ends) == 0 && dup2(ends[0], STDIN_FILENO) == STDIN_FILENO);
	SEAT_CHECK(pthread_create(&thread, NULL, read_stdin, NULL) == 0);
	nap(100 * MS);
	return 0;
}

static _Atomic bool is_locked;

static void *hold_stdout(void *arg)
{
	(void)arg;
	flockfile(stdout);
	is_locked = true;
	for (;;)
		pause();
	return NULL;
}

static int lock_stdout(void)
{
	pthread_t thread;

	SEAT_CHECK(pthread_create(&thread, NULL, hold_stdout, NULL) == 0);
	SEAT_CHECK(COMES_TRUE(is_locked, 5));
	return 0;
}

static int open_while_held(int (*hold)(void))
{
	struct ac_pool *pool;

	SEAT_CHECK(hold() == 0);
	for (int i = 0; i < 3; i++) {
		pool = open_alone(2);
		SEAT_CHECK(pool && works(pool));
		SEAT_CHECK(ac_pool_close(pool) == 0);
	}
	return 0;
}

static int open_while_read(void *arg)
{
	(void)arg;
	return open_while_held(block_on_stdin);
}

static int open_while_locked(void *arg)
{
	(void)arg;
	return open_while_held(lock_stdout);
}

static void test_stdio_pool_opens_while_stdin_is_read(void **state)
{
	(void)state;
	ALONE(open_while_read, NULL);
}

static void test_stdio_pool_opens_while_stdout_is_locked(void **state)
{
	(void)state;
	SKIP_UNDER_TSAN();
	ALONE(open_while_locked, NULL);
}

/* What the owner's threads hold is not held in a worker. */
static int print_in_worker(struct ac_call *call)
{
	(void)call;
	return printf("from a worker\n") < 0 || fflush(stdout) != 0;
}

static int print_while_locked(void *arg)
{
	struct ac_pool *pool;

	SEAT_CHECK(freopen(arg, "w", stdout));
	SEAT_CHECK(lock_stdout() == 0);
	pool = open_alone(1);
	SEAT_CHECK(pool);
	SEAT_CHECK(ac_pool_call(pool, print_in_worker, NULL, 0, NULL, NULL, NULL) == 0);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	return 0;
}

static void test_stdio_worker_prints_while_the_owner_has_stdout_locked(void **state)
{
	(void)state;
	SKIP_UNDER_TSAN();
	ALONE(print_while_locked, "/dev/null");
}

/* A worker dies whose parent process was killed: a new one has to be forked. */
static int replace_while_held(int (*hold)(void))
{
	int how = SIGKILL;
	struct ac_pool *pool = open_alone(1);

	SEAT_CHECK(pool && hold() == 0 && kill_parent_of_workers(pool));
	SEAT_CHECK(ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL) == AC_EDIED);
	SEAT_CHECK(works(pool));
	SEAT_CHECK(ac_pool_close(pool) == 0);
	return 0;
}

static int replace_while_read(void *arg)
{
	(void)arg;
	return replace_while_held(block_on_stdin);
}

static int replace_while_locked(void *arg)
{
	(void)arg;
	return replace_while_held(lock_stdout);
}

static void test_stdio_worker_is_replaced_while_stdin_is_read(void **state)
{
	(void)state;
	ALONE(replace_while_read, NULL);
}

static void test_stdio_worker_is_replaced_while_stdout_is_locked(void **state)
{
	(void)state;
	SKIP_UNDER_TSAN();
	ALONE(replace_while_locked, NULL);
}

static void *die_in_a_call(void *pool)
{
	int how = SIGKILL;

	ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL);
	return NULL;
}

static int call_while_replacing(void *arg)
{
	struct ac_pool *pool = open_alone(2);
	struct ac_pool_stat stat;
	pthread_t thread;

	(void)arg;
	SEAT_CHECK(pool && block_on_stdin() == 0 && kill_parent_of_workers(pool));
	SEAT_CHECK(pthread_create(&thread, NULL, die_in_a_call, pool) == 0);
	for (int i = 0; i < 200; i++) {
		SEAT_CHECK(works(pool));
		SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0);
		nap(MS);
	}
	pthread_join(thread, NULL);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	return 0;
}

static void test_stdio_calls_go_on_while_a_worker_is_replaced(void **state)
{
	(void)state;
	ALONE(call_while_replacing, NULL);
}

/* ---- bytes that are not flushed yet ---- */

#define TEN "ten bytes\n"

/* Workers that end in every way: told to, recycled, dead, and by a new parent process. */
static int use_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 3, .recycle = 5 };
	int how = SIGKILL, exits = 0;
	struct ac_pool *pool;

	SEAT_CHECK(ac_pool_open(&pool, &opts) == 0);
	for (int i = 0; i < 30; i++)
		SEAT_CHECK(works(pool));
	ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL);
	ac_pool_call(pool, die_so, &exits, sizeof exits, NULL, NULL, NULL);
	SEAT_CHECK(kill_parent_of_workers(pool));
	for (int i = 0; i < 30; i++)
		SEAT_CHECK(works(pool));
	SEAT_CHECK(ac_pool_close(pool) == 0);
	return 0;
}

static int keep_bytes_in_file(void *arg)
{
	FILE *file = fopen(arg, "w");

	SEAT_CHECK(file && setvbuf(file, NULL, _IOFBF, 4096) == 0);
	SEAT_CHECK(fputs(TEN, file) >= 0);
	SEAT_CHECK(use_pool() == 0);
	SEAT_CHECK(fclose(file) == 0);
	return 0;
}

static int keep_bytes_in(FILE *stream, const char *path)
{
	SEAT_CHECK(freopen(path, "w", stream));
	SEAT_CHECK(setvbuf(stream, NULL, _IOFBF, 4096) == 0);
	SEAT_CHECK(fputs(TEN, stream) >= 0);
	SEAT_CHECK(use_pool() == 0);
	SEAT_CHECK(fclose(stream) == 0);
	return 0;
}

static int keep_bytes_in_stdout(void *arg)
{
	return keep_bytes_in(stdout, arg);
}

static int keep_bytes_in_stderr(void *arg)
{
	return keep_bytes_in(stderr, arg);
}

/* The owner can not flush what another thread has locked: workers must not either. */
static int keep_bytes_while_locked(void *arg)
{
	SEAT_CHECK(freopen(arg, "w", stdout));
	SEAT_CHECK(setvbuf(stdout, NULL, _IOFBF, 4096) == 0);
	SEAT_CHECK(fputs(TEN, stdout) >= 0);
	SEAT_CHECK(lock_stdout() == 0);
	return use_pool(); /* nobody ever flushes them */
}

static void check_bytes(int (*keep)(void *arg), bool may_stay)
{
	char path[] = "/tmp/allcores-stdio-XXXXXX", bytes[64] = "";
	int made = mkstemp(path), r;
	ssize_t n;

	assert_true(made >= 0);
	r = status_alone(keep, path, ALONE_SECONDS);
	n = read(made, bytes, sizeof bytes - 1);
	close(made);
	unlink(path);
	assert_int_equal(r, 0);
	if (n != 0 || !may_stay)
		assert_string_equal(bytes, TEN);
}

static void test_stdio_bytes_in_a_file_are_written_once(void **state)
{
	(void)state;
	check_bytes(keep_bytes_in_file, false);
}

static void test_stdio_bytes_in_stdout_are_written_once(void **state)
{
	(void)state;
	check_bytes(keep_bytes_in_stdout, false);
}

static void test_stdio_bytes_in_stderr_are_written_once(void **state)
{
	(void)state;
	check_bytes(keep_bytes_in_stderr, false);
}

static void test_stdio_bytes_in_a_locked_stdout_are_not_written_by_workers(void **state)
{
	(void)state;
	SKIP_UNDER_TSAN();
	check_bytes(keep_bytes_while_locked, true);
}

/* What a task prints is written when its worker leaves, however often that is. */
static int print_unflushed(struct ac_call *call)
{
	(void)call;
	return fputs(TEN, stdout) < 0;
}

static int print_in_tasks(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .recycle = 1 };
	struct ac_pool *pool;

	SEAT_CHECK(freopen(arg, "w", stdout));
	SEAT_CHECK(setvbuf(stdout, NULL, _IOFBF, 4096) == 0);
	SEAT_CHECK(fputs("owner's\n", stdout) >= 0);
	SEAT_CHECK(ac_pool_open(&pool, &opts) == 0);
	for (int i = 0; i < 7; i++)
		SEAT_CHECK(ac_pool_call(pool, print_unflushed, NULL, 0, NULL, NULL, NULL) == 0);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(fclose(stdout) == 0);
	return 0;
}

static void test_stdio_what_tasks_print_is_flushed(void **state)
{
	char path[] = "/tmp/allcores-stdio-XXXXXX";
	int made = mkstemp(path), r;
	struct stat stat;

	(void)state;
	assert_true(made >= 0);
	r = status_alone(print_in_tasks, path, ALONE_SECONDS);
	assert_int_equal(fstat(made, &stat), 0);
	close(made);
	unlink(path);
	assert_int_equal(r, 0);
	assert_int_equal(stat.st_size, strlen("owner's\n") + 7 * strlen(TEN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_stdio_pool_opens_while_stdin_is_read),
		HELP_TEST(test_stdio_pool_opens_while_stdout_is_locked),
		HELP_TEST(test_stdio_worker_prints_while_the_owner_has_stdout_locked),
		HELP_TEST(test_stdio_worker_is_replaced_while_stdin_is_read),
		HELP_TEST(test_stdio_worker_is_replaced_while_stdout_is_locked),
		HELP_TEST(test_stdio_calls_go_on_while_a_worker_is_replaced),
		HELP_TEST(test_stdio_bytes_in_a_file_are_written_once),
		HELP_TEST(test_stdio_bytes_in_stdout_are_written_once),
		HELP_TEST(test_stdio_bytes_in_stderr_are_written_once),
		HELP_TEST(test_stdio_bytes_in_a_locked_stdout_are_not_written_by_workers),
		HELP_TEST(test_stdio_what_tasks_print_is_flushed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

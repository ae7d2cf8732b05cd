/* SPDX-License-Identifier: MIT */
/*
 * Tasks, and programs, that close descriptors of the library and open their own under the
 * same numbers: nothing is written there, no call hangs, and the worker is replaced.
 */
#include "pool_help.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct ac_pool *pool; /* one worker */

static int set_up(void **state)
{
	help_set_up(state);
	pool = open_pool(1);
	return 0;
}

static int tear_down(void **state)
{
	ac_pool_close(pool);
	return help_tear_down(state);
}

/* ---- in a worker ---- */

enum kind { NOTHING, FILES, SOCKETS, PIPES, EVENTFDS, KINDS };

#define NUMBERS 64

/* Every number but those of the streams stands for something of the task's then. */
static int open_users(enum kind kind)
{
	int fd[2];

	for (int i = 3; i < 1024; i++)
		close(i);
	for (int i = 0; kind != NOTHING && i < NUMBERS / 2; i++) {
		fd[0] = -1;
		if (kind == FILES)
			fd[0] = memfd_create("users", 0);
		else if (kind == EVENTFDS)
			fd[0] = eventfd(0, EFD_NONBLOCK);
		else if (kind == PIPES ? pipe(fd) : socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
			return -1;
		if (fd[0] < 0)
			return -1;
	}
	return 0;
}

static bool was_written(enum kind kind, int fd)
{
	uint64_t count;
	struct stat s;
	int n = 0;

	if (kind == FILES)
		return fstat(fd, &s) == 0 && s.st_size;
	if (kind == EVENTFDS)
		return read(fd, &count, sizeof count) > 0;
	return ioctl(fd, FIONREAD, &n) == 0 && n;
}

/* Of the process's own: in the next task of a worker that has not left. */
static _Atomic int *written; /* shared */

/* Looks again and again until the worker is gone: it rings the owner after the task's end. */
static void *watch(void *arg)
{
	enum kind kind = *(enum kind *)arg;

	for (;;) {
		for (int fd = 3; fd < NUMBERS; fd++)
			if (was_written(kind, fd))
				atomic_fetch_add(written, 1);
		nap(MS / 10);
	}
	return NULL;
}

static int replace_all(struct ac_call *call)
{
	static enum kind kind;
	pthread_t thread;

	kind = *(const enum kind *)ac_call_arg(call, NULL);
	if (open_users(kind) < 0 || pthread_create(&thread, NULL, watch, &kind))
		return 1;
	nap(20 * MS); /* the owner sleeps by now, and is to be rung */
	return ac_call_return(call, "done", 4);
}

static pid_t worker_pid(void)
{
	struct ac_worker_stat stat;

	assert_int_equal(ac_pool_workers(pool, &stat, 1), 1);
	return stat.pid;
}

static void test_replaced_descriptors_of_a_worker_are_left_alone(void **state)
{
	(void)state;
	written = share(sizeof *written);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		char text[5] = "";
		size_t len = 4;
		pid_t pid;

		assert_works(pool);
		pid = worker_pid();
		assert_int_equal(ac_pool_call(pool, replace_all, &kind, sizeof kind, text,
					      &len, NULL), 0);
		assert_string_equal(text, "done");
		EVENTUALLY(!is_alive(pid));
		assert_works(pool);
		assert_int_not_equal(worker_pid(), pid);
		assert_int_equal(atomic_load(written), 0);
	}
	munmap((void *)written, sizeof *written);
}

/* Work that another task leaves behind is done, by the next worker where it must. */
static void test_replaced_descriptors_cost_no_other_task(void **state)
{
	enum kind kind = FILES;
	struct ac_submit_opts opts = { .size = sizeof opts, .retries = 3 };
	struct ac_task *tasks[20];
	char *large = calloc(1, MB);

	(void)state;
	written = share(sizeof *written);
	assert_works(pool);
	for (unsigned i = 0; i < COUNT(tasks); i++)
		assert_int_equal(ac_pool_submit(pool, &tasks[i], i % 5 ? tell_pid : replace_all,
						i % 5 == 2 ? large : (void *)&kind,
						i % 5 == 2 ? MB : sizeof kind, &opts), 0);
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		assert_int_equal(ac_task_wait(tasks[i], 20 * SECOND), 0);
		assert_int_equal(status_of(tasks[i]), 0);
		ac_task_free(tasks[i]);
	}
	assert_int_equal(atomic_load(written), 0);
	munmap((void *)written, sizeof *written);
	free(large);
}

/* ---- in the owner ---- */

static int use_pool_without_bell(void *arg)
{
	struct ac_pool *own = open_pool(2);
	char byte;
	int fd[2];

	(void)arg;
	/* By what it is: the only pipes here. */
	for (int n = 3; n < NUMBERS; n++) {
		struct stat s;

		if (fstat(n, &s) == 0 && S_ISFIFO(s.st_mode))
			close(n);
	}
	SEAT_CHECK(pipe2(fd, O_NONBLOCK) == 0);
	for (int i = 0; i < 3; i++) {
		struct ac_task *task = submit_int(own, nap_ms, 20);

		SEAT_CHECK(ac_task_wait(task, 10 * SECOND) == 0);
		ac_task_free(task);
	}
	SEAT_CHECK(ac_pool_join(own, 10 * SECOND) == 0);
	SEAT_CHECK(ac_pool_close(own) == 0);
	SEAT_CHECK(read(fd[0], &byte, 1) < 0 && errno == EAGAIN);
	return 0;
}

static void test_replaced_bell_of_the_owner_is_no_hang(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_DFL);
	assert_int_equal(seats_in_child(use_pool_without_bell, NULL, 40), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_replaced_descriptors_of_a_worker_are_left_alone),
		TEST(test_replaced_descriptors_cost_no_other_task),
		TEST(test_replaced_bell_of_the_owner_is_no_hang),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

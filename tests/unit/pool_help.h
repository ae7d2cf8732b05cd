/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the public header share: a clock, pools, functions for
 * workers to run, memory that all processes see. Include it first. Each test must leave
 * no descriptor and no child behind, and is killed when it takes too long.
 */
#ifndef AC_TEST_POOL_HELP_H
#define AC_TEST_POOL_HELP_H

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "allcores.h"
#include "seats.h"
#include "sys.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define MB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof *(array))
/* A test takes a few seconds at most; what takes so long hangs. */
#define HANG_SECONDS 50

#define UNITS(n) (&(const struct ac_push_opts){ .size = sizeof(struct ac_push_opts), .units = (n) })

#define HELP_TEST(test) \
	cmocka_unit_test_setup_teardown(test, help_set_up, help_tear_down)

/* For what another process or thread is about to do. */
#define EVENTUALLY(what)                                            \
	do {                                                        \
		int64_t end_ = now() + 20 * SECOND;                 \
		while (!(what)) {                                   \
			if (now() > end_)                           \
				fail_msg("never came true: %s", #what); \
			nap(MS);                                    \
		}                                                   \
	} while (0)

static unsigned help_descriptors;
static bool help_dirty; /* a failed test has left something that may yet go */

/* ---- threads ---- */

static inline unsigned count_threads(void)
{
	char line[128];
	unsigned n = 0;
	FILE *file = fopen("/proc/self/status", "r");

	while (file && fgets(line, sizeof line, file))
		sscanf(line, "Threads: %u", &n);
	if (file)
		fclose(file);
	return n;
}

/* ---- time ---- */

static inline int64_t now(void)
{
	return ac__sys_now();
}

static inline void nap(int64_t ns)
{
	struct timespec t = { ns / SECOND, ns % SECOND };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

/* ---- fixtures ---- */

static inline int help_set_up(void **state)
{
	struct rlimit no_core = { 0, 0 };

	(void)state;
	alarm(HANG_SECONDS);
	ac__fault_disarm();
	setrlimit(RLIMIT_CORE, &no_core);
	help_descriptors = seats_descriptors();
	return 0;
}

/* What a failed test has left must not fail those that follow. */
static inline void help_kill_children(void)
{
	char path[64];
	FILE *file;
	int pid;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	file = fopen(path, "r");
	while (file && fscanf(file, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	if (file)
		fclose(file);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static inline int help_tear_down(void **state)
{
	unsigned descriptors, children;

	(void)state;
	alarm(0);
	ac__fault_disarm();
	descriptors = seats_descriptors();
	children = seats_children();
	if (!children && (descriptors == help_descriptors ||
			  (help_dirty && descriptors < help_descriptors)))
		return 0;
	help_dirty = true;
	fprintf(stderr, "descriptors: %u before, %u after; children: %u\n",
		help_descriptors, descriptors, children);
	help_kill_children();
	return -1;
}

static inline struct ac_pool *open_pool(int workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers };
	struct ac_pool *pool = NULL;

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_non_null(pool);
	return pool;
}

/* Zeroed, and seen by all that is forked from now on. */
static inline void *share(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(memory != MAP_FAILED);
	return memory;
}

static inline bool is_alive(pid_t pid)
{
	char path[32], state = 'X';
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 'X';
	fclose(file);
	return state != 'Z' && state != 'X';
}

/* ---- what workers run ---- */

static inline int echo(struct ac_call *call)
{
	size_t len;
	const void *arg = ac_call_arg(call, &len);

	return ac_call_return(call, arg, len);
}

static inline int nap_ms(struct ac_call *call)
{
	nap(*(const int *)ac_call_arg(call, NULL) * MS);
	return 0;
}

static inline int fail_with(struct ac_call *call)
{
	return *(const int *)ac_call_arg(call, NULL);
}

static inline int tell_pid(struct ac_call *call)
{
	pid_t pid = getpid();

	return ac_call_return(call, &pid, sizeof pid);
}

/* Positive: by that signal; else with that exit code, negated. */
static inline void die(int how)
{
	signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler exits */
	signal(SIGABRT, SIG_DFL);
	if (how > 0)
		kill(getpid(), how);
	_exit(-how);
}

static inline int die_so(struct ac_call *call)
{
	die(*(const int *)ac_call_arg(call, NULL));
	return 0;
}

/* ---- calls that must succeed ---- */

static inline struct ac_task *submit_int(struct ac_pool *pool, ac_call_fn *fn, int arg)
{
	struct ac_task *task = NULL;

	assert_int_equal(ac_pool_submit(pool, &task, fn, &arg, sizeof arg, NULL), 0);
	assert_non_null(task);
	return task;
}

static inline pid_t pid_of_worker(struct ac_pool *pool)
{
	pid_t pid = 0;
	size_t len = sizeof pid;

	assert_int_equal(ac_pool_call(pool, tell_pid, NULL, 0, &pid, &len, NULL), 0);
	assert_int_equal(len, sizeof pid);
	return pid;
}

static inline void assert_works(struct ac_pool *pool)
{
	int in = 12345, out = 0;
	size_t len = sizeof out;

	assert_int_equal(ac_pool_call(pool, echo, &in, sizeof in, &out, &len, NULL), 0);
	assert_int_equal(len, sizeof out);
	assert_int_equal(out, in);
}

static inline int status_of(struct ac_task *task)
{
	struct ac_outcome outcome;

	assert_int_equal(ac_task_wait(task, -1), 0);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	return outcome.status;
}

/* Fills memory so that a byte in the wrong place is seen. */
static inline void fill_bytes(unsigned char *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (unsigned char)((i ^ i >> 8 ^ i >> 16) * 31 + seed);
}

static inline bool sum_holds(const struct ac_pool_stat *s)
{
	return s->submitted ==
	       s->waiting + s->running + s->done + s->failed + s->cancelled;
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Each kind of system call is made to fail, its first time, its second and so on, while
 * a pool is opened, used and closed: an error or a slower way that works, never a
 * crash, a hang, a wrong result or anything left behind. Template and workers
 * inherit what is armed, so there too the n-th call fails. And the whole
 * workout on systems that lack memfd, pidfd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "sys.h"
#include "workout.h"

#define WORKERS WORKOUT_WORKERS
/* In template and workers nobody sees whether a call was left to fail. */
#define AT_LEAST 6
#define AT_MOST 400
#define HEAP_ENDS 30
#define HEAP_STRIDE 41
/* Less than what closing gives to workers that don't leave: none may have to be waited for. */
#define RUN_NS (8 * SECOND * (1 + CRASH_SANITIZED))

static const char *const names[] = {
#define NAME(call) #call,
	AC__SYS_CALLS(NAME)
#undef NAME
};

/* ---- one after the other ---- */

struct kind {
	enum ac__sys_call call;
	int err;
	bool lacking;
	enum ac__sys_call lack; /* what fails always, so that call is made */
};

#define KIND(call, err) { AC__SYS_##call, err, false, 0 }
#define KIND_WITHOUT(lack, call, err) \
	{ AC__SYS_##call, err, true, AC__SYS_##lack }

static void arm(const struct kind *kind, unsigned n, unsigned times)
{
	if (kind->lacking)
		ac__fault_arm(kind->lack, 1, UINT32_MAX, ENOSYS);
	ac__fault_arm(kind->call, n, times, kind->err);
}

/* Calls of malloc and realloc: so many were made, and from which on so many fail. */
static _Atomic unsigned heap_calls, heap_from = UINT32_MAX, heap_times;

static bool heap_fails(void)
{
	unsigned n = ++heap_calls;

	return n >= heap_from && n - heap_from < heap_times;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return heap_fails() ? NULL : __real_malloc(size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
	return heap_fails() ? NULL : __real_realloc(old, size);
}

static void arm_heap(unsigned n, unsigned times)
{
	heap_calls = 0;
	heap_times = times;
	heap_from = n;
}

/* Each at both ends of a run, and some of the many alike between. */
static unsigned next_heap_call(unsigned n, unsigned calls)
{
	return n + (n < HEAP_ENDS || n + HEAP_ENDS + HEAP_STRIDE > calls ? 1 : HEAP_STRIDE);
}

static void fail_heap(void *arg)
{
	unsigned times = *(unsigned *)arg, runs = 0, failed = 0, calls;
	struct crash_print before;

	CHECK_EQ(workout(0), 0);
	crash_print_take(&before);
	arm_heap(UINT32_MAX, 0);
	CHECK_EQ(workout(0), 0);
	calls = heap_calls;
	for (unsigned n = 1; n <= calls; n = next_heap_call(n, calls), runs++) {
		crash_at("malloc fails the %u. time", n);
		arm_heap(n, times);
		failed += workout(0) != 0;
		arm_heap(UINT32_MAX, 0);
		crash_print_check(&before);
	}
	crash_note("malloc: %u runs, %u with an error, %u calls in a run", runs, failed,
		   calls);
	CHECK(failed > 0);
}

static void fail_each(void *arg)
{
	const struct kind *kind = arg;
	unsigned n, failed = 0, calls = 0;
	struct crash_print before;
	int64_t start, longest = 0;

	/* Once without: what the C library sets up stays. */
	CHECK_EQ(workout(0), 0);
	crash_print_take(&before);
	for (n = 1; n <= AT_MOST && (n <= AT_LEAST || calls >= n - 1); n++) {
		crash_at("%s fails the %u. time", names[kind->call], n);
		start = crash_now();
		arm(kind, n, 1);
		failed += workout(0) != 0;
		calls = ac__fault_calls(kind->call);
		ac__fault_disarm();
		longest = AC__MAX(longest, crash_now() - start);
		crash_print_check(&before);
	}
	CHECK(longest < RUN_NS);
	CHECK_EQ(workout(0), 0);
	crash_note("%s: %u runs, %u with an error, %u calls in a run, longest %lld ms",
		   names[kind->call], n - 1, failed, calls,
		   (long long)(longest / MS));
}

static void fail_always(void *arg)
{
	const struct kind *kind = arg;
	struct crash_print before;
	int r;

	CHECK_EQ(workout(0), 0);
	crash_print_take(&before);
	arm(kind, 1, UINT32_MAX);
	r = workout(0);
	ac__fault_disarm();
	crash_print_check(&before);
	crash_note("%s: %s", names[kind->call], r ? ac_errname(r) : "works");
}

/* ---- systems that lack something ---- */

static void kill_one(struct ac_pool *pool)
{
	struct ac_worker_stat stats[WORKERS];

	CHECK(crash_await_workers(pool, 5 * SECOND));
	ac_pool_workers(pool, stats, WORKERS);
	kill(stats[0].pid, SIGKILL);
	CHECK_EQ(workout_map(pool), 0);
	CHECK(crash_await_workers(pool, 5 * SECOND));
}

static void live_without(bool adopt)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .start = adopt ? workout_start : NULL };
	struct ac_pool_stat stat;
	struct ac_pool *pool;

	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK_EQ(workout_map(pool), 0);
	CHECK_EQ(workout_calls(pool), 0);
	kill_one(pool);
	CHECK_EQ(workout_calls(pool), 0);
	crash_check_usable(pool);
	crash_check_sum(pool, &stat);
	CHECK_EQ(stat.failed, 0);
	crash_check_blocks(pool, 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	workout_reap();
}

struct lack {
	bool memfd, pidfd, adopt;
	int err;
};

static void do_without(void *arg)
{
	const struct lack *lack = arg;
	struct crash_print before;

	if (lack->memfd)
		ac__fault_arm(AC__SYS_MEMFD, 1, UINT32_MAX, lack->err);
	if (lack->pidfd)
		ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, lack->err);
	live_without(lack->adopt);
	crash_print_take(&before);
	live_without(lack->adopt);
	crash_print_check(&before);
}

/* The template dies, and the ends of its workers' sockets can't be watched: what they
 * hold must come to an end all the same. */
static int nap_call(struct ac_call *call)
{
	(void)call;
	crash_sleep(300 * MS);
	return 0;
}

static void lose_watch(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };
	struct ac_worker_stat stats[WORKERS];
	struct ac_task *tasks[WORKERS];
	struct ac_pool *pool;

	(void)arg;
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	ac_pool_workers(pool, stats, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		CHECK_EQ(ac_pool_submit(pool, &tasks[i], nap_call, NULL, 0,
					NULL), 0);
	ac__fault_arm(AC__SYS_EPOLL_ADD, 1, UINT32_MAX, ENOSPC);
	kill(crash_template(getpid()), SIGKILL);
	crash_sleep(100 * MS);
	for (unsigned i = 0; i < WORKERS; i++)
		kill(stats[i].pid, SIGKILL);
	for (unsigned i = 0; i < WORKERS; i++) {
		CHECK_EQ(ac_task_wait(tasks[i], 3 * SECOND), 0);
		ac_task_free(tasks[i]);
	}
	CHECK_EQ(ac_pool_close(pool), 0);
}

/* Neither their sockets nor their pidfds, from the first on: they are looked at. */
static void adopt_unwatched(void *arg)
{
	(void)arg;
	ac__fault_arm(AC__SYS_EPOLL_ADD, 2, UINT32_MAX, ENOSPC);
	live_without(true);
}

static void run_kinds(const struct kind *kinds, unsigned n,
		      void (*fn)(void *arg), const char *how, unsigned seconds)
{
	char name[64];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "%s fails %s (%s)",
			 names[kinds[i].call], how, ac_errname(-kinds[i].err));
		crash_case(name, fn, (void *)&kinds[i], seconds);
	}
}

int main(int argc, char **argv)
{
	static const struct kind kinds[] = {
		KIND(MEMFD, EMFILE), KIND(MEMFD, EPERM), KIND(RESIZE, ENOSPC),
		KIND(SEAL, EINVAL), KIND_WITHOUT(MEMFD, TMPFILE, EACCES),
		KIND_WITHOUT(MEMFD, PREALLOCATE, ENOSPC), KIND(MAP, ENOMEM),
		KIND(PIPE, EMFILE), KIND(EPOLL, EMFILE),
		KIND(EPOLL_ADD, ENOSPC), KIND(SOCKET, EMFILE),
		KIND(SEND, ENOBUFS), KIND(RECEIVE, ENOMEM), KIND(FORK, EAGAIN),
		KIND(LIFELINE, EPERM), KIND(THREAD, EAGAIN), KIND(MALLOC, ENOMEM),
	};
	static const struct lack memfd = { .memfd = true, .err = ENOSYS },
				 pidfd = { .pidfd = true, .adopt = true,
					   .err = ENOSYS },
				 none = { .adopt = true },
				 all = { true, true, false, EPERM },
				 all_adopted = { true, true, true, ENOSYS };
	unsigned n = sizeof kinds / sizeof *kinds, once = 1, ever = UINT32_MAX;

	crash_begin(argc, argv);
	run_kinds(kinds, n, fail_each, "once", 20);
	run_kinds(kinds, n, fail_always, "always", 20);
	crash_case("malloc fails once", fail_heap, &once, 20);
	crash_case("malloc fails from then on", fail_heap, &ever, 20);
	crash_case("workers can't be watched", lose_watch, NULL, 10);
	crash_case("adopted workers can't be watched", adopt_unwatched, NULL, 20);
	crash_case("no memfd", do_without, (void *)&memfd, 10);
	crash_case("adopted workers", do_without, (void *)&none, 10);
	crash_case("adopted workers, no pidfd", do_without, (void *)&pidfd, 10);
	crash_case("no memfd, pidfd", do_without, (void *)&all, 10);
	crash_case("no memfd, pidfd, adopted workers", do_without,
		   (void *)&all_adopted, 10);
	return crash_end();
}

/* SPDX-License-Identifier: MIT */
/*
 * Tests that run in a child of their own: an owner that hangs, crashes, or loses its worker's
 * parent must cost one test and not the program. Checks there are SEAT_CHECKs.
 */
#ifndef AC_TEST_ALONE_HELP_H
#define AC_TEST_ALONE_HELP_H

#include "pool_help.h"
#include "engine.h"

/* What takes longer hangs. */
#define ALONE_SECONDS 20

struct alone {
	int (*fn)(void *arg);
	void *arg;
};

/* What cmocka does about crashes would go on with the program's other tests in the child. */
static inline int run_alone(void *arg)
{
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS };
	struct alone *alone = arg;

	for (unsigned i = 0; i < COUNT(crashes); i++)
		signal(crashes[i], SIG_DFL);
	return alone->fn(alone->arg);
}

static inline int status_alone(int (*fn)(void *arg), void *arg, unsigned seconds)
{
	struct alone alone = { fn, arg };

	return seats_in_child(run_alone, &alone, seconds);
}

/* fn(arg) returns 0 in a child, in time. */
#define ALONE_FOR(fn, arg, seconds) assert_int_equal(status_alone(fn, arg, seconds), 0)
#define ALONE(fn, arg) ALONE_FOR(fn, arg, ALONE_SECONDS)

/* For SEAT_CHECK: whether it has come true within some seconds. */
#define COMES_TRUE(what, seconds)                               \
	({                                                      \
		int64_t end_ = now() + (seconds) * SECOND;      \
		bool true_;                                     \
		while (!(true_ = (what)) && now() < end_)       \
			nap(MS);                                \
		true_;                                          \
	})

static inline struct ac_pool *open_alone(int workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers };
	struct ac_pool *pool = NULL;

	return ac_pool_open(&pool, &opts) == 0 ? pool : NULL;
}

static inline int works(struct ac_pool *pool)
{
	int in = 12345, out = 0;
	size_t len = sizeof out;

	return ac_pool_call(pool, echo, &in, sizeof in, &out, &len, NULL) == 0 && out == in;
}

static inline int tell_parent(struct ac_call *call)
{
	pid_t pid = getppid();

	return ac_call_return(call, &pid, sizeof pid);
}

/* The process that forks a pool's workers; 0: not found. */
static inline pid_t parent_of_workers(struct ac_pool *pool)
{
	pid_t pid = 0;
	size_t len = sizeof pid;

	return ac_pool_call(pool, tell_parent, NULL, 0, &pid, &len, NULL) == 0 ? pid : 0;
}

/* The owner knows of a process that will take the place of the workers' parent. */
static inline bool has_reserve(struct ac_pool *pool)
{
	bool there;

	ac_pool_dispatch(pool);
	ac__pool_lock(pool);
	there = pool->workers.template.reserve.socket >= 0;
	ac__pool_unlock(pool);
	return there;
}

static inline bool kill_parent_of_workers(struct ac_pool *pool)
{
	pid_t pid = parent_of_workers(pool);

	return pid > 1 && COMES_TRUE(has_reserve(pool), 10) && pid != getpid() && kill(pid, SIGKILL) == 0 &&
	       COMES_TRUE(!is_alive(pid), 5);
}

#endif

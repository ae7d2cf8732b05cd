/* SPDX-License-Identifier: MIT */
/*
 * A runtime of the test's own, by section 10 of the public header: it notes who called its hooks,
 * gives each start a tag, and in its workers does what the test has asked for.
 */
#ifndef AC_TEST_RUNTIME_HELP_H
#define AC_TEST_RUNTIME_HELP_H

#include "alone_help.h"

#include <sys/syscall.h>

#define FIRST_TAG UINT64_C(0x123456789abcd000)
#define STARTS_MOST 1024

enum behaviour {
	SERVES,		/* until it is told to leave */
	SERVES_ONE,	/* one task, then it returns */
	EXITS_WITH_7,	/* after one task */
	RETURNS,	/* before it is ready */
	IS_NOT_READY,	/* and says why */
	PRINTS,		/* without a flush; then it serves one */
	EXITS_AT_TERM,	/* with 5, by a handler */
	STAYS_AT_TERM,	/* its handler does nothing */
	NEVER_IS_READY,
};

/* Of one start, by its tag. */
struct start {
	pid_t starter;		/* the thread in starting */
	_Atomic unsigned worker;
	_Atomic pid_t pid, parent; /* in run; 0: it has not come there */
	unsigned number;
	bool blocked;		/* all signals */
	void (*sigint)(int);
	char directory[256];
};

/* All processes see it. */
static struct {
	pid_t owner;
	_Atomic unsigned before, after, strangers; /* hooks that did not run in the owner */
	pid_t before_thread, after_thread;
	int result;		/* of the fork, as after_fork was told */
	_Atomic unsigned fails;	/* so many starts are refused */
	int error;		/* with this code */
	_Atomic unsigned refused;
	_Atomic unsigned count;
	_Atomic enum behaviour behaviour;
	struct start starts[STARTS_MOST];
} *seen;

static char argument; /* each function is to get its address */

static inline pid_t this_thread(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* ---- the runtime ---- */

static inline void note_caller(const void *arg)
{
	seen->strangers += getpid() != seen->owner || arg != &argument;
}

static inline void before_fork(void *arg)
{
	note_caller(arg);
	seen->strangers += seen->before != seen->after;
	seen->before_thread = this_thread();
	seen->before++;
}

static inline void after_fork(void *arg, int result)
{
	note_caller(arg);
	seen->after++;
	seen->strangers += seen->before != seen->after;
	seen->after_thread = this_thread();
	seen->result = result;
}

static inline int starting(void *arg, unsigned worker, uint64_t *tag)
{
	unsigned n;

	note_caller(arg);
	if (seen->fails) {
		seen->fails--;
		seen->refused++;
		return seen->error;
	}
	n = seen->count++;
	if (n >= STARTS_MOST)
		return -ENOSPC;
	seen->starts[n].starter = this_thread();
	seen->starts[n].worker = worker;
	*tag = FIRST_TAG + n;
	return 0;
}

static inline bool all_are_blocked(void)
{
	sigset_t mask;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int signal = 1; signal < 32; signal++)
		if (signal != SIGKILL && signal != SIGSTOP && !sigismember(&mask, signal))
			return false;
	return true;
}

static inline void look_around(struct start *start, unsigned number)
{
	struct sigaction action;

	start->blocked = all_are_blocked();
	sigaction(SIGINT, NULL, &action);
	start->sigint = action.sa_handler;
	start->number = number;
	if (!getcwd(start->directory, sizeof start->directory))
		start->directory[0] = '\0';
	start->parent = getppid();
	start->pid = getpid();
}

/* False: it is to leave. */
static inline bool serve_one(struct ac_worker *worker)
{
	struct ac_call *call;
	int r;

	while ((r = ac_worker_take(worker, &call)) == -EINTR)
		;
	if (r == 1)
		ac_worker_done(worker, call, ac_call_run(call));
	return r == 1;
}

static inline void exit_with_5(int signal)
{
	(void)signal;
	_exit(5);
}

static inline void do_nothing(int signal)
{
	(void)signal;
}

static inline void run(void *arg, struct ac_worker *worker, unsigned number, uint64_t tag)
{
	sigset_t none;

	(void)arg;
	if (tag)
		look_around(&seen->starts[tag - FIRST_TAG], number);
	if (seen->behaviour == EXITS_AT_TERM)
		signal(SIGTERM, exit_with_5);
	if (seen->behaviour == STAYS_AT_TERM)
		signal(SIGTERM, do_nothing);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	while (seen->behaviour == NEVER_IS_READY)
		pause();
	if (seen->behaviour == RETURNS)
		return;
	if (seen->behaviour == PRINTS)
		printf("from a worker\n");
	if (seen->behaviour == IS_NOT_READY) {
		ac_worker_ready(worker, 1, "no licence");
		return;
	}
	ac_worker_ready(worker, 0, NULL);
	while (serve_one(worker)) {
		if (seen->behaviour == EXITS_WITH_7)
			_exit(7);
		if (seen->behaviour != SERVES)
			return;
	}
}

static const struct ac_runtime runtime = { .size = sizeof runtime,
					   .arg = &argument,
					   .before_fork = before_fork,
					   .after_fork = after_fork,
					   .starting = starting,
					   .run = run };

/* ---- fixtures ---- */

static inline int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	seen->owner = getpid();
	return 0;
}

static inline int tear_down(void **state)
{
	munmap(seen, sizeof *seen);
	return help_tear_down(state);
}

#define RUNTIME_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static unsigned runtime_flags; /* of the pools that are opened here */

static inline int try_open_runtime(struct ac_pool **pool, int workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = workers,
				     .flags = runtime_flags,
				     .runtime = &runtime };

	return ac_pool_open(pool, &opts);
}

static inline struct ac_pool *open_runtime(int workers)
{
	struct ac_pool *pool = NULL;

	assert_int_equal(try_open_runtime(&pool, workers), 0);
	assert_non_null(pool);
	return pool;
}

/* In a child, which owns its pool. */
static inline struct ac_pool *open_runtime_alone(int workers)
{
	struct ac_pool *pool = NULL;

	seen->owner = getpid();
	return try_open_runtime(&pool, workers) == 0 ? pool : NULL;
}

/* ---- starts ---- */

static inline const struct start *start_of(uint64_t tag)
{
	return &seen->starts[tag - FIRST_TAG];
}

/* The last start of that worker; 0: there was none. */
static inline uint64_t tag_of(unsigned worker)
{
	for (unsigned n = seen->count; n > 0; n--)
		if (seen->starts[n - 1].worker == worker)
			return FIRST_TAG + n - 1;
	return 0;
}

static inline bool has_run(uint64_t tag)
{
	return start_of(tag)->pid != 0;
}

/* Never 0, which is the whole group. */
static inline bool send_signal(pid_t pid, int signal)
{
	return pid > 1 && kill(pid, signal) == 0;
}

/* Dead, whether its end was taken or not. */
static inline bool kill_and_wait(pid_t pid)
{
	return send_signal(pid, SIGKILL) && COMES_TRUE(!is_alive(pid), 10);
}

#endif

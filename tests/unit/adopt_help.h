/* SPDX-License-Identifier: MIT */
/*
 * Workers that somebody else starts, by section 9 of the public header: a start
 * function that forks processes which sit down and serve by numbers instead of
 * functions; with pidfds, without, and with pids that are not told.
 */
#ifndef AC_TEST_ADOPT_HELP_H
#define AC_TEST_ADOPT_HELP_H

#include "pool_help.h"

enum { HANDLE_ECHO = 1, HANDLE_PID, HANDLE_NAP, HANDLE_DIE, HANDLE_FAIL, HANDLE_LEAVE,
       HANDLE_CURRENT, HANDLE_UNITS, HANDLE_CLOSE_ALL, HANDLE_CLOSE_AND_STAY };

#define HANDLER(number) ((ac_call_fn *)(uintptr_t)(number))

enum behaviour {
	SERVES,
	REFUSES_TO_START,	/* start itself returns -EPERM */
	SAYS_NOT_READY,
	DIES_AT_ONCE,
	NEVER_SITS_DOWN,
	NEVER_IS_READY,
	LIVES_ON,		/* when it has left its seat */
	RUNS_CALLS,		/* by ac_call_run */
	LEAVES_WHEN_READY,
	COMES_ALTHOUGH,		/* start says that the second one does not */
	IS_GONE_AT_ONCE,	/* the first, reaped; somebody else holds its socket */
	WAITS_FIRST,		/* before it takes: 15 when told to leave */
	IS_READY_LATE,
	IS_HELD_FIRST,		/* before it takes its seat: while held is set */
};

/* Shared with all processes. */
static struct {
	_Atomic unsigned starts;
	_Atomic enum behaviour behaviour;
	_Atomic int pids[64];
	_Atomic unsigned worker_of[64];
	_Atomic unsigned refuses_from;	/* start fails from so many starts on; 0: never */
	_Atomic pid_t holder;		/* of the socket of the first one */
	_Atomic bool looked_enough;
	_Atomic bool held;
	_Atomic unsigned asked;		/* how often ended was called */
	_Atomic unsigned waits[2];	/* that ended with: leave; there is work */
	_Atomic unsigned units[100];	/* how often each was begun */
} *seen;

static bool without_pidfd, without_pid;
/* ac_pool_opts.ended of the next pool. */
static int (*ended)(void *arg, unsigned worker, struct ac_outcome *outcome);
static struct ac_pool *pool;

/* ---- the worker's side ---- */

/* Of 100 units, from the argument on. */
static inline int run_units(struct ac_call *call)
{
	const unsigned *first = ac_call_arg(call, NULL);
	unsigned n = 0;

	while (ac_call_next_unit(call)) {
		seen->units[*first + n++]++;
		nap(10 * MS);
	}
	return ac_call_return(call, &n, sizeof n);
}

static inline int handle(struct ac_call *call)
{
	size_t len;
	const void *arg = ac_call_arg(call, &len);
	pid_t pid = getpid();

	switch ((uintptr_t)ac_call_function(call)) {
	case HANDLE_ECHO:
		return ac_call_return(call, arg, len);
	case HANDLE_PID:
		return ac_call_return(call, &pid, sizeof pid);
	case HANDLE_NAP:
		nap(*(const int *)arg * MS);
		return 0;
	case HANDLE_DIE:
		die(*(const int *)arg);
		return 0;
	case HANDLE_FAIL:
		return ac_call_fail(call, "words of number %d", HANDLE_FAIL);
	case HANDLE_CURRENT:
		return ac_call_current() != call;
	case HANDLE_UNITS:
		return run_units(call);
	case HANDLE_CLOSE_AND_STAY:
	case HANDLE_CLOSE_ALL:
		for (int fd = 3; fd < 1024; fd++)
			close(fd);
		if (ac_call_function(call) == HANDLER(HANDLE_CLOSE_AND_STAY))
			nap(HANG_SECONDS * SECOND);
		return ac_call_return(call, &pid, sizeof pid);
	default:
		return 77;
	}
}

static inline int serve(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;
	int r = ac_worker_open(&worker, fd);

	if (r < 0)
		return 10;
	if (seen->behaviour == NEVER_IS_READY)
		for (;;)
			pause();
	if (seen->behaviour == SAYS_NOT_READY) {
		ac_worker_ready(worker, -1, "no licence");
		ac_worker_close(worker);
		return 11;
	}
	if (seen->behaviour == IS_READY_LATE)
		nap(2200 * MS);
	if (ac_worker_ready(worker, 0, NULL) < 0)
		return 12;
	if (seen->behaviour == LEAVES_WHEN_READY)
		return 15;
	if (seen->behaviour == WAITS_FIRST) {
		while ((r = ac_worker_wait(worker)) == -EINTR)
			;
		seen->waits[r == 1]++;
		if (r != 1)
			return 15;
	}
	while ((r = ac_worker_take(worker, &call)) != 0) {
		if (r == -EINTR)
			continue;
		if (r != 1)
			return 13;
		if (ac_call_function(call) == HANDLER(HANDLE_LEAVE))
			break;
		ac_worker_done(worker, call, seen->behaviour == RUNS_CALLS ?
					     ac_call_run(call) : handle(call));
		if (ac_call_current())
			return 14;
	}
	ac_worker_close(worker);
	if (r == 1 && seen->behaviour == LIVES_ON)
		nap(HANG_SECONDS * SECOND);
	return 0;
}

/* The library's threads, which may have forked this process, block all signals. */
static inline void be_held(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	while (seen->held)
		nap(MS);
}

static inline pid_t start_one_that_is_gone(void)
{
	pid_t pid = fork();

	while (pid == 0)
		pause();
	seen->holder = pid;
	pid = fork();
	if (pid == 0)
		_exit(9);
	waitpid(pid, NULL, 0);
	return pid;
}

static inline pid_t start_worker(void *arg, unsigned worker, int fd)
{
	enum behaviour behaviour = seen->behaviour;
	unsigned n;
	pid_t pid;

	assert_ptr_equal(arg, seen);
	if (behaviour == REFUSES_TO_START ||
	    (seen->refuses_from && seen->starts >= seen->refuses_from)) {
		seen->starts++;
		return -EPERM;
	}
	fflush(NULL);
	if (behaviour == IS_GONE_AT_ONCE && !seen->starts++)
		return start_one_that_is_gone();
	pid = fork();
	if (pid == 0) {
		alarm(HANG_SECONDS);
		if (behaviour == DIES_AT_ONCE)
			_exit(9);
		while (behaviour == NEVER_SITS_DOWN)
			pause();
		if (behaviour == IS_HELD_FIRST)
			be_held();
		_exit(serve(fd));
	}
	n = seen->starts++;
	seen->pids[n % 64] = pid;
	seen->worker_of[n % 64] = worker;
	if (behaviour == COMES_ALTHOUGH && n == 1) {
		nap(100 * MS); /* it is there, and has been seen */
		return -EPERM;
	}
	return without_pid ? 0 : pid;
}

/* ---- fixtures ---- */

static inline void open_adopting(int workers, int64_t ready_ns, unsigned recycle)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = workers,
				     .start = start_worker,
				     .start_arg = seen,
				     .ended = ended,
				     .ready_ns = ready_ns,
				     .recycle = recycle };

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
}

/* The pool watches; the parent reaps, which is this program. */
static inline void reap_all(void)
{
	int64_t end = now() + 20 * SECOND;

	while (waitpid(-1, NULL, WNOHANG) >= 0 && now() < end)
		nap(MS);
}

static inline int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	if (without_pidfd)
		ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, ENOSYS);
	return 0;
}

static inline int set_up_without_pidfds(void **state)
{
	without_pidfd = true;
	return set_up(state);
}

static inline int set_up_without_pids(void **state)
{
	without_pid = true;
	return set_up(state);
}

static inline int tear_down(void **state)
{
	seen->held = false;
	ac_pool_close(pool);
	pool = NULL;
	reap_all();
	without_pidfd = without_pid = false;
	ended = NULL;
	munmap(seen, sizeof *seen);
	return help_tear_down(state);
}

static inline int call_number(int number, const void *arg, size_t len, struct ac_outcome *outcome)
{
	return ac_pool_call(pool, HANDLER(number), arg, len, NULL, NULL, outcome);
}

static inline void assert_serves(void)
{
	int in = 31, out = 0;
	size_t len = sizeof out;

	assert_int_equal(ac_pool_call(pool, HANDLER(HANDLE_ECHO), &in, sizeof in, &out,
				      &len, NULL), 0);
	assert_int_equal(out, 31);
}

/* Without pidfds the end of its socket is seen, which comes a moment before its own. */
static inline void assert_gone(pid_t pid)
{
	if (without_pidfd || without_pid)
		EVENTUALLY(!is_alive(pid));
	assert_false(is_alive(pid));
}

static inline bool is_unknown(const struct ac_outcome *outcome)
{
	return (without_pidfd || without_pid) && outcome->signal == 0 &&
	       outcome->exit_code == -1;
}

/* ---- all of them ---- */

#define ADOPT_TEST(test)                                                           \
	{ #test, test, set_up, tear_down, NULL },                                  \
	{ #test "_without_pidfds", test, set_up_without_pidfds, tear_down, NULL }, \
	{ #test "_without_pids", test, set_up_without_pids, tear_down, NULL }

#endif

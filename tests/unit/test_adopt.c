/* SPDX-License-Identifier: MIT */
/*
 * Workers that somebody else starts, by section 9 of the public header: a start
 * function that forks processes which sit down and serve by numbers instead of
 * functions; with pidfds, without, and with pids that are not told.
 */
#include "pool_help.h"

enum { HANDLE_ECHO = 1, HANDLE_PID, HANDLE_NAP, HANDLE_DIE, HANDLE_FAIL, HANDLE_LEAVE,
       HANDLE_CURRENT, HANDLE_UNITS };

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
	_Atomic unsigned waits[2];	/* that ended with: leave; there is work */
	_Atomic unsigned units[100];	/* how often each was begun */
} *seen;

static bool without_pidfd, without_pid;
static struct ac_pool *pool;

/* ---- the worker's side ---- */

/* Of 100 units, from the argument on. */
static int run_units(struct ac_call *call)
{
	const unsigned *first = ac_call_arg(call, NULL);
	unsigned n = 0;

	while (ac_call_next_unit(call)) {
		seen->units[*first + n++]++;
		nap(10 * MS);
	}
	return ac_call_return(call, &n, sizeof n);
}

static int handle(struct ac_call *call)
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
	default:
		return 77;
	}
}

static int serve(int fd)
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

static pid_t start_one_that_is_gone(void)
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

static pid_t start_worker(void *arg, unsigned worker, int fd)
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

static void open_adopting(int workers, int64_t ready_ns, unsigned recycle)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = workers,
				     .start = start_worker,
				     .start_arg = seen,
				     .ready_ns = ready_ns,
				     .recycle = recycle };

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
}

/* The pool watches; the parent reaps, which is this program. */
static void reap_all(void)
{
	int64_t end = now() + 20 * SECOND;

	while (waitpid(-1, NULL, WNOHANG) >= 0 && now() < end)
		nap(MS);
}

static int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	if (without_pidfd)
		ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, ENOSYS);
	return 0;
}

static int tear_down(void **state)
{
	ac_pool_close(pool);
	pool = NULL;
	reap_all();
	munmap(seen, sizeof *seen);
	return help_tear_down(state);
}

static int call_number(int number, const void *arg, size_t len, struct ac_outcome *outcome)
{
	return ac_pool_call(pool, HANDLER(number), arg, len, NULL, NULL, outcome);
}

static void assert_serves(void)
{
	int in = 31, out = 0;
	size_t len = sizeof out;

	assert_int_equal(ac_pool_call(pool, HANDLER(HANDLE_ECHO), &in, sizeof in, &out,
				      &len, NULL), 0);
	assert_int_equal(out, 31);
}

/* Without pidfds the end of its socket is seen, which comes a moment before its own. */
static void assert_gone(pid_t pid)
{
	if (without_pidfd || without_pid)
		EVENTUALLY(!is_alive(pid));
	assert_false(is_alive(pid));
}

static bool is_unknown(const struct ac_outcome *outcome)
{
	return (without_pidfd || without_pid) && outcome->signal == 0 &&
	       outcome->exit_code == -1;
}

/* ---- serving ---- */

static void test_adopt_serves_by_numbers(void **state)
{
	size_t lens[] = { 0, 1, 144, 145, 5000, MB, 20 * MB }, len;
	unsigned char *in = malloc(20 * MB), *out = malloc(20 * MB);
	struct ac_outcome outcome;

	(void)state;
	open_adopting(2, 0, 0);
	fill_bytes(in, 20 * MB, 5);
	for (unsigned i = 0; i < COUNT(lens); i++) {
		len = lens[i];
		assert_int_equal(ac_pool_call(pool, HANDLER(HANDLE_ECHO), in, len, out,
					      &len, NULL), 0);
		assert_int_equal(len, lens[i]);
		assert_memory_equal(in, out, len);
	}
	assert_int_equal(call_number(HANDLE_FAIL, NULL, 0, &outcome), AC_ETASK);
	assert_string_equal(outcome.text, "words of number 5");
	assert_int_equal(call_number(999, NULL, 0, &outcome), AC_ETASK);
	assert_int_equal(outcome.value, 77);
	assert_int_equal(seen->starts, 2);
	assert_int_equal(seen->worker_of[0] + seen->worker_of[1], 1);
	free(in);
	free(out);
}

static void test_adopt_tells_pids(void **state)
{
	struct ac_worker_stat stats[2];
	struct ac_outcome outcome;
	pid_t pid = 0;
	size_t len = sizeof pid;

	(void)state;
	open_adopting(2, 0, 0);
	assert_int_equal(ac_pool_call(pool, HANDLER(HANDLE_PID), NULL, 0, &pid, &len,
				      &outcome), 0);
	assert_int_equal(pid, outcome.pid);
	assert_true(pid == seen->pids[0] || pid == seen->pids[1]);
	EVENTUALLY(ac_pool_workers(pool, stats, 2) == 2 &&
		   stats[0].state == AC_WORKER_IDLE && stats[1].state == AC_WORKER_IDLE);
	for (int i = 0; i < 2; i++)
		assert_true(stats[i].pid == seen->pids[0] || stats[i].pid == seen->pids[1]);
}

static void test_adopt_many_in_a_row(void **state)
{
	(void)state;
	open_adopting(3, 0, 0);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(ac_pool_submit(pool, NULL, HANDLER(HANDLE_ECHO), &i,
						sizeof i, NULL), 0);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_serves();
}

static void test_adopt_close_ends_them(void **state)
{
	(void)state;
	open_adopting(3, 0, 0);
	assert_serves();
	assert_int_equal(ac_pool_close(pool), 0);
	pool = NULL;
	for (int i = 0; i < 3; i++)
		assert_gone(seen->pids[i]);
	assert_int_equal(seen->starts, 3);
}

static void test_adopt_terminate_kills_them(void **state)
{
	struct ac_task *task;
	int64_t start = now();
	int ms = 30000;

	(void)state;
	open_adopting(2, 0, 0);
	assert_serves();
	assert_int_equal(ac_pool_submit(pool, &task, HANDLER(HANDLE_NAP), &ms, sizeof ms,
					NULL), 0);
	nap(50 * MS);
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(status_of(task), AC_ECANCELED);
	ac_task_free(task);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_true(now() - start < 5 * SECOND);
	assert_gone(seen->pids[0]);
	assert_gone(seen->pids[1]);
}

static void test_adopt_recycled(void **state)
{
	(void)state;
	open_adopting(2, 0, 3);
	for (int i = 0; i < 30; i++)
		assert_serves();
	assert_true(seen->starts >= 10 && seen->starts <= 12);
}

/* ---- deaths ---- */

static void test_adopt_death_is_told_and_replaced(void **state)
{
	static const int ways[] = { SIGKILL, SIGTERM, -3, 0 };
	struct ac_outcome outcome;
	struct ac_pool_stat stat;

	(void)state;
	open_adopting(2, 0, 0);
	for (unsigned i = 0; i < COUNT(ways); i++) {
		assert_int_equal(call_number(HANDLE_DIE, &ways[i], sizeof ways[i],
					     &outcome), AC_EDIED);
		assert_int_equal(outcome.status, AC_EDIED);
		assert_true(outcome.pid > 0 && outcome.text[0]);
		/* Unreaped as yet, so that how it ended can be seen. */
		if (!is_unknown(&outcome)) {
			assert_int_equal(outcome.signal, ways[i] > 0 ? ways[i] : 0);
			assert_int_equal(outcome.exit_code, ways[i] > 0 ? -1 : -ways[i]);
		}
		assert_serves();
	}
	EVENTUALLY(seen->starts == 2 + COUNT(ways));
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.deaths, COUNT(ways));
	assert_int_equal(stat.failed, COUNT(ways));
}

static void test_adopt_one_that_is_gone_at_once(void **state)
{
	(void)state;
	seen->behaviour = IS_GONE_AT_ONCE;
	open_adopting(1, 0, 0);
	assert_serves();
	assert_int_equal(ac_pool_close(pool), 0);
	pool = NULL;
	kill(seen->holder, SIGKILL);
}

static void *look(void *arg)
{
	struct ac_worker_stat stat;

	while (!seen->looked_enough)
		ac_pool_workers(arg, &stat, 1);
	return NULL;
}

static void test_adopt_one_that_comes_although(void **state)
{
	pthread_t thread;

	(void)state;
	seen->behaviour = COMES_ALTHOUGH;
	open_adopting(1, 0, 0);
	assert_serves();
	seen->looked_enough = false;
	assert_int_equal(pthread_create(&thread, NULL, look, pool), 0);
	kill(seen->pids[0], SIGKILL);
	EVENTUALLY(seen->starts == 2);
	assert_serves();
	seen->looked_enough = true;
	pthread_join(thread, NULL);
	assert_int_equal(seen->starts, 2);
	assert_int_equal(ac_pool_close(pool), 0);
	pool = NULL;
}

static void test_adopt_idle_death_is_replaced(void **state)
{
	(void)state;
	open_adopting(2, 0, 0);
	assert_serves();
	kill(seen->pids[0], SIGKILL);
	kill(seen->pids[1], SIGKILL);
	for (int i = 0; i < 20; i++)
		assert_serves();
	assert_true(seen->starts >= 3);
}

static void test_adopt_leaving_with_a_task_is_a_death(void **state)
{
	struct ac_outcome outcome;

	(void)state;
	open_adopting(1, 0, 0);
	assert_int_equal(call_number(HANDLE_LEAVE, NULL, 0, &outcome), AC_EDIED);
	assert_serves();
	assert_int_equal(seen->starts, 2);
}

static void test_adopt_time_limit_kills(void **state)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .timeout_ns = 100 * MS };
	struct ac_task *task;
	int64_t start = now();
	int ms = 30000;

	(void)state;
	open_adopting(1, 0, 0);
	assert_int_equal(ac_pool_submit(pool, &task, HANDLER(HANDLE_NAP), &ms, sizeof ms,
					&opts), 0);
	assert_int_equal(status_of(task), AC_ETIMEOUT);
	ac_task_free(task);
	assert_serves();
	assert_true(now() - start < 10 * SECOND);
}

static void test_adopt_leaving_and_living_on_is_a_death(void **state)
{
	struct ac_outcome outcome;

	(void)state;
	seen->behaviour = LIVES_ON;
	open_adopting(1, 0, 0);
	assert_int_equal(call_number(HANDLE_LEAVE, NULL, 0, &outcome), AC_EDIED);
	assert_int_equal(outcome.pid, seen->pids[0]);
	assert_serves();
	assert_int_equal(seen->starts, 2);
	kill(seen->pids[0], SIGKILL);
}

/* ---- with the owner's functions ---- */

static int halve(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(int *)result = *(const int *)item / 2;
	return *(const int *)item % 2 || !ac_call_current();
}

static void test_adopt_runs_maps_and_functions(void **state)
{
	int items[500], results[500];

	(void)state;
	seen->behaviour = RUNS_CALLS;
	open_adopting(2, 0, 0);
	for (int i = 0; i < 500; i++)
		items[i] = 2 * i;
	assert_int_equal(ac_pool_map(pool, halve, NULL, items, sizeof *items, results,
				     sizeof *results, 500), 0);
	for (int i = 0; i < 500; i++)
		assert_int_equal(results[i], i);
	items[250] = 1;
	assert_int_equal(ac_pool_map(pool, halve, NULL, items, sizeof *items, results,
				     sizeof *results, 500), AC_ETASK);
	assert_works(pool);
}

static void test_adopt_current_call_is_known(void **state)
{
	(void)state;
	open_adopting(1, 0, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(call_number(HANDLE_CURRENT, NULL, 0, NULL), 0);
	assert_int_equal(seen->starts, 1);
}

/* One of them is woken for the call; closing tells the other. */
static void test_adopt_waiting_before_the_first_task(void **state)
{
	(void)state;
	seen->behaviour = WAITS_FIRST;
	open_adopting(2, 0, 0);
	nap(50 * MS);
	assert_int_equal(seen->waits[1], 0);
	assert_int_equal(call_number(HANDLE_ECHO, "x", 1, NULL), 0);
	assert_int_equal(seen->waits[1], 1);
	assert_int_equal(ac_pool_close(pool), 0);
	pool = NULL;
	assert_int_equal(seen->waits[0], 1);
	assert_int_equal(seen->starts, 2);
	assert_int_equal(ac_worker_wait(NULL), -EINVAL);
}

/* ---- that do not start ---- */

static void assert_never_starts(enum behaviour behaviour, int64_t ready_ns,
				const char *why, unsigned starts_most)
{
	int64_t start = now();
	struct ac_outcome outcome;
	struct ac_task *task = NULL;
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = 2,
				     .start = start_worker,
				     .start_arg = seen,
				     .ready_ns = ready_ns };
	int r;

	seen->behaviour = behaviour;
	r = ac_pool_open(&pool, &opts);
	if (r < 0) {
		assert_true(behaviour == REFUSES_TO_START);
		assert_true(r == -EPERM || r == AC_ESTART);
		return;
	}
	r = ac_pool_submit(pool, &task, HANDLER(HANDLE_ECHO), NULL, 0, NULL);
	if (r == 0) {
		assert_int_equal(status_of(task), AC_ESTART);
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		if (!strstr(outcome.text, why))
			fail_msg("\"%s\" lacks \"%s\"", outcome.text, why);
		ac_task_free(task);
	}
	assert_int_equal(call_number(HANDLE_ECHO, NULL, 0, NULL), AC_ESTART);
	assert_int_equal(ac_pool_close(pool), 0);
	pool = NULL;
	assert_true(seen->starts <= starts_most);
	assert_true(now() - start < 10 * SECOND);
}

static void test_adopt_start_that_fails(void **state)
{
	(void)state;
	assert_never_starts(REFUSES_TO_START, 0, "", 12);
}

static void test_adopt_worker_that_says_no(void **state)
{
	(void)state;
	assert_never_starts(SAYS_NOT_READY, 0, "no licence", 8);
}

static void test_adopt_worker_that_dies_at_once(void **state)
{
	(void)state;
	/* Often: start runs without the lock, in two threads of the owner at once. */
	for (int i = 0; i < 25; i++) {
		seen->starts = 0;
		assert_never_starts(DIES_AT_ONCE, 0, "", 12);
		reap_all();
	}
}

static void test_adopt_worker_that_never_sits_down(void **state)
{
	(void)state;
	assert_never_starts(NEVER_SITS_DOWN, 150 * MS, "in time", 12);
	for (unsigned i = 0; i < seen->starts; i++)
		kill(seen->pids[i], SIGKILL); /* without pidfds nobody else can */
}

static void test_adopt_worker_that_never_is_ready(void **state)
{
	(void)state;
	assert_never_starts(NEVER_IS_READY, 150 * MS, "in time", 12);
}

/* Each one got ready, so none of them is a bad start. */
static void test_adopt_workers_that_leave_as_they_come(void **state)
{
	(void)state;
	assert_never_starts(LEAVES_WHEN_READY, 0, "before they take any work", 150);
}

static void test_adopt_start_that_fails_later(void **state)
{
	int how = SIGKILL, r;

	(void)state;
	open_adopting(1, 0, 0);
	assert_serves();
	seen->behaviour = REFUSES_TO_START;
	assert_int_equal(call_number(HANDLE_DIE, &how, sizeof how, NULL), AC_EDIED);
	r = call_number(HANDLE_ECHO, NULL, 0, NULL);
	assert_int_equal(r, AC_ESTART);
	assert_true(seen->starts <= 12);
}

static void test_adopt_start_that_fails_on_the_way(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = 5,
				     .start = start_worker,
				     .start_arg = seen };
	unsigned descriptors = seats_descriptors();

	(void)state;
	for (unsigned k = 1; k <= 4; k++) {
		seen->starts = 0;
		seen->refuses_from = k;
		assert_int_equal(ac_pool_open(&pool, &opts), -EPERM);
		assert_null(pool);
		/* The one that failed was the last. */
		assert_int_equal(seen->starts, k + 1);
		assert_int_equal(seats_descriptors(), descriptors);
		for (unsigned i = 0; i < k; i++)
			EVENTUALLY(!is_alive(seen->pids[i]));
		reap_all();
	}
}

/* ---- fed streams ---- */

static void test_adopt_fed_streams_and_units(void **state)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	unsigned first = 0, counts[2];
	struct ac_stream *stream;
	uint64_t index;
	uint32_t kept;

	(void)state;
	open_adopting(2, 0, 0);
	assert_int_equal(ac_stream_open(&stream, pool, HANDLER(HANDLE_UNITS), &opts), 0);
	assert_int_equal(ac_stream_push(stream, &first, sizeof first, 100, NULL), 0);
	EVENTUALLY(seen->units[2] == 1);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 1);
	assert_int_equal(index, 0);
	assert_in_range(kept, 3, 99);
	first = kept;
	assert_int_equal(ac_stream_push(stream, &first, sizeof first, 100 - kept, NULL), 0);
	for (int i = 0; i < 2; i++) {
		struct ac_outcome outcome;
		struct ac_task *task;
		const void *data;
		size_t len;

		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		memcpy(&counts[outcome.index], data, sizeof *counts);
		ac_task_free(task);
	}
	assert_int_equal(counts[0], kept);
	assert_int_equal(counts[1], 100 - kept);
	for (int i = 0; i < 100; i++)
		assert_int_equal(seen->units[i], 1);
	ac_stream_close(stream);
}

/* ---- the owner's end ---- */

static int be_owner(void *arg)
{
	int ms = 30000;

	(void)arg;
	open_adopting(2, 0, 0);
	/* One is at work, the other idle. */
	if (ac_pool_submit(pool, NULL, HANDLER(HANDLE_NAP), &ms, sizeof ms, NULL))
		return 1;
	assert_serves();
	raise(SIGKILL);
	return 1;
}

static void test_adopt_workers_die_with_their_owner(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(be_owner, NULL, 20), -SIGKILL);
	assert_int_equal(seen->starts, 2);
	EVENTUALLY(!is_alive(seen->pids[0]) && !is_alive(seen->pids[1]));
}

/* ---- refusals ---- */

static void test_adopt_refuses_what_can_not_be(void **state)
{
	struct ac_worker *worker = NULL;
	struct ac_call *call;
	int fd[2];

	(void)state;
	assert_int_equal(ac_worker_open(NULL, 0), -EINVAL);
	assert_int_equal(ac_worker_open(&worker, -1), -EINVAL);
	assert_int_equal(ac_worker_ready(NULL, 0, NULL), -EINVAL);
	assert_int_equal(ac_worker_take(NULL, &call), -EINVAL);
	ac_worker_close(NULL);
	/* It takes over fd, whatever it returns. */
	assert_int_equal(pipe(fd), 0);
	assert_true(ac_worker_open(&worker, fd[0]) < 0);
	close(fd[1]);
	/* The owner is gone. */
	assert_int_equal(ac__sys_socketpair(fd), 0);
	close(fd[1]);
	assert_int_equal(ac_worker_open(&worker, fd[0]), AC_ECLOSED);
	/* Somebody else's words. */
	assert_int_equal(ac__sys_socketpair(fd), 0);
	assert_int_equal(ac__sys_send(fd[1], "hello", 5, -1), 0);
	assert_int_equal(ac_worker_open(&worker, fd[0]), AC_EVERSION);
	close(fd[1]);
	assert_null(worker);
}

#define ADOPT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ADOPT_TEST(test_adopt_serves_by_numbers),
		ADOPT_TEST(test_adopt_tells_pids),
		ADOPT_TEST(test_adopt_many_in_a_row),
		ADOPT_TEST(test_adopt_close_ends_them),
		ADOPT_TEST(test_adopt_terminate_kills_them),
		ADOPT_TEST(test_adopt_recycled),
		ADOPT_TEST(test_adopt_death_is_told_and_replaced),
		ADOPT_TEST(test_adopt_one_that_is_gone_at_once),
		ADOPT_TEST(test_adopt_one_that_comes_although),
		ADOPT_TEST(test_adopt_idle_death_is_replaced),
		ADOPT_TEST(test_adopt_leaving_with_a_task_is_a_death),
		ADOPT_TEST(test_adopt_time_limit_kills),
		ADOPT_TEST(test_adopt_start_that_fails),
		ADOPT_TEST(test_adopt_worker_that_says_no),
		ADOPT_TEST(test_adopt_worker_that_dies_at_once),
		ADOPT_TEST(test_adopt_worker_that_never_is_ready),
		ADOPT_TEST(test_adopt_waiting_before_the_first_task),
		ADOPT_TEST(test_adopt_workers_that_leave_as_they_come),
		ADOPT_TEST(test_adopt_start_that_fails_later),
		ADOPT_TEST(test_adopt_workers_die_with_their_owner),
		ADOPT_TEST(test_adopt_refuses_what_can_not_be),
		ADOPT_TEST(test_adopt_worker_that_never_sits_down),
		ADOPT_TEST(test_adopt_leaving_and_living_on_is_a_death),
		ADOPT_TEST(test_adopt_runs_maps_and_functions),
		ADOPT_TEST(test_adopt_current_call_is_known),
		ADOPT_TEST(test_adopt_start_that_fails_on_the_way),
		ADOPT_TEST(test_adopt_fed_streams_and_units),
	};
	int r = cmocka_run_group_tests_name("with pidfds", tests, NULL, NULL);

	without_pidfd = true;
	r += cmocka_run_group_tests_name("without pidfds", tests, NULL, NULL);
	without_pidfd = false;
	without_pid = true;
	return r + cmocka_run_group_tests_name("without pids", tests, NULL, NULL);
}

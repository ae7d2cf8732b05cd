/* SPDX-License-Identifier: MIT */
/*
 * Workers that somebody else starts, at work.
 */
#include "adopt_help.h"

#include <poll.h>

static unsigned polls;

/* In libc's place, so that a test sees how often the owner asks. */
int poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec timeout = { ms / 1000, ms % 1000 * MS };

	polls++;
	return ppoll(fds, n, ms < 0 ? NULL : &timeout, NULL);
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

/* Where nobody can be asked how they ended, their own word counts: they were told to. */
static void test_adopt_leaving_while_waiting_is_no_death(void **state)
{
	struct ac_pool_stat stat;

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	seen->behaviour = WAITS_FIRST;
	open_adopting(2, 0, 0);
	nap(50 * MS);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	signal(SIGCHLD, SIG_DFL);
	assert_int_equal(seen->waits[0], 2);
	assert_int_equal(stat.deaths, 0);
}

/* Each one that the epoll does not tell of is asked ten times a second, not at each call. */
static void test_adopt_calls_do_not_look_at_every_worker(void **state)
{
	int64_t start;
	unsigned looks;

	(void)state;
	open_adopting(4, 0, 0);
	assert_serves();
	start = now();
	polls = 0;
	for (int i = 0; i < 500; i++)
		assert_serves();
	looks = 1 + (unsigned)((now() - start) / (100 * MS));
	assert_in_range(polls, 0, 4 * looks);
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
	assert_int_equal(ac_stream_push(stream, &first, sizeof first, UNITS(100), NULL), 0);
	EVENTUALLY(seen->units[2] == 1);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL, &kept), 1);
	assert_int_equal(index, 0);
	assert_in_range(kept, 3, 99);
	first = kept;
	assert_int_equal(ac_stream_push(stream, &first, sizeof first, UNITS(100 - kept), NULL), 0);
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

/* ---- refusals ---- */

/* Its result counts, and ac_worker_take tells it to exit. */
static void test_adopt_worker_that_closed_its_descriptors(void **state)
{
	pid_t pid = 0;
	size_t len = sizeof pid;
	int status = -1;

	(void)state;
	if (without_pid)
		skip(); /* its socket is all that tells of it, and may tell before its result */
	open_adopting(1, 0, 0);
	assert_serves();
	assert_int_equal(ac_pool_call(pool, HANDLER(HANDLE_CLOSE_ALL), NULL, 0, &pid, &len,
				      NULL), 0);
	assert_int_equal(pid, seen->pids[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_serves();
	assert_int_equal(seen->starts, 2);
}

/* Nothing but its pid reaches it any more, and it must not come back to a seat that has another
 * process. */
static void test_adopt_worker_that_closed_its_descriptors_and_stays_is_killed(void **state)
{
	struct ac_outcome outcome;
	int status = -1;

	(void)state;
	if (without_pid)
		skip(); /* then nobody can kill it */
	open_adopting(1, 0, 0);
	assert_serves();
	assert_int_equal(ac_pool_call(pool, HANDLER(HANDLE_CLOSE_AND_STAY), NULL, 0, NULL, NULL,
				      &outcome), AC_EDIED);
	assert_int_equal(waitpid(seen->pids[0], &status, 0), seen->pids[0]);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_serves();
	assert_int_equal(seen->starts, 2);
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		ADOPT_TEST(test_adopt_serves_by_numbers),
		ADOPT_TEST(test_adopt_tells_pids),
		ADOPT_TEST(test_adopt_many_in_a_row),
		ADOPT_TEST(test_adopt_close_ends_them),
		ADOPT_TEST(test_adopt_terminate_kills_them),
		ADOPT_TEST(test_adopt_recycled),
		ADOPT_TEST(test_adopt_runs_maps_and_functions),
		ADOPT_TEST(test_adopt_current_call_is_known),
		ADOPT_TEST(test_adopt_waiting_before_the_first_task),
		ADOPT_TEST(test_adopt_leaving_while_waiting_is_no_death),
		ADOPT_TEST(test_adopt_calls_do_not_look_at_every_worker),
		ADOPT_TEST(test_adopt_fed_streams_and_units),
		ADOPT_TEST(test_adopt_worker_that_closed_its_descriptors),
		ADOPT_TEST(test_adopt_worker_that_closed_its_descriptors_and_stays_is_killed),
		ADOPT_TEST(test_adopt_refuses_what_can_not_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

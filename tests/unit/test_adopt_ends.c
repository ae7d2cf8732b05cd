/* SPDX-License-Identifier: MIT */
/*
 * Workers that somebody else starts, and that die, leave, or never come; and their owner's end.
 */
#include "adopt_help.h"

#include <sched.h>

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

/* ---- that do not start ---- */

static bool both_are_idle(void)
{
	struct ac_worker_stat stats[2];

	return ac_pool_workers(pool, stats, 2) == 2 &&
	       stats[0].state == AC_WORKER_IDLE && stats[1].state == AC_WORKER_IDLE;
}

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

/* Refused each second while the other one takes its time: that one is worth waiting for. */
static void test_adopt_start_that_fails_while_another_comes(void **state)
{
	(void)state;
	open_adopting(2, 0, 0);
	EVENTUALLY(both_are_idle());
	seen->behaviour = IS_READY_LATE;
	seen->refuses_from = 3;
	kill(seen->pids[0], SIGKILL);
	kill(seen->pids[1], SIGKILL);
	assert_serves();
	assert_true(seen->starts >= 3 + 4); /* more refusals than fail a pool that has nobody */
}

/* ---- that others end before they have taken their seats ---- */

/* A call that waits for its worker. */
static struct ac_task *submit_to_held(int workers)
{
	struct ac_task *task;

	seen->behaviour = IS_HELD_FIRST;
	seen->held = true;
	open_adopting(workers, 0, 0);
	assert_int_equal(ac_pool_submit(pool, &task, HANDLER(HANDLE_ECHO), NULL, 0, NULL), 0);
	return task;
}

static void kill_next(unsigned *killed, int signal)
{
	EVENTUALLY(seen->pids[*killed % 64] > 0);
	assert_int_equal(kill(seen->pids[(*killed)++ % 64], signal), 0);
}

/* Twelve, where the third would be the last if it were the worker's own fault. */
static void test_adopt_starts_ended_from_outside_are_tried_again(void **state)
{
	static const int signals[] = { SIGKILL, SIGTERM, SIGINT, SIGHUP };
	unsigned killed = 0;
	struct ac_task *task;

	(void)state;
	/* How a worker ended that has no known pid is not known, either. */
	if (without_pid)
		skip();
	task = submit_to_held(4);
	while (killed < 12)
		kill_next(&killed, signals[killed % 4]);
	seen->held = false;
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
	assert_serves();
	assert_true(seen->starts > 12);
}

/* Other signals are a process's own doing. (cmocka catches most of them in children, too.) */
static void test_adopt_starts_that_crash_are_not(void **state)
{
	static const int signals[] = { SIGABRT, SIGTRAP, SIGXCPU };
	unsigned killed = 0;
	struct ac_task *task;

	(void)state;
	if (without_pid)
		skip();
	task = submit_to_held(1);
	for (unsigned i = 0; i < COUNT(signals); i++)
		kill_next(&killed, signals[i]);
	assert_int_equal(status_of(task), AC_ESTART);
	ac_task_free(task);
	assert_int_equal(seen->starts, 3);
}

static int say_who_killed(void *arg, unsigned worker, struct ac_outcome *outcome)
{
	assert_ptr_equal(arg, seen);
	assert_true(worker < 2);
	assert_int_equal(outcome->status, AC_EDIED);
	assert_true(without_pid || outcome->pid > 0);
	/* The pool's lock is free. */
	assert_int_equal(ac_pool_workers(pool, NULL, 0), 2);
	seen->asked++;
	outcome->signal = SIGTERM;
	outcome->exit_code = -1;
	snprintf(outcome->text, sizeof outcome->text, "the user sent SIGTERM");
	return 0;
}

static int say_it_counts(void *arg, unsigned worker, struct ac_outcome *outcome)
{
	say_who_killed(arg, worker, outcome);
	return 1;
}

/* These exit; but the user is believed. */
static void test_adopt_user_says_that_others_ended_starts(void **state)
{
	struct ac_task *task;

	(void)state;
	seen->behaviour = DIES_AT_ONCE;
	ended = say_who_killed;
	open_adopting(2, 0, 0);
	assert_int_equal(ac_pool_submit(pool, &task, HANDLER(HANDLE_ECHO), NULL, 0, NULL), 0);
	EVENTUALLY(seen->asked >= 8);
	seen->behaviour = SERVES;
	assert_int_equal(status_of(task), 0);
	ac_task_free(task);
}

static void test_adopt_user_says_that_starts_failed(void **state)
{
	struct ac_outcome outcome;
	struct ac_task *task;

	(void)state;
	seen->behaviour = DIES_AT_ONCE;
	ended = say_it_counts;
	open_adopting(2, 0, 0);
	assert_int_equal(ac_pool_submit(pool, &task, HANDLER(HANDLE_ECHO), NULL, 0, NULL), 0);
	assert_int_equal(status_of(task), AC_ESTART);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_non_null(strstr(outcome.text, "the user sent SIGTERM"));
	ac_task_free(task);
	assert_true(seen->asked >= 3 && seen->asked <= 10);
}

/* It has begun: whatever it did there may be why it was killed. */
static void test_adopt_starts_ended_while_they_get_ready_are_not(void **state)
{
	unsigned killed = 0;
	struct ac_task *task;
	struct ac_worker_stat stat;

	(void)state;
	seen->behaviour = NEVER_IS_READY;
	open_adopting(1, 0, 0);
	assert_int_equal(ac_pool_submit(pool, &task, HANDLER(HANDLE_ECHO), NULL, 0, NULL), 0);
	while (killed < 3) {
		EVENTUALLY(seen->starts > killed && ac_pool_workers(pool, &stat, 1) == 1 &&
			   stat.pid == seen->pids[killed]);
		nap(50 * MS);
		kill_next(&killed, SIGKILL);
	}
	assert_int_equal(status_of(task), AC_ESTART);
	ac_task_free(task);
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

static unsigned threads_of(pid_t pid)
{
	char path[64], line[128];
	unsigned threads = 0;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "Threads: %u", &threads) == 1)
			break;
	if (file)
		fclose(file);
	return threads;
}

/* ---- as the first process of a pid namespace ---- */

#define NO_NAMESPACE 77

/* The next child is process 1 there. It may need a namespace of users too. */
static bool enter_namespace(void)
{
	return unshare(CLONE_NEWPID) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0;
}

static int own_first_process(void *arg)
{
	int ms = 30000;

	if (!enter_namespace())
		return NO_NAMESPACE;
	open_adopting(1, 0, 0);
	assert_serves();
	if (*(bool *)arg && ac_pool_submit(pool, NULL, HANDLER(HANDLE_NAP), &ms, sizeof ms, NULL))
		return 1;
	nap(50 * MS);
	raise(SIGKILL);
	return 1;
}

static void test_adopt_first_process_dies_with_its_owner(void **state)
{
	(void)state;
	for (int busy = 0; busy < 2; busy++) {
		bool at_work = busy;
		int r = seats_in_child(own_first_process, &at_work, 20);

		if (r == NO_NAMESPACE)
			skip();
		assert_int_equal(r, -SIGKILL);
		EVENTUALLY(!is_alive(seen->pids[seen->starts - 1]));
	}
}

/* It has left its seat: the pool's end is nothing to it, and the thread that watched is gone. */
static int outlive_the_pool(void *arg)
{
	unsigned threads;

	(void)arg;
	if (!enter_namespace())
		return NO_NAMESPACE;
	seen->behaviour = LIVES_ON;
	open_adopting(1, 0, 0);
	assert_serves();
	threads = threads_of(seen->pids[0]);
	call_number(HANDLE_LEAVE, NULL, 0, NULL);
	seen->behaviour = REFUSES_TO_START;
	ac_pool_terminate(pool);
	ac_pool_close(pool);
	nap(200 * MS);
	SEAT_CHECK(is_alive(seen->pids[0]));
	SEAT_CHECK(threads_of(seen->pids[0]) == threads - 1);
	kill(seen->pids[0], SIGKILL);
	return 0;
}

static void test_adopt_first_process_that_left_lives_on(void **state)
{
	int r;

	(void)state;
	if (without_pid || without_pidfd)
		skip();
	r = seats_in_child(outlive_the_pool, NULL, 20);
	if (r == NO_NAMESPACE)
		skip();
	assert_int_equal(r, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ADOPT_TEST(test_adopt_death_is_told_and_replaced),
		ADOPT_TEST(test_adopt_one_that_is_gone_at_once),
		ADOPT_TEST(test_adopt_one_that_comes_although),
		ADOPT_TEST(test_adopt_idle_death_is_replaced),
		ADOPT_TEST(test_adopt_leaving_with_a_task_is_a_death),
		ADOPT_TEST(test_adopt_time_limit_kills),
		ADOPT_TEST(test_adopt_leaving_and_living_on_is_a_death),
		ADOPT_TEST(test_adopt_start_that_fails),
		ADOPT_TEST(test_adopt_worker_that_says_no),
		ADOPT_TEST(test_adopt_worker_that_dies_at_once),
		ADOPT_TEST(test_adopt_worker_that_never_sits_down),
		ADOPT_TEST(test_adopt_worker_that_never_is_ready),
		ADOPT_TEST(test_adopt_workers_that_leave_as_they_come),
		ADOPT_TEST(test_adopt_start_that_fails_later),
		ADOPT_TEST(test_adopt_start_that_fails_on_the_way),
		ADOPT_TEST(test_adopt_start_that_fails_while_another_comes),
		ADOPT_TEST(test_adopt_starts_ended_from_outside_are_tried_again),
		ADOPT_TEST(test_adopt_starts_that_crash_are_not),
		ADOPT_TEST(test_adopt_starts_ended_while_they_get_ready_are_not),
		ADOPT_TEST(test_adopt_user_says_that_others_ended_starts),
		ADOPT_TEST(test_adopt_user_says_that_starts_failed),
		ADOPT_TEST(test_adopt_workers_die_with_their_owner),
		ADOPT_TEST(test_adopt_first_process_dies_with_its_owner),
		ADOPT_TEST(test_adopt_first_process_that_left_lives_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

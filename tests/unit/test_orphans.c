/* SPDX-License-Identifier: MIT */
/*
 * Processes that nobody can reach by their socket: a worker whose task closed all descriptors,
 * workers whose parent process was killed. They end when they have to, their
 * owner keeps no zombies of them, and a process of the user's is never mistaken for one.
 */
#include "alone_help.h"

#include <sys/prctl.h>

/* All processes see it. */
static struct {
	_Atomic pid_t worker, parent;
} *seen;

static int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	return 0;
}

static int tear_down(void **state)
{
	if (seen->worker > 1 && is_alive(seen->worker))
		kill(seen->worker, SIGKILL); /* the test has failed, and says so itself */
	munmap(seen, sizeof *seen);
	return help_tear_down(state);
}

/* ---- a task that closed all descriptors ---- */

static int close_all_and_stay(struct ac_call *call)
{
	(void)call;
	seen->parent = getppid();
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	seen->worker = getpid();
	for (;;)
		pause();
	return 0;
}

enum way { BY_CANCEL, BY_LIMIT, BY_TERMINATE };

struct stop {
	enum way way;
	bool loses_parent;	/* the worker's parent process is killed first */
};

/* 0: it is to end, and says so. Where the parent is lost its end may have been seen already. */
static int stop_task(struct ac_pool *pool, struct ac_task *task, const struct stop *stop)
{
	struct ac_outcome outcome = { 0 };
	int r;

	switch (stop->way) {
	case BY_CANCEL:
		r = ac_task_cancel(task, 1);
		SEAT_CHECK(r == 0 || (stop->loses_parent && r == -EALREADY));
		break;
	case BY_LIMIT:
		break;
	case BY_TERMINATE:
		SEAT_CHECK(ac_pool_terminate(pool) == 0);
		break;
	}
	SEAT_CHECK(ac_task_wait(task, 10 * SECOND) == 0);
	SEAT_CHECK(ac_task_outcome(task, &outcome) == 0);
	r = outcome.status;
	SEAT_CHECK(r == (stop->way == BY_LIMIT ? AC_ETIMEOUT : AC_ECANCELED) ||
		   (stop->loses_parent && r == AC_EDIED));
	return 0;
}

static int stop_unreachable(void *arg)
{
	const struct stop *stop = arg;
	struct ac_submit_opts opts = { .size = sizeof opts };
	struct ac_pool *pool = open_alone(1);
	struct ac_task *task;
	int64_t start;

	opts.timeout_ns = stop->way == BY_LIMIT ? 500 * MS : 0;
	SEAT_CHECK(pool && works(pool));
	SEAT_CHECK(ac_pool_submit(pool, &task, close_all_and_stay, NULL, 0, &opts) == 0);
	SEAT_CHECK(COMES_TRUE(seen->worker, 10));
	if (stop->loses_parent) {
		SEAT_CHECK(COMES_TRUE(has_reserve(pool), 10));
		kill(seen->parent, SIGKILL);
		SEAT_CHECK(COMES_TRUE(!is_alive(seen->parent), 5));
	}
	SEAT_CHECK(stop_task(pool, task, stop) == 0);
	SEAT_CHECK(COMES_TRUE(!is_alive(seen->worker), 5));
	if (stop->way != BY_TERMINATE)
		SEAT_CHECK(works(pool)); /* by another worker */
	ac_task_free(task);
	start = now();
	SEAT_CHECK(ac_pool_close(pool) == 0);
	/* Workers that do not leave are given ten seconds. */
	SEAT_CHECK(now() - start < 5 * SECOND);
	return 0;
}

static void test_orphans_task_without_descriptors_is_cancelled(void **state)
{
	struct stop stop = { .way = BY_CANCEL };

	(void)state;
	ALONE(stop_unreachable, &stop);
}

static void test_orphans_task_without_descriptors_is_limited(void **state)
{
	struct stop stop = { .way = BY_LIMIT };

	(void)state;
	ALONE(stop_unreachable, &stop);
}

static void test_orphans_task_without_descriptors_is_terminated(void **state)
{
	struct stop stop = { .way = BY_TERMINATE };

	(void)state;
	ALONE(stop_unreachable, &stop);
}

static void test_orphans_task_without_descriptors_or_parent_is_cancelled(void **state)
{
	struct stop stop = { .way = BY_CANCEL, .loses_parent = true };

	(void)state;
	ALONE(stop_unreachable, &stop);
}

static void test_orphans_task_without_descriptors_or_parent_is_limited(void **state)
{
	struct stop stop = { .way = BY_LIMIT, .loses_parent = true };

	(void)state;
	ALONE(stop_unreachable, &stop);
}

static void test_orphans_task_without_descriptors_or_parent_is_terminated(void **state)
{
	struct stop stop = { .way = BY_TERMINATE, .loses_parent = true };

	(void)state;
	ALONE(stop_unreachable, &stop);
}

/* ---- workers of two parents ---- */

static bool both_idle(struct ac_pool *pool, struct ac_worker_stat stats[2], pid_t but)
{
	return ac_pool_workers(pool, stats, 2) == 2 && stats[0].state == AC_WORKER_IDLE &&
	       stats[1].state == AC_WORKER_IDLE && stats[1].pid != but;
}

/* The first is an orphan, and slow to leave. The second has another parent, which leaves with it. */
static int leave_one_after_the_other(void *arg)
{
	struct ac_pool *pool = open_alone(2);
	struct ac_worker_stat stats[2];
	pid_t second;
	int r;

	(void)arg;
	SEAT_CHECK(pool && COMES_TRUE(both_idle(pool, stats, 0), 10));
	second = stats[1].pid;
	SEAT_CHECK(kill_parent_of_workers(pool));
	SEAT_CHECK(kill(second, SIGKILL) == 0);
	SEAT_CHECK(COMES_TRUE(both_idle(pool, stats, second), 10));
	seen->worker = stats[0].pid;
	SEAT_CHECK(kill(seen->worker, SIGSTOP) == 0);
	SEAT_CHECK(ac_pool_shut(pool) == 0);
	r = ac_pool_join(pool, SECOND);
	SEAT_CHECK(is_alive(seen->worker));
	SEAT_CHECK(r == -ETIMEDOUT);
	SEAT_CHECK(kill(seen->worker, SIGCONT) == 0);
	SEAT_CHECK(ac_pool_join(pool, 10 * SECOND) == 0);
	SEAT_CHECK(!is_alive(seen->worker));
	return ac_pool_close(pool);
}

static void test_orphans_are_waited_for_after_the_next_parent_has_left(void **state)
{
	(void)state;
	ALONE(leave_one_after_the_other, NULL);
}

/* ---- an owner to which orphans come: process 1 of a container, or any subreaper ---- */

/* A child of the user's that stays until it is killed, or until this process ends. */
static pid_t fork_sleeper(void)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	for (;;)
		pause();
}

static bool has_no_children(void)
{
	return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

#define NO_SUBREAPER 77

static int leave_no_zombies(void *arg)
{
	bool replaces = *(bool *)arg;
	int how = SIGKILL, status;
	struct ac_pool *pool;
	pid_t ended, lives;

	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
		return NO_SUBREAPER;
	ended = fork();
	if (ended == 0)
		_exit(7);
	lives = fork_sleeper();
	pool = open_alone(replaces ? 1 : 3);
	SEAT_CHECK(pool && kill_parent_of_workers(pool));
	for (int i = 0; i < 10; i++)
		SEAT_CHECK(works(pool));
	if (replaces) {
		SEAT_CHECK(ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL) ==
			   AC_EDIED);
		SEAT_CHECK(works(pool));
		SEAT_CHECK(kill_parent_of_workers(pool));
	}
	SEAT_CHECK(ac_pool_close(pool) == 0);
	/* The user's own: still there, and theirs to be reaped. */
	SEAT_CHECK(waitpid(ended, &status, 0) == ended && WEXITSTATUS(status) == 7);
	SEAT_CHECK(kill(lives, SIGKILL) == 0);
	SEAT_CHECK(waitpid(lives, &status, 0) == lives && WTERMSIG(status) == SIGKILL);
	SEAT_CHECK(has_no_children());
	return 0;
}

/* An emulator may not know subreapers. */
static void assert_no_zombies(bool replaces)
{
	int r = status_alone(leave_no_zombies, &replaces, ALONE_SECONDS);

	if (r == NO_SUBREAPER)
		skip();
	assert_int_equal(r, 0);
}

static void test_orphans_leave_no_zombies_in_a_subreaper(void **state)
{
	(void)state;
	assert_no_zombies(false);
}

static void test_orphans_replaced_leave_no_zombies_in_a_subreaper(void **state)
{
	(void)state;
	assert_no_zombies(true);
}

/* ---- an owner whose SIGCHLD handler reaps whatever has ended ---- */

static volatile sig_atomic_t reaped;
static pid_t stranger;
static volatile sig_atomic_t stranger_ended;

static void reap_any(int signal)
{
	int error = errno;
	pid_t pid;

	(void)signal;
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
		reaped++;
		if (pid == stranger)
			stranger_ended = 1;
	}
	errno = error;
}

static void reap_by_handler(void)
{
	struct sigaction action = { .sa_handler = reap_any, .sa_flags = SA_RESTART };

	sigaction(SIGCHLD, &action, NULL);
}

static int open_and_close_often(void *arg)
{
	(void)arg;
	reap_by_handler();
	for (int i = 0; i < (int)seats_scaled(200); i++) {
		struct ac_pool *pool = open_alone(1 + i % 3);

		SEAT_CHECK(pool);
		SEAT_CHECK(i % 2 || works(pool));
		SEAT_CHECK(ac_pool_close(pool) == 0);
	}
	return 0;
}

static void test_orphans_pools_live_with_a_handler_that_reaps(void **state)
{
	(void)state;
	ALONE(open_and_close_often, NULL);
}

#define CAN_NOT_CHOOSE 77

/* A child with this pid, where it is free and the system lets us choose. */
static pid_t fork_as(pid_t wanted)
{
	for (int i = 0; i < 50; i++) {
		FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "w");
		pid_t pid;

		if (!file)
			return -1;
		fprintf(file, "%d", (int)wanted - 1);
		if (fclose(file) != 0)
			return -1;
		pid = fork_sleeper();
		if (pid == wanted)
			return pid;
		kill(pid, SIGKILL);
	}
	return -1;
}

/* The worker's parent process is reaped by the handler, and its pid given to a child of the
 * user's, before the pool hears of it. */
static int give_its_pid_away(void *arg)
{
	bool works_on = *(bool *)arg;
	int how = SIGKILL;
	struct ac_pool *pool;
	pid_t parent;

	reap_by_handler();
	pool = open_alone(1);
	SEAT_CHECK(pool && COMES_TRUE(has_reserve(pool), 10));
	parent = parent_of_workers(pool);
	SEAT_CHECK(parent > 1 && kill(parent, SIGKILL) == 0);
	SEAT_CHECK(COMES_TRUE(reaped, 5));
	stranger = fork_as(parent);
	if (stranger < 0) {
		ac_pool_close(pool);
		return CAN_NOT_CHOOSE;
	}
	if (works_on) {
		SEAT_CHECK(ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL) ==
			   AC_EDIED);
		SEAT_CHECK(works(pool));
	}
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(!stranger_ended && is_alive(stranger));
	kill(stranger, SIGKILL);
	SEAT_CHECK(COMES_TRUE(stranger_ended, 5));
	return 0;
}

static void spare_the_stranger(bool works_on)
{
	int r = status_alone(give_its_pid_away, &works_on, 10);

	if (r == CAN_NOT_CHOOSE)
		skip();
	assert_int_equal(r, 0);
}

static void test_orphans_stranger_with_the_pid_survives_close(void **state)
{
	(void)state;
	spare_the_stranger(false);
}

static void test_orphans_stranger_with_the_pid_survives_a_replacement(void **state)
{
	(void)state;
	spare_the_stranger(true);
}

/* ---- the parent is lost while the pool closes ---- */

struct late_kill {
	pid_t pid;
	int64_t after_ns;
};

static void *kill_later(void *arg)
{
	const struct late_kill *late = arg;

	nap(late->after_ns);
	kill(late->pid, SIGKILL);
	return NULL;
}

static int lose_parent_while_closing(void *arg)
{
	int ms = 10;

	(void)arg;
	for (int i = 0; i < (int)seats_scaled(40); i++) {
		struct late_kill late = { .after_ns = i * 2 * MS };
		struct ac_pool *pool = open_alone(3);
		pthread_t thread;

		SEAT_CHECK(pool);
		late.pid = parent_of_workers(pool);
		SEAT_CHECK(late.pid > 1);
		for (int k = 0; k < 9; k++)
			SEAT_CHECK(ac_pool_submit(pool, NULL, nap_ms, &ms, sizeof ms, NULL) == 0);
		SEAT_CHECK(!pthread_create(&thread, NULL, kill_later, &late));
		SEAT_CHECK(ac_pool_close(pool) == 0);
		pthread_join(thread, NULL);
	}
	return 0;
}

static void test_orphans_parent_is_lost_while_closing(void **state)
{
	(void)state;
	ALONE_FOR(lose_parent_while_closing, NULL, 30);
}

#define ORPHANS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ORPHANS_TEST(test_orphans_task_without_descriptors_is_cancelled),
		ORPHANS_TEST(test_orphans_task_without_descriptors_is_limited),
		ORPHANS_TEST(test_orphans_task_without_descriptors_is_terminated),
		ORPHANS_TEST(test_orphans_task_without_descriptors_or_parent_is_cancelled),
		ORPHANS_TEST(test_orphans_task_without_descriptors_or_parent_is_limited),
		ORPHANS_TEST(test_orphans_task_without_descriptors_or_parent_is_terminated),
		ORPHANS_TEST(test_orphans_are_waited_for_after_the_next_parent_has_left),
		ORPHANS_TEST(test_orphans_leave_no_zombies_in_a_subreaper),
		ORPHANS_TEST(test_orphans_replaced_leave_no_zombies_in_a_subreaper),
		ORPHANS_TEST(test_orphans_pools_live_with_a_handler_that_reaps),
		ORPHANS_TEST(test_orphans_stranger_with_the_pid_survives_close),
		ORPHANS_TEST(test_orphans_stranger_with_the_pid_survives_a_replacement),
		ORPHANS_TEST(test_orphans_parent_is_lost_while_closing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

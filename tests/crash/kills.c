/* SPDX-License-Identifier: MIT */
/*
 * Deaths and stops that are chosen: all workers at once, the template (the process that
 * starts and reaps the workers), both together, a worker that is stopped for a while and
 * not dead at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "crash.h"

#define WORKERS 3
#define TASKS 30
/* On a busy machine the first of WORKERS naps must not end before the last begins. */
#define LONG_NAP (500 * MS)

static struct crash_print before;
static struct ac_pool *pool;
static pid_t template, workers[WORKERS];
static struct ac_task *tasks[TASKS];

/* ---- what tasks run ---- */

static int nap_call(struct ac_call *call)
{
	int64_t ns = *(const int64_t *)ac_call_arg(call, NULL);
	pid_t me = getpid();

	crash_sleep(ns);
	return ac_call_return(call, &me, sizeof me);
}

static int endless_call(struct ac_call *call)
{
	(void)call;
	for (;;)
		crash_burn(SECOND);
	return 0;
}

/* ---- steps ---- */

/* With a reserve: so the template may be killed. */
static void look_at_workers(void)
{
	struct ac_worker_stat stats[WORKERS];

	CHECK(crash_await_workers(pool, 10 * SECOND));
	CHECK(crash_await_reserve(pool, 10 * SECOND));
	template = crash_template_of(pool);
	CHECK_EQ(ac_pool_workers(pool, stats, WORKERS), WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		workers[i] = stats[i].pid;
}

static void open_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };

	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	look_at_workers();
}

static void close_pool(int64_t within)
{
	struct ac_pool_stat stat;
	int64_t start;

	crash_check_sum(pool, &stat);
	crash_check_blocks(pool, 0);
	start = crash_now();
	CHECK_EQ(ac_pool_close(pool), 0);
	CHECK(crash_now() - start < within);
	crash_print_check(&before);
}

static void submit(unsigned n, ac_call_fn *fn, int64_t ns)
{
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(ac_pool_submit(pool, &tasks[i], fn, &ns, sizeof ns,
					NULL), 0);
}

/* So many are in workers' hands. */
static void await_running(unsigned n)
{
	struct ac_pool_stat stat = { 0 };
	int64_t end = crash_now() + 5 * SECOND;

	while (stat.running < n) {
		CHECK(crash_now() < end);
		CHECK_EQ(ac_pool_stat(pool, &stat, sizeof stat), 0);
		crash_sleep(MS);
	}
}

/* How many died of signal (0: that is not known); all others succeeded. */
static unsigned collect(unsigned n, int signal)
{
	struct ac_outcome outcome;
	unsigned died = 0;

	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(ac_task_wait(tasks[i], 10 * SECOND), 0);
		CHECK_EQ(ac_task_outcome(tasks[i], &outcome), 0);
		ac_task_free(tasks[i]);
		if (outcome.status == 0)
			continue;
		CHECK_EQ(outcome.status, AC_EDIED);
		if (signal)
			CHECK_EQ(outcome.signal, signal);
		died++;
	}
	return died;
}

/* Dying takes a moment: who is not waited for might be killed again as a new one. */
static void kill_workers(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		kill(workers[i], SIGKILL);
	for (unsigned i = 0; i < WORKERS; i++)
		crash_await_death(workers[i], 3 * SECOND);
}

/* ---- all workers ---- */

static void kill_all_idle(void *arg)
{
	struct ac_pool_stat stat;

	(void)arg;
	open_pool();
	for (unsigned round = 1; round <= 20; round++) {
		kill_workers();
		crash_check_usable(pool);
		look_at_workers();
	}
	crash_check_sum(pool, &stat);
	CHECK_EQ(stat.deaths, 20 * WORKERS);
	CHECK_EQ(stat.failed, 0);
	close_pool(2 * SECOND);
}

static void kill_all_busy(void *arg)
{
	(void)arg;
	open_pool();
	for (unsigned round = 0; round < 10; round++) {
		submit(TASKS, nap_call, 10 * MS);
		await_running(WORKERS);
		kill_workers();
		/* One may just have been between two tasks. */
		CHECK(collect(TASKS, SIGKILL) <= WORKERS);
		look_at_workers();
	}
	crash_check_usable(pool);
	close_pool(2 * SECOND);
}

static int slow_init(void *arg)
{
	(void)arg;
	crash_sleep(100 * MS);
	return 0;
}

static void kill_starting(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .init = slow_init };

	(void)arg;
	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	while ((template = crash_template(getpid())) == 0 ||
	       crash_workers(template, workers, WORKERS) < WORKERS)
		crash_sleep(MS);
	kill(workers[1], SIGKILL);
	crash_check_usable(pool);
	look_at_workers();
	close_pool(2 * SECOND);
}

/* ---- the template ---- */

static void check_same_workers(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		CHECK(crash_lives(workers[i]));
}

static void kill_template_idle(void *arg)
{
	(void)arg;
	open_pool();
	kill(template, SIGKILL);
	CHECK(crash_await_death(template, SECOND));
	crash_check_usable(pool);
	check_same_workers();
	close_pool(2 * SECOND);
}

static void kill_template_busy(void *arg)
{
	(void)arg;
	open_pool();
	submit(TASKS, nap_call, 20 * MS);
	await_running(WORKERS);
	kill(template, SIGKILL);
	CHECK_EQ(collect(TASKS, 0), 0);
	check_same_workers();
	crash_check_usable(pool);
	close_pool(2 * SECOND);
}

/* Its workers have no parent that would tell us of their end. */
static void kill_worker_after_template(void *arg)
{
	(void)arg;
	open_pool();
	kill(template, SIGKILL);
	CHECK(crash_await_death(template, SECOND));
	submit(WORKERS, nap_call, LONG_NAP);
	await_running(WORKERS);
	kill(workers[0], SIGKILL);
	CHECK_EQ(collect(WORKERS, 0), 1);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	/* The replacement was started by the reserve. */
	CHECK(crash_template_of(pool) > 0);
	kill(workers[1], SIGKILL);
	kill(workers[2], SIGKILL);
	crash_check_usable(pool);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	close_pool(2 * SECOND);
}

static void kill_template_and_workers(void *arg)
{
	bool busy = *(bool *)arg;

	open_pool();
	for (unsigned round = 0; round < 10; round++) {
		if (busy) {
			submit(TASKS, nap_call, 5 * MS);
			await_running(WORKERS);
		}
		kill(template, SIGKILL);
		kill_workers();
		if (busy)
			CHECK(collect(TASKS, 0) <= WORKERS);
		crash_check_usable(pool);
		look_at_workers();
	}
	close_pool(2 * SECOND);
}

/* Whoever starts a replacement reports its end, and nobody else does: told twice, the
 * owner would take the next one for dead, and the template would wait for one too many. */
static void lose_start_order(void *arg)
{
	struct ac_worker_stat stats[WORKERS];
	struct ac_pool_stat stat;

	(void)arg;
	open_pool();
	kill(workers[0], SIGKILL);
	CHECK(crash_await_death(workers[0], SECOND));
	/* By now it has been reported, to an owner who does not look. */
	crash_sleep(20 * MS);
	kill(template, SIGKILL);
	CHECK(crash_await_death(template, SECOND));
	for (unsigned round = 0; round < 20; round++) {
		crash_check_usable(pool);
		CHECK(crash_await_workers(pool, 5 * SECOND));
		ac_pool_workers(pool, stats, WORKERS);
		submit(TASKS, nap_call, MS);
		kill(stats[0].pid, SIGKILL);
		CHECK(collect(TASKS, 0) <= 1);
		CHECK(crash_await_death(stats[0].pid, SECOND));
	}
	CHECK(crash_await_workers(pool, 5 * SECOND));
	crash_check_sum(pool, &stat);
	CHECK_EQ(stat.deaths, 21);
	close_pool(2 * SECOND);
}

/* The worker is condemned, and the order to kill it dies with the template. */
static void lose_kill_order(void *arg)
{
	struct ac_outcome outcome;

	(void)arg;
	open_pool();
	submit(1, endless_call, 0);
	await_running(1);
	kill(template, SIGSTOP);
	CHECK_EQ(ac_task_cancel(tasks[0], 1), 0);
	CHECK_EQ(ac_task_outcome(tasks[0], &outcome), 0);
	CHECK_EQ(outcome.status, AC_ECANCELED);
	ac_task_free(tasks[0]);
	kill(template, SIGKILL);
	crash_check_usable(pool);
	CHECK(crash_await_death(workers[0], 3 * SECOND) ||
	      crash_await_death(workers[1], 0) ||
	      crash_await_death(workers[2], 0));
	close_pool(2 * SECOND);
}

static void lose_kill_orders_of_terminate(void *arg)
{
	(void)arg;
	open_pool();
	submit(WORKERS, endless_call, 0);
	await_running(WORKERS);
	kill(template, SIGSTOP);
	CHECK_EQ(ac_pool_terminate(pool), 0);
	kill(template, SIGKILL);
	for (unsigned i = 0; i < WORKERS; i++)
		ac_task_free(tasks[i]);
	CHECK_EQ(ac_pool_join(pool, 3 * SECOND), 0);
	close_pool(2 * SECOND);
}

/* ---- stopped, not dead ---- */

/* Whoever was rung sleeps on: the others must come to it all the same. */
static void stop_idle(void *arg)
{
	int64_t start;

	(void)arg;
	open_pool();
	for (unsigned i = 0; i < WORKERS; i++) {
		kill(workers[i], SIGSTOP);
		start = crash_now();
		submit(TASKS, nap_call, MS);
		CHECK_EQ(collect(TASKS, 0), 0);
		CHECK(crash_now() - start < 2500 * MS);
		kill(workers[i], SIGCONT);
		crash_check_usable(pool);
	}
	close_pool(2 * SECOND);
}

static void stop_busy(void *arg)
{
	(void)arg;
	open_pool();
	submit(WORKERS, nap_call, LONG_NAP);
	await_running(WORKERS);
	kill(workers[0], SIGSTOP);
	crash_check_usable(pool);
	crash_sleep(LONG_NAP);
	CHECK_EQ(ac_task_ready(tasks[0]) + ac_task_ready(tasks[1]) +
		 ac_task_ready(tasks[2]), WORKERS - 1);
	kill(workers[0], SIGCONT);
	CHECK_EQ(collect(WORKERS, 0), 0);
	close_pool(2 * SECOND);
}

static void stop_and_kill(void *arg)
{
	(void)arg;
	open_pool();
	submit(WORKERS, nap_call, LONG_NAP);
	await_running(WORKERS);
	kill(workers[0], SIGSTOP);
	crash_sleep(LONG_NAP);
	kill(workers[0], SIGKILL);
	CHECK_EQ(collect(WORKERS, SIGKILL), 1);
	crash_check_usable(pool);
	close_pool(2 * SECOND);
}

/* Told to leave, it does not hear: it is killed in the end. */
static void close_with_one_stopped(void *arg)
{
	(void)arg;
	open_pool();
	kill(workers[0], SIGSTOP);
	close_pool(12 * SECOND);
}

/* The same for who only joins; a limit that comes first changes nothing. */
static void join_with_stopped(void *arg)
{
	const bool *stop_template = arg;

	open_pool();
	kill(*stop_template ? template : workers[0], SIGSTOP);
	CHECK_EQ(ac_pool_shut(pool), 0);
	CHECK_EQ(ac_pool_join(pool, SECOND), -ETIMEDOUT);
	CHECK_EQ(ac_pool_join(pool, 15 * SECOND), 0);
	close_pool(2 * SECOND);
}

/* A look now and then counts as waiting. */
static void join_by_looks(void *arg)
{
	const bool *stop = arg;
	int64_t end = crash_now() + (*stop ? 15 : 5) * SECOND;
	int r;

	open_pool();
	if (*stop)
		kill(workers[0], SIGSTOP);
	CHECK_EQ(ac_pool_shut(pool), 0);
	while ((r = ac_pool_join(pool, 0)) == -ETIMEDOUT) {
		CHECK(crash_now() < end);
		crash_sleep(100 * MS);
	}
	CHECK_EQ(r, 0);
	close_pool(2 * SECOND);
}

static int init_beyond_patience(void *arg)
{
	(void)arg;
	crash_sleep(13 * SECOND);
	return 0;
}

/* Nobody is deaf, and the template reaps them all: an owner that adopts orphans gets none. */
static void join_with_starting(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .init = init_beyond_patience };

	(void)arg;
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	while ((template = crash_template(getpid())) == 0 ||
	       crash_workers(template, workers, WORKERS) < WORKERS)
		crash_sleep(MS);
	CHECK_EQ(ac_pool_shut(pool), 0);
	CHECK_EQ(ac_pool_join(pool, 20 * SECOND), 0);
	close_pool(2 * SECOND);
}

static const struct {
	const char *name;
	void (*fn)(void *arg);
	bool arg;
} patient[] = {
	{ "closed with a worker stopped", close_with_one_stopped, false },
	{ "joined with a worker stopped", join_with_stopped, false },
	{ "joined with the template stopped", join_with_stopped, true },
	{ "joined by looks with a worker stopped", join_by_looks, true },
	{ "joined with workers in their initialisers", join_with_starting, false },
};

#define PATIENT (sizeof patient / sizeof *patient)

/* Each waits for ten seconds, so they do so together, each in a process of its own. */
static void wait_together(void *arg)
{
	pid_t pids[PATIENT];

	(void)arg;
	fflush(NULL);
	for (unsigned i = 0; i < PATIENT; i++) {
		pids[i] = fork();
		CHECK(pids[i] >= 0);
		if (pids[i] == 0) {
			bool flag = patient[i].arg;

			patient[i].fn(&flag);
			crash_note("passed: %s", patient[i].name);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < PATIENT; i++)
		crash_await_success(pids[i], 30 * SECOND);
}

int main(int argc, char **argv)
{
	bool no = false, yes = true;

	crash_begin(argc, argv);
	crash_case("all workers killed, idle", kill_all_idle, NULL, 20);
	crash_case("all workers killed, busy", kill_all_busy, NULL, 20);
	crash_case("a worker killed in its initialiser", kill_starting, NULL, 10);
	crash_case("the template killed, idle", kill_template_idle, NULL, 10);
	crash_case("the template killed, busy", kill_template_busy, NULL, 10);
	crash_case("workers killed after their template",
		   kill_worker_after_template, NULL, 15);
	crash_case("template and workers killed, idle",
		   kill_template_and_workers, &no, 20);
	crash_case("template and workers killed, busy",
		   kill_template_and_workers, &yes, 20);
	crash_case("a start order dies with the template", lose_start_order, NULL, 20);
	crash_case("a kill order dies with the template", lose_kill_order, NULL, 20);
	crash_case("terminate's orders die with the template",
		   lose_kill_orders_of_terminate, NULL, 20);
	crash_case("a worker stopped, idle", stop_idle, NULL, 20);
	crash_case("a worker stopped, busy, and continued", stop_busy, NULL, 10);
	crash_case("a worker stopped, busy, and killed", stop_and_kill, NULL, 10);
	crash_case("joined by looks", join_by_looks, &no, 10);
	if (!CRASH_SANITIZED) /* it waits for long, and touches nothing new */
		crash_case("closed and joined with workers that do not leave",
			   wait_together, NULL, 40);
	return crash_end();
}

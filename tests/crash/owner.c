/* SPDX-License-Identifier: MIT */
/*
 * The owner is killed, whatever it and its workers are doing: within a second
 * none of the pool's processes is left. The case's process looks on: it forks the owner,
 * and all that the owner leaves behind becomes its child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"

#define WORKERS 3
#define PIDS 64

static int said[2]; /* from the owner: what is to be killed is there */
static struct ac_pool *pool;

/* ---- what tasks run ---- */

static int nap_item(const void *item, void *result, const void *bound)
{
	(void)item;
	(void)result;
	(void)bound;
	crash_sleep(MS);
	return 0;
}

static int nap_call(struct ac_call *call)
{
	(void)call;
	crash_sleep(20 * SECOND);
	return 0;
}

static int endless_call(struct ac_call *call)
{
	(void)call;
	for (;;)
		crash_burn(SECOND);
	return 0;
}

/* Nothing short of SIGKILL ends it. */
static int stubborn_call(struct ac_call *call)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	return endless_call(call);
}

/* ---- what owners do ---- */

static void say(void)
{
	if (write(said[1], "", 1) != 1)
		_exit(1);
}

static void open_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };

	if (ac_pool_open(&pool, &opts) < 0 ||
	    !crash_await_workers(pool, 5 * SECOND))
		_exit(1);
}

static void start_tasks(ac_call_fn *fn)
{
	struct ac_pool_stat stat = { 0 };

	for (unsigned i = 0; i < WORKERS; i++) {
		if (ac_pool_submit(pool, NULL, fn, NULL, 0, NULL) < 0)
			_exit(1);
		/* One by one, so that each has one. */
		while (stat.running <= i) {
			crash_sleep(MS);
			ac_pool_stat(pool, &stat, sizeof stat);
		}
	}
}

static void be_idle(void)
{
	open_pool();
	say();
	pause();
}

static void map_for_ever(void)
{
	open_pool();
	say();
	ac_pool_map(pool, nap_item, NULL, NULL, 0, NULL, 0, 1000000);
}

static void loop_for_ever(void)
{
	open_pool();
	start_tasks(endless_call);
	say();
	pause();
}

static void be_stubborn(void)
{
	open_pool();
	start_tasks(stubborn_call);
	say();
	pause();
}

static void close_for_long(void)
{
	open_pool();
	start_tasks(nap_call);
	say();
	ac_pool_close(pool);
}

static void exit_unclosed(void)
{
	open_pool();
	start_tasks(endless_call);
	say();
	exit(0);
}

static void lose_template(void)
{
	open_pool();
	start_tasks(endless_call);
	kill(crash_template(getpid()), SIGKILL);
	crash_sleep(50 * MS);
	say();
	pause();
}

static void open_and_close(void)
{
	say();
	for (;;) {
		open_pool();
		ac_pool_map(pool, nap_item, NULL, NULL, 0, NULL, 0, 10);
		ac_pool_close(pool);
	}
}

/* ---- who looks on ---- */

static pid_t start_owner(void (*be_owner)(void))
{
	char byte;
	pid_t pid;

	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	CHECK_EQ(pipe(said), 0);
	pid = fork();
	if (pid == 0) {
		close(said[0]);
		be_owner();
		_exit(1);
	}
	close(said[1]);
	CHECK_EQ(read(said[0], &byte, 1), 1);
	close(said[0]);
	return pid;
}

/* All others follow it within a second. */
static void end_owner(pid_t owner)
{
	int64_t end = crash_now() + SECOND;
	int status = 0;
	pid_t pid;

	kill(owner, SIGKILL);
	CHECK_EQ(waitpid(owner, &status, 0), owner);
	CHECK(status == 0 || WIFSIGNALED(status));
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (crash_now() > end)
			crash_fail(__FILE__, __LINE__, "processes are left");
		if (pid == 0)
			crash_sleep(MS);
	}
	CHECK_EQ(errno, ECHILD);
}

static void kill_owner(void *be_owner)
{
	pid_t owner = start_owner(be_owner);

	crash_sleep(20 * MS);
	end_owner(owner);
}

static void kill_owner_of_stopped(void *be_owner)
{
	pid_t owner = start_owner(be_owner), pids[PIDS];
	unsigned n = crash_workers(crash_template(owner), pids, PIDS);

	CHECK_EQ(n, WORKERS);
	for (unsigned i = 0; i < n; i++)
		kill(pids[i], SIGSTOP);
	crash_sleep(20 * MS);
	end_owner(owner);
}

static void kill_owner_any_time(void *be_owner)
{
	uint64_t seed = crash_seed;

	for (unsigned round = 0; round < 60; round++) {
		pid_t owner = start_owner(be_owner);

		crash_sleep((int64_t)(crash_random(&seed) % (uint64_t)(15 * MS)));
		end_owner(owner);
	}
}

/* ---- its opening thread ends, another goes on ---- */

static void *open_in_thread(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };

	(void)arg;
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	return NULL;
}

static void outlive_thread(void *arg)
{
	pid_t workers[WORKERS];
	struct crash_print before;
	pthread_t thread;

	(void)arg;
	/* Once before: what the C library keeps of a thread is none of ours. */
	CHECK_EQ(pthread_create(&thread, NULL, open_in_thread, NULL), 0);
	pthread_join(thread, NULL);
	ac_pool_close(pool);
	crash_print_take(&before);
	CHECK_EQ(pthread_create(&thread, NULL, open_in_thread, NULL), 0);
	pthread_join(thread, NULL);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	CHECK_EQ(crash_workers(crash_template(getpid()), workers, WORKERS),
		 WORKERS);
	crash_sleep(200 * MS);
	crash_check_usable(pool);
	for (unsigned i = 0; i < WORKERS; i++)
		CHECK(crash_lives(workers[i]));
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

int main(int argc, char **argv)
{
	crash_begin(argc, argv);
	crash_case("owner killed, idle", kill_owner, be_idle, 10);
	crash_case("owner killed in a map", kill_owner, map_for_ever, 10);
	crash_case("owner killed, workers in endless loops", kill_owner,
		   loop_for_ever, 10);
	crash_case("owner killed, workers block all signals", kill_owner,
		   be_stubborn, 10);
	crash_case("owner killed, workers stopped, idle", kill_owner_of_stopped,
		   be_idle, 10);
	crash_case("owner killed, workers stopped, busy", kill_owner_of_stopped,
		   loop_for_ever, 10);
	crash_case("owner killed in close", kill_owner, close_for_long, 10);
	crash_case("owner killed after its template", kill_owner, lose_template, 10);
	crash_case("owner exits without close", kill_owner, exit_unclosed, 10);
	crash_case("owner killed at any time", kill_owner_any_time,
		   open_and_close, 30);
	crash_case("the opening thread ends", outlive_thread, NULL, 10);
	return crash_end();
}

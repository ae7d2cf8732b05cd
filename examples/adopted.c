/* SPDX-License-Identifier: MIT */
/*
 * Workers that this program starts itself, as one does that wants them in a container, under
 * another user, or written in another language: ac_pool_opts.start is called for each
 * worker that is needed, replacements too. Here each is this program anew, by exec. Such a process
 * has none of the owner's memory: functions are known by numbers that both sides agree on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <allcores.h>

#include "example.h"

#define WORKER "--worker"

/* What the owner hands in and a worker looks up. */
enum { COUNT_PRIMES = 1 };
#define NUMBER(n) ((ac_call_fn *)(uintptr_t)(n))

/* ---- The worker ---- */

static int count_primes(struct ac_call *call)
{
	size_t len;
	const int *limit = ac_call_arg(call, &len);
	int count;

	if (len != sizeof *limit)
		return ac_call_fail(call, "an argument of %zu bytes", len);
	count = primes_below(*limit);
	return ac_call_return(call, &count, sizeof count);
}

static int run_call(struct ac_call *call)
{
	uintptr_t number = (uintptr_t)ac_call_function(call);

	if (number == COUNT_PRIMES)
		return count_primes(call);
	return ac_call_fail(call, "no function has the number %d", (int)number);
}

/* The whole life of a worker. It dies with its owner, wherever it is. */
static int be_worker(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;
	int r;

	if (ac_worker_open(&worker, fd) < 0)
		return 1;	/* the owner is gone already */
	must(ac_worker_say(worker, "started by exec"));
	must(ac_worker_ready(worker, 0, NULL));
	while ((r = ac_worker_take(worker, &call)) != 0) {
		if (r == -EINTR)
			continue;
		must(r);
		ac_worker_done(worker, call, run_call(call));
	}
	ac_worker_close(worker);
	return 0;
}

/* ---- The owner ---- */

static int started;

static pid_t start_worker(void *start_arg, unsigned number, int fd)
{
	char text[16];
	pid_t pid;

	(void)number;
	snprintf(text, sizeof text, "%d", fd);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		started++;
		return pid;
	}
	/* The descriptor closes on exec, unless it is told not to. */
	fcntl(fd, F_SETFD, 0);
	execl("/proc/self/exe", start_arg, WORKER, text, (char *)NULL);
	_exit(127);
}

static void submit_all(struct ac_pool *pool, struct ac_task **tasks, int jobs, int limit)
{
	for (int i = 0; i < jobs; i++)
		must(ac_pool_submit(pool, &tasks[i], NUMBER(COUNT_PRIMES), &limit, sizeof limit,
				    NULL));
}

static void check_all(struct ac_task **tasks, int jobs, int expected)
{
	for (int i = 0; i < jobs; i++) {
		const void *count;

		must(ac_task_wait(tasks[i], -1));
		must(ac_task_result(tasks[i], &count, NULL));
		expect(*(const int *)count == expected, "%d primes", *(const int *)count);
		ac_task_free(tasks[i]);
	}
}

/* A number that no worker knows fails its call, and nothing else. */
static void call_unknown(struct ac_pool *pool)
{
	struct ac_outcome outcome;
	int r = ac_pool_call(pool, NUMBER(77), NULL, 0, NULL, NULL, &outcome);

	expect(r == AC_ETASK, "the number 77 ended with %s", ac_errname(r));
	printf("a call of number 77: %s\n", outcome.text);
}

/* The pool watches these processes; reaping them is for their parent. */
static int reap_all(void)
{
	int status, clean = 0;

	while (wait(&status) > 0)
		clean += WIFEXITED(status) && WEXITSTATUS(status) == 0;
	return clean;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "jobs", 100, 1, "how many sieves" },
		{ "limit", 4000000, 1, "count the primes below this" },
	};
	struct ac_pool_opts opts = {
		.size = sizeof opts,
		.start = start_worker,
		.start_arg = argv[0],
	};
	struct ac_task **tasks;
	struct ac_pool *pool;
	struct work work = { 0 };
	int64_t start;
	int jobs, limit, clean, expected = 0;

	if (argc == 3 && strcmp(argv[1], WORKER) == 0)
		return be_worker(atoi(argv[2]));

	args_read(argc, argv, "Workers that the program starts itself.", args, 2, NULL);
	jobs = args[0].value;
	limit = args[1].value;
	for (int i = 0; i < jobs; i++) {
		start = clock_now();
		expected = primes_below(limit);
		work_add(&work, clock_now() - start);
	}

	start = clock_now();
	opts.recycle = 1 + (unsigned)jobs / 4;	/* then each is replaced, to show it */
	tasks = room_for((size_t)jobs, sizeof *tasks);
	must(ac_pool_open(&pool, &opts));
	submit_all(pool, tasks, jobs, limit);
	check_all(tasks, jobs, expected);
	work_report("adopted", clock_now() - start, &work, ac_cpus(0));
	call_unknown(pool);
	must(ac_pool_close(pool));
	free(tasks);

	clean = reap_all();
	expect(clean == started, "%d of %d workers left as they should", clean, started);
	printf("%d workers were started, and all of them left\n", started);
	return 0;
}

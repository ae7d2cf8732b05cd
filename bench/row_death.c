/* SPDX-License-Identifier: MIT */
/*
 * From a worker's death by SIGKILL inside a task to the moment when its owner,
 * blocked in ac_task_wait, has the answer; against the same with a bare fork
 * and waitpid. The dying process itself writes down when it dies.
 */
#include "bench.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEATHS 50

static struct {
	struct ac_pool *pool;
	volatile int64_t *when;		/* shared with the workers */
} death;

static void die_now(void)
{
	*death.when = bench_now();
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static int run_death(struct ac_call *call)
{
	(void)call;
	die_now();
	return 0;
}

static double ms_since_death(void)
{
	return (double)(bench_now() - *death.when) / 1e6;
}

static void run_ours(void *arg, double *figures)
{
	struct ac_outcome outcome;
	struct ac_task *task;
	uint64_t in = 1, out = 0;
	size_t len = sizeof out;

	(void)arg;
	bench_must(ac_pool_submit(death.pool, &task, run_death, NULL, 0, NULL), "ac_pool_submit");
	bench_must(ac_task_wait(task, -1), "ac_task_wait");
	figures[0] = ms_since_death();
	bench_must(ac_task_outcome(task, &outcome), "ac_task_outcome");
	ac_task_free(task);
	if (outcome.status != AC_EDIED || outcome.signal != SIGKILL)
		bench_die("a death is answered as %s, signal %d", ac_errname(outcome.status),
			  outcome.signal);
	bench_must(ac_pool_call(death.pool, bench_noop_call, &in, sizeof in, &out, &len, NULL),
		   "ac_pool_call after a death");
	if (out != in + 1)
		bench_die("wrong result after a death");
}

static void run_bare(void *arg, double *figures)
{
	pid_t pid = fork();

	(void)arg;
	if (pid == 0)
		die_now();
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		bench_die("fork failed");
	figures[0] = ms_since_death();
}

void bench_row_death(void)
{
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_ours },
		{ .name = "waitpid", .run = run_bare },
	};
	struct bench_line line = {
		.what = "death to answer, median", .peer = "waitpid", .unit = "ms",
		.ours = &sides[0].figure[0], .theirs = &sides[1].figure[0],
		.by = BENCH_BY_OURS, .lower = true, .least = 10,
	};
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		bench_die("no shared memory");
	death.when = page;
	death.pool = bench_pool(bench_config.cores);
	bench_interleave(sides, 2, DEATHS);
	bench_report(&line);
	line.what = "death to answer, longest";
	line.worst = true;
	bench_report(&line);
	ac_pool_close(death.pool);
}

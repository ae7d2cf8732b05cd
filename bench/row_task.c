/* SPDX-License-Identifier: MIT */
/*
 * Single no-op tasks, 8 bytes in and 8 out, with up to AHEAD under way:
 * submitted one by one, collected and freed in order. "No result" is ours
 * alone, for a function that returns nothing.
 */
#include "bench.h"
#include "peer_openmp.h"
#include "peer_pipe.h"
#include "peer_pthread.h"

#include <string.h>

#define TASKS 400000
#define TASKS_SLOW 20000	/* for a peer that takes them one at a time */
#define AHEAD 1000

static struct {
	uint64_t *args, *results;
	struct ac_pool *pool;
	struct peer_pthread *threads, *thread;
	struct peer_pipe *pipes;
} tasks;

static int run_empty(struct ac_call *call)
{
	(void)call;
	return 0;
}

/* Million tasks a second. Results are wiped: old ones must prove nothing. */
static double finish(int64_t start, size_t count, const char *who)
{
	int64_t took = bench_now() - start;

	for (size_t i = 0; i < count; i++)
		if (tasks.results[i] != tasks.args[i] + 1)
			bench_die("%s: wrong result of task %zu", who, i);
	memset(tasks.results, 0, count * sizeof *tasks.results);
	return (double)count * 1e3 / (double)took;
}

static void collect_ours(struct ac_task *task, size_t i, size_t expected)
{
	const void *data;
	size_t len;

	bench_must(ac_task_wait(task, -1), "ac_task_wait");
	bench_must(ac_task_result(task, &data, &len), "ac_task_result");
	if (len != expected)
		bench_die("a result of %zu bytes", len);
	if (len)
		memcpy(&tasks.results[i], data, sizeof tasks.results[i]);
	ac_task_free(task);
}

static void run_ahead(ac_call_fn *fn, size_t expected)
{
	struct ac_task *ring[AHEAD];

	for (size_t i = 0; i < TASKS + AHEAD; i++) {
		if (i >= AHEAD)
			collect_ours(ring[i % AHEAD], i - AHEAD, expected);
		if (i < TASKS)
			bench_must(ac_pool_submit(tasks.pool, &ring[i % AHEAD], fn,
						  &tasks.args[i], sizeof tasks.args[i], NULL),
				   "ac_pool_submit");
	}
}

static void run_ours(void *arg, double *figures)
{
	int64_t start = bench_now();

	(void)arg;
	run_ahead(bench_noop_call, sizeof(uint64_t));
	figures[0] = finish(start, TASKS, "ours");
}

static void run_ours_empty(void *arg, double *figures)
{
	int64_t start = bench_now();

	(void)arg;
	run_ahead(run_empty, 0);
	figures[0] = TASKS * 1e3 / (double)(bench_now() - start);
}

static void run_threads(void *arg, double *figures)
{
	struct peer_pthread *pool = *(struct peer_pthread **)arg;
	struct peer_task *ring[AHEAD];
	int64_t start = bench_now();

	for (size_t i = 0; i < TASKS + AHEAD; i++) {
		if (i >= AHEAD)
			tasks.results[i - AHEAD] = peer_pthread_collect(pool, ring[i % AHEAD]);
		if (i < TASKS)
			ring[i % AHEAD] = peer_pthread_submit(pool, bench_noop, tasks.args[i]);
	}
	figures[0] = finish(start, TASKS, "the pthread pool");
}

static void run_pipes(void *arg, double *figures)
{
	unsigned ahead = *(const unsigned *)arg;
	size_t count = ahead > 1 ? TASKS : TASKS_SLOW;
	int64_t start = bench_now();

	peer_pipe_run(tasks.pipes, tasks.args, tasks.results, count, ahead);
	figures[0] = finish(start, count, "fork and pipes");
}

static void run_openmp(void *arg, double *figures)
{
	int64_t start = bench_now();

	(void)arg;
	peer_openmp_tasks(bench_config.cores, bench_noop, tasks.args, tasks.results, TASKS);
	figures[0] = finish(start, TASKS, "OpenMP");
}

/* Everybody who forks goes before everybody who starts threads. */
static void set_up(void)
{
	tasks.args = bench_alloc(TASKS * sizeof *tasks.args);
	tasks.results = bench_alloc(TASKS * sizeof *tasks.results);
	for (size_t i = 0; i < TASKS; i++)
		tasks.args[i] = i * 0x9e3779b97f4a7c15u;
	tasks.pool = bench_pool(bench_config.cores);
	tasks.pipes = peer_pipe_open(bench_config.cores, bench_noop);
	tasks.threads = peer_pthread_open(bench_config.cores);
	tasks.thread = peer_pthread_open(1);
}

static void report(const struct bench_side *ours, const struct bench_side *theirs,
		   enum bench_by by, double least, double meant)
{
	bench_report(&(struct bench_line){
		.what = ours->name, .peer = theirs ? theirs->name : NULL, .unit = "M/s",
		.ours = &ours->figure[0], .theirs = theirs ? &theirs->figure[0] : NULL,
		.by = by, .least = least, .meant = meant,
	});
}

void bench_row_task(void)
{
	unsigned one = 1, many = PEER_PIPE_AHEAD;
	struct bench_side sides[] = {
		{ .name = "no-op tasks", .run = run_ours },
		{ .name = "no-op tasks, no result", .run = run_ours_empty },
		{ .name = "pthread pool", .run = run_threads, .arg = &tasks.threads },
		/* Its lock is the least contended: the fastest, and of no use. */
		{ .name = "pthread pool of 1", .run = run_threads, .arg = &tasks.thread },
		{ .name = "pipes, 64 ahead", .run = run_pipes, .arg = &many },
		{ .name = "pipes, one at a time", .run = run_pipes, .arg = &one },
		{ .name = "OpenMP tasks", .run = run_openmp },
	};
	int count = peer_openmp_here() ? 7 : 6;

	set_up();
	bench_interleave(sides, count, 7);
	report(&sides[0], NULL, BENCH_BY_OURS, 5, 7);
	report(&sides[1], NULL, BENCH_BY_OURS, 5, 7);
	report(&sides[0], &sides[2], BENCH_BY_RATIO, 1, 0);
	for (int i = 3; i < count; i++)
		report(&sides[0], &sides[i], BENCH_NO_GOAL, 0, 0);
	ac_pool_close(tasks.pool);
	peer_pipe_close(tasks.pipes);
	peer_pthread_close(tasks.threads);
	peer_pthread_close(tasks.thread);
}

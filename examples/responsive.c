/* SPDX-License-Identifier: MIT */
/*
 * A pool that leaves two processors to everybody else, so that the machine stays
 * responsive, and a look at the workers while they work.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

static int count_primes(struct ac_call *call)
{
	const int *limit = ac_call_arg(call, NULL);
	int count = primes_below(*limit);

	return ac_call_return(call, &count, sizeof count);
}

static void print_workers(struct ac_pool *pool, struct ac_worker_stat *stats, int workers,
			  int64_t since)
{
	static const char *const states[] = { "absent", "starting", "idle", "busy" };

	printf("after %.1f s:\n", seconds(clock_now() - since));
	must(ac_pool_workers(pool, stats, (unsigned)workers));
	for (int i = 0; i < workers; i++)
		printf("  %-15s pid %-7d %-8s %4llu jobs done, busy for %.2f s\n",
		       stats[i].name, (int)stats[i].pid, states[stats[i].state],
		       (unsigned long long)stats[i].tasks, seconds(stats[i].busy_ns));
}

static void check_counts(struct ac_task **tasks, int jobs, int expected)
{
	for (int i = 0; i < jobs; i++) {
		const void *count;

		must(ac_task_result(tasks[i], &count, NULL));
		expect(*(const int *)count == expected, "job %d counted %d primes, not %d",
		       i, *(const int *)count, expected);
		ac_task_free(tasks[i]);
	}
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "jobs", 100, 1, "how many sieves" },
		{ "limit", 4000000, 1, "count the primes below this" },
		{ "leave", 2, 1, "how many processors to leave alone" },
	};
	struct ac_pool_opts opts = { .size = sizeof opts, .name = "polite" };
	struct ac_worker_stat *stats;
	struct ac_pool *pool;
	struct ac_task **tasks;
	struct work work = { 0 };
	int64_t start, took;
	int jobs, limit, workers, code, expected = 0;

	args_read(argc, argv, "A pool of all processors but two.", args, 3, NULL);
	jobs = args[0].value;
	limit = args[1].value;
	tasks = room_for((size_t)jobs, sizeof(struct ac_task *));
	for (int i = 0; i < jobs; i++) {
		start = clock_now();
		expected = primes_below(limit);
		work_add(&work, clock_now() - start);
	}

	start = clock_now();
	opts.workers = -args[2].value;	/* negative: all but so many, but one at least */
	must(ac_pool_open(&pool, &opts));
	workers = must(ac_pool_workers(pool, NULL, 0));
	expect(workers == ac_cpus(args[2].value), "the pool has %d workers", workers);
	stats = room_for((size_t)workers, sizeof *stats);
	for (int i = 0; i < jobs; i++)
		must(ac_pool_submit(pool, &tasks[i], count_primes, &limit, sizeof limit, NULL));

	/* This thread is free meanwhile: here it looks on ten times a second. */
	while ((code = ac_pool_join(pool, 100 * MS)) == -ETIMEDOUT)
		print_workers(pool, stats, workers, start);
	must(code);
	took = clock_now() - start;
	print_workers(pool, stats, workers, start);
	must(ac_pool_close(pool));

	check_counts(tasks, jobs, expected);
	printf("%d of %d processors used\n", workers, ac_cpus(0));
	work_report("responsive", took, &work, workers);
	free(stats);
	free(tasks);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * One long loop, cut in as many ranges as there are processors. Each range
 * is a call of its own, handed in with ac_pool_submit, which doesn't wait; ac_pool_join waits
 * for all of them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

struct range {
	int64_t first, end;
};

static double waste_time(const struct range *range)
{
	double sum = 0;

	for (int64_t i = range->first; i < range->end; i++)
		sum += sqrt((double)i);
	return sum;
}

/* A single call gets its argument from, and leaves its result with, its struct ac_call. */
static int waste_workers_time(struct ac_call *call)
{
	double sum = waste_time(ac_call_arg(call, NULL));

	return ac_call_return(call, &sum, sizeof sum);
}

static struct work waste_alone(const struct range *ranges, double *sums, int count)
{
	struct work work = { 0 };

	for (int i = 0; i < count; i++) {
		int64_t start = clock_now();

		sums[i] = waste_time(&ranges[i]);
		work_add(&work, clock_now() - start);
	}
	return work;
}

static int64_t waste_in_pool(const struct range *ranges, struct ac_task **tasks, int count)
{
	int64_t start = clock_now();
	struct ac_pool *pool;

	must(ac_pool_open(&pool, NULL));
	for (int i = 0; i < count; i++)
		must(ac_pool_submit(pool, &tasks[i], waste_workers_time,
				    &ranges[i], sizeof *ranges, NULL));
	must(ac_pool_shut(pool));	/* no more work will come... */
	must(ac_pool_join(pool, -1));	/* ...so this waits for the work and the workers */
	must(ac_pool_close(pool));
	return clock_now() - start;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "numbers", 100000000, 1, "how many numbers to waste time on" },
	};
	int count = ac_cpus(0);
	struct range *ranges = room_for((size_t)count, sizeof *ranges);
	struct ac_task **tasks = room_for((size_t)count, sizeof(struct ac_task *));
	double *sums = room_for((size_t)count, sizeof *sums);
	struct work work;
	int64_t numbers, took;

	args_read(argc, argv, "Arithmetic, cut in one range for each processor.", args, 1, NULL);
	numbers = args[0].value;
	for (int i = 0; i < count; i++) {
		ranges[i].first = numbers * i / count;
		ranges[i].end = numbers * (i + 1) / count;
	}
	work = waste_alone(ranges, sums, count);
	took = waste_in_pool(ranges, tasks, count);
	work_report("maths", took, &work, count);

	/* Results outlive their pool; each is there until its task is freed. */
	for (int i = 0; i < count; i++) {
		const void *sum;
		size_t len;

		must(ac_task_result(tasks[i], &sum, &len));
		expect(len == sizeof(double) && *(const double *)sum == sums[i],
		       "range %d: the pool and the loop disagree", i);
		ac_task_free(tasks[i]);
	}
	free(ranges);
	free(tasks);
	free(sums);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Named arguments, and results that are kept and read later. C names arguments with a
 * struct literal: (struct count_args){ .from = 1000, .below = 2000 }. Jobs start in the order
 * in which they were handed in: a record of what every worker did (a trace) shows it.
 */
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

struct count_args {
	int from, below;
};

static int count_primes(const struct count_args *args)
{
	return primes_below(args->below) - primes_below(args->from);
}

static int count_in_worker(struct ac_call *call)
{
	int count = count_primes(ac_call_arg(call, NULL));

	return ac_call_return(call, &count, sizeof count);
}

static struct count_args nth_args(int i, int limit)
{
	return (struct count_args){ .below = limit - i % 1000, .from = limit / 10 };
}

/* Every event names a task, and tasks are numbered in the order of their submission. */
static void check_order(struct ac_pool *pool, int jobs)
{
	struct ac_trace_event *events = room_for((size_t)jobs, sizeof *events);
	int n = must(ac_pool_trace(pool, events, sizeof *events, (unsigned)jobs));

	expect(n == jobs, "%d events for %d jobs", n, jobs);
	for (int i = 1; i < n; i++)
		expect(events[i].worker != events[i - 1].worker ||
		       (events[i].task > events[i - 1].task &&
			events[i].start_ns >= events[i - 1].end_ns),
		       "worker %u took job %d before job %d", events[i].worker,
		       (int)events[i - 1].task, (int)events[i].task);
	free(events);
}

static int read_count(struct ac_task *task)
{
	const void *count;

	must(ac_task_wait(task, -1));
	must(ac_task_result(task, &count, NULL));
	return *(const int *)count;
}

static int64_t count_in_pool(int workers, int jobs, int limit, const int *expected)
{
	struct ac_pool_opts opts = {
		.size = sizeof opts,
		.workers = workers,
		.trace = (unsigned)jobs,
	};
	struct ac_task **tasks = room_for((size_t)jobs, sizeof(struct ac_task *));
	int64_t start = clock_now(), took;
	struct ac_pool *pool;

	must(ac_pool_open(&pool, &opts));
	for (int i = 0; i < jobs; i++) {
		struct count_args args = nth_args(i, limit);

		/* The argument is copied before the call returns: args may go. */
		must(ac_pool_submit(pool, &tasks[i], count_in_worker, &args, sizeof args, NULL));
	}
	must(ac_pool_shut(pool));
	for (int i = 0; i < jobs; i++)
		expect(read_count(tasks[i]) == expected[i], "job %d in a pool of %d", i, workers);
	took = clock_now() - start;
	check_order(pool, jobs);
	must(ac_pool_close(pool));
	for (int i = 0; i < jobs; i++)
		ac_task_free(tasks[i]);
	free(tasks);
	return took;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "jobs", 100, 1, "how many jobs" },
		{ "limit", 3000000, 10000, "count the primes below this" },
	};
	int jobs, limit, cpus = ac_cpus(0), *expected;
	struct work work = { 0 };
	int64_t took;

	args_read(argc, argv, "Named arguments, results read later.", args, 2, NULL);
	jobs = args[0].value;
	limit = args[1].value;
	expected = room_for((size_t)jobs, sizeof *expected);
	for (int i = 0; i < jobs; i++) {
		struct count_args count = nth_args(i, limit);
		int64_t start = clock_now();

		expected[i] = count_primes(&count);
		work_add(&work, clock_now() - start);
	}

	/* With one worker the order of the starts is the order of all jobs. */
	took = count_in_pool(1, jobs, limit, expected);
	work_report("pool of 1", took, &work, 1);
	took = count_in_pool(cpus, jobs, limit, expected);
	work_report("one worker for each processor", took, &work, cpus);
	printf("%d jobs started in the order in which they were handed in\n", jobs);
	free(expected);
	return 0;
}

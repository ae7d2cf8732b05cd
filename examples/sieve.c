/* SPDX-License-Identifier: MIT */
/*
 * The first program to read: a loop over independent jobs, done on every core by
 * ac_pool_map. The jobs count the primes below a hundred different limits.
 */
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

/*
 * What a worker does for one item: from *item to *result. It runs in another
 * process: it sees all that the program had in memory when the pool was
 * opened, but what it changes there, the program doesn't see. Results travel in *result.
 */
static int count_primes(const void *limit, void *count, const void *bound)
{
	(void)bound;
	*(int *)count = primes_below(*(const int *)limit);
	return 0;
}

/* The same jobs as a plain loop: what the pool must find, and how long it may take. */
static struct work count_alone(const int *limits, int *counts, int jobs)
{
	struct work work = { 0 };

	for (int i = 0; i < jobs; i++) {
		int64_t start = clock_now();

		counts[i] = primes_below(limits[i]);
		work_add(&work, clock_now() - start);
	}
	return work;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "jobs", 100, 1, "how many limits" },
		{ "limit", 4000000, 1000000, "the largest limit" },
		{ "workers", 0, 0, "size of the pool; 0: one worker for each processor" },
	};
	struct ac_pool_opts opts = { .size = sizeof opts };
	struct ac_pool *pool;
	struct work work;
	int64_t start, took;
	int jobs, workers, *limits, *counts, *expected;

	args_read(argc, argv, "Sieve of Eratosthenes in a pool.", args, 3, NULL);
	jobs = args[0].value;
	opts.workers = args[2].value;
	limits = room_for((size_t)jobs, sizeof *limits);
	counts = room_for((size_t)jobs, sizeof *counts);
	expected = room_for((size_t)jobs, sizeof *expected);
	for (int i = 0; i < jobs; i++)
		limits[i] = args[1].value - i % 1000 * 100;
	work = count_alone(limits, expected, jobs);

	/* All there is to it: open, map, close. */
	start = clock_now();
	must(ac_pool_open(&pool, &opts));
	workers = must(ac_pool_workers(pool, NULL, 0));
	must(ac_pool_map(pool, count_primes, NULL, limits, sizeof *limits,
			 counts, sizeof *counts, (size_t)jobs));
	must(ac_pool_close(pool));
	took = clock_now() - start;

	for (int i = 0; i < jobs; i++)
		expect(counts[i] == expected[i], "%d primes below %d in the pool, %d in the loop",
		       counts[i], limits[i], expected[i]);
	expect(primes_below(1000000) == 78498, "the sieve itself");
	printf("%d sieves, %d primes below %d\n", jobs, counts[0], limits[0]);
	/* More workers than processors can't be faster: the floor counts processors. */
	work_report("sieve", took, &work, lesser(workers, ac_cpus(0)));
	free(limits);
	free(counts);
	free(expected);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Single processes without a pool: each builds a list of numbers and sums it
 * up. Started and joined one after the other nothing runs at the same time; started first
 * and joined afterwards they run side by side.
 */
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

enum { LISTS = 4 };
static const int sizes[LISTS] = { 11, 23, 53, 34 };
static int unit;	/* a list of 11 has 11 * unit numbers */

/* What a process runs; what it returns is its exit code, so 0 is for success. */
static int sum_list(void *arg)
{
	const int *size = arg;
	int64_t n = (int64_t)*size * unit, sum = 0;
	int64_t *list = malloc((size_t)n * sizeof *list);

	if (!list)
		return 2;
	for (int64_t i = 0; i < n; i++)
		list[i] = i;
	for (int64_t i = 0; i < n; i++)
		sum += list[i];
	free(list);
	printf("the sum of %lld numbers is %lld\n", (long long)n, (long long)sum);
	return sum != n * (n - 1) / 2;
}

static struct ac_process *start_sum(int list)
{
	struct ac_process_opts opts = { .size = sizeof opts, .name = "sum" };
	struct ac_process *process;

	must(ac_process_start(&process, sum_list, (void *)&sizes[list], &opts));
	return process;
}

static void join_sum(struct ac_process *process, int list)
{
	struct ac_outcome outcome;

	must(ac_process_join(process, -1, &outcome));
	expect(outcome.status == 0, "list of %d: %s (%s)", sizes[list],
	       ac_strerror(outcome.status), outcome.text);
	ac_process_close(process);
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "unit", 200000, 1, "the lists have 11, 23, 53, 34 times as many numbers "
				     "(originally 1000000)" },
	};
	struct ac_process *processes[LISTS];
	struct work work = { 0 };
	int64_t start;

	args_read(argc, argv, "Sums of long lists, one process for each.", args, 1, NULL);
	unit = args[0].value;
	for (int i = 0; i < LISTS; i++) {
		start = clock_now();
		expect(sum_list((void *)&sizes[i]) == 0, "list of %d in the loop", sizes[i]);
		work_add(&work, clock_now() - start);
	}

	/* One after the other: isolated from this process, but no faster than a loop. */
	start = clock_now();
	for (int i = 0; i < LISTS; i++)
		join_sum(start_sum(i), i);
	work_report("one after the other", clock_now() - start, &work, 1);

	start = clock_now();
	for (int i = 0; i < LISTS; i++)
		processes[i] = start_sum(i);
	for (int i = 0; i < LISTS; i++)
		join_sum(processes[i], i);
	work_report("side by side", clock_now() - start, &work, lesser(LISTS, ac_cpus(0)));
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Workers that print: the squares of 1 to 4, each after a sleep, first in a loop, then
 * in a pool of 8. What workers print comes out where the program's own output does.
 */
#include <stdio.h>

#include <allcores.h>

#include "example.h"

static int nap_ms;	/* workers know it: it is set before the pool is opened */

static int print_square(const void *item, void *result, const void *bound)
{
	const int *number = item;
	struct ac_call *call = ac_call_current();	/* NULL in the plain loop */

	(void)bound;
	sleep_for(nap_ms * MS);
	*(int *)result = *number * *number;
	if (call)
		printf("worker %u: ", ac_call_worker(call));
	printf("the square of %d is %d\n", *number, *(int *)result);
	/* A worker would print this at its end anyhow; this way it is seen at once. */
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "ms", 200, 0, "the sleep before each square (originally 2000)" },
	};
	static const int numbers[] = { 1, 2, 3, 4 };
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 8 };
	struct ac_pool *pool;
	struct work work = { 0 };
	int squares[4] = { 0 };
	int64_t start;

	args_read(argc, argv, "Squares after a sleep, printed by the workers.", args, 1, NULL);
	nap_ms = args[0].value;

	for (int i = 0; i < 4; i++) {
		start = clock_now();
		print_square(&numbers[i], &squares[i], NULL);
		work_add(&work, clock_now() - start);
		squares[i] = 0;
	}

	start = clock_now();
	must(ac_pool_open(&pool, &opts));
	must(ac_pool_map(pool, print_square, NULL, numbers, sizeof *numbers,
			 squares, sizeof *squares, 4));
	must(ac_pool_close(pool));
	work_report("pool of 8", clock_now() - start, &work, 4);

	for (int i = 0; i < 4; i++)
		expect(squares[i] == numbers[i] * numbers[i], "the square of %d is not %d",
		       numbers[i], squares[i]);
	return 0;
}

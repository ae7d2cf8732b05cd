/* SPDX-License-Identifier: MIT */
/*
 * Fifty calls with several arguments, in pools of different sizes. The calls sleep,
 * as programs do that wait for a disk or a network: sleeping needs no
 * processor, so here a pool may well be larger than the machine.
 */
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

/* Several arguments are a struct. No pointers to the program's later data: they mean
 * nothing in another process. */
struct addition {
	int a, b;
	int64_t nap_ns;
};

static int add_slowly(const void *item, void *result, const void *bound)
{
	const struct addition *addition = item;

	(void)bound;
	sleep_for(addition->nap_ns);
	*(int *)result = addition->a + addition->b;
	return 0;
}

/*
 * The naps are drawn here and not in the workers: they are copies of this
 * process, and a random generator seeded before the copy was made would
 * give the same naps to all of them.
 */
static void draw_naps(struct addition *items, int calls, int shortest_ms, int longest_ms)
{
	srandom(50);
	for (int i = 0; i < calls; i++) {
		items[i].a = i;
		items[i].b = 2 * i;
		items[i].nap_ns = shortest_ms * MS +
				  random() % ((longest_ms - shortest_ms) * MS + 1);
	}
}

static struct work add_alone(const struct addition *items, int calls)
{
	struct work work = { 0 };

	for (int i = 0; i < calls; i++) {
		int64_t start = clock_now();
		int sum;

		add_slowly(&items[i], &sum, NULL);
		work_add(&work, clock_now() - start);
	}
	return work;
}

static void add_in_pool(const struct addition *items, int *sums, int calls, int workers,
			const struct work *work)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers };
	int64_t start = clock_now();
	struct ac_pool *pool;
	char who[32];

	must(ac_pool_open(&pool, &opts));
	must(ac_pool_map(pool, add_slowly, NULL, items, sizeof *items, sums, sizeof *sums,
			 (size_t)calls));
	must(ac_pool_close(pool));
	snprintf(who, sizeof who, "pool of %2d", workers);
	work_report(who, clock_now() - start, work, workers);
	for (int i = 0; i < calls; i++)
		expect(sums[i] == 3 * i, "%d + %d = %d", i, 2 * i, sums[i]);
}

int main(int argc, char **argv)
{
	static const int sizes[] = { 1, 2, 4, 6, 8, 10, 12, 14, 18, 50 };
	struct arg args[] = {
		{ "calls", 50, 1, "how many calls" },
		{ "shortest", 10, 0, "shortest sleep in ms (originally 1000)" },
		{ "longest", 30, 0, "longest sleep in ms (originally 3000)" },
	};
	struct addition *items;
	struct work work;
	int calls, first, *sums;

	first = args_read(argc, argv, "Calls that sleep, in pools of all the sizes given.",
			  args, 3, "pool sizes");
	calls = args[0].value;
	expect(args[1].value <= args[2].value, "the shortest sleep is longer than the longest");
	items = room_for((size_t)calls, sizeof *items);
	sums = room_for((size_t)calls, sizeof *sums);
	draw_naps(items, calls, args[1].value, args[2].value);
	work = add_alone(items, calls);
	printf("%d calls one after the other: %.3f s, the longest %.3f s\n",
	       calls, seconds(work.total_ns), seconds(work.longest_ns));

	for (int i = first; i < argc; i++)
		add_in_pool(items, sums, calls, arg_number(argv[i], "pool size", 1), &work);
	for (size_t i = 0; first >= argc && i < sizeof sizes / sizeof *sizes; i++)
		add_in_pool(items, sums, calls, sizes[i], &work);
	free(items);
	free(sums);
	return 0;
}

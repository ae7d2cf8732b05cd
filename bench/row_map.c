/* SPDX-License-Identifier: MIT */
/*
 * Maps over many small items. "Ideal" is the same items in a plain loop on one
 * core, divided by the cores; "loops at once" is what the machine itself makes
 * of as many plain loops side by side, which is less where two cores share
 * one, or where others are at work.
 */
#include "bench.h"
#include "peer_openmp.h"

#include <string.h>

#define ITEM_NS 100
#define RUN_NS 400000000	/* on all cores */
#define ITEMS_MAX 16000000	/* 400 MB of memory on machines of any size */
#define NOOPS 4000000

static struct {
	uint64_t *items, *results, *expected;
	size_t count;
	uint64_t steps;
	ac_map_fn *fn;
	struct ac_pool *pool;
} map;

static int run_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(uint64_t *)result = bench_work(*(const uint64_t *)item, map.steps);
	return 0;
}

static void run_loop(uint64_t *results, size_t from, size_t to)
{
	/* Through a pointer that the compiler cannot see through, as in a pool. */
	ac_map_fn *volatile fn = map.fn;
	ac_map_fn *call = fn;

	for (size_t i = from; i < to; i++)
		call(&map.items[i], &results[i], NULL);
}

static void check_results(const char *who)
{
	if (memcmp(map.results, map.expected, map.count * sizeof *map.results) != 0)
		bench_die("wrong results from %s", who);
	memset(map.results, 0, map.count * sizeof *map.results);
}

/* Million items a second. */
static double rate(int64_t took)
{
	return (double)map.count * 1e3 / (double)took;
}

static void run_ours(void *arg, double *figures)
{
	int64_t start = bench_now();

	(void)arg;
	bench_must(ac_pool_map(map.pool, map.fn, NULL, map.items, sizeof *map.items,
			       map.results, sizeof *map.results, map.count), "ac_pool_map");
	figures[0] = rate(bench_now() - start);
	check_results("ac_pool_map");
}

static void run_ideal(void *arg, double *figures)
{
	int64_t start = bench_now();

	(void)arg;
	run_loop(map.results, 0, map.count);
	figures[0] = rate(bench_now() - start) * bench_config.cores;
	check_results("the loop");
}

/* Its results are lost with its process; one word spares it the copied pages. */
static void run_share(unsigned number)
{
	size_t share = map.count / bench_config.cores;

	for (size_t i = number * share; i < (number + 1) * share; i++)
		run_item(&map.items[i], &map.results[0], NULL);
}

static void run_loops(void *arg, double *figures)
{
	(void)arg;
	figures[0] = rate(bench_on_cores(run_share));
}

static void run_openmp(void *arg, double *figures)
{
	int64_t start = bench_now();

	(void)arg;
	peer_openmp_for(bench_config.cores, map.fn, map.items, map.results, map.count);
	figures[0] = rate(bench_now() - start);
	check_results("OpenMP");
}

static void set_up(ac_map_fn *fn, size_t count)
{
	map.fn = fn;
	map.count = count;
	map.items = bench_alloc(count * sizeof *map.items);
	map.results = bench_alloc(count * sizeof *map.results);
	map.expected = bench_alloc(count * sizeof *map.expected);
	for (size_t i = 0; i < count; i++)
		map.items[i] = i * 0x9e3779b97f4a7c15u;
	run_loop(map.expected, 0, count);
	map.pool = bench_pool(bench_config.cores);
}

static void report(const struct bench_side *ours, const struct bench_side *theirs,
		   const char *what, double least, double meant)
{
	bench_report(&(struct bench_line){
		.what = what, .peer = theirs->name, .unit = "M/s",
		.ours = &ours->figure[0], .theirs = &theirs->figure[0],
		.by = least > 0 ? BENCH_BY_RATIO : BENCH_NO_GOAL,
		.least = least, .meant = meant,
	});
}

void bench_row_map(void)
{
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_ours },
		{ .name = "ideal", .run = run_ideal },
		{ .name = "loops at once", .run = run_loops },
	};
	size_t count = (size_t)RUN_NS / ITEM_NS * bench_config.cores;

	map.steps = bench_steps(ITEM_NS);
	set_up(run_item, count < ITEMS_MAX ? count : ITEMS_MAX);
	bench_interleave(sides, 3, 5);
	report(&sides[0], &sides[1], "items of 100 ns", 0.90, 0.97);
	report(&sides[0], &sides[2], "items of 100 ns", 0, 0);
	ac_pool_close(map.pool);
}

void bench_row_noop(void)
{
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_ours },
		{ .name = "plain loop x cores", .run = run_ideal },
		{ .name = "OpenMP, dynamic", .run = run_openmp },
	};

	set_up(bench_noop, NOOPS);
	bench_interleave(sides, peer_openmp_here() ? 3 : 2, 7);
	if (peer_openmp_here())
		report(&sides[0], &sides[2], "no-op items", 1, 0);
	else
		bench_note("built without OpenMP: nobody to compare with");
	report(&sides[0], &sides[1], "no-op items", 0, 0);
	ac_pool_close(map.pool);
}

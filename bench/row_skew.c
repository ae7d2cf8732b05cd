/* SPDX-License-Identifier: MIT */
/*
 * Lists that a fixed chunk size gets wrong: lengths by Zipf's law in three
 * orders, and 50 sleeps on pools of many sizes. The engine's own choice of
 * chunks against one item at a time, and both against the floor: the work
 * divided by the workers, or the longest item if that is more.
 */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#define WORK_NS 400000000.0	/* of all items together */
#define ITEMS_MAX 5000
#define SLEEPS 50

static struct {
	struct ac_pool *pool;
	unsigned workers;
	uint64_t items[ITEMS_MAX];	/* steps, or ns of sleep */
	uint64_t results[ITEMS_MAX], expected[ITEMS_MAX];
	size_t count;
	ac_map_fn *fn;
} skew;

static int run_steps(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(uint64_t *)result = bench_work(1, *(const uint64_t *)item);
	return 0;
}

static int run_sleep(const void *item, void *result, const void *bound)
{
	(void)bound;
	bench_sleep((int64_t)*(const uint64_t *)item);
	*(uint64_t *)result = *(const uint64_t *)item;
	return 0;
}

/* Makespan, ms. */
static void run_map(void *arg, double *figures)
{
	struct ac_map_opts opts = { .size = sizeof opts, .chunk = *(const size_t *)arg };
	int64_t start = bench_now();

	bench_must(ac_pool_map(skew.pool, skew.fn, &opts, skew.items, sizeof *skew.items,
			       skew.results, sizeof *skew.results, skew.count), "ac_pool_map");
	figures[0] = (double)(bench_now() - start) / 1e6;
	if (memcmp(skew.results, skew.expected, skew.count * sizeof *skew.results) != 0)
		bench_die("wrong results with chunk %zu", opts.chunk);
	memset(skew.results, 0, sizeof skew.results);
}

/* The floor by a plain loop over the items, ms. */
static void run_floor(void *arg, double *figures)
{
	int64_t start = bench_now(), last = start, now, longest = 0;
	double share;

	(void)arg;
	for (size_t i = 0; i < skew.count; i++, last = now) {
		run_steps(&skew.items[i], &skew.expected[i], NULL);
		now = bench_now();
		if (now - last > longest)
			longest = now - last;
	}
	share = (double)(last - start) / skew.workers;
	figures[0] = (share > (double)longest ? share : (double)longest) / 1e6;
}

static void report(const char *what, const struct bench_side *ours, const char *peer,
		   const struct bench_series *theirs, enum bench_by by)
{
	bench_report(&(struct bench_line){
		.what = what, .peer = peer, .unit = "ms", .ours = &ours->figure[0],
		.theirs = theirs, .by = by, .lower = true, .least = 1.01 });
}

static void reverse_items(void)
{
	for (size_t i = 0; i < skew.count / 2; i++) {
		uint64_t swap = skew.items[i];

		skew.items[i] = skew.items[skew.count - 1 - i];
		skew.items[skew.count - 1 - i] = swap;
	}
}

static void shuffle_items(void)
{
	uint64_t random = 7;

	for (size_t i = skew.count - 1; i > 0; i--) {
		uint64_t swap = skew.items[i];
		size_t j;

		random = bench_work(random, 1);
		j = (size_t)((random >> 33) % (i + 1));
		skew.items[i] = skew.items[j];
		skew.items[j] = swap;
	}
}

/* Descending: the first item is the longest. */
static void fill_zipf(size_t count)
{
	double sum = 0;

	skew.count = count;
	for (size_t i = 1; i <= count; i++)
		sum += 1.0 / (double)i;
	for (size_t i = 1; i <= count; i++)
		skew.items[i - 1] = bench_steps(WORK_NS / sum / (double)i);
}

static void measure_order(const char *order)
{
	static size_t chosen = 0, one = 1;
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_map, .arg = &chosen },
		{ .name = "one at a time", .run = run_map, .arg = &one },
		{ .name = "floor", .run = run_floor },
	};
	char what[64];

	for (size_t i = 0; i < skew.count; i++)
		run_steps(&skew.items[i], &skew.expected[i], NULL);
	bench_interleave(sides, 3, 5);
	snprintf(what, sizeof what, "%zu items, %s", skew.count, order);
	report(what, &sides[0], sides[1].name, &sides[1].figure[0], BENCH_BY_RATIO);
	report(what, &sides[0], sides[2].name, &sides[2].figure[0], BENCH_NO_GOAL);
}

void bench_row_skew(void)
{
	static const size_t counts[] = { 200, ITEMS_MAX };

	skew.fn = run_steps;
	skew.workers = bench_config.cores;
	bench_steps(1);
	skew.pool = bench_pool(skew.workers);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
		fill_zipf(counts[i]);
		measure_order("descending");
		reverse_items();
		measure_order("ascending");
		shuffle_items();
		measure_order("shuffled");
	}
	ac_pool_close(skew.pool);
}

/* 10 to 30 ms each, the same in every run. Returns the floor, ms. */
static double fill_sleeps(unsigned workers)
{
	uint64_t random = 42, sum = 0, longest = 0;

	skew.count = SLEEPS;
	for (size_t i = 0; i < SLEEPS; i++) {
		random = bench_work(random, 1);
		skew.items[i] = skew.expected[i] = 10000000 + (random >> 33) % 20000000;
		sum += skew.items[i];
		if (skew.items[i] > longest)
			longest = skew.items[i];
	}
	return (double)(sum / workers > longest ? sum / workers : longest) / 1e6;
}

static void measure_sleeps(unsigned workers)
{
	static size_t chosen = 0, one = 1;
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_map, .arg = &chosen },
		{ .name = "one at a time", .run = run_map, .arg = &one },
	};
	struct bench_series floor = { 0 };
	char what[64];

	bench_sample(&floor, fill_sleeps(workers));
	skew.pool = bench_pool(workers);
	bench_interleave(sides, 2, 7);
	snprintf(what, sizeof what, "50 sleeps, pool of %u", workers);
	report(what, &sides[0], sides[1].name, &sides[1].figure[0], BENCH_BY_RATIO);
	report(what, &sides[0], "floor", &floor, BENCH_NO_GOAL);
	ac_pool_close(skew.pool);
}

void bench_row_sleep(void)
{
	static const unsigned sizes[] = { 2, 4, 8, 18, 50 };

	skew.fn = run_sleep;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		measure_sleeps(sizes[i]);
}

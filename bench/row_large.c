/* SPDX-License-Identifier: MIT */
/*
 * 16 MB in, 16 MB out, or both, one call after the other, against memcpy of 16
 * MB between two buffers that are warm. The worker copies its result from a
 * warm buffer of its own into place; both sides read in place, one word of
 * each page, so that pages which must be faulted in are paid for. The result
 * is compared in full after the clock has stopped.
 */
#include "bench.h"

#include <string.h>

#define LARGE ((size_t)16 << 20)
#define WORDS (LARGE / sizeof(uint64_t))
#define PAGE_WORDS (4096 / sizeof(uint64_t))
#define CALLS 10

struct shape {
	size_t in, out;		/* bytes */
	ac_call_fn *fn;
};

static struct {
	struct ac_pool *pool;
	uint64_t *arg, *copy;
	uint64_t *pattern;	/* the worker's result but for its first word */
	uint64_t calls;
} large;

static uint64_t read_pages(const uint64_t *words, size_t bytes)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < bytes / sizeof *words; i += PAGE_WORDS)
		sum += words[i];
	return sum;
}

static int run_in(struct ac_call *call)
{
	size_t len;
	const uint64_t *arg = ac_call_arg(call, &len);
	uint64_t sum = read_pages(arg, len);

	return ac_call_return(call, &sum, sizeof sum);
}

static int run_out(struct ac_call *call)
{
	size_t len;
	const uint64_t *arg = ac_call_arg(call, &len);
	uint64_t *result = ac_call_reserve(call, LARGE);

	if (!result)
		return ac_call_fail(call, "no memory for the result");
	memcpy(result, large.pattern, LARGE);
	result[0] = read_pages(arg, len);
	return 0;
}

static void check_result(const uint64_t *result, size_t len, const struct shape *shape)
{
	if (len != shape->out || result[0] != read_pages(large.arg, shape->in))
		bench_die("wrong result");
	if (len > sizeof *result &&
	    memcmp(result + 1, large.pattern + 1, len - sizeof *result) != 0)
		bench_die("wrong bytes in a result");
}

/* ns of one call, its result read in place. */
static int64_t time_call(const struct shape *shape)
{
	struct ac_task *task;
	const void *data;
	volatile uint64_t sum;
	int64_t start, took;
	size_t len;

	/* A word here and there is new: an old argument would be noticed. */
	large.arg[0] = ++large.calls;
	large.arg[(shape->in / sizeof *large.arg - 1) / PAGE_WORDS * PAGE_WORDS] += large.calls;
	start = bench_now();
	bench_must(ac_pool_submit(large.pool, &task, shape->fn, large.arg, shape->in, NULL),
		   "ac_pool_submit");
	bench_must(ac_task_wait(task, -1), "ac_task_wait");
	bench_must(ac_task_result(task, &data, &len), "ac_task_result");
	sum = read_pages(data, len);
	took = bench_now() - start;
	(void)sum;
	check_result(data, len, shape);
	ac_task_free(task);
	return took;
}

/* GB/s of the bytes that must cross, in the middle call. */
static void run_ours(void *arg, double *figures)
{
	const struct shape *shape = arg;
	double took[CALLS];

	for (int i = 0; i < CALLS; i++)
		took[i] = (double)time_call(shape);
	figures[0] = (double)(shape->in + shape->out) / bench_percentile(took, CALLS, 0.5);
}

static void run_memcpy(void *arg, double *figures)
{
	double took[CALLS];

	(void)arg;
	for (int i = 0; i < CALLS; i++) {
		int64_t start = bench_now();

		memcpy(large.copy, large.arg, LARGE);
		took[i] = (double)(bench_now() - start);
		if (large.copy[WORDS - 1] != large.arg[WORDS - 1])
			bench_die("memcpy is wrong");
	}
	figures[0] = (double)LARGE / bench_percentile(took, CALLS, 0.5);
}

static void set_up(void)
{
	large.arg = bench_alloc(LARGE);
	large.copy = bench_alloc(LARGE);
	large.pattern = bench_alloc(LARGE);
	for (size_t i = 0; i < WORDS; i++)
		large.pattern[i] = i * 0x9e3779b97f4a7c15u;
	large.pool = bench_pool(bench_config.cores);
}

void bench_row_large(void)
{
	struct shape both = { LARGE, LARGE, run_out }, in = { LARGE, 8, run_in },
		     out = { 8, LARGE, run_out };
	struct bench_side sides[] = {
		{ .name = "16 MB in and out", .run = run_ours, .arg = &both },
		{ .name = "16 MB in", .run = run_ours, .arg = &in },
		{ .name = "16 MB out", .run = run_ours, .arg = &out },
		{ .name = "warm memcpy", .run = run_memcpy },
	};

	set_up();
	bench_interleave(sides, 4, 9);
	for (int i = 0; i < 3; i++)
		bench_report(&(struct bench_line){
			.what = sides[i].name, .peer = sides[3].name, .unit = "GB/s",
			.ours = &sides[i].figure[0], .theirs = &sides[3].figure[0],
			.by = i == 0 ? BENCH_BY_RATIO : BENCH_NO_GOAL,
			.least = 0.5, .meant = 0.8 });
	ac_pool_close(large.pool);
}

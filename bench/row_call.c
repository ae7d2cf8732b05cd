/* SPDX-License-Identifier: MIT */
/*
 * The blocking round trip of a no-op, back to back, and one half of what its
 * speed costs: the CPU time that is burnt while nobody calls. row_wait.c has
 * the other half.
 */
#include "bench.h"
#include "peer_pipe.h"
#include "peer_pthread.h"

#define CALLS 4000

static struct {
	struct ac_pool *pool;
	struct peer_pthread *threads;
	struct peer_pipe *pipes;
	double took[CALLS];
} call;

/* ---- round trips ------------------------------------------------------------ */

static uint64_t call_ours(uint64_t arg)
{
	uint64_t result = 0;
	size_t len = sizeof result;

	bench_must(ac_pool_call(call.pool, bench_noop_call, &arg, sizeof arg, &result, &len, NULL),
		   "ac_pool_call");
	return len == sizeof result ? result : 0;
}

static uint64_t call_threads(uint64_t arg)
{
	return peer_pthread_collect(call.threads,
				    peer_pthread_submit(call.threads, bench_noop, arg));
}

static uint64_t call_pipes(uint64_t arg)
{
	return peer_pipe_call(call.pipes, arg);
}

/* Figures: p50 and p99, µs. */
static void run_calls(void *arg, double *figures)
{
	uint64_t (**one)(uint64_t) = arg;
	int64_t last = bench_now();

	for (uint64_t i = 0; i < CALLS; i++) {
		int64_t now;

		if ((*one)(i) != i + 1)
			bench_die("wrong result of call %llu", (unsigned long long)i);
		now = bench_now();
		call.took[i] = (double)(now - last) / 1e3;
		last = now;
	}
	figures[0] = bench_percentile(call.took, CALLS, 0.50);
	figures[1] = bench_percentile(call.took, CALLS, 0.99);
}

static void report_trip(const struct bench_side *ours, const struct bench_side *theirs,
			int figure, const char *what)
{
	bench_report(&(struct bench_line){
		.what = what, .peer = theirs->name, .unit = "us",
		.ours = &ours->figure[figure], .theirs = &theirs->figure[figure],
		/* "a few": the peers' own is 10 to 50 */
		.by = figure == 0 ? BENCH_BY_OURS : BENCH_NO_GOAL, .lower = true, .least = 5,
	});
}

static void measure_trips(void)
{
	static uint64_t (*ours)(uint64_t) = call_ours, (*threads)(uint64_t) = call_threads,
			(*pipes)(uint64_t) = call_pipes;
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_calls, .arg = &ours },
		{ .name = "pthread pool", .run = run_calls, .arg = &threads },
		{ .name = "fork and pipes", .run = run_calls, .arg = &pipes },
	};

	bench_interleave(sides, 3, 7);
	for (int i = 1; i < 3; i++) {
		report_trip(&sides[0], &sides[i], 0, "round trip, p50");
		report_trip(&sides[0], &sides[i], 1, "round trip, p99");
	}
}

/* ---- idle -------------------------------------------------------------------- */

static int64_t cpu_of_all(const pid_t *pids, unsigned n)
{
	int64_t sum = bench_cpu(0);

	for (unsigned i = 0; i < n; i++)
		sum += bench_cpu(pids[i]);
	return sum;
}

static double burn_second(const pid_t *pids, unsigned n)
{
	int64_t before = cpu_of_all(pids, n);

	bench_sleep(1000000000);
	return (double)(cpu_of_all(pids, n) - before) / 1e6;
}

/* No peer: nothing can be better than nothing. */
static void measure_idle(void)
{
	static const char *const what[] = {
		"CPU of owner and workers, 1st idle second", "the same, 2nd idle second",
	};
	pid_t pids[BENCH_WORKERS_MAX];
	unsigned n = bench_pool_pids(call.pool, pids, BENCH_WORKERS_MAX);

	call_ours(1);
	for (int i = 0; i < 2; i++) {
		struct bench_series burnt = { 0 };

		bench_sample(&burnt, burn_second(pids, n));
		bench_report(&(struct bench_line){
			.what = what[i], .unit = "ms", .ours = &burnt, .lower = true });
	}
}

void bench_row_call(void)
{
	call.pool = bench_pool(bench_config.cores);
	call.pipes = peer_pipe_open(1, bench_noop);
	call.threads = peer_pthread_open(bench_config.cores);
	measure_trips();
	measure_idle();
	ac_pool_close(call.pool);
	peer_pipe_close(call.pipes);
	peer_pthread_close(call.threads);
}

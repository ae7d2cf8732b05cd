/* SPDX-License-Identifier: MIT */
/*
 * Clocks, work of a known length, medians, and the interleaving runner: the
 * part of the benchmark that knows nothing of any row.
 */
#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Between two turns. libgomp's threads go on spinning for about 13 ms after a
 * parallel region: whoever comes next must not pay for that. */
#define SETTLE_NS 25000000

struct bench_config bench_config;

void bench_die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "bench: %s: ", bench_config.row ? bench_config.row : "-");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

int bench_must(int rc, const char *what)
{
	if (rc < 0)
		bench_die("%s: %s (%s)", what, ac_strerror(rc), ac_errname(rc));
	return rc;
}

void *bench_alloc(size_t size)
{
	void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);

	if (!memory)
		bench_die("no memory for %zu bytes", size);
	/* Not zero: a compiler may turn zeroing into calloc, which touches nothing. */
	memset(memory, 0x5a, size);
	return memory;
}

/* ---- clocks --------------------------------------------------------------- */

static int64_t read_clock(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		return 0;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t bench_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

/* Not /proc/PID/stat: that counts in steps of 10 ms. */
int64_t bench_cpu(pid_t pid)
{
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0)
		bench_die("no CPU clock of process %d", (int)pid);
	return read_clock(clock);
}

void bench_sleep(int64_t ns)
{
	struct timespec left = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };

	while (nanosleep(&left, &left) < 0)
		;
}

/* ---- work ----------------------------------------------------------------- */

__attribute__((noinline))
uint64_t bench_work(uint64_t seed, uint64_t steps)
{
	for (; steps; steps--)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

/* The least of many short tries: what the core does when nobody disturbs it. */
static double measure_step(void)
{
	const uint64_t steps = 200000;
	volatile uint64_t sink;
	int64_t best = INT64_MAX;

	for (int i = 0; i < 50; i++) {
		int64_t start = bench_now(), took;

		sink = bench_work((uint64_t)start, steps);
		took = bench_now() - start;
		if (took < best)
			best = took;
	}
	(void)sink;
	return (double)best / (double)steps;
}

uint64_t bench_steps(double ns)
{
	static double step_ns;

	if (step_ns == 0)
		step_ns = measure_step();
	return ns < step_ns ? 1 : (uint64_t)(ns / step_ns);
}

int bench_noop(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(uint64_t *)result = *(const uint64_t *)item + 1;
	return 0;
}

int bench_noop_call(struct ac_call *call)
{
	uint64_t result;

	bench_noop(ac_call_arg(call, NULL), &result, NULL);
	return ac_call_return(call, &result, sizeof result);
}

/* ---- series --------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_percentile(double *values, size_t count, double p)
{
	if (count == 0)
		return 0;
	qsort(values, count, sizeof *values, compare_doubles);
	return values[(size_t)(p * (double)(count - 1) + 0.5)];
}

double bench_median(const struct bench_series *series)
{
	double copy[BENCH_ROUNDS_MAX];

	memcpy(copy, series->sample, sizeof copy);
	return bench_percentile(copy, (size_t)series->count, 0.5);
}

void bench_sample(struct bench_series *series, double value)
{
	if (series->count < BENCH_ROUNDS_MAX)
		series->sample[series->count++] = value;
}

/* ---- rounds --------------------------------------------------------------- */

static void take_turn(struct bench_side *side, bool counts)
{
	double figures[BENCH_FIGURES] = { 0 };

	bench_sleep(SETTLE_NS);
	side->run(side->arg, figures);
	for (int i = 0; counts && i < BENCH_FIGURES; i++)
		bench_sample(&side->figure[i], figures[i]);
}

void bench_interleave(struct bench_side *sides, int count, int rounds)
{
	if (bench_config.rounds)
		rounds = bench_config.rounds;
	for (int i = 0; i < count; i++)
		take_turn(&sides[i], false);
	for (int round = 0; round < rounds; round++)
		for (int i = 0; i < count; i++)
			take_turn(&sides[round % 2 ? count - 1 - i : i], true);
}

/* Waits for the start, which is the end of the pipe. Never returns. */
static void run_on_core(const int *gate, unsigned number, void (*fn)(unsigned number),
			int64_t *ended)
{
	char none;

	close(gate[1]);
	if (read(gate[0], &none, 1) == 0)
		fn(number);
	*ended = bench_now();
	_exit(0);
}

/* Of all processes from the common start to the last one's end: neither forking
 * nor tearing down is in it. */
static int64_t run_gated(pid_t *pids, unsigned n, void (*fn)(unsigned number), int64_t *ended)
{
	int64_t start, last = 0;
	int gate[2];

	if (pipe(gate) < 0)
		bench_die("pipe failed");
	for (unsigned i = 0; i < n; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			run_on_core(gate, i, fn, &ended[i]);
		if (pids[i] < 0)
			bench_die("fork failed");
	}
	bench_sleep(SETTLE_NS);
	start = bench_now();
	close(gate[1]);
	for (unsigned i = 0; i < n; i++) {
		waitpid(pids[i], NULL, 0);
		last = ended[i] > last ? ended[i] : last;
	}
	close(gate[0]);
	return last - start;
}

int64_t bench_on_cores(void (*fn)(unsigned number))
{
	size_t size = BENCH_WORKERS_MAX * sizeof(int64_t);
	pid_t pids[BENCH_WORKERS_MAX];
	int64_t *ended, took;

	if (bench_config.cores > BENCH_WORKERS_MAX)
		bench_die("more than %d cores", BENCH_WORKERS_MAX);
	ended = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ended == MAP_FAILED)
		bench_die("no shared memory");
	took = run_gated(pids, bench_config.cores, fn, ended);
	munmap(ended, size);
	return took;
}

/* ---- pools ------------------------------------------------------------------ */

struct ac_pool *bench_pool(unsigned workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = (int)workers };
	struct ac_pool *pool;

	bench_must(ac_pool_open(&pool, &opts), "ac_pool_open");
	return pool;
}

unsigned bench_pool_pids(struct ac_pool *pool, pid_t *pids, unsigned max)
{
	static struct ac_worker_stat stats[BENCH_WORKERS_MAX];
	unsigned found = 0;
	int n;

	n = bench_must(ac_pool_workers(pool, stats, BENCH_WORKERS_MAX), "ac_pool_workers");
	for (int i = 0; i < n && i < BENCH_WORKERS_MAX && found < max; i++)
		if (stats[i].pid > 0)
			pids[found++] = stats[i].pid;
	return found;
}

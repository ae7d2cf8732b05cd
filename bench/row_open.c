/* SPDX-License-Identifier: MIT */
/*
 * Opening a pool, the first result, and closing it, against the least that
 * processes cost: fork as many children that exit at once, and wait for all.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIG ((size_t)1 << 30)

struct size {
	unsigned workers;
	unsigned forks;		/* of the bare side */
};

static double ms_since(int64_t start)
{
	return (double)(bench_now() - start) / 1e6;
}

static void check_nobody_left(void)
{
	if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD)
		bench_die("a closed pool has left a child");
}

/* Figures: all of it, open to first result, close; ms. */
static void run_ours(void *arg, double *figures)
{
	const struct size *size = arg;
	uint64_t in = 41, out = 0;
	size_t len = sizeof out;
	int64_t start = bench_now(), closing;
	struct ac_pool *pool = bench_pool(size->workers);

	bench_must(ac_pool_call(pool, bench_noop_call, &in, sizeof in, &out, &len, NULL),
		   "ac_pool_call");
	figures[1] = ms_since(start);
	closing = bench_now();
	bench_must(ac_pool_close(pool), "ac_pool_close");
	figures[2] = ms_since(closing);
	figures[0] = ms_since(start);
	if (out != in + 1)
		bench_die("wrong first result");
	check_nobody_left();
}

static void run_bare(void *arg, double *figures)
{
	const struct size *size = arg;
	int64_t start = bench_now();

	for (unsigned i = 0; i < size->forks; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid < 0)
			bench_die("fork failed");
	}
	for (unsigned i = 0; i < size->forks; i++)
		waitpid(-1, NULL, 0);
	figures[0] = ms_since(start);
}

/* ---- with all of them there at once ---- */

static bool all_ready(struct ac_pool *pool, unsigned n)
{
	struct ac_worker_stat stats[64];

	ac_pool_workers(pool, stats, n);
	for (unsigned i = 0; i < n; i++)
		if (stats[i].state != AC_WORKER_IDLE)
			return false;
	return true;
}

static void run_ours_all(void *arg, double *figures)
{
	const struct size *size = arg;
	int64_t start = bench_now();
	struct ac_pool *pool = bench_pool(size->workers);

	while (!all_ready(pool, size->workers))
		bench_sleep(100000);
	figures[1] = ms_since(start);
	start = bench_now();
	bench_must(ac_pool_close(pool), "ac_pool_close");
	figures[2] = ms_since(start);
	figures[0] = figures[1] + figures[2];
	check_nobody_left();
}

static void be_bare_child(int fd)
{
	char byte;

	_exit(read(fd, &byte, 1) != 0);
}

/* They wait for the end of a pipe. */
static void run_bare_all(void *arg, double *figures)
{
	const struct size *size = arg;
	int64_t start = bench_now();
	int fd[2];

	if (pipe(fd) < 0)
		bench_die("no pipe");
	for (unsigned i = 0; i < size->forks; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			close(fd[1]);
			be_bare_child(fd[0]);
		}
		if (pid < 0)
			bench_die("fork failed");
	}
	close(fd[1]);
	for (unsigned i = 0; i < size->forks; i++)
		waitpid(-1, NULL, 0);
	close(fd[0]);
	figures[0] = ms_since(start);
}

static void measure_all(struct size size, int rounds)
{
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_ours_all, .arg = &size },
		{ .name = "bare fork", .run = run_bare_all, .arg = &size },
	};

	bench_interleave(sides, 2, rounds);
	bench_report(&(struct bench_line){
		.what = "open, all 50 ready, close", .peer = "bare, waiting", .unit = "ms",
		.ours = &sides[0].figure[0], .theirs = &sides[1].figure[0], .lower = true });
}

struct goal {
	const char *what, *peer;
	enum bench_by by;
	double least;
};

static void measure(struct size size, int rounds, const struct goal *goal)
{
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_ours, .arg = &size },
		{ .name = "bare fork", .run = run_bare, .arg = &size },
	};
	struct bench_line line = {
		.what = goal->what, .peer = goal->peer, .unit = "ms",
		.ours = &sides[0].figure[0], .theirs = &sides[1].figure[0],
		.by = goal->by, .lower = true, .least = goal->least,
	};

	bench_interleave(sides, 2, rounds);
	bench_report(&line);
	line = (struct bench_line){ .unit = "ms", .lower = true };
	line.what = "  open to first result";
	line.ours = &sides[0].figure[1];
	bench_report(&line);
	line.what = "  close";
	line.ours = &sides[0].figure[2];
	bench_report(&line);
}

/* kB that may still be taken, by /proc/meminfo; 0 when it does not say. */
static unsigned long long free_kb(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	unsigned long long kb = 0;
	char line[128];

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
			break;
	if (file)
		fclose(file);
	return kb;
}

/* In small pages: with large ones a fork costs a fiftieth, and shows nothing. */
static void *touch_big(void)
{
	char *memory = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	madvise(memory, BIG, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < BIG; i += 4096)
		memory[i] = 1;
	return memory;
}

void bench_row_open(void)
{
	void *big = NULL;

	measure((struct size){ 50, 50 }, 15, &(struct goal){
		"open, result, close: 50 workers", "bare", BENCH_BY_RATIO, 1.25 });
	measure_all((struct size){ 50, 50 }, 15);
	measure((struct size){ 2, 2 }, 25, &(struct goal){
		"the same, 2 workers", "bare", BENCH_BY_DIFFERENCE, 1 });
	if (free_kb() > 2 * (BIG >> 10))
		big = touch_big();
	if (!big) {
		bench_note("no 2 GB free: the owner of 1 GB is left out");
		return;
	}
	measure((struct size){ 2, 3 }, 7, &(struct goal){
		"owner of 1 GB, 2 workers", "bare, and one more", BENCH_BY_RATIO, 1 });
	munmap(big, BIG);
}

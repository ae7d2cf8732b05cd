/* SPDX-License-Identifier: MIT */
/*
 * What all rows of the benchmark share: clocks, work of a known length, sides
 * that take turns, and lines of the table. A row measures ours and theirs in
 * one run, turn by turn, because figures of two runs on a shared machine
 * cannot be compared.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "allcores.h"

#define BENCH_ROUNDS_MAX 64	/* samples that a series keeps */
#define BENCH_FIGURES 4		/* figures that one turn can give */
#define BENCH_WORKERS_MAX 256	/* workers that bench_pool_pids can list */

/* ---- failing: a wrong result or a refused call ends the row with exit 1 -- */

void bench_die(const char *format, ...)
	__attribute__((noreturn, format(printf, 1, 2)));
/* Ends the row unless rc is 0 or more; what names the call. */
int bench_must(int rc, const char *what);
/* Like malloc and calloc, for memory already touched; never NULL. */
void *bench_alloc(size_t size);

/* ---- clocks --------------------------------------------------------------- */

int64_t bench_now(void);		/* CLOCK_MONOTONIC, ns */
int64_t bench_cpu(pid_t pid);		/* CPU used by all its threads, ns */
void bench_sleep(int64_t ns);

/* ---- work ----------------------------------------------------------------- */

/* A chain of dependent steps that no compiler shortens. */
uint64_t bench_work(uint64_t seed, uint64_t steps);
/* How many steps take so many ns on one core: measured at the first call,
 * which must come before a pool is opened if workers use it. */
uint64_t bench_steps(double ns);
/* An item that costs nothing: its result is the item plus 1. */
int bench_noop(const void *item, void *result, const void *bound);
/* The same as a single call. */
int bench_noop_call(struct ac_call *call);

/* ---- sides and rounds ------------------------------------------------------ */

struct bench_series {
	double sample[BENCH_ROUNDS_MAX];
	int count;
};

/* One of those who take turns. run is called once for each round, after one
 * round that does not count, and gives up to BENCH_FIGURES figures. */
struct bench_side {
	const char *name;
	void (*run)(void *arg, double *figures);
	void *arg;
	struct bench_series figure[BENCH_FIGURES];
};

/* All sides, turn by turn, in every second round backwards. rounds is a
 * default: the command line's --rounds overrules it. */
void bench_interleave(struct bench_side *sides, int count, int rounds);
void bench_sample(struct bench_series *series, double value);
double bench_median(const struct bench_series *series);
/* Sorts values; p from 0 to 1. */
double bench_percentile(double *values, size_t count, double p);

/* ---- the table -------------------------------------------------------------- */

/* What a goal is about. */
enum bench_by {
	BENCH_NO_GOAL,
	BENCH_BY_OURS,		/* our own figure */
	BENCH_BY_RATIO,		/* ours / theirs */
	BENCH_BY_DIFFERENCE,	/* ours - theirs */
};

struct bench_line {
	const char *what;
	const char *peer;			/* who theirs is, or NULL */
	const char *unit;
	const struct bench_series *ours;
	const struct bench_series *theirs;	/* or NULL */
	enum bench_by by;
	bool lower;				/* less is better */
	bool worst;				/* judge by the worst, not the median */
	double least, meant;			/* meant 0 and not lower: none */
};

/* The row's heading, its lines, */
void bench_head(void);
void bench_report(const struct bench_line *line);
/* and a sentence. */
void bench_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the run ------------------------------------------------------------------ */

struct bench_config {
	const char *row;	/* the row that runs */
	unsigned cores;		/* ac_cpus(0): what "on N cores" says */
	int rounds;		/* 0: each row's own */
	bool json;
};

extern struct bench_config bench_config;

/* Run fn in a new process for each core, all at once: ns until the last has ended. */
int64_t bench_on_cores(void (*fn)(unsigned number));
/* Open a pool of so many workers, or end the row. */
struct ac_pool *bench_pool(unsigned workers);
/* The workers' processes; returns how many, at most max. */
unsigned bench_pool_pids(struct ac_pool *pool, pid_t *pids, unsigned max);

/* How much of the machine others use between two moments, in cores: this
 * process's own children, which must have been waited for, do not count. */
struct bench_load {
	int64_t wall, busy, own;	/* ns */
};

struct bench_load bench_load_now(void);
double bench_load_others(const struct bench_load *from, const struct bench_load *to);

/* The rows, one file each; main.c lists them. */
void bench_row_map(void);
void bench_row_noop(void);
void bench_row_task(void);
void bench_row_call(void);
void bench_row_wait(void);
void bench_row_open(void);
void bench_row_skew(void);
void bench_row_sleep(void);
void bench_row_large(void);
void bench_row_idle(void);
void bench_row_death(void);

#endif

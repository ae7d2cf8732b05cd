/* SPDX-License-Identifier: MIT */
/*
 * The demonstration: the jobs of sieve.c and sleeps.c in pools of many sizes, a table of
 * times beside their floors, and a picture of every worker's work. Read sieve.c
 * and sleeps.c first: here the same calls are made, with a trace.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <allcores.h>

#include "example.h"
#include "svg.h"

enum { SIZES_MOST = 24 };

/* A list of items, the function for each, and what a plain loop made of them. */
struct job {
	const char *name;
	ac_map_fn *fn;
	void *items;
	size_t item_size;
	int count;
	int *expected;
	struct work work;
	int at_once;		/* how many the machine can do at once, whatever the pool */
	int sizes[SIZES_MOST];	/* of the pools, ascending */
	int size_count;
	int pictured;		/* the size that goes into the picture */
	char title[160], caption[160];
	struct svg_panel panel;
};

/* ---- The two functions ---- */

static int count_primes(const void *limit, void *count, const void *bound)
{
	(void)bound;
	*(int *)count = primes_below(*(const int *)limit);
	return 0;
}

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

/* ---- The two jobs ---- */

static void add_size(struct job *job, int size)
{
	int i = job->size_count;

	for (int k = 0; k < i; k++)
		if (job->sizes[k] == size)
			return;
	for (; i > 0 && job->sizes[i - 1] > size; i--)
		job->sizes[i] = job->sizes[i - 1];
	job->sizes[i] = size;
	job->size_count++;
}

static struct job make_sieves(int percent)
{
	int cpus = ac_cpus(0), limit = 80000 * percent;
	struct job job = {
		.name = "sieve", .fn = count_primes, .item_size = sizeof(int), .count = 100,
		.at_once = cpus, .pictured = cpus,
		.panel = { .dark = "#1b4f8a", .light = "#a9cdec" },
	};
	int *limits = room_for((size_t)job.count, sizeof *limits);

	for (int i = 0; i < job.count; i++)
		limits[i] = limit - i;
	job.items = limits;
	for (int size = 1; size <= 2 * cpus && job.size_count < SIZES_MOST - 3; size *= 2)
		add_size(&job, size);
	add_size(&job, cpus);
	add_size(&job, 50);
	snprintf(job.title, sizeof job.title, "Sieve of Eratosthenes, %d times: primes below %d, "
		 "%d...", job.count, limits[0], limits[1]);
	return job;
}

static struct job make_sleeps(int percent)
{
	static const int sizes[] = { 1, 2, 4, 6, 8, 10, 12, 14, 18, 50 };
	struct job job = {
		.name = "sleeps", .fn = add_slowly, .item_size = sizeof(struct addition),
		.count = 50, .at_once = 50, .pictured = 8,
		.panel = { .dark = "#a34a07", .light = "#f6c08d" },
	};
	struct addition *items = room_for((size_t)job.count, sizeof *items);
	int64_t shortest = percent * MS / 2;

	srandom(50);
	for (int i = 0; i < job.count; i++)
		items[i] = (struct addition){ i, 2 * i, shortest + random() % (2 * shortest + 1) };
	job.items = items;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		add_size(&job, sizes[i]);
	snprintf(job.title, sizeof job.title, "Random sleeps of %.1f to %.1f ms, %d of them",
		 (double)shortest / 1e6, 3 * (double)shortest / 1e6, job.count);
	return job;
}

/* ---- Running them ---- */

/* How it goes, on a line of the terminal that the table's next row overwrites. */
struct progress {
	const char *name;
	int workers;
};

static void show_progress(void *progress_arg, size_t ended, size_t count)
{
	const struct progress *progress = progress_arg;

	if (!isatty(STDERR_FILENO))
		return;
	if (progress->workers)
		fprintf(stderr, "\r%s, pool of %d: %zu of %zu\033[K", progress->name,
			progress->workers, ended, count);
	else
		fprintf(stderr, "\r%s, one core: %zu of %zu\033[K", progress->name, ended, count);
}

static void print_row(const char *pool, int64_t took, const struct job *job, int at_once)
{
	int64_t floor = work_floor(&job->work, at_once);

	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	printf("%14s %9.3f %13.2f %9.3f %15.2f\n", pool, seconds(took),
	       (double)job->work.total_ns / (double)took, seconds(floor),
	       (double)took / (double)floor);
	fflush(stdout);
}

/* What the floor is made of, and what the pools must find: the same function in a plain loop. */
static void run_alone(struct job *job)
{
	struct progress progress = { job->name, 0 };

	job->expected = room_for((size_t)job->count, sizeof(int));
	for (int i = 0; i < job->count; i++) {
		int64_t start = clock_now();

		job->fn((char *)job->items + (size_t)i * job->item_size, &job->expected[i], NULL);
		work_add(&job->work, clock_now() - start);
		show_progress(&progress, (size_t)i + 1, (size_t)job->count);
	}
	printf("%14s %9s %13s %9s %15s\n", "pool", "seconds", "times faster", "floor",
	       "over the floor");
	print_row("no pool", job->work.total_ns, job, 1);
}

/*
 * What this machine really gives: bare processes, every one with its share of the
 * jobs settled beforehand, and no results. Cores that share caches, memory or power with others
 * are slower together than alone, which no library can change.
 */
static void run_forks(const struct job *job, int processes)
{
	int64_t start = clock_now();
	char name[24];

	fflush(NULL);
	for (int n = 0; n < processes; n++) {
		pid_t pid = fork();

		expect(pid >= 0, "no process");
		if (pid)
			continue;
		for (int i = n, result; i < job->count; i += processes)
			job->fn((char *)job->items + (size_t)i * job->item_size, &result, NULL);
		_exit(0);
	}
	for (int n = 0; n < processes; n++)
		wait(NULL);
	snprintf(name, sizeof name, "%d bare forks", processes);
	print_row(name, clock_now() - start, job, lesser(processes, job->at_once));
}

static void keep_picture(struct job *job, struct ac_pool *pool, int workers)
{
	/* An event is at least one item, so there are no more events than items. */
	struct ac_trace_event *events = room_for((size_t)job->count, sizeof *events);

	job->panel.count = must(ac_pool_trace(pool, events, (unsigned)job->count));
	expect(job->panel.count > 0, "nothing was traced");
	job->panel.events = events;
	job->panel.workers = workers;
}

static void run_pool(struct job *job, int workers)
{
	struct progress progress = { job->name, workers };
	struct ac_pool_opts opts = {
		.size = sizeof opts,
		.workers = workers,
		.name = job->name,
		.trace = (unsigned)job->count,
	};
	struct ac_map_opts map = {
		.size = sizeof map,
		.progress = show_progress,
		.progress_arg = &progress,
	};
	int at_once = lesser(workers, job->at_once);
	int *results = room_for((size_t)job->count, sizeof *results);
	int64_t start = clock_now(), end;
	struct ac_pool *pool;
	char name[16];

	must(ac_pool_open(&pool, &opts));
	must(ac_pool_map(pool, job->fn, &map, job->items, job->item_size,
			 results, sizeof *results, (size_t)job->count));
	if (workers == job->pictured)
		keep_picture(job, pool, workers);
	must(ac_pool_close(pool));
	end = clock_now();

	expect(memcmp(results, job->expected, (size_t)job->count * sizeof *results) == 0,
	       "%s: the pool of %d and the loop disagree", job->name, workers);
	free(results);
	snprintf(name, sizeof name, "%d", workers);
	print_row(name, end - start, job, at_once);
	if (workers == job->pictured) {
		job->panel.start_ns = start;
		job->panel.end_ns = end;
		job->panel.floor_ns = work_floor(&job->work, at_once);
	}
}

static void run_job(struct job *job)
{
	int64_t took;

	printf("\n%s\n", job->title);
	run_alone(job);
	run_forks(job, job->pictured);
	for (int i = 0; i < job->size_count; i++)
		run_pool(job, job->sizes[i]);
	took = job->panel.end_ns - job->panel.start_ns;
	snprintf(job->caption, sizeof job->caption, "%d workers: %.3f s from open to close, "
		 "%.2f times the floor of %.3f s; one core: %.3f s", job->pictured, seconds(took),
		 (double)took / (double)job->panel.floor_ns, seconds(job->panel.floor_ns),
		 seconds(job->work.total_ns));
	job->panel.title = job->title;
	job->panel.caption = job->caption;
}

static void free_job(struct job *job)
{
	free(job->items);
	free(job->expected);
	free((void *)job->panel.events);
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "percent", 100, 1, "how long the jobs are, in percent of the usual" },
	};
	char path[4096];
	struct svg_panel panels[2];
	struct job jobs[2];
	char subtitle[120];

	/* Beside the program: in the build directory, where it does no harm. */
	snprintf(path, sizeof path, "%s.svg", argv[0]);
	/* The picture's name may come first, all else is numbers. */
	if (argc > 1 && strstr(argv[1], ".svg")) {
		snprintf(path, sizeof path, "%s", argv[1]);
		argv[1] = argv[0];
		argv++;
		argc--;
	}
	args_read(argc, argv, "The jobs of sieve and sleeps in pools of many sizes. A name.svg as "
		  "first argument\nsays where to write the picture (default: beside the program).",
		  args, 1, NULL);
	expect(args[0].value <= 10000, "10000 percent is the most");
	expect(primes_below(1000000) == 78498, "the sieve itself");

	printf("allcores %s on %d processors; times faster than one core without a pool; the\n"
	       "floor is its work shared evenly, or its longest job: 1.00 is perfect\n",
	       ac_version(), ac_cpus(0));
	jobs[0] = make_sieves(args[0].value);
	jobs[1] = make_sleeps(args[0].value);
	for (int i = 0; i < 2; i++) {
		run_job(&jobs[i]);
		panels[i] = jobs[i].panel;
	}

	snprintf(subtitle, sizeof subtitle, "Who ran which task when, on a machine with %d "
		 "processor%s. Sleeping needs none, so more workers can share them.",
		 ac_cpus(0), ac_cpus(0) == 1 ? "" : "s");
	must(svg_write(path, "allcores: every core at work", subtitle, panels, 2));
	for (int i = 0; i < 2; i++)
		free_job(&jobs[i]);
	printf("\nThe picture of who ran what when is in %s\n", path);
	return 0;
}

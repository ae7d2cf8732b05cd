/* SPDX-License-Identifier: MIT */
/*
 * C's part of the demonstration: the jobs of sieve.c or sleeps.c, once, in a loop, in
 * bare forks or in a pool, with a record of who ran what when. Prints JSON: python/demo.py
 * calls this and its counterpart python/demo_jobs.py, and makes the table and the picture.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <allcores.h>

#include "example.h"

/* A list of items, the function for each, and what became of it. */
struct job {
	ac_map_fn *fn;
	void *items;
	size_t item_size;
	int count;
	int *results;
	struct ac_trace_event *events;
	int event_count;
	int64_t start_ns, took_ns, cpu_ns;
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

static struct job make_sieves(int percent)
{
	struct job job = { .fn = count_primes, .item_size = sizeof(int), .count = 100 };
	int *limits = room_for((size_t)job.count, sizeof *limits);

	for (int i = 0; i < job.count; i++)
		limits[i] = 80000 * percent - i;
	job.items = limits;
	return job;
}

/* From 25 to 75 ms, the same in C and Python: evenly spread, in a scattered order. */
static struct job make_sleeps(int percent)
{
	struct job job = { .fn = add_slowly, .item_size = sizeof(struct addition), .count = 50 };
	struct addition *items = room_for((size_t)job.count, sizeof *items);

	for (int i = 0; i < job.count; i++)
		items[i] = (struct addition){ i, 2 * i, percent * (25 + i * 37 % 50) * MS / 100 };
	job.items = items;
	return job;
}

static struct job job_named(const char *name, int percent)
{
	if (!strcmp(name, "sieve"))
		return make_sieves(percent);
	expect(!strcmp(name, "sleeps"), "\"%s\" is not one of sieve, sleeps", name);
	return make_sleeps(percent);
}

/* ---- The three ways ---- */

static void run_item(const struct job *job, int i, int *result)
{
	job->fn((char *)job->items + (size_t)i * job->item_size, result, NULL);
}

/* What the floor is made of, and what the pools must find. */
static void run_loop(struct job *job)
{
	job->event_count = job->count;
	for (int i = 0; i < job->count; i++) {
		struct ac_trace_event *event = &job->events[i];

		event->task = (uint64_t)i + 1;
		event->items = 1;
		event->start_ns = clock_now();
		run_item(job, i, &job->results[i]);
		event->end_ns = clock_now();
	}
}

/*
 * What this machine really gives: bare processes, every one with its share of the
 * jobs settled beforehand, and no results. Cores that share caches, memory or power with others
 * are slower together than alone, which no library can change.
 */
static void run_forks(struct job *job, int workers)
{
	fflush(NULL);
	for (int n = 0; n < workers; n++) {
		pid_t pid = fork();

		expect(pid >= 0, "no process");
		if (pid)
			continue;
		for (int i = n, result; i < job->count; i += workers)
			run_item(job, i, &result);
		_exit(0);
	}
	for (int n = 0; n < workers; n++)
		wait(NULL);
}

static void run_pool(struct job *job, int workers)
{
	struct ac_pool_opts opts = {
		.size = sizeof opts,
		.workers = workers,
		.trace = (unsigned)job->count,	/* an event is one item or several */
	};
	struct ac_pool *pool;

	must(ac_pool_open(&pool, &opts));
	must(ac_pool_map(pool, job->fn, NULL, job->items, job->item_size,
			 job->results, sizeof *job->results, (size_t)job->count));
	job->event_count = must(ac_pool_trace(pool, job->events, sizeof *job->events,
					      (unsigned)job->count));
	must(ac_pool_close(pool));
}

static void run_named(const char *way, struct job *job, int workers)
{
	if (!strcmp(way, "loop"))
		run_loop(job);
	else if (!strcmp(way, "forks"))
		run_forks(job, workers);
	else if (!strcmp(way, "pool"))
		run_pool(job, workers);
	else
		expect(0, "\"%s\" is not one of loop, forks, pool", way);
}

/* Of this process: of use for the loop, which others may disturb without making it more work. */
static int64_t processor_time(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return used.tv_sec * 1000 * MS + used.tv_nsec;
}

static void run_timed(const char *way, struct job *job, int workers)
{
	int64_t cpu_ns = processor_time();

	job->start_ns = clock_now();
	run_named(way, job, workers);
	job->took_ns = clock_now() - job->start_ns;
	job->cpu_ns = processor_time() - cpu_ns;
}

/* ---- What comes out ---- */

static void print_json(const struct job *job)
{
	const char *comma = "";

	printf("{\"version\": \"%s\", \"cpus\": %d, \"took_ns\": %lld, \"cpu_ns\": %lld,\n"
	       " \"results\": [", ac_version(), ac_cpus(0), (long long)job->took_ns,
	       (long long)job->cpu_ns);
	for (int i = 0; i < job->count; i++, comma = ", ")
		printf("%s%d", comma, job->results[i]);
	printf("],\n \"events\": [");
	comma = "";
	for (int i = 0; i < job->event_count; i++, comma = ",\n  ") {
		const struct ac_trace_event *event = &job->events[i];

		printf("%s[%u, %llu, %llu, %lld, %lld]", comma, event->worker,
		       (unsigned long long)event->task, (unsigned long long)event->items,
		       (long long)(event->start_ns - job->start_ns),
		       (long long)(event->end_ns - job->start_ns));
	}
	printf("]}\n");
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "workers", 0, 0, "how many forks, or workers of the pool; 0: as processors" },
		{ "percent", 100, 1, "how long the jobs are, in percent of the usual" },
	};
	const char *names[2] = { "sieve", "pool" };	/* job, way */
	struct job job;

	for (int i = 0; i < 2 && argc > 1 && argv[1][0] != '-'; i++, argv++, argc--) {
		names[i] = argv[1];
		argv[1] = argv[0];
	}
	args_read(argc, argv, "One job, sieve or sleeps, done in one way, loop, forks or pool: "
		  "these two words come\nfirst. Prints results and who ran what when as JSON, "
		  "an event as [worker, task, items,\nstart, end] in nanoseconds.", args, 2, NULL);
	expect(args[1].value <= 10000, "10000 percent is the most");
	expect(primes_below(1000000) == 78498, "the sieve itself");

	job = job_named(names[0], args[1].value);
	job.results = room_for((size_t)job.count, sizeof *job.results);
	job.events = room_for((size_t)job.count, sizeof *job.events);
	run_timed(names[1], &job, args[0].value ? args[0].value : ac_cpus(0));
	print_json(&job);
	free(job.items);
	free(job.results);
	free(job.events);
	return 0;
}

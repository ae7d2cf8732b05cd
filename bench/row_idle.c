/* SPDX-License-Identifier: MIT */
/*
 * What a pool of 50 costs while nobody uses it: context switches and CPU time
 * of its workers, of the process that forks them, and of the owner's threads
 * other than the one that measures. The pool has been used in all ways before,
 * callbacks included, so that whatever it starts on demand is there.
 */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS 50
#define ITEMS 5000
#define CALM_NS 1500000000
#define WATCH_NS 2000000000

struct cost {
	long long switches;
	int64_t cpu;
};

/* A number in a file of /proc, after "name:"; -1 when the file is gone. */
static long long read_field(const char *path, const char *name)
{
	FILE *file = fopen(path, "r");
	long long value = -1;
	size_t len = strlen(name);
	char line[256];

	while (file && fgets(line, sizeof line, file)) {
		if (strncmp(line, name, len) == 0 && line[len] == ':') {
			value = strtoll(line + len + 1, NULL, 10);
			break;
		}
	}
	if (file)
		fclose(file);
	return value;
}

static long long count_switches(const char *path)
{
	long long voluntary = read_field(path, "voluntary_ctxt_switches");
	long long forced = read_field(path, "nonvoluntary_ctxt_switches");

	if (voluntary < 0 || forced < 0)
		bench_die("%s is gone", path);
	return voluntary + forced;
}

/* All threads of a process but skip. */
static long long count_threads(pid_t pid, pid_t skip)
{
	char path[64];
	struct dirent *entry;
	long long sum = 0;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		bench_die("%s: %s", path, strerror(errno));
	while ((entry = readdir(dir))) {
		char status[64];
		int tid = atoi(entry->d_name);

		if (tid <= 0 || tid == skip)
			continue;
		snprintf(status, sizeof status, "/proc/%d/task/%d/status", (int)pid, tid);
		sum += count_switches(status);
	}
	closedir(dir);
	return sum;
}

static struct cost cost_of(const pid_t *pids, unsigned n)
{
	struct cost cost = { 0 };

	for (unsigned i = 0; i < n; i++) {
		cost.switches += count_threads(pids[i], 0);
		cost.cpu += bench_cpu(pids[i]);
	}
	return cost;
}

/* The process between owner and workers, if there is one. */
static unsigned add_template(pid_t *pids, unsigned n)
{
	char path[64];
	long long parent;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pids[0]);
	parent = read_field(path, "PPid");
	if (parent > 1 && parent != getpid())
		pids[n++] = (pid_t)parent;
	return n;
}

static void note_done(void *arg, struct ac_task *task)
{
	(void)task;
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
}

static void use_pool(struct ac_pool *pool)
{
	static uint64_t items[ITEMS], results[ITEMS];
	int done = 0;
	struct ac_submit_opts opts = { .size = sizeof opts, .done = note_done, .done_arg = &done };
	uint64_t arg = 1;

	bench_must(ac_pool_map(pool, bench_noop, NULL, items, sizeof *items, results,
			       sizeof *results, ITEMS), "ac_pool_map");
	bench_must(ac_pool_submit(pool, NULL, bench_noop_call, &arg, sizeof arg, &opts),
		   "ac_pool_submit");
	bench_must(ac_pool_join(pool, -1), "ac_pool_join");
	if (!__atomic_load_n(&done, __ATOMIC_ACQUIRE) || results[ITEMS - 1] != 1)
		bench_die("wrong results");
}

static void report(const char *what, const char *unit, double figure)
{
	struct bench_series series = { 0 };

	bench_sample(&series, figure);
	bench_report(&(struct bench_line){ .what = what, .unit = unit, .ours = &series,
					   .by = BENCH_BY_OURS, .lower = true, .least = 0 });
}

void bench_row_idle(void)
{
	struct ac_pool *pool = bench_pool(WORKERS);
	pid_t pids[WORKERS + 1], self = getpid();
	struct cost before, after;
	long long threads;
	unsigned n;

	use_pool(pool);
	bench_sleep(CALM_NS); /* by then all have come, too */
	n = bench_pool_pids(pool, pids, WORKERS);
	if (n != WORKERS)
		bench_die("%u workers instead of %d", n, WORKERS);
	n = add_template(pids, n);
	before = cost_of(pids, n);
	threads = count_threads(self, self);
	bench_sleep(WATCH_NS);
	after = cost_of(pids, n);
	report("wake-ups of 50 workers and their parent, 2 s", "times",
	       (double)(after.switches - before.switches));
	report("their CPU time, 2 s", "ms", (double)(after.cpu - before.cpu) / 1e6);
	report("wake-ups of the owner's other threads, 2 s", "times",
	       (double)(count_threads(self, self) - threads));
	ac_pool_close(pool);
}

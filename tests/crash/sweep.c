/* SPDX-License-Identifier: MIT */
/* Which places, which of them may be merged, and a run for each: see the header. */
#define _GNU_SOURCE
#include "sweep.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crash.h"

#define BETWEEN 16
#define RUNS_LEAST 8
#define TRIES 4 /* where others act at the same time */
#define LOOP 64 /* visits that make a loop */
#define BUDGET (1500 * MS)
#define BUDGET_FULL (120 * SECOND) /* where each run is made of steps alone */
#define VIEW_SIZE (UINT64_C(256) << 20)

extern char __executable_start;

const struct sweep *sweep_current;
bool sweep_full;

/* What a process that goes on knows would have to be the same, too. */
static bool can_merge(const struct sweep *sweep)
{
	return !sweep->spared && (!sweep->is_crowded || sweep->merges);
}

/* ---- shared bytes ---- */

/* The region, and what it was at the last look. */
struct view {
	const struct trace *trace;
	unsigned calls;	/* the process had made when the region was last looked for */
	int fd;
	char *now, *then;
};

/* A memfd, or a file that has no name any more. */
static bool is_region(const char *target)
{
	const char *dir = getenv("TMPDIR");

	return strncmp(target, "/memfd:allcores", 15) == 0 ||
	       (sweep_current->merges && dir &&
		strncmp(target, dir, strlen(dir)) == 0);
}

static int open_region(pid_t pid)
{
	char fds[32], path[300], target[256];
	struct dirent *entry;
	int fd = -1;
	DIR *dir;

	snprintf(fds, sizeof fds, "/proc/%d/fd", (int)pid);
	dir = opendir(fds);
	while (dir && fd < 0 && (entry = readdir(dir))) {
		ssize_t n;

		snprintf(path, sizeof path, "%s/%s", fds, entry->d_name);
		n = readlink(path, target, sizeof target - 1);
		target[n < 0 ? 0 : n] = '\0';
		if (is_region(target))
			fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static void open_view(struct view *view, pid_t pid)
{
	view->fd = can_merge(sweep_current) ? open_region(pid) : -1;
	if (view->fd < 0)
		return;
	view->now = mmap(NULL, VIEW_SIZE, PROT_READ, MAP_SHARED | MAP_NORESERVE,
			 view->fd, 0);
	view->then = mmap(NULL, VIEW_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(view->now != MAP_FAILED && view->then != MAP_FAILED);
}

static void close_view(struct view *view)
{
	if (view->fd < 0)
		return;
	munmap(view->now, VIEW_SIZE);
	munmap(view->then, VIEW_SIZE);
	close(view->fd);
}

/* Only a system call makes one. */
static bool await_region(struct view *view)
{
	if (view->fd < 0 && view->calls != view->trace->calls)
		open_view(view, view->trace->pid);
	view->calls = view->trace->calls;
	return view->fd < 0;
}

/* Without a view every step may have changed something, if there is a region at all. */
static bool has_changed(struct view *view)
{
	bool changed = view->fd < 0;
	off_t start = 0, end = 0;

	if (sweep_current->merges && await_region(view))
		return false;

	while (view->fd >= 0 && (start = lseek(view->fd, end, SEEK_DATA)) >= 0) {
		size_t len;

		end = lseek(view->fd, start, SEEK_HOLE);
		CHECK(end > start && (uint64_t)end <= VIEW_SIZE);
		len = (size_t)(end - start);
		if (memcmp(view->now + start, view->then + start, len) == 0)
			continue;
		memcpy(view->then + start, view->now + start, len);
		changed = true;
	}
	return changed;
}

static struct trace_change look(void *arg)
{
	const struct sweep *sweep = sweep_current;

	return (struct trace_change){
		.changed = has_changed(arg),
		.critical = sweep->is_critical && sweep->is_critical(),
	};
}

/* ---- places ---- */

struct places {
	uint32_t *steps;
	unsigned count, merged;
};

static void add_place(struct places *places, unsigned step)
{
	places->steps[places->count++] = step;
}

/* Steps of which not every one is worth a run: foreign code, one instruction that repeats itself. */
static bool is_dull(const struct trace_path *path, unsigned k)
{
	const struct trace_step *step = &path->steps[k];

	return step->kind == TRACE_AT &&
	       (!step->engine || (k && step[-1].pc == step->pc));
}

/* Of so many in a row, or visits in a loop: the first, the last and some between. */
static bool is_chosen(uint32_t i, uint32_t n)
{
	uint64_t before = (uint64_t)(i - 1) * (BETWEEN + 1), most = n - 1;

	return i == 0 || before / most != (before + BETWEEN + 1) / most;
}

static void add_dull(struct places *places, unsigned first, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (n <= BETWEEN + 2 || is_chosen(i, n))
			add_place(places, first + i);
}

static bool is_worth_it(const struct trace_path *path, unsigned k)
{
	const struct trace_step *step = &path->steps[k];
	uint32_t visits = trace_visits(path, step->pc);

	return step->kind != TRACE_AT || visits <= LOOP ||
	       is_chosen(step->visit - 1, visits);
}

static void choose_places(struct places *places, const struct trace_path *path)
{
	unsigned k = 0;

	places->steps = calloc(path->count + 1, sizeof *places->steps);
	CHECK(places->steps);
	while (k < path->count) {
		unsigned n = 0;

		while (k + n < path->count && is_dull(path, k + n))
			n++;
		if (n)
			add_dull(places, k, n);
		else if (is_worth_it(path, k++))
			add_place(places, k - 1);
		k += n;
	}
}

/* One of each set, whichever; but all that are critical. */
static void merge_places(struct places *places, const struct trace_path *path)
{
	unsigned kept = 0, all = places->count, n;
	uint64_t seed = crash_seed;

	for (unsigned i = 0; i < all; i += n) {
		const struct trace_step *step = &path->steps[places->steps[i]];
		/* A sanitizer's instructions are too many for that. */
		bool alone = step->critical && !CRASH_SANITIZED;
		unsigned chosen;

		for (n = 1; !alone && i + n < all; n++)
			if (path->steps[places->steps[i + n]].set != step->set)
				break;
		chosen = i + (unsigned)(crash_random(&seed) % n);
		places->steps[kept++] = places->steps[chosen];
	}
	places->merged = all - kept;
	places->count = kept;
}

static void shuffle(struct places *places)
{
	uint64_t seed = crash_seed;

	for (unsigned i = places->count; i > 1; i--) {
		unsigned j = (unsigned)(crash_random(&seed) % i);
		uint32_t step = places->steps[j];

		places->steps[j] = places->steps[i - 1];
		places->steps[i - 1] = step;
	}
}

/* For who has no time for all. */
static void put_first(struct places *places, const struct trace_path *path)
{
	unsigned n = 0;

	for (unsigned i = 0; i < places->count; i++) {
		uint32_t step = places->steps[i];

		if (path->steps[step].kind == TRACE_AT && !path->steps[step].critical)
			continue;
		places->steps[i] = places->steps[n];
		places->steps[n++] = step;
	}
}

/* ---- runs ---- */

static void learn(const struct sweep *sweep, struct trace_path *path)
{
	struct trace trace = { .act = sweep->act };
	struct view view = { .trace = &trace };

	sweep->start(&trace);
	open_view(&view, sweep->merges ? trace.pid : getpid());
	trace_learn(&trace, path, look, &view);
	CHECK(view.fd >= 0 || !sweep->merges);
	close_view(&view);
	sweep->end(&trace, false);
}

static void say_place(const struct trace_path *path, unsigned k)
{
	static const char *const kinds[] = { "at", "entered", "asleep" };
	const struct trace_step *step = &path->steps[k];

	crash_at("step %u: %s %s%#lx, visit %u", k, kinds[step->kind],
		 step->engine ? "" : "(foreign) ",
		 (unsigned long)(step->pc - (uintptr_t)&__executable_start), step->visit);
}

/* False: it did not come by there this time. */
static bool run_to_place(const struct sweep *sweep, const struct trace_path *path,
			 unsigned k)
{
	struct trace trace = { .act = sweep->act, .only_steps = sweep->only_steps };
	bool reached;

	say_place(path, k);
	sweep->start(&trace);
	reached = trace_reach(&trace, path, k);
	if (reached && sweep->befall)
		sweep->befall();
	if (sweep->spared)
		trace_finish(&trace);
	sweep->end(&trace, reached && !sweep->spared);
	return reached;
}

static bool try_place(const struct sweep *sweep, const struct trace_path *path, unsigned k)
{
	for (unsigned tries = sweep->is_crowded ? TRIES : 1; tries; tries--)
		if (run_to_place(sweep, path, k))
			return true;
	return false;
}

/* Places to which it did not come again: what libc does depends on the time, and on its heap. */
struct misses {
	unsigned all, engine;
};

static bool runs_all(const struct sweep *sweep)
{
	return sweep_full && !sweep->only_steps;
}

static int64_t budget_of(const struct sweep *sweep)
{
	if (sweep_full)
		return BUDGET_FULL;
	return sweep->is_critical ? 2 * BUDGET : BUDGET;
}

/* A sweep that comes to no place shows nothing. */
static bool has_shown_something(unsigned runs, const struct misses *misses)
{
	return runs > misses->all && misses->all <= 2 + runs / 4;
}

/* On a busy machine the first runs may miss many places: then it takes up to three times as long. */
static bool may_stop(unsigned runs, const struct misses *misses, int64_t end, int64_t budget)
{
	int64_t now = crash_now();

	return runs - misses->all >= RUNS_LEAST && now > end &&
	       (has_shown_something(runs, misses) || now > end + 2 * budget);
}

static unsigned run_places(const struct sweep *sweep, const struct trace_path *path,
			   struct places *places, struct misses *misses)
{
	int64_t end = crash_now() + budget_of(sweep);
	bool all = runs_all(sweep) || (can_merge(sweep) && !CRASH_SANITIZED);
	unsigned i;

	for (i = 0; i < places->count; i++) {
		unsigned k = places->steps[i];

		if (!all && may_stop(i, misses, end, budget_of(sweep)))
			break;
		if (try_place(sweep, path, k))
			continue;
		misses->all++;
		misses->engine += path->steps[k].engine;
	}
	return i;
}

void sweep_run(const struct sweep *sweep)
{
	struct trace_path path = { 0 };
	struct places places = { 0 };
	struct misses missed = { 0 };
	unsigned runs, chosen;

	trace_need();
	sweep_current = sweep;
	crash_at("learning");
	learn(sweep, &path);
	choose_places(&places, &path);
	chosen = places.count;
	if (!runs_all(sweep)) {
		if (can_merge(sweep))
			merge_places(&places, &path);
		shuffle(&places);
		put_first(&places, &path);
	}
	runs = run_places(sweep, &path, &places, &missed);
	crash_note("%u steps, %u of them places, %u merged; %u runs, missed %u (%u in the engine)",
		   path.count, chosen, places.merged, runs, missed.all, missed.engine);
	CHECK(has_shown_something(runs, &missed));
	free(places.steps);
	trace_forget(&path);
}

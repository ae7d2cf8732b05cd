/* SPDX-License-Identifier: MIT */
/*
 * The sweeps over maps and divisible calls. A map's owner waits in a thread of its own:
 * it gets the pool's lock only while the victim sleeps, so that it acts at the same
 * points of the victim's path in each run.
 */
#define _GNU_SOURCE
#include "parts.h"

#include <pthread.h>
#include <string.h>

#include "sweep.h"
#include "victim.h"

#define ITEMS 6
#define CHUNK 3
#define UNITS 6
#define PIECES 8
#define WAIT (10 * SECOND)

struct parts {
	struct victim_plan plan;
	unsigned retries;
};

static const struct parts *parts(void)
{
	return sweep_current->arg;
}

/* ---- a map ---- */

static struct {
	pthread_t thread;
	bool begun;
	_Atomic bool over;
	uint32_t items[ITEMS], results[ITEMS];
	struct ac_outcome outcomes[ITEMS];
} map;

TRACE_TASK static int some_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	atomic_fetch_add(&runs[*(const uint32_t *)item], 1);
	victim_burn();
	*(uint32_t *)result = *(const uint32_t *)item + 1;
	return 0;
}

static void *be_mapper(void *arg)
{
	struct ac_map_opts opts = { .size = sizeof opts,
				    .outcomes = map.outcomes,
				    .chunk = CHUNK,
				    .retries = parts()->retries };

	(void)arg;
	ac_pool_map(pool, some_item, &opts, map.items, sizeof *map.items, map.results,
		    sizeof *map.results, ITEMS);
	atomic_store(&map.over, true);
	return NULL;
}

/* Asleep under an armed bell, with nothing to collect. */
static bool mapper_sleeps(void)
{
	return pool->slots.published && pool->sleep.collector && !ac__done_any(&pool->board) &&
	       atomic_load(&pool->board.shm->owner_bell.state) == AC__BELL_ASLEEP;
}

/* Let the mapper do what it has to. The lock is held before and after. */
static void let_mapper_act(void)
{
	int64_t end = crash_now() + WAIT;

	do {
		ac__pool_unlock(pool);
		crash_sleep(MS / 20);
		CHECK(crash_now() < end);
		ac__pool_lock(pool);
	} while (!atomic_load(&map.over) && !mapper_sleeps());
}

static void start_map(struct trace *trace)
{
	memset(&map, 0, sizeof map);
	for (uint32_t i = 0; i < ITEMS; i++)
		map.items[i] = i;
	victim_start(trace, &parts()->plan, NULL);
	ac__pool_lock(pool);
}

static void begin_map(void)
{
	map.begun = true;
	CHECK_EQ(pthread_create(&map.thread, NULL, be_mapper, NULL), 0);
}

static bool act_on_map(unsigned n)
{
	(void)n;
	if (!map.begun)
		begin_map();
	else if (atomic_load(&map.over))
		return false;
	let_mapper_act();
	return true;
}

static void check_item(uint32_t i, unsigned *died)
{
	unsigned n = atomic_load(&runs[i]);
	bool failed = map.outcomes[i].status != 0;

	if (failed)
		CHECK_EQ(map.outcomes[i].status, AC_EDIED);
	CHECK_EQ(map.results[i], failed ? 0 : i + 1);
	*died += failed;
	if (failed)
		CHECK(n <= 1);
	else
		CHECK(n == 1 || (n >= 1 && n <= 1 + held && parts()->retries));
}

static void end_map(struct trace *trace, bool killed)
{
	unsigned died = 0;

	if (!map.begun)
		begin_map();
	victim_end(trace, killed);
	ac__pool_unlock(pool);
	pthread_join(map.thread, NULL);
	for (uint32_t i = 0; i < ITEMS; i++)
		check_item(i, &died);
	CHECK(held <= 1);
	/* A chunk may be in its hand, and all its items be done. */
	CHECK(died <= (parts()->retries ? 0 : held));
	victim_check(killed);
}

/* ---- a divisible call ---- */

/* A call stands for the units from its first on; what is taken back is another call. */
struct piece {
	uint32_t first, units;
};

static struct {
	struct ac_stream *stream;
	struct ac_bound *bound;
	struct piece pieces[PIECES];
	unsigned count;
	bool pushed;
} feed;

/* The owner may take back what has not begun while the second unit runs. */
TRACE_TASK static int some_units(struct ac_call *call)
{
	const struct piece *piece = ac_call_arg(call, NULL);
	const uint32_t *bound = ac_call_bound(call, NULL);
	uint32_t n = 0;

	if (!bound || *bound != UNITS)
		return 1;
	while (ac_call_next_unit(call)) {
		atomic_fetch_add(&runs[piece->first + n], 1);
		victim_burn();
		if (++n == 2 && piece->first == 0 && atomic_load(&runs[RUNS - 1]))
			TRACE_MARK();
	}
	return ac_call_return(call, &n, sizeof n);
}

static void push_piece(uint32_t first, uint32_t units)
{
	struct ac_push_opts opts = { .size = sizeof opts, .units = units, .bound = feed.bound };
	struct piece *piece = &feed.pieces[feed.count];
	uint64_t index;

	CHECK(feed.count < PIECES);
	*piece = (struct piece){ .first = first, .units = units };
	CHECK_EQ(ac_stream_push(feed.stream, piece, sizeof *piece, &opts, &index), 0);
	CHECK_EQ(index, feed.count++);
}

static void push_all(void)
{
	if (!feed.pushed)
		push_piece(0, UNITS);
	feed.pushed = true;
}

static void take_back(void)
{
	uint64_t index;
	uint32_t kept;
	struct piece *piece;

	if (ac_stream_take_back(feed.stream, &index, NULL, &kept) != 1)
		return;
	CHECK(index < feed.count);
	piece = &feed.pieces[index];
	CHECK(kept >= 1 && kept < piece->units);
	push_piece(piece->first + kept, piece->units - kept);
	piece->units = kept;
}

static void start_feed(struct trace *trace)
{
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .flags = AC_STREAM_UNORDERED,
				       .retries = parts()->retries };

	memset(&feed, 0, sizeof feed);
	victim_start(trace, &parts()->plan, NULL);
	CHECK_EQ(ac_stream_open(&feed.stream, pool, some_units, &opts), 0);
	CHECK_EQ(ac_bound_make(&feed.bound, pool, &(const uint32_t){ UNITS }, sizeof(uint32_t)), 0);
	/* Marks are for the traced alone. */
	atomic_store(&runs[RUNS - 1], !sweep_current->befall);
}

static bool act_on_feed(unsigned n)
{
	if (n == 0) {
		push_all();
		return true;
	}
	if (n == 1 && !sweep_current->befall) {
		take_back();
		return true;
	}
	victim_check_asleep();
	return false;
}

/* All units of a call that succeeded were run; how many failed? */
static unsigned check_piece(struct ac_task *task)
{
	struct ac_outcome outcome;
	const void *data;
	const struct piece *piece;
	unsigned most = 1 + (parts()->retries ? held : 0);

	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	piece = &feed.pieces[outcome.index];
	if (outcome.status == 0) {
		CHECK_EQ(ac_task_result(task, &data, NULL), 0);
		CHECK_EQ(*(const uint32_t *)data, piece->units);
	} else {
		CHECK_EQ(outcome.status, AC_EDIED);
	}
	for (uint32_t i = piece->first; i < piece->first + piece->units; i++) {
		unsigned n = atomic_load(&runs[i]);

		CHECK(n <= most && (n >= 1 || outcome.status));
	}
	ac_task_free(task);
	return outcome.status != 0;
}

static void end_feed(struct trace *trace, bool killed)
{
	struct ac_task *task;
	unsigned died = 0, count;

	atomic_store(&runs[RUNS - 1], 0);
	victim_end(trace, killed);
	push_all();
	ac_bound_free(feed.bound);
	CHECK_EQ(ac_stream_end(feed.stream), 0);
	for (count = 0; ac_stream_next(feed.stream, &task, WAIT) == 1; count++)
		died += check_piece(task);
	CHECK_EQ(count, feed.count);
	CHECK_EQ(died, parts()->retries ? 0 : held);
	ac_stream_close(feed.stream);
	victim_check(killed);
}

/* ---- the sweeps ---- */

static void run_sweep(void *sweep)
{
	sweep_run(sweep);
}

static const struct parts alone = { .plan = { .workers = 1 } },
			  retried = { .plan = { .workers = 1 }, .retries = 1 },
			  two_retried = { .plan = { .workers = 2 }, .retries = 1 };

static const struct sweep maps[] = {
	{ .name = "at each step: a map", .arg = &alone },
	{ .name = "at each step: a map retried, two workers", .arg = &two_retried },
};

static const struct sweep feeds[] = {
	{ .name = "at each step: a divided call", .arg = &alone },
	{ .name = "at each step: a divided call retried", .arg = &retried },
	{ .name = "at each step: units taken back, then killed",
	  .arg = &alone,
	  .befall = take_back },
	{ .name = "at each step: units taken back, not killed",
	  .arg = &alone,
	  .befall = take_back,
	  .spared = true },
};

void sweep_parts(unsigned seconds)
{
	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
		struct sweep sweep = maps[i];

		sweep.start = start_map;
		sweep.act = act_on_map;
		sweep.end = end_map;
		crash_case(sweep.name, run_sweep, &sweep, seconds);
	}
	for (size_t i = 0; i < sizeof feeds / sizeof *feeds; i++) {
		struct sweep sweep = feeds[i];

		sweep.start = start_feed;
		sweep.act = act_on_feed;
		sweep.end = end_feed;
		crash_case(sweep.name, run_sweep, &sweep, seconds);
	}
}

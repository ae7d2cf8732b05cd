/* SPDX-License-Identifier: MIT */
/* Random maps: some items fail, some kill their worker; every item's end is checked. */
#define _GNU_SOURCE
#include "stress.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 3000
#define SENTINEL UINT64_C(0x5e47157e1)
#define FACTOR UINT64_C(2654435761)

enum kind { FINE, LONG, BAD, DEADLY, DEADLY_ONCE };

struct item {
	uint64_t number;	/* DEADLY_ONCE: in stress_runs */
	uint32_t kind, value;
};

struct bound {
	uint64_t plus;
	char more[1000];
};

struct bulk {
	struct pot *pot;
	struct ac_map_opts opts;
	struct bound bound;
	struct item *items;
	uint64_t *results;
	struct ac_outcome *outcomes, failure;
	size_t count, ended;
};

static int do_item(const void *data, void *result, const void *bound)
{
	const struct item *item = data;
	const struct bound *all = bound;

	if (*(uint64_t *)result != 0)
		return 77;
	*(uint64_t *)result = item->value * FACTOR + (all ? all->plus : 0);
	switch (item->kind) {
	case LONG:
		crash_burn((int64_t)item->value * 1000);
		return 0;
	case BAD:
		return (int)item->value + 100;
	case DEADLY:
		raise(SIGKILL);
		return 0;
	case DEADLY_ONCE:
		if (atomic_fetch_add(&stress_runs[item->number], 1) == 0)
			_exit((int)item->value);
		return 0;
	default:
		return 0;
	}
}

/* ---- one item's end ---- */

static bool is_own_end(const struct bulk *bulk, const struct item *item,
		       const struct ac_outcome *outcome)
{
	bool unknown = bulk->pot->beheaded && !outcome->signal && outcome->exit_code == -1;

	switch (outcome->status) {
	case 0:
		return item->kind <= LONG ||
		       (item->kind == DEADLY_ONCE && bulk->opts.retries);
	case AC_ETASK:
		return item->kind == BAD && outcome->value == (int)item->value + 100;
	case AC_EDIED:
		if (item->kind == DEADLY)
			return unknown || outcome->signal == SIGKILL;
		return item->kind == DEADLY_ONCE && !bulk->opts.retries &&
		       (unknown || outcome->exit_code == (int)item->value);
	default:
		return false;
	}
}

static void check_item(const struct bulk *bulk, size_t i, bool stopped)
{
	const struct ac_outcome *outcome = &bulk->outcomes[i];
	const struct item *item = &bulk->items[i];
	uint64_t plus = bulk->opts.bound ? bulk->bound.plus : 0;

	CHECK_EQ(outcome->index, i);
	if (!is_own_end(bulk, item, outcome) &&
	    !stress_is_possible(bulk->pot, outcome, stopped, false))
		crash_fail(__FILE__, __LINE__,
			   "item %zu of %zu, kind %u, retries %u, flags %u, chunk %zu, "
			   "pool %u (%u workers) struck %d beheaded %d terminated %d: "
			   "%s value %d signal %d exit code %d \"%s\"",
			   i, bulk->count, item->kind, bulk->opts.retries,
			   bulk->opts.flags, bulk->opts.chunk, bulk->pot->number,
			   bulk->pot->workers, bulk->pot->struck, bulk->pot->beheaded,
			   bulk->pot->terminated, ac_errname(outcome->status),
			   outcome->value, outcome->signal, outcome->exit_code,
			   outcome->text);
	CHECK(bulk->results[i] == (outcome->status ? SENTINEL :
						     item->value * FACTOR + plus));
}

/* ---- the whole map's ---- */

/* The lowest failure that is no cancellation, or the lowest at all. */
static size_t find_failure(const struct bulk *bulk)
{
	size_t first = SIZE_MAX;

	for (size_t i = 0; i < bulk->count; i++) {
		int status = bulk->outcomes[i].status;

		if (status && status != AC_ECANCELED)
			return i;
		if (status && first == SIZE_MAX)
			first = i;
	}
	return first;
}

static void check_map(const struct bulk *bulk, int r)
{
	bool may_stop = bulk->opts.flags & AC_MAP_STOP;
	size_t first;

	CHECK(bulk->ended <= bulk->count);
	CHECK_EQ(r, bulk->failure.status);
	if (!bulk->opts.outcomes) {
		for (size_t i = 0; r == 0 && i < bulk->count; i++)
			CHECK(bulk->items[i].kind != BAD && bulk->results[i] != SENTINEL);
		return;
	}
	first = find_failure(bulk);
	for (size_t i = 0; i < bulk->count; i++)
		check_item(bulk, i, may_stop && first != SIZE_MAX &&
					    bulk->outcomes[first].status != AC_ECANCELED);
	CHECK_EQ(r, first == SIZE_MAX ? 0 : bulk->outcomes[first].status);
	if (first != SIZE_MAX)
		CHECK_EQ(bulk->failure.index, first);
}

static void note_progress(void *arg, size_t ended, size_t count)
{
	struct bulk *bulk = arg;

	CHECK_EQ(count, bulk->count);
	CHECK(ended >= bulk->ended && ended <= count);
	bulk->ended = ended;
	atomic_fetch_add(&stress_moves, 1);
}

/* ---- making one ---- */

static void make_items(struct bulk *bulk, uint64_t *seed)
{
	unsigned deadly = stress_below(seed, 3) ? 0 : 5;
	unsigned bad = stress_below(seed, 2) ? 0 : 20;

	for (size_t i = 0; i < bulk->count; i++) {
		uint64_t n = stress_below(seed, 1000);
		struct item *item = &bulk->items[i];

		bulk->results[i] = SENTINEL;
		item->value = (uint32_t)stress_below(seed, 200);
		item->kind = n < 15 ? LONG : FINE;
		if (n > 990 && deadly) {
			item->kind = n < 995 ? DEADLY : DEADLY_ONCE;
			item->number = stress_number();
			deadly--;
		} else if (n > 970 && bad) {
			item->kind = BAD;
			bad--;
		}
	}
}

static void make_map(struct bulk *bulk, struct pot *pot, uint64_t *seed)
{
	bulk->pot = pot;
	bulk->count = stress_below(seed, stress_below(seed, 2) ? MOST : 50);
	bulk->items = calloc(bulk->count + 1, sizeof *bulk->items);
	bulk->results = calloc(bulk->count + 1, sizeof *bulk->results);
	bulk->outcomes = calloc(bulk->count + 1, sizeof *bulk->outcomes);
	CHECK(bulk->items && bulk->results && bulk->outcomes);
	make_items(bulk, seed);
	bulk->bound.plus = crash_random(seed);
	bulk->opts = (struct ac_map_opts){
		.size = sizeof bulk->opts,
		.bound = stress_below(seed, 2) ? &bulk->bound : NULL,
		.chunk = stress_below(seed, 2) ? 0 : 1 + stress_below(seed, 100),
		.outcomes = stress_below(seed, 5) ? bulk->outcomes : NULL,
		.failure = &bulk->failure,
		.retries = (unsigned)stress_below(seed, 3),
		.flags = stress_below(seed, 3) ? 0 : AC_MAP_STOP,
		.progress = note_progress,
		.progress_arg = bulk,
	};
	bulk->opts.bound_size = bulk->opts.bound ? sizeof bulk->bound : 0;
}

void stress_map(struct hand *hand, struct pot *pot)
{
	struct bulk *bulk = calloc(1, sizeof *bulk);
	int r;

	CHECK(bulk);
	hand->doing = "a map";
	make_map(bulk, pot, &hand->seed);
	r = ac_pool_map(pot->pool, do_item, &bulk->opts, bulk->items,
			sizeof *bulk->items, bulk->results, sizeof *bulk->results,
			bulk->count);
	if (r == AC_ECLOSED || r == -ENOMEM) {
		CHECK(r == -ENOMEM ? pot->limited : pot->shut);
		atomic_store(&pot->uncounted, true);
	} else {
		atomic_fetch_add(&pot->submitted, bulk->count);
		check_map(bulk, r);
	}
	atomic_fetch_add(&stress_moves, 1);
	free(bulk->items);
	free(bulk->results);
	free(bulk->outcomes);
	free(bulk);
}

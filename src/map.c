/* SPDX-License-Identifier: MIT */
/*
 * ac_pool_map: the thread that calls it, the mapping thread, waits for its map and does for it what
 * no other thread does: the long copies, items into a slot that is FILLING and results out of slots
 * that are EMPTYING, so that no other call waits for them; taking back what a long item holds
 * up; progress.
 */
#include <errno.h>
#include <stdlib.h>

#include "map_job.h"
#include "task.h"
#include "wait.h"

#define PROGRESS_NS 100000000
#define STARVED_NS 1000000 /* how often to look for items to take back */

/* ---- long copies ---- */

/* The items stay the caller's until the map ends, and the map does not end before this: the slot
 * counts as a piece. Meanwhile the map may be stopped, or all work be ended. */
static void fill_slot(struct ac__map *map)
{
	struct ac__slots *slots = &map->pool->slots;
	uint32_t slot = map->to_fill - 1;
	struct ac__slot *mine = &slots->slots[slot];

	ac__engine_copy(map->pool, mine->fill.to, mine->fill.from, mine->fill.len);
	map->to_fill = 0;
	if (map->stopping && !slots->over.status) {
		map->pieces--;
		ac__map_note_failed(map, mine->first, mine->end, &ac__map_stopped);
		ac__slots_abandon_fill(slots, slot);
	}
	ac__slots_end_fill(slots, slot);
}

/* The slot and its block are the mapping thread's until it releases the slot. */
static void empty_slot(struct ac__map *map)
{
	struct ac__slots *slots = &map->pool->slots;
	uint32_t slot = map->to_empty - 1;
	struct ac__fill copy = slots->slots[slot].fill;

	map->to_empty = slots->slots[slot].next;
	ac__engine_copy(map->pool, copy.to, copy.from, copy.len);
	slots->slots[slot].fill.len = 0;
	ac__slots_release(slots, slot);
	map->pieces--;
}

static void make_copies(struct ac__map *map)
{
	while (map->to_fill || map->to_empty) {
		if (map->to_fill)
			fill_slot(map);
		if (map->to_empty)
			empty_slot(map);
	}
}

/* ---- waiting ---- */

static bool is_over(const struct ac__map *map)
{
	return map->pieces == 0 && !map->queued;
}

static bool is_over_or_to_copy(void *arg)
{
	const struct ac__map *map = arg;

	return is_over(map) || map->to_fill || map->to_empty;
}

/* Or workers have run out of work, and chunks that still run may have a rest to take back. */
static bool needs_mapping_thread(void *arg)
{
	const struct ac__map *map = arg;

	return is_over_or_to_copy(arg) || (ac__map_is_starved(map) && !map->no_rest);
}

/* In a scope of its own, which a function that throws leaves through. */
static void call_progress(struct ac__map *map, uint64_t ended)
{
	struct ac__calling calling __attribute__((cleanup(ac__engine_end_callback)));

	ac__engine_begin_callback(map->pool, &calling);
	map->opts.progress(map->opts.progress_arg, ended, map->count);
}

/* Starved, the mapping thread looks once a millisecond until chunks have no rest left. */
static int wait_for_map(struct ac__map *map)
{
	for (;;) {
		bool starved = ac__map_is_starved(map) && !map->no_rest;
		int64_t nap = starved ? STARVED_NS :
			      map->opts.progress ? PROGRESS_NS : -1;
		int r = ac__wait_until(map->pool,
				       starved ? is_over_or_to_copy : needs_mapping_thread, map,
				       ac__sys_deadline(nap));
		bool over;

		make_copies(map);
		/* It may end while the callback runs: then that is reported too. */
		over = is_over(map);
		if (map->opts.progress)
			call_progress(map, map->ended);
		if (over)
			return 0;
		if (r == -EINTR)
			return r;
		if (starved && r == -ETIMEDOUT)
			map->no_rest = !ac__map_take_back(map);
	}
}

/* ---- the call ---- */

static int check_sizes(size_t item_size, size_t result_size, size_t count)
{
	size_t bytes;

	if (item_size > UINT32_MAX || result_size > UINT32_MAX)
		return -EINVAL;
	if (__builtin_mul_overflow(count, item_size, &bytes) ||
	    __builtin_mul_overflow(count, result_size, &bytes) ||
	    bytes > PTRDIFF_MAX || count * item_size > PTRDIFF_MAX)
		return -EOVERFLOW;
	return 0;
}

static int check_opts(const struct ac_map_opts *opts)
{
	if ((opts->bound_size && !opts->bound) || opts->flags & ~AC_MAP_STOP)
		return -EINVAL;
	return 0;
}

/* Whatever happens: when this returns, no piece of the map is under way. */
static void finish_map(struct ac__map *map)
{
	map->opts.progress = NULL;
	while (wait_for_map(map) < 0)
		;
	if (map->error)
		ac__map_fail_unpublished(map, &ac__map_stopped);
	ac__bound_release(map->bound);
}

/* Also where progress throws: the map is stopped then, and its memory is the caller's again. */
static void end_map(struct ac__map *map)
{
	if (map->queued || map->pieces)
		ac__map_stop(map);
	finish_map(map);
	ac__pool_unlock(map->pool);
	free(map->cut.back.items);
	free(map->lost.items);
	if (map->opts.failure && map->failure.status)
		*map->opts.failure = map->failure;
}

static void end_map_of(struct ac__map **map)
{
	end_map(*map);
}

/* Returns with the map over, or interrupted. */
static int run_map(struct ac__map *map)
{
	struct ac_pool *pool = map->pool;
	int r = ac__engine_accepts(pool);

	if (r < 0 || !map->count)
		return r;
	pool->slots.tally.submitted += map->count;
	map->queued = true;
	ac__turns_enqueue(&pool->slots.turns, &map->job);
	return wait_for_map(map);
}

static int lock_and_run(struct ac__map *map)
{
	struct ac__map *ended __attribute__((cleanup(end_map_of))) = map;

	ac__pool_lock(map->pool);
	return run_map(ended);
}

int ac_pool_map(struct ac_pool *pool, ac_map_fn *fn, const struct ac_map_opts *user,
		const void *items, size_t item_size, void *results,
		size_t result_size, size_t count)
{
	struct ac__map map = { .job.ops = &ac__map_ops,
			   .pool = pool,
			   .fn = fn,
			   .items = items,
			   .results = results,
			   .item_size = item_size,
			   .result_size = result_size,
			   .count = count };
	int r;

	if (!pool || !fn || (count && ((item_size && !items) ||
				       (result_size && !results))))
		return -EINVAL;
	r = ac__opts_copy(&map.opts, sizeof map.opts, user);
	if (r == 0)
		r = check_opts(&map.opts);
	if (r == 0)
		r = check_sizes(item_size, result_size, count);
	if (r < 0)
		return r;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	map.cut = (struct ac__cut){ .count = count,
				    .chunk = map.opts.chunk,
				    .item_bytes = item_size + result_size,
				    .workers = pool->workers.count,
				    .item_ns = -1 };
	map.job.source = &map.turn;
	ac__source_init(&map.turn);
	/* Needs no lock, which is not to be held while it copies. */
	if (map.opts.bound_size && count) {
		r = ac__bound_make(&map.bound, pool->memory, map.opts.bound,
				   map.opts.bound_size);
		if (r < 0)
			return r;
	}
	r = lock_and_run(&map);
	if (map.error)
		r = map.error;
	return r < 0 ? r : map.failure.status;
}

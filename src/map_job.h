/* SPDX-License-Identifier: MIT */
/*
 * A map as a job: what is cut, written into slots, collected, stopped, taken back. The call that
 * waits for it is in map.c. The pool's lock is held.
 */
#ifndef AC__MAP_JOB_H
#define AC__MAP_JOB_H

#include "cut.h"
#include "engine.h"

struct ac__map {
	struct ac__job job;
	struct ac__source turn;	/* of which the map is the only job */
	struct ac_pool *pool;
	ac_map_fn *fn;
	const char *items;
	char *results;
	size_t item_size, result_size;
	uint64_t count;
	struct ac_map_opts opts;
	struct ac_bound *bound;	/* NULL: none */

	struct ac__cut cut;
	struct ac__ranges lost;	/* first: an item; count: how often its worker died */
	uint32_t pieces;	/* under way, to be filled and to be emptied, too */
	uint32_t to_fill;	/* the slot that the mapping thread fills, index + 1 */
	uint32_t to_empty;	/* a list of slots that the mapping thread empties, index + 1 */
	bool queued;
	bool stopping;		/* no further item is begun */
	bool no_rest;		/* no chunk that runs had a rest to be taken back */
	int error;		/* of the map itself: -ENOMEM */

	uint64_t ended;
	struct ac_outcome failure; /* the one with the lowest index */
};

extern const struct ac__job_ops ac__map_ops;
/* What items are told that a map did not run because it was stopped. */
extern const struct ac__ending ac__map_stopped;

/* No further item is begun: what waits in slots and what chunks have not reached is taken back, and
 * ends as cancelled. */
void ac__map_stop(struct ac__map *map);
/* Fewer chunks run than there are workers, and there is nothing left to cut. */
bool ac__map_is_starved(const struct ac__map *map);
/* Take back, from all chunks that run, what their workers have not begun. False: no chunk has a
 * rest, nor will have one. */
bool ac__map_take_back(struct ac__map *map);
/* count items from first on have failed, or are cancelled. */
void ac__map_note_failed(struct ac__map *map, uint64_t first, uint64_t count,
			 const struct ac__ending *ending);
/* All items that were never written into a slot end so. */
void ac__map_fail_unpublished(struct ac__map *map, const struct ac__ending *ending);

#endif

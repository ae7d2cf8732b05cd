/* SPDX-License-Identifier: MIT */
/*
 * Cutting the items of a map into chunks. Knows of no task and no pool.
 *
 * Time decides how large a chunk is. The first are single items; from then on a chunk is to last
 * a fraction of what is left (so that all workers end together), at most ten milliseconds (long
 * against its overhead). Items that come back, of chunks that failed or were taken back, are cut
 * first.
 */
#ifndef AC__CUT_H
#define AC__CUT_H

#include "base.h"

struct ac__range {
	uint64_t first, count;
};

struct ac__ranges {
	struct ac__range *items; /* freed by the owner of the struct */
	size_t count, capacity;
};

/* False: no memory, and nothing was added. */
bool ac__ranges_add(struct ac__ranges *ranges, uint64_t first, uint64_t count);

struct ac__cut {
	uint64_t count;		/* items of the map */
	uint64_t next;		/* the first item that was never cut */
	struct ac__ranges back;	/* ranges that came back */
	size_t chunk;		/* items in each chunk, as the user said; 0: by time */
	uint64_t item_bytes;	/* of one item and its result */
	unsigned workers;
	double item_ns;		/* how long an item takes; below 0: not known yet */
};

static inline bool ac__cut_any(const struct ac__cut *cut)
{
	return cut->back.count || cut->next < cut->count;
}
/* The next chunk; there is one. */
struct ac__range ac__cut_take(struct ac__cut *cut);
/* All that is left, a range at a time: false: nothing. */
bool ac__cut_take_rest(struct ac__cut *cut, struct ac__range *range);
/* So many items of a chunk took so long together. */
void ac__cut_learn(struct ac__cut *cut, int64_t elapsed_ns, uint32_t items);
/* How many items a worker is to claim at a time at first. */
uint32_t ac__cut_step(const struct ac__cut *cut);

#endif

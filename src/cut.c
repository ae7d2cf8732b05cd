/* SPDX-License-Identifier: MIT */
/* How many items the next chunk has, and which: see the header. */
#include "cut.h"

#include <stdlib.h>

#define CHUNK_NS 10000000
#define CHUNK_BYTES (1u << 20)
#define SHARES 3	/* a chunk is at most this part of one worker's share of what is left */
#define STEP_NS 1000
#define STEP_MOST 64

bool ac__ranges_add(struct ac__ranges *ranges, uint64_t first, uint64_t count)
{
	struct ac__range *items;

	if (ranges->count == ranges->capacity) {
		size_t capacity = ranges->capacity ? ranges->capacity * 2 : 16;

		items = realloc(ranges->items, capacity * sizeof *items);
		if (!items)
			return false;
		ranges->items = items;
		ranges->capacity = capacity;
	}
	ranges->items[ranges->count++] = (struct ac__range){ first, count };
	return true;
}

/* ---- how large ---- */

static uint64_t items_left(const struct ac__cut *cut)
{
	uint64_t n = cut->count - cut->next;

	for (size_t i = 0; i < cut->back.count; i++)
		n += cut->back.items[i].count;
	return n;
}

static uint64_t chunk_size(const struct ac__cut *cut)
{
	uint64_t bytes = cut->item_bytes;
	double share, n;

	if (cut->chunk)
		return cut->chunk;
	if (cut->item_ns < 0)
		return 1;
	share = (double)items_left(cut) / (cut->workers * SHARES);
	n = CHUNK_NS / AC__MAX(cut->item_ns, 1.0);
	n = AC__MIN(n, share);
	if (bytes)
		n = AC__MIN(n, (double)CHUNK_BYTES / (double)bytes);
	return n < 1 ? 1 : (uint64_t)n;
}

void ac__cut_learn(struct ac__cut *cut, int64_t elapsed_ns, uint32_t items)
{
	double item_ns;

	if (!items || elapsed_ns < 0)
		return;
	item_ns = (double)elapsed_ns / items;
	cut->item_ns = cut->item_ns < 0 ? item_ns :
					  (cut->item_ns + item_ns) / 2;
}

uint32_t ac__cut_step(const struct ac__cut *cut)
{
	if (cut->item_ns < 0)
		return 1;
	return (uint32_t)AC__MAX(
		AC__MIN(STEP_NS / AC__MAX(cut->item_ns, 1.0), STEP_MOST), 1);
}

/* ---- cutting ---- */

/* A chunk must have its number of items in 32 bits, and its bytes in a size_t. */
#define ITEMS_MOST (UINT32_C(1) << 30)
#define BYTES_MOST (UINT64_C(1) << 35)

struct ac__range ac__cut_take(struct ac__cut *cut)
{
	uint64_t bytes = AC__MAX(cut->item_bytes, 1);
	uint64_t n = AC__MIN(chunk_size(cut), ITEMS_MOST);
	struct ac__range *back, piece;

	n = AC__MAX(AC__MIN(n, BYTES_MOST / bytes), 1);

	if (!cut->back.count) {
		piece.first = cut->next;
		piece.count = AC__MIN(n, cut->count - cut->next);
		cut->next += piece.count;
		return piece;
	}
	back = &cut->back.items[cut->back.count - 1];
	piece.first = back->first;
	piece.count = AC__MIN(n, back->count);
	back->first += piece.count;
	back->count -= piece.count;
	if (!back->count)
		cut->back.count--;
	return piece;
}

bool ac__cut_take_rest(struct ac__cut *cut, struct ac__range *range)
{
	if (!ac__cut_any(cut))
		return false;
	if (cut->back.count) {
		*range = cut->back.items[--cut->back.count];
		return true;
	}
	*range = (struct ac__range){ cut->next, cut->count - cut->next };
	cut->next = cut->count;
	return true;
}

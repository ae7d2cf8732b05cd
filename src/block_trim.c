/* SPDX-License-Identifier: MIT */
/* Giving the pages of free blocks back to the system; and counting blocks. */
#include "block.h"

static uint64_t warm_free_bytes(struct ac__arena *arena)
{
	uint32_t used = ac__block_used(arena);
	uint64_t sum = 0;

	for (uint32_t i = 0; i < used; i++) {
		struct ac__block_shm *row = &arena->blocks[i];

		if (ac__word_state(atomic_load(&row->word)) == AC__BLOCK_FREE &&
		    !row->cold)
			sum += UINT64_C(1) << (row->order & 63);
	}
	return sum;
}

/* Takes blocks that are free and warm, so that no other process uses them meanwhile, and gives
 * them back without pages. */
static uint64_t chill(struct ac__arena *arena, uint32_t holder, unsigned order,
		      uint64_t surplus)
{
	uint64_t size = UINT64_C(1) << order, given = 0;
	uint32_t used = ac__block_used(arena);
	struct ac__block taken;

	/* By scan: after the first time the lists have cold blocks on top. */
	for (uint32_t id = 1; id <= used && given < surplus; id++) {
		struct ac__block_shm *row = &arena->blocks[id - 1];

		if (row->order != order || row->cold ||
		    !ac__block_claim(arena, id, holder, order, &taken))
			continue;
		ac__region_punch(&arena->region, row->offset, size);
		given += size;
		row->cold = 1;
		ac__block_give(arena, holder, id);
	}
	return given;
}

void ac__block_trim(struct ac__arena *arena, uint32_t holder, uint64_t keep)
{
	uint64_t left = warm_free_bytes(arena);

	for (unsigned order = AC__ORDER_MOST; order > AC__ORDER_LEAST; order--)
		if (left > keep) {
			uint64_t given = chill(arena, holder, order, left - keep);

			left -= AC__MIN(left, given);
		}
}

/* ---- for statistics and tests ---- */

uint64_t ac__block_bytes(struct ac__arena *arena)
{
	return atomic_load(&arena->shm->hints.bytes);
}

unsigned ac__block_in_use(struct ac__arena *arena)
{
	uint32_t used = ac__block_used(arena);
	unsigned n = 0;

	for (uint32_t i = 0; i < used; i++) {
		unsigned state = ac__word_state(atomic_load(&arena->blocks[i].word));

		n += state != AC__BLOCK_FREE && state != AC__BLOCK_UNUSED;
	}
	return n;
}

/* SPDX-License-Identifier: MIT */
/* Data that many tasks read in place: see the header. */
#include "bound.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"

int ac__bound_make(struct ac_bound **out, struct ac__memory *memory, const void *data,
		   uint64_t len)
{
	struct ac_bound *bound = ac__sys_calloc(1, sizeof *bound);
	struct ac__block block;

	if (!bound)
		return -ENOMEM;
	if (ac__block_take(&memory->arena, AC__OWNER_SEAT, len, &block) < 0) {
		free(bound);
		return -ENOMEM;
	}
	if (len)
		memcpy(block.data, data, len);
	atomic_init(&bound->users, 1);
	bound->block = block.id;
	bound->len = len;
	bound->memory = ac__memory_use(memory);
	*out = bound;
	return 0;
}

struct ac_bound *ac__bound_use(struct ac_bound *bound)
{
	if (bound)
		atomic_fetch_add_explicit(&bound->users, 1, memory_order_relaxed);
	return bound;
}

void ac__bound_release(struct ac_bound *bound)
{
	if (!bound || atomic_fetch_sub(&bound->users, 1) > 1)
		return;
	ac__block_give(&bound->memory->arena, AC__OWNER_SEAT, bound->block);
	ac__memory_release(bound->memory);
	free(bound);
}

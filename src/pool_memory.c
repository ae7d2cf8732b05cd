/* SPDX-License-Identifier: MIT */
/* Shared memory that outlives its pool while results lie in it: see the header. */
#include "pool_memory.h"

#include <errno.h>
#include <stdlib.h>

int ac__memory_open(struct ac__memory **out, const struct ac__arena_plan *plan)
{
	struct ac__memory *memory = ac__sys_calloc(1, sizeof *memory);
	int r;

	if (!memory)
		return -ENOMEM;
	r = ac__arena_open(&memory->arena, plan);
	if (r < 0) {
		free(memory);
		return r;
	}
	atomic_init(&memory->users, 1);
	*out = memory;
	return 0;
}

struct ac__memory *ac__memory_use(struct ac__memory *memory)
{
	atomic_fetch_add(&memory->users, 1);
	return memory;
}

void ac__memory_release(struct ac__memory *memory)
{
	if (atomic_fetch_sub(&memory->users, 1) > 1)
		return;
	ac__arena_close(&memory->arena);
	free(memory);
}

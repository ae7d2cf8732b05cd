/* SPDX-License-Identifier: MIT */
/*
 * A pool's shared memory, with a count of its users: large results lie in it and may be read
 * after their pool was closed.
 */
#ifndef AC__POOL_MEMORY_H
#define AC__POOL_MEMORY_H

#include <stdatomic.h>

#include "arena.h"

struct ac__memory {
	_Atomic unsigned users;
	struct ac__arena arena;
};

/* One user. 0, or why not; *memory is set on success only. */
int ac__memory_open(struct ac__memory **memory, const struct ac__arena_plan *plan);
/* One more, one less: the last one closes it. Any thread, no lock. */
struct ac__memory *ac__memory_use(struct ac__memory *memory);
void ac__memory_release(struct ac__memory *memory);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Data that many tasks read in place: one block of the owner's, and a count of its users. A user is
 * the handle, a map, a call that waits, or a slot whose piece reads it. The block is given back
 * with the last of them. Workers only read it: their deaths change no count.
 */
#ifndef AC__BOUND_H
#define AC__BOUND_H

#include "pool_memory.h"

struct ac_bound {
	_Atomic unsigned users;
	uint32_t block;
	uint64_t len;
	struct ac__memory *memory; /* used: the handle may outlive its pool */
};

/* A copy of data, with one user. 0 or -ENOMEM. Copies without any lock. */
int ac__bound_make(struct ac_bound **bound, struct ac__memory *memory, const void *data,
		   uint64_t len);
/* One more, one less. Any thread, no lock. NULL is allowed. */
struct ac_bound *ac__bound_use(struct ac_bound *bound);
void ac__bound_release(struct ac_bound *bound);

#endif

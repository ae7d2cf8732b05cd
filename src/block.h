/* SPDX-License-Identifier: MIT */
/*
 * Blocks: shared memory of any size, handed from process to process.
 *
 * A block's word says what holds it: a seat, or a task (its result, on the way to
 * the owner). Only its holder may give it back. Other processes may keep reading it under a
 * lease, which they register before the holder gives the block back. Then the end of the last
 * lease frees the block.
 *
 *	UNUSED -> HELD -> FREE -> HELD ...		take, give
 *	          HELD -> HELD by another		pass
 *	          HELD -> SHARED -> GONE -> FREE	lease; give; last lease ends
 *
 * Free lists and counters are hints: a process that pops an entry swaps its word, and
 * believes only the word. A free block that is on no list (the process that popped it was killed)
 * is found by a scan.
 *
 * Crash table (killed after the step; "the death" is ac__block_reclaim for the dead holder)
 *	take  1 pop from list		free, unlisted: a later scan finds it
 *	      2 swap FREE to HELD	held by the dead: the death frees it
 *	      3 swap UNUSED to HELD	no bytes yet: the death makes it UNUSED
 *	      4 move top		the range is lost: sparse, costs nothing
 *	give  1 swap to FREE		free, unlisted: a later scan finds it
 *	lease 1 entry written		the death clears the entry
 *	      2 swap to SHARED		the same
 *	unlease 1 entry cleared		GONE with no lease: the death's sweep frees it
 *
 * Orderings: the reader writes its lease's entry, then reads the word; the holder writes the
 * word, then reads the entries. All four are sequentially consistent, see bell.h.
 */
#ifndef AC__BLOCK_H
#define AC__BLOCK_H

#include "arena.h"

#define AC__BLOCK_LEAST 4096
#define AC__ORDER_LEAST 12 /* AC__BLOCK_LEAST */
#define AC__ORDER_MOST 42

enum ac__block_state {
	AC__BLOCK_UNUSED,
	AC__BLOCK_FREE,
	AC__BLOCK_HELD,
	AC__BLOCK_SHARED,
	AC__BLOCK_GONE,
};

/* A block as the taker knows it: private, trusted. */
struct ac__block {
	uint32_t id;	/* index + 1; 0: no block */
	void *data;
	uint64_t size;
};

/* At least size bytes for holder (a seat): 0, or -ENOMEM, -ENOSPC, -EFBIG. */
int ac__block_take(struct ac__arena *arena, uint32_t holder, uint64_t size,
		   struct ac__block *block);
/* FREE to HELD by holder, if the block has at least 1 << order bytes that can be touched. */
bool ac__block_claim(struct ac__arena *arena, uint32_t id, uint32_t holder, unsigned order,
		     struct ac__block *block);
/* The ids from 1 to this were ever in use. */
static inline uint32_t ac__block_used(struct ac__arena *arena)
{
	uint32_t used = atomic_load(&arena->shm->hints.used);

	return AC__MIN(used, arena->block_count);
}
/* The holder gives it back. Nothing happens to a block that holder doesn't hold. */
void ac__block_give(struct ac__arena *arena, uint32_t holder, uint32_t id);
/* Change the holder. False: from does not hold it. */
bool ac__block_pass(struct ac__arena *arena, uint32_t id, uint32_t from, uint32_t to);

/*
 * The owner checks an id that another process wrote. 0 and *block if that block is held by
 * holder and has len bytes within the region; AC_EBROKEN if not; -ENOMEM if it can't be mapped.
 */
int ac__block_check(struct ac__arena *arena, uint32_t id, uint32_t holder,
		    uint64_t len, struct ac__block *block);
/* The same with no check, for a process that trusts the writer. NULL: it can't be mapped. */
void *ac__block_data(struct ac__arena *arena, uint32_t id);

/* Keep reading a block that its holder may give back meanwhile. Returns the lease's number;
 * -ENOSPC: all leases of the seat are in use; -ESTALE: the block is not held any more. */
int ac__block_lease(struct ac__arena *arena, unsigned seat, uint32_t id);
void ac__block_unlease(struct ac__arena *arena, unsigned seat, int lease);

/* A seat's process is gone: free the blocks that it held and end its leases. Owner only. */
void ac__block_reclaim(struct ac__arena *arena, unsigned seat);
/* Free all blocks of that holder. */
void ac__block_reclaim_holder(struct ac__arena *arena, uint32_t holder);

/* Give the pages of free blocks back to the system, largest first, until at most keep bytes of
 * free blocks remain. For a process that is idle. */
void ac__block_trim(struct ac__arena *arena, uint32_t holder, uint64_t keep);

/* The sum of all blocks' sizes. */
uint64_t ac__block_bytes(struct ac__arena *arena);
/* Checks every invariant that holds while no process is at work here: 0 or AC_EBROKEN. For
 * tests. */
int ac__block_audit(struct ac__arena *arena);
/* How many blocks are neither FREE nor UNUSED. For tests. */
unsigned ac__block_in_use(struct ac__arena *arena);

#endif

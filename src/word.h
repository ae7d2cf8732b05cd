/* SPDX-License-Identifier: MIT */
/*
 * One word, one holder: the 64 bits that say of a shared thing which state it
 * is in, which process or task holds it, and how often it was free before. Every step from state to state
 * is one compare-and-swap that expects exactly the word that was seen.
 *
 *	63            24 23        4 3     0
 *	[ generation 40 ][ holder 20 ][state 4]
 *
 * The generation goes up by one each time the thing becomes free, so a word
 * seen long ago can't be mistaken for today's: at 10 million turns a second 40
 * bits last 30 hours for ONE slot without a pause, and a mistake needs a
 * process that slept exactly that long between two instructions.
 */
#ifndef AC__WORD_H
#define AC__WORD_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t ac__word;

#define AC__STATE_BITS 4
#define AC__HOLDER_BITS 20
#define AC__GEN_SHIFT (AC__STATE_BITS + AC__HOLDER_BITS)
#define AC__GEN_MASK ((UINT64_C(1) << 40) - 1)
#define AC__HOLDER_MASK ((UINT32_C(1) << AC__HOLDER_BITS) - 1)

/* Holders below this are seats (0 is the owner's), the others are tasks. */
#define AC__HOLDER_TASK (UINT32_C(1) << 19)

static inline uint64_t ac__word_make(unsigned state, uint32_t holder,
				     uint64_t gen)
{
	return (gen & AC__GEN_MASK) << AC__GEN_SHIFT |
	       (uint64_t)(holder & AC__HOLDER_MASK) << AC__STATE_BITS | state;
}

static inline unsigned ac__word_state(uint64_t word)
{
	return word & ((1u << AC__STATE_BITS) - 1);
}

static inline uint32_t ac__word_holder(uint64_t word)
{
	return (uint32_t)(word >> AC__STATE_BITS) & AC__HOLDER_MASK;
}

static inline uint64_t ac__word_gen(uint64_t word)
{
	return word >> AC__GEN_SHIFT;
}

/*
 * The one step. Sequentially consistent: after a word's step a bell is often
 * read, and on the machines we know the swap is a full barrier anyway.
 */
static inline bool ac__word_swap(ac__word *word, uint64_t seen, uint64_t next)
{
	return atomic_compare_exchange_strong(word, &seen, next);
}

#endif

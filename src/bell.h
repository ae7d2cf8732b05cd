/* SPDX-License-Identifier: MIT */
/*
 * A bell: the place where one process sleeps, and where others wake it. They
 * ring only when it sleeps, so that a steady flow of work costs no system call.
 *
 * Orderings. Sleeping against waking is store-then-load on both sides:
 *	sleeper: [B1] state = ASLEEP    then  [B2] check for work
 *	ringer:  [B3] publish work      then  [B4] read state
 * All four are sequentially consistent operations on the objects themselves,
 * so at least one side sees the other: either the sleeper finds the work at
 * B2 and does not sleep, or the ringer sees ASLEEP at B4 and rings. Release
 * and acquire would not do: both loads could be answered before either
 * store is seen (tests/model/bell.pml shows the lost wake-up).
 *
 * Crash table
 *	ringer dies between its swap to RUNG and the wake: the sleeper stays
 *	asleep with RUNG. The owner, which handles the death, rings all bells that are
 *	not AWAKE while there is work (ac__bell_ring_again).
 *	sleeper dies: its bell belongs to its seat and is reset with it.
 */
#ifndef AC__BELL_H
#define AC__BELL_H

#include <stdatomic.h>

#include "base.h"
#include "sys.h"

#define AC__BELL_AWAKE 0u
#define AC__BELL_ASLEEP 1u
#define AC__BELL_RUNG 2u

struct ac__bell {
	_Atomic uint32_t state;
};

static inline void ac__bell_arm(struct ac__bell *bell)
{
	AC_STEP();
	atomic_store(&bell->state, AC__BELL_ASLEEP); /* B1 */
	AC_STEP();
}

static inline void ac__bell_disarm(struct ac__bell *bell)
{
	/* Relaxed: a ringer that still sees ASLEEP wakes a process that is awake. */
	atomic_store_explicit(&bell->state, AC__BELL_AWAKE, memory_order_relaxed);
}

static inline bool ac__bell_is_armed(struct ac__bell *bell)
{
	return AC__UNLIKELY(atomic_load(&bell->state) == AC__BELL_ASLEEP); /* B4 */
}

/* True: it was asleep, and the caller must wake it now. */
static inline bool ac__bell_claim(struct ac__bell *bell)
{
	uint32_t asleep = AC__BELL_ASLEEP;

	if (!ac__bell_is_armed(bell))
		return false;
	AC_STEP();
	return atomic_compare_exchange_strong(&bell->state, &asleep,
					      AC__BELL_RUNG);
}

/* Sleep on an armed bell until it is rung, the deadline or a signal. */
static inline int ac__bell_sleep(struct ac__bell *bell, int64_t deadline)
{
	AC_STEP();
	return ac__sys_futex_wait(&bell->state, AC__BELL_ASLEEP, deadline);
}

static inline bool ac__bell_ring(struct ac__bell *bell)
{
	if (!ac__bell_claim(bell))
		return false;
	AC_STEP();
	ac__sys_futex_wake(&bell->state, 1);
	return true;
}

/* For a sleeper whose ringer died between the claim and the wake, and for one whose word was
 * overwritten: the wake is sent whatever the word says. */
static inline void ac__bell_ring_again(struct ac__bell *bell)
{
	AC_STEP();
	if (atomic_load(&bell->state) != AC__BELL_AWAKE)
		atomic_store(&bell->state, AC__BELL_RUNG);
	AC_STEP();
	ac__sys_futex_wake(&bell->state, 1);
}

#endif

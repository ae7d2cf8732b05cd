/* SPDX-License-Identifier: MIT */
/*
 * The world around a pool's owner, played by one thread from the bytes of an input: its
 * workers, the clock, and whoever writes over the shared region. Nothing here runs by
 * itself: the owner's calls that sleep, read the clock or start threads come here instead of
 * to sys.c (see the file wraps), so the same bytes always give the same run.
 *
 * An input is a row of records of four bytes: what, and three numbers. Records of the
 * owner's are taken by fuzz_owner.c between calls; all others are taken here, between calls
 * and wherever the owner sleeps. When there are no more, the workers work honestly, so that
 * every call comes to its end: one that does not is a hang.
 */
#ifndef AC_FUZZ_WORLD_H
#define AC_FUZZ_WORLD_H

#include "engine.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define WORKERS 3
#define SLOTS 32
#define BLOCKS_MOST 48

struct record {
	uint8_t what, a, b, c;
};

/* Below: the owner's. */
#define WORLD_FIRST 128

enum world_op {
	WORLD_RETURN = WORLD_FIRST, /* let the owner go on */
	WORLD_SIT,		/* a: seat (everywhere); b: 1 refuses, 2 says nothing yet */
	WORLD_TAKE,
	WORLD_CLAIM,		/* a chunk's items or a call's units: b of them */
	WORLD_FINISH,		/* b: how, c: a size */
	WORLD_SLEEP,
	WORLD_WAKE,
	WORLD_DIE,
	WORLD_SPIN,		/* enter or leave the role */
	WORLD_HONEST,		/* one step as it should be; b: so many */
	WORLD_TIME,		/* passes: a */
	WRITE_TASK,		/* a: slot, b: field, c: value */
	WRITE_TASK_WORD,	/* a: slot, b: state, c: holder and generation */
	WRITE_BLOCK,
	WRITE_BLOCK_WORD,
	WRITE_SEAT,
	WRITE_SEAT_WORD,
	WRITE_LEASE,
	WRITE_HINT,		/* of blocks: a: which, c: value */
	WRITE_BOARD,
	WRITE_RING,		/* a: place, b: kind, c: value */
	WRITE_LINK,
	WRITE_EVENT,
	WRITE_RAW,		/* a, b: where; c: value */
	WRITE_AT_LOAD,		/* the load that is a, b further on finds c (clang only) */
	WRITE_AT_STEP,		/* the next record is done at the step c further on */
	WORLD_OPS
};

void world_begin(const uint8_t *data, size_t size);
/* The next record if it is the owner's; others before it are done. False: no more. */
bool world_next(struct record *record);
/* ac_pool_open's start, and who is told of the pool after it. */
pid_t world_start(void *arg, unsigned worker, int fd);
void world_has_pool(struct ac_pool *pool);
/* From now on the workers are honest. */
void world_be_honest(void);
/* The pool is gone. */
void world_end(void);

/* The owner enters a call: its sleeps are counted from here. */
void world_enter(const char *call);
void world_leave(void);

/* Has anybody done what an honest worker does not? */
bool world_is_spoilt(void);
uint64_t world_value(uint8_t code);
/* spoil.c: a record from WRITE_TASK to WRITE_RAW. */
void spoil(const struct record *r, struct ac__board *view);
void world_fail(const char *why) __attribute__((noreturn));
#define REQUIRE(what) ((what) ? (void)0 : world_fail(#what))

#endif

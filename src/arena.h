/* SPDX-License-Identifier: MIT */
/*
 * The arena: a region with a layout stamp, a table of seats (each process has
 * one), a table of blocks (see block.h), and a root: some bytes of
 * segment 0 whose layout is the client's, such as a pool's board. It knows nothing of
 * pools, and any process that has the descriptor can take a seat.
 *
 *	segment 0: [ stamp | seats | blocks' table | root ]  then blocks
 */
#ifndef AC__ARENA_H
#define AC__ARENA_H

#include "base.h"
#include "bell.h"
#include "region.h"
#include "word.h"

#define AC__SEATS_MOST 4097 /* the owner's, and 4096 workers */
#define AC__OWNER_SEAT 0
#define AC__LEASES 32

/* Of seats' words. The holder of a seat's word is not used. */
enum ac__seat_state {
	AC__SEAT_EMPTY,
	AC__SEAT_INVITED,	/* a process is on its way */
	AC__SEAT_TAKEN,		/* the process has it, and is not ready yet */
	AC__SEAT_READY,
	AC__SEAT_REFUSED,	/* the process has it, and will not be ready; text says why */
};

/* The process was told to exit, and does; it has called ac_worker_close. */
#define AC__LEAVING_TOLD 1u
#define AC__LEAVING_CLOSED 2u

/* A new member also goes into places_in_structs in arena.c. */
struct ac__seat_shm {
	/* The owner writes EMPTY and INVITED, the process the rest. */
	ac__word word AC__ALIGNED(AC__LINE);
	struct ac__bell bell;
	_Atomic int32_t pid;
	char name[16];

	/* Statistics, relaxed: the process writes them, others read them. Only task_since and task
	 * belong together: see ac__seat_task. */
	_Atomic uint64_t task AC__ALIGNED(AC__LINE); /* its number, 0: none */
	_Atomic uint64_t tasks;
	_Atomic int64_t busy_ns;	/* up to busy_since */
	_Atomic int64_t busy_since;	/* 0: idle */
	_Atomic int64_t task_since;	/* coarse; of no meaning while task is 0 */
	_Atomic uint64_t events;	/* ever written to the trace */
	_Atomic uint32_t leaving;	/* AC__LEAVING_... */

	/* Blocks that the process reads without holding them: generation << 24
	 * | index + 1. The process writes them, the owner clears them after its death. */
	_Atomic uint64_t lease[AC__LEASES] AC__ALIGNED(AC__LINE);

	char text[AC_TEXT_SIZE]; /* why it refused, or what ac_worker_say was given */
};

struct ac__blocks_shm {
	/* All are hints: free blocks of each size, how many entries were ever
	 * used, where unused bytes begin, and the sum of all blocks' sizes. */
	_Atomic uint64_t free[44] AC__ALIGNED(AC__LINE);
	_Atomic uint32_t used;
	_Atomic uint64_t top;
	_Atomic uint64_t bytes;
};

struct ac__block_shm {
	ac__word word;
	uint64_t offset;
	_Atomic uint16_t order;	/* its size is 1 << order; 0: no bytes yet */
	_Atomic uint8_t cold;	/* its pages were given back to the system */
	_Atomic uint8_t listed;	/* hint: it is on a free list, or being put there */
	_Atomic uint32_t next;	/* on a free list: index + 1 */
};

struct ac__arena_shm {
	uint64_t magic;
	uint32_t version;	/* of this layout, not of the library */
	uint32_t places;	/* two builds whose structs differ refuse each other */
	uint64_t base, limit;
	uint32_t sealed;
	uint32_t seats, blocks;
	uint64_t seats_offset, blocks_offset, root_offset, root_len;
	uint64_t memory;	/* the most that all blocks may be together, 0: no limit */
	struct ac__blocks_shm hints;
};

/* One process's view. Sizes and places are private copies: no address is computed from bytes
 * that another process may overwrite. */
struct ac__arena {
	struct ac__region region;
	struct ac__arena_shm *shm;
	struct ac__seat_shm *seats;
	struct ac__block_shm *blocks;
	void *root;
	uint64_t root_len;
	uint32_t seat_count, block_count;
};

struct ac__arena_plan {
	uint32_t seats;
	uint32_t blocks;
	uint64_t root_len;
	uint64_t memory; /* 0: no limit */
	const void *group; /* children started with ac__forkguard_fork(group) share it */
};

int ac__arena_open(struct ac__arena *arena, const struct ac__arena_plan *plan);
/* Map one that another process opened. Takes *fd over in any case and writes -1 there, in one
 * step for a child. AC_EVERSION: it has another layout. */
int ac__arena_attach(struct ac__arena *arena, int *fd);
void ac__arena_close(struct ac__arena *arena);

/* Seats: the owner's side. */
void ac__seat_invite(struct ac__arena *arena, unsigned seat);
/* False: too late, its process has taken it. */
bool ac__seat_withdraw(struct ac__arena *arena, unsigned seat);
/* After its process is gone and all that it held was reclaimed. */
void ac__seat_free(struct ac__arena *arena, unsigned seat);
enum ac__seat_state ac__seat_state(struct ac__arena *arena, unsigned seat);
/* The number of the task that the seat's process runs, and in *ns for how long it has run.
 * Both 0: none. The process writes these: they are for display. */
uint64_t ac__seat_task(struct ac__arena *arena, unsigned seat, int64_t *ns);

/* The process's side: INVITED to TAKEN, AC_ECLOSED if the invitation was withdrawn. */
int ac__seat_take(struct ac__arena *arena, unsigned seat, pid_t pid);
void ac__seat_say(struct ac__arena *arena, unsigned seat, enum ac__seat_state state);

#endif

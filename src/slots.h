/* SPDX-License-Identifier: MIT */
/*
 * The owner's table of tasks: which piece of which job is in which slot, in which generation. The
 * table is the owner's private memory, and the owner believes nothing else. What a word, an
 * offset or a length in the region says is read once and checked against the table. Where that
 * does not fit, broken says why, and nothing more is read from the region.
 *
 * The pool's lock guards all of this; nothing here releases it, and nothing here knows of
 * processes, of sleeping threads or of the pool.
 *
 *	slot		what it is
 *	FREE		on the free list
 *	FILLING		taken; its argument is being copied in, without the lock
 *	PUBLISHED	its word in the region says READY, TAKEN, CONDEMNED or DONE
 *	EMPTYING	its piece has ended; its job copies the results out, without the lock
 */
#ifndef AC__SLOTS_H
#define AC__SLOTS_H

#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "bound.h"
#include "ending.h"
#include "ring.h"
#include "turns.h"
#include "window.h"

/* Bytes up to which a copy may be made under the lock: some microseconds. */
#define AC__COPY_LOCKED 65536

struct ac__slots;

/* What write returns beside 1 (there are more pieces) and 0 (that was the last). */
#define AC__WRITE_LATER (-EAGAIN)	/* none now: the job has enough under way */
#define AC__WRITE_NO_MEMORY (-ENOBUFS)	/* none now: what is under way gives memory back */

/* What became of a piece that was collected. */
enum ac__collected {
	AC__PIECE_OVER,		/* its slot is free */
	AC__PIECE_AGAIN,	/* the same piece is to run again; it is written anew */
	AC__PIECE_KEPT,		/* the job copies results out, then calls ac__slots_release */
	AC__PIECE_DAMAGED,	/* over; what the region says of it is wrong */
};

/*
 * All of these run under the pool's lock. They may call functions of this header and push a
 * callback, and nothing else.
 */
struct ac__job_ops {
	/* Write the next piece into slot, where it may ask for a long copy (ac__slots_arg). Any
	 * other code than those above: the job has failed and left its source, and may be gone. */
	int (*write)(struct ac__slots *slots, struct ac__job *job, uint32_t slot);
	/* The piece in slot has ended. */
	enum ac__collected (*collect)(struct ac__slots *slots, struct ac__job *job, uint32_t slot,
				      const struct ac__ending *ending);
	/* The pieces that were not written never will be. The job has left its source. */
	void (*fail_rest)(struct ac__slots *slots, struct ac__job *job,
			  const struct ac__ending *ending);
	/* What AC__PIECE_DAMAGED says is wrong: "a task's result". */
	const char *damage;
	/* Long copies into its slots are made by the job's own thread (else see ac__slots_next_fill). */
	bool fills_itself;
};

enum ac__slot_state {
	AC__SLOT_FREE,
	AC__SLOT_FILLING,
	AC__SLOT_PUBLISHED,
	AC__SLOT_EMPTYING,
};

/* A copy to be made without the lock. */
struct ac__fill {
	void *to;
	const void *from;
	size_t len;		/* 0: no copy is wanted */
	void *owned;		/* freed after the copy, or NULL */
};

struct ac__slot {
	/* First what every task needs, so that it lies in one cache line. */
	struct ac__job *job;	/* NULL: free, or its waiter was answered already */
	uint64_t gen;
	struct ac_bound *bound;	/* one use of it, or NULL */
	int64_t timeout_ns;	/* 0: none */
	enum ac__slot_state state;
	uint32_t arg_block;	/* the owner's, given back when the slot is freed */
	uint8_t doubts;		/* audits in a row that did not believe its word */

	void *arg_data;		/* where that block lies */
	uint64_t first;		/* of a map's chunk: its first item, how many, */
	uint32_t count, end;	/* and where it (or a divisible call) ends now that the
				 * rest was taken back */
	struct ac__fill fill;	/* while FILLING or EMPTYING */
	struct ac__source *holds; /* the source whose next piece waits for this fill, or NULL */
	uint32_t next;		/* in a list of slots: index + 1 */
	uint32_t padding[3];	/* to whole cache lines */
};

/* All counts are in tasks; an item of a map is one. */
struct ac__tally {
	uint64_t submitted, done, failed, cancelled;
};

struct ac__slots {
	struct ac__board *board;
	unsigned seats;		/* workers' seats are 1 to seats */
	const char *broken;	/* why the region is not trusted any more, or NULL */
	bool lacks_memory;	/* the piece whose turn it is waits for memory */
	struct ac__ending over;	/* status 0: none; else what all unfinished work ended with */
	struct ac__slot *slots;
	uint32_t *free_slots;
	uint32_t free_count, published, filling, emptying, timed;
	struct ac__window window;	/* how many pieces may be out at a time */
	struct ac__turns turns;
	struct ac__source calls; /* single calls */
	uint32_t first_fill, *last_fill; /* slots to be filled, index + 1 */
	uint64_t next_number;
	_Atomic uint64_t collected; /* goes up with each piece that ended */
	struct ac__tally tally;
};

/* board: the pool's, as long as slots. 0 or -ENOMEM. */
int ac__slots_open(struct ac__slots *slots, struct ac__board *board, unsigned seats);
void ac__slots_close(struct ac__slots *slots);

static inline struct ac__arena *ac__slots_arena(const struct ac__slots *slots)
{
	return slots->board->arena;
}
/* The slot's task, to be written by the job. */
static inline struct ac__task_shm *ac__slots_task(const struct ac__slots *slots, uint32_t slot)
{
	return &slots->board->tasks[slot];
}
static inline bool ac__slots_any_waits(const struct ac__slots *slots)
{
	return slots->turns.first != NULL;
}
/* Something is out whose end will give slots and memory back. */
static inline bool ac__slots_any_out(const struct ac__slots *slots)
{
	return slots->published || slots->filling || slots->emptying;
}
/* A piece may be published. Slots that are EMPTYING do not count: a job empties them when its
 * thread comes to it, and until then its progress callback may wait for a call of its own. */
static inline bool ac__slots_any_free(const struct ac__slots *slots)
{
	return slots->published + slots->filling < slots->window.size && slots->free_count;
}
/* All that was submitted has ended. */
static inline bool ac__slots_all_over(const struct ac__slots *slots)
{
	const struct ac__tally *tally = &slots->tally;

	return tally->submitted == tally->done + tally->failed + tally->cancelled;
}
/* n tasks ended with status. */
void ac__slots_count(struct ac__slots *slots, int status, uint64_t n);

/* One piece from each source in turn, while there are slots. */
void ac__slots_refill(struct ac__slots *slots);

/* ---- slots ---- */

/* A free slot for a job's piece, to be published, filled or given back; -1: none. */
int64_t ac__slots_take(struct ac__slots *slots);
void ac__slots_give_back(struct ac__slots *slots, uint32_t slot);
/* Space for len bytes of argument: inline, or a block. NULL: no memory. */
void *ac__slots_arg(struct ac__slots *slots, uint32_t slot, uint64_t len);
/* Copy the argument now, or, when it is long, leave the copy to whoever fills the slot. from
 * stays valid until then; owned (or NULL) is freed afterwards. */
static inline void ac__slots_write_arg(struct ac__slots *slots, uint32_t slot, void *to,
				       const void *from, size_t len, void *owned)
{
	if (AC__UNLIKELY(len > AC__COPY_LOCKED)) {
		slots->slots[slot].fill = (struct ac__fill){ to, from, len, owned };
		return;
	}
	if (len)
		memcpy(to, from, len);
	if (AC__UNLIKELY(owned != NULL))
		free(owned);
}
/* The piece in slot reads it. Takes over one use, which ends with the slot's. */
void ac__slots_bind(struct ac__slots *slots, uint32_t slot, struct ac_bound *bound);
/* Tell the worker of it: again for each retry, since a dead one may have written there. */
void ac__slots_write_bound(struct ac__slots *slots, uint32_t slot);
/* A time limit for the piece in slot. */
void ac__slots_limit(struct ac__slots *slots, uint32_t slot, int64_t timeout_ns);
void ac__slots_publish(struct ac__slots *slots, uint32_t slot, struct ac__job *job);

/*
 * Filling. A slot whose copy is long is FILLING from ac__slots_begin_fill to ac__slots_end_fill,
 * and the copy is made without the lock in between. Meanwhile its task may be cancelled
 * (ac__slots_abandon_fill) and all work may have been ended; ac__slots_end_fill handles both.
 */
void ac__slots_begin_fill(struct ac__slots *slots, uint32_t slot, struct ac__job *job);
/* Publish. False: it was abandoned, or all work has been ended and the piece with it. */
bool ac__slots_end_fill(struct ac__slots *slots, uint32_t slot);
/* The piece is not wanted any more. Whoever fills the slot gives it back, not the caller. */
void ac__slots_abandon_fill(struct ac__slots *slots, uint32_t slot);
/* The next slot that whoever waits is to fill, index + 1; 0: none. */
uint32_t ac__slots_next_fill(struct ac__slots *slots);

/* Of a slot that its job has kept: its results are copied. */
void ac__slots_release(struct ac__slots *slots, uint32_t slot);

/* ---- ends ---- */

/* Collect all that is on the done list: how many. */
unsigned ac__slots_collect(struct ac__slots *slots);
/* End what a dead seat held; ending says how its process ended. True: it held a task that was
 * not done. To be called after ac__slots_collect. */
bool ac__slots_end_seat(struct ac__slots *slots, unsigned seat, const struct ac__ending *ending);
/* End everything that is under way or waiting, now and from now on. */
void ac__slots_end_all(struct ac__slots *slots, const struct ac__ending *ending);
/* Answer the piece's waiter now. The slot is set aside until its worker is done or gone. */
void ac__slots_fail(struct ac__slots *slots, uint32_t slot, const struct ac__ending *ending);
/* A READY piece will not run: true, its slot is free. */
bool ac__slots_withdraw(struct ac__slots *slots, uint32_t slot);
/* Condemn a piece that runs: its worker cannot complete it any more. Returns the seat whose
 * process the caller must kill; the slot is set aside until that process is gone. 0: the piece
 * has just ended, or is not running. */
__attribute__((warn_unused_result)) unsigned
ac__slots_condemn(struct ac__slots *slots, uint32_t slot);
/* Take back a chunk's items that nobody has begun, or a call's units, but for the first
 * least: how many, from *first (in the chunk). */
uint32_t ac__slots_take_back(struct ac__slots *slots, uint32_t slot, uint32_t least,
			     uint32_t *first);
/* A worker runs the piece. */
bool ac__slots_is_taken(const struct ac__slots *slots, uint32_t slot);
/* How many of a call's units could be taken back from the worker that runs it, which keeps
 * one at least. */
uint32_t ac__slots_units_left(struct ac__slots *slots, uint32_t slot);
/* For the audit: is the task in slot DONE by a seat of ours? And collect it. */
bool ac__slots_is_done(struct ac__slots *slots, uint32_t slot, unsigned *seat);
void ac__slots_collect_done(struct ac__slots *slots, uint32_t slot, unsigned seat);

#endif

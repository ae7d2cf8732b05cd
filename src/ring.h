/* SPDX-License-Identifier: MIT */
/*
 * The board: what a pool's owner and its workers share to find each other's
 * tasks. A table of tasks, the ready ring, the done list, and a directory of the
 * workers that sleep or spin. It is the root of the pool's arena.
 *
 *	task word	made by		step
 *	FREE -> READY	owner		publish
 *	READY -> TAKEN	a worker	take
 *	TAKEN -> DONE	its worker	complete
 *	DONE -> READY	owner		publish again (next generation)
 *	READY -> FREE	owner		withdraw (cancel)
 *	TAKEN -> CONDEMNED owner	condemn (time limit, cancel): then it kills the worker
 *	TAKEN, CONDEMNED -> FREE owner	after the death of its worker
 *
 * Condemning comes before killing, so that the kill hits exactly that task: a worker whose
 * task is condemned can't complete it, nor take another.
 *
 * The words are the truth. Ring and list are hints that speed up finding a word: a
 * task that is READY and in no ring is found by the owner's audit; one that is DONE
 * and on no list has a dead worker, and is found by the scan that follows a death.
 *
 * Orderings
 *	[R1] publish: the store of READY releases the payload; take's swap acquires it.
 *	[R2] publish: the ring's entry (seq_cst) after the word; takers load the
 *	     entry (seq_cst). It pairs with the bells: see bell.h, B3 and B2.
 *	[R3] complete: the swap to DONE releases the result; collect's load of the word acquires it.
 *	[R4] complete: the list's swap releases the link; the owner's exchange acquires it.
 *	[R5] the spinner's word and the idle map are seq_cst, see "Waking".
 *
 * Waking. A worker that finds no task may become the one spinner; the others sleep.
 * A publisher rings no worker while there is a spinner: the spinner will see the task. So
 * a worker that leaves the role checks the ring once more afterwards (seq_cst
 * both): either the publisher saw the role empty and rang, or that worker sees the task
 * that was published. And a worker that takes a task after having been idle, by spinning or
 * sleeping, checks for another task and rings the next sleeper: publishers may have relied on
 * this one worker for all their tasks.
 *
 * Crash table (worker killed after the step)
 *	take	 1 swap READY to TAKEN		the scan finds TAKEN by the dead: failed or retried
 *		 2 head moved			the same
 *	complete 1 result written		the same
 *		 2 swap TAKEN to DONE		the scan finds DONE by the dead: delivered
 *		 3 link written			the same
 *		 4 list swapped			on the list: delivered
 *		 5 owner's bell claimed, not rung	the death itself wakes the owner
 *	sleep	 1 bell armed, bit set		the death clears both, and rings again
 *	wake	 1 bell claimed, not rung	the death rings all that are not AWAKE
 *	spin	 1 role taken			the death clears it, and rings again
 */
#ifndef AC__RING_H
#define AC__RING_H

#include "arena.h"

enum ac__task_state {
	AC__TASK_FREE,
	AC__TASK_READY,
	AC__TASK_TAKEN,
	AC__TASK_DONE,
	AC__TASK_CONDEMNED,
};

/* What kind of work a task is. */
enum ac__task_kind {
	AC__KIND_CALL,		/* one ac_call_fn */
	AC__KIND_CHUNK,		/* items of a map */
};

/* flags */
#define AC__TASK_TIMED 1u	 /* write down when it starts */
#define AC__TASK_ARG_BLOCK 2u	 /* the argument lies in arg_block */
#define AC__TASK_RESULT_BLOCK 4u /* the result lies in result_block */
#define AC__TASK_UNITS 8u	 /* a call that can be divided: its cursor counts */
#define AC__TASK_BOUND 16u	 /* it may read bound_len bytes in bound_block */

#define AC__INLINE 208

/*
 * A task. Between READY and TAKEN it belongs to the owner, from TAKEN to DONE to its
 * worker, except for the cursor. A small one, there and back, moves a single
 * line: its result takes the place of its argument.
 */
struct ac__task_shm {
	ac__word word AC__ALIGNED(AC__LINE);
	uint64_t fn;
	uint64_t number;	/* counts up from 1 as tasks are submitted */
	uint64_t len;		/* of the argument, then of the result */
	int32_t status;		/* of the engine: 0, AC_ETASK, -ENOMEM */
	int32_t value;		/* what the function returned */
	uint8_t kind, flags;
	/* The argument, then the result; or a chunk's items and results. */
	unsigned char data[AC__INLINE] AC__ALIGNED(16);

	/* Of chunks and divisible calls, and of what does not fit above. */
	_Atomic uint64_t cursor AC__ALIGNED(AC__LINE); /* of items or units: next | end << 32 */
	_Atomic uint32_t current;	/* items that have ended: it runs this one */
	uint32_t step;			/* items to claim at a time at first */
	uint32_t arg_block;		/* ids */
	uint32_t result_block;
	uint32_t bound_block;
	uint32_t item_size, result_size; /* up to 4 GB each */
	uint32_t results_at;		/* where a chunk's results begin, in 16 bytes from its items */
	int64_t elapsed_ns;		/* of a chunk */
	_Atomic int64_t started_ns;
	uint64_t bound_len;

	char text[AC_TEXT_SIZE];	/* of a failure */
};

struct ac__board_shm {
	uint32_t tasks;		/* a power of two */
	uint32_t ring;		/* entries: a power of two, at least twice the tasks */
	uint32_t seats;
	uint32_t trace;		/* events kept for each seat; 0: none */
	uint64_t tasks_offset, ring_offset, links_offset, trace_offset; /* from the board */
	uint32_t recycle;	/* tasks per worker, 0: any number */
	_Atomic uint32_t closing; /* workers exit once no task is READY */
	uint32_t spin_ns;	/* how long to poll for work before sleeping; 0: one processor */

	_Atomic uint64_t head AC__ALIGNED(AC__LINE);	/* hint */
	_Atomic uint64_t tail AC__ALIGNED(AC__LINE);	/* hint, the owner's */
	_Atomic uint32_t done AC__ALIGNED(AC__LINE);	/* index + 1 */
	struct ac__bell owner_bell AC__ALIGNED(AC__LINE);
	/* The owner is rung only when at most so many entries are left in the
	 * ring: it may sleep just to refill it. */
	_Atomic uint32_t ring_below;
	/* The seat that spins for work, 0: none. One word, one holder. */
	_Atomic uint32_t spinner AC__ALIGNED(AC__LINE);
	_Atomic uint64_t idle[(AC__SEATS_MOST + 63) / 64] AC__ALIGNED(AC__LINE);
};

/*
 * The trace. Each seat has one entry more than is kept: the seat's worker writes event n into
 * entry n % entries, and then n + 1 into its row's count of events. A reader that has copied event n
 * keeps the copy only if the count is still below n + entries: from then on the worker may be
 * writing the next event there. The members are stored with release and loaded with acquire:
 * a reader that has loaded a part of event n + entries sees that count too.
 */
struct ac__event_shm {
	_Atomic uint64_t number;
	_Atomic uint64_t items;
	_Atomic int64_t start_ns, end_ns;
};

/* One process's view, with private copies of all numbers from which addresses are computed. */
struct ac__board {
	struct ac__arena *arena;
	struct ac__board_shm *shm;
	struct ac__task_shm *tasks;
	_Atomic uint64_t *ring;
	/* By task: the next on the done list, index + 1. Apart from the tasks, so that the owner
	 * can follow the list ahead and prefetch the lines of the tasks. */
	_Atomic uint32_t *links;
	struct ac__event_shm *trace;
	uint32_t task_count, ring_mask, ring_shift, idle_words, trace_count;
	/* The owner's: where the ring really ends, and where head was when the owner last read it.
	 * Reading it moves a cache line between cores, and is needed only when the ring seems full. */
	uint64_t own_tail, seen_head;
};

struct ac__board_plan {
	uint32_t tasks, trace, recycle, spin_ns;
};

static inline uint32_t ac__trace_entries(uint32_t kept)
{
	return kept ? kept + 1 : 0;
}

/* Where a seat's nth event lies. */
static inline struct ac__event_shm *ac__trace_event(const struct ac__board *board,
						    unsigned seat, uint64_t n)
{
	uint32_t entries = ac__trace_entries(board->trace_count);

	return &board->trace[(uint64_t)seat * entries + n % entries];
}

uint64_t ac__board_size(const struct ac__board_plan *plan, uint32_t seats);
/* On the arena's root, which is zeros. */
void ac__board_init(struct ac__board *board, struct ac__arena *arena,
		    const struct ac__board_plan *plan);
/* A board that another process made. AC_EVERSION: it does not fit its arena. */
int ac__board_attach(struct ac__board *board, struct ac__arena *arena);

/* ---- the owner's side ---- */

/* FREE to READY for a task whose fields are written, and into the ring. Rings no worker. */
void ac__ring_publish(struct ac__board *board, uint32_t task, uint64_t gen);
/* READY to FREE: false if a worker was faster. */
bool ac__ring_withdraw(struct ac__board *board, uint32_t task, uint64_t gen);
/* Entries between head and tail, stale ones too: about how many are READY. */
uint32_t ac__ring_length(const struct ac__board *board);
/* The audit: repair the ring. True: it is empty (now), and each READY task must be entered
 * again. */
bool ac__ring_repair(struct ac__board *board);
/* Enter a READY task again (harmless when it is in the ring already). */
void ac__ring_republish(struct ac__board *board, uint32_t task, uint64_t gen);
/* TAKEN by seat to CONDEMNED: false if it has just been completed. */
bool ac__ring_condemn(struct ac__board *board, uint32_t task, uint64_t gen, unsigned seat);
/* Empty the done list: the first task's index + 1, to be followed by done_next; 0: none. */
uint32_t ac__done_empty(struct ac__board *board);
static inline uint32_t ac__done_next(struct ac__board *board, uint32_t task)
{
	return atomic_load_explicit(&board->links[task],
				    memory_order_relaxed); /* R4 */
}
static inline bool ac__done_any(const struct ac__board *board)
{
	return atomic_load(&board->shm->done) != 0;
}
/* Have a line that is about to be written come to this core. */
static inline void ac__prefetch_to_write(const void *line)
{
#if defined(__x86_64__)
	/* Not __builtin_prefetch: that fetches a copy to read on most targets,
	 * and the swap would have to wait for the line a second time. */
	__asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)line));
#else
	__builtin_prefetch(line, 1);
#endif
}
/* Wake one sleeping worker unless another one spins: after a publish. */
void ac__ring_wake(struct ac__board *board);
/* Wake all sleeping workers: after a death, or to close. */
void ac__ring_wake_all(struct ac__board *board);
/* The seat's process is gone: take it out of the directory. */
void ac__ring_forget_seat(struct ac__board *board, unsigned seat);

/* ---- the worker's side ---- */

/* READY to TAKEN: a task's index, or -1. */
int64_t ac__ring_take(struct ac__board *board, unsigned seat);
/* Is there a task to take? Moves head over stale entries. */
bool ac__ring_any(struct ac__board *board);
/* TAKEN to DONE, onto the list: 1 when the owner sleeps and is to be rung (its bell is claimed),
 * 0 when not, -1 when the task was condemned: the worker must exit. */
int ac__done_push(struct ac__board *board, unsigned seat, uint32_t task);

/* Become the spinner. False: there is one. */
bool ac__spinner_enter(struct ac__board *board, unsigned seat);
void ac__spinner_leave(struct ac__board *board, unsigned seat);
/* After taking a task at the end of an idle time: if there is another one, wake the next worker. */
void ac__ring_hand_on(struct ac__board *board);

/* Announce sleep: bell and idle map. False, and awake again: there is work, or the pool is
 * closing. */
bool ac__idle_enter(struct ac__board *board, unsigned seat);
void ac__idle_leave(struct ac__board *board, unsigned seat);

#endif

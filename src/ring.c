/* SPDX-License-Identifier: MIT */
/* Publishing, taking, completing, and waking: the argument is in the header. */
#include "ring.h"

#include <string.h>

/*
 * An entry of the ring, all of it in one word:
 *	63            24 23     14 13       0
 *	[ generation 40 ][ lap 10 ][ index 14 ]
 * The lap says in which round of the ring the entry was written. So a worker that takes reads
 * the entry alone. Between cores no tail moves for each task, and no line for each entry, but
 * one line for eight entries.
 */
#define INDEX_BITS 14
#define INDEX_MASK ((UINT64_C(1) << INDEX_BITS) - 1)
#define LAP_MASK UINT64_C(1023)
#define ENTRY_GEN_SHIFT 24

/* ---- layout ---- */

uint64_t ac__board_size(const struct ac__board_plan *plan, uint32_t seats)
{
	return sizeof(struct ac__board_shm) +
	       (uint64_t)plan->tasks * sizeof(struct ac__task_shm) +
	       (uint64_t)plan->tasks * (2 * sizeof(uint64_t) + sizeof(uint32_t)) +
	       (uint64_t)ac__trace_entries(plan->trace) * seats *
		       sizeof(struct ac__event_shm);
}

static void take_places(struct ac__board *board, struct ac__arena *arena)
{
	struct ac__board_shm *shm = arena->root;
	char *start = arena->root;

	memset(board, 0, sizeof *board);
	board->arena = arena;
	board->shm = shm;
	board->tasks = (void *)(start + shm->tasks_offset);
	board->ring = (void *)(start + shm->ring_offset);
	board->links = (void *)(start + shm->links_offset);
	board->trace = (void *)(start + shm->trace_offset);
	board->task_count = shm->tasks;
	board->ring_mask = shm->ring - 1;
	board->ring_shift = (uint32_t)__builtin_ctz(shm->ring);
	board->trace_count = shm->trace;
	board->idle_words = (shm->seats + 63) / 64;
}

void ac__board_init(struct ac__board *board, struct ac__arena *arena,
		    const struct ac__board_plan *plan)
{
	struct ac__board_shm *shm = arena->root;

	shm->tasks = plan->tasks;
	shm->ring = plan->tasks * 2;
	shm->seats = arena->seat_count;
	shm->trace = plan->trace;
	shm->recycle = plan->recycle;
	shm->spin_ns = plan->spin_ns;
	shm->tasks_offset = sizeof *shm;
	shm->ring_offset = shm->tasks_offset +
			   (uint64_t)plan->tasks * sizeof(struct ac__task_shm);
	shm->links_offset = shm->ring_offset + shm->ring * sizeof(uint64_t);
	shm->trace_offset = shm->links_offset + shm->tasks * sizeof(uint32_t);
	take_places(board, arena);
}

static bool places_fit(const struct ac__board_shm *shm)
{
	uint64_t ring_at = sizeof *shm + (uint64_t)shm->tasks * sizeof(struct ac__task_shm);

	return shm->tasks && shm->tasks <= 1u << INDEX_BITS &&
	       !(shm->tasks & (shm->tasks - 1)) && shm->ring == shm->tasks * 2 &&
	       shm->tasks_offset == sizeof *shm && shm->ring_offset == ring_at &&
	       shm->links_offset == ring_at + shm->ring * sizeof(uint64_t) &&
	       shm->trace_offset == shm->links_offset + shm->tasks * sizeof(uint32_t);
}

int ac__board_attach(struct ac__board *board, struct ac__arena *arena)
{
	const struct ac__board_shm *shm = arena->root;
	struct ac__board_plan plan;

	if (arena->root_len < sizeof *shm || shm->seats != arena->seat_count)
		return AC_EVERSION;
	plan = (struct ac__board_plan){ .tasks = shm->tasks, .trace = shm->trace };
	if (ac__board_size(&plan, shm->seats) > arena->root_len || !places_fit(shm))
		return AC_EVERSION;
	take_places(board, arena);
	return 0;
}

/* ---- the ready ring ---- */

static uint64_t ready_word(uint64_t gen)
{
	return ac__word_make(AC__TASK_READY, AC__OWNER_SEAT, gen);
}

/* Any process may move it. If the swap fails another one has moved it already. */
static void move_head(struct ac__board *board, uint64_t seen)
{
	atomic_compare_exchange_strong_explicit(&board->shm->head, &seen,
						seen + 1, memory_order_relaxed,
						memory_order_relaxed);
}

/* The first lap is 1: a place that was never written holds 0. */
static uint64_t lap_of(const struct ac__board *board, uint64_t position)
{
	return ((position >> board->ring_shift) + 1) & LAP_MASK;
}

static uint64_t make_entry(const struct ac__board *board, uint64_t position,
			   uint32_t task, uint64_t gen)
{
	return (gen & AC__GEN_MASK) << ENTRY_GEN_SHIFT |
	       lap_of(board, position) << INDEX_BITS | task;
}

static uint32_t entry_task(uint64_t entry)
{
	return entry & INDEX_MASK;
}

static uint64_t entry_gen(uint64_t entry)
{
	return entry >> ENTRY_GEN_SHIFT;
}

/* The entry at head, if there is one. Sequentially consistent: see "Waking". */
static bool entry_at(struct ac__board *board, uint64_t head, uint64_t *entry)
{
	*entry = atomic_load(&board->ring[head & board->ring_mask]); /* R2 */
	return (*entry >> INDEX_BITS & LAP_MASK) == lap_of(board, head) &&
	       entry_task(*entry) < board->task_count;
}

static bool entry_is_ready(struct ac__board *board, uint64_t entry)
{
	return atomic_load(&board->tasks[entry_task(entry)].word) ==
	       ready_word(entry_gen(entry));
}

static void append(struct ac__board *board, uint32_t task, uint64_t gen)
{
	uint64_t tail = board->own_tail++;

	atomic_store(&board->ring[tail & board->ring_mask],
		     make_entry(board, tail, task, gen)); /* R2 */
	AC_STEP();
	/* For ac__ring_length. */
	atomic_store_explicit(&board->shm->tail, tail + 1, memory_order_relaxed);
}

/* head is a hint that any process may have overwritten: the owner believes it only if it
 * lies within a ring's length of its own tail. */
static bool fits_tail(const struct ac__board *board, uint64_t head)
{
	return board->own_tail - head <= board->ring_mask + 1;
}

static void set_head(struct ac__board *board, uint64_t head)
{
	atomic_store(&board->shm->head, head);
	board->seen_head = head;
}

/*
 * Only the owner writes entries. The ring has twice as many places as there are
 * tasks, so a full one holds stale entries (tasks withdrawn): head is moved over
 * those; a READY entry at the head is appended at the tail. A head that still leaves
 * no free place after a whole round was overwritten, as was one beyond the tail: then the ring
 * is emptied, and the audit enters all READY tasks again.
 */
static void free_a_place(struct ac__board *board)
{
	for (uint32_t n = 0; AC__UNLIKELY(board->own_tail - board->seen_head >
					  board->ring_mask); n++) {
		uint64_t head = board->seen_head = atomic_load(&board->shm->head);
		uint64_t entry;

		if (board->own_tail - head <= board->ring_mask)
			return;
		if (!fits_tail(board, head) || n > board->ring_mask) {
			set_head(board, board->own_tail);
			return;
		}
		move_head(board, head);
		if (entry_at(board, head, &entry) && entry_is_ready(board, entry))
			append(board, entry_task(entry), entry_gen(entry));
	}
}

static void enter(struct ac__board *board, uint32_t task, uint64_t gen)
{
	free_a_place(board);
	append(board, task, gen);
}

/* Workers stop at an entry that is not of its lap: there must be none before the tail. */
static bool is_whole(struct ac__board *board, uint64_t head)
{
	uint64_t entry;

	for (; head != board->own_tail; head++)
		if (!entry_at(board, head, &entry))
			return false;
	return true;
}

bool ac__ring_repair(struct ac__board *board)
{
	uint64_t head = atomic_load(&board->shm->head);

	atomic_store(&board->shm->tail, board->own_tail);
	board->seen_head = head;
	if (!fits_tail(board, head) || !is_whole(board, head))
		set_head(board, board->own_tail);
	return board->seen_head == board->own_tail;
}

void ac__ring_publish(struct ac__board *board, uint32_t task, uint64_t gen)
{
	atomic_store_explicit(&board->tasks[task].word, ready_word(gen),
			      memory_order_release); /* R1 */
	AC_STEP();
	enter(board, task, gen);
}

void ac__ring_republish(struct ac__board *board, uint32_t task, uint64_t gen)
{
	enter(board, task, gen);
}

bool ac__ring_withdraw(struct ac__board *board, uint32_t task, uint64_t gen)
{
	AC_STEP();
	return ac__word_swap(&board->tasks[task].word, ready_word(gen),
			     ac__word_make(AC__TASK_FREE, AC__OWNER_SEAT, gen + 1));
}

uint32_t ac__ring_length(const struct ac__board *board)
{
	uint64_t tail = atomic_load_explicit(&board->shm->tail,
					     memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&board->shm->head,
					     memory_order_relaxed);

	return tail - head <= board->ring_mask + 1 ? (uint32_t)(tail - head) : 0;
}

/* Fetch the line of a task a little ahead while this one runs. */
static void prefetch_ahead(struct ac__board *board, uint64_t head)
{
	uint64_t entry;

	if (entry_at(board, head + 3, &entry))
		ac__prefetch_to_write(&board->tasks[entry_task(entry)]);
}

int64_t ac__ring_take(struct ac__board *board, unsigned seat)
{
	for (;;) {
		uint64_t head = atomic_load_explicit(&board->shm->head,
						     memory_order_relaxed);
		uint64_t entry, gen;
		bool mine;

		if (!entry_at(board, head, &entry))
			return -1;
		gen = entry_gen(entry);
		AC_STEP();
		mine = ac__word_swap(&board->tasks[entry_task(entry)].word,
				     ready_word(gen),
				     ac__word_make(AC__TASK_TAKEN, seat, gen));
		AC_STEP();
		move_head(board, head);
		AC_STEP();
		if (mine) {
			prefetch_ahead(board, head);
			return entry_task(entry);
		}
	}
}

bool ac__ring_any(struct ac__board *board)
{
	for (;;) {
		uint64_t head = atomic_load(&board->shm->head);
		uint64_t entry;

		if (!entry_at(board, head, &entry))
			return false;
		if (entry_is_ready(board, entry))
			return true;
		move_head(board, head);
	}
}

/* ---- the done list ---- */

static void push_done(struct ac__board *board, uint32_t task)
{
	uint32_t first = atomic_load_explicit(&board->shm->done,
					      memory_order_relaxed);

	do {
		atomic_store_explicit(&board->links[task], first,
				      memory_order_relaxed);
		AC_STEP();
	} while (!atomic_compare_exchange_weak(&board->shm->done, &first,
					     task + 1)); /* R4, B3 */
}

int ac__done_push(struct ac__board *board, unsigned seat, uint32_t task)
{
	ac__word *word = &board->tasks[task].word;
	uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
	uint64_t gen = ac__word_gen(seen);

	AC_STEP();
	if (AC__UNLIKELY(!ac__word_swap(
		    word, ac__word_make(AC__TASK_TAKEN, seat, gen),
		    ac__word_make(AC__TASK_DONE, seat, gen)))) /* R3 */
		return -1;
	AC_STEP();
	push_done(board, task);
	AC_STEP();
	/* B4. Where too many entries are left to ring, a later worker takes the entry that
	 * leaves few enough. That worker comes here after its task, and rings. */
	return ac__bell_is_armed(&board->shm->owner_bell) &&
	       ac__ring_length(board) <=
		       atomic_load_explicit(&board->shm->ring_below,
					    memory_order_relaxed) &&
	       ac__bell_claim(&board->shm->owner_bell);
}

bool ac__ring_condemn(struct ac__board *board, uint32_t task, uint64_t gen,
		      unsigned seat)
{
	return ac__word_swap(&board->tasks[task].word,
			     ac__word_make(AC__TASK_TAKEN, seat, gen),
			     ac__word_make(AC__TASK_CONDEMNED, seat, gen));
}

uint32_t ac__done_empty(struct ac__board *board)
{
	/* A load is cheaper than an exchange, and most find an empty list. */
	return ac__done_any(board) ? atomic_exchange(&board->shm->done, 0) : 0;
}

/* ---- sleeping and spinning ---- */

static bool wake_seat(struct ac__board *board, unsigned seat)
{
	return ac__bell_ring(&board->arena->seats[seat].bell);
}

static bool wake_one_of(struct ac__board *board, unsigned index)
{
	_Atomic uint64_t *map = &board->shm->idle[index];
	uint64_t bits = atomic_load(map); /* R5 */

	while (bits) {
		AC_STEP();
		unsigned bit = (unsigned)__builtin_ctzll(bits);
		uint64_t one = UINT64_C(1) << bit;
		unsigned seat = index * 64 + bit;

		/* The ringer that clears the bit rings this sleeper: two ringers wake two sleepers. */
		if (atomic_fetch_and(map, ~one) & one &&
		    seat < board->arena->seat_count && wake_seat(board, seat))
			return true;
		bits = atomic_load(map);
	}
	return false;
}

static void wake_one(struct ac__board *board)
{
	for (unsigned i = 0; i < board->idle_words; i++)
		if (wake_one_of(board, i))
			return;
}

void ac__ring_wake(struct ac__board *board)
{
	AC_STEP();
	if (!atomic_load(&board->shm->spinner)) /* R5 */
		wake_one(board);
}

void ac__ring_wake_all(struct ac__board *board)
{
	for (uint32_t s = 1; s < board->arena->seat_count; s++)
		ac__bell_ring_again(&board->arena->seats[s].bell);
}

void ac__ring_hand_on(struct ac__board *board)
{
	if (ac__ring_any(board))
		ac__ring_wake(board);
}

bool ac__spinner_enter(struct ac__board *board, unsigned seat)
{
	uint32_t none = 0;

	return atomic_load_explicit(&board->shm->spinner,
				    memory_order_relaxed) == 0 &&
	       atomic_compare_exchange_strong(&board->shm->spinner, &none, seat);
}

void ac__spinner_leave(struct ac__board *board, unsigned seat)
{
	uint32_t me = seat;

	AC_STEP();
	atomic_compare_exchange_strong(&board->shm->spinner, &me, 0); /* R5 */
}

static _Atomic uint64_t *idle_word(struct ac__board *board, unsigned seat)
{
	return &board->shm->idle[seat / 64];
}

static uint64_t idle_bit(unsigned seat)
{
	return UINT64_C(1) << seat % 64;
}

void ac__idle_leave(struct ac__board *board, unsigned seat)
{
	ac__bell_disarm(&board->arena->seats[seat].bell);
	AC_STEP();
	atomic_fetch_and(idle_word(board, seat), ~idle_bit(seat));
}

bool ac__idle_enter(struct ac__board *board, unsigned seat)
{
	ac__bell_arm(&board->arena->seats[seat].bell); /* B1 */
	atomic_fetch_or(idle_word(board, seat), idle_bit(seat));
	AC_STEP();
	if (!ac__ring_any(board) && !atomic_load(&board->shm->closing)) /* B2 */
		return true;
	ac__idle_leave(board, seat);
	return false;
}

void ac__ring_forget_seat(struct ac__board *board, unsigned seat)
{
	ac__spinner_leave(board, seat);
	ac__idle_leave(board, seat);
}

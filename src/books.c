/* SPDX-License-Identifier: MIT */
/*
 * The owner's books: which job's piece is in which slot, in which generation.
 * They are the owner's private memory, and what it believes. A word, an offset
 * or a length in the region is read once here and checked against them; what does
 * not fit breaks the pool, never the process.
 */
#include "pool.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- slots ---- */

int ac__books_open(struct ac_pool *pool)
{
	uint32_t n = pool->board.task_count;

	pool->slots = ac__sys_calloc(n, sizeof *pool->slots);
	pool->free_slots = ac__sys_calloc(n, sizeof *pool->free_slots);
	if (!pool->slots || !pool->free_slots) {
		ac__books_close(pool);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++)
		pool->free_slots[i] = n - 1 - i;
	pool->free_count = n;
	pool->last_job = &pool->first_job;
	return 0;
}

void ac__books_close(struct ac_pool *pool)
{
	/* A broken pool closes with pieces still out. */
	for (uint32_t i = 0; pool->slots && i < pool->board.task_count; i++)
		ac__bound_leave(pool, pool->slots[i].bound);
	free(pool->slots);
	free(pool->free_slots);
	pool->slots = NULL;
	pool->free_slots = NULL;
}

int64_t ac__books_take_slot(struct ac_pool *pool)
{
	return pool->free_count ? (int64_t)pool->free_slots[--pool->free_count] :
				  -1;
}

/* Last in, first out: the lines of the one used last are still at hand. */
void ac__books_return_slot(struct ac_pool *pool, uint32_t slot)
{
	struct ac__slot *mine = &pool->slots[slot];

	if (mine->arg_block) {
		ac__block_give(ac__pool_arena(pool), AC__OWNER_SEAT,
			       mine->arg_block);
		mine->arg_block = 0;
	}
	if (mine->bound) {
		ac__bound_leave(pool, mine->bound);
		mine->bound = NULL;
	}
	if (mine->timeout_ns) {
		mine->timeout_ns = 0;
		pool->timed--;
	}
	mine->job = NULL;
	pool->free_slots[pool->free_count++] = slot;
}

/* The word is left as it is: nobody can take DONE, or a generation that has passed. */
static void free_slot(struct ac_pool *pool, uint32_t slot)
{
	pool->slots[slot].published = false;
	pool->slots[slot].gen++;
	pool->published--;
	ac__books_return_slot(pool, slot);
}

void *ac__books_arg_room(struct ac_pool *pool, uint32_t slot, uint64_t len)
{
	struct ac__task_shm *task = ac__books_task(pool, slot);
	struct ac__block block;

	task->len = len;
	task->flags = 0;
	if (len <= AC__INLINE)
		return task->data;
	if (ac__block_take(ac__pool_arena(pool), AC__OWNER_SEAT, len, &block) < 0)
		return NULL;
	task->flags = AC__TASK_ARG_BLOCK;
	pool->slots[slot].arg_block = task->arg_block = block.id;
	pool->slots[slot].arg_data = block.data;
	return block.data;
}

struct ac__bound *ac__bound_make(struct ac_pool *pool, const void *data, uint64_t len)
{
	struct ac__bound *bound = ac__sys_calloc(1, sizeof *bound);
	struct ac__block block;

	if (!bound)
		return NULL;
	if (ac__block_take(ac__pool_arena(pool), AC__OWNER_SEAT, len, &block) < 0) {
		free(bound);
		return NULL;
	}
	memcpy(block.data, data, len);
	bound->users = 1;
	bound->block = block.id;
	bound->len = len;
	return bound;
}

void ac__bound_leave(struct ac_pool *pool, struct ac__bound *bound)
{
	if (!bound || --bound->users)
		return;
	ac__block_give(ac__pool_arena(pool), AC__OWNER_SEAT, bound->block);
	free(bound);
}

static void enter_ring(struct ac_pool *pool, uint32_t slot)
{
	struct ac__task_shm *task = ac__books_task(pool, slot);

	task->status = 0;
	if (AC__UNLIKELY(pool->slots[slot].timeout_ns)) {
		task->flags |= AC__TASK_TIMED;
		atomic_store_explicit(&task->started_ns, 0,
				      memory_order_relaxed);
	}
	ac__ring_publish(&pool->board, slot, pool->slots[slot].gen);
	ac__ring_wake(&pool->board);
}

void ac__books_publish(struct ac_pool *pool, uint32_t slot, struct ac__job *job)
{
	struct ac__slot *mine = &pool->slots[slot];

	mine->job = job;
	mine->published = true;
	mine->doubts = 0;
	pool->published++;
	ac__books_task(pool, slot)->number = ++pool->next_number;
	enter_ring(pool, slot);
}

/* ---- the queue of jobs that have pieces left ---- */

void ac__books_enqueue(struct ac_pool *pool, struct ac__job *job)
{
	job->next = NULL;
	job->at = pool->last_job;
	*pool->last_job = job;
	pool->last_job = &job->next;
}

void ac__books_dequeue(struct ac_pool *pool, struct ac__job *job)
{
	if (!job->at)
		return;
	*job->at = job->next;
	if (job->next)
		job->next->at = job->at;
	else
		pool->last_job = job->at;
	job->at = NULL;
}

void ac__books_refill(struct ac_pool *pool)
{
	while (pool->first_job && pool->free_count && !pool->failure.status) {
		struct ac__job *job = pool->first_job;
		uint32_t slot = (uint32_t)ac__books_take_slot(pool);
		int r = job->ops->prepare(pool, job, slot);

		if (r == 0)
			ac__books_dequeue(pool, job);
		if (r >= 0)
			ac__books_publish(pool, slot, job);
		else
			ac__books_return_slot(pool, slot);
		if (r == -EAGAIN)
			return;
	}
}

/* ---- settling ---- */

static void settle(struct ac_pool *pool, uint32_t slot, const struct ac__ending *ending)
{
	struct ac__slot *mine = &pool->slots[slot];
	struct ac__job *job = mine->job;
	uint64_t settled;

	/* Not an atomic addition: the lock is held, and this is every task's path. */
	settled = atomic_load_explicit(&pool->settled, memory_order_relaxed);
	atomic_store_explicit(&pool->settled, settled + 1, memory_order_relaxed);
	/* Before the job hears of it: it may find the pool broken, which ends
	 * all that is in the books. */
	mine->job = NULL;
	if (job && job->ops->settle(pool, job, slot, ending)) {
		mine->job = job;
		mine->gen++;
		enter_ring(pool, slot);
		return;
	}
	free_slot(pool, slot);
}

static void copy_text(struct ac__ending *ending, const struct ac__task_shm *task)
{
	memcpy(ending->text, task->text, sizeof ending->text);
	ending->text[sizeof ending->text - 1] = '\0';
}

static bool is_status(int status)
{
	return status == 0 || status == AC_ETASK || (status < 0 && status > -4096);
}

/* A task that its worker has completed. */
static void settle_done(struct ac_pool *pool, uint32_t slot, unsigned seat)
{
	const struct ac__task_shm *task = ac__books_task(pool, slot);
	struct ac__ending ending;

	ending.status = *(volatile const int32_t *)&task->status;
	if (AC__UNLIKELY(!is_status(ending.status))) {
		ac__pool_break(pool, "a task's status");
		return;
	}
	ending.value = task->value;
	ending.signal = 0;
	ending.exit_code = -1;
	ending.seat = seat;
	ending.ran_ns = 0;
	ending.peak_rss = 0;
	ending.pid = atomic_load_explicit(&ac__pool_arena(pool)->seats[seat].pid,
					  memory_order_relaxed);
	ending.text[0] = '\0';
	if (AC__UNLIKELY(ending.status))
		copy_text(&ending, task);
	settle(pool, slot, &ending);
}

static bool is_done(struct ac_pool *pool, uint32_t slot, unsigned *seat)
{
	uint64_t word = atomic_load_explicit(&pool->board.tasks[slot].word,
					     memory_order_acquire); /* R3 */

	*seat = ac__word_holder(word);
	return pool->slots[slot].published &&
	       ac__word_state(word) == AC__TASK_DONE &&
	       ac__word_gen(word) == (pool->slots[slot].gen & AC__GEN_MASK) &&
	       *seat >= 1 && *seat <= pool->workers;
}

#define BATCH 32

/* So many tasks of the list, their lines on the way. */
static unsigned gather(struct ac_pool *pool, uint32_t *next, uint32_t *slots)
{
	unsigned n = 0;

	while (*next && *next <= pool->board.task_count && n < BATCH) {
		slots[n] = *next - 1;
		ac__prefetch_to_write(&pool->board.tasks[slots[n]]);
		*next = ac__done_next(&pool->board, slots[n++]);
	}
	return n;
}

unsigned ac__books_collect(struct ac_pool *pool)
{
	uint32_t next = ac__done_empty(&pool->board), slots[BATCH];
	unsigned n = 0, count, seat;

	while (next && !pool->failure.status) {
		count = gather(pool, &next, slots);
		AC_STEP();
		for (unsigned i = 0; i < count; i++) {
			/* A slot is free once settled: a circle comes by one that is. */
			if (AC__UNLIKELY(!is_done(pool, slots[i], &seat))) {
				count = 0;
				break;
			}
			settle_done(pool, slots[i], seat);
			n++;
		}
		if (AC__UNLIKELY(!count))
			ac__pool_break(pool, "the list of finished tasks");
	}
	return n;
}

/* ---- after a death ---- */

static bool held_by(struct ac_pool *pool, uint32_t slot, unsigned seat, unsigned *state)
{
	uint64_t word = atomic_load(&pool->board.tasks[slot].word);

	*state = ac__word_state(word);
	return pool->slots[slot].published && ac__word_holder(word) == seat &&
	       ac__word_gen(word) == (pool->slots[slot].gen & AC__GEN_MASK) &&
	       *state != AC__TASK_READY;
}

bool ac__books_bury(struct ac_pool *pool, unsigned seat, const struct ac__ending *ending)
{
	bool held = false;
	unsigned state;

	for (uint32_t slot = 0; pool->published && slot < pool->board.task_count;
	     slot++) {
		if (!held_by(pool, slot, seat, &state))
			continue;
		/* A result that was passed to the task, and no further. */
		if (state != AC__TASK_DONE)
			ac__block_reclaim_holder(ac__pool_arena(pool),
						 AC__HOLDER_TASK | slot);
		held |= state != AC__TASK_DONE;
		if (state == AC__TASK_DONE)
			settle_done(pool, slot, seat);
		else
			settle(pool, slot, ending);
	}
	return held;
}

/* ---- stopping ---- */

/* Its waiter is answered now; the slot stays aside until its worker is done or gone. */
static void answer(struct ac_pool *pool, uint32_t slot, const struct ac__ending *ending)
{
	struct ac__job *job = pool->slots[slot].job;

	pool->slots[slot].job = NULL;
	if (job)
		job->ops->settle(pool, job, slot, ending);
}

void ac__books_end_all(struct ac_pool *pool, const struct ac__ending *ending)
{
	struct ac__job *job;

	while ((job = pool->first_job)) {
		ac__books_dequeue(pool, job);
		job->ops->abort(pool, job, ending);
	}
	for (uint32_t slot = 0; slot < pool->board.task_count; slot++) {
		if (!pool->slots[slot].published)
			continue;
		answer(pool, slot, ending);
		if (ac__ring_withdraw(&pool->board, slot, pool->slots[slot].gen))
			free_slot(pool, slot);
	}
}

bool ac__books_withdraw(struct ac_pool *pool, uint32_t slot)
{
	if (!ac__ring_withdraw(&pool->board, slot, pool->slots[slot].gen))
		return false;
	free_slot(pool, slot);
	return true;
}

bool ac__books_condemn(struct ac_pool *pool, uint32_t slot)
{
	uint64_t word = atomic_load(&pool->board.tasks[slot].word);
	unsigned seat = ac__word_holder(word);

	if (ac__word_state(word) != AC__TASK_TAKEN || seat < 1 ||
	    seat > pool->workers ||
	    !ac__ring_condemn(&pool->board, slot, pool->slots[slot].gen, seat))
		return false;
	AC_STEP();
	ac__crew_kill(pool, seat);
	return true;
}

/* How many a cursor leaves to take back, from *from on. */
static uint32_t count_left(const struct ac__slot *mine, uint64_t cursor, uint32_t least,
			   uint32_t *from)
{
	uint32_t next = (uint32_t)cursor, end = cursor >> 32;

	*from = AC__MAX(next, least);
	return *from < end && end == mine->end ? end - *from : 0;
}

uint32_t ac__books_take_back(struct ac_pool *pool, uint32_t slot, uint32_t least,
			     uint32_t *first)
{
	_Atomic uint64_t *cursor = &ac__books_task(pool, slot)->cursor;
	uint64_t seen = atomic_load(cursor);
	uint32_t from, n;

	do {
		n = count_left(&pool->slots[slot], seen, least, &from);
		if (!n)
			return 0;
		AC_STEP();
	} while (!atomic_compare_exchange_weak(
		cursor, &seen, (uint64_t)from << 32 | (uint32_t)seen));
	pool->slots[slot].end = from;
	*first = from;
	return n;
}

uint32_t ac__books_units_left(struct ac_pool *pool, uint32_t slot)
{
	const struct ac__task_shm *task = ac__books_task(pool, slot);
	uint64_t word = atomic_load(&task->word);
	uint32_t from;

	if (ac__word_state(word) != AC__TASK_TAKEN ||
	    ac__word_gen(word) != (pool->slots[slot].gen & AC__GEN_MASK))
		return 0;
	return count_left(&pool->slots[slot], atomic_load(&task->cursor), 1, &from);
}

/* ---- time limits ---- */

/* When the task in slot is over its limit, as far as is known now. */
static int64_t limit_of(struct ac_pool *pool, uint32_t slot, int64_t now)
{
	const struct ac__task_shm *task = ac__books_task(pool, slot);
	int64_t started = atomic_load_explicit(&task->started_ns,
					       memory_order_relaxed);

	/* Not started: it can't be over before a whole limit from now. */
	if (started <= 0 || started > now)
		started = now;
	return pool->slots[slot].timeout_ns > INT64_MAX - started ?
		       INT64_MAX :
		       started + pool->slots[slot].timeout_ns;
}

static void stop_overdue(struct ac_pool *pool, uint32_t slot)
{
	struct ac__ending ending = { .status = AC_ETIMEOUT, .exit_code = -1 };

	ending.seat = ac__word_holder(atomic_load(&pool->board.tasks[slot].word));
	if (!ac__books_condemn(pool, slot))
		return;
	ending.pid = atomic_load(&ac__pool_arena(pool)->seats[ending.seat].pid);
	strcpy(ending.text, "the task ran over its time limit and was stopped");
	answer(pool, slot, &ending);
}

int64_t ac__books_check_limits(struct ac_pool *pool, int64_t now)
{
	int64_t next = INT64_MAX, limit;

	if (!pool->timed)
		return next;
	for (uint32_t slot = 0; slot < pool->board.task_count; slot++) {
		struct ac__slot *mine = &pool->slots[slot];

		if (!mine->published || !mine->timeout_ns || !mine->job)
			continue;
		limit = limit_of(pool, slot, now);
		if (limit <= now)
			stop_overdue(pool, slot);
		else
			next = AC__MIN(next, limit);
	}
	return next;
}

/* ---- the audit ---- */

#define DOUBTS_MOST 3

static bool word_fits(struct ac_pool *pool, uint32_t slot, uint64_t word)
{
	unsigned seat = ac__word_holder(word);

	if (ac__word_gen(word) != (pool->slots[slot].gen & AC__GEN_MASK))
		return false;
	switch (ac__word_state(word)) {
	case AC__TASK_READY:
		return seat == AC__OWNER_SEAT;
	case AC__TASK_TAKEN:
	case AC__TASK_DONE:
	case AC__TASK_CONDEMNED:
		return seat >= 1 && seat <= pool->workers &&
		       pool->crew[seat].state != AC__MEMBER_ABSENT;
	default:
		return false;
	}
}

/*
 * DONE, and the list was empty just now. Its worker may be about to push it; once that
 * says that it is through with the task, the list has lost it.
 */
static void settle_lost(struct ac_pool *pool, uint32_t slot, uint64_t word)
{
	unsigned seat = ac__word_holder(word);
	struct ac__seat_shm *row = &ac__pool_arena(pool)->seats[seat];

	if (atomic_load(&row->task) == ac__books_task(pool, slot)->number)
		return;
	ac__books_collect(pool);
	if (is_done(pool, slot, &seat))
		settle_done(pool, slot, seat);
}

/* Does its bell say that it sleeps? If it said anything else of a sleeper, it says so next time. */
static bool is_asleep(struct ac__seat_shm *row)
{
	bool asleep = ac__bell_is_armed(&row->bell);

	ac__bell_ring_again(&row->bell);
	return asleep;
}

/*
 * TAKEN: its holder is at something else, or asleep. A worker that was stopped just after its
 * take has written down nothing yet: it gets the benefit of the doubt. DONE: who sleeps is
 * not about to push it. CONDEMNED, and not by us: whose waiter we did not answer.
 */
static bool is_doubtful(struct ac_pool *pool, uint32_t slot, uint64_t word)
{
	struct ac__seat_shm *row =
		&ac__pool_arena(pool)->seats[ac__word_holder(word)];
	uint64_t at_hand = atomic_load(&row->task);

	switch (ac__word_state(word)) {
	case AC__TASK_TAKEN:
		return (at_hand && at_hand != ac__books_task(pool, slot)->number) ||
		       is_asleep(row);
	case AC__TASK_DONE:
		return is_asleep(row);
	case AC__TASK_CONDEMNED:
		return pool->slots[slot].job != NULL;
	default:
		return false;
	}
}

/* A piece that nobody runs will never end by itself. */
static bool is_held(struct ac_pool *pool, uint32_t slot, uint64_t word)
{
	struct ac__slot *mine = &pool->slots[slot];

	if (is_doubtful(pool, slot, word))
		return ++mine->doubts < DOUBTS_MOST;
	mine->doubts = 0;
	return true;
}

/*
 * Heads and links may have been spoilt, and a wake-up may have gone to a
 * process that was stopped: while READY tasks stay and the ring looks empty they are
 * entered again, and everybody who sleeps is woken.
 */
void ac__books_audit(struct ac_pool *pool)
{
	bool lost = ac__ring_repair(&pool->board);
	bool ready = false;

	ac__books_collect(pool);
	for (uint32_t slot = 0; slot < pool->board.task_count; slot++) {
		uint64_t word;

		if (!pool->slots[slot].published)
			continue;
		word = atomic_load(&pool->board.tasks[slot].word);
		if (!word_fits(pool, slot, word) || !is_held(pool, slot, word)) {
			ac__pool_break(pool, "a task's word");
			return;
		}
		if (ac__word_state(word) == AC__TASK_DONE)
			settle_lost(pool, slot, word);
		if (ac__word_state(word) != AC__TASK_READY)
			continue;
		ready = true;
		if (lost)
			ac__ring_republish(&pool->board, slot,
					   pool->slots[slot].gen);
	}
	if (ready)
		ac__ring_wake_all(&pool->board);
}

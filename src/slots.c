/* SPDX-License-Identifier: MIT */
/* The owner's table of tasks: publishing pieces and collecting them. See the header. */
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */

int ac__slots_open(struct ac__slots *slots, struct ac__board *board, unsigned seats)
{
	uint32_t n = board->task_count;

	*slots = (struct ac__slots){ .board = board, .seats = seats };
	ac__turns_init(&slots->turns);
	slots->last_fill = &slots->first_fill;
	ac__source_init(&slots->calls);
	slots->slots = ac__sys_calloc(n, sizeof *slots->slots);
	slots->free_slots = ac__sys_calloc(n, sizeof *slots->free_slots);
	if (!slots->slots || !slots->free_slots) {
		ac__slots_close(slots);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++)
		slots->free_slots[i] = n - 1 - i;
	slots->free_count = n;
	ac__window_init(&slots->window, seats, n);
	return 0;
}

void ac__slots_close(struct ac__slots *slots)
{
	/* A broken pool closes with pieces still out. */
	for (uint32_t i = 0; slots->slots && i < slots->board->task_count; i++) {
		ac__bound_release(slots->slots[i].bound);
		free(slots->slots[i].fill.owned);
	}
	free(slots->slots);
	free(slots->free_slots);
	slots->slots = NULL;
	slots->free_slots = NULL;
}

void ac__slots_count(struct ac__slots *slots, int status, uint64_t n)
{
	if (status == 0)
		slots->tally.done += n;
	else if (status == AC_ECANCELED)
		slots->tally.cancelled += n;
	else
		slots->tally.failed += n;
}

int64_t ac__slots_take(struct ac__slots *slots)
{
	return ac__slots_any_free(slots) ? (int64_t)slots->free_slots[--slots->free_count] : -1;
}

/* Last in, first out: the cache still has the lines of the slot that was used last. */
void ac__slots_give_back(struct ac__slots *slots, uint32_t slot)
{
	struct ac__slot *mine = &slots->slots[slot];
	struct ac_bound *bound = mine->bound;

	if (mine->arg_block) {
		ac__block_give(ac__slots_arena(slots), AC__OWNER_SEAT, mine->arg_block);
		mine->arg_block = 0;
	}
	if (bound) {
		/* Forgotten first: a child that the user forks at this moment releases what it finds
		 * in its copy of the table. */
		mine->bound = NULL;
		ac__bound_release(bound);
	}
	if (mine->timeout_ns) {
		mine->timeout_ns = 0;
		slots->timed--;
	}
	mine->job = NULL;
	mine->state = AC__SLOT_FREE;
	slots->free_slots[slots->free_count++] = slot;
}

/* The word is left as it is: nobody can take DONE, or a generation that has passed. */
static void free_published(struct ac__slots *slots, uint32_t slot)
{
	slots->slots[slot].gen++;
	slots->published--;
	ac__slots_give_back(slots, slot);
}

void ac__slots_release(struct ac__slots *slots, uint32_t slot)
{
	slots->slots[slot].gen++;
	slots->emptying--;
	ac__slots_give_back(slots, slot);
}

void ac__slots_limit(struct ac__slots *slots, uint32_t slot, int64_t timeout_ns)
{
	slots->slots[slot].timeout_ns = timeout_ns;
	slots->timed++;
}

/* ---- arguments ---- */

void *ac__slots_arg(struct ac__slots *slots, uint32_t slot, uint64_t len)
{
	struct ac__task_shm *task = ac__slots_task(slots, slot);
	struct ac__block block;

	task->len = len;
	task->flags = 0;
	if (len <= AC__INLINE)
		return task->data;
	if (ac__block_take(ac__slots_arena(slots), AC__OWNER_SEAT, len, &block) < 0)
		return NULL;
	task->flags = AC__TASK_ARG_BLOCK;
	slots->slots[slot].arg_block = task->arg_block = block.id;
	slots->slots[slot].arg_data = block.data;
	return block.data;
}

void ac__slots_write_bound(struct ac__slots *slots, uint32_t slot)
{
	struct ac__task_shm *task = ac__slots_task(slots, slot);
	const struct ac_bound *bound = slots->slots[slot].bound;

	if (!bound)
		return;
	task->flags |= AC__TASK_BOUND;
	task->bound_block = bound->block;
	task->bound_len = bound->len;
}

void ac__slots_bind(struct ac__slots *slots, uint32_t slot, struct ac_bound *bound)
{
	slots->slots[slot].bound = bound;
	ac__slots_write_bound(slots, slot);
}

/* ---- publishing ---- */

static uint64_t count_collected(const struct ac__slots *slots)
{
	return atomic_load_explicit(&slots->collected, memory_order_relaxed);
}

static void enter_ring(struct ac__slots *slots, uint32_t slot)
{
	struct ac__task_shm *task = ac__slots_task(slots, slot);

	task->status = 0;
	if (AC__UNLIKELY(slots->slots[slot].timeout_ns)) {
		task->flags |= AC__TASK_TIMED;
		atomic_store_explicit(&task->started_ns, 0, memory_order_relaxed);
	}
	ac__ring_publish(slots->board, slot, slots->slots[slot].gen);
	ac__ring_wake(slots->board);
}

void ac__slots_publish(struct ac__slots *slots, uint32_t slot, struct ac__job *job)
{
	struct ac__slot *mine = &slots->slots[slot];

	mine->job = job;
	mine->state = AC__SLOT_PUBLISHED;
	mine->doubts = 0;
	if (!slots->published)
		ac__window_begin(&slots->window, count_collected(slots));
	slots->published++;
	ac__slots_task(slots, slot)->number = ++slots->next_number;
	enter_ring(slots, slot);
}

/* ---- filling ---- */

static void push_fill(struct ac__slots *slots, uint32_t slot)
{
	slots->slots[slot].next = 0;
	*slots->last_fill = slot + 1;
	slots->last_fill = &slots->slots[slot].next;
}

uint32_t ac__slots_next_fill(struct ac__slots *slots)
{
	uint32_t first = slots->first_fill;

	if (!first)
		return 0;
	slots->first_fill = slots->slots[first - 1].next;
	if (!slots->first_fill)
		slots->last_fill = &slots->first_fill;
	return first;
}

void ac__slots_begin_fill(struct ac__slots *slots, uint32_t slot, struct ac__job *job)
{
	slots->slots[slot].job = job;
	slots->slots[slot].state = AC__SLOT_FILLING;
	slots->filling++;
}

static void let_source_go_on(struct ac__slots *slots, struct ac__slot *mine)
{
	struct ac__source *source = mine->holds;

	if (!source)
		return;
	mine->holds = NULL;
	source->held--;
	ac__turns_pass(&slots->turns, source);
}

static void fail_waiting(struct ac__slots *slots)
{
	while (slots->turns.first) {
		struct ac__job *job = slots->turns.first->first;

		ac__turns_dequeue(&slots->turns, job);
		job->ops->fail_rest(slots, job, &slots->over);
	}
}

void ac__slots_abandon_fill(struct ac__slots *slots, uint32_t slot)
{
	slots->slots[slot].job = NULL;
	let_source_go_on(slots, &slots->slots[slot]);
}

bool ac__slots_end_fill(struct ac__slots *slots, uint32_t slot)
{
	struct ac__slot *mine = &slots->slots[slot];
	struct ac__job *job = mine->job;
	void *owned = mine->fill.owned;

	mine->fill = (struct ac__fill){ 0 }; /* forgotten first, as in ac__slots_give_back */
	free(owned);
	let_source_go_on(slots, mine);
	slots->filling--;
	if (job && !slots->over.status) {
		ac__slots_publish(slots, slot, job);
		return true;
	}
	mine->job = NULL;
	if (job)
		job->ops->collect(slots, job, slot, &slots->over);
	ac__slots_give_back(slots, slot);
	/* What waited behind it could not be seen by ac__slots_end_all. */
	if (slots->over.status)
		fail_waiting(slots);
	return false;
}

/* ---- refilling ---- */

/* The source's next piece goes out, now or once the copy of its argument is made. */
static void send_out(struct ac__slots *slots, struct ac__job *job, uint32_t slot)
{
	struct ac__slot *mine = &slots->slots[slot];

	if (AC__LIKELY(!mine->fill.len)) {
		ac__slots_publish(slots, slot, job);
		return;
	}
	ac__slots_begin_fill(slots, slot, job);
	mine->holds = job->source;
	job->source->held++;
	if (!job->ops->fills_itself)
		push_fill(slots, slot);
}

static int write_next(struct ac__slots *slots, struct ac__source *source)
{
	struct ac__job *job = source->first;
	uint32_t slot = (uint32_t)ac__slots_take(slots);
	int r = job->ops->write(slots, job, slot);

	if (r == 0)
		ac__turns_dequeue(&slots->turns, job);
	if (r >= 0)
		send_out(slots, job, slot);
	else
		ac__slots_give_back(slots, slot);
	return r;
}

/* A source whose job has enough under way passes its turn on. Once all sources in a row have
 * done so nothing is left to be published. A piece that lacks memory keeps its turn: smaller
 * ones would take for ever what it waits for. */
void ac__slots_refill(struct ac__slots *slots)
{
	const struct ac__source *first_to_pass = NULL;

	slots->lacks_memory = false;
	while (slots->turns.first && ac__slots_any_free(slots) && !slots->broken) {
		struct ac__source *source = slots->turns.first;
		int r;

		if (source == first_to_pass)
			return;
		r = write_next(slots, source);
		slots->lacks_memory = r == AC__WRITE_NO_MEMORY;
		if (slots->lacks_memory)
			return;
		if (r != AC__WRITE_LATER)
			first_to_pass = NULL;
		else if (!first_to_pass)
			first_to_pass = source;
		ac__turns_pass(&slots->turns, source);
	}
}

/* ---- collecting ---- */

static void collect_piece(struct ac__slots *slots, uint32_t slot, const struct ac__ending *ending)
{
	struct ac__slot *mine = &slots->slots[slot];
	struct ac__job *job = mine->job;
	const struct ac__job_ops *ops = job ? job->ops : NULL; /* the job may be gone after collect */
	uint64_t collected;

	/* Not an atomic addition: the lock is held, and every task comes by here. */
	collected = count_collected(slots);
	atomic_store_explicit(&slots->collected, collected + 1, memory_order_relaxed);
	/* Before the job is told: it may go through its pieces, of which this is none any more. */
	mine->job = NULL;
	switch (job ? ops->collect(slots, job, slot, ending) : AC__PIECE_OVER) {
	case AC__PIECE_AGAIN:
		mine->job = job;
		mine->gen++;
		enter_ring(slots, slot);
		return;
	case AC__PIECE_KEPT:
		mine->state = AC__SLOT_EMPTYING;
		slots->published--;
		slots->emptying++;
		return;
	case AC__PIECE_DAMAGED:
		slots->broken = ops->damage;
		break;
	case AC__PIECE_OVER:
		break;
	}
	free_published(slots, slot);
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

void ac__slots_collect_done(struct ac__slots *slots, uint32_t slot, unsigned seat)
{
	const struct ac__task_shm *task = ac__slots_task(slots, slot);
	struct ac__ending ending;

	ending.status = *(volatile const int32_t *)&task->status;
	if (AC__UNLIKELY(!is_status(ending.status))) {
		slots->broken = "a task's status";
		return;
	}
	ending.value = task->value;
	ending.signal = 0;
	ending.exit_code = -1;
	ending.seat = seat;
	ending.ran_ns = 0;
	ending.peak_rss = 0;
	ending.pid = atomic_load_explicit(&ac__slots_arena(slots)->seats[seat].pid,
					  memory_order_relaxed);
	ending.text[0] = '\0';
	if (AC__UNLIKELY(ending.status))
		copy_text(&ending, task);
	collect_piece(slots, slot, &ending);
}

static bool is_current(const struct ac__slots *slots, uint32_t slot, uint64_t word)
{
	return slots->slots[slot].state == AC__SLOT_PUBLISHED &&
	       ac__word_gen(word) == (slots->slots[slot].gen & AC__GEN_MASK);
}

bool ac__slots_is_done(struct ac__slots *slots, uint32_t slot, unsigned *seat)
{
	uint64_t word = atomic_load_explicit(&slots->board->tasks[slot].word,
					     memory_order_acquire); /* R3 */

	*seat = ac__word_holder(word);
	return is_current(slots, slot, word) && ac__word_state(word) == AC__TASK_DONE &&
	       *seat >= 1 && *seat <= slots->seats;
}

#define BATCH 32

/* Take the next tasks of the list, a batch at most, and have their cache lines fetched. */
static unsigned gather(struct ac__slots *slots, uint32_t *next, uint32_t *batch)
{
	unsigned n = 0;

	while (*next && *next <= slots->board->task_count && n < BATCH) {
		batch[n] = *next - 1;
		ac__prefetch_to_write(&slots->board->tasks[batch[n]]);
		*next = ac__done_next(slots->board, batch[n++]);
	}
	return n;
}

/* False: workers did not make this list. One that is a circle leads back to a task that was
 * collected, which is not DONE any more. */
static bool collect_batch(struct ac__slots *slots, const uint32_t *batch, unsigned count,
			  unsigned *collected)
{
	unsigned seat;

	for (unsigned i = 0; i < count && !slots->broken; i++) {
		if (AC__UNLIKELY(!ac__slots_is_done(slots, batch[i], &seat)))
			return false;
		ac__slots_collect_done(slots, batch[i], seat);
		++*collected;
	}
	return count > 0;
}

unsigned ac__slots_collect(struct ac__slots *slots)
{
	uint32_t next, batch[BATCH];
	unsigned n = 0, count;

	/* Also where the region is broken: a list that is not empty keeps everybody from sleeping. */
	next = ac__done_empty(slots->board);
	while (next && !slots->broken) {
		count = gather(slots, &next, batch);
		AC_STEP();
		if (AC__UNLIKELY(!collect_batch(slots, batch, count, &n)))
			slots->broken = "the list of finished tasks";
	}
	if (n)
		ac__window_adapt(&slots->window, count_collected(slots));
	return n;
}

/* ---- after a death ---- */

static bool is_held_by(struct ac__slots *slots, uint32_t slot, unsigned seat, unsigned *state)
{
	uint64_t word = atomic_load(&slots->board->tasks[slot].word);

	*state = ac__word_state(word);
	return is_current(slots, slot, word) && ac__word_holder(word) == seat &&
	       *state != AC__TASK_READY;
}

bool ac__slots_end_seat(struct ac__slots *slots, unsigned seat, const struct ac__ending *ending)
{
	bool held = false;
	unsigned state;

	for (uint32_t slot = 0; slots->published && !slots->broken &&
				slot < slots->board->task_count; slot++) {
		if (!is_held_by(slots, slot, seat, &state))
			continue;
		if (state == AC__TASK_DONE) {
			ac__slots_collect_done(slots, slot, seat);
			continue;
		}
		held = true;
		/* A result that was passed to the task, and no further. */
		ac__block_reclaim_holder(ac__slots_arena(slots), AC__HOLDER_TASK | slot);
		collect_piece(slots, slot, ending);
	}
	return held;
}

/* ---- stopping ---- */

void ac__slots_fail(struct ac__slots *slots, uint32_t slot, const struct ac__ending *ending)
{
	struct ac__job *job = slots->slots[slot].job;

	slots->slots[slot].job = NULL;
	if (job)
		job->ops->collect(slots, job, slot, ending);
}

bool ac__slots_withdraw(struct ac__slots *slots, uint32_t slot)
{
	if (!ac__ring_withdraw(slots->board, slot, slots->slots[slot].gen))
		return false;
	free_published(slots, slot);
	return true;
}

/* A slot that a thread is filling right now is left to that thread: ac__slots_end_fill reads
 * over. */
void ac__slots_end_all(struct ac__slots *slots, const struct ac__ending *ending)
{
	uint32_t fill;

	if (!slots->over.status)
		slots->over = *ending;
	while ((fill = ac__slots_next_fill(slots)))
		ac__slots_end_fill(slots, fill - 1);
	fail_waiting(slots);
	for (uint32_t slot = 0; slot < slots->board->task_count; slot++) {
		if (slots->slots[slot].state != AC__SLOT_PUBLISHED)
			continue;
		ac__slots_fail(slots, slot, ending);
		ac__slots_withdraw(slots, slot);
	}
}

unsigned ac__slots_condemn(struct ac__slots *slots, uint32_t slot)
{
	uint64_t word = atomic_load(&slots->board->tasks[slot].word);
	unsigned seat = ac__word_holder(word);

	if (ac__word_state(word) != AC__TASK_TAKEN || seat < 1 || seat > slots->seats ||
	    !ac__ring_condemn(slots->board, slot, slots->slots[slot].gen, seat))
		return 0;
	AC_STEP();
	return seat;
}

/* How many a cursor leaves to take back, from *from on. */
static uint32_t count_left(const struct ac__slot *mine, uint64_t cursor, uint32_t least,
			   uint32_t *from)
{
	uint32_t next = (uint32_t)cursor, end = cursor >> 32;

	*from = AC__MAX(next, least);
	return *from < end && end == mine->end ? end - *from : 0;
}

uint32_t ac__slots_take_back(struct ac__slots *slots, uint32_t slot, uint32_t least,
			     uint32_t *first)
{
	_Atomic uint64_t *cursor = &ac__slots_task(slots, slot)->cursor;
	uint64_t seen = atomic_load(cursor);
	uint32_t from, n;

	do {
		n = count_left(&slots->slots[slot], seen, least, &from);
		if (!n)
			return 0;
		AC_STEP();
	} while (!atomic_compare_exchange_weak(
		cursor, &seen, (uint64_t)from << 32 | (uint32_t)seen));
	slots->slots[slot].end = from;
	*first = from;
	return n;
}

bool ac__slots_is_taken(const struct ac__slots *slots, uint32_t slot)
{
	uint64_t word = atomic_load(&slots->board->tasks[slot].word);

	return ac__word_state(word) == AC__TASK_TAKEN && is_current(slots, slot, word);
}

uint32_t ac__slots_units_left(struct ac__slots *slots, uint32_t slot)
{
	const struct ac__task_shm *task = ac__slots_task(slots, slot);
	uint32_t from;

	if (!ac__slots_is_taken(slots, slot))
		return 0;
	return count_left(&slots->slots[slot], atomic_load(&task->cursor), 1, &from);
}

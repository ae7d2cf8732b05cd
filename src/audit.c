/* SPDX-License-Identifier: MIT */
/* Does every word say what the owner's table says? See the header. */
#include "audit.h"

/* A word that stays in doubt for so many audits in a row is wrong. */
#define DOUBTS_MOST 3

struct audit {
	struct ac__slots *slots;
	bool (*is_present)(const void *arg, unsigned seat);
	const void *arg;
};

static struct ac__seat_shm *holder_of(const struct audit *audit, uint64_t word)
{
	return &ac__slots_arena(audit->slots)->seats[ac__word_holder(word)];
}

static bool is_seat_with_process(const struct audit *audit, unsigned seat)
{
	return seat >= 1 && seat <= audit->slots->seats && audit->is_present(audit->arg, seat);
}

static bool is_possible(const struct audit *audit, uint32_t slot, uint64_t word)
{
	unsigned seat = ac__word_holder(word);

	if (ac__word_gen(word) != (audit->slots->slots[slot].gen & AC__GEN_MASK))
		return false;
	switch (ac__word_state(word)) {
	case AC__TASK_READY:
		return seat == AC__OWNER_SEAT;
	case AC__TASK_TAKEN:
	case AC__TASK_DONE:
	case AC__TASK_CONDEMNED:
		return is_seat_with_process(audit, seat);
	default:
		return false;
	}
}

/*
 * TAKEN: its holder is at another task, or asleep. A worker that was stopped just after it took
 * the task has written down nothing yet: that worker gets the benefit of the doubt. DONE: a
 * worker that sleeps is not about to push it. CONDEMNED: its waiter was not answered, so the
 * owner did not write that.
 */
static bool is_doubtful(const struct audit *audit, uint32_t slot, uint64_t word)
{
	struct ac__seat_shm *row = holder_of(audit, word);
	uint64_t at_hand = atomic_load(&row->task);

	switch (ac__word_state(word)) {
	case AC__TASK_TAKEN:
		return (at_hand && at_hand != ac__slots_task(audit->slots, slot)->number) ||
		       ac__bell_is_armed(&row->bell);
	case AC__TASK_DONE:
		return ac__bell_is_armed(&row->bell);
	case AC__TASK_CONDEMNED:
		return audit->slots->slots[slot].job != NULL;
	default:
		return false;
	}
}

/* A piece that nobody runs would never end by itself. */
static bool believe(const struct audit *audit, uint32_t slot, uint64_t word)
{
	struct ac__slot *mine = &audit->slots->slots[slot];
	unsigned state = ac__word_state(word);
	bool doubtful = is_doubtful(audit, slot, word);

	/* A bell that says ASLEEP of a worker that is awake is put right by this ring: the worker
	 * says so again if it sleeps at the next audit. */
	if (state == AC__TASK_TAKEN || state == AC__TASK_DONE)
		ac__bell_ring_again(&holder_of(audit, word)->bell);
	mine->doubts = doubtful ? mine->doubts + 1 : 0;
	return mine->doubts < DOUBTS_MOST;
}

/*
 * DONE, and the list was empty just now. Its worker may be about to push it; once that worker
 * says that it has finished with the task, the list has lost it.
 */
static void collect_lost(const struct audit *audit, uint32_t slot, uint64_t word)
{
	struct ac__slots *slots = audit->slots;
	unsigned seat;

	if (atomic_load(&holder_of(audit, word)->task) == ac__slots_task(slots, slot)->number)
		return;
	ac__slots_collect(slots);
	if (!slots->broken && ac__slots_is_done(slots, slot, &seat))
		ac__slots_collect_done(slots, slot, seat);
}

/* *ready: a READY task was seen. */
static void audit_slot(const struct audit *audit, uint32_t slot, bool lost, bool *ready)
{
	struct ac__slots *slots = audit->slots;
	uint64_t word = atomic_load(&slots->board->tasks[slot].word);

	if (!is_possible(audit, slot, word) || !believe(audit, slot, word)) {
		slots->broken = "a task's word";
		return;
	}
	if (ac__word_state(word) == AC__TASK_DONE)
		collect_lost(audit, slot, word);
	if (ac__word_state(word) != AC__TASK_READY)
		return;
	*ready = true;
	if (lost)
		ac__ring_republish(slots->board, slot, slots->slots[slot].gen);
}

/*
 * Heads and links may have been spoilt, and a wake-up may have gone to a process that was
 * stopped: while READY tasks stay and the ring looks empty they are entered again, and every
 * worker that sleeps is woken.
 */
void ac__audit(struct ac__slots *slots, bool (*is_present)(const void *arg, unsigned seat),
	       const void *arg)
{
	struct audit audit = { slots, is_present, arg };
	bool lost, ready = false;

	if (slots->broken)
		return;
	lost = ac__ring_repair(slots->board);
	ac__slots_collect(slots);
	for (uint32_t slot = 0; slot < slots->board->task_count && !slots->broken; slot++)
		if (slots->slots[slot].state == AC__SLOT_PUBLISHED)
			audit_slot(&audit, slot, lost, &ready);
	if (ready && !slots->broken)
		ac__ring_wake_all(slots->board);
}

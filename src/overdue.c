/* SPDX-License-Identifier: MIT */
/* Tasks that run for longer than they may: see the header. */
#include "overdue.h"

/* When the task in slot is over its limit, as far as is known now. */
static int64_t limit_of(struct ac__slots *slots, uint32_t slot, int64_t now)
{
	const struct ac__task_shm *task = ac__slots_task(slots, slot);
	int64_t started = atomic_load_explicit(&task->started_ns, memory_order_relaxed);

	/* Not started: it can't be over before a whole limit from now. */
	if (started <= 0 || started > now)
		started = now;
	return slots->slots[slot].timeout_ns > INT64_MAX - started ?
		       INT64_MAX :
		       started + slots->slots[slot].timeout_ns;
}

static unsigned end_over_limit(struct ac__slots *slots, uint32_t slot)
{
	struct ac__ending ending = { .status = AC_ETIMEOUT,
				     .exit_code = -1,
				     .text = "the task ran over its time limit and was stopped" };

	ending.seat = ac__slots_condemn(slots, slot);
	if (!ending.seat)
		return 0;
	ending.pid = atomic_load(&ac__slots_arena(slots)->seats[ending.seat].pid);
	ac__slots_fail(slots, slot, &ending);
	return ending.seat;
}

unsigned ac__overdue_end_one(struct ac__slots *slots, int64_t now, int64_t *next)
{
	*next = INT64_MAX;
	if (!slots->timed || slots->broken)
		return 0;
	for (uint32_t slot = 0; slot < slots->board->task_count; slot++) {
		const struct ac__slot *mine = &slots->slots[slot];
		unsigned seat = 0;
		int64_t limit;

		if (mine->state != AC__SLOT_PUBLISHED || !mine->timeout_ns || !mine->job)
			continue;
		limit = limit_of(slots, slot, now);
		if (limit <= now)
			seat = end_over_limit(slots, slot);
		else
			*next = AC__MIN(*next, limit);
		if (seat)
			return seat;
	}
	return 0;
}

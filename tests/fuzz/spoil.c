/* SPDX-License-Identifier: MIT */
/* Who writes over the shared region: every field that the owner reads, and any bytes. */
#include <string.h>

#include "world.h"

struct field {
	uint16_t offset, size;
};

#define FIELD(type, name) \
	{ offsetof(struct type, name), sizeof(((struct type *)NULL)->name) }

static const struct field task_fields[] = {
	FIELD(ac__task_shm, word), FIELD(ac__task_shm, fn),
	FIELD(ac__task_shm, number), FIELD(ac__task_shm, len),
	FIELD(ac__task_shm, status), FIELD(ac__task_shm, value),
	FIELD(ac__task_shm, kind), FIELD(ac__task_shm, flags),
	FIELD(ac__task_shm, cursor), FIELD(ac__task_shm, current),
	FIELD(ac__task_shm, step), FIELD(ac__task_shm, arg_block),
	FIELD(ac__task_shm, result_block), FIELD(ac__task_shm, bound_block),
	FIELD(ac__task_shm, item_size), FIELD(ac__task_shm, result_size),
	FIELD(ac__task_shm, results_at), FIELD(ac__task_shm, elapsed_ns),
	FIELD(ac__task_shm, started_ns), FIELD(ac__task_shm, text),
	FIELD(ac__task_shm, bound_len),
};

static const struct field block_fields[] = {
	FIELD(ac__block_shm, word), FIELD(ac__block_shm, offset),
	FIELD(ac__block_shm, order), FIELD(ac__block_shm, cold),
	FIELD(ac__block_shm, listed), FIELD(ac__block_shm, next),
};

static const struct field seat_fields[] = {
	FIELD(ac__seat_shm, word), FIELD(ac__seat_shm, bell),
	FIELD(ac__seat_shm, pid), FIELD(ac__seat_shm, name),
	FIELD(ac__seat_shm, task), FIELD(ac__seat_shm, tasks),
	FIELD(ac__seat_shm, busy_ns), FIELD(ac__seat_shm, busy_since),
	FIELD(ac__seat_shm, events), FIELD(ac__seat_shm, text),
};

static const struct field hint_fields[] = {
	FIELD(ac__arena_shm, hints.used), FIELD(ac__arena_shm, hints.top),
	FIELD(ac__arena_shm, hints.bytes), FIELD(ac__arena_shm, memory),
	FIELD(ac__arena_shm, base), FIELD(ac__arena_shm, limit),
	FIELD(ac__arena_shm, seats), FIELD(ac__arena_shm, blocks),
};

static const struct field board_fields[] = {
	FIELD(ac__board_shm, tasks), FIELD(ac__board_shm, ring),
	FIELD(ac__board_shm, seats), FIELD(ac__board_shm, trace),
	FIELD(ac__board_shm, tasks_offset), FIELD(ac__board_shm, ring_offset),
	FIELD(ac__board_shm, recycle), FIELD(ac__board_shm, closing),
	FIELD(ac__board_shm, spin_ns), FIELD(ac__board_shm, head),
	FIELD(ac__board_shm, tail), FIELD(ac__board_shm, done),
	FIELD(ac__board_shm, owner_bell), FIELD(ac__board_shm, ring_below),
	FIELD(ac__board_shm, spinner), FIELD(ac__board_shm, idle),
};

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define WRITE_FIELD(start, fields, which, value) \
	write_field(start, &(fields)[(which) % COUNT(fields)], value)

static void write_field(void *start, const struct field *field, uint64_t value)
{
	char *to = (char *)start + field->offset;

	if (field->size > 8)
		memset(to, (int)value, field->size);
	else
		memcpy(to, &value, field->size);
}

/* The generation is kept, or one off. */
static void write_word(ac__word *word, uint8_t state, uint8_t more)
{
	uint64_t seen = atomic_load(word);
	uint32_t holder = more & 7;

	if (more & 8)
		holder |= AC__HOLDER_TASK;
	atomic_store(word, ac__word_make(state & 15, holder,
					 ac__word_gen(seen) + (more >> 4 & 3) - (more >> 6)));
}

/* Entries as they are made, for any task and place, or anything. */
static void write_ring(const struct record *r, struct ac__board *view)
{
	uint64_t place = r->a & view->ring_mask;
	uint64_t head = atomic_load(&view->shm->head);
	uint64_t value = world_value(r->c);

	switch (r->b & 3) {
	case 0: atomic_store(&view->shm->head, head + r->c - 128); break;
	case 1: /* same place, another task */
		value = (atomic_load(&view->ring[place]) & ~UINT64_C(0x3fff)) | r->c;
		break;
	case 2: value = atomic_load(&view->ring[r->c & view->ring_mask]);
	}
	if (r->b & 3)
		atomic_store(&view->ring[place], value);
}

static void write_event(const struct record *r, struct ac__board *view)
{
	struct ac__event_shm *event;

	if (!view->trace_count)
		return;
	event = &view->trace[r->a % ((WORKERS + 1) * ac__trace_entries(view->trace_count))];
	atomic_store((_Atomic uint64_t *)event + r->b % (sizeof *event / 8), world_value(r->c));
}

static void write_raw(const struct record *r, struct ac__board *view)
{
	uint64_t end = (uint64_t)((char *)view->trace - (char *)view->arena->shm);
	uint64_t at = ((uint64_t)(r->a << 8 | r->b) * 8) % end, value = world_value(r->c);

	memcpy((char *)view->arena->shm + at, &value, AC__MIN(8, end - at));
}

void spoil(const struct record *r, struct ac__board *view)
{
	struct ac__task_shm *task = &view->tasks[r->a % SLOTS];
	struct ac__block_shm *block = &view->arena->blocks[r->a % BLOCKS_MOST];
	struct ac__seat_shm *seat = &view->arena->seats[r->a % (WORKERS + 1)];
	uint64_t value = world_value(r->c);

	switch (r->what) {
	case WRITE_TASK: WRITE_FIELD(task, task_fields, r->b, value); break;
	case WRITE_TASK_WORD: write_word(&task->word, r->b, r->c); break;
	case WRITE_BLOCK: WRITE_FIELD(block, block_fields, r->b, value); break;
	case WRITE_BLOCK_WORD: write_word(&block->word, r->b, r->c); break;
	case WRITE_SEAT: WRITE_FIELD(seat, seat_fields, r->b, value); break;
	case WRITE_SEAT_WORD: write_word(&seat->word, r->b, r->c); break;
	case WRITE_LEASE:
		atomic_store(&seat->lease[r->b % AC__LEASES], (uint64_t)(r->b >> 5) << 24 | r->c);
		break;
	case WRITE_HINT:
		if (r->b & 1)
			atomic_store(&view->arena->shm->hints.free[r->a % 44], value);
		else
			WRITE_FIELD(view->arena->shm, hint_fields, r->a, value);
		break;
	case WRITE_BOARD: WRITE_FIELD(view->shm, board_fields, r->b, value); break;
	case WRITE_RING: write_ring(r, view); break;
	case WRITE_LINK: atomic_store(&view->links[r->a % SLOTS], (uint32_t)value); break;
	case WRITE_EVENT: write_event(r, view); break;
	case WRITE_RAW: write_raw(r, view); break;
	}
}

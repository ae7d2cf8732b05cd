/* SPDX-License-Identifier: MIT */
/* The region's stamp, where its tables lie, and the seats: see the header. */
#include "arena.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define MAGIC UINT64_C(0x61636172656e6131) /* "acarena1" */
#define LAYOUT 3
#define ATTEMPTS_MOST 8

/* Sizes alone would miss a new member that lies where there was padding. */
static uint32_t places_in_structs(void)
{
	static const size_t places[] = {
		sizeof(struct ac__arena_shm),
		sizeof(struct ac__seat_shm),
		sizeof(struct ac__block_shm),
		offsetof(struct ac__seat_shm, pid),
		offsetof(struct ac__seat_shm, name),
		offsetof(struct ac__seat_shm, task),
		offsetof(struct ac__seat_shm, tasks),
		offsetof(struct ac__seat_shm, busy_ns),
		offsetof(struct ac__seat_shm, busy_since),
		offsetof(struct ac__seat_shm, task_since),
		offsetof(struct ac__seat_shm, events),
		offsetof(struct ac__seat_shm, leaving),
		offsetof(struct ac__seat_shm, lease),
		offsetof(struct ac__seat_shm, text),
	};
	uint32_t print = 0;

	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		print = print * 31 + (uint32_t)places[i];
	return print;
}

/* Where things lie, from the counts in plan. Returns the end. */
static uint64_t lay_out(struct ac__arena_shm *shm,
			const struct ac__arena_plan *plan)
{
	uint64_t at = ac__align_up(sizeof *shm, AC__LINE);

	shm->seats_offset = at;
	at += (uint64_t)plan->seats * sizeof(struct ac__seat_shm);
	shm->blocks_offset = ac__align_up(at, AC__LINE);
	at = shm->blocks_offset +
	     (uint64_t)plan->blocks * sizeof(struct ac__block_shm);
	shm->root_offset = ac__align_up(at, ac__sys_page());
	return shm->root_offset + plan->root_len;
}

static void take_places(struct ac__arena *arena, const struct ac__arena_shm *shm)
{
	char *start = ac__region_at(&arena->region, 0, 1);

	arena->shm = (void *)start;
	arena->seats = (void *)(start + shm->seats_offset);
	arena->blocks = (void *)(start + shm->blocks_offset);
	arena->root = start + shm->root_offset;
	arena->root_len = shm->root_len;
	arena->seat_count = shm->seats;
	arena->block_count = shm->blocks;
}

int ac__arena_open(struct ac__arena *arena, const struct ac__arena_plan *plan)
{
	struct ac__arena_shm stamp = { .magic = MAGIC,
				       .version = LAYOUT,
				       .places = places_in_structs(),
				       .seats = plan->seats,
				       .blocks = plan->blocks,
				       .root_len = plan->root_len,
				       .memory = plan->memory };
	int r = ac__region_open(&arena->region, lay_out(&stamp, plan), 0,
				plan->group);

	if (r < 0)
		return r;
	stamp.base = arena->region.base;
	stamp.limit = arena->region.limit;
	stamp.sealed = arena->region.sealed;
	atomic_init(&stamp.hints.top, stamp.base);
	take_places(arena, &stamp);
	memcpy(arena->shm, &stamp, sizeof stamp);
	return 0;
}

static bool stamp_fits(const struct ac__arena_shm *stamp)
{
	return stamp->magic == MAGIC && stamp->version == LAYOUT &&
	       stamp->places == places_in_structs() &&
	       stamp->root_offset + stamp->root_len <= stamp->base;
}

/* Only the stamp tells how large segment 0 is. */
static int read_stamp(struct ac__arena_shm *stamp, int fd)
{
	size_t len = ac__align_up(sizeof *stamp, ac__sys_page());
	void *address;
	int r = ac__sys_map(&address, fd, 0, len);

	if (r < 0)
		return r;
	memcpy(stamp, address, sizeof *stamp);
	ac__sys_unmap(address, len);
	return stamp_fits(stamp) ? 0 : AC_EVERSION;
}

static int attach(struct ac__arena *arena, int *fd)
{
	struct ac__arena_shm stamp;
	int r = read_stamp(&stamp, *fd);

	if (r < 0) {
		ac__forkguard_drop(fd);
		return r;
	}
	r = ac__region_attach(&arena->region, *fd, stamp.base, stamp.limit,
			      stamp.sealed);
	*fd = -1;
	if (r == 0)
		take_places(arena, &stamp);
	return r;
}

int ac__arena_attach(struct ac__arena *arena, int *fd)
{
	int r;

	ac__forkguard_lock();
	r = attach(arena, fd);
	ac__forkguard_unlock();
	return r;
}

void ac__arena_close(struct ac__arena *arena)
{
	ac__region_close(&arena->region);
}

/* ---- seats ---- */

static void move_seat(struct ac__arena *arena, unsigned seat,
		      enum ac__seat_state state, unsigned next_turn)
{
	ac__word *word = &arena->seats[seat].word;
	uint64_t seen = atomic_load(word);

	atomic_store(word, ac__word_make(state, seat,
					 ac__word_gen(seen) + next_turn));
}

void ac__seat_invite(struct ac__arena *arena, unsigned seat)
{
	arena->seats[seat].text[0] = '\0';
	atomic_store(&arena->seats[seat].leaving, 0);
	move_seat(arena, seat, AC__SEAT_INVITED, 0);
}

bool ac__seat_withdraw(struct ac__arena *arena, unsigned seat)
{
	ac__word *word = &arena->seats[seat].word;
	uint64_t seen = atomic_load(word);

	return ac__word_state(seen) == AC__SEAT_INVITED &&
	       ac__word_swap(word, seen,
			     ac__word_make(AC__SEAT_EMPTY, seat, ac__word_gen(seen) + 1));
}

void ac__seat_free(struct ac__arena *arena, unsigned seat)
{
	struct ac__seat_shm *row = &arena->seats[seat];

	ac__bell_disarm(&row->bell);
	atomic_store(&row->pid, 0);
	atomic_store(&row->task, 0);
	atomic_store(&row->busy_since, 0);
	move_seat(arena, seat, AC__SEAT_EMPTY, 1);
}

enum ac__seat_state ac__seat_state(struct ac__arena *arena, unsigned seat)
{
	return ac__word_state(atomic_load(&arena->seats[seat].word));
}

/* The time may be another task's if the number changes meanwhile. A process whose number changes
 * at every attempt has only just begun its task. */
uint64_t ac__seat_task(struct ac__arena *arena, unsigned seat, int64_t *ns)
{
	const struct ac__seat_shm *row = &arena->seats[seat];
	uint64_t task = atomic_load(&row->task), seen;
	unsigned attempts = 0;
	int64_t since, now;

	do {
		seen = task;
		since = atomic_load(&row->task_since);
		task = atomic_load(&row->task);
	} while (task != seen && ++attempts < ATTEMPTS_MOST);
	now = ac__sys_now_coarse();
	*ns = task && task == seen && since > 0 && since < now ? now - since : 0;
	return task;
}

int ac__seat_take(struct ac__arena *arena, unsigned seat, pid_t pid)
{
	struct ac__seat_shm *row = &arena->seats[seat];
	uint64_t seen = atomic_load(&row->word);

	if (ac__word_state(seen) != AC__SEAT_INVITED)
		return AC_ECLOSED;
	atomic_store(&row->pid, pid);
	if (!ac__word_swap(&row->word, seen,
			   ac__word_make(AC__SEAT_TAKEN, seat, ac__word_gen(seen))))
		return AC_ECLOSED;
	return 0;
}

void ac__seat_say(struct ac__arena *arena, unsigned seat, enum ac__seat_state state)
{
	move_seat(arena, seat, state, 0);
}

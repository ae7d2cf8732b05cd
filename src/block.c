/* SPDX-License-Identifier: MIT */
/* Taking, giving, passing and leasing blocks: see the header for states and crashes. */
#include "block.h"

#include <errno.h>

#include "cgroup.h"

/* Below this the memory cgroup is not asked: it costs three files. */
#define ASK_FROM (UINT64_C(1) << 20)
/* Below this an unlisted block is not worth a scan before new bytes are used. */
#define SCAN_FROM (UINT64_C(1) << 16)

static unsigned order_of(uint64_t size)
{
	if (size <= AC__BLOCK_LEAST)
		return AC__ORDER_LEAST;
	return 64 - (unsigned)__builtin_clzll(size - 1);
}

static struct ac__block_shm *row_of(struct ac__arena *arena, uint32_t id)
{
	return id && id <= arena->block_count ? &arena->blocks[id - 1] : NULL;
}

/* ---- free lists: hints ---- */

static void list_push(struct ac__arena *arena, uint32_t id)
{
	struct ac__block_shm *row = &arena->blocks[id - 1];
	unsigned order = row->order; /* read once: other processes may write there */
	_Atomic uint64_t *head;
	uint64_t seen, next;

	if (order < AC__ORDER_LEAST || order > AC__ORDER_MOST)
		return;
	/* A block that a scan took is still on its list. Pushed twice it would close a circle. */
	if (atomic_exchange(&row->listed, 1))
		return;
	head = &arena->shm->hints.free[order];
	seen = atomic_load_explicit(head, memory_order_relaxed);
	do {
		AC_STEP();
		atomic_store_explicit(&row->next, (uint32_t)seen,
				      memory_order_relaxed);
		/* The upper half counts pushes, so that a pop that slept doesn't mistake heads. */
		next = ((seen >> 32) + 1) << 32 | id;
	} while (!atomic_compare_exchange_weak_explicit(
		head, &seen, next, memory_order_release, memory_order_relaxed));
}

static uint32_t list_pop(struct ac__arena *arena, unsigned order)
{
	_Atomic uint64_t *head = &arena->shm->hints.free[order];
	uint64_t seen = atomic_load_explicit(head, memory_order_acquire);
	uint64_t next;
	struct ac__block_shm *row;

	do {
		row = row_of(arena, (uint32_t)seen);
		if (!row)
			return 0;
		next = (seen >> 32) << 32 |
		       atomic_load_explicit(&row->next, memory_order_relaxed);
		AC_STEP();
	} while (!atomic_compare_exchange_weak_explicit(
		head, &seen, next, memory_order_acquire, memory_order_acquire));
	AC_STEP();
	atomic_store(&row->listed, 0);
	AC_STEP();
	return (uint32_t)seen;
}

/* A list with so many entries that are not free is broken. Its blocks are found by scans then. */
#define TRIES 64

static void list_cut(struct ac__arena *arena, unsigned order)
{
	_Atomic uint64_t *head = &arena->shm->hints.free[order];
	uint64_t seen = atomic_load(head);

	while (!atomic_compare_exchange_weak(head, &seen, ((seen >> 32) + 1) << 32))
		;
}

/* ---- taking ---- */

/* Place and size, each read once and checked. */
static bool read_row(struct ac__arena *arena, struct ac__block_shm *row,
		    unsigned least, uint32_t id, struct ac__block *block)
{
	uint64_t offset = *(volatile uint64_t *)&row->offset;
	uint16_t order = row->order;

	if (order < AC__ORDER_LEAST || order > AC__ORDER_MOST || order < least ||
	    offset < arena->region.base || offset & ((UINT64_C(1) << order) - 1))
		return false;
	block->id = id;
	block->size = UINT64_C(1) << order;
	block->data = ac__region_at(&arena->region, offset, block->size);
	return block->data != NULL;
}

bool ac__block_claim(struct ac__arena *arena, uint32_t id, uint32_t holder,
		     unsigned order, struct ac__block *block)
{
	struct ac__block_shm *row = &arena->blocks[id - 1];
	uint64_t seen = atomic_load(&row->word);

	if (ac__word_state(seen) != AC__BLOCK_FREE)
		return false;
	/* Before the swap: a process that can't map the block leaves it where it is. */
	if (!read_row(arena, row, order, id, block))
		return false;
	AC_STEP();
	if (!ac__word_swap(&row->word, seen,
			   ac__word_make(AC__BLOCK_HELD, holder, ac__word_gen(seen))))
		return false;
	if (row->cold && ac__region_reserve(&arena->region, row->offset, block->size) < 0) {
		ac__block_give(arena, holder, id);
		return false;
	}
	row->cold = 0;
	return true;
}

static bool take_listed(struct ac__arena *arena, uint32_t holder,
			unsigned order, struct ac__block *block)
{
	uint32_t id;

	/* Entries that are not free any more are dropped on the way; bounded,
	 * since a broken list may run in a circle. */
	for (unsigned tries = 0; tries < TRIES; tries++) {
		id = list_pop(arena, order);
		if (!id)
			return false;
		if (ac__block_claim(arena, id, holder, order, block))
			return true;
	}
	list_cut(arena, order);
	return false;
}

static bool take_scanned(struct ac__arena *arena, uint32_t holder,
			 unsigned order, struct ac__block *block)
{
	uint32_t used = ac__block_used(arena);

	for (uint32_t id = 1; id <= used; id++)
		if (arena->blocks[id - 1].order == order &&
		    ac__block_claim(arena, id, holder, order, block))
			return true;
	return false;
}

static bool take_larger(struct ac__arena *arena, uint32_t holder,
			unsigned order, struct ac__block *block)
{
	for (unsigned larger = order; larger <= AC__ORDER_MOST; larger++)
		if (take_listed(arena, holder, larger, block))
			return true;
	return false;
}

static void raise_used(_Atomic uint32_t *used, uint32_t least)
{
	uint32_t seen = atomic_load(used);

	while (seen < least && !atomic_compare_exchange_weak(used, &seen, least))
		;
}

/* An entry that has no bytes yet, now HELD; 0: the table is full. */
static uint32_t claim_unused(struct ac__arena *arena, uint32_t holder)
{
	_Atomic uint32_t *used = &arena->shm->hints.used;
	uint32_t start = atomic_load(used);

	for (uint32_t n = 0; n < arena->block_count; n++) {
		uint32_t i = (start + n) % arena->block_count;
		ac__word *word = &arena->blocks[i].word;
		uint64_t seen = atomic_load(word);

		if (ac__word_state(seen) != AC__BLOCK_UNUSED)
			continue;
		/* First, so that the scan after the holder's death covers this entry. */
		raise_used(used, i + 1);
		AC_STEP();
		if (!ac__word_swap(word, seen,
				   ac__word_make(AC__BLOCK_HELD, holder,
						 ac__word_gen(seen))))
			continue;
		AC_STEP();
		return i + 1;
	}
	return 0;
}

/* size unused bytes, aligned to their size, safe to touch. */
static int carve_bytes(struct ac__arena *arena, uint64_t size, uint64_t *offset)
{
	_Atomic uint64_t *top = &arena->shm->hints.top;
	uint64_t seen = atomic_load(top), at, end;
	int r;

	do {
		at = ac__align_up(AC__MAX(seen, arena->region.base), size);
		if (at < seen || at > arena->region.limit ||
		    size > arena->region.limit - at)
			return -ENOMEM;
	} while (!atomic_compare_exchange_weak(top, &seen, at + size));
	AC_STEP();
	*offset = at;
	r = ac__region_reserve(&arena->region, at, size);
	if (r < 0) {
		/* A part may have been allocated. The range itself is given back too, if no other
		 * process has carved one behind it. */
		ac__region_punch(&arena->region, at, size);
		end = at + size;
		atomic_compare_exchange_strong(top, &end, at);
	}
	return r;
}

static int check_limits(struct ac__arena *arena, uint64_t size)
{
	uint64_t memory = arena->shm->memory;
	uint64_t bytes = atomic_load(&arena->shm->hints.bytes);

	if (memory && (size > memory || bytes > memory - size))
		return -ENOMEM;
	/* Here it is an error; later the OOM killer would end a process. */
	if (size >= ASK_FROM && (int64_t)size > ac__cgroup_memory_free(""))
		return -ENOMEM;
	return 0;
}

static void set_unused(struct ac__block_shm *row)
{
	row->order = 0;
	atomic_store(&row->word,
		     ac__word_make(AC__BLOCK_UNUSED, 0,
				   ac__word_gen(atomic_load(&row->word)) + 1));
}

static int take_new(struct ac__arena *arena, uint32_t holder, unsigned order,
		    struct ac__block *block)
{
	uint64_t size = UINT64_C(1) << order;
	int r = check_limits(arena, size);
	uint64_t offset = 0;
	uint32_t id;
	struct ac__block_shm *row;

	if (r < 0)
		return r;
	id = claim_unused(arena, holder);
	if (!id)
		return -ENOMEM;
	row = &arena->blocks[id - 1];
	r = carve_bytes(arena, size, &offset);
	row->offset = offset;
	block->id = id;
	block->size = size;
	block->data = r < 0 ? NULL :
			      ac__region_at(&arena->region, offset, size);
	if (!block->data) {
		set_unused(row);
		return r < 0 ? r : -ENOMEM;
	}
	row->order = order;
	atomic_fetch_add(&arena->shm->hints.bytes, size);
	return 0;
}

/* Free blocks of other sizes take up bytes and entries of the table. Give up blocks of so many
 * bytes, and their entries. (Their range is not used again: the file is sparse.) */
static void retire_free(struct ac__arena *arena, uint32_t holder, uint64_t bytes)
{
	uint32_t used = ac__block_used(arena);
	struct ac__block block;
	uint64_t retired = 0;

	for (uint32_t id = 1; id <= used && retired < bytes; id++) {
		struct ac__block_shm *row = &arena->blocks[id - 1];

		if (!ac__block_claim(arena, id, holder, AC__ORDER_LEAST, &block))
			continue;
		ac__region_punch(&arena->region, row->offset, block.size);
		atomic_fetch_sub(&arena->shm->hints.bytes, block.size);
		retired += block.size;
		set_unused(row);
	}
}

int ac__block_take(struct ac__arena *arena, uint32_t holder, uint64_t size,
		   struct ac__block *block)
{
	unsigned order;
	int r;

	if (size > UINT64_C(1) << AC__ORDER_MOST)
		return -ENOMEM;
	order = order_of(size);
	if (take_listed(arena, holder, order, block))
		return 0;
	if (size >= SCAN_FROM && take_scanned(arena, holder, order, block))
		return 0;
	r = take_new(arena, holder, order, block);
	if (r == 0)
		return 0;
	/* There is no new one: take any free block that is large enough. */
	if (take_scanned(arena, holder, order, block) ||
	    take_larger(arena, holder, order, block))
		return 0;
	if (r != -ENOMEM)
		return r;
	retire_free(arena, holder, UINT64_C(1) << order);
	return take_new(arena, holder, order, block);
}

/* ---- giving back ---- */

static void set_free(struct ac__arena *arena, uint32_t id, uint64_t seen)
{
	struct ac__block_shm *row = &arena->blocks[id - 1];

	if (ac__word_swap(&row->word, seen,
			  ac__word_make(AC__BLOCK_FREE, 0, ac__word_gen(seen) + 1)))
		list_push(arena, id);
}

static uint64_t lease_entry(uint32_t id, uint64_t gen)
{
	return gen << 24 | id;
}

static bool is_leased(struct ac__arena *arena, uint64_t entry)
{
	for (uint32_t s = 0; s < arena->seat_count; s++)
		for (int i = 0; i < AC__LEASES; i++)
			if (atomic_load(&arena->seats[s].lease[i]) == entry)
				return true;
	return false;
}

static void free_if_unleased(struct ac__arena *arena, uint32_t id, uint64_t gone)
{
	if (!is_leased(arena, lease_entry(id, ac__word_gen(gone))))
		set_free(arena, id, gone);
}

void ac__block_give(struct ac__arena *arena, uint32_t holder, uint32_t id)
{
	struct ac__block_shm *row = row_of(arena, id);
	uint64_t seen, gone;

	if (!row)
		return;
	for (;;) {
		seen = atomic_load(&row->word);
		if (ac__word_holder(seen) != holder)
			return;
		if (ac__word_state(seen) == AC__BLOCK_HELD) {
			if (row->order < AC__ORDER_LEAST) {
				set_unused(row);
				return;
			}
			AC_STEP();
			if (!ac__word_swap(&row->word, seen,
					   ac__word_make(AC__BLOCK_FREE, 0,
							 ac__word_gen(seen) + 1)))
				continue; /* leased just now */
			AC_STEP();
			list_push(arena, id);
			return;
		}
		if (ac__word_state(seen) != AC__BLOCK_SHARED)
			return;
		gone = ac__word_make(AC__BLOCK_GONE, 0, ac__word_gen(seen));
		if (ac__word_swap(&row->word, seen, gone))
			free_if_unleased(arena, id, gone);
		return;
	}
}

bool ac__block_pass(struct ac__arena *arena, uint32_t id, uint32_t from, uint32_t to)
{
	struct ac__block_shm *row = row_of(arena, id);
	uint64_t seen;

	if (!row)
		return false;
	do {
		seen = atomic_load(&row->word);
		if (ac__word_holder(seen) != from ||
		    (ac__word_state(seen) != AC__BLOCK_HELD &&
		     ac__word_state(seen) != AC__BLOCK_SHARED))
			return false;
		AC_STEP();
	} while (!ac__word_swap(&row->word, seen,
				ac__word_make(ac__word_state(seen), to,
					      ac__word_gen(seen))));
	return true;
}

/* ---- from an id to a block ---- */

int ac__block_check(struct ac__arena *arena, uint32_t id, uint32_t holder,
		    uint64_t len, struct ac__block *block)
{
	struct ac__block_shm *row = row_of(arena, id);
	uint64_t word, offset;
	uint16_t order;

	if (!row)
		return AC_EBROKEN;
	word = atomic_load(&row->word);
	offset = *(volatile uint64_t *)&row->offset;
	order = row->order;
	if (ac__word_holder(word) != holder ||
	    (ac__word_state(word) != AC__BLOCK_HELD &&
	     ac__word_state(word) != AC__BLOCK_SHARED) ||
	    order < AC__ORDER_LEAST || order > AC__ORDER_MOST ||
	    len > UINT64_C(1) << order || offset < arena->region.base ||
	    offset & ((UINT64_C(1) << order) - 1))
		return AC_EBROKEN;
	block->id = id;
	block->size = UINT64_C(1) << order;
	if (!ac__region_holds(&arena->region, offset, block->size))
		return AC_EBROKEN;
	block->data = ac__region_at(&arena->region, offset, block->size);
	return block->data ? 0 : -ENOMEM;
}

void *ac__block_data(struct ac__arena *arena, uint32_t id)
{
	struct ac__block_shm *row = row_of(arena, id);

	return row ? ac__region_at(&arena->region, row->offset,
				   UINT64_C(1) << (row->order & 63)) :
		     NULL;
}

/* ---- leases ---- */

static int free_lease(struct ac__seat_shm *seat)
{
	for (int i = 0; i < AC__LEASES; i++)
		if (!atomic_load_explicit(&seat->lease[i], memory_order_relaxed))
			return i;
	return -ENOSPC;
}

static void end_lease(struct ac__arena *arena, _Atomic uint64_t *lease)
{
	uint64_t entry = atomic_exchange(lease, 0);
	struct ac__block_shm *row = row_of(arena, entry & 0xffffff);
	uint64_t word;

	if (!row)
		return;
	word = atomic_load(&row->word);
	if (ac__word_state(word) == AC__BLOCK_GONE)
		free_if_unleased(arena, entry & 0xffffff, word);
}

int ac__block_lease(struct ac__arena *arena, unsigned seat, uint32_t id)
{
	struct ac__seat_shm *me = &arena->seats[seat];
	struct ac__block_shm *row = row_of(arena, id);
	int i = free_lease(me);
	uint64_t seen, gen;

	if (i < 0 || !row)
		return i < 0 ? i : -ESTALE;
	gen = ac__word_gen(atomic_load(&row->word));
	/* The entry first: a holder that finds SHARED in the word reads the entries. */
	atomic_store(&me->lease[i], lease_entry(id, gen));
	for (;;) {
		seen = atomic_load(&row->word);
		if (ac__word_gen(seen) != gen ||
		    (ac__word_state(seen) != AC__BLOCK_HELD &&
		     ac__word_state(seen) != AC__BLOCK_SHARED))
			break;
		if (ac__word_state(seen) == AC__BLOCK_SHARED ||
		    ac__word_swap(&row->word, seen,
				  ac__word_make(AC__BLOCK_SHARED,
						ac__word_holder(seen), gen)))
			return i;
	}
	/* More than clearing it: the holder may have found this entry, and left it to the lease to
	 * free the block. */
	end_lease(arena, &me->lease[i]);
	return -ESTALE;
}

void ac__block_unlease(struct ac__arena *arena, unsigned seat, int lease)
{
	if (lease >= 0 && lease < AC__LEASES)
		end_lease(arena, &arena->seats[seat].lease[lease]);
}

/* ---- after a death ---- */

void ac__block_reclaim_holder(struct ac__arena *arena, uint32_t holder)
{
	/* raise_used comes before an entry's first holder, so every entry is covered. If the
	 * dead process had overwritten the number, the blocks beyond it are lost. */
	for (uint32_t id = 1; id <= ac__block_used(arena); id++) {
		uint64_t word = atomic_load(&arena->blocks[id - 1].word);
		unsigned state = ac__word_state(word);

		if (ac__word_holder(word) == holder &&
		    (state == AC__BLOCK_HELD || state == AC__BLOCK_SHARED))
			ac__block_give(arena, holder, id);
	}
}

/* Lease entries are cleared before blocks are checked, so that those of the dead seat don't
 * count. A block may be GONE with no lease at all: its reader died between its two steps. */
void ac__block_reclaim(struct ac__arena *arena, unsigned seat)
{
	uint32_t used = ac__block_used(arena);
	uint64_t bytes = 0;

	for (int i = 0; i < AC__LEASES; i++)
		end_lease(arena, &arena->seats[seat].lease[i]);
	ac__block_reclaim_holder(arena, seat);
	for (uint32_t id = 1; id <= used; id++) {
		struct ac__block_shm *row = &arena->blocks[id - 1];
		uint64_t word = atomic_load(&row->word);
		unsigned order = row->order;

		if (ac__word_state(word) == AC__BLOCK_GONE)
			free_if_unleased(arena, id, word);
		if (order >= AC__ORDER_LEAST && order <= AC__ORDER_MOST)
			bytes += UINT64_C(1) << order;
	}
	/* The dead process may have carved a block and not counted it. */
	atomic_store(&arena->shm->hints.bytes, bytes);
}

/* ---- for tests ---- */

int ac__block_audit(struct ac__arena *arena)
{
	uint64_t top = atomic_load(&arena->shm->hints.top);

	for (uint32_t i = 0; i < arena->block_count; i++) {
		struct ac__block_shm *row = &arena->blocks[i];
		uint64_t word = atomic_load(&row->word);
		uint64_t size = UINT64_C(1) << (row->order & 63);

		if (ac__word_state(word) == AC__BLOCK_UNUSED)
			continue;
		if (ac__word_state(word) > AC__BLOCK_GONE || !row->order ||
		    row->offset % size || row->offset + size > top ||
		    (ac__word_state(word) == AC__BLOCK_GONE &&
		     !is_leased(arena, lease_entry(i + 1, ac__word_gen(word)))))
			return AC_EBROKEN;
	}
	return 0;
}

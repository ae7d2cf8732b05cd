/* SPDX-License-Identifier: MIT */
/*
 * A map: one job cut into chunks of items, read from the caller's array as
 * slots are free, and written back to it as chunks end.
 *
 * A wrong guess of how large a chunk should be (see cut.h) is mended: while a worker is held up by
 * one long item and others have nothing to do, the items behind it that no worker has begun are
 * taken back and cut anew. A chunk's worker claims its items in steps of about a microsecond, so a
 * longer item is claimed alone.
 *
 * An item that fails, or whose worker died, ends its chunk; the items behind it
 * are cut anew. So one death costs one item.
 */
#include "map_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "task.h"

/* ---- what became of items ---- */

static void note_items(struct ac__map *map, uint64_t first, uint64_t count,
		       const struct ac__ending *ending)
{
	map->ended += count;
	for (uint64_t i = first; map->opts.outcomes && i < first + count; i++)
		ac__ending_fill(ending, i, &map->opts.outcomes[i]);
}

static void note_done(struct ac__map *map, uint64_t first, uint64_t count,
		      const struct ac__ending *ending)
{
	struct ac__ending done = *ending;

	done.status = done.value = done.signal = 0;
	done.exit_code = -1;
	done.ran_ns = 0;
	done.peak_rss = 0;
	done.text[0] = '\0';
	note_items(map, first, count, &done);
	ac__slots_count(&map->pool->slots, 0, count);
}

/* Failed or cancelled: the lowest index is the map's own result. */
void ac__map_note_failed(struct ac__map *map, uint64_t first, uint64_t count,
			const struct ac__ending *ending)
{
	if (!count)
		return;
	note_items(map, first, count, ending);
	ac__slots_count(&map->pool->slots, ending->status, count);
	/* A cancelled item says less than a failed one, wherever it stands. */
	if (map->failure.status == 0 ||
	    (map->failure.status == AC_ECANCELED &&
	     ending->status != AC_ECANCELED) ||
	    (first < map->failure.index &&
	     (ending->status != AC_ECANCELED ||
	      map->failure.status == AC_ECANCELED)))
		ac__ending_fill(ending, first, &map->failure);
}

/* Count one more death at this item: may it run again? */
static bool count_lost(struct ac__map *map, uint64_t item)
{
	for (size_t i = 0; i < map->lost.count; i++)
		if (map->lost.items[i].first == item)
			return map->lost.items[i].count++ < map->opts.retries;
	return map->opts.retries && ac__ranges_add(&map->lost, item, 1);
}

static void put_back(struct ac__map *map, uint64_t first, uint64_t count)
{
	static const struct ac__ending no_memory = { .status = -ENOMEM,
						     .exit_code = -1,
						     .text = "no memory" };

	if (!count || ac__ranges_add(&map->cut.back, first, count))
		return;
	map->error = -ENOMEM;
	ac__map_note_failed(map, first, count, &no_memory);
}

const struct ac__ending ac__map_stopped = { .status = AC_ECANCELED,
					   .exit_code = -1,
					   .text = "not run: the map was stopped" };

void ac__map_fail_unpublished(struct ac__map *map, const struct ac__ending *ending)
{
	struct ac__range rest;

	while (ac__cut_take_rest(&map->cut, &rest))
		ac__map_note_failed(map, rest.first, rest.count, ending);
}

/* ---- writing chunks ---- */

/* Where results lie behind n items: aligned for any type, and for lines in a block. */
static uint64_t results_at(const struct ac__map *map, uint64_t n)
{
	return ac__align_up(n * map->item_size, AC__LINE);
}

/* Inline data is aligned to 16 only, which 32 bytes and more may find too little. */
static bool fits_inline(const struct ac__map *map, uint64_t bytes)
{
	return bytes <= AC__INLINE && (!map->item_size || map->item_size % 32) &&
	       (!map->result_size || map->result_size % 32);
}

/* Items, and behind them space for results: inline or in a block. */
static bool write_items(struct ac__map *map, uint32_t slot, struct ac__range piece)
{
	uint64_t in = piece.count * map->item_size;
	uint64_t out = piece.count * map->result_size;
	uint64_t at = results_at(map, piece.count);
	uint64_t bytes = at + out;
	void *to;

	if (!fits_inline(map, bytes))
		bytes = AC__MAX(bytes, AC__INLINE + 1);
	to = ac__slots_arg(&map->pool->slots, slot, bytes);
	if (!to)
		return false;
	if (in)
		ac__slots_write_arg(&map->pool->slots, slot, to,
				    map->items + piece.first * map->item_size, in, NULL);
	return true;
}

static void write_chunk(struct ac__map *map, uint32_t slot, struct ac__range piece)
{
	struct ac__task_shm *task = ac__slots_task(&map->pool->slots, slot);
	struct ac__slot *mine = &map->pool->slots.slots[slot];

	mine->first = piece.first;
	mine->count = mine->end = (uint32_t)piece.count;
	ac__slots_bind(&map->pool->slots, slot, ac__bound_use(map->bound));
	task->kind = AC__KIND_CHUNK;
	task->fn = (uintptr_t)map->fn;
	task->item_size = (uint32_t)map->item_size;
	task->result_size = (uint32_t)map->result_size;
	task->results_at = (uint32_t)(results_at(map, piece.count) / 16);
	task->step = ac__cut_step(&map->cut);
	task->elapsed_ns = 0;
	atomic_store_explicit(&task->cursor, (uint64_t)mine->end << 32,
			      memory_order_relaxed);
	atomic_store_explicit(&task->current, 0, memory_order_relaxed);
}

/* Enough ahead that no worker waits for the owner, little enough that sizes follow what is
 * learnt: pieces beyond those that run. */
static uint32_t pieces_most(const struct ac__map *map)
{
	uint32_t workers = map->pool->workers.count;

	return workers + (map->opts.chunk ? 4 * workers + 4 : workers + 2);
}

static int write_piece(struct ac__slots *slots, struct ac__job *job, uint32_t slot)
{
	struct ac__map *map = AC__CONTAINER(job, struct ac__map, job);
	struct ac__range piece;

	if (map->pieces >= pieces_most(map))
		return AC__WRITE_LATER;
	piece = ac__cut_take(&map->cut);
	if (!write_items(map, slot, piece)) {
		put_back(map, piece.first, piece.count);
		if (map->pieces)
			return AC__WRITE_LATER; /* what those give back will do */
		if (ac__slots_any_out(slots))
			return AC__WRITE_NO_MEMORY;
		map->error = -ENOMEM;
		map->queued = false;
		ac__turns_dequeue(&slots->turns, job);
		return -ENOMEM;
	}
	write_chunk(map, slot, piece);
	if (slots->slots[slot].fill.len)
		map->to_fill = slot + 1;
	map->pieces++;
	map->no_rest = false;
	map->queued = ac__cut_any(&map->cut);
	return map->queued;
}

/* ---- ends ---- */

/* Nothing further is begun: what waits in slots and what chunks have not reached is taken back. */
void ac__map_stop(struct ac__map *map)
{
	struct ac__slots *slots = &map->pool->slots;
	uint32_t first, n;

	map->stopping = true;
	ac__turns_dequeue(&slots->turns, &map->job);
	map->queued = false;
	for (uint32_t slot = 0; slot < slots->board->task_count; slot++) {
		struct ac__slot *mine = &slots->slots[slot];

		if (mine->state != AC__SLOT_PUBLISHED || mine->job != &map->job)
			continue;
		n = ac__slots_take_back(slots, slot, 0, &first);
		ac__map_note_failed(map, mine->first + first, n, &ac__map_stopped);
	}
	ac__map_fail_unpublished(map, &ac__map_stopped);
}

static void requeue(struct ac__map *map)
{
	if (!ac__cut_any(&map->cut))
		return;
	if (map->stopping) {
		ac__map_fail_unpublished(map, &ac__map_stopped);
	} else if (!map->queued) {
		map->queued = true;
		ac__turns_enqueue(&map->pool->slots.turns, &map->job);
	}
}

/* The owner knows where the block lies. If the table of blocks says something else, the worker has
 * read and written there. */
static bool is_in_place(struct ac__map *map, const struct ac__slot *mine)
{
	struct ac__block block;

	return !mine->arg_block ||
	       (ac__block_check(ac__pool_arena(map->pool), mine->arg_block,
				AC__OWNER_SEAT, 0, &block) == 0 &&
		block.data == mine->arg_data);
}

/* Of the results of count items, in what the chunk's slot says of it. */
static struct ac__fill results_of(const struct ac__map *map, uint32_t slot, uint32_t count)
{
	const struct ac__slots *slots = &map->pool->slots;
	const struct ac__slot *mine = &slots->slots[slot];
	const char *from = mine->arg_block ? mine->arg_data :
					     (void *)ac__slots_task(slots, slot)->data;

	return (struct ac__fill){ .to = map->results + mine->first * map->result_size,
				  .from = from + results_at(map, mine->count),
				  .len = count * map->result_size };
}

/* True: the results are copied; false: the mapping thread does that later. */
static bool copy_results(struct ac__map *map, uint32_t slot, uint32_t count)
{
	struct ac__slot *mine = &map->pool->slots.slots[slot];
	struct ac__fill copy = results_of(map, slot, count);

	if (copy.len > AC__COPY_LOCKED) {
		mine->fill = copy;
		mine->next = map->to_empty;
		map->to_empty = slot + 1;
		return false;
	}
	if (copy.len)
		memcpy(copy.to, copy.from, copy.len);
	return true;
}

/* How far a chunk came; what its worker says can't be beyond its end. */
static uint32_t progress_of(struct ac__map *map, uint32_t slot)
{
	uint32_t current = atomic_load_explicit(
		&ac__slots_task(&map->pool->slots, slot)->current, memory_order_acquire);

	return AC__MIN(current, map->pool->slots.slots[slot].end);
}

/* The item at is the one that went wrong. */
static void end_item(struct ac__map *map, uint64_t at, const struct ac__ending *ending)
{
	if (ending->status == AC_EDIED && count_lost(map, at)) {
		put_back(map, at, 1);
		return;
	}
	ac__map_note_failed(map, at, 1, ending);
	if (map->opts.flags & AC_MAP_STOP && !map->stopping)
		ac__map_stop(map);
}

/*
 * Items before current are done. If something went wrong, it was with the one
 * at current, and those behind it have not begun.
 */
static enum ac__collected collect_piece(struct ac__slots *slots, struct ac__job *job,
					uint32_t slot, const struct ac__ending *ending)
{
	static const struct ac__ending damaged = { .status = AC_EBROKEN,
						   .exit_code = -1,
						   .text = "the shared region is damaged: a chunk's block" };
	struct ac__map *map = AC__CONTAINER(job, struct ac__map, job);
	struct ac__slot mine = slots->slots[slot];
	bool over = ending->status == AC_ECANCELED || slots->over.status;
	bool filling = mine.state == AC__SLOT_FILLING; /* then nothing of it has run */
	uint32_t current = filling ? 0 : progress_of(map, slot);
	bool copied;

	if (!filling && !is_in_place(map, &mine)) {
		map->pieces--;
		ac__map_note_failed(map, mine.first, mine.end, &damaged);
		return AC__PIECE_DAMAGED;
	}
	/* Its worker may go on writing there until it is killed, and then the slot goes with it. */
	if (over && results_of(map, slot, current).len > AC__COPY_LOCKED)
		current = 0;
	copied = copy_results(map, slot, current);
	map->pieces -= copied;
	note_done(map, mine.first, current, ending);
	ac__cut_learn(&map->cut, ac__slots_task(slots, slot)->elapsed_ns, current);
	if (over) {
		ac__map_note_failed(map, mine.first + current, mine.end - current, ending);
		return AC__PIECE_OVER;
	}
	if (ending->status && current < mine.end)
		end_item(map, mine.first + current++, ending);
	put_back(map, mine.first + current, mine.end - current);
	requeue(map);
	return copied ? AC__PIECE_OVER : AC__PIECE_KEPT;
}

static void fail_rest(struct ac__slots *slots, struct ac__job *job,
		      const struct ac__ending *ending)
{
	struct ac__map *map = AC__CONTAINER(job, struct ac__map, job);

	(void)slots;
	map->queued = false;
	map->stopping = true;
	ac__map_fail_unpublished(map, ending);
}

const struct ac__job_ops ac__map_ops = {
	.write = write_piece,
	.collect = collect_piece,
	.fail_rest = fail_rest,
	.damage = "a chunk's block",
	.fills_itself = true,
};

/* ---- taking back what a long item holds up ---- */

bool ac__map_is_starved(const struct ac__map *map)
{
	return !map->opts.chunk && !ac__cut_any(&map->cut) && map->pieces &&
	       map->pieces < map->pool->workers.count;
}

/* From all chunks that run. Their items take longer than was thought, and are cut small. A chunk
 * that no worker has taken yet keeps its place in the ring, and may hold items up later. False: no
 * chunk has a rest, nor will have one. */
bool ac__map_take_back(struct ac__map *map)
{
	struct ac__slots *slots = &map->pool->slots;
	uint32_t first, n;
	bool any = false;

	for (uint32_t slot = 0; slot < slots->board->task_count; slot++) {
		struct ac__slot *mine = &slots->slots[slot];

		if (mine->state != AC__SLOT_PUBLISHED || mine->job != &map->job)
			continue;
		if (!ac__slots_is_taken(slots, slot)) {
			any = true;
			continue;
		}
		n = ac__slots_take_back(slots, slot, 0, &first);
		put_back(map, mine->first + first, n);
		any |= n > 0;
	}
	requeue(map);
	return any;
}

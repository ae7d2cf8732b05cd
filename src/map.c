/* SPDX-License-Identifier: MIT */
/*
 * A map: one job cut into chunks of items, read from the caller's array as
 * slots are free, and written back to it as chunks end.
 *
 * How large a chunk is, is decided by time. The first are single items; from
 * then on a chunk is to last a fraction of what is left (so that all workers end
 * together), at most CHUNK_NS (long against its overhead). What is misjudged is mended:
 * while a worker
 * is held up by one long item and others have nothing to do, the items behind it
 * that nobody has begun are taken back and cut anew. A chunk's worker claims its items in steps
 * of about a microsecond, so whatever is longer is claimed alone.
 *
 * An item that fails, or whose worker died, ends its chunk; the items behind it
 * are cut anew. So one death costs one item.
 */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_NS 10000000
#define CHUNK_BYTES (1u << 20)
#define SHARES 3	/* a chunk is at most this part of one worker's share of what is left */
#define STEP_NS 1000
#define STEP_MOST 64
#define PROGRESS_NS 100000000
#define STARVED_NS 1000000 /* how often to look for items to take back */

struct range {
	uint64_t first, count;
};

/* Items to be cut that are not simply the rest of the input, and how often an item was lost. */
struct list {
	struct range *items;
	size_t count, room;
};

struct map {
	struct ac__job job;
	struct ac_pool *pool;
	ac_map_fn *fn;
	const char *items;
	char *results;
	size_t item_size, result_size;
	uint64_t count;
	struct ac_map_opts opts;
	struct ac__bound *bound;

	uint64_t next;		/* the first item never cut */
	struct list back;	/* ranges that came back */
	struct list lost;	/* first: an item; count: how often its worker died */
	uint32_t pieces;	/* under way */
	bool queued;
	bool stopping;		/* no further item is begun */
	bool looked;		/* in vain: no chunk that runs has a rest */
	int error;		/* of the map itself: -ENOMEM */

	uint64_t ended, failed, cancelled;
	double item_ns;		/* estimate, < 0: none yet */
	struct ac_outcome failure; /* the one with the lowest index */
};

/* ---- lists ---- */

static bool list_add(struct list *list, uint64_t first, uint64_t count)
{
	struct range *items;

	if (list->count == list->room) {
		size_t room = list->room ? list->room * 2 : 16;

		items = realloc(list->items, room * sizeof *items);
		if (!items)
			return false;
		list->items = items;
		list->room = room;
	}
	list->items[list->count++] = (struct range){ first, count };
	return true;
}

static bool has_unpublished(const struct map *map)
{
	return map->back.count || map->next < map->count;
}

/* ---- how large ---- */

static uint64_t items_left(const struct map *map)
{
	uint64_t n = map->count - map->next;

	for (size_t i = 0; i < map->back.count; i++)
		n += map->back.items[i].count;
	return n;
}

static uint64_t chunk_size(const struct map *map)
{
	uint64_t bytes = map->item_size + map->result_size;
	double share, n;

	if (map->opts.chunk)
		return map->opts.chunk;
	if (map->item_ns < 0)
		return 1;
	share = (double)items_left(map) / (map->pool->workers * SHARES);
	n = CHUNK_NS / AC__MAX(map->item_ns, 1.0);
	n = AC__MIN(n, share);
	if (bytes)
		n = AC__MIN(n, (double)CHUNK_BYTES / (double)bytes);
	return n < 1 ? 1 : (uint64_t)n;
}

static void learn_time(struct map *map, int64_t elapsed_ns, uint32_t items)
{
	double item_ns;

	if (!items || elapsed_ns < 0)
		return;
	item_ns = (double)elapsed_ns / items;
	map->item_ns = map->item_ns < 0 ? item_ns :
					  (map->item_ns + item_ns) / 2;
}

static uint32_t step_of(const struct map *map)
{
	if (map->item_ns < 0)
		return 1;
	return (uint32_t)AC__MAX(
		AC__MIN(STEP_NS / AC__MAX(map->item_ns, 1.0), STEP_MOST), 1);
}

/* ---- cutting ---- */

/* A chunk must have its number of items in 32 bits, and its bytes in a size_t. */
#define ITEMS_MOST (UINT32_C(1) << 30)
#define BYTES_MOST (UINT64_C(1) << 35)

static struct range cut_range(struct map *map)
{
	uint64_t bytes = AC__MAX(map->item_size + map->result_size, 1);
	uint64_t n = AC__MIN(chunk_size(map), ITEMS_MOST);
	struct range *back, piece;

	n = AC__MAX(AC__MIN(n, BYTES_MOST / bytes), 1);

	if (!map->back.count) {
		piece.first = map->next;
		piece.count = AC__MIN(n, map->count - map->next);
		map->next += piece.count;
		return piece;
	}
	back = &map->back.items[map->back.count - 1];
	piece.first = back->first;
	piece.count = AC__MIN(n, back->count);
	back->first += piece.count;
	back->count -= piece.count;
	if (!back->count)
		map->back.count--;
	return piece;
}

/* ---- what became of items ---- */

static void note_items(struct map *map, uint64_t first, uint64_t count,
		       const struct ac__ending *ending)
{
	map->ended += count;
	for (uint64_t i = first; map->opts.outcomes && i < first + count; i++)
		ac__outcome_fill(&map->opts.outcomes[i], ending, i);
}

static void note_done(struct map *map, uint64_t first, uint64_t count,
		      const struct ac__ending *ending)
{
	struct ac__ending done = *ending;

	done.status = done.value = done.signal = 0;
	done.exit_code = -1;
	done.ran_ns = 0;
	done.peak_rss = 0;
	done.text[0] = '\0';
	note_items(map, first, count, &done);
	map->pool->done += count;
}

/* Failed or cancelled: the lowest index is the map's own result. */
static void note_failed(struct map *map, uint64_t first, uint64_t count,
			const struct ac__ending *ending)
{
	if (!count)
		return;
	note_items(map, first, count, ending);
	if (ending->status == AC_ECANCELED) {
		map->cancelled += count;
		map->pool->cancelled += count;
	} else {
		map->failed += count;
		map->pool->failed += count;
	}
	/* A cancelled item says less than a failed one, wherever it stands. */
	if (map->failure.status == 0 ||
	    (map->failure.status == AC_ECANCELED &&
	     ending->status != AC_ECANCELED) ||
	    (first < map->failure.index &&
	     (ending->status != AC_ECANCELED ||
	      map->failure.status == AC_ECANCELED)))
		ac__outcome_fill(&map->failure, ending, first);
}

static bool may_retry(struct map *map, uint64_t item)
{
	for (size_t i = 0; i < map->lost.count; i++)
		if (map->lost.items[i].first == item)
			return map->lost.items[i].count++ < map->opts.retries;
	return map->opts.retries && list_add(&map->lost, item, 1);
}

static void put_back(struct map *map, uint64_t first, uint64_t count)
{
	static const struct ac__ending no_memory = { .status = -ENOMEM,
						     .exit_code = -1,
						     .text = "no memory" };

	if (!count || list_add(&map->back, first, count))
		return;
	map->error = -ENOMEM;
	note_failed(map, first, count, &no_memory);
}

static const struct ac__ending stopped = { .status = AC_ECANCELED,
					   .exit_code = -1,
					   .text = "not run: the map was stopped" };

static void cancel_unpublished(struct map *map, const struct ac__ending *ending)
{
	for (size_t i = 0; i < map->back.count; i++)
		note_failed(map, map->back.items[i].first,
			    map->back.items[i].count, ending);
	note_failed(map, map->next, map->count - map->next, ending);
	map->back.count = 0;
	map->next = map->count;
}

/* ---- writing chunks ---- */

/* Where results lie behind n items: aligned for any type, and for lines in a block. */
static uint64_t results_at(const struct map *map, uint64_t n)
{
	return ac__align_up(n * map->item_size, AC__LINE);
}

/* Inline data is aligned to 16 only, which 32 bytes and more may find too little. */
static bool fits_inline(const struct map *map, uint64_t bytes)
{
	return bytes <= AC__INLINE && (!map->item_size || map->item_size % 32) &&
	       (!map->result_size || map->result_size % 32);
}

/* Items, and behind them room for results: inline or in a block. */
static bool write_items(struct map *map, uint32_t slot, struct range piece)
{
	uint64_t in = piece.count * map->item_size;
	uint64_t out = piece.count * map->result_size;
	uint64_t at = results_at(map, piece.count);
	uint64_t bytes = at + out;
	char *room;

	if (!fits_inline(map, bytes))
		bytes = AC__MAX(bytes, AC__INLINE + 1);
	room = ac__books_arg_room(map->pool, slot, bytes);
	if (!room)
		return false;
	if (in)
		memcpy(room, map->items + piece.first * map->item_size, in);
	return true;
}

static void write_chunk(struct map *map, uint32_t slot, struct range piece)
{
	struct ac__task_shm *task = ac__books_task(map->pool, slot);
	struct ac__slot *mine = &map->pool->slots[slot];

	mine->first = piece.first;
	mine->count = mine->end = (uint32_t)piece.count;
	mine->bound = map->bound;
	task->bound_block = 0;
	if (map->bound) {
		map->bound->users++;
		task->bound_block = map->bound->block;
	}
	task->kind = AC__KIND_CHUNK;
	task->fn = (uintptr_t)map->fn;
	task->item_size = (uint32_t)map->item_size;
	task->result_size = (uint32_t)map->result_size;
	task->results_at = (uint32_t)(results_at(map, piece.count) / 16);
	task->step = step_of(map);
	task->elapsed_ns = 0;
	atomic_store_explicit(&task->cursor, (uint64_t)mine->end << 32,
			      memory_order_relaxed);
	atomic_store_explicit(&task->current, 0, memory_order_relaxed);
}

/* Enough ahead that no worker waits for us, little enough that sizes follow what is learnt. */
static uint32_t window(const struct map *map)
{
	return map->opts.chunk ? 4 * map->pool->workers + 4 :
				 map->pool->workers + 2;
}

static int prepare_chunk(struct ac_pool *pool, struct ac__job *job, uint32_t slot)
{
	struct map *map = AC__CONTAINER(job, struct map, job);
	struct range piece;

	/* Entries of what was cancelled are no work: they are swept before they count. */
	if (ac__ring_any(&pool->board) && pool->published &&
	    ac__ring_length(&pool->board) >= window(map))
		return -EAGAIN;
	piece = cut_range(map);
	if (!write_items(map, slot, piece)) {
		put_back(map, piece.first, piece.count);
		if (map->pieces)
			return -EAGAIN; /* their memory will do */
		map->error = -ENOMEM;
		map->queued = false;
		ac__books_dequeue(pool, job);
		return -ENOMEM;
	}
	write_chunk(map, slot, piece);
	map->pieces++;
	map->looked = false;
	map->queued = has_unpublished(map);
	return map->queued;
}

/* ---- ends ---- */

/* Nothing further is begun: what waits in slots and what chunks have not reached is taken back. */
static void stop_map(struct map *map)
{
	struct ac_pool *pool = map->pool;
	uint32_t first, n;

	map->stopping = true;
	if (map->queued)
		ac__books_dequeue(pool, &map->job);
	map->queued = false;
	for (uint32_t slot = 0; slot < pool->board.task_count; slot++) {
		struct ac__slot *mine = &pool->slots[slot];

		if (!mine->published || mine->job != &map->job)
			continue;
		n = ac__books_take_back(pool, slot, 0, &first);
		note_failed(map, mine->first + first, n, &stopped);
	}
	cancel_unpublished(map, &stopped);
}

static void requeue(struct map *map)
{
	if (!has_unpublished(map))
		return;
	if (map->stopping) {
		cancel_unpublished(map, &stopped);
	} else if (!map->queued) {
		map->queued = true;
		ac__books_enqueue(map->pool, &map->job);
	}
}

/* The owner knows where the block lies; if the table says something else, so it said to
 * the worker. */
static bool is_in_place(struct map *map, const struct ac__slot *mine)
{
	struct ac__block block;

	return !mine->arg_block ||
	       (ac__block_check(ac__pool_arena(map->pool), mine->arg_block,
				AC__OWNER_SEAT, 0, &block) == 0 &&
		block.data == mine->arg_data);
}

static void copy_results(struct map *map, uint32_t slot, uint32_t count)
{
	const struct ac__slot *mine = &map->pool->slots[slot];
	const char *from = mine->arg_block ?
				   mine->arg_data :
				   (void *)ac__books_task(map->pool, slot)->data;

	if (map->result_size && count)
		memcpy(map->results + mine->first * map->result_size,
		       from + results_at(map, mine->count),
		       count * map->result_size);
}

/* How far a chunk came; what its worker says can't be beyond its end. */
static uint32_t progress_of(struct map *map, uint32_t slot)
{
	uint32_t current = atomic_load_explicit(
		&ac__books_task(map->pool, slot)->current, memory_order_acquire);

	return AC__MIN(current, map->pool->slots[slot].end);
}

/*
 * Items before current are done. If something went wrong, it was with the one
 * at current, and those behind it have not begun.
 */
static bool settle_chunk(struct ac_pool *pool, struct ac__job *job, uint32_t slot,
			 const struct ac__ending *ending)
{
	struct map *map = AC__CONTAINER(job, struct map, job);
	struct ac__slot mine = pool->slots[slot];
	uint32_t current = progress_of(map, slot);
	uint64_t at = mine.first + current;
	bool over = ending->status == AC_ECANCELED || pool->failure.status;

	map->pieces--;
	if (!is_in_place(map, &mine)) {
		ac__pool_break(pool, "a chunk's block");
		ending = &pool->failure;
		current = 0;
		at = mine.first;
		over = true;
	}
	copy_results(map, slot, current);
	note_done(map, mine.first, current, ending);
	learn_time(map, ac__books_task(pool, slot)->elapsed_ns, current);
	if (over) {
		note_failed(map, at, mine.end - current, ending);
		return false;
	}
	if (ending->status && current < mine.end) {
		if (ending->status == AC_EDIED && may_retry(map, at)) {
			put_back(map, at, 1);
		} else {
			note_failed(map, at, 1, ending);
			if (map->opts.flags & AC_MAP_STOP && !map->stopping)
				stop_map(map);
		}
		current++;
	}
	put_back(map, mine.first + current, mine.end - current);
	requeue(map);
	return false;
}

static void abort_map(struct ac_pool *pool, struct ac__job *job,
		      const struct ac__ending *ending)
{
	struct map *map = AC__CONTAINER(job, struct map, job);

	(void)pool;
	map->queued = false;
	map->stopping = true;
	cancel_unpublished(map, ending);
}

static const struct ac__job_ops map_ops = {
	.prepare = prepare_chunk,
	.settle = settle_chunk,
	.abort = abort_map,
};

/* ---- taking back what a long item holds up ---- */

static bool is_starved(const struct map *map)
{
	return !map->opts.chunk && !has_unpublished(map) && map->pieces &&
	       map->pieces < map->pool->workers;
}

/* Whatever it was thought to take, it takes longer: its items are cut small. */
static bool take_back(struct map *map)
{
	struct ac_pool *pool = map->pool;
	uint32_t first, n;
	bool any = false;

	for (uint32_t slot = 0; slot < pool->board.task_count; slot++) {
		struct ac__slot *mine = &pool->slots[slot];

		if (!mine->published || mine->job != &map->job)
			continue;
		n = ac__books_take_back(pool, slot, 0, &first);
		put_back(map, mine->first + first, n);
		any |= n > 0;
	}
	requeue(map);
	return any;
}

/* ---- waiting ---- */

static bool map_is_over(void *arg)
{
	struct map *map = arg;

	return map->pieces == 0 && !map->queued;
}

/* Workers have run out of work: chunks that still run are worth a look. */
static bool map_wants_look(void *arg)
{
	struct map *map = arg;

	return map_is_over(map) || (is_starved(map) && !map->looked);
}

static void report_progress(struct map *map)
{
	uint64_t ended = map->ended;

	if (!map->opts.progress)
		return;
	ac__pool_unlock(map->pool);
	map->opts.progress(map->opts.progress_arg, ended, map->count);
	ac__pool_lock(map->pool);
}

/* Starved, it looks once a millisecond until chunks have no rest left. */
static int wait_for_map(struct map *map)
{
	for (;;) {
		bool look = is_starved(map) && !map->looked;
		int64_t nap = look ? STARVED_NS :
			      map->opts.progress ? PROGRESS_NS : -1;
		int r = ac__wait(map->pool, look ? map_is_over : map_wants_look,
				 map, ac__sys_deadline(nap));
		bool over;

		/* It may end while the callback runs: then that is reported too. */
		over = map_is_over(map);
		report_progress(map);
		if (over)
			return 0;
		if (r == -EINTR)
			return r;
		if (look && r == -ETIMEDOUT)
			map->looked = !take_back(map);
	}
}

/* ---- the call ---- */

static int check_sizes(size_t item_size, size_t result_size, size_t count)
{
	size_t bytes;

	if (item_size > UINT32_MAX || result_size > UINT32_MAX)
		return -EINVAL;
	if (__builtin_mul_overflow(count, item_size, &bytes) ||
	    __builtin_mul_overflow(count, result_size, &bytes) ||
	    bytes > PTRDIFF_MAX || count * item_size > PTRDIFF_MAX)
		return -EOVERFLOW;
	return 0;
}

static int check_opts(const struct ac_map_opts *opts)
{
	if ((opts->bound_size && !opts->bound) || opts->flags & ~AC_MAP_STOP)
		return -EINVAL;
	return 0;
}

static int run_map(struct map *map)
{
	struct ac_pool *pool = map->pool;
	int r = ac__pool_accepts(pool);

	if (r < 0)
		return r;
	if (map->opts.bound_size) {
		map->bound = ac__bound_make(pool, map->opts.bound,
					    map->opts.bound_size);
		if (!map->bound)
			return -ENOMEM;
	}
	pool->submitted += map->count;
	map->queued = true;
	ac__books_enqueue(pool, &map->job);
	r = wait_for_map(map);
	if (r < 0) {
		stop_map(map);
		while (wait_for_map(map) < 0)
			;
	}
	if (map->error) {
		cancel_unpublished(map, &stopped);
		r = map->error;
	}
	ac__bound_leave(pool, map->bound);
	return r;
}

int ac_pool_map(struct ac_pool *pool, ac_map_fn *fn, const struct ac_map_opts *user,
		const void *items, size_t item_size, void *results,
		size_t result_size, size_t count)
{
	struct map map = { .job.ops = &map_ops,
			   .pool = pool,
			   .fn = fn,
			   .items = items,
			   .results = results,
			   .item_size = item_size,
			   .result_size = result_size,
			   .count = count,
			   .item_ns = -1 };
	int r;

	if (!pool || !fn || (count && ((item_size && !items) ||
				       (result_size && !results))))
		return -EINVAL;
	r = ac__opts_copy(&map.opts, sizeof map.opts, user);
	if (r == 0)
		r = check_opts(&map.opts);
	if (r == 0)
		r = check_sizes(item_size, result_size, count);
	if (r < 0)
		return r;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	ac__pool_lock(pool);
	r = count ? run_map(&map) : ac__pool_accepts(pool);
	ac__pool_unlock(pool);
	free(map.back.items);
	free(map.lost.items);
	if (map.opts.failure && map.failure.status)
		*map.opts.failure = map.failure;
	return r < 0 ? r : map.failure.status;
}

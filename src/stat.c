/* SPDX-License-Identifier: MIT */
/* What the workers do, read from their rows without disturbing them. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- workers ---- */

static int state_of(struct ac_pool *pool, unsigned seat)
{
	const struct ac__seat_shm *row = &ac__pool_arena(pool)->seats[seat];

	if (!ac__workers_is_present(&pool->workers, seat))
		return AC_WORKER_ABSENT;
	if (ac__seat_state(ac__pool_arena(pool), seat) != AC__SEAT_READY)
		return AC_WORKER_STARTING;
	return atomic_load(&row->busy_since) ? AC_WORKER_BUSY : AC_WORKER_IDLE;
}

static int64_t busy_of(const struct ac__seat_shm *row)
{
	int64_t since = atomic_load(&row->busy_since);
	int64_t busy = atomic_load(&row->busy_ns);
	int64_t now = ac__sys_now();

	return since > 0 && since < now ? busy + now - since : busy;
}

/* What a worker says of itself. The same bytes hold the words of a refusal, which are left out. */
static void copy_text(struct ac_pool *pool, unsigned seat, struct ac_worker_stat *stat)
{
	if (stat->state == AC_WORKER_ABSENT ||
	    ac__seat_state(ac__pool_arena(pool), seat) == AC__SEAT_REFUSED)
		return;
	memcpy(stat->text, ac__pool_arena(pool)->seats[seat].text, sizeof stat->text);
	stat->text[sizeof stat->text - 1] = '\0';
}

static void fill_worker(struct ac_pool *pool, unsigned seat, struct ac_worker_stat *stat)
{
	const struct ac__seat_shm *row = &ac__pool_arena(pool)->seats[seat];

	memset(stat, 0, sizeof *stat);
	stat->state = state_of(pool, seat);
	stat->pid = stat->state == AC_WORKER_ABSENT ? 0 : atomic_load(&row->pid);
	stat->task = ac__seat_task(ac__pool_arena(pool), seat, &stat->task_ns);
	stat->tasks = atomic_load(&row->tasks);
	stat->busy_ns = busy_of(row);
	stat->starts = pool->workers.records[seat].starts;
	memcpy(stat->name, row->name, sizeof stat->name);
	stat->name[sizeof stat->name - 1] = '\0';
	copy_text(pool, seat, stat);
}

int ac_pool_workers(struct ac_pool *pool, struct ac_worker_stat *stats, unsigned n)
{
	if (!pool || (n && !stats))
		return -EINVAL;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	ac__engine_poll(pool); /* for the processes that have ended meanwhile */
	ac__engine_changed(pool);
	for (unsigned i = 0; i < n && i < pool->workers.count; i++)
		fill_worker(pool, i + 1, &stats[i]);
	ac__pool_unlock(pool);
	return (int)pool->workers.count;
}

/* ---- the pool ---- */

/* Items of chunks that a worker has count as running until the chunk is collected. */
static uint64_t count_running(struct ac_pool *pool)
{
	uint64_t n = 0;

	for (uint32_t slot = 0; slot < pool->board.task_count; slot++) {
		const struct ac__slot *mine = &pool->slots.slots[slot];
		uint64_t word;

		if (mine->state != AC__SLOT_PUBLISHED || !mine->job)
			continue;
		word = atomic_load(&pool->board.tasks[slot].word);
		if (ac__word_state(word) != AC__TASK_READY)
			n += pool->board.tasks[slot].kind == AC__KIND_CHUNK ?
				     mine->end :
				     1;
	}
	return n;
}

static void fill_stat(struct ac_pool *pool, struct ac_pool_stat *stat)
{
	const struct ac__tally *tally = &pool->slots.tally;
	uint64_t open = tally->submitted - tally->done - tally->failed - tally->cancelled;

	stat->submitted = tally->submitted;
	stat->done = tally->done;
	stat->failed = tally->failed;
	stat->cancelled = tally->cancelled;
	stat->deaths = pool->deaths;
	stat->running = AC__MIN(count_running(pool), open);
	stat->waiting = open - stat->running;
	stat->bytes = ac__block_bytes(ac__pool_arena(pool));
	if (pool->workers.plan.pids)
		stat->template_threads =
			(uint64_t)atomic_load(&pool->workers.plan.pids[AC__OWNER_SEAT]);
}

int ac_pool_stat(struct ac_pool *pool, struct ac_pool_stat *out, size_t stat_size)
{
	struct ac_pool_stat stat;

	if (!pool || !out || !stat_size || stat_size > AC__STRUCT_MOST)
		return -EINVAL;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	ac__engine_poll(pool);
	ac__engine_changed(pool);
	fill_stat(pool, &stat);
	ac__pool_unlock(pool);
	memset(out, 0, stat_size);
	memcpy(out, &stat, AC__MIN(stat_size, sizeof stat));
	return 0;
}

/* ---- the trace ---- */

static struct ac_trace_event read_event(const struct ac__board *board, unsigned seat, uint64_t n)
{
	const struct ac__event_shm *event = ac__trace_event(board, seat, n);

	return (struct ac_trace_event){
		.worker = seat - 1,
		.task = atomic_load_explicit(&event->number, memory_order_acquire),
		.items = atomic_load_explicit(&event->items, memory_order_acquire),
		.start_ns = atomic_load_explicit(&event->start_ns, memory_order_acquire),
		.end_ns = atomic_load_explicit(&event->end_ns, memory_order_acquire),
	};
}

/* Whole events only: see struct ac__event_shm. */
static size_t copy_events(struct ac_pool *pool, unsigned seat,
			  struct ac_trace_event *events)
{
	const struct ac__board *board = &pool->board;
	_Atomic uint64_t *count = &ac__pool_arena(pool)->seats[seat].events;
	uint64_t written = atomic_load_explicit(count, memory_order_acquire);
	uint64_t kept = AC__MIN(written, board->trace_count);
	size_t copied = 0;

	for (uint64_t n = written - kept; n < written; n++) {
		events[copied] = read_event(board, seat, n);
		if (atomic_load_explicit(count, memory_order_acquire) - n <
		    ac__trace_entries(board->trace_count))
			copied++;
	}
	return copied;
}

static int later_first(const void *a, const void *b)
{
	int64_t x = ((const struct ac_trace_event *)a)->end_ns;
	int64_t y = ((const struct ac_trace_event *)b)->end_ns;

	return (x < y) - (x > y);
}

static int by_worker_and_time(const void *a, const void *b)
{
	const struct ac_trace_event *x = a, *y = b;

	if (x->worker != y->worker)
		return x->worker < y->worker ? -1 : 1;
	return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

/* Into the caller's array, whose events may be of another version of the header. */
static void hand_out(char *to, size_t event_size, const struct ac_trace_event *events, size_t n)
{
	size_t known = AC__MIN(event_size, sizeof *events);

	memset(to, 0, n * event_size);
	for (size_t i = 0; i < n; i++)
		memcpy(to + i * event_size, &events[i], known);
}

int ac_pool_trace(struct ac_pool *pool, struct ac_trace_event *events, size_t event_size,
		  unsigned n)
{
	struct ac_trace_event *all;
	size_t most, copied = 0;

	if (!pool || (n && !events) || !event_size || event_size > AC__STRUCT_MOST)
		return -EINVAL;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	most = (size_t)pool->workers.count * pool->board.trace_count;
	if (!most || !n)
		return 0;
	all = ac__sys_calloc(most, sizeof *all);
	if (!all)
		return -ENOMEM;
	for (unsigned seat = 1; seat <= pool->workers.count; seat++)
		copied += copy_events(pool, seat, all + copied);
	if (copied > n) {
		qsort(all, copied, sizeof *all, later_first);
		copied = n;
	}
	qsort(all, copied, sizeof *all, by_worker_and_time);
	hand_out((char *)events, event_size, all, copied);
	free(all);
	return (int)copied;
}

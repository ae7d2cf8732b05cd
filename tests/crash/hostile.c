/* SPDX-License-Identifier: MIT */
/*
 * A worker that runs wild: a task writes random and cunning values over the
 * shared region (task words, ring, done list, blocks, seats) while the owner
 * hands in work, waits with limits and closes. It may get wrong bytes, since payloads
 * can be spoilt, and errors; but it never crashes, waits are kept to their limits, and
 * close comes to an end and leaves nothing.
 *
 *	crash_hostile [SECONDS] [NAME...]	so long in each case
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash.h"
#include "engine.h"
#include "worker.h"

#define WORKERS 3
#define CALLS 80
#define ITEMS 1500
#define CLOSE_WITHIN (20 * SECOND)

static int64_t duration = SECOND / 5; /* of each case */

/* ---- what is written ---- */

struct target {
	struct ac__board *board;
	struct ac__arena *arena;
	uint64_t seed;
	unsigned seat;
};

static uint64_t random_of(struct target *target)
{
	return crash_random(&target->seed);
}

/* Small, large, all ones, a power of two: what boundaries are made of. */
static uint64_t cunning(struct target *target)
{
	uint64_t n = random_of(target);

	switch (n >> 8 & 7) {
	case 0: return n >> 62;
	case 1: return n >> 52;
	case 2: return UINT64_C(1) << (n >> 58);
	case 3: return (UINT64_C(1) << (n >> 58)) - 1;
	case 4: return UINT64_MAX - (n >> 60);
	case 5: return n >> 32;
	default: return n;
	}
}

static struct ac__task_shm *some_task(struct target *target)
{
	/* Mostly those in use: slots are handed out from the low end. */
	uint32_t most = random_of(target) % 4 ? 16 : target->board->task_count;

	return &target->board->tasks[random_of(target) % most];
}

static void write_bytes(struct target *target)
{
	char *start = (char *)target->arena->shm;
	uint64_t size = target->arena->region.base;

	memset(start + random_of(target) % (size - 8), (int)random_of(target),
	       1 + random_of(target) % 8);
}

/* Another state, another holder, another generation, or another task's word. */
static void write_task_word(struct target *target)
{
	struct ac__task_shm *task = some_task(target);
	uint64_t word = atomic_load(&task->word), n = random_of(target);
	uint64_t gen = ac__word_gen(word);
	uint32_t holder = ac__word_holder(word);
	unsigned state = ac__word_state(word);

	switch (n >> 32 & 3) {
	case 0: state = n % 6; break;
	case 1: holder = (uint32_t)(n % (WORKERS + 2)); break;
	case 2: gen += n % 3 - 1; break;
	default: word = atomic_load(&some_task(target)->word);
	}
	if ((n >> 32 & 3) < 3)
		word = ac__word_make(state, holder, gen);
	atomic_store(&task->word, word);
}

static void write_ring(struct target *target)
{
	struct ac__board_shm *shm = target->board->shm;
	uint64_t n = random_of(target);
	uint64_t near = atomic_load(&shm->tail) + n % 5000 - 2500;

	switch (n >> 32 & 3) {
	case 0: atomic_store(&shm->head, n & 1 ? near : cunning(target)); break;
	case 1: atomic_store(&shm->tail, n & 1 ? near : cunning(target)); break;
	case 2:
		target->board->ring[near & target->board->ring_mask] = cunning(target);
		break;
	default: /* the same entry everywhere */
		for (uint32_t i = 0; i <= target->board->ring_mask; i++)
			target->board->ring[i] = target->board->ring[near & target->board->ring_mask];
	}
}

/* Lost, forged, or in a circle. */
static void write_done_list(struct target *target)
{
	struct ac__task_shm *task = some_task(target);
	uint32_t index = (uint32_t)(task - target->board->tasks);
	uint64_t n = random_of(target);

	switch (n >> 32 & 3) {
	case 0: atomic_store(&target->board->shm->done, 0); break;
	case 1: atomic_store(&target->board->shm->done, (uint32_t)cunning(target)); break;
	case 2: atomic_store(&target->board->shm->done, index + 1); break;
	default: atomic_store(&target->board->links[index], n & 1 ? index + 1 : (uint32_t)cunning(target));
	}
}

static void write_task(struct target *target)
{
	struct ac__task_shm *task = some_task(target);
	uint64_t value = cunning(target);

	switch (random_of(target) % 12) {
	case 0: task->len = value; break;
	case 1: task->result_block = (uint32_t)value; break;
	case 2: task->status = (int32_t)value; break;
	case 3: task->value = (int32_t)value; break;
	case 4: atomic_store(&task->current, (uint32_t)value); break;
	case 5: atomic_store(&task->cursor, value); break;
	case 6: task->elapsed_ns = (int64_t)value; break;
	case 7: atomic_store(&task->started_ns, (int64_t)value); break;
	case 8: task->kind = (uint8_t)value; break;
	case 9: task->arg_block = (uint32_t)value; break;
	case 10: task->flags = (uint8_t)value; break;
	default: task->results_at = (uint32_t)value;
	}
}

static void write_block(struct target *target)
{
	struct ac__blocks_shm *hints = &target->arena->shm->hints;
	struct ac__block_shm *row =
		&target->arena->blocks[random_of(target) % 64];
	uint64_t value = cunning(target);

	switch (random_of(target) % 9) {
	case 0: row->offset = value; break;
	case 1: row->offset = target->arena->region.base - 4096; break;
	case 2: row->order = (uint16_t)(value % 48); break;
	case 3: row->order = (uint16_t)value; break;
	case 4: atomic_store(&row->next, (uint32_t)(row - target->arena->blocks) + 1); break;
	case 5:
		atomic_store(&row->word,
			     ac__word_make(value % 6, (uint32_t)(value >> 8) % 5,
					   ac__word_gen(atomic_load(&row->word))));
		break;
	case 6: atomic_store(&hints->free[12 + value % 12], random_of(target) % 70); break;
	case 7: atomic_store(&hints->top, value); break;
	default: atomic_store(&hints->used, (uint32_t)value);
	}
}

static void write_seat(struct target *target)
{
	struct ac__seat_shm *row =
		&target->arena->seats[random_of(target) % (WORKERS + 1)];
	uint64_t value = cunning(target);

	switch (random_of(target) % 7) {
	case 0:
		atomic_store(&row->word, ac__word_make(value % 6, target->seat,
						       value >> 8 & 3));
		break;
	case 1: atomic_store(&row->bell.state, (uint32_t)(value & 3)); break;
	case 2: atomic_store(&row->task, value); break;
	case 3: atomic_store(&row->busy_since, (int64_t)value); break;
	case 4: atomic_store(&row->lease[value % AC__LEASES], value); break;
	case 5: atomic_store(&row->events, value); break;
	default: memset(row->text, 'x', sizeof row->text);
	}
}

static void write_board(struct target *target)
{
	struct ac__board_shm *shm = target->board->shm;
	uint64_t value = cunning(target);

	switch (random_of(target) % 8) {
	case 0: shm->spin_ns = (uint32_t)value; break;
	case 1: shm->recycle = (uint32_t)value; break;
	case 2: atomic_store(&shm->ring_below, (uint32_t)value); break;
	case 3: atomic_store(&shm->spinner, (uint32_t)value); break;
	case 4: atomic_store(&shm->idle[0], value); break;
	case 5: atomic_store(&shm->owner_bell.state, (uint32_t)(value & 3)); break;
	case 6: shm->tasks = shm->ring = (uint32_t)value; break;
	default: target->arena->shm->memory = value;
	}
}

static void write_any(struct target *target);

typedef void write_fn(struct target *target);

static write_fn *const writers[] = {
	write_bytes, write_task_word, write_ring, write_done_list, write_task,
	write_block, write_seat, write_board, write_any,
};

#define WRITERS (sizeof writers / sizeof *writers)

static void write_any(struct target *target)
{
	writers[random_of(target) % (WORKERS + 5)](target);
}

/* ---- in the workers ---- */

struct order {
	uint64_t seed;
	unsigned writer;
	unsigned writes;
};

static int scribble(struct ac_call *call)
{
	const struct order order = *(const struct order *)ac_call_arg(call, NULL);
	struct target target = { .board = &call->worker->board,
				 .arena = call->worker->board.arena,
				 .seed = order.seed,
				 .seat = call->worker->seat };

	for (unsigned i = 0; i < order.writes; i++) {
		writers[order.writer](&target);
		crash_burn((int64_t)(random_of(&target) % 200000));
	}
	return 0;
}

static int echo_call(struct ac_call *call)
{
	size_t len;
	const void *arg = ac_call_arg(call, &len);

	crash_burn(20000);
	return ac_call_return(call, arg, len);
}

static int echo_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	crash_burn(20000);
	memcpy(result, item, 8);
	return 0;
}

/* ---- the owner ---- */

static bool is_code(int r)
{
	return r < 0 && (r > -4096 || (r <= AC_ETASK && r >= AC_EVERSION));
}

/* Whatever it says, it can be read. */
static void read_task(struct ac_task *task)
{
	struct ac_outcome outcome;
	const volatile unsigned char *bytes;
	const void *data;
	size_t len;

	if (ac_task_outcome(task, &outcome) < 0 ||
	    ac_task_result(task, &data, &len) < 0)
		return;
	bytes = data;
	/* A forged length may be huge, and its pages all be there to read. */
	for (size_t i = 0; i < len && i < 1 << 20; i += 4096)
		(void)bytes[i];
	if (len)
		(void)bytes[len - 1];
}

static void wait_within(struct ac_task *task, int64_t ns)
{
	int64_t start = crash_now(), took;
	int r = ac_task_wait(task, ns);

	took = crash_now() - start;
	CHECK(r == 0 || r == -ETIMEDOUT);
	if (took > ns + 3 * SECOND)
		crash_fail(__FILE__, __LINE__, "a wait of %lld ms took %lld ms",
			   (long long)(ns / MS), (long long)(took / MS));
}

static void look_at_pool(struct ac_pool *pool)
{
	static struct ac_trace_event events[256];
	struct ac_worker_stat stats[WORKERS];
	struct ac_pool_stat stat;

	CHECK_EQ(ac_pool_workers(pool, stats, WORKERS), WORKERS);
	CHECK_EQ(ac_pool_stat(pool, &stat, sizeof stat), 0);
	CHECK_EQ(stat.submitted, stat.waiting + stat.running + stat.done +
					 stat.failed + stat.cancelled);
	CHECK(ac_pool_trace(pool, events, sizeof(struct ac_trace_event), 256) >= 0);
}

static void work_with_calls(struct ac_pool *pool, struct order *order)
{
	static const size_t sizes[] = { 0, 8, 144, 1000, 5000, 70000, 300000 };
	static unsigned char bytes[300000];
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .timeout_ns = 5 * SECOND };
	struct ac_task *tasks[CALLS];
	unsigned n;
	int r = 0;

	for (n = 0; n < CALLS && r == 0; n++) {
		if (n % 20 == 10)
			r = ac_pool_submit(pool, &tasks[n], scribble, order,
					   sizeof *order, NULL);
		else
			r = ac_pool_submit(pool, &tasks[n], echo_call, bytes,
					   sizes[n % 7], n % 3 ? NULL : &opts);
		order->seed++;
	}
	CHECK(r == 0 || is_code(r));
	n -= r != 0;
	for (unsigned i = 0; i < n; i++) {
		wait_within(tasks[i], i ? 10 * MS : 300 * MS);
		read_task(tasks[i]);
		if (i % 8 == 0)
			ac_task_cancel(tasks[i], i % 16 == 0);
		look_at_pool(pool);
		ac_task_free(tasks[i]);
	}
}

static void work_with_map(struct ac_pool *pool, struct order *order)
{
	static uint64_t items[ITEMS], results[ITEMS];
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = items,
				    .bound_size = 1000 };
	int r;

	for (unsigned i = 0; i < 2; i++) {
		ac_pool_submit(pool, NULL, scribble, order, sizeof *order, NULL);
		order->seed++;
	}
	r = ac_pool_map(pool, echo_item, &opts, items, sizeof *items, results,
			sizeof *results, ITEMS);
	CHECK(r == 0 || is_code(r));
}

static void round_of(struct order *order, bool map)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .ready_ns = 2 * SECOND,
				     .trace = 64 };
	struct ac_pool *pool;
	int64_t start;

	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	(map ? work_with_map : work_with_calls)(pool, order);
	look_at_pool(pool);
	crash_at("close, %s, writer %u, seed %#llx", map ? "map" : "calls",
		 order->writer, (unsigned long long)order->seed);
	start = crash_now();
	CHECK_EQ(ac_pool_close(pool), 0);
	if (crash_now() - start > CLOSE_WITHIN)
		crash_fail(__FILE__, __LINE__, "close took %lld ms",
			   (long long)((crash_now() - start) / MS));
}

struct wild {
	write_fn *writer;
	bool map;
};

static void run_wild(void *arg)
{
	const struct wild *wild = arg;
	struct order order = { .seed = crash_seed, .writes = 30 };
	int64_t end = crash_now() + duration;
	struct crash_print before;
	unsigned rounds = 0;

	while (writers[order.writer] != wild->writer)
		order.writer++;
	crash_print_take(&before);
	do {
		crash_at("%s, writer %u, seed %#llx", wild->map ? "map" : "calls",
			 order.writer, (unsigned long long)order.seed);
		round_of(&order, wild->map);
		crash_print_check(&before);
		rounds++;
	} while (crash_now() < end);
	crash_note("%u rounds", rounds);
}

/* ---- single lies ---- */

static int lie_block(struct ac_call *call)
{
	call->result.id = 60000;
	call->result_len = 1000;
	return 0;
}

static int lie_status(struct ac_call *call)
{
	call->task->status = 12345;
	return 0;
}

/* In a map: the block of its items and results is said to be one page at the region's end. */
static int lie_chunk(const void *item, void *result, const void *bound)
{
	struct ac_call *call = ac_call_current();
	struct ac__arena *arena = call->worker->board.arena;
	struct ac__block_shm *row;

	(void)result;
	(void)bound;
	if (call->task->arg_block && *(const uint32_t *)item == 90) {
		row = &arena->blocks[call->task->arg_block - 1];
		row->order = 12;
		row->offset = (arena->region.base << 30) - 4096;
	}
	return 0;
}

/* In a map: the block is nobody's any more. */
static int lie_holder(const void *item, void *result, const void *bound)
{
	struct ac_call *call = ac_call_current();

	(void)item;
	(void)result;
	(void)bound;
	if (call->task->arg_block)
		atomic_store(&call->worker->board.arena
				      ->blocks[call->task->arg_block - 1].word, 0);
	return 0;
}

static int honest(struct ac_call *call)
{
	return ac_call_return(call, "x", 1);
}

static void close_after_lie(struct ac_pool *pool, struct crash_print *before)
{
	struct ac_pool_stat stat;

	crash_check_sum(pool, &stat);
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(before);
}

static void tell_lie(void *fn)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2 };
	struct crash_print before;
	struct ac_task *tasks[20];
	struct ac_outcome outcome;
	struct ac_pool *pool;

	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	for (unsigned i = 0; i < 20; i++) {
		int r = ac_pool_submit(pool, &tasks[i],
				       i ? honest : (ac_call_fn *)fn, NULL, 0,
				       NULL);

		/* A fast liar may be found out before all are handed in. */
		CHECK(r == 0 || (i && r == AC_EBROKEN));
		if (r)
			tasks[i] = NULL;
	}
	for (unsigned i = 0; i < 20; i++) {
		if (!tasks[i])
			continue;
		CHECK_EQ(ac_task_wait(tasks[i], 3 * SECOND), 0);
		CHECK_EQ(ac_task_outcome(tasks[i], &outcome), 0);
		CHECK(i ? !outcome.status || outcome.status == AC_EBROKEN :
			  outcome.status == AC_EBROKEN);
		ac_task_free(tasks[i]);
	}
	close_after_lie(pool, &before);
}

static void tell_lie_in_map(void *fn)
{
	static uint32_t items[100];
	static char results[100][4000];
	struct ac_map_opts map = { .size = sizeof map, .chunk = 100 };
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2 };
	struct crash_print before;
	struct ac_pool *pool;
	int r;

	for (uint32_t i = 0; i < 100; i++)
		items[i] = i;
	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	r = ac_pool_map(pool, (ac_map_fn *)fn, &map, items, sizeof *items,
			results, sizeof *results, 100);
	CHECK_EQ(r, AC_EBROKEN);
	close_after_lie(pool, &before);
}

int main(int argc, char **argv)
{
	static const char *const names[WRITERS] = {
		"bytes", "task words", "the ring", "the done list", "tasks",
		"blocks", "seats", "the board", "anything",
	};
	int number = argc > 1 ? atoi(argv[1]) : 0;
	struct wild wild;
	char name[64];

	if (number > 0)
		duration = number * SECOND;
	crash_begin(argc - (number > 0), argv + (number > 0));
	crash_case("a result in no block", tell_lie, (void *)lie_block, 15);
	crash_case("an unknown status", tell_lie, (void *)lie_status, 15);
	crash_case("a chunk's block elsewhere", tell_lie_in_map,
		   (void *)lie_chunk, 15);
	crash_case("a chunk's block lost", tell_lie_in_map, (void *)lie_holder, 15);
	for (unsigned i = 0; i < 2 * WRITERS; i++) {
		wild = (struct wild){ writers[i / 2], i % 2 };
		snprintf(name, sizeof name, "writes over %s, %s", names[i / 2],
			 wild.map ? "map" : "calls");
		crash_case(name, run_wild, &wild,
			   (unsigned)(duration / SECOND) + 25);
	}
	return crash_end();
}

/* SPDX-License-Identifier: MIT */
/* Clock, sleep, workers and spoilers of the owner that is fuzzed: see the header. */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "wraps.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, len) ((void)(address), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(address, len) ((void)(address), (void)(len))
#endif

/* One call of the owner that sleeps more often than this hangs: each sleep is a step of
 * somebody's, or up to a second. */
#define SLEEPS_MOST 20000

struct worker {
	int fd;			/* -1: no process */
	bool seated, asleep, woken;
	int64_t task;		/* -1: none */
};

static struct {
	const uint8_t *data;
	size_t size, at;
	int64_t now;
	struct ac_pool *pool;
	struct ac__arena *arena;
	struct ac__board view;	/* the workers' */
	void *guarded;		/* segment 0, its unused end poisoned */
	struct worker workers[WORKERS + 1];
	const char *call;	/* the owner's, NULL: it is in none */
	unsigned sleeps;
	bool spoilt;
	/* Writes to come: at a load, at a step. 0: none. */
	uint32_t load_in, step_in;
	uint8_t load_value;
	struct record at_step;
} world;

void world_fail(const char *why)
{
	fprintf(stderr, "fuzz: %s (in %s, record %zu)\n", why,
		world.call ? world.call : "no call", world.at / 4);
	abort();
}

bool world_is_spoilt(void)
{
	return world.spoilt;
}

/* What boundaries are made of. */
uint64_t world_value(uint8_t code)
{
	unsigned n = code & 63;

	switch (code >> 6) {
	case 0: return n;
	case 1: return UINT64_C(1) << n;
	case 2: return (UINT64_C(1) << n) - 1;
	}
	if (n < 16)
		return ~(uint64_t)n;
	switch (n & 15) {
	case 0: return world.arena->region.base;
	case 1: return world.arena->region.limit;
	case 2: return world.arena->region.limit - 4096;
	case 3: return world.arena->region.base << 30;
	case 4: return (world.arena->region.base << 30) - 4096;
	case 5: return (uint64_t)world.now;
	case 6: return (uint64_t)world.now - SECOND;
	case 7: return (UINT64_C(5) << 32) | 2;
	case 8: return (UINT64_C(2) << 32) | 5;
	case 9: return BLOCKS_MOST + 1;
	case 10: return SLOTS + 1;
	case 11: return 0x101010101010101;
	default: return (uint64_t)(int64_t)-20000 - (n & 15);
	}
}

/* ---- honest workers ---- */

static struct ac__seat_shm *row_of(unsigned seat)
{
	return &world.arena->seats[seat];
}

static void die(unsigned seat)
{
	struct worker *worker = &world.workers[seat];

	if (worker->fd >= 0)
		close(worker->fd);
	*worker = (struct worker){ .fd = -1, .task = -1 };
}

static void sit_down(unsigned seat, unsigned how)
{
	struct worker *worker = &world.workers[seat];

	if (worker->seated)
		return;
	if (ac__seat_take(world.arena, seat, 1000 + (pid_t)seat) < 0) {
		die(seat);
		return;
	}
	worker->seated = true;
	if (how == 1)
		memset(row_of(seat)->text, 'r', sizeof row_of(seat)->text);
	if (how != 2)
		ac__seat_say(world.arena, seat, how == 1 ? AC__SEAT_REFUSED : AC__SEAT_READY);
}

static bool take(unsigned seat)
{
	struct worker *worker = &world.workers[seat];

	worker->task = ac__ring_take(&world.view, seat);
	if (worker->task < 0)
		return false;
	ac__ring_hand_on(&world.view);
	atomic_store(&row_of(seat)->busy_since, world.now);
	atomic_store(&row_of(seat)->task, world.view.tasks[worker->task].number);
	atomic_store(&world.view.tasks[worker->task].started_ns, world.now);
	return true;
}

static void claim(unsigned seat, uint32_t n)
{
	struct ac__task_shm *task = &world.view.tasks[world.workers[seat].task];
	uint64_t seen = atomic_load(&task->cursor);
	uint32_t next = (uint32_t)seen, end = seen >> 32;

	if (next >= end)
		return;
	n = AC__MIN(n, end - next);
	atomic_compare_exchange_strong(&task->cursor, &seen,
				       (uint64_t)end << 32 | (next + n));
	atomic_store(&task->current, next + n);
	task->elapsed_ns += 1000;
}

static void note_event(unsigned seat, uint64_t number)
{
	uint64_t n = atomic_load(&row_of(seat)->events);
	struct ac__event_shm *event;

	if (!world.view.trace_count)
		return;
	event = ac__trace_event(&world.view, seat, n);
	atomic_store(&event->number, number);
	atomic_store(&event->start_ns, world.now - MS);
	atomic_store(&event->end_ns, world.now);
	atomic_store(&row_of(seat)->events, n + 1);
}

static void hand_back(unsigned seat)
{
	struct worker *worker = &world.workers[seat];
	uint32_t index = (uint32_t)worker->task;
	int r;

	note_event(seat, world.view.tasks[index].number);
	r = ac__done_push(&world.view, seat, index);
	atomic_store(&row_of(seat)->task, 0);
	atomic_store(&row_of(seat)->busy_since, 0);
	worker->task = -1;
	if (r > 0 && world.pool)
		ac__fd_ring(&world.pool->sleep.bell[1]);
	if (r < 0)
		die(seat);
}

static void result_in_block(unsigned seat, uint64_t size)
{
	uint32_t index = (uint32_t)world.workers[seat].task;
	struct ac__task_shm *task = &world.view.tasks[index];
	struct ac__block block;

	if (ac__block_take(world.arena, seat, size, &block) < 0) {
		task->status = -ENOMEM;
		return;
	}
	task->len = size;
	task->result_block = block.id;
	task->flags |= AC__TASK_RESULT_BLOCK;
	ac__block_pass(world.arena, block.id, seat, AC__HOLDER_TASK | index);
}

/* 0: as it should be; others: results of all kinds, true and false. */
static void finish(unsigned seat, unsigned how, uint8_t size)
{
	struct ac__task_shm *task = &world.view.tasks[world.workers[seat].task];
	bool chunk = task->kind == AC__KIND_CHUNK;

	if (how < 3)
		claim(seat, UINT32_MAX);
	switch (how) {
	case 0:
		if (!chunk)
			task->len = 8;
		break;
	case 1:
		if (!chunk)
			result_in_block(seat, UINT64_C(1) << (size % 20));
		break;
	case 2:
		if (!chunk)
			result_in_block(seat, (uint64_t)size << 12);
		break;
	case 3:
	case 4: /* items that were not done, a failure */
		task->status = AC_ETASK;
		task->value = size;
		memset(task->text, 'f', sizeof task->text);
		break;
	default:
		world.spoilt = true;
		task->len = world_value(size);
		task->result_block = size % (BLOCKS_MOST + 2);
		task->flags = (uint8_t)how;
	}
	hand_back(seat);
}

static void go_to_sleep(unsigned seat)
{
	struct worker *worker = &world.workers[seat];

	if (!ac__idle_enter(&world.view, seat))
		return;
	/* As the futex has it: sleep only while the word says so. */
	if (atomic_load(&row_of(seat)->bell.state) == AC__BELL_ASLEEP) {
		worker->asleep = true;
		worker->woken = false;
	} else {
		ac__idle_leave(&world.view, seat);
	}
}

static void wake_up(unsigned seat)
{
	world.workers[seat].asleep = false;
	ac__idle_leave(&world.view, seat);
}

static bool look_for_work(unsigned seat)
{
	bool closing = atomic_load(&world.view.shm->closing);

	if (take(seat)) {
		/* At once, or the owner takes it back for ever. */
		claim(seat, 1);
		return true;
	}
	if (closing)
		die(seat);
	else
		go_to_sleep(seat);
	return true;
}

/* The kernel's part comes first: who is doomed is killed. False: it sleeps. */
static bool step_honestly(unsigned seat)
{
	struct worker *worker = &world.workers[seat];

	if (worker->fd < 0)
		return false;
	if (world.pool && world.pool->workers.records &&
	    world.pool->workers.records[seat].killed)
		die(seat);
	else if (!worker->seated)
		sit_down(seat, 0);
	else if (worker->asleep && !worker->woken)
		return false;
	else if (worker->asleep)
		wake_up(seat);
	else if (worker->task >= 0)
		finish(seat, 0, 0);
	else
		return look_for_work(seat);
	return true;
}

static bool step_all(void)
{
	bool any = false;

	for (unsigned seat = 1; seat <= WORKERS; seat++)
		any |= step_honestly(seat);
	return any;
}

/* ---- records ---- */

static bool peek(struct record *record)
{
	if (world.size - world.at < sizeof *record)
		return false;
	memcpy(record, world.data + world.at, sizeof *record);
	if (record->what >= WORLD_FIRST)
		record->what = WORLD_FIRST + (record->what - WORLD_FIRST) %
						     (WORLD_OPS - WORLD_FIRST);
	return true;
}

static void act(const struct record *r)
{
	unsigned seat = 1 + r->a % WORKERS;
	struct worker *worker = &world.workers[seat];

	if (worker->fd < 0 || !worker->seated) {
		if (worker->fd >= 0 && (r->what == WORLD_SIT || r->what == WORLD_HONEST))
			sit_down(seat, r->what == WORLD_SIT ? r->b : 0);
		if (worker->fd >= 0 && r->what == WORLD_DIE)
			die(seat);
		return;
	}
	switch (r->what) {
	case WORLD_SIT: ac__seat_say(world.arena, seat, AC__SEAT_READY); break;
	case WORLD_DIE: die(seat); break;
	case WORLD_WAKE:
		if (worker->asleep)
			wake_up(seat);
		break;
	case WORLD_HONEST:
		for (unsigned i = 0; i <= r->b % 16u && step_honestly(seat); i++)
			;
		break;
	}
	if (worker->fd < 0 || worker->asleep)
		return;
	if (worker->task >= 0) {
		if (r->what == WORLD_CLAIM)
			claim(seat, r->b);
		else if (r->what == WORLD_FINISH)
			finish(seat, r->b % 8u, r->c);
		return;
	}
	switch (r->what) {
	case WORLD_TAKE: take(seat); break;
	case WORLD_SLEEP: go_to_sleep(seat); break;
	case WORLD_SPIN:
		if (!ac__spinner_enter(&world.view, seat))
			ac__spinner_leave(&world.view, seat);
		break;
	}
}

static void do_record(const struct record *r)
{
	switch (r->what) {
	case WORLD_TIME:
		world.now += (INT64_C(1) << (r->a % 37u));
		break;
	case WRITE_AT_LOAD:
		world.load_in = 1 + (uint32_t)r->a + (r->b & 7u) * 256;
		world.load_value = r->c;
		break;
	case WRITE_AT_STEP:
		world.step_in = 1 + r->c;
		if (peek(&world.at_step) && world.at_step.what > WORLD_RETURN &&
		    world.at_step.what < WRITE_AT_LOAD)
			world.at += sizeof world.at_step;
		else
			world.step_in = 0;
		break;
	default:
		if (r->what < WRITE_TASK) {
			act(r);
			break;
		}
		world.spoilt = true;
		spoil(r, &world.view);
	}
}

/* Do what others than the owner do now. True: something was done. */
static bool do_records(void)
{
	bool any = false;
	struct record r;

	while (peek(&r) && r.what >= WORLD_FIRST) {
		world.at += sizeof r;
		if (r.what == WORLD_RETURN)
			return true;
		do_record(&r);
		any = true;
	}
	return any;
}

bool world_next(struct record *record)
{
	while (do_records())
		;
	if (!peek(record))
		return false;
	world.at += sizeof *record;
	return true;
}

void world_be_honest(void)
{
	world.at = world.size;
	world.load_in = world.step_in = 0;
}

/* ---- between two steps of the owner's ---- */

static void note_step(void)
{
	const char *call = world.call;

	if (!world.step_in || !call || --world.step_in)
		return;
	world.call = NULL;
	do_record(&world.at_step);
	world.call = call;
}

/* ---- the life of a world ---- */

void world_begin(const uint8_t *data, size_t size)
{
	memset(&world, 0, sizeof world);
	world.data = data;
	world.size = size;
	world.now = 1000 * SECOND;
	ac__step_hook = note_step;
	for (unsigned seat = 0; seat <= WORKERS; seat++)
		world.workers[seat] = (struct worker){ .fd = -1, .task = -1 };
}

pid_t world_start(void *arg, unsigned number, int fd)
{
	(void)arg;
	die(number + 1);
	world.now += 5 * MS;
	world.workers[number + 1].fd = dup(fd);
	return 0;
}

void world_has_pool(struct ac_pool *pool)
{
	char *end = (char *)&world.view.trace[(WORKERS + 1) * ac__trace_entries(world.view.trace_count)];
	char *start = (char *)world.arena->shm;

	world.pool = pool;
	world.guarded = start;
	/* What follows the last table is nobody's. */
	ASAN_POISON_MEMORY_REGION(end, (size_t)(start + world.arena->region.base - end));
}

void world_end(void)
{
	world.pool = NULL;
	for (unsigned seat = 1; seat <= WORKERS; seat++)
		die(seat);
}

void world_enter(const char *call)
{
	world.call = call;
	world.sleeps = 0;
}

void world_leave(void)
{
	world.call = NULL;
}

/* ---- what the owner gets instead of the system ---- */

int64_t __wrap_ac__sys_now(void)
{
	return world.now += 1000;
}

int64_t __wrap_ac__sys_deadline(int64_t timeout_ns)
{
	if (timeout_ns < 0 || timeout_ns > INT64_MAX - world.now)
		return INT64_MAX;
	return world.now + timeout_ns;
}

/* Between the owner's looks, too, others act. */
void __wrap_ac__sys_yield(void)
{
	const char *call = world.call;

	world.call = NULL;
	do_records();
	world.call = call;
}

void __wrap_ac__sys_timerfd_set(int fd, int64_t deadline)
{
	(void)fd;
	(void)deadline;
}

int __wrap_ac__sys_thread(pthread_t *thread, void *(*start)(void *), void *arg)
{
	(void)thread;
	(void)start;
	(void)arg;
	return -EAGAIN;
}

int64_t __wrap_ac__cgroup_memory_free(const char *root)
{
	(void)root;
	return INT64_MAX;
}

int __wrap_ac_cpus(int leave)
{
	(void)leave;
	return 2;
}

/* The owner sleeps: whoever has something to do does it; then time passes. */
int __wrap_ac__sys_epoll_wait(int epoll, uint64_t *tags, int n, int64_t deadline)
{
	const char *call = world.call;
	bool acted;
	int r;

	if (deadline == 0)
		return __real_ac__sys_epoll_wait(epoll, tags, n, 0);
	if (++world.sleeps > SLEEPS_MOST)
		world_fail("it hangs: time passes, nothing else");
	world.call = NULL;
	acted = do_records() || step_all();
	r = __real_ac__sys_epoll_wait(epoll, tags, n, 0);
	world.call = call;
	if (acted || r != 0) {
		world.now += acted ? MS / 10 : MS;
		return r;
	}
	if (deadline == INT64_MAX)
		world_fail("it hangs: asleep with nobody to wake it");
	world.now = AC__MAX(world.now, deadline);
	return 0;
}

void __wrap_ac__sys_futex_wake(_Atomic uint32_t *word, int n)
{
	for (unsigned seat = 1; seat <= WORKERS; seat++)
		if (word == &row_of(seat)->bell.state)
			world.workers[seat].woken = true;
	__real_ac__sys_futex_wake(word, n);
}

void __wrap_ac__sys_unmap(void *address, size_t len)
{
	if (address == world.guarded)
		ASAN_UNPOISON_MEMORY_REGION(address, len);
	__real_ac__sys_unmap(address, len);
}

/* Small tables: full ones, and second rounds of the ring, come soon. */
int __wrap_ac__arena_open(struct ac__arena *arena, const struct ac__arena_plan *plan)
{
	struct ac__arena_plan small = *plan;

	small.blocks = BLOCKS_MOST;
	return __real_ac__arena_open(arena, &small);
}

void __wrap_ac__board_init(struct ac__board *board, struct ac__arena *arena,
			   const struct ac__board_plan *plan)
{
	struct ac__board_plan small = *plan;

	small.tasks = SLOTS;
	__real_ac__board_init(board, arena, &small);
	world.arena = arena;
	world.view = *board;
}

/* ---- between two loads of the owner's ---- */

static void note_load(void *address, size_t size)
{
	char *start;
	uint64_t value;

	if (!world.load_in || !world.call)
		return;
	start = (char *)world.arena->shm;
	if ((char *)address < start || (char *)address >= start + world.arena->region.base)
		return;
	if (--world.load_in)
		return;
	world.spoilt = true;
	value = world_value(world.load_value);
	memcpy(address, &value, size);
}

/* Where the compiler announces loads (clang, -fsanitize-coverage=trace-loads). */
void __sanitizer_cov_load1(void *address) { note_load(address, 1); }
void __sanitizer_cov_load2(void *address) { note_load(address, 2); }
void __sanitizer_cov_load4(void *address) { note_load(address, 4); }
void __sanitizer_cov_load8(void *address) { note_load(address, 8); }
void __sanitizer_cov_load16(void *address) { note_load(address, 8); }

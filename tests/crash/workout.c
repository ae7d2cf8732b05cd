/* SPDX-License-Identifier: MIT */
/* All that a pool can do, in small: see the header. */
#define _GNU_SOURCE
#include "workout.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ITEMS 100
#define CALLS 12
#define BYTES 9000
#define LARGE 3000000 /* more than what is mapped at first */
#define MANY 1100
#define ADOPTED_MOST 64
#define WRONG 99 /* what no call may return */
#define WAIT (10 * SECOND)
/* A start that is lost would be noticed after the first, one that was refused is tried again
 * within the second. */
#define READY_NS (7 * SECOND)
#define AGAIN_NS (4 * SECOND)

static pid_t adopted[ADOPTED_MOST];
static unsigned adopted_count;
static _Atomic unsigned *deaths; /* shared with the workers */

/* A call that a signal cut short is made again: nobody hears of that. */
bool workout_is_code(int r)
{
	return r < 0 && r != -EINTR && (r > -4096 || (r <= AC_ETASK && r >= AC_EVERSION));
}

/* ---- workers of the test's own ---- */

__attribute__((noreturn)) static void be_adopted(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;

	if (ac_worker_open(&worker, fd) < 0 || ac_worker_ready(worker, 0, NULL) < 0)
		_exit(1);
	while (ac_worker_take(worker, &call) == 1)
		ac_worker_done(worker, call, ac_call_run(call));
	ac_worker_close(worker);
	_exit(0);
}

pid_t workout_start(void *arg, unsigned number, int fd)
{
	pid_t pid;

	(void)arg;
	(void)number;
	if (adopted_count == ADOPTED_MOST)
		return -EAGAIN;
	pid = fork();
	if (pid == 0)
		be_adopted(fd);
	if (pid < 0)
		return -errno;
	adopted[adopted_count++] = pid;
	return pid;
}

void workout_reap(void)
{
	while (adopted_count) {
		while (waitpid(adopted[adopted_count - 1], NULL, 0) < 0 && errno == EINTR)
			;
		adopted_count--;
	}
}

/* ---- maps ---- */

static int add_item(const void *item, void *result, const void *bound)
{
	*(uint64_t *)result = *(const uint64_t *)item + *(const uint64_t *)bound;
	return 0;
}

int workout_map(struct ac_pool *pool)
{
	uint64_t items[ITEMS], results[ITEMS], bound[200] = { 1000 };
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = bound,
				    .bound_size = sizeof bound };
	int r;

	for (uint64_t i = 0; i < ITEMS; i++)
		items[i] = i;
	r = ac_pool_map(pool, add_item, &opts, items, sizeof *items, results,
			sizeof *results, ITEMS);
	CHECK(r == 0 || workout_is_code(r));
	for (uint64_t i = 0; r == 0 && i < ITEMS; i++)
		CHECK_EQ(results[i], i + 1000);
	return r;
}

/* The first to come to the item in the middle dies of it. */
static int die_once(const void *item, void *result, const void *bound)
{
	uint64_t n = *(const uint64_t *)item;

	(void)bound;
	if (n == ITEMS / 2 && atomic_fetch_add(deaths, 1) == 0)
		raise(SIGKILL);
	*(uint64_t *)result = n * 2;
	return 0;
}

static int run_deadly_map(struct ac_pool *pool)
{
	uint64_t items[ITEMS], results[ITEMS];
	struct ac_map_opts opts = { .size = sizeof opts,
				    .chunk = ITEMS,
				    .retries = 3 };
	int r;

	for (uint64_t i = 0; i < ITEMS; i++)
		items[i] = i;
	atomic_store(deaths, 0);
	r = ac_pool_map(pool, die_once, &opts, items, sizeof *items, results,
			sizeof *results, ITEMS);
	CHECK(r == 0 || workout_is_code(r));
	for (uint64_t i = 0; r == 0 && i < ITEMS; i++)
		CHECK_EQ(results[i], i * 2);
	return r;
}

/* ---- calls ---- */

static int flip_call(struct ac_call *call)
{
	size_t len;
	const unsigned char *from = ac_call_arg(call, &len);
	unsigned char *to = ac_call_reserve(call, len);

	if (!to)
		return ac_call_fail(call, "no memory");
	while (ac_call_next_unit(call))
		;
	for (size_t i = 0; i < len; i++)
		to[i] = from[i] ^ 0xff;
	return 0;
}

/* Fails by a value of its own where it does not find what it is bound to. */
static int read_bound_call(struct ac_call *call)
{
	size_t len;
	const unsigned char *bytes = ac_call_bound(call, &len);

	if (!bytes || len != BYTES)
		return WRONG;
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != 7)
			return WRONG;
	return flip_call(call);
}

static int endless_call(struct ac_call *call)
{
	(void)call;
	for (;;)
		crash_burn(SECOND);
	return 0;
}

static void count_callback(void *arg, struct ac_task *task)
{
	CHECK_EQ(ac_task_ready(task), 1);
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static int take_outcome(struct ac_task *task)
{
	struct ac_outcome outcome;

	CHECK_EQ(ac_task_wait(task, WAIT), 0);
	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	CHECK(outcome.status == 0 || workout_is_code(outcome.status));
	CHECK(outcome.value != WRONG);
	return outcome.status;
}

static int check_call(struct ac_task *task, unsigned char byte, size_t size)
{
	int r = take_outcome(task);
	const unsigned char *bytes;
	const void *data;
	size_t len;

	if (r)
		return r;
	CHECK_EQ(ac_task_result(task, &data, &len), 0);
	CHECK_EQ(len, size);
	bytes = data;
	for (size_t i = 0; i < size; i += size > BYTES ? 997 : 1)
		CHECK_EQ(bytes[i], byte ^ 0xff);
	return 0;
}

int workout_calls(struct ac_pool *pool)
{
	_Atomic unsigned called = 0;
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .done = count_callback,
				       .done_arg = &called,
				       .timeout_ns = 20 * SECOND };
	struct ac_task *tasks[CALLS];
	unsigned char bytes[BYTES];
	unsigned n = 0;
	int r = 0, first = 0;

	for (n = 0; n < CALLS && r == 0; n++) {
		memset(bytes, (int)n, sizeof bytes);
		r = ac_pool_submit(pool, &tasks[n], flip_call, bytes,
				   sizeof bytes, n % 2 ? &opts : NULL);
	}
	CHECK(r == 0 || workout_is_code(r));
	n -= r != 0;
	first = r;
	for (unsigned i = 0; i < n; i++) {
		r = check_call(tasks[i], (unsigned char)i, BYTES);
		first = first ? first : r;
		ac_task_free(tasks[i]);
	}
	CHECK_EQ(ac_pool_join(pool, WAIT), 0);
	CHECK_EQ(called, n / 2);
	return first;
}

/* Its bytes are mapped for it, in owner and worker, and given back. */
static int run_large_call(struct ac_pool *pool)
{
	static unsigned char bytes[LARGE];
	struct ac_task *task;
	int r;

	memset(bytes, 5, sizeof bytes);
	r = ac_pool_submit(pool, &task, flip_call, bytes, sizeof bytes, NULL);
	CHECK(r == 0 || workout_is_code(r));
	if (r)
		return r;
	r = check_call(task, 5, LARGE);
	ac_task_free(task);
	return r;
}

/* More than are published at a time: they wait as copies. */
static int run_many_calls(struct ac_pool *pool)
{
	static struct ac_task *tasks[MANY];
	unsigned n;
	int r = 0, first;

	for (n = 0; n < MANY && r == 0; n++)
		r = ac_pool_submit(pool, &tasks[n], flip_call, "some bytes", 10, NULL);
	CHECK(r == 0 || workout_is_code(r));
	n -= r != 0;
	first = r;
	for (unsigned i = 0; i < n; i++) {
		r = take_outcome(tasks[i]);
		first = first ? first : r;
		ac_task_free(tasks[i]);
	}
	return first;
}

/* One that only a kill ends: by its limit, or by us. */
static void stop_call(struct ac_pool *pool, bool limit)
{
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .timeout_ns = limit ? 2 * MS : 0 };
	struct ac_task *task;
	int r = ac_pool_submit(pool, &task, endless_call, NULL, 0, &opts);

	CHECK(r == 0 || workout_is_code(r));
	if (r)
		return;
	crash_sleep(MS);
	if (!limit)
		CHECK(ac_task_cancel(task, 1) == 0 || ac_task_ready(task));
	CHECK(take_outcome(task) != 0);
	ac_task_free(task);
}

/* ---- streams ---- */

static int next_item(void *arg, const void **item, size_t *len)
{
	unsigned *n = arg;

	*item = "item";
	*len = 4;
	return (*n)++ < CALLS;
}

/* All that was taken in comes out. */
static int empty_stream(struct ac_stream *stream, int r, unsigned *n)
{
	struct ac_task *task;
	int first = r, s;

	while ((s = ac_stream_next(stream, &task, WAIT)) == 1) {
		r = take_outcome(task);
		first = first ? first : r;
		ac_task_free(task);
		(*n)++;
	}
	CHECK(s == 0 || (workout_is_code(s) && s != -ETIMEDOUT));
	ac_stream_close(stream);
	return first ? first : s;
}

static int run_stream(struct ac_pool *pool)
{
	unsigned items = 0, n = 0;
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .source = next_item,
				       .source_arg = &items };
	struct ac_stream *stream;
	int r = ac_stream_open(&stream, pool, flip_call, &opts);

	CHECK(r == 0 || workout_is_code(r));
	if (r)
		return r;
	r = empty_stream(stream, 0, &n);
	CHECK(r || n == CALLS);
	return r;
}

/* All of its calls are bound to the same bytes, every other one is divisible. */
static int push_bound_calls(struct ac_stream *stream, struct ac_pool *pool, unsigned *pushed)
{
	struct ac_push_opts opts = { .size = sizeof opts };
	unsigned char bytes[BYTES];
	int r;

	memset(bytes, 7, sizeof bytes);
	r = ac_bound_make(&opts.bound, pool, bytes, sizeof bytes);
	for (*pushed = 0; *pushed < CALLS && r == 0; ++*pushed) {
		opts.units = *pushed % 2 ? 100 : 0;
		r = ac_stream_push(stream, "bytes", 5, &opts, NULL);
	}
	CHECK(r == 0 || workout_is_code(r));
	*pushed -= r != 0 && *pushed;
	ac_bound_free(opts.bound);
	return r;
}

static int run_fed_stream(struct ac_pool *pool)
{
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream;
	unsigned pushed, n = 0;
	uint64_t index;
	uint32_t kept;
	int r = ac_stream_open(&stream, pool, read_bound_call, &opts);

	CHECK(r == 0 || workout_is_code(r));
	if (r)
		return r;
	r = push_bound_calls(stream, pool, &pushed);
	CHECK(ac_stream_take_back(stream, &index, NULL, &kept) >= 0);
	CHECK_EQ(ac_stream_end(stream), 0);
	r = empty_stream(stream, r, &n);
	CHECK_EQ(n, pushed);
	return r;
}

/* ---- the whole ---- */

/* So that starting a replacement is part of it. */
static void kill_idle(struct ac_pool *pool)
{
	struct ac_worker_stat stats[WORKOUT_WORKERS];

	ac_pool_workers(pool, stats, WORKOUT_WORKERS);
	if (stats[0].state != AC_WORKER_IDLE || stats[0].pid <= 0)
		return;
	kill(stats[0].pid, SIGKILL);
	crash_await_death(stats[0].pid, SECOND);
}

static int lose_workers(struct ac_pool *pool)
{
	int r;

	kill_idle(pool);
	r = run_deadly_map(pool);
	stop_call(pool, false);
	stop_call(pool, true);
	return r;
}

static int do_all(struct ac_pool *pool, unsigned flags)
{
	int (*const parts[])(struct ac_pool *) = {
		workout_map, workout_calls, lose_workers, run_large_call,
		run_many_calls, run_stream, run_fed_stream,
	};
	struct ac_trace_event events[8];
	int first = 0, last = 0;

	for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
		int r = flags & WORKOUT_SPARE && parts[i] == lose_workers ? 0 : parts[i](pool);

		first = first ? first : r;
		last = r;
	}
	/* Where a start was refused it has been tried again. */
	if (last == 0)
		CHECK(crash_await_workers(pool, AGAIN_NS));
	CHECK(ac_pool_trace(pool, events, sizeof(struct ac_trace_event), 8) >= -ENOMEM);
	return first;
}

static void prepare(void)
{
	if (deaths)
		return;
	deaths = mmap(NULL, sizeof *deaths, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(deaths != MAP_FAILED);
}

int workout(unsigned flags)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKOUT_WORKERS,
				     .ready_ns = READY_NS,
				     .trace = 4 };
	struct ac_pool_stat stat;
	struct ac_pool *pool = NULL;
	int r;

	prepare();
	if (flags & WORKOUT_ADOPT)
		opts.start = workout_start;
	r = ac_pool_open(&pool, &opts);
	CHECK(r == 0 || workout_is_code(r));
	CHECK_EQ(r == 0, pool != NULL);
	if (r == 0) {
		if (flags & WORKOUT_LOOP)
			r = ac_pool_fd(pool);
		CHECK(r >= 0 || workout_is_code(r));
		r = r < 0 ? r : 0;
		r = r ? r : do_all(pool, flags);
		crash_check_sum(pool, &stat);
		CHECK_EQ(ac_pool_close(pool), 0);
	}
	workout_reap();
	return r;
}

/* ---- single processes ---- */

static int leave_with_seven(void *arg)
{
	(void)arg;
	return 7;
}

static int wait_for_ever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

/* It ends by itself, is killed, or is left to be killed. */
static int run_process(unsigned way)
{
	struct ac_outcome outcome = { 0 };
	struct ac_process *process;
	int r = ac_process_start(&process, way ? wait_for_ever : leave_with_seven, NULL, NULL);

	CHECK(r == 0 || workout_is_code(r));
	if (r)
		return r;
	if (way == 1) {
		r = ac_process_kill(process, SIGKILL);
		CHECK(r == 0 || workout_is_code(r));
	}
	if (way < 2 && r == 0) {
		CHECK_EQ(ac_process_join(process, WAIT, &outcome), 0);
		r = outcome.status;
		CHECK(way ? r == AC_EDIED : r == AC_ETASK || r == AC_EDIED);
		r = way || (r == AC_ETASK && outcome.value == 7) ? 0 : r;
	}
	ac_process_close(process);
	return r;
}

int workout_processes(void)
{
	int first = 0;

	for (unsigned way = 0; way < 3; way++) {
		int r = run_process(way);

		first = first ? first : r;
	}
	return first;
}

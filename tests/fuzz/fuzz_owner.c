/* SPDX-License-Identifier: MIT */
/*
 * The owner under fuzz: calls of the public header, chosen by an input's bytes, on a pool
 * whose workers and whose shared region are the input's too (world.h). Whatever the
 * region says, the owner must not crash, hang or read outside; counts must add up, and the
 * pool must close. Where nobody wrote what an honest worker does not, no pool is broken.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "allcores.h"
#include "world.h"

#define TASKS 24
#define ITEMS 40
#define TRACE 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum owner_op {
	OWNER_SUBMIT, OWNER_WAIT, OWNER_CANCEL, OWNER_FREE, OWNER_READ,
	OWNER_CALL, OWNER_MAP, OWNER_OPEN_STREAM, OWNER_NEXT, OWNER_PUSH,
	OWNER_TAKE_BACK, OWNER_END_STREAM, OWNER_CLOSE_STREAM,
	OWNER_LOOK, OWNER_DISPATCH, OWNER_SHUT, OWNER_TERMINATE, OWNER_JOIN,
	OWNER_WAKE_STREAM, OWNER_BIND,
	OWNER_OPS
};

static const size_t sizes[] = { 0, 1, 8, 208, 209, 4096, 5000, 16384, 70000, 200000 };
static const int64_t limits[] = { 0, 1, MS, 100 * MS, 2 * SECOND, 10 * SECOND };

static struct {
	struct ac_pool *pool;
	struct ac_task *tasks[TASKS];
	struct ac_stream *stream;
	struct ac_bound *bound;
	bool fed, ended;
	unsigned left;		/* of the stream's source */
	unsigned callbacks_due, callbacks;
} owner;

static unsigned char bytes[200000];

#define SIZE(n) sizes[(n) % (sizeof sizes / sizeof *sizes)]
#define LIMIT(n) limits[(n) % (sizeof limits / sizeof *limits)]

static int never_run(struct ac_call *call)
{
	(void)call;
	abort();
}

static int never_run_item(const void *item, void *result, const void *bound)
{
	(void)item;
	(void)result;
	(void)bound;
	abort();
}

static bool is_code(int r)
{
	return r < 0 && (r > -4096 || (r <= AC_ETASK && r >= AC_EVERSION));
}

static void check_code(int r)
{
	REQUIRE(r >= 0 || is_code(r));
	REQUIRE(world_is_spoilt() || r != AC_EBROKEN);
}

/* ---- what comes out ---- */

/* Whatever it says, it can be read. */
static void read_task(struct ac_task *task)
{
	struct ac_outcome outcome;
	const void *data;
	size_t len;
	int r = ac_task_outcome(task, &outcome);

	REQUIRE(r == 0 || r == -EAGAIN);
	if (r == 0) {
		check_code(outcome.status);
		REQUIRE(memchr(outcome.text, '\0', sizeof outcome.text));
	}
	r = ac_task_result(task, &data, &len);
	check_code(r);
	if (r < 0 || !len)
		return;
	memcpy(bytes, data, AC__MIN(len, sizeof bytes));
	bytes[0] = ((const unsigned char *)data)[len - 1];
}

static void look(struct ac_pool *pool)
{
	struct ac_trace_event events[TRACE * WORKERS];
	struct ac_worker_stat stats[WORKERS];
	struct ac_pool_stat stat;
	int n;

	REQUIRE(ac_pool_workers(pool, stats, WORKERS) == WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		REQUIRE(memchr(stats[i].name, '\0', sizeof stats[i].name));
	REQUIRE(ac_pool_stat(pool, &stat, sizeof stat) == 0);
	REQUIRE(stat.submitted == stat.waiting + stat.running + stat.done + stat.failed +
					  stat.cancelled);
	n = ac_pool_trace(pool, events, sizeof(struct ac_trace_event), TRACE * WORKERS);
	REQUIRE(n >= 0 && n <= TRACE * WORKERS);
	for (int i = 0; i < n; i++)
		REQUIRE(events[i].worker < WORKERS);
}

/* ---- single calls ---- */

static void count_callback(void *arg, struct ac_task *task)
{
	(void)arg;
	owner.callbacks++;
	read_task(task);
}

static void submit(const struct record *r)
{
	struct ac_task **place = &owner.tasks[r->a % TASKS];
	struct ac_submit_opts opts = { .size = sizeof opts, .retries = r->c & 3 };
	int result;

	ac_task_free(*place);
	*place = NULL;
	if (r->c & 4)
		opts.done = count_callback;
	if (r->c & 8)
		opts.timeout_ns = 500 * MS;
	result = ac_pool_submit(owner.pool, r->c & 16 ? NULL : place, never_run, bytes,
				SIZE(r->b), r->c ? &opts : NULL);
	check_code(result);
	owner.callbacks_due += result == 0 && opts.done;
}

static void with_task(const struct record *r)
{
	struct ac_task **place = &owner.tasks[r->a % TASKS];
	int result = 0;

	if (!*place)
		return;
	switch (r->what) {
	case OWNER_WAIT:
		result = ac_task_wait(*place, r->b & 128 ? -1 : LIMIT(r->b));
		REQUIRE(result == 0 || (result == -ETIMEDOUT && !(r->b & 128)));
		break;
	case OWNER_CANCEL:
		result = ac_task_cancel(*place, r->b & 1);
		REQUIRE(result == 0 || result == -EBUSY || result == -EALREADY);
		break;
	case OWNER_READ:
		ac_task_ready(*place);
		read_task(*place);
		break;
	case OWNER_FREE:
		ac_task_free(*place);
		*place = NULL;
		break;
	}
}

static void call(const struct record *r)
{
	struct ac_outcome outcome;
	size_t len = SIZE(r->b);

	check_code(ac_pool_call(owner.pool, never_run, bytes, SIZE(r->a), bytes, &len, &outcome));
}

/* ---- maps ---- */

static void on_progress(void *arg, size_t ended, size_t count)
{
	(void)arg;
	REQUIRE(ended <= count);
	look(owner.pool);
}

static void map(const struct record *r)
{
	static const uint16_t item_sizes[] = { 0, 1, 8, 100, 1000, 5000 };
	static struct ac_outcome outcomes[ITEMS];
	static unsigned char results[ITEMS * 5000];
	struct ac_map_opts opts = { .size = sizeof opts,
				    .outcomes = outcomes,
				    .retries = r->c >> 6,
				    .chunk = r->c & 1 ? 1 + (r->c >> 1 & 15) : 0,
				    .flags = r->c & 32 ? AC_MAP_STOP : 0 };
	size_t count = r->a % (ITEMS + 1);
	int result;

	if (r->a & 128) {
		opts.bound = bytes;
		opts.bound_size = 100;
	}
	if (r->b & 128)
		opts.progress = on_progress;
	memset(outcomes, 0xff, sizeof outcomes);
	result = ac_pool_map(owner.pool, never_run_item, &opts, bytes, item_sizes[r->b % 6],
			     results, item_sizes[(r->b & 127) / 6 % 6], count);
	check_code(result);
	for (size_t i = 0; result == 0 && i < count; i++)
		REQUIRE(outcomes[i].status == 0 && outcomes[i].index == i);
}

/* ---- streams ---- */

static int source(void *arg, const void **data, size_t *len)
{
	(void)arg;
	if (!owner.left)
		return 0;
	*data = bytes;
	*len = SIZE(owner.left--);
	return 1;
}

static void open_stream(const struct record *r)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .retries = r->c & 1 };

	if (owner.stream)
		return;
	owner.fed = r->a & 1;
	owner.ended = false;
	owner.left = r->b % 64;
	if (!owner.fed) {
		opts.source = source;
		opts.ahead = r->c >> 4;
	}
	if (owner.fed || r->a & 2)
		opts.flags = AC_STREAM_UNORDERED;
	check_code(ac_stream_open(&owner.stream, owner.pool, never_run, &opts));
}

static void next(const struct record *r)
{
	bool for_ever = r->b & 128 && (!owner.fed || owner.ended);
	struct ac_task *task;
	int result = ac_stream_next(owner.stream, &task, for_ever ? -1 : LIMIT(r->b));

	check_code(result);
	REQUIRE(result != -ETIMEDOUT || !for_ever);
	if (result != 1)
		return;
	read_task(task);
	ac_task_free(task);
}

static void with_stream(const struct record *r)
{
	struct ac_push_opts opts = { .size = sizeof opts, .units = r->b,
				     .bound = owner.bound, .user = &owner };
	void *user = &owner;
	uint64_t index;
	uint32_t kept;

	if (!owner.stream)
		return;
	switch (r->what) {
	case OWNER_NEXT: next(r); break;
	case OWNER_PUSH:
		check_code(ac_stream_push(owner.stream, bytes, SIZE(r->a), &opts, &index));
		break;
	case OWNER_TAKE_BACK:
		check_code(ac_stream_take_back(owner.stream, &index, &user, &kept));
		REQUIRE(user == &owner);
		break;
	case OWNER_END_STREAM:
		ac_stream_end(owner.stream);
		owner.ended = true;
		break;
	case OWNER_WAKE_STREAM: check_code(ac_stream_wake(owner.stream)); break;
	case OWNER_CLOSE_STREAM:
		ac_stream_close(owner.stream);
		owner.stream = NULL;
	}
}

/* What is pushed from now on is bound to; or not any more. */
static void bind(const struct record *r)
{
	if (owner.bound) {
		ac_bound_free(owner.bound);
		owner.bound = NULL;
	} else {
		check_code(ac_bound_make(&owner.bound, owner.pool, bytes, SIZE(r->a)));
	}
}

/* ---- the pool ---- */

static void with_pool(const struct record *r)
{
	switch (r->what) {
	case OWNER_LOOK: look(owner.pool); break;
	case OWNER_DISPATCH:
		if (r->a & 1)
			check_code(ac_pool_fd(owner.pool));
		check_code(ac_pool_dispatch(owner.pool));
		break;
	case OWNER_SHUT: check_code(ac_pool_shut(owner.pool)); break;
	case OWNER_TERMINATE: check_code(ac_pool_terminate(owner.pool)); break;
	case OWNER_JOIN: check_code(ac_pool_join(owner.pool, LIMIT(r->a))); break;
	}
}

static const struct {
	void (*act)(const struct record *r);
	const char *name;
} ops[OWNER_OPS] = {
	[OWNER_SUBMIT] = { submit, "submit" },
	[OWNER_WAIT] = { with_task, "wait" },
	[OWNER_CANCEL] = { with_task, "cancel" },
	[OWNER_FREE] = { with_task, "free" },
	[OWNER_READ] = { with_task, "read" },
	[OWNER_CALL] = { call, "call" },
	[OWNER_MAP] = { map, "map" },
	[OWNER_OPEN_STREAM] = { open_stream, "open_stream" },
	[OWNER_NEXT] = { with_stream, "stream_next" },
	[OWNER_PUSH] = { with_stream, "stream_push" },
	[OWNER_TAKE_BACK] = { with_stream, "stream_take_back" },
	[OWNER_END_STREAM] = { with_stream, "stream_end" },
	[OWNER_CLOSE_STREAM] = { with_stream, "stream_close" },
	[OWNER_LOOK] = { with_pool, "look" },
	[OWNER_DISPATCH] = { with_pool, "dispatch" },
	[OWNER_SHUT] = { with_pool, "shut" },
	[OWNER_TERMINATE] = { with_pool, "terminate" },
	[OWNER_JOIN] = { with_pool, "join" },
	[OWNER_WAKE_STREAM] = { with_stream, "stream_wake" },
	[OWNER_BIND] = { bind, "bind" },
};

/* The first record: how the pool is opened. */
static void open_pool(const uint8_t *first)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .trace = first[0] & 1 ? TRACE : 0,
				     .memory = first[0] & 2 ? 300000 : 0,
				     .recycle = first[1],
				     .ready_ns = 3 * SECOND,
				     .start = world_start };

	memset(&owner, 0, sizeof owner);
	REQUIRE(ac_pool_open(&owner.pool, &opts) == 0);
	world_has_pool(owner.pool);
	/* Looking before sleeping is up to the number of processors. */
	owner.pool->spin_ns = first[0] & 4 ? 20000 : 0;
}

/* Some tasks, and bound data with calls, are freed while the pool is there, others outlive it. */
static void close_all(void)
{
	world_be_honest();
	world_enter("stream_close");
	ac_stream_close(owner.stream);
	world_enter("free");
	for (unsigned i = 0; i < TASKS; i += 2) {
		ac_task_free(owner.tasks[i]);
		owner.tasks[i] = NULL;
	}
	look(owner.pool);
	world_enter("close");
	REQUIRE(ac_pool_close(owner.pool) == 0);
	world_enter("after close");
	REQUIRE(owner.callbacks == owner.callbacks_due);
	for (unsigned i = 1; i < TASKS; i += 2) {
		if (!owner.tasks[i])
			continue;
		REQUIRE(ac_task_ready(owner.tasks[i]) == 1);
		read_task(owner.tasks[i]);
		ac_task_free(owner.tasks[i]);
	}
	ac_bound_free(owner.bound);
	world_leave();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record r;

	if (size < sizeof r)
		return 0;
	world_begin(data + sizeof r, size - sizeof r);
	open_pool(data);
	while (world_next(&r)) {
		r.what %= OWNER_OPS;
		world_enter(ops[r.what].name);
		ops[r.what].act(&r);
		world_leave();
	}
	close_all();
	world_end();
	return 0;
}

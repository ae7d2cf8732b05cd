/* SPDX-License-Identifier: MIT */
/* Random single calls and streams, and what may become of each. */
#define _GNU_SOURCE
#include "order.h"
#include "stress.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LARGE 65536	/* results above it keep their block */
#define LEN_MOST 204800
#define BATCH 60
#define BATCH_LONG 1500	/* more than a pool publishes at a time */
#define STREAM_MOST 200
#define PATIENCE (50 * SECOND)

_Atomic uint64_t stress_moves;

struct job {
	struct ac_task *task;
	struct order order;
	struct pot *pot;
	unsigned retries;
	int64_t timeout_ns;
	bool streamed;
	bool unowned;		/* no handle: the callback frees it */
	bool cancelled;		/* ac_task_cancel said 0 */
	bool killed;		/* and may have run */
	atomic_bool cancelling;
	atomic_int called;
	bool calls_back;
	struct job *next;
};

/* ---- chance ---- */

static bool one_in(uint64_t *seed, uint64_t n)
{
	return stress_below(seed, n) == 0;
}

/* Mostly small, now and then up to most. */
static size_t random_len(uint64_t *seed, size_t most)
{
	switch (stress_below(seed, 8)) {
	case 0:
		return stress_below(seed, most + 1);
	case 1:
		return stress_below(seed, 5000);
	default:
		return stress_below(seed, 300);
	}
}

/* ---- what may become of a job ---- */

bool stress_is_possible(const struct pot *pot, const struct ac_outcome *outcome,
			bool cancelled, bool timed)
{
	switch (outcome->status) {
	case AC_EDIED:
		return (pot->struck && outcome->signal == SIGKILL) ||
		       (pot->beheaded && pot->struck && !outcome->signal &&
			outcome->exit_code == -1);
	case AC_ECANCELED:
		return cancelled || pot->terminated;
	case AC_ETIMEOUT:
		return timed;
	case -ENOMEM:
		return pot->limited;
	default:
		return false;
	}
}

/* The function's own doing? */
static bool is_own_end(const struct job *job, const struct ac_outcome *outcome)
{
	const struct order *order = &job->order;
	char text[32];

	snprintf(text, sizeof text, "failed %u", order->value);
	switch (outcome->status) {
	case 0:
		return order->kind <= BURN ||
		       (order->kind == KILL_ONCE && job->retries);
	case AC_ETASK:
		if (job->pot->limited && strcmp(outcome->text, "no room") == 0)
			return true;
		return order->kind == FAIL && strcmp(outcome->text, text) == 0 &&
		       outcome->value == (int)order->value + 1;
	case AC_EDIED:
		if (job->pot->beheaded && !outcome->signal && outcome->exit_code == -1)
			return order->kind >= EXIT && order->kind <= KILL_ONCE;
		if (order->kind == EXIT)
			return outcome->exit_code == (int)order->value;
		return outcome->signal == SIGKILL &&
		       (order->kind == KILL ||
			(order->kind == KILL_ONCE && !job->retries));
	default:
		return false;
	}
}

static void check_result(const struct job *job, struct ac_task *task)
{
	const void *data;
	size_t len;

	CHECK_EQ(ac_task_result(task, &data, &len), 0);
	if (job->order.kind == EMPTY) {
		CHECK_EQ(len, 0);
		return;
	}
	CHECK_EQ(len, job->order.result_len);
	CHECK(stress_is_filled(data, len, job->order.seed + 1));
}

static void check_runs(const struct job *job, const struct ac_outcome *outcome)
{
	uint32_t runs = atomic_load(&stress_runs[job->order.number]);

	if (job->order.kind == EMPTY)
		return;
	CHECK(runs <= job->retries + 1);
	if (outcome->status == 0 || outcome->status == AC_ETASK)
		CHECK(runs >= 1);
	if (job->cancelled && !job->killed)
		CHECK(runs <= job->retries);
}

static void check_end(const struct job *job, struct ac_task *task)
{
	const struct pot *pot = job->pot;
	struct ac_outcome outcome;

	CHECK_EQ(ac_task_ready(task), 1);
	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	if (!is_own_end(job, &outcome) &&
	    !stress_is_possible(pot, &outcome, job->cancelling, job->timeout_ns))
		crash_fail(__FILE__, __LINE__,
			   "kind %u, %zu to %zu bytes, retries %u, runs %u, limit %lld, "
			   "cancelling %d, pool %u (%u workers) struck %d beheaded %d "
			   "terminated %d: %s value %d signal %d exit code %d \"%s\"",
			   job->order.kind, (size_t)job->order.len,
			   (size_t)job->order.result_len, job->retries,
			   stress_runs[job->order.number],
			   (long long)job->timeout_ns, job->cancelling, pot->number,
			   pot->workers, pot->struck, pot->beheaded,
			   pot->terminated, ac_errname(outcome.status),
			   outcome.value, outcome.signal, outcome.exit_code,
			   outcome.text);
	if (job->cancelled)
		CHECK_EQ(outcome.status, AC_ECANCELED);
	check_runs(job, &outcome);
	if (outcome.status == 0)
		check_result(job, task);
	atomic_fetch_add(&stress_moves, 1);
}

/* ---- making jobs ---- */

static uint32_t random_kind(uint64_t *seed)
{
	uint64_t n = stress_below(seed, 1000);

	return n < 600 ? ECHO : n < 650 ? EMPTY : n < 760 ? NAP : n < 880 ? BURN :
	       n < 960 ? FAIL : n < 970 ? EXIT : n < 980 ? KILL :
	       n < 990 ? KILL_ONCE : ENDLESS;
}

static struct job *make_job(struct pot *pot, uint64_t *seed, size_t most)
{
	struct job *job = calloc(1, sizeof *job);

	CHECK(job);
	job->pot = pot;
	job->order = (struct order){
		.number = stress_number(),
		.seed = crash_random(seed),
		.kind = random_kind(seed),
		.value = (uint32_t)stress_below(seed, 200),
		.ns = (int64_t)stress_below(seed, 2 * MS),
		.len = sizeof job->order + random_len(seed, most),
		.result_len = random_len(seed, most),
	};
	if (job->order.kind == EMPTY)
		job->order.len = job->order.result_len = 0;
	return job;
}

/* To be freed. */
static void *make_arg(const struct job *job)
{
	char *arg = malloc(job->order.len + 1);

	CHECK(arg);
	if (job->order.len) {
		memcpy(arg, &job->order, sizeof job->order);
		stress_fill(arg + sizeof job->order, job->order.len - sizeof job->order,
		     job->order.seed);
	}
	return arg;
}

static void be_called_back(void *arg, struct ac_task *task)
{
	struct job *job = arg;
	struct pot *pot = job->pot;

	check_end(job, task);
	CHECK_EQ(atomic_fetch_add(&job->called, 1), 0);
	if (job->unowned)
		free(job);
	atomic_fetch_add(&pot->callbacks_run, 1);
}

/* A submission's answer, where the pool may be shut meanwhile: taken? */
static bool note_answer(struct pot *pot, int r)
{
	if (r == 0)
		atomic_fetch_add(&pot->submitted, 1);
	else if (r == AC_ECLOSED)
		CHECK(pot->shut);
	else if (r == -ENOMEM)
		CHECK(pot->limited);
	else
		CHECK_EQ(r, 0);
	return r == 0;
}

/* False: it was not taken, and is no more. */
static bool submit_job(struct job *job, uint64_t *seed, bool handle)
{
	struct ac_submit_opts opts = { .size = sizeof opts };
	struct pot *pot = job->pot;
	void *arg = make_arg(job);
	int r;

	if (one_in(seed, 4))
		opts.retries = job->retries = 1 + (unsigned)stress_below(seed, 2);
	if (one_in(seed, 10) || (job->order.kind == ENDLESS && (!handle || one_in(seed, 2))))
		opts.timeout_ns = job->timeout_ns =
			(int64_t)(1 + stress_below(seed, 20)) * MS;
	job->calls_back = !handle || one_in(seed, 4);
	job->unowned = !handle;
	if (job->calls_back) {
		opts.done = be_called_back;
		opts.done_arg = job;
	}
	r = ac_pool_submit(pot->pool, handle ? &job->task : NULL, stress_do_order, arg,
			   job->order.len, &opts);
	free(arg);
	/* An unowned job may be gone already; its callback counts itself. */
	if (r == 0 && (!handle || opts.done))
		atomic_fetch_add(&pot->callbacks_due, 1);
	if (!note_answer(pot, r)) {
		free(job);
		return false;
	}
	return true;
}

/* ---- ending jobs ---- */

static void try_cancel(struct job *job, int kill)
{
	int r;

	atomic_store(&job->cancelling, true);
	r = ac_task_cancel(job->task, kill);
	if (r == 0) {
		job->killed = kill;
		job->cancelled = true;
		CHECK_EQ(ac_task_ready(job->task), 1);
	} else {
		CHECK(r == -EALREADY || r == -EBUSY);
	}
}

static bool is_endless(const struct job *job)
{
	return job->order.kind == ENDLESS && !job->timeout_ns;
}

static void await_end(struct job *job, uint64_t *seed)
{
	int64_t end = crash_now() + PATIENCE, limit;
	int r;

	for (;;) {
		if (is_endless(job) && !job->cancelled)
			try_cancel(job, 1);
		limit = (int64_t)stress_below(seed, 30) * MS;
		r = ac_task_wait(job->task, limit);
		if (r == 0)
			return;
		CHECK_EQ(r, -ETIMEDOUT);
		if (crash_now() > end)
			crash_fail(__FILE__, __LINE__,
				   "a task of kind %u does not end, runs %u, pool %u",
				   job->order.kind, stress_runs[job->order.number],
				   job->pot->number);
	}
}

static void await_callback(struct job *job)
{
	int64_t end = crash_now() + PATIENCE;

	while (job->calls_back && !job->called) {
		if (job->pot->loop)
			CHECK(ac_pool_dispatch(job->pot->pool) >= 0);
		crash_sleep(MS / 5);
		CHECK(crash_now() < end);
	}
}

static void keep_late(struct job *job)
{
	pthread_mutex_lock(&job->pot->late_lock);
	job->next = job->pot->late;
	job->pot->late = job;
	pthread_mutex_unlock(&job->pot->late_lock);
}

static void end_job(struct job *job, uint64_t *seed)
{
	bool endless = is_endless(job);

	if (one_in(seed, 12))
		try_cancel(job, (int)stress_below(seed, 2));
	/* Handed back early: nobody will see its end. */
	if (!endless && !job->calls_back && one_in(seed, 20)) {
		ac_task_free(job->task);
		free(job);
		return;
	}
	if (!endless && one_in(seed, 20)) {
		keep_late(job);
		return;
	}
	await_end(job, seed);
	await_callback(job);
	check_end(job, job->task);
	ac_task_free(job->task);
	free(job);
}

unsigned stress_count_blocks(struct pot *pot)
{
	unsigned n = 0;

	for (struct job *job = pot->late; job; job = job->next)
		n += job->order.result_len > LARGE &&
		     ac_task_result(job->task, &(const void *){ NULL }, NULL) == 0;
	return n;
}

void stress_check_late(struct pot *pot)
{
	struct job *job;

	while ((job = pot->late)) {
		pot->late = job->next;
		if (job->calls_back)
			CHECK_EQ(job->called, 1);
		check_end(job, job->task);
		ac_task_free(job->task);
		free(job);
	}
}

/* ---- things to do ---- */

static void batch(struct hand *hand, struct pot *pot)
{
	uint64_t *seed = &hand->seed;
	bool is_long = one_in(seed, 20);
	size_t n = 1 + stress_below(seed, is_long ? BATCH_LONG : BATCH), taken = 0;
	struct job **jobs = calloc(n, sizeof *jobs);

	CHECK(jobs);
	hand->doing = "a batch";
	for (size_t i = 0; i < n; i++) {
		struct job *job = make_job(pot, seed, is_long ? 500 : LEN_MOST);
		bool handle = !one_in(seed, 8);

		if (is_long)
			job->order.ns /= 20;
		if (!submit_job(job, seed, handle))
			break;
		if (handle)
			jobs[taken++] = job;
	}
	/* They may keep all workers from all others. */
	for (size_t i = 0; i < taken; i++)
		if (is_endless(jobs[i]))
			await_end(jobs[i], seed);
	for (size_t i = taken; i > 1; i--) { /* any order */
		size_t j = stress_below(seed, i);
		struct job *job = jobs[j];

		jobs[j] = jobs[i - 1];
		jobs[i - 1] = job;
	}
	for (size_t i = 0; i < taken; i++)
		end_job(jobs[i], seed);
	free(jobs);
}

static void call_one(struct hand *hand, struct pot *pot)
{
	struct job *job = make_job(pot, &hand->seed, LEN_MOST);
	size_t len = stress_below(&hand->seed, 2 * LARGE), room = len;
	char *arg, *result = malloc(len + 1);
	struct ac_outcome outcome = { 0 };
	int r;

	hand->doing = "a call";
	if (job->order.kind == ENDLESS)
		job->order.kind = ECHO;
	arg = make_arg(job);
	r = ac_pool_call(pot->pool, stress_do_order, arg, job->order.len, result, &len,
			 &outcome);
	if (r == AC_ECLOSED || r == -ENOMEM) {
		CHECK(r == -ENOMEM ? pot->limited : pot->shut);
		atomic_store(&pot->uncounted, true);
	} else {
		atomic_fetch_add(&pot->submitted, 1);
		CHECK_EQ(r, outcome.status);
		CHECK(is_own_end(job, &outcome) ||
		      stress_is_possible(pot, &outcome, false, false));
		check_runs(job, &outcome);
	}
	if (r == 0) {
		CHECK_EQ(len, job->order.result_len);
		room = room < len ? room : len;
		CHECK(stress_is_filled(result, room & ~(size_t)7, job->order.seed + 1));
	}
	atomic_fetch_add(&stress_moves, 1);
	free(arg);
	free(result);
	free(job);
}

/* ---- streams ---- */

struct source {
	struct pot *pot;
	struct job *jobs[STREAM_MOST];
	void *arg;
	size_t count, read;
	unsigned retries;
	int end;		/* 0, or a code */
	uint64_t *seed;
};

static int read_source(void *arg, const void **data, size_t *len)
{
	struct source *source = arg;
	struct job *job;

	free(source->arg);
	source->arg = NULL;
	if (source->read == source->count)
		return source->end;
	job = make_job(source->pot, source->seed, LEN_MOST);
	if (job->order.kind == ENDLESS)
		job->order.kind = ECHO;
	job->streamed = true;
	job->retries = source->retries;
	source->jobs[source->read++] = job;
	source->arg = make_arg(job);
	*data = source->arg;
	*len = job->order.len;
	return 1;
}

static void check_next(struct source *source, struct ac_task *task, size_t place,
		       bool ordered)
{
	struct ac_outcome outcome;
	struct job *job;

	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	CHECK(outcome.index < source->read);
	if (ordered)
		CHECK_EQ(outcome.index, place);
	job = source->jobs[outcome.index];
	CHECK(job); /* each once */
	source->jobs[outcome.index] = NULL;
	check_end(job, task);
	ac_task_free(task);
	free(job);
}

static void check_stream_end(struct source *source, size_t taken, int r)
{
	struct pot *pot = source->pot;

	/* Not taken: the last that was read. */
	if (r == AC_ECLOSED)
		CHECK(pot->shut);
	else if (r == -ENOMEM)
		CHECK(pot->limited);
	else
		CHECK_EQ(r, source->end);
	if (r == AC_ECLOSED || r == -ENOMEM) {
		CHECK_EQ(taken, source->read - 1);
		atomic_fetch_sub(&pot->submitted, 1);
	} else {
		CHECK_EQ(taken, source->count);
	}
}

static void stream(struct hand *hand, struct pot *pot)
{
	uint64_t *seed = &hand->seed;
	struct source *source = calloc(1, sizeof *source);
	struct ac_stream_opts opts = { .size = sizeof opts, .source = read_source,
				       .source_arg = source };
	bool ordered = one_in(seed, 2);
	size_t leave_at = one_in(seed, 4) ? stress_below(seed, STREAM_MOST) : SIZE_MAX;
	struct ac_stream *stream;
	struct ac_task *task;
	size_t taken = 0;
	int r;

	hand->doing = "a stream";
	*source = (struct source){ .pot = pot, .seed = seed,
				   .count = stress_below(seed, STREAM_MOST),
				   .end = one_in(seed, 5) ? -EIO : 0,
				   .retries = (unsigned)stress_below(seed, 3) };
	opts.retries = source->retries;
	opts.flags = ordered ? 0 : AC_STREAM_UNORDERED;
	opts.ahead = one_in(seed, 2) ? 0 : 1 + stress_below(seed, 100);
	opts.ahead_bytes = one_in(seed, 2) ? 0 : 1 + stress_below(seed, 1000000);
	r = ac_stream_open(&stream, pot->pool, stress_do_order, &opts);
	if (r == 0) {
		do {
			int64_t limit = (int64_t)stress_below(seed, 20) * MS;

			r = ac_stream_next(stream, &task, limit);
			if (r == 1)
				check_next(source, task, taken++, ordered);
		} while ((r == 1 && taken < leave_at) || r == -ETIMEDOUT);
		atomic_fetch_add(&pot->submitted, source->read);
		if (r != 1)
			check_stream_end(source, taken, r);
		else
			/* Whether the last one read was taken is not told. */
			atomic_store(&pot->uncounted, pot->uncounted || pot->shut ||
							      pot->limited);
		ac_stream_close(stream);
	} else {
		CHECK(r == AC_ECLOSED && pot->shut);
	}
	for (size_t i = 0; i < source->read; i++)
		free(source->jobs[i]);
	free(source->arg);
	free(source);
}

void stress_act(struct hand *hand, struct pot *pot)
{
	uint64_t n = stress_below(&hand->seed, 100);

	if (n < 45)
		batch(hand, pot);
	else if (n < 55)
		call_one(hand, pot);
	else if (n < 75)
		stream(hand, pot);
	else
		stress_map(hand, pot);
	hand->doing = "nothing";
}

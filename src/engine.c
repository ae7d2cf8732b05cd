/* SPDX-License-Identifier: MIT */
/* How the parts of a pool work together: see the header. */
#include "engine.h"

#include <stdio.h>
#include <string.h>

#include "audit.h"
#include "overdue.h"
#include "workers_end.h"
#include "workers_kill.h"
#include "workers_start.h"

#define AUDIT_NS INT64_C(1000000000)
#define LOOKS_PER_CLOCK 24
#define TAGS 64

/* ---- failing ---- */

void ac__engine_fail(struct ac_pool *pool, int status, const char *text)
{
	if (pool->failure.status)
		return;
	pool->failure.status = status;
	pool->failure.exit_code = -1;
	snprintf(pool->failure.text, sizeof pool->failure.text, "%s", text);
	pool->shut = true;
	pool->workers.retry_at = INT64_MAX;
	ac__workers_kill_all(&pool->workers);
	ac__slots_end_all(&pool->slots, &pool->failure);
}

/* After whatever reads the region. */
static void fail_if_damaged(struct ac_pool *pool)
{
	char text[AC_TEXT_SIZE];

	if (AC__LIKELY(!pool->slots.broken))
		return;
	snprintf(text, sizeof text, "the shared region is damaged: %s", pool->slots.broken);
	ac__engine_fail(pool, AC_EBROKEN, text);
}

void ac__engine_collect(struct ac_pool *pool)
{
	ac__slots_collect(&pool->slots);
	fail_if_damaged(pool);
}

/* ---- ends of processes ---- */

static bool wants_workers(const struct ac_pool *pool)
{
	return !pool->failure.status && !pool->terminated && !pool->closing;
}

/* A seat could not be filled. */
static void note_failed_start(struct ac_pool *pool, struct ac__start_failure failure)
{
	const char *reason;
	int64_t pause_ns;

	if (ac__workers_take_got_ready(&pool->workers))
		ac__strikes_clear(&pool->strikes);
	failure.workers = pool->workers.count;
	failure.any_ready = pool->workers.ready;
	failure.any_coming = ac__workers_any_coming(&pool->workers);
	reason = ac__strikes_failed_start(&pool->strikes, &failure, ac__sys_now(), &pause_ns);
	if (reason)
		ac__engine_fail(pool, AC_ESTART, reason);
	else if (pause_ns)
		ac__workers_retry_later(&pool->workers, pause_ns);
}

static void note_idle_end(struct ac_pool *pool, const char *why)
{
	const char *reason = ac__strikes_idle_end(&pool->strikes,
						  atomic_load(&pool->slots.collected),
						  ac__sys_now(), pool->workers.count, why);

	if (reason)
		ac__engine_fail(pool, AC_ESTART, reason);
}

/* The user may know more of a process than the kernel tells this one. False: whatever the signal
 * is, it counts. Place: start. */
static bool ask_user(struct ac_pool *pool, struct ac__ending *ending)
{
	struct ac_outcome outcome;
	int r;

	ac__ending_fill(ending, 0, &outcome);
	ac__pool_unlock(pool);
	r = pool->workers.ended(pool->workers.start_arg, outcome.worker, &outcome);
	ac__pool_lock(pool);
	ending->signal = outcome.signal;
	ending->exit_code = outcome.exit_code;
	snprintf(ending->text, sizeof ending->text, "%s", outcome.text);
	return r == 0;
}

static void note_ended_start(struct ac_pool *pool, const struct ac__worker_end *end)
{
	struct ac__ending ending = end->ending;
	bool excusable = end->unseated && !end->killed;

	if (excusable && pool->workers.ended)
		excusable = ask_user(pool, &ending);
	/* Meanwhile another thread may have stopped the pool. */
	if (!wants_workers(pool))
		return;
	note_failed_start(pool, (struct ac__start_failure){
		.refused = end->not_forked,
		.from_outside = excusable && ac__ending_is_from_outside(&ending),
		.why = end->killed ? "it was not ready in time" : ending.text });
}

/* What the end of a process means for the pool. */
static void judge_end(struct ac_pool *pool, const struct ac__worker_end *end, bool held)
{
	const char *text = end->ending.text;

	if (!end->killed && !end->not_forked && !pool->terminated && (held || !end->left))
		pool->deaths++;
	if (end->refused) {
		ac__engine_fail(pool, AC_ESTART, text[0] ? text : "a worker would not start");
		return;
	}
	if (!wants_workers(pool))
		return;
	if (!end->was_ready && !end->orphaned)
		note_ended_start(pool, end);
	else if (end->was_ready && !held && !end->killed)
		note_idle_end(pool, text);
}

/*
 * The six steps of a death, once the kernel says that the process is gone:
 *	1 empty the done list		what it completed counts
 *	2 scan the words for its seat	DONE: delivered; TAKEN: failed or retried
 *	3 free its blocks, end its leases
 *	4 clear it from the directory, free the seat
 *	5 ring all that sleep, whether anything is READY or not
 *	6 start a replacement		(ac__engine_advance)
 * 1 before 2, since a DONE word is collected from the list or, when it never got there, by the
 * scan: never twice. 3 after 2, since delivering a result makes the owner the holder of its
 * block. 4 after 2: a word names a seat, and must not name its next process. 5 after 4: the dead
 * worker may have consumed a wake-up, may have been the spinning worker, or may have cleared a
 * sleeper's bit without ringing that sleeper, which would then sleep through what comes later.
 */
static void reap(struct ac_pool *pool, const struct ac__worker_end *end)
{
	bool held;

	AC_STEP();
	ac__engine_collect(pool);						/* 1 */
	held = ac__slots_end_seat(&pool->slots, end->seat, &end->ending);	/* 2 */
	fail_if_damaged(pool);
	ac__block_reclaim(ac__pool_arena(pool), end->seat);			/* 3 */
	ac__ring_forget_seat(&pool->board, end->seat);				/* 4 */
	ac__workers_forget(&pool->workers, end->seat);
	ac__ring_wake_all(&pool->board);					/* 5 */
	judge_end(pool, end, held);
}

static void reap_ended(struct ac_pool *pool)
{
	struct ac__worker_end end;

	while (ac__workers_next_end(&pool->workers, &end)) {
		if (end.seat)
			reap(pool, &end);
		else if (end.starts_lost && wants_workers(pool))
			/* Starts that end with their template are one failed start, not one each. */
			note_failed_start(pool, (struct ac__start_failure){
				.why = "the process that starts them ended" });
	}
}

/* ---- time limits ---- */

/* Returns when the next task may be over its limit. */
static int64_t end_overdue(struct ac_pool *pool)
{
	int64_t next = INT64_MAX, now;
	unsigned seat;

	if (!pool->slots.timed)
		return next;
	now = ac__sys_now();
	while ((seat = ac__overdue_end_one(&pool->slots, now, &next)))
		ac__workers_kill(&pool->workers, seat);
	return next;
}

bool ac__engine_kill_task(struct ac_pool *pool, uint32_t slot)
{
	unsigned seat = ac__slots_condemn(&pool->slots, slot);

	if (seat)
		ac__workers_kill(&pool->workers, seat);
	return seat != 0;
}

/* ---- place: start ---- */

/*
 * Meanwhile the pool may have failed, or been terminated: then the worker was killed, and ends
 * like any other. Other threads may have filled other seats. The seat itself, or the template, is
 * this thread's: others leave it alone.
 */
static int run_start(struct ac_pool *pool, struct ac__start *start)
{
	ac__pool_unlock(pool);
	ac__start_run(&pool->workers, start);
	ac__pool_lock(pool);
	return ac__workers_end_start(&pool->workers, start);
}

/* 1: something was started; 0: there is nothing to start now; or why it could not be. */
static int start_one(struct ac_pool *pool)
{
	struct ac__start start;
	int r = ac__workers_begin_start(&pool->workers, &start);

	if (r == AC__START_RUN)
		r = run_start(pool, &start);
	else if (r == AC__START_NONE)
		return 0;
	return r < 0 ? r : 1;
}

/* No worker is left, and none can be started. */
static bool is_abandoned(struct ac_pool *pool)
{
	char text[AC_TEXT_SIZE];

	if (!pool->workers.template_lost)
		return false;
	if (!ac__workers_all_ended(&pool->workers))
		return true;
	snprintf(text, sizeof text, "all workers have ended, and %.150s", pool->workers.template.end);
	ac__engine_fail(pool, AC_ESTART, text);
	return true;
}

static void start_missing(struct ac_pool *pool)
{
	int r;

	while (ac__workers_any_vacant(&pool->workers) && wants_workers(pool)) {
		if (is_abandoned(pool))
			return;
		r = start_one(pool);
		if (r == 0)
			return;
		/* It may have taken long: another thread may have stopped the pool. */
		if (r < 0 && wants_workers(pool))
			note_failed_start(pool, (struct ac__start_failure){
				.refused = true, .why = ac_strerror(r) });
	}
}

int ac__engine_start_all(struct ac_pool *pool)
{
	int r;

	do
		r = start_one(pool);
	while (r > 0);
	return r;
}

/* ---- advancing ---- */

/* A pool that loses its template starts its workers by the reserve at once: then all of it goes round
 * again. */
void ac__engine_advance(struct ac_pool *pool)
{
	do {
		ac__engine_collect(pool);
		reap_ended(pool);
		end_overdue(pool);
		start_missing(pool);
	} while (AC__UNLIKELY(pool->workers.template_noted));
	ac__slots_refill(&pool->slots);
	ac__sleep_wake_finished(&pool->sleep);
}

static void note_tags(struct ac_pool *pool, const uint64_t *tags, int n)
{
	for (int i = 0; i < n; i++)
		if (tags[i] == AC__TAG_BELL)
			ac__fd_drain(&pool->sleep.bell[0]);
		else
			ac__workers_note(&pool->workers, tags[i]);
}

void ac__engine_poll(struct ac_pool *pool)
{
	uint64_t tags[TAGS];

	/* Where a thread collects, that thread asks the epoll and does what it learns. */
	if (!pool->sleep.collector)
		note_tags(pool, tags, ac__sys_epoll_wait(pool->sleep.epoll, tags, TAGS, 0));
	ac__engine_advance(pool);
}

/* ---- how long to sleep ---- */

/* Nothing is out. The collecting thread keeps one audit timer armed while it sleeps: a thread that
 * submits rarely then need not wake it. After that audit the timer stays off. */
static int64_t leave_audit(struct ac_pool *pool)
{
	if (pool->audit_at != INT64_MAX &&
	    (ac__sleep_is_looped(&pool->sleep) || pool->audit_at <= ac__sys_now()))
		pool->audit_at = INT64_MAX;
	return pool->audit_at;
}

static bool is_present(const void *arg, unsigned seat)
{
	return ac__workers_is_present(arg, seat);
}

/* A sleep with work outstanding is bounded: whatever was spoilt is found then. */
static int64_t audit_if_due(struct ac_pool *pool)
{
	int64_t now = ac__sys_now();

	if (pool->audit_at == INT64_MAX)
		pool->audit_at = now + AUDIT_NS;
	if (pool->audit_at <= now) {
		ac__audit(&pool->slots, is_present, &pool->workers);
		fail_if_damaged(pool);
		/* What the audit has collected makes place for more. */
		ac__slots_refill(&pool->slots);
		pool->audit_at = now + AUDIT_NS;
	}
	return pool->audit_at;
}

/* When something is due at the latest. What is due already is done here, so others may have what
 * they wait for after it; and so may the caller, who asks again before it sleeps. */
static int64_t next_time(struct ac_pool *pool)
{
	int64_t next = end_overdue(pool), audit;

	audit = pool->slots.published ? audit_if_due(pool) : leave_audit(pool);
	next = AC__MIN(next, ac__workers_next_check(&pool->workers));
	ac__sleep_wake_finished(&pool->sleep);
	return AC__MIN(next, audit);
}

/* With a queue behind it the ring is refilled when so little is left in it. Not less than there
 * are workers: an entry that was taken is counted until its taker has moved the head, and one
 * that idles beside the queue would ring nobody (tests/model/collect.pml, FEW). */
static uint32_t refill_below(const struct ac_pool *pool)
{
	return AC__MAX(pool->slots.window.size / 4, pool->workers.count);
}

/* How few READY pieces are reason to ring the collecting thread; -1: results are none. Only the
 * helper thread can do with fewer rings: others collect for a result of their own. */
static int64_t ring_below(struct ac_pool *pool, const struct ac__wait *collector)
{
	if (!collector || !collector->helping || pool->sleep.sleepers ||
	    ac__sleep_is_looped(&pool->sleep) || pool->callbacks.pending)
		return UINT32_MAX;
	return ac__slots_any_waits(&pool->slots) ? (int64_t)refill_below(pool) : -1;
}

/* An event loop is to dispatch, whatever workers do. Callbacks that another thread runs one after
 * the other are left to that thread. */
static bool has_dispatch_work(const struct ac_pool *pool)
{
	return ac__sleep_is_looped(&pool->sleep) &&
	       ((pool->callbacks.first && !pool->callbacks.running) || pool->slots.first_fill);
}

/* In an event loop's pool the bell stays armed between dispatches. */
static void rearm_for_loop(struct ac_pool *pool)
{
	int64_t next;

	if (!ac__sleep_is_looped(&pool->sleep))
		return;
	/* First: what is due already may give the loop something to do. */
	next = next_time(pool);
	if (!ac__sleep_arm(&pool->sleep, UINT32_MAX) || has_dispatch_work(pool))
		ac__sleep_ring(&pool->sleep);
	ac__sys_timerfd_set(pool->sleep.timer, next);
}

void ac__engine_changed(struct ac_pool *pool)
{
	const struct ac__wait *collector = pool->sleep.collector;
	int64_t next;

	if (!collector) {
		rearm_for_loop(pool);
		return;
	}
	next = next_time(pool);
	/* What it sleeps for may be here already, or come sooner than it knows. */
	if (!ac__sleep_arm(&pool->sleep, ring_below(pool, collector)) ||
	    collector->is_over(collector->arg) || has_dispatch_work(pool) ||
	    next < pool->sleep.until)
		ac__sleep_ring(&pool->sleep);
}

/* ---- place: sleep ---- */

static int sleep_collecting(struct ac_pool *pool, const struct ac__wait *wait, int64_t until)
{
	uint64_t tags[TAGS];
	int n = 0;

	ac__sleep_begin(&pool->sleep, wait, until);
	if (ac__sleep_arm(&pool->sleep, ring_below(pool, wait))) {
		ac__pool_unlock(pool);
		n = ac__sys_epoll_wait(pool->sleep.epoll, tags, TAGS,
				       ac__sleep_bound(&pool->sleep, until));
		ac__pool_lock(pool);
	}
	ac__sleep_end(&pool->sleep);
	note_tags(pool, tags, n);
	rearm_for_loop(pool);
	return AC__MIN(n, 0);
}

/* Another thread collects: have it rung for this one, too. */
static int sleep_privately(struct ac_pool *pool, const struct ac__wait *wait, int64_t deadline)
{
	struct ac__sleeper me = { .wait = wait };
	int r;

	ac__sleep_add(&pool->sleep, &me);
	ac__engine_changed(pool);
	ac__pool_unlock(pool);
	r = ac__sys_futex_wait(&me.woken, 0, deadline);
	ac__pool_lock(pool);
	ac__sleep_remove(&pool->sleep, &me);
	return r;
}

/* Afterwards anything may be different: the caller advances and asks wait again. */
int ac__engine_sleep(struct ac_pool *pool, const struct ac__wait *wait, int64_t deadline)
{
	int64_t until;

	if (pool->sleep.collector)
		return sleep_privately(pool, wait, deadline);
	until = next_time(pool);
	/* What that did may be what this thread waits for. */
	if (wait->is_over(wait->arg))
		return 0;
	return sleep_collecting(pool, wait, AC__MIN(until, deadline));
}

/* ---- place: spin ---- */

/* As after a sleep. Reads nothing but what is there until the pool is closed. */
void ac__engine_spin(struct ac_pool *pool)
{
	uint64_t collected = atomic_load(&pool->slots.collected);
	int64_t end;

	if (!pool->spin_ns || !pool->slots.published)
		return;
	ac__pool_unlock(pool);
	end = ac__sys_now() + pool->spin_ns;
	do {
		for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
			ac__relax();
			if (ac__done_any(&pool->board) ||
			    atomic_load_explicit(&pool->slots.collected,
						 memory_order_relaxed) != collected)
				goto out;
		}
		ac__sys_yield();
	} while (ac__sys_now() < end);
out:
	ac__pool_lock(pool);
}

/* ---- place: copy ---- */

void ac__engine_copy(struct ac_pool *pool, void *to, const void *from, size_t len)
{
	ac__pool_unlock(pool);
	memcpy(to, from, len);
	ac__pool_lock(pool);
}

/* The slot, its block and the private copy are the filling thread's until ac__slots_end_fill,
 * which sees whether the task was cancelled, or all work ended, meanwhile. */
bool ac__engine_fill_one(struct ac_pool *pool)
{
	uint32_t slot = ac__slots_next_fill(&pool->slots);
	struct ac__fill fill;

	if (!slot)
		return false;
	fill = pool->slots.slots[slot - 1].fill;
	if (pool->slots.slots[slot - 1].job) /* else it was cancelled before this began */
		ac__engine_copy(pool, fill.to, fill.from, fill.len);
	ac__slots_end_fill(&pool->slots, slot - 1);
	return true;
}

/* ---- place: callback ---- */

/* The innermost function of a user's that this thread is in, of whichever pool. */
static __thread struct ac__calling *calling_now;

void ac__engine_begin_callback(struct ac_pool *pool, struct ac__calling *calling)
{
	*calling = (struct ac__calling){ .pool = pool, .outer = calling_now };
	calling_now = calling;
	ac__pool_unlock(pool);
}

void ac__engine_end_callback(struct ac__calling *calling)
{
	ac__pool_lock(calling->pool);
	calling_now = calling->outer;
}

bool ac__engine_is_calling_back(const struct ac_pool *pool)
{
	for (const struct ac__calling *c = calling_now; c; c = c->outer)
		if (c->pool == pool)
			return true;
	return false;
}

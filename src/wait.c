/* SPDX-License-Identifier: MIT */
/*
 * Sleeping in one place. A thread that waits looks a little while (a worker that
 * is about to finish saves both sides a wake-up), then one thread of the owner
 * sleeps for all on the pool's epoll: results (the bell), deaths, time limits. The others
 * sleep privately, and who leaves hands the collecting on.
 */
#include "pool.h"

#include <errno.h>

#define LOOKS_PER_CLOCK 24
#define LONG_SLEEP_NS 200000
#define AUDIT_NS INT64_C(1000000000)
#define TAGS 64
#define SLEEP_NS (INT64_C(10) * 1000000000)
#define SLEEP_WITHOUT_BELL_NS INT64_C(20000000)

/* ---- opening ---- */

/* Opened and written down as one step for a child. */
static int open_descriptors(struct ac_pool *pool)
{
	int r = ac__sys_epoll();

	if (r < 0)
		return r;
	pool->epoll = r;
	return ac__fd_open_pipe(pool->bell);
}

int ac__wait_open(struct ac_pool *pool)
{
	int r;

	pool->audit_at = INT64_MAX;
	pool->sleeping_until = INT64_MAX;
	ac__forkguard_lock();
	r = open_descriptors(pool);
	ac__forkguard_unlock();
	if (r == 0)
		r = ac__sys_epoll_add(pool->epoll, pool->bell[0].number, AC__TAG_BELL, false);
	if (r < 0)
		ac__wait_close(pool);
	return r;
}

void ac__wait_close(struct ac_pool *pool)
{
	ac__forkguard_lock();
	ac__forkguard_drop(&pool->timer);
	ac__fd_drop(&pool->bell[1]);
	ac__fd_drop(&pool->bell[0]);
	ac__forkguard_drop(&pool->epoll);
	ac__forkguard_unlock();
}

/* ---- those who sleep privately ---- */

static void wake(struct ac__sleeper *sleeper)
{
	atomic_store(&sleeper->woken, 1);
	ac__sys_futex_wake(&sleeper->woken, 1);
}

void ac__wait_wake_finished(struct ac_pool *pool)
{
	for (struct ac__sleeper *s = pool->sleepers; s; s = s->next)
		if (s->is_over(s->arg))
			wake(s);
	/* Who collects sleeps for its own sake, too. */
	if (pool->collecting && pool->collector.is_over(pool->collector.arg))
		ac__fd_ring(&pool->bell[1]);
}

static void hand_collecting_on(struct ac_pool *pool)
{
	if (!pool->collecting && pool->sleepers)
		wake(pool->sleepers);
}

static void remove_sleeper(struct ac_pool *pool, struct ac__sleeper *sleeper)
{
	for (struct ac__sleeper **at = &pool->sleepers; *at; at = &(*at)->next)
		if (*at == sleeper) {
			*at = sleeper->next;
			return;
		}
}

/* ---- what is due ---- */

static int64_t check_times(struct ac_pool *pool)
{
	int64_t now, next;

	if (!pool->timed && !pool->starting && !pool->unwatched &&
	    pool->retry_at == INT64_MAX)
		return INT64_MAX;
	now = ac__sys_now();
	next = ac__books_check_limits(pool, now);
	return AC__MIN(next, ac__crew_check(pool, now));
}

void ac__wait_advance(struct ac_pool *pool)
{
	ac__books_collect(pool);
	check_times(pool);
	ac__books_refill(pool);
	ac__wait_wake_finished(pool);
}

/* Nothing is out. One audit is left standing, so that who hands work in now and then need
 * not wake the one who sleeps for the sake of the next; after it none is. */
static int64_t leave_audit(struct ac_pool *pool)
{
	if (pool->audit_at != INT64_MAX &&
	    (pool->timer >= 0 || pool->audit_at <= ac__sys_now()))
		pool->audit_at = INT64_MAX;
	return pool->audit_at;
}

/*
 * A sleep with work outstanding is bounded: whatever was spoilt is found then.
 * What was due is done here, a burial perhaps, so others may have what they wait for
 * after it; and so may the caller, who looks again before sleeping.
 */
static int64_t next_time(struct ac_pool *pool)
{
	int64_t next = check_times(pool), now;

	if (!pool->published) {
		ac__wait_wake_finished(pool);
		return AC__MIN(next, leave_audit(pool));
	}
	now = ac__sys_now();
	if (pool->audit_at == INT64_MAX)
		pool->audit_at = now + AUDIT_NS;
	if (pool->audit_at <= now) {
		ac__books_audit(pool);
		pool->audit_at = now + AUDIT_NS;
	}
	ac__wait_wake_finished(pool);
	return AC__MIN(next, pool->audit_at);
}

/* ---- the one who collects ---- */

/* How few READY pieces are reason to ring; -1: results are no reason at all. */
static int64_t ring_below(struct ac_pool *pool)
{
	return pool->timer >= 0 ? UINT32_MAX : ac__helper_below(pool);
}

/* Sleeping is right only if nothing has come since the bell was armed (B2). */
static bool arm_bell(struct ac_pool *pool, int64_t below)
{
	if (below < 0)
		return true;
	atomic_store_explicit(&pool->board.shm->ring_below, (uint32_t)below,
			      memory_order_relaxed);
	ac__bell_arm(&pool->board.shm->owner_bell);
	AC_STEP();
	return !ac__done_any(&pool->board) ||
	       ac__ring_length(&pool->board) > below;
}

static void attend(struct ac_pool *pool, const uint64_t *tags, int n)
{
	for (int i = 0; i < n; i++)
		if (tags[i] == AC__TAG_BELL)
			ac__fd_drain(&pool->bell[0]);
		else if (tags[i] != AC__TAG_TIMER)
			ac__crew_attend(pool, tags[i]);
}

/* In an event loop's pool the bell stays armed between dispatches. */
static void rearm_for_loop(struct ac_pool *pool)
{
	if (pool->timer < 0)
		return;
	if (!arm_bell(pool, UINT32_MAX) || pool->first_callback)
		ac__fd_ring(&pool->bell[1]);
	ac__sys_timerfd_set(pool->timer, next_time(pool));
}

/* User code may have closed the bell, which nobody can ring then: no sleep is without end. */
static int64_t bound_sleep(struct ac_pool *pool, int64_t until)
{
	bool rings = ac__fd_is_same(&pool->bell[0]) && ac__fd_is_same(&pool->bell[1]);
	int64_t most = ac__sys_now() + (rings ? SLEEP_NS : SLEEP_WITHOUT_BELL_NS);

	return AC__MIN(until, most);
}

static int sleep_collecting(struct ac_pool *pool, int64_t until, int64_t below)
{
	uint64_t tags[TAGS];
	int n = 0;

	pool->collecting = true;
	pool->sleeping_until = until;
	if (arm_bell(pool, below)) {
		ac__pool_unlock(pool);
		n = ac__sys_epoll_wait(pool->epoll, tags, TAGS, bound_sleep(pool, until));
		ac__pool_lock(pool);
	}
	ac__bell_disarm(&pool->board.shm->owner_bell);
	pool->collecting = false;
	pool->sleeping_until = INT64_MAX;
	attend(pool, tags, n);
	rearm_for_loop(pool);
	return n < 0 ? n : 0;
}

void ac__wait_look(struct ac_pool *pool)
{
	uint64_t tags[TAGS];
	int n = 0;

	if (!pool->collecting)
		n = ac__sys_epoll_wait(pool->epoll, tags, TAGS, 0);
	attend(pool, tags, n);
	ac__wait_advance(pool);
}

/* Somebody else collects: have it rung for us too. */
static int sleep_privately(struct ac_pool *pool, bool (*is_over)(void *arg),
			   void *arg, int64_t deadline)
{
	struct ac__sleeper me = { .is_over = is_over, .arg = arg };
	int r;

	me.next = pool->sleepers;
	pool->sleepers = &me;
	ac__wait_changed(pool);
	ac__pool_unlock(pool);
	r = ac__sys_futex_wait(&me.woken, 0, deadline);
	ac__pool_lock(pool);
	remove_sleeper(pool, &me);
	return r;
}

void ac__wait_changed(struct ac_pool *pool)
{
	int64_t below;

	if (!pool->collecting) {
		rearm_for_loop(pool);
		return;
	}
	/* Only the helper can do with fewer rings: others collect for a result of their own. */
	below = pool->sleepers || !pool->collector_helps ? UINT32_MAX : ring_below(pool);
	/* What it sleeps for may be here already, or come sooner than it knows. */
	if (!arm_bell(pool, below) || pool->first_callback ||
	    (pool->helper && pool->helper_stop) || next_time(pool) < pool->sleeping_until)
		ac__fd_ring(&pool->bell[1]);
}

/* ---- waiting ---- */

/* Without the lock: others may hand in work, or collect for us. */
static void look_around(struct ac_pool *pool)
{
	uint64_t settled = atomic_load(&pool->settled);
	int64_t end;

	if (!pool->spin_ns || !pool->published)
		return;
	ac__pool_unlock(pool);
	end = ac__sys_now() + pool->spin_ns;
	do {
		for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
			ac__relax();
			if (ac__done_any(&pool->board) ||
			    atomic_load_explicit(&pool->settled,
						 memory_order_relaxed) != settled)
				goto out;
		}
		ac__sys_yield();
	} while (ac__sys_now() < end);
out:
	ac__pool_lock(pool);
}

static int wait_once(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg,
		     int64_t deadline, bool helper)
{
	int64_t until;

	if (pool->collecting)
		return sleep_privately(pool, is_over, arg, deadline);
	until = next_time(pool);
	/* Meanwhile: what it did may be what we wait for, and where it started a
	 * worker the lock was given up. */
	if (pool->collecting || is_over(arg))
		return 0;
	pool->collector.is_over = is_over;
	pool->collector.arg = arg;
	pool->collector_helps = helper;
	return sleep_collecting(pool, AC__MIN(until, deadline),
				helper && !pool->sleepers ? ring_below(pool) :
							    UINT32_MAX);
}

static int wait_until(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg,
		      int64_t deadline, bool helper)
{
	bool looked = helper;
	int64_t before;
	int r = 0;

	for (;;) {
		ac__wait_advance(pool);
		if (is_over(arg)) {
			r = 0;
			break;
		}
		if (r == -EINTR && pool->interruptible && !helper)
			break;
		if (deadline != INT64_MAX && ac__sys_now() >= deadline) {
			r = -ETIMEDOUT;
			break;
		}
		if (!looked) {
			look_around(pool);
			looked = !ac__done_any(&pool->board);
			continue;
		}
		before = ac__sys_now();
		r = wait_once(pool, is_over, arg, deadline, helper);
		/* What took long will take long again: no look is worth it. */
		looked = helper || ac__sys_now() - before > LONG_SLEEP_NS;
	}
	hand_collecting_on(pool);
	return r;
}

int ac__wait(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg,
	     int64_t deadline)
{
	return wait_until(pool, is_over, arg, deadline, false);
}

void ac__wait_helping(struct ac_pool *pool, bool (*is_over)(void *arg))
{
	wait_until(pool, is_over, pool, INT64_MAX, true);
}

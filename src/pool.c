/* SPDX-License-Identifier: MIT */
/* A pool's life: open, shut, terminate, join, close; and what a user's fork leaves of it. */
#include "pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tasks published at a time; the rest waits in the owner's memory. */
#define TASKS_LEAST 1024
#define BLOCKS 65536
/* Longer than a wake-up takes (25 us on a virtual machine), so that work that
 * follows at once finds somebody awake; short against a time slice. */
#define SPIN_NS 50000
/* Workers that were told to leave and don't are killed; then the template, if it does not tell
 * of it. */
#define LEAVE_NS (INT64_C(10) * 1000000000)
#define TELL_NS (INT64_C(2) * 1000000000)

/* ---- the room: shared memory that results keep ---- */

struct ac__room *ac__room_use(struct ac__room *room)
{
	atomic_fetch_add(&room->users, 1);
	return room;
}

void ac__room_leave(struct ac__room *room)
{
	if (atomic_fetch_sub(&room->users, 1) > 1)
		return;
	ac__arena_close(&room->arena);
	free(room);
}

static int open_room(struct ac_pool *pool, const struct ac_pool_opts *opts, int cpus)
{
	uint32_t seats = pool->workers + 1;
	struct ac__board_plan board = {
		.tasks = (uint32_t)ac__power_of_two(
			AC__MAX(TASKS_LEAST, 4 * pool->workers)),
		.trace = opts->trace,
		.recycle = opts->recycle,
		.spin_ns = cpus > 1 ? SPIN_NS : 0,
	};
	struct ac__arena_plan plan = { .seats = seats,
				       .blocks = BLOCKS,
				       .root_len = ac__board_size(&board, seats),
				       .memory = opts->memory,
				       .group = pool };
	struct ac__room *room;
	int r;

	room = ac__sys_calloc(1, sizeof *room);
	if (!room)
		return -ENOMEM;
	r = ac__arena_open(&room->arena, &plan);
	if (r < 0) {
		free(room);
		return r;
	}
	atomic_init(&room->users, 1);
	pool->room = room; /* whole, for who forks meanwhile */
	ac__board_init(&pool->board, &pool->room->arena, &board);
	pool->spin_ns = board.spin_ns;
	return 0;
}

/* ---- a user's fork ---- */

void ac__pool_let_go(void *arg)
{
	struct ac_pool *pool = arg;

	ac__crew_let_go(pool);
	ac__forkguard_drop(&pool->epoll);
	ac__forkguard_drop(&pool->timer);
	ac__fd_drop(&pool->bell[0]);
}

/* The child keeps a private copy of what it may be reading, and no more. */
static void leave_in_child(struct ac__forkguard *guard)
{
	struct ac_pool *pool = AC__CONTAINER(guard, struct ac_pool, guard);

	atomic_store(&pool->forked, true);
	ac__pool_let_go(pool);
	ac__fd_drop(&pool->bell[1]);
}

/* ---- opening ---- */

static unsigned count_workers(int wanted, int cpus)
{
	if (wanted > 0)
		return (unsigned)wanted;
	cpus = AC__MIN(cpus, AC__SEATS_MOST - 1);
	return cpus > -(int64_t)wanted ? (unsigned)(cpus + wanted) : 1;
}

static int check_opts(const struct ac_pool_opts *opts)
{
	if (opts->workers >= AC__SEATS_MOST ||
	    opts->flags & ~AC_POOL_INTERRUPTIBLE || opts->trace > 1u << 20)
		return -EINVAL;
	return 0;
}

static int open_parts(struct ac_pool *pool, const struct ac_pool_opts *opts)
{
	int cpus = ac_cpus(0), r;

	pool->workers = count_workers(opts->workers, cpus);
	ac__forkguard_add(&pool->guard);
	r = open_room(pool, opts, cpus);
	if (r < 0)
		goto err_guard;
	r = ac__wait_open(pool);
	if (r < 0)
		goto err_room;
	/* Before the books: the less the template has, the faster it forks. */
	r = ac__crew_open(pool, opts);
	if (r < 0)
		goto err_wait;
	r = ac__books_open(pool);
	if (r == 0)
		return 0;
	ac__crew_close(pool);
err_wait:
	ac__wait_close(pool);
err_room:
	ac__room_leave(pool->room);
err_guard:
	ac__forkguard_remove(&pool->guard);
	return r;
}

int ac_pool_open(struct ac_pool **out, const struct ac_pool_opts *user)
{
	struct ac_pool_opts opts;
	struct ac_pool *pool;
	int r = ac__opts_copy(&opts, sizeof opts, user);

	if (!out)
		return -EINVAL;
	if (r == 0)
		r = check_opts(&opts);
	if (r < 0)
		return r;
	pool = ac__sys_calloc(1, sizeof *pool);
	if (!pool)
		return -ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->helper_gone, NULL);
	pool->interruptible = opts.flags & AC_POOL_INTERRUPTIBLE;
	pool->last_callback = &pool->first_callback;
	pool->guard.left = leave_in_child;
	pool->guard.group = pool;
	pool->template.socket = (struct ac__socket){ -1, -1 };
	pool->epoll = pool->timer = -1;
	pool->bell[0] = pool->bell[1] = AC__FD_NONE;
	/* The lock is for start, which is called without it. */
	ac__pool_lock(pool);
	r = open_parts(pool, &opts);
	ac__pool_unlock(pool);
	if (r < 0) {
		free(pool);
		return r;
	}
	*out = pool;
	return 0;
}

/* ---- stopping ---- */

void ac__outcome_fill(struct ac_outcome *outcome, const struct ac__ending *ending,
		      uint64_t index)
{
	*outcome = (struct ac_outcome){ .status = ending->status,
					.value = ending->value,
					.signal = ending->signal,
					.exit_code = ending->exit_code,
					.pid = ending->pid,
					.worker = ending->seat ? ending->seat - 1 : 0,
					.index = index,
					.ran_ns = ending->ran_ns,
					.peak_rss = ending->peak_rss };
	memcpy(outcome->text, ending->text, sizeof outcome->text);
}

static bool is_forked(struct ac_pool *pool)
{
	return atomic_load_explicit(&pool->forked, memory_order_relaxed);
}

int ac__pool_accepts(struct ac_pool *pool)
{
	if (AC__UNLIKELY(pool->failure.status))
		return pool->failure.status;
	return AC__UNLIKELY(pool->shut) ? AC_ECLOSED : 0;
}

void ac__pool_fail(struct ac_pool *pool, int status, const char *text)
{
	if (pool->failure.status)
		return;
	pool->failure.status = status;
	pool->failure.exit_code = -1;
	snprintf(pool->failure.text, sizeof pool->failure.text, "%s", text);
	pool->shut = true;
	ac__crew_kill_all(pool);
	ac__books_end_all(pool, &pool->failure);
}

void ac__pool_break(struct ac_pool *pool, const char *what)
{
	char text[AC_TEXT_SIZE];

	snprintf(text, sizeof text, "the shared region is damaged: %s", what);
	ac__pool_fail(pool, AC_EBROKEN, text);
}

int ac_pool_shut(struct ac_pool *pool)
{
	if (!pool)
		return -EINVAL;
	if (is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	pool->shut = true;
	ac__wait_wake_finished(pool); /* who waits for what may yet be pushed */
	ac__pool_unlock(pool);
	return 0;
}

int ac_pool_terminate(struct ac_pool *pool)
{
	struct ac__ending cancelled = { .status = AC_ECANCELED,
					.exit_code = -1,
					.text = "the pool was terminated" };

	if (!pool)
		return -EINVAL;
	if (is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	pool->shut = pool->terminated = true;
	/* What is done already counts as done. */
	ac__books_collect(pool);
	ac__crew_kill_all(pool);
	ac__books_end_all(pool, &cancelled);
	ac__wait_advance(pool);
	ac__wait_changed(pool);
	ac__pool_unlock(pool);
	return 0;
}

/* ---- joining ---- */

static bool work_is_over(struct ac_pool *pool)
{
	return !pool->first_job && !pool->callbacks &&
	       pool->submitted == pool->done + pool->failed + pool->cancelled;
}

/* Where there is no helper, whoever waits runs the callbacks. */
static bool joiner_is_needed(void *arg)
{
	struct ac_pool *pool = arg;

	return work_is_over(pool) ||
	       (pool->first_callback && !pool->helper && !pool->in_callback);
}

static bool workers_are_gone(void *arg)
{
	return ac__crew_gone(arg);
}

static void tell_to_leave(struct ac_pool *pool)
{
	if (pool->closing)
		return;
	pool->closing = true;
	pool->leave_by = ac__sys_deadline(LEAVE_NS);
	atomic_store(&pool->board.shm->closing, 1);
	ac__crew_dismiss(pool);
}

/* A worker that is stopped does not hear that it is to leave, and a template that is stopped
 * does not tell of ends. One that has none to tell of yet is left alone: it reaps those that
 * still start, or take their time. */
static void hurry(struct ac_pool *pool, bool closing)
{
	bool overdue;

	if (closing)
		ac__crew_kill_all(pool);
	else
		ac__crew_kill_deaf(pool);
	overdue = ac__crew_is_overdue(pool);
	if (overdue && pool->overdue)
		ac__template_kill(&pool->template);
	pool->overdue = overdue;
	pool->leave_by = ac__sys_deadline(TELL_NS);
}

/* Until the workers are gone. Who only joins lets those that leave take their time: a Python
 * worker's finalizers run then. Who only looks now and then is the one to hurry them, too. */
static int see_off(struct ac_pool *pool, int64_t deadline, bool closing)
{
	int r;

	tell_to_leave(pool);
	for (;;) {
		r = ac__wait(pool, workers_are_gone, pool,
			     AC__MIN(deadline, pool->leave_by));
		if (r != -ETIMEDOUT)
			return r;
		if (ac__sys_now() >= pool->leave_by)
			hurry(pool, closing);
		if (ac__sys_now() >= deadline)
			return r;
	}
}

/* Callbacks of an event loop's pool are run by whoever joins: nobody else is left to. */
static int join_work(struct ac_pool *pool, int64_t deadline)
{
	int r;

	if (pool->callbacks && pool->timer < 0)
		ac__helper_need(pool);
	do {
		r = ac__wait(pool, joiner_is_needed, pool, deadline);
		if (!pool->helper)
			ac__helper_run(pool);
	} while (r == 0 && !work_is_over(pool));
	return r;
}

int ac_pool_join(struct ac_pool *pool, int64_t timeout_ns)
{
	int64_t deadline = ac__sys_deadline(timeout_ns);
	int r;

	if (!pool)
		return -EINVAL;
	if (is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	/* Where no time is left to wait for ends, those that have come are seen. */
	ac__wait_look(pool);
	ac__wait_changed(pool);
	r = join_work(pool, deadline);
	if (r == 0 && pool->shut)
		r = see_off(pool, deadline, false);
	ac__pool_unlock(pool);
	return r;
}

/* ---- closing ---- */

static void free_pool(struct ac_pool *pool)
{
	ac__books_close(pool);
	ac__room_leave(pool->room);
	pthread_cond_destroy(&pool->helper_gone);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

int ac_pool_close(struct ac_pool *pool)
{
	if (!pool)
		return 0;
	if (is_forked(pool)) {
		free(pool->crew);
		free_pool(pool);
		return AC_EFORK;
	}
	ac__pool_lock(pool);
	pool->shut = true;
	while (join_work(pool, INT64_MAX) != 0)
		; /* interrupted: closing can't be */
	while (see_off(pool, INT64_MAX, true) != 0)
		; /* the same */
	ac__helper_stop(pool);
	ac__crew_close(pool);
	ac__wait_close(pool);
	ac__forkguard_remove(&pool->guard);
	ac__pool_unlock(pool);
	free_pool(pool);
	return 0;
}

/* ---- event loops ---- */

int ac_pool_fd(struct ac_pool *pool)
{
	int r;

	if (!pool)
		return -EINVAL;
	if (is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	ac__forkguard_lock();
	r = pool->timer >= 0 ? 0 : ac__sys_timerfd();
	if (r > 0)
		pool->timer = r;
	ac__forkguard_unlock();
	if (r > 0) {
		r = ac__sys_epoll_add(pool->epoll, r, AC__TAG_TIMER, false);
		ac__helper_dismiss(pool);
		ac__wait_changed(pool);
	}
	r = r < 0 ? r : pool->epoll;
	ac__pool_unlock(pool);
	return r;
}

int ac_pool_dispatch(struct ac_pool *pool)
{
	uint64_t before, after;

	if (!pool)
		return -EINVAL;
	if (is_forked(pool))
		return AC_EFORK;
	ac__pool_lock(pool);
	before = pool->done + pool->failed + pool->cancelled;
	ac__wait_look(pool);
	ac__helper_run(pool);
	ac__wait_changed(pool);
	after = pool->done + pool->failed + pool->cancelled;
	ac__pool_unlock(pool);
	return (int)AC__MIN(after - before, INT32_MAX);
}

/* SPDX-License-Identifier: MIT */
/*
 * The worker's loop: take a task, or spin a little, or sleep; run; complete. The steps that
 * survive a worker's death are in ring.c, with their crash table.
 */
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "socket.h"
#include "output.h"

#define POLLS_PER_CLOCK 12
/* Free memory beyond this goes back to the system when the pool has been idle for a second. */
#define KEEP_FREE (UINT64_C(64) << 20)
#define TRIM_AFTER_NS INT64_C(1000000000)

static struct ac__seat_shm *row_of(struct ac_worker *worker)
{
	return &worker->board.arena->seats[worker->seat];
}

static void leave_in_child(struct ac__forkguard *guard)
{
	struct ac_worker *worker = AC__CONTAINER(guard, struct ac_worker, guard);

	worker->forked = true;
	ac__lifeline_drop(&worker->lifeline);
	ac__fd_drop(&worker->owner_bell);
	ac__forkguard_drop(&worker->region_fd);
	ac__forkguard_drop(&worker->bell_fd);
}

/* ---- taking a seat ---- */

static int take_seat(struct ac_worker *worker)
{
	int r = ac__lifeline_arm(&worker->lifeline);

	if (r == -EPIPE)
		return AC_ECLOSED;
	if (r == 0)
		r = ac__seat_take(worker->board.arena, worker->seat, getpid());
	if (r < 0)
		return r;
	worker->left = worker->board.shm->recycle;
	worker->idle = true;
	return 0;
}

/* From here on a child of this process gives up the descriptors. */
static void prepare(struct ac_worker *worker, int lifeline)
{
	ac__lifeline_init(&worker->lifeline, lifeline);
	worker->owner_bell = AC__FD_NONE;
	worker->region_fd = worker->bell_fd = -1;
	worker->guard.left = leave_in_child;
	ac__forkguard_add(&worker->guard);
}

int ac__worker_sit(struct ac_worker *worker, const struct ac__board *board,
		   unsigned seat, int lifeline, const struct ac__fd *owner_bell,
		   const char *name)
{
	int r;

	memset(worker, 0, sizeof *worker);
	prepare(worker, lifeline);
	worker->owner_bell = *owner_bell;
	worker->board = *board;
	worker->seat = seat;
	memcpy(row_of(worker)->name, name, sizeof row_of(worker)->name);
	r = take_seat(worker);
	if (r < 0)
		ac__forkguard_remove(&worker->guard);
	return r;
}

/* With the descriptors that came through the socket. */
static int sit_down(struct ac_worker *worker)
{
	int r;

	ac__forkguard_lock();
	worker->owner_bell = ac__fd_of(worker->bell_fd);
	worker->bell_fd = -1;
	ac__forkguard_unlock();
	r = ac__arena_attach(&worker->arena, &worker->region_fd);
	if (r < 0)
		return r;
	worker->attached = true;
	if (worker->seat == AC__OWNER_SEAT ||
	    worker->seat >= worker->arena.seat_count)
		return AC_EVERSION;
	r = ac__board_attach(&worker->board, &worker->arena);
	if (r < 0)
		return r;
	ac__sys_get_name(row_of(worker)->name);
	return take_seat(worker);
}

int ac_worker_open(struct ac_worker **out, int fd)
{
	struct ac_worker *worker;
	int r;

	if (!out || fd < 0)
		return -EINVAL;
	fd = ac__sys_lift(fd);
	if (fd < 0)
		return fd;
	worker = ac__sys_calloc(1, sizeof *worker);
	if (!worker) {
		ac__sys_close(fd);
		return -ENOMEM;
	}
	worker->adopted = true;
	prepare(worker, fd);
	r = ac__socket_enter(fd, &worker->seat, &worker->region_fd, &worker->bell_fd);
	if (r == 0)
		r = sit_down(worker);
	if (r == 0) {
		*out = worker;
		return 0;
	}
	ac_worker_close(worker);
	return r == -EPIPE ? AC_ECLOSED : r;
}

void ac__worker_announce(struct ac_worker *worker, int status, const char *text)
{
	struct ac__seat_shm *row = row_of(worker);

	if (status == 0) {
		ac__seat_say(worker->board.arena, worker->seat, AC__SEAT_READY);
		return;
	}
	snprintf(row->text, sizeof row->text, "%s", text ? text : "");
	ac__seat_say(worker->board.arena, worker->seat, AC__SEAT_REFUSED);
}

int ac_worker_ready(struct ac_worker *worker, int status, const char *text)
{
	if (!worker)
		return -EINVAL;
	if (worker->forked)
		return AC_EFORK;
	ac__worker_announce(worker, status, text);
	return 0;
}

int ac_worker_say(struct ac_worker *worker, const char *text)
{
	if (!worker || !text)
		return -EINVAL;
	if (worker->forked)
		return AC_EFORK;
	snprintf(row_of(worker)->text, AC_TEXT_SIZE, "%s", text);
	return 0;
}

void ac_worker_close(struct ac_worker *worker)
{
	/* One that the template has forked is no allocation, and ends with its process. */
	if (!worker || !worker->adopted)
		return;
	ac__lifeline_disarm(&worker->lifeline);
	/* Before the socket closes, which tells the owner to look. */
	if (worker->attached && worker->board.arena)
		atomic_fetch_or(&row_of(worker)->leaving, AC__LEAVING_CLOSED);
	if (worker->attached)
		ac__arena_close(&worker->arena);
	ac__fd_close(&worker->owner_bell);
	ac__fd_close(&worker->lifeline.sock);
	ac__forkguard_remove(&worker->guard);
	free(worker);
}

/* ---- waiting ---- */

static void count_busy(struct ac_worker *worker, bool busy)
{
	struct ac__seat_shm *row = row_of(worker);
	int64_t now = ac__sys_now();
	int64_t since = atomic_load_explicit(&row->busy_since,
					     memory_order_relaxed);

	worker->idle = !busy;
	if (!busy && since)
		atomic_store_explicit(
			&row->busy_ns,
			atomic_load_explicit(&row->busy_ns,
					     memory_order_relaxed) + now - since,
			memory_order_relaxed);
	atomic_store_explicit(&row->busy_since, busy ? now : 0,
			      memory_order_relaxed);
}

static bool is_closing(struct ac_worker *worker)
{
	return atomic_load(&worker->board.shm->closing) != 0;
}

/*
 * A task may have closed descriptors that are not its own, and their numbers may stand for
 * something else by now. Then the worker can't go on. It checks before it sleeps; the bell when it
 * rings; the region when a part must be mapped: not for each task.
 */
static bool is_stranded(struct ac_worker *worker)
{
	return !ac__fd_is_same(&worker->lifeline.sock) || !ac__fd_is_same(&worker->owner_bell) ||
	       !ac__fd_is_same(&worker->board.arena->region.fd);
}

/* Other processes get the core between polls. */
static int64_t spin(struct ac_worker *worker)
{
	struct ac__board *board = &worker->board;
	int64_t end, task = -1;

	if (!board->shm->spin_ns || !ac__spinner_enter(board, worker->seat))
		return -1;
	end = ac__sys_now() + board->shm->spin_ns;
	do {
		for (int i = 0; task < 0 && i < POLLS_PER_CLOCK; i++) {
			/* Each poll takes the ring's lines from the processes that write them. */
			ac__relax();
			ac__relax();
			task = ac__ring_take(board, worker->seat);
		}
		if (task >= 0 || is_closing(worker))
			break;
		ac__sys_yield();
	} while (ac__sys_now() < end);
	ac__spinner_leave(board, worker->seat);
	return task;
}

/* Once after the pool fell idle, and only if there is memory to give back. */
static int64_t trim_time(struct ac_worker *worker)
{
	if (ac__block_bytes(worker->board.arena) <= KEEP_FREE)
		return INT64_MAX;
	return ac__sys_now() + TRIM_AFTER_NS;
}

static int sleep_until_rung(struct ac_worker *worker)
{
	struct ac__board *board = &worker->board;
	int64_t deadline = trim_time(worker);
	int r;

	if (worker->flushes)
		ac__output_try_flush(); /* tasks' output is seen while the pool is idle */
	if (!ac__idle_enter(board, worker->seat))
		return 0;
	r = ac__bell_sleep(&row_of(worker)->bell, deadline);
	if (r == -ETIMEDOUT) {
		ac__block_trim(board->arena, worker->seat, KEEP_FREE);
		r = ac__bell_sleep(&row_of(worker)->bell, INT64_MAX);
	}
	ac__idle_leave(board, worker->seat);
	return r;
}

/* A task's index, taken at once, after spinning or after sleeping. -1: exit, or, with *interrupted
 * -EINTR, a signal handler ran. */
static int64_t find_task(struct ac_worker *worker, int *interrupted)
{
	for (;;) {
		/* In this order: a task that was published before closing is not left behind. */
		bool closing = is_closing(worker);
		int64_t task = ac__ring_take(&worker->board, worker->seat);

		AC_STEP();
		if (task >= 0 || closing)
			return task;
		/* Only after a busy time is the next task likely to come at once. */
		if (!worker->idle) {
			count_busy(worker, false);
			task = spin(worker);
			if (task >= 0)
				return task;
		}
		worker->stranded = is_stranded(worker);
		if (worker->stranded)
			return -1;
		*interrupted = sleep_until_rung(worker);
		if (*interrupted == -EINTR)
			return -1;
	}
}

/* While this worker was spinning or waking, publishers may have rung no other worker: after an
 * idle time it wakes the next one if there are more tasks. */
static int64_t await_task(struct ac_worker *worker, int *interrupted)
{
	int64_t task = find_task(worker, interrupted);

	if (task >= 0 && worker->idle)
		ac__ring_hand_on(&worker->board);
	return task;
}

int ac_worker_wait(struct ac_worker *worker)
{
	if (!worker)
		return -EINVAL;
	if (worker->forked)
		return AC_EFORK;
	for (;;) {
		bool closing = is_closing(worker);
		int r;

		if (ac__ring_length(&worker->board))
			return 1;
		worker->stranded = is_stranded(worker);
		if (closing || worker->stranded) {
			atomic_fetch_or(&row_of(worker)->leaving, AC__LEAVING_TOLD);
			return 0;
		}
		r = sleep_until_rung(worker);
		if (r == -EINTR)
			return r;
	}
}

/* ---- tasks ---- */

static bool has_to_leave(struct ac_worker *worker)
{
	return worker->condemned || worker->stranded ||
	       atomic_load_explicit(&worker->board.arena->region.lost,
				    memory_order_relaxed) ||
	       (worker->board.shm->recycle && worker->left == 0);
}

static void complete(struct ac_worker *worker, struct ac_call *call)
{
	int r = ac__done_push(&worker->board, worker->seat, call->index);

	AC_STEP();
	/* Not before the push: the audit would take the task for one that the list has lost. */
	atomic_store_explicit(&row_of(worker)->task, 0, memory_order_release);
	if (r > 0)
		worker->stranded = !ac__fd_ring(&worker->owner_bell);
	worker->condemned = r < 0;
}

static void fail_unrun(struct ac_worker *worker, int status)
{
	worker->call.task->status = status;
	ac__call_end(&worker->call, 0);
	complete(worker, &worker->call);
}

int ac_worker_take(struct ac_worker *worker, struct ac_call **call)
{
	int interrupted = 0;

	if (!worker || !call)
		return -EINVAL;
	if (worker->forked)
		return AC_EFORK;
	for (;;) {
		int64_t task = has_to_leave(worker) ? -1 :
						     await_task(worker, &interrupted);
		int r;

		if (task < 0 && interrupted == -EINTR)
			return -EINTR;
		if (task < 0) {
			atomic_fetch_or(&row_of(worker)->leaving, AC__LEAVING_TOLD);
			return 0;
		}
		if (worker->idle)
			count_busy(worker, true);
		r = ac__call_begin(&worker->call, worker, (uint32_t)task);
		if (r == 0) {
			*call = &worker->call;
			return 1;
		}
		/* An earlier task closed the region: this one fails by its worker's end, and may be
		 * retried. */
		if (has_to_leave(worker)) {
			atomic_fetch_or(&row_of(worker)->leaving, AC__LEAVING_TOLD);
			return 0;
		}
		fail_unrun(worker, r);
	}
}

static void count_task(struct ac_worker *worker, uint32_t items)
{
	struct ac__seat_shm *row = row_of(worker);
	uint64_t tasks = atomic_load_explicit(&row->tasks, memory_order_relaxed);

	atomic_store_explicit(&row->tasks, tasks + items, memory_order_relaxed);
	worker->left -= AC__MIN(items, worker->left);
}

static uint32_t items_of(const struct ac__task_shm *task)
{
	uint32_t ended = atomic_load_explicit(&task->current,
					      memory_order_relaxed);

	if (task->kind != AC__KIND_CHUNK)
		return 1;
	return task->status ? ended + 1 : ended; /* the failed item counts too */
}

static void record_event(struct ac_worker *worker, const struct ac_call *call)
{
	struct ac__board *board = &worker->board;
	struct ac__seat_shm *row = row_of(worker);
	uint64_t n = atomic_load_explicit(&row->events, memory_order_relaxed);
	struct ac__event_shm *event = ac__trace_event(board, worker->seat, n);

	/* Release, all of them: see ring.h. */
	atomic_store_explicit(&event->number, call->task->number, memory_order_release);
	atomic_store_explicit(&event->items, items_of(call->task), memory_order_release);
	atomic_store_explicit(&event->start_ns, call->started_ns, memory_order_release);
	atomic_store_explicit(&event->end_ns, ac__sys_now(), memory_order_release);
	atomic_store_explicit(&row->events, n + 1, memory_order_release);
}

void ac_worker_done(struct ac_worker *worker, struct ac_call *call, int value)
{
	/* A child that the task forked has returned from the task: it is no worker. */
	if (!worker || !call || worker->forked)
		return;
	ac__call_end(call, value);
	count_task(worker, items_of(call->task));
	if (worker->board.trace_count)
		record_event(worker, call);
	complete(worker, call);
}

void ac__worker_serve(struct ac_worker *worker)
{
	struct ac_call *call;
	int r;

	while ((r = ac_worker_take(worker, &call)) != 0) {
		if (r == -EINTR)
			continue;
		r = ac_call_run(call);
		if (worker->forked)
			_exit(0);
		ac_worker_done(worker, call, r);
	}
	if (!worker->idle)
		count_busy(worker, false);
}

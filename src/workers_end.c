/* SPDX-License-Identifier: MIT */
/* Noticing that worker processes have ended, and how: see the header. */
#include "workers_end.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "workers_kill.h"

#define POLL_NS INT64_C(100000000)

/* ---- the template's end ---- */

/*
 * From now on the worker is watched, killed and reaped by its pidfd. While the template lived the
 * pid was the worker's. Since then process 1 may have reaped the worker, and the number may be
 * another process's by now. A process that has the socket open is the worker. If none has, a process
 * of this session is taken for it: the worker has inherited the session.
 */
static void learn_pid(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];

	record->pid = atomic_load(&workers->plan.pids[seat]);
	ac__workers_open_pidfd(record);
	if (record->pidfd >= 0 && ac__sys_poll(record->socket.owner_end, 0) == 0 &&
	    getsid(record->pid) != getsid(0))
		ac__forkguard_close(&record->pidfd);
}

static void adopt_orphan(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];
	bool watched;

	record->lost_template = true;
	learn_pid(workers, seat);
	watched = ac__workers_watch_pidfd(workers, seat);
	watched &= ac__workers_watch_socket(workers, seat);
	ac__workers_set_unwatched(workers, record, !watched);
	ac__workers_note_ready(workers, seat);
	record->orphaned = record->state == AC__RECORD_STARTING;
	/* The template may have ended before it read the order. */
	if (record->killed && record->pidfd >= 0)
		ac__sys_pidfd_kill(record->pidfd, SIGKILL);
}

/* Workers go on, and the reserve starts the next ones. */
static void lose_template(struct ac__workers *workers, struct ac__worker_end *end)
{
	*end = (struct ac__worker_end){ .seat = 0, .starts_lost = workers->start_lost };
	workers->start_lost = false;
	ac__sys_epoll_remove(workers->epoll, workers->template.now.socket);
	if (ac__template_replace(&workers->template) && ac__workers_watch_template(workers) < 0)
		ac__template_close(&workers->template);
	workers->template_lost = !ac__workers_has_template(workers);
	if (workers->leaving)
		ac__template_leave(&workers->template);
	for (unsigned seat = 1; seat <= workers->count; seat++) {
		const struct ac__worker_record *record = &workers->records[seat];

		/* A start that has not been ordered yet will be ordered from the reserve. */
		if (record->state == AC__RECORD_ABSENT || record->lost_template || record->in_start)
			continue;
		adopt_orphan(workers, seat);
		end->starts_lost |= record->orphaned;
	}
}

/* ---- ends ---- */

/* Where its parent was faster nobody knows how it ended, but it said that it would leave. */
static bool has_left_in_order(struct ac__arena *arena, unsigned seat,
			      const struct ac__ending *ending)
{
	if (ending->signal || ending->exit_code >= 0)
		return ending->exit_code == 0;
	return atomic_load(&arena->seats[seat].leaving) & AC__LEAVING_TOLD;
}

static void copy_refusal(struct ac__arena *arena, unsigned seat, struct ac__ending *ending)
{
	memcpy(ending->text, arena->seats[seat].text, sizeof ending->text);
	ending->text[sizeof ending->text - 1] = '\0';
}

/* end->ending says how its process ended, as far as that is known. */
static void describe_end(struct ac__workers *workers, unsigned seat, struct ac__worker_end *end)
{
	struct ac__arena *arena = ac__workers_arena(workers);
	const struct ac__worker_record *record = &workers->records[seat];
	struct ac__ending *ending = &end->ending;

	ac__workers_note_ready(workers, seat);
	end->seat = seat;
	end->was_ready = record->state == AC__RECORD_READY;
	end->killed = record->killed;
	end->orphaned = record->orphaned;
	end->unseated = ac__seat_state(arena, seat) == AC__SEAT_INVITED;
	end->refused = ac__seat_state(arena, seat) == AC__SEAT_REFUSED;
	end->left = has_left_in_order(arena, seat, ending);
	ending->seat = seat;
	ac__seat_task(arena, seat, &ending->ran_ns);
	if (!ending->pid)
		ending->pid = record->pid ? record->pid : arena->seats[seat].pid;
	if (end->refused)
		copy_refusal(arena, seat, ending);
	ac__workers_note_last(&workers->records[seat], ending);
}

static bool next_report(struct ac__workers *workers, struct ac__worker_end *end)
{
	struct ac__template_event event;
	int r;

	while ((r = ac__template_next(&workers->template, &event)) == 1) {
		if (event.seat < 1 || event.seat > workers->count ||
		    !ac__workers_is_present(workers, event.seat))
			continue;
		*end = (struct ac__worker_end){ .not_forked = !event.pid };
		end->ending = (struct ac__ending){ .status = AC_EDIED,
						   .exit_code = -1,
						   .pid = event.pid };
		if (event.pid)
			ac__ending_died(&end->ending, event.status, event.peak_rss);
		else if (event.status == 0) /* the pool closes: it has left before it came */
			end->ending.exit_code = 0;
		else
			snprintf(end->ending.text, sizeof end->ending.text, "%s",
				 ac_strerror(event.status));
		describe_end(workers, event.seat, end);
		return true;
	}
	workers->template_noted = false;
	if (r == 0)
		return false;
	lose_template(workers, end);
	return true;
}

/* Of a process that the user started, whose socket has ended. That comes a moment before the kernel
 * can be asked how a process that dies has ended. True: the seat has no process any more. */
static bool follow_closed_socket(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];
	const struct ac__seat_shm *row = &ac__workers_arena(workers)->seats[seat];
	int64_t now = ac__sys_now();

	if (!record->socket_ended_at) {
		record->socket_ended_at = now;
		ac__sys_epoll_remove(workers->epoll, record->socket.owner_end);
		ac__workers_set_unwatched(workers, record, true);
	}
	if (now - record->socket_ended_at < POLL_NS)
		return false;
	if (atomic_load(&row->leaving) & AC__LEAVING_CLOSED)
		return true;
	/* A task has closed its descriptors and goes on. Its lifeline is gone; and if the seat were
	 * filled again, it could complete a task of the next process's. Its pidfd tells of its end;
	 * without one, nothing does. */
	ac__workers_kill(workers, seat);
	return record->pidfd < 0;
}

/* Polls: a tag may be old, since the lock was released after it came. */
static bool poll_end(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];
	bool socket_ended;

	if (record->state == AC__RECORD_ABSENT || record->in_start)
		return false;
	if (record->pidfd >= 0 && ac__sys_poll(record->pidfd, 0) == 0)
		return true;
	socket_ended = ac__sys_poll(record->socket.owner_end, 0) == 0;
	/* Its parent may have reaped it before there was a pidfd; and a process that others forked
	 * while it was started may hold a copy of its socket, which then has no end. */
	if (!socket_ended)
		return record->pidfd < 0 && workers->start && ac__is_gone(record->pid);
	/* The template may have been lost just when it forked this worker, which has since written its
	 * pid down. */
	if (!workers->start && !record->pid)
		learn_pid(workers, seat);
	if (record->pidfd < 0 && (!workers->start || !record->pid || ac__is_gone(record->pid)))
		return true;
	/* A worker that the template forked does not live on without its seat: a task may
	 * have closed its descriptors. The end of its socket would be told of again and again. */
	if (!workers->start) {
		ac__sys_epoll_remove(workers->epoll, record->socket.owner_end);
		ac__workers_set_unwatched(workers, record,
					  !ac__workers_watch_pidfd(workers, seat));
		return ac__sys_poll(record->pidfd, 0) == 0;
	}
	return follow_closed_socket(workers, seat);
}

/* The process of a user's start is the user's to reap. An orphan of the template's has come to
 * this process, where this process is process 1 or a subreaper. */
static void ask_how_it_ended(const struct ac__workers *workers, unsigned seat,
			     struct ac__ending *ending)
{
	const struct ac__worker_record *record = &workers->records[seat];
	uint64_t peak_rss;
	int status;

	ac__ending_ask(ending, record->pid);
	if (!workers->start && record->pid)
		ac__sys_reap_child(record->pid, record->pidfd, &status, &peak_rss);
}

static bool poll_seat(struct ac__workers *workers, unsigned seat, struct ac__worker_end *end)
{
	struct ac__worker_record *record = &workers->records[seat];

	ac__workers_set_noted(workers, record, false);
	if (!poll_end(workers, seat))
		return false;
	*end = (struct ac__worker_end){ 0 };
	ask_how_it_ended(workers, seat, &end->ending);
	describe_end(workers, seat, end);
	return true;
}

/* A user-started process without a pidfd may never have sat down: nothing tells of its end. Its
 * socket is closed, so if it comes yet, it finds that the owner is gone. */
static bool give_up_start(struct ac__workers *workers, unsigned seat, struct ac__worker_end *end)
{
	struct ac__worker_record *record = &workers->records[seat];

	if (!record->killed)
		ac__workers_kill(workers, seat);
	if (!workers->start || record->pidfd >= 0 ||
	    ac__seat_state(ac__workers_arena(workers), seat) != AC__SEAT_INVITED)
		return false;
	*end = (struct ac__worker_end){ 0 };
	end->ending = (struct ac__ending){ .status = AC_EDIED, .exit_code = -1 };
	describe_end(workers, seat, end);
	return true;
}

static bool check_start(struct ac__workers *workers, unsigned seat, int64_t now,
			struct ac__worker_end *end)
{
	struct ac__worker_record *record = &workers->records[seat];

	ac__workers_note_ready(workers, seat);
	if (record->state != AC__RECORD_STARTING || record->in_start)
		return false;
	if (!record->killed && record->ready_by > now)
		return false;
	return give_up_start(workers, seat, end);
}

/* Polling costs a few system calls for each, and every call of the user's comes by here. */
static bool next_polled(struct ac__workers *workers, struct ac__worker_end *end)
{
	int64_t now = ac__sys_now();
	bool poll = workers->unwatched && workers->poll_at <= now;

	for (unsigned seat = 1; seat <= workers->count; seat++) {
		if (workers->starting && check_start(workers, seat, now, end))
			return true;
		if (poll && workers->records[seat].unwatched && poll_seat(workers, seat, end))
			return true;
	}
	if (poll)
		workers->poll_at = now + POLL_NS;
	return false;
}

static bool next_noted(struct ac__workers *workers, struct ac__worker_end *end)
{
	for (unsigned seat = 1; workers->noted && seat <= workers->count; seat++)
		if (workers->records[seat].noted && poll_seat(workers, seat, end))
			return true;
	return false;
}

bool ac__workers_next_end(struct ac__workers *workers, struct ac__worker_end *end)
{
	if (workers->template_noted && ac__workers_has_template(workers) && next_report(workers, end))
		return true;
	workers->template_noted = false;
	if (workers->noted && next_noted(workers, end))
		return true;
	return (workers->starting || workers->unwatched) && next_polled(workers, end);
}

void ac__workers_forget(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];

	if (record->state == AC__RECORD_STARTING)
		workers->starting--;
	else
		workers->ready--;
	ac__workers_close_record(workers, record);
	ac__seat_free(ac__workers_arena(workers), seat);
	if (workers->plan.pids)
		atomic_store(&workers->plan.pids[seat], 0);
	if (!record->lost_template && ac__workers_has_template(workers))
		ac__template_reap_worker(&workers->template, seat);
	record->state = AC__RECORD_ABSENT;
}

void ac__workers_note(struct ac__workers *workers, uint64_t tag)
{
	if (tag == AC__TAG_TEMPLATE)
		workers->template_noted = true;
	else if (tag > AC__TAG_SEAT && tag <= AC__TAG_SEAT + workers->count)
		ac__workers_set_noted(workers, &workers->records[tag - AC__TAG_SEAT], true);
}

int64_t ac__workers_next_check(const struct ac__workers *workers)
{
	int64_t next = workers->unwatched ? workers->poll_at : INT64_MAX;

	if (ac__workers_any_vacant(workers) && !workers->template_lost)
		next = AC__MIN(next, workers->retry_at);
	for (unsigned seat = 1; workers->starting && seat <= workers->count; seat++) {
		const struct ac__worker_record *record = &workers->records[seat];

		if (record->state == AC__RECORD_STARTING && !record->in_start &&
		    !record->killed)
			next = AC__MIN(next, record->ready_by);
	}
	return next;
}

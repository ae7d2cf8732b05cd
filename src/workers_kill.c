/* SPDX-License-Identifier: MIT */
/* Killing worker processes, and letting them leave: see the header. */
#include "workers_kill.h"

#include <errno.h>
#include <signal.h>

#include "procfs.h"

/* A template that has ended is lost, and ac__workers_next_end kills then by the pidfd. */
static int signal_by_template(struct ac__workers *workers, unsigned seat, int signal)
{
	int r = ac__template_signal_worker(&workers->template, seat, signal);

	if (r == -EPIPE || r == -ECONNRESET)
		workers->template_noted = true;
	return r;
}

/* By each way that may reach the process. A byte on its lifeline: the kernel kills that process and no
 * other, and one that has not armed it yet finds the byte. A worker that has closed its end
 * is killed by its parent, the template; by its pidfd where the template is lost or the user
 * started it. */
void ac__workers_kill(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];

	if (record->state == AC__RECORD_ABSENT)
		return;
	record->killed = true;
	if (record->pidfd >= 0 && ac__sys_pidfd_kill(record->pidfd, SIGKILL) == 0)
		return;
	/* The end of what is sent means the same to the worker, and needs no memory. */
	if (ac__sys_send_now(record->socket.owner_end, "", 1, -1) < 0)
		ac__sys_end_sending(record->socket.owner_end);
	if (!record->lost_template && ac__workers_has_template(workers))
		signal_by_template(workers, seat, SIGKILL);
	else if (ac__is_living_child(record->pid))
		kill(record->pid, SIGKILL);
}

/* The pid of the seat's process, 0 where it is not known. */
static pid_t pid_of(const struct ac__workers *workers, unsigned seat)
{
	pid_t pid = workers->records[seat].pid;

	return pid || !workers->plan.pids ? pid : atomic_load(&workers->plan.pids[seat]);
}

/* At once, which an order to the template is not: that comes behind whatever the owner does next. The
 * template may have been killed, and process 1 have reaped the worker: then its end of the socket
 * is closed, and the pid may be another process's. False: by another way. */
static bool signal_by_pid(struct ac__workers *workers, unsigned seat, int signal)
{
	pid_t pid = pid_of(workers, seat);
	int pidfd = pid ? ac__sys_pidfd(pid) : -1;
	bool sent;

	sent = pidfd >= 0 && ac__sys_poll(workers->records[seat].socket.owner_end, 0) != 0 &&
	       ac__sys_pidfd_kill(pidfd, signal) == 0;
	ac__sys_close(AC__MAX(pidfd, -1));
	return sent;
}

int ac__workers_signal(struct ac__workers *workers, unsigned seat, int signal)
{
	struct ac__worker_record *record = &workers->records[seat];

	if (record->pidfd >= 0)
		return ac__sys_pidfd_kill(record->pidfd, signal);
	if (!workers->start && signal_by_pid(workers, seat, signal))
		return 0;
	if (!record->lost_template && ac__workers_has_template(workers))
		return signal_by_template(workers, seat, signal);
	if (!ac__is_living_child(record->pid))
		return -ESRCH;
	return kill(record->pid, signal) < 0 ? -errno : 0;
}

/* Idle workers find by themselves that they are to leave. */
static void stop(struct ac__workers *workers, unsigned seat)
{
	const struct ac__seat_shm *row = &ac__workers_arena(workers)->seats[seat];
	pid_t pid = pid_of(workers, seat);

	ac__workers_note_ready(workers, seat);
	if (atomic_load(&row->leaving) & AC__LEAVING_TOLD)
		return;
	if (pid && ac__procfs_catches(pid, SIGTERM) &&
	    ac__workers_signal(workers, seat, SIGTERM) == 0)
		return;
	if (workers->records[seat].state != AC__RECORD_READY || atomic_load(&row->task))
		ac__workers_kill(workers, seat);
}

void ac__workers_stop_all(struct ac__workers *workers)
{
	for (unsigned seat = 1; seat <= workers->count; seat++)
		if (ac__workers_is_present(workers, seat))
			stop(workers, seat);
}

void ac__workers_kill_all(struct ac__workers *workers)
{
	for (unsigned seat = 1; seat <= workers->count; seat++)
		ac__workers_kill(workers, seat);
}

void ac__workers_kill_unresponsive(struct ac__workers *workers)
{
	for (unsigned seat = 1; seat <= workers->count; seat++) {
		ac__workers_note_ready(workers, seat);
		if (workers->records[seat].state == AC__RECORD_READY &&
		    !(atomic_load(&ac__workers_arena(workers)->seats[seat].leaving) &
		      AC__LEAVING_TOLD))
			ac__workers_kill(workers, seat);
	}
}

bool ac__workers_only_news_missing(const struct ac__workers *workers)
{
	for (unsigned seat = 1; seat <= workers->count; seat++) {
		const struct ac__worker_record *record = &workers->records[seat];

		if (record->state != AC__RECORD_ABSENT && !record->killed &&
		    ac__sys_poll(record->socket.owner_end, 0) != 0)
			return false;
	}
	return true;
}

void ac__workers_dismiss(struct ac__workers *workers)
{
	workers->leaving = true;
	ac__ring_wake_all(workers->board);
	if (!workers->start && ac__workers_has_template(workers))
		ac__template_leave(&workers->template);
}

void ac__workers_dismiss_template(struct ac__workers *workers)
{
	if (ac__workers_has_template(workers))
		ac__template_dismiss(&workers->template);
}

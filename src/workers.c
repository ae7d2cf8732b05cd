/* SPDX-License-Identifier: MIT */
/* The owner's record of its worker processes: opening, closing and watching. See the header. */
#include "workers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define READY_NS (INT64_C(600) * 1000000000)

/* ---- records ---- */

void ac__workers_set_unwatched(struct ac__workers *workers, struct ac__worker_record *record,
			  bool unwatched)
{
	workers->unwatched += unwatched - record->unwatched;
	record->unwatched = unwatched;
}

void ac__workers_set_noted(struct ac__workers *workers, struct ac__worker_record *record, bool noted)
{
	workers->noted += noted - record->noted;
	record->noted = noted;
}

bool ac__workers_watch_socket(struct ac__workers *workers, unsigned seat)
{
	return ac__sys_epoll_add(workers->epoll, workers->records[seat].socket.owner_end,
				 AC__TAG_SEAT + seat, true) == 0;
}

/* True also where there is no pidfd. */
bool ac__workers_watch_pidfd(struct ac__workers *workers, unsigned seat)
{
	int pidfd = workers->records[seat].pidfd;

	int r = 0;

	if (pidfd >= 0)
		r = ac__sys_epoll_add(workers->epoll, pidfd, AC__TAG_SEAT + seat, false);
	return r == 0 || r == -EEXIST;
}

int ac__workers_watch_template(struct ac__workers *workers)
{
	return ac__sys_epoll_add(workers->epoll, workers->template.now.socket, AC__TAG_TEMPLATE,
				 false);
}

void ac__workers_note_last(struct ac__worker_record *record, const struct ac__ending *ending)
{
	record->last_tag = record->tag;
	record->last = *ending;
}

void ac__workers_open_pidfd(struct ac__worker_record *record)
{
	int fd;

	if (!record->pid || record->pidfd >= 0)
		return;
	ac__forkguard_lock();
	fd = ac__sys_pidfd(record->pid);
	record->pidfd = AC__MAX(fd, -1);
	ac__forkguard_unlock();
}

void ac__workers_close_record(struct ac__workers *workers, struct ac__worker_record *record)
{
	ac__workers_set_unwatched(workers, record, false);
	ac__workers_set_noted(workers, record, false);
	ac__sys_epoll_remove(workers->epoll, record->socket.owner_end);
	ac__sys_epoll_remove(workers->epoll, record->pidfd);
	ac__forkguard_close(&record->socket.owner_end);
	ac__forkguard_close(&record->socket.process_end);
	ac__forkguard_close(&record->pidfd);
}

/* Whether a worker is ready is a word that its process writes. The owner reads it when it
 * matters. */
void ac__workers_note_ready(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];

	if (record->state != AC__RECORD_STARTING ||
	    ac__seat_state(ac__workers_arena(workers), seat) != AC__SEAT_READY)
		return;
	record->state = AC__RECORD_READY;
	workers->starting--;
	workers->ready++;
	workers->any_got_ready = true;
}

/* ---- opening and closing ---- */

static void free_pids(struct ac__workers *workers)
{
	ac__template_free_pids(workers->plan.pids, workers->count + 1);
	workers->plan.pids = NULL;
}

int ac__workers_open(struct ac__workers *workers, struct ac__board *board, unsigned count,
		     int epoll, const struct ac_pool_opts *opts,
		     const struct ac__template_plan *plan)
{
	struct ac__worker_record *records;

	workers->board = board;
	workers->count = count;
	workers->epoll = epoll;
	workers->start = opts->start;
	workers->ended = opts->start ? opts->ended : NULL;
	workers->start_arg = opts->start_arg;
	workers->ready_ns = opts->ready_ns ? opts->ready_ns : READY_NS;
	workers->retry_at = INT64_MAX;
	snprintf(workers->name, sizeof workers->name, "%s",
		 opts->name && *opts->name ? opts->name : "allcores");
	workers->plan = *plan;
	workers->plan.name = workers->name;
	if (opts->runtime) {
		workers->runtime = *opts->runtime;
		workers->plan.runtime = &workers->runtime;
	}
	if (!opts->start) {
		workers->plan.pids = ac__template_make_pids(count + 1);
		if (!workers->plan.pids)
			return -ENOMEM;
	}
	records = ac__sys_calloc(count + 1, sizeof *records);
	if (!records) {
		free_pids(workers);
		return -ENOMEM;
	}
	for (unsigned seat = 0; seat <= count; seat++)
		records[seat] = (struct ac__worker_record){ .socket = { -1, -1 }, .pidfd = -1 };
	workers->records = records; /* whole, for a child that is forked meanwhile */
	return 0;
}

void ac__workers_close(struct ac__workers *workers)
{
	struct ac__worker_record *records = workers->records;

	for (unsigned seat = 1; seat <= workers->count; seat++)
		ac__workers_close_record(workers, &records[seat]);
	ac__template_close(&workers->template);
	ac__forkguard_lock();
	workers->records = NULL;
	free_pids(workers);
	ac__forkguard_unlock();
	free(records);
}

/* Of the worker for which this thread is in the user's start function, the process to be forked
 * inherits the socket. */
static bool is_starting_in_this_thread(const struct ac__workers *workers,
				       const struct ac__worker_record *record)
{
	return workers->start && record->in_start && pthread_equal(record->starter, pthread_self());
}

void ac__workers_let_go(struct ac__workers *workers, bool keep_pids)
{
	/* The template keeps the table, and its workers unmap theirs. So this copy of the records
	 * forgets the table: else a child that a task forks would unmap that place once more,
	 * whatever lies there by then. */
	if (keep_pids)
		workers->plan.pids = NULL;
	else
		free_pids(workers);
	for (unsigned seat = 1; workers->records && seat <= workers->count; seat++) {
		struct ac__worker_record *record = &workers->records[seat];

		ac__forkguard_drop(&record->socket.owner_end);
		if (!is_starting_in_this_thread(workers, record))
			ac__forkguard_drop(&record->socket.process_end);
		ac__forkguard_drop(&record->pidfd);
	}
	ac__template_let_go(&workers->template);
}

/* SPDX-License-Identifier: MIT */
/* Starting worker processes, by the template or by the user's function: see the header. */
#include "workers_start.h"

#include <errno.h>

#include "output.h"
#include "workers_kill.h"

/* The socket pair is there; the process is on its way from here on. */
static void begin_record(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];

	record->state = AC__RECORD_STARTING;
	record->killed = record->lost_template = record->orphaned = false;
	record->pid = 0;
	record->socket_ended_at = 0;
	record->tag = 0;
	record->ready_by = ac__sys_deadline(workers->ready_ns);
	record->starts++;
	workers->starting++;
	/* Written anew, in case somebody overwrote it: a worker that finds it set leaves as it
	 * comes. */
	atomic_store(&workers->board->shm->closing, workers->leaving);
	ac__seat_invite(ac__workers_arena(workers), seat);
}

static void undo_record(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];
	/* In a pool that closes it has left before it came. */
	struct ac__ending never = { .status = AC_ESTART, .exit_code = workers->leaving ? 0 : -1 };

	ac__workers_note_last(record, &never);
	ac__workers_close_record(workers, record);
	ac__seat_free(ac__workers_arena(workers), seat);
	record->state = AC__RECORD_ABSENT;
	workers->starting--;
}

/* What a template starts, that template reports. */
static int start_by_template(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];
	int r = ac__template_start(&workers->template, seat, record->tag,
				   record->socket.process_end);

	ac__forkguard_close(&record->socket.process_end);
	if (r == 0)
		return AC__START_DONE;
	undo_record(workers, seat);
	if (r != -EPIPE && r != -ECONNRESET)
		return r;
	/* It has ended. ac__workers_next_end says so; then its reserve takes its place. */
	workers->start_lost = true;
	workers->template_noted = true;
	return AC__START_NONE;
}

static int begin_by_hook(struct ac__workers *workers, unsigned seat, struct ac__start *start)
{
	struct ac__worker_record *record = &workers->records[seat];

	/* One step for a child that another thread forks: see ac__workers_let_go. */
	ac__forkguard_lock();
	record->starter = pthread_self();
	record->in_start = true;
	ac__forkguard_unlock();
	workers->in_runtime = !workers->start;
	*start = (struct ac__start){ .seat = seat, .process_end = record->socket.process_end };
	return AC__START_RUN;
}

static int invite_and_begin(struct ac__workers *workers, unsigned seat, struct ac__start *start)
{
	int r = ac__socket_invite(workers->records[seat].socket.owner_end, seat,
				  &ac__workers_arena(workers)->region.fd,
				  &workers->plan.owner_bell);

	if (r == 0)
		return begin_by_hook(workers, seat, start);
	undo_record(workers, seat);
	return r;
}

static unsigned find_vacant(const struct ac__workers *workers)
{
	for (unsigned seat = 1; seat <= workers->count; seat++)
		if (!ac__workers_is_present(workers, seat))
			return seat;
	return 0;
}

static int begin_seat(struct ac__workers *workers, struct ac__start *start)
{
	unsigned seat = find_vacant(workers);
	int r = ac__socket_open(&workers->records[seat].socket);

	if (r < 0)
		return r;
	begin_record(workers, seat);
	if (workers->start)
		return invite_and_begin(workers, seat, start);
	return workers->runtime.starting ? begin_by_hook(workers, seat, start) :
					   start_by_template(workers, seat);
}

int ac__workers_begin_start(struct ac__workers *workers, struct ac__start *start)
{
	if (!ac__workers_any_vacant(workers))
		return AC__START_NONE;
	if (workers->retry_at != INT64_MAX && workers->retry_at > ac__sys_now())
		return AC__START_NONE;
	/* One start at a time: the runtime's function may call the pool, which would start the next
	 * worker inside of that call, and so on. The thread that is in it starts the others. */
	if (workers->in_runtime)
		return AC__START_NONE;
	workers->retry_at = INT64_MAX;
	/* What the template has sent is read first: it may have ended. */
	if (workers->template_opening || workers->template_noted || workers->template_lost)
		return AC__START_NONE;
	if (workers->start || ac__workers_has_template(workers))
		return begin_seat(workers, start);
	workers->template_opening = true;
	*start = (struct ac__start){ .seat = 0 };
	return AC__START_RUN;
}

void ac__start_run(struct ac__workers *workers, struct ac__start *start)
{
	const struct ac_runtime *runtime = &workers->runtime;

	if (start->seat && workers->start) {
		start->pid = workers->start(workers->start_arg, start->seat - 1,
					    start->process_end);
		return;
	}
	if (start->seat) {
		start->error = runtime->starting(runtime->arg, start->seat - 1, &start->tag);
		return;
	}
	/* What the owner has printed goes out once, and by the owner. A runtime does so itself. */
	if (!workers->plan.runtime)
		ac__output_try_flush();
	start->error = ac__template_open(&workers->template, &workers->plan);
}

static int end_template_start(struct ac__workers *workers, int r)
{
	workers->template_opening = false;
	if (r == 0)
		r = ac__workers_watch_template(workers);
	if (r < 0)
		ac__template_close(&workers->template);
	return r;
}

/* Both are watched: the process may end, and it may leave its seat and live on. Without pidfds,
 * or a pid, the end of its socket tells as much. */
static void watch_user_started(struct ac__workers *workers, unsigned seat)
{
	struct ac__worker_record *record = &workers->records[seat];
	bool watched;

	ac__workers_open_pidfd(record);
	watched = ac__workers_watch_socket(workers, seat);
	watched &= ac__workers_watch_pidfd(workers, seat);
	ac__workers_set_unwatched(workers, record, !watched || (record->pid && record->pidfd < 0));
}

/* The template and its reserve may have been lost meanwhile, or told to leave: then nobody would read
 * the order. */
static int end_runtime_start(struct ac__workers *workers, const struct ac__start *start)
{
	struct ac__worker_record *record = &workers->records[start->seat];
	int r = start->error;

	record->tag = start->tag;
	if (r == 0 && ac__workers_has_template(workers) && !workers->leaving)
		r = start_by_template(workers, start->seat);
	else
		undo_record(workers, start->seat);
	if (record->killed && ac__workers_is_present(workers, start->seat))
		ac__workers_kill(workers, start->seat);
	return AC__MIN(r, 0);
}

int ac__workers_end_start(struct ac__workers *workers, const struct ac__start *start)
{
	struct ac__worker_record *record = &workers->records[start->seat];

	if (!start->seat)
		return end_template_start(workers, start->error);
	record->in_start = workers->in_runtime = false;
	if (!workers->start)
		return end_runtime_start(workers, start);
	ac__forkguard_close(&record->socket.process_end);
	if (start->pid < 0 && ac__seat_withdraw(ac__workers_arena(workers), start->seat)) {
		undo_record(workers, start->seat);
		return start->pid;
	}
	/* A process that has come although start failed is there, and may have work. */
	record->pid = AC__MAX(start->pid, 0);
	watch_user_started(workers, start->seat);
	if (record->killed)
		ac__workers_kill(workers, start->seat);
	return 0;
}

void ac__workers_retry_later(struct ac__workers *workers, int64_t pause_ns)
{
	int64_t at = ac__sys_now() + pause_ns;

	workers->retry_at = workers->retry_at == INT64_MAX ? at : AC__MAX(workers->retry_at, at);
}

/* Starts whose template is gone may never have been forked. */
bool ac__workers_any_coming(const struct ac__workers *workers)
{
	for (unsigned seat = 1; seat <= workers->count; seat++)
		if (workers->records[seat].state == AC__RECORD_STARTING &&
		    !workers->records[seat].orphaned)
			return true;
	return false;
}

bool ac__workers_take_got_ready(struct ac__workers *workers)
{
	bool any;

	for (unsigned seat = 1; seat <= workers->count; seat++)
		ac__workers_note_ready(workers, seat);
	any = workers->any_got_ready;
	workers->any_got_ready = false;
	return any;
}

/* SPDX-License-Identifier: MIT */
/*
 * The crew: which process sits in which seat. Workers are started through the
 * template (or by the user's start), watched, buried in a fixed order, replaced.
 *
 * A death, once the kernel says that the process is gone:
 *	1 empty the done list		what it completed counts
 *	2 scan the words for its seat	DONE: delivered; TAKEN: failed or retried
 *	3 free its blocks, end its leases
 *	4 clear it from the directory, free the seat
 *	5 ring all that sleep, whether anything is READY or not
 *	6 start a replacement
 * 1 before 2, since a DONE word is settled from the list or, when it never got there,
 * by the scan: never twice.
 * 3 after 2, since delivering moves a block to the owner. 4 after 2: a word names a seat, and
 * must not name its next process. 5 after 4: it may have eaten a wake-up, or have
 * been the one who spun; and it may have cleared a sleeper's bit and not rung it,
 * who would then sleep through what comes later.
 */
#include "pool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "socket.h"

/* Starts in a row that come to nothing, while nobody is ready: enough. While others are on
 * their way, one more for each seat, since those may end in the same way. */
#define BAD_STARTS_MOST 3
#define IDLE_ENDS_MOST 100
#define LOOK_NS INT64_C(100000000)
#define RETRY_NS INT64_C(1000000000)
#define READY_NS (INT64_C(600) * 1000000000)

static void lose_template(struct ac_pool *pool);

/* ---- watching ---- */

static uint64_t tag_of(unsigned seat)
{
	return AC__TAG_MEMBER + seat;
}

static void note_unwatched(struct ac_pool *pool, struct ac__member *member, bool unwatched)
{
	pool->unwatched += unwatched - member->unwatched;
	member->unwatched = unwatched;
}

/* A forked worker's socket, now that nobody reports its end. */
static void watch_end(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];

	note_unwatched(pool, member,
		       ac__sys_epoll_add(pool->epoll, member->socket.owner_end,
					 tag_of(seat), true) < 0);
}

static void close_member(struct ac_pool *pool, struct ac__member *member)
{
	note_unwatched(pool, member, false);
	ac__sys_epoll_remove(pool->epoll, member->socket.owner_end);
	ac__sys_epoll_remove(pool->epoll, member->pidfd);
	ac__forkguard_close(&member->socket.owner_end);
	ac__forkguard_close(&member->pidfd);
}

/* READY is a word that the process writes: looked at when it matters. */
static void note_ready(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];

	if (member->state == AC__MEMBER_STARTING &&
	    ac__seat_state(ac__pool_arena(pool), seat) == AC__SEAT_READY) {
		member->state = AC__MEMBER_PRESENT;
		pool->starting--;
		pool->present++;
		pool->bad_starts = 0;
	}
}

/* ---- starting ---- */

static int open_template(struct ac_pool *pool)
{
	int r = ac__template_open(&pool->template, &pool->plan);

	if (r < 0)
		return r;
	r = ac__sys_epoll_add(pool->epoll, pool->template.socket.owner_end,
			      AC__TAG_TEMPLATE, false);
	if (r < 0)
		ac__template_close(&pool->template);
	return r;
}

/* Both: the process may end, and it may leave its seat and live on. Without pidfds, or
 * a pid, the end of its socket tells as much. */
static void watch_adopted(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];
	int r, s = 0;

	ac__forkguard_lock();
	if (member->pid)
		member->pidfd = ac__sys_pidfd(member->pid);
	ac__forkguard_unlock();
	r = ac__sys_epoll_add(pool->epoll, member->socket.owner_end, tag_of(seat), true);
	if (member->pidfd >= 0)
		s = ac__sys_epoll_add(pool->epoll, member->pidfd, tag_of(seat), false);
	note_unwatched(pool, member, r < 0 || s < 0 || (member->pid && member->pidfd < 0));
}

/* The user's function may take time and call us: not under the lock. */
static int start_adopted(struct ac_pool *pool, unsigned seat, int process_end)
{
	struct ac__member *member = &pool->crew[seat];
	pid_t pid;
	int r = ac__socket_invite(member->socket.owner_end, seat,
				&ac__pool_arena(pool)->region.fd, &pool->bell[1]);

	if (r < 0)
		return r;
	member->in_start = true;
	ac__pool_unlock(pool);
	pid = pool->start(pool->start_arg, seat - 1, process_end);
	ac__pool_lock(pool);
	member->in_start = false;
	if (pid < 0 && ac__seat_withdraw(ac__pool_arena(pool), seat))
		return pid;
	/* One that has come although start failed is there, and may have work. */
	member->pid = AC__MAX(pid, 0);
	watch_adopted(pool, seat);
	if ((pool->terminated || member->doomed))
		ac__crew_kill(pool, seat);
	return 0;
}

/* What a template starts it reports: heard of twice, a death would be taken for the next
 * process's too. */
static void leave_to_template(struct ac_pool *pool, struct ac__member *member)
{
	ac__sys_epoll_remove(pool->epoll, member->socket.owner_end);
	note_unwatched(pool, member, false);
	member->orphaned = false;
}

static int start_forked(struct ac_pool *pool, unsigned seat, int process_end)
{
	int r = ac__template_start(&pool->template, seat, process_end);

	/* It died with the worker that is being replaced. */
	if (r != -EPIPE && r != -ECONNRESET)
		return r;
	lose_template(pool);
	leave_to_template(pool, &pool->crew[seat]);
	r = open_template(pool);
	return r < 0 ? r : ac__template_start(&pool->template, seat, process_end);
}

static int start_member(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];
	int r = 0;

	if (!pool->start && pool->template.socket.owner_end < 0)
		r = open_template(pool);
	if (r == 0)
		r = ac__socket_open(&member->socket);
	if (r < 0)
		return r;
	member->state = AC__MEMBER_STARTING;
	member->doomed = member->orphaned = false;
	member->pid = 0;
	member->left_at = 0;
	member->ready_by = ac__sys_deadline(pool->ready_ns);
	member->starts++;
	pool->starting++;
	/* Ours to say: where somebody overwrote it, workers would leave as they come. */
	atomic_store(&pool->board.shm->closing, pool->closing);
	ac__seat_invite(ac__pool_arena(pool), seat);
	r = pool->start ? start_adopted(pool, seat, member->socket.process_end) :
			  start_forked(pool, seat, member->socket.process_end);
	ac__forkguard_close(&member->socket.process_end);
	if (r < 0) {
		close_member(pool, member);
		ac__seat_free(ac__pool_arena(pool), seat);
		member->state = AC__MEMBER_ABSENT;
		pool->starting--;
	}
	return r;
}

/* Those whose template is gone may never have been forked. */
static bool is_any_on_its_way(struct ac_pool *pool)
{
	for (unsigned seat = 1; seat <= pool->workers; seat++)
		if (pool->crew[seat].state == AC__MEMBER_STARTING &&
		    !pool->crew[seat].orphaned)
			return true;
	return false;
}

/*
 * Who is ready, or may yet be, is worth waiting for. A start that the system refused says
 * nothing of those on their way, however often it is: it is not counted then. A process
 * that ended does: they may end like it, and each be excused by the next.
 */
static bool wait_for_others(struct ac_pool *pool, bool refused)
{
	bool coming = is_any_on_its_way(pool);

	if (pool->present || (refused && coming))
		pool->bad_starts--;
	else if (!coming || pool->bad_starts >= BAD_STARTS_MOST + pool->workers)
		return false;
	pool->retry_at = ac__sys_now() + RETRY_NS;
	return true;
}

/* A seat that could not be filled: refused by the system, or its process has ended. */
static void note_bad_start(struct ac_pool *pool, bool refused, const char *why)
{
	char text[AC_TEXT_SIZE];

	for (unsigned seat = 1; seat <= pool->workers; seat++)
		note_ready(pool, seat);
	pool->bad_starts++;
	if (pool->bad_starts < BAD_STARTS_MOST || wait_for_others(pool, refused))
		return;
	snprintf(text, sizeof text, "no worker becomes ready: %s", why);
	ac__pool_fail(pool, AC_ESTART, text);
}

/* Ready, and gone with nothing done: again and again in quick succession it will not
 * get better, and nobody is to wait for it. */
static void note_idle_end(struct ac_pool *pool, const char *why)
{
	uint64_t settled = atomic_load(&pool->settled);
	int64_t now = ac__sys_now();
	char text[AC_TEXT_SIZE];

	if (settled != pool->idle_settled || now - pool->idle_end_at > RETRY_NS)
		pool->idle_ends = 0;
	pool->idle_settled = settled;
	pool->idle_end_at = now;
	pool->idle_ends++;
	if (pool->idle_ends < IDLE_ENDS_MOST + pool->workers)
		return;
	snprintf(text, sizeof text, "workers end before they take any work: %.100s", why);
	ac__pool_fail(pool, AC_ESTART, text);
}

static bool wants_workers(struct ac_pool *pool)
{
	return !pool->failure.status && !pool->terminated && !pool->closing;
}

static void restart(struct ac_pool *pool, unsigned seat)
{
	while (wants_workers(pool) && pool->retry_at == INT64_MAX) {
		int r = start_member(pool, seat);

		if (r == 0)
			return;
		note_bad_start(pool, true, ac_strerror(r));
	}
}

static void fill_vacant(struct ac_pool *pool)
{
	pool->retry_at = INT64_MAX;
	for (unsigned seat = 1; seat <= pool->workers; seat++)
		if (pool->crew[seat].state == AC__MEMBER_ABSENT)
			restart(pool, seat);
}

/* ---- deaths ---- */

static void note_refusal(struct ac_pool *pool, unsigned seat)
{
	char text[AC_TEXT_SIZE];

	memcpy(text, ac__pool_arena(pool)->seats[seat].text, sizeof text);
	text[sizeof text - 1] = '\0';
	ac__pool_fail(pool, AC_ESTART, text[0] ? text : "a worker would not start");
}

static void forget_member(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];

	if (member->state == AC__MEMBER_STARTING)
		pool->starting--;
	else
		pool->present--;
	close_member(pool, member);
	member->state = AC__MEMBER_ABSENT;
}

/* As it was told to. Where its parent was faster nobody knows how it ended, but it said so. */
static bool has_left_properly(struct ac__arena *arena, unsigned seat,
			      const struct ac__ending *ending)
{
	if (ending->signal || ending->exit_code >= 0)
		return ending->exit_code == 0;
	return atomic_load(&arena->seats[seat].leaving);
}

/* The six steps above. */
static void bury(struct ac_pool *pool, unsigned seat, struct ac__ending *ending)
{
	struct ac__arena *arena = ac__pool_arena(pool);
	struct ac__member *member = &pool->crew[seat];
	bool refused = ac__seat_state(arena, seat) == AC__SEAT_REFUSED;
	bool was_ready, held, left;

	AC_STEP();
	note_ready(pool, seat);
	was_ready = member->state == AC__MEMBER_PRESENT;
	ending->seat = seat;
	ac__seat_task(arena, seat, &ending->ran_ns);
	if (!ending->pid)
		ending->pid = member->pid ? member->pid : arena->seats[seat].pid;
	left = has_left_properly(arena, seat, ending);
	ac__books_collect(pool);				/* 1 */
	held = ac__books_bury(pool, seat, ending);		/* 2 */
	ac__block_reclaim(arena, seat);				/* 3 */
	ac__ring_forget_seat(&pool->board, seat);		/* 4 */
	ac__seat_free(arena, seat);
	forget_member(pool, seat);
	ac__ring_wake_all(&pool->board);			/* 5 */
	if (!member->doomed && (held || !left))
		pool->deaths++;
	if (refused)
		note_refusal(pool, seat);
	else if (!was_ready && !member->orphaned && wants_workers(pool))
		note_bad_start(pool, !pool->start && !ending->pid,
			       member->doomed ? "it was not ready in time" :
						ending->text);
	else if (was_ready && !held && !member->doomed && wants_workers(pool))
		note_idle_end(pool, ending->text);
	restart(pool, seat);					/* 6 */
}

/* It went with the last of its workers, as it was told to. */
static void note_all_gone(struct ac_pool *pool)
{
	struct ac__ending ending = { .status = AC_EDIED, .exit_code = -1 };

	ac__books_collect(pool);
	for (unsigned seat = 1; seat <= pool->workers; seat++) {
		if (pool->crew[seat].state == AC__MEMBER_ABSENT)
			continue;
		ac__books_bury(pool, seat, &ending);
		forget_member(pool, seat);
	}
}

/* Starts that end with their template are one bad start, not one each. */
static bool orphan(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];

	note_ready(pool, seat);
	member->orphaned = member->state == AC__MEMBER_STARTING;
	return member->orphaned;
}

/* Workers go on; those that end from now on are noticed by their sockets. */
static void lose_template(struct ac_pool *pool)
{
	bool orphaned = false;

	ac__sys_epoll_remove(pool->epoll, pool->template.socket.owner_end);
	if (ac__template_close(&pool->template) && pool->closing) {
		note_all_gone(pool);
		return;
	}
	for (unsigned seat = 1; seat <= pool->workers; seat++)
		if (pool->crew[seat].state != AC__MEMBER_ABSENT) {
			orphaned |= orphan(pool, seat);
			watch_end(pool, seat);
		}
	if (orphaned && wants_workers(pool))
		note_bad_start(pool, false, "the process that starts them ended");
}

static void attend_template(struct ac_pool *pool)
{
	struct ac__template_event event;
	int r;

	while ((r = ac__template_next(&pool->template, &event)) == 1) {
		struct ac__ending ending = { .status = AC_EDIED,
					     .exit_code = -1,
					     .pid = event.pid };

		if (event.seat < 1 || event.seat > pool->workers ||
		    pool->crew[event.seat].state == AC__MEMBER_ABSENT)
			continue;
		if (event.pid)
			ac__ending_died(&ending, event.status, event.peak_rss);
		else
			snprintf(ending.text, sizeof ending.text, "%s",
				 ac_strerror(event.status));
		bury(pool, event.seat, &ending);
	}
	if (r < 0)
		lose_template(pool);
}

/* Its socket has ended. That comes a moment before a process that dies can be asked how;
 * one that is still there after that has left its seat and lives on. */
static bool has_left(struct ac_pool *pool, struct ac__member *member)
{
	int64_t now = ac__sys_now();

	if (!member->left_at) {
		member->left_at = now;
		ac__sys_epoll_remove(pool->epoll, member->socket.owner_end);
		note_unwatched(pool, member, true);
	}
	return now - member->left_at >= LOOK_NS;
}

/* A tag may be old: the lock was given up since, and somebody else has seen to it. */
static bool has_ended(struct ac_pool *pool, struct ac__member *member)
{
	if (member->state == AC__MEMBER_ABSENT || member->in_start)
		return false;
	if (member->pidfd >= 0 && ac__sys_poll(member->pidfd, 0) == 0)
		return true;
	/* Its parent may have reaped it before there was a pidfd; and a process that others forked
	 * while it was started may hold a copy of its socket, which then has no end. */
	if (ac__sys_poll(member->socket.owner_end, 0) != 0)
		return member->pidfd < 0 && ac__is_gone(member->pid);
	return member->pidfd < 0 || has_left(pool, member);
}

static void attend_member(struct ac_pool *pool, unsigned seat)
{
	struct ac__ending ending = { 0 };

	if (seat > pool->workers || !has_ended(pool, &pool->crew[seat]))
		return;
	ac__ending_ask(&ending, pool->crew[seat].pid);
	bury(pool, seat, &ending);
}

void ac__crew_attend(struct ac_pool *pool, uint64_t tag)
{
	if (tag == AC__TAG_TEMPLATE)
		attend_template(pool);
	else if (tag >= AC__TAG_MEMBER)
		attend_member(pool, (unsigned)(tag - AC__TAG_MEMBER));
}

/* ---- what time brings ---- */

/* An adopted process without a pidfd may never have sat down: nothing tells of its end,
 * so it is buried alive. Its socket is closed: if it comes after all, it finds that the owner is gone. */
static void give_up_start(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];
	struct ac__ending ending = { .status = AC_EDIED, .exit_code = -1 };

	if (!member->doomed)
		ac__crew_kill(pool, seat);
	if (pool->start && member->pidfd < 0 &&
	    ac__seat_state(ac__pool_arena(pool), seat) == AC__SEAT_INVITED)
		bury(pool, seat, &ending);
}

static int64_t check_start(struct ac_pool *pool, unsigned seat, int64_t now)
{
	struct ac__member *member = &pool->crew[seat];

	note_ready(pool, seat);
	if (member->state != AC__MEMBER_STARTING || member->in_start)
		return INT64_MAX;
	if (!member->doomed && member->ready_by > now)
		return member->ready_by;
	give_up_start(pool, seat);
	return INT64_MAX;
}

/* Asking costs a few system calls for each, and every call of the user's comes by here. */
static bool is_time_to_look(struct ac_pool *pool, int64_t now)
{
	if (!pool->unwatched || pool->look_at > now)
		return false;
	pool->look_at = now + LOOK_NS;
	return true;
}

int64_t ac__crew_check(struct ac_pool *pool, int64_t now)
{
	int64_t next;
	bool look;

	if (pool->retry_at <= now)
		fill_vacant(pool);
	next = pool->retry_at;
	look = is_time_to_look(pool, now);
	for (unsigned seat = 1; (pool->starting || look) && seat <= pool->workers; seat++) {
		int64_t ready_by = check_start(pool, seat, now);

		next = AC__MIN(next, ready_by);
		if (look && pool->crew[seat].unwatched)
			attend_member(pool, seat);
	}
	return pool->unwatched ? AC__MIN(next, pool->look_at) : next;
}

/* ---- stopping ---- */

void ac__crew_kill(struct ac_pool *pool, unsigned seat)
{
	struct ac__member *member = &pool->crew[seat];

	if (member->state == AC__MEMBER_ABSENT)
		return;
	member->doomed = true;
	if (member->pidfd >= 0 &&
	    ac__sys_pidfd_kill(member->pidfd, SIGKILL) == 0)
		return;
	/* A byte on its lifeline: the kernel kills it, and nobody else, and
	 * we still see its end. One that has not armed it yet finds the byte. */
	if (ac__sys_send(member->socket.owner_end, "", 1, -1) < 0)
		ac__sys_end_sending(member->socket.owner_end); /* the same to it, and needs no memory */
	if (ac__is_living_child(member->pid))
		kill(member->pid, SIGKILL);
}

void ac__crew_kill_all(struct ac_pool *pool)
{
	for (unsigned seat = 1; seat <= pool->workers; seat++)
		ac__crew_kill(pool, seat);
}

void ac__crew_kill_deaf(struct ac_pool *pool)
{
	for (unsigned seat = 1; seat <= pool->workers; seat++) {
		note_ready(pool, seat);
		if (pool->crew[seat].state == AC__MEMBER_PRESENT &&
		    !atomic_load(&ac__pool_arena(pool)->seats[seat].leaving))
			ac__crew_kill(pool, seat);
	}
}

bool ac__crew_is_overdue(struct ac_pool *pool)
{
	for (unsigned seat = 1; seat <= pool->workers; seat++) {
		const struct ac__member *member = &pool->crew[seat];

		if (member->state != AC__MEMBER_ABSENT && !member->doomed &&
		    ac__sys_poll(member->socket.owner_end, 0) != 0)
			return false;
	}
	return true;
}

void ac__crew_dismiss(struct ac_pool *pool)
{
	ac__ring_wake_all(&pool->board);
	if (!pool->start)
		ac__template_leave(&pool->template);
}

bool ac__crew_gone(struct ac_pool *pool)
{
	return pool->starting == 0 && pool->present == 0;
}

void ac__crew_let_go(struct ac_pool *pool)
{
	for (unsigned seat = 1; pool->crew && seat <= pool->workers; seat++) {
		ac__forkguard_drop(&pool->crew[seat].socket.owner_end);
		/* What the user's start forks is to inherit it. */
		if (!pool->crew[seat].in_start)
			ac__forkguard_drop(&pool->crew[seat].socket.process_end);
		ac__forkguard_drop(&pool->crew[seat].pidfd);
	}
	ac__forkguard_drop(&pool->template.socket.owner_end);
	ac__forkguard_drop(&pool->template.socket.process_end);
}

/* ---- opening and closing ---- */

static void make_plan(struct ac_pool *pool, const struct ac_pool_opts *opts)
{
	snprintf(pool->name, sizeof pool->name, "%s",
		 opts->name && *opts->name ? opts->name : "allcores");
	pool->plan = (struct ac__template_plan){
		.board = &pool->board,
		.owner_bell = pool->bell[1],
		.init = opts->init,
		.init_arg = opts->init_arg,
		.name = pool->name,
		.guard = &pool->guard,
		.let_go = ac__pool_let_go,
		.let_go_arg = pool,
	};
}

int ac__crew_open(struct ac_pool *pool, const struct ac_pool_opts *opts)
{
	struct ac__member *crew;
	int r = 0;

	pool->start = opts->start;
	pool->start_arg = opts->start_arg;
	pool->ready_ns = opts->ready_ns ? opts->ready_ns : READY_NS;
	pool->retry_at = INT64_MAX;
	crew = ac__sys_calloc(pool->workers + 1, sizeof *crew);
	if (!crew)
		return -ENOMEM;
	for (unsigned seat = 0; seat <= pool->workers; seat++)
		crew[seat] = (struct ac__member){ .socket = { -1, -1 }, .pidfd = -1 };
	pool->crew = crew; /* whole, for who forks meanwhile */
	make_plan(pool, opts);
	for (unsigned seat = 1; r == 0 && seat <= pool->workers; seat++)
		r = start_member(pool, seat);
	if (r < 0)
		ac__crew_close(pool);
	return r;
}

void ac__crew_close(struct ac_pool *pool)
{
	struct ac__member *crew;

	for (unsigned seat = 1; seat <= pool->workers; seat++)
		close_member(pool, &pool->crew[seat]);
	ac__template_close(&pool->template);
	crew = pool->crew;
	pool->crew = NULL;
	free(crew);
}

/* SPDX-License-Identifier: MIT */
/*
 * The process from which workers are forked. Its loop waits for two things in
 * one place: orders on its socket, and the ends of its children (SIGCHLD is
 * let in only while it sleeps). Reports wait in a table until the socket takes them, so
 * that owner and template never wait for each other.
 */
#define _GNU_SOURCE
#include "template.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "socket.h"
#include "output.h"
#include "sys.h"
#include "worker.h"

/* LEAVE: the workers were told to leave; go with the last, and report nothing. */
enum order_kind { ORDER_START, ORDER_LEAVE };

struct order {
	uint32_t kind;
	uint32_t seat;
};

/* One for each seat. */
struct child {
	pid_t pid;	/* 0: none */
	bool report;	/* event is to be sent */
	struct ac__template_event event;
};

struct room {
	const struct ac__template_plan *plan;
	int sock;
	struct child *children;
	uint32_t seats;
	uint32_t reports;	/* how many are to be sent */
	uint32_t alive;
	bool leaving;
	sigset_t user_mask;	/* as it was in the owner */
	struct sigaction user_chld;
};

/* ---- a worker ---- */

static void restore_signals(const struct room *room)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigaction(SIGCHLD, &room->user_chld, NULL);
	/* What Ctrl-C means is the owner's to decide. */
	sigaction(SIGINT, &ignore, NULL);
	sigprocmask(SIG_SETMASK, &room->user_mask, NULL);
}

static void make_name(char text[16], const char *name, unsigned number)
{
	char digits[12];
	int n = snprintf(digits, sizeof digits, "-%u", number);

	snprintf(text, 16, "%.*s%s", 15 - n, name, digits);
}

static int run_init(const struct ac__template_plan *plan, struct ac_worker *worker)
{
	char text[AC_TEXT_SIZE];
	int value = plan->init ? plan->init(plan->init_arg) : 0;

	if (value)
		snprintf(text, sizeof text, "the initialiser returned %d", value);
	ac__worker_announce(worker, value, value ? text : NULL);
	return value;
}

__attribute__((noreturn)) static void
be_worker(struct room *room, unsigned seat, int lifeline, const char *name)
{
	const struct ac__template_plan *plan = room->plan;
	static struct ac_worker worker;

	ac__sys_close(room->sock);
	ac__forkguard_remove(plan->guard);
	restore_signals(room);
	ac__sys_name(name);
	if (ac__worker_sit(&worker, plan->board, seat, lifeline,
			   &plan->owner_bell, name) < 0)
		_exit(127);
	if (run_init(plan, &worker) == 0)
		ac__worker_serve(&worker);
	ac__output_flush();
	_exit(0);
}

/* ---- the template's loop ---- */

static void note_report(struct room *room, uint32_t seat, pid_t pid, int status,
			uint64_t peak_rss)
{
	struct child *child = &room->children[seat];

	if (!child->report)
		room->reports++;
	child->report = true;
	child->event = (struct ac__template_event){ .seat = seat,
						    .pid = pid,
						    .status = status,
						    .peak_rss = peak_rss };
}

static void start_child(struct room *room, uint32_t seat, int lifeline)
{
	char name[16];
	pid_t pid;

	/* The pool closes already: nobody will miss this one. */
	if (atomic_load(&room->plan->board->shm->closing)) {
		ac__sys_close(lifeline);
		note_report(room, seat, 0, 0, 0);
		return;
	}
	make_name(name, room->plan->name, seat - 1);
	pid = ac__forkguard_fork(room->plan->guard->group);
	if (pid == 0)
		be_worker(room, seat, lifeline, name);
	ac__sys_close(lifeline);
	if (pid < 0) {
		note_report(room, seat, 0, pid, 0);
		return;
	}
	room->children[seat].pid = pid;
	room->alive++;
}

/* While the workers end: a copy of a large owner takes long to tear down. */
static void prepare_to_leave(struct room *room)
{
	const void *keep[] = { room->children, room->plan, room->plan->board,
			       room->plan->board->arena, NULL };

	room->leaving = true;
	ac__sys_shed(keep);
}

/* False: the owner is gone. */
static bool take_orders(struct room *room)
{
	struct order order;
	int fd, r;

	while ((r = ac__sys_receive(room->sock, &order, sizeof order, &fd,
				    true)) > 0) {
		if (r != sizeof order || order.seat >= room->seats)
			ac__sys_close(fd);
		else if (order.kind == ORDER_LEAVE)
			prepare_to_leave(room);
		else
			start_child(room, order.seat, fd);
	}
	return r == -EAGAIN;
}

static void note_end(struct room *room, pid_t pid, int status, uint64_t peak_rss)
{
	for (uint32_t seat = 0; seat < room->seats; seat++)
		if (room->children[seat].pid == pid) {
			room->children[seat].pid = 0;
			room->alive--;
			note_report(room, seat, pid, status, peak_rss);
			return;
		}
}

static void reap(struct room *room)
{
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
		note_end(room, pid, status, ac__sys_peak_rss(&usage));
}

static void send_reports(struct room *room)
{
	for (uint32_t seat = 0; room->reports && seat < room->seats; seat++) {
		struct child *child = &room->children[seat];

		if (!child->report)
			continue;
		if (send(room->sock, &child->event, sizeof child->event,
			 MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return;
		child->report = false;
		room->reports--;
	}
}

static void ignore_signal(int signal)
{
	(void)signal;
}

/* Before the fork, in the owner's thread, so that no handler of the user's
 * ever runs in the template: it lets in SIGCHLD alone, while it sleeps. */
static void block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static void sleep_for_news(struct room *room)
{
	struct pollfd p = { .fd = room->sock, .events = POLLIN };
	sigset_t but_chld;

	if (room->reports && !room->leaving)
		p.events |= POLLOUT;
	sigfillset(&but_chld);
	sigdelset(&but_chld, SIGCHLD);
	ppoll(&p, 1, NULL, &but_chld);
}

/*
 * Calls that each worker makes, without effect: what the dynamic linker looks up at
 * a function's first call is then found once, here, and not in every worker.
 */
static void rehearse(void)
{
	_Atomic uint32_t word = 1;
	char name[16];

	sigaction(SIGINT, NULL, &(struct sigaction){ 0 });
	sigprocmask(SIG_BLOCK, NULL, &(sigset_t){ 0 });
	ac__sys_get_name(name);
	ac__sys_lifeline(-1);
	ac__sys_poll(-1, 0);
	ac__sys_futex_wait(&word, 0, 0);
	ac__sys_yield();
	getpid();
	ac__output_try_flush();
}

__attribute__((noreturn)) static void
be_template(const struct ac__template_plan *plan, struct ac__template *template,
	    struct room *room)
{
	struct sigaction note = { .sa_handler = ignore_signal };
	char name[16];

	ac__output_discard();
	room->plan = plan;
	room->sock = template->socket.process_end;
	template->socket.process_end = -1;
	sigaction(SIGCHLD, &note, &room->user_chld);
	plan->let_go(plan->let_go_arg);
	snprintf(name, sizeof name, "%.14s*", plan->name);
	ac__sys_name(name);
	rehearse();
	while (take_orders(room)) {
		reap(room);
		if (room->leaving && !room->alive)
			_exit(0);
		if (!room->leaving)
			send_reports(room);
		sleep_for_news(room);
	}
	for (uint32_t seat = 0; seat < room->seats; seat++)
		if (room->children[seat].pid)
			kill(room->children[seat].pid, SIGKILL);
	while (wait(NULL) > 0)
		;
	_exit(0);
}

/* ---- the owner's side ---- */

int ac__template_open(struct ac__template *template,
		      const struct ac__template_plan *plan)
{
	struct room room = { .seats = plan->board->arena->seat_count };
	int r;

	room.children = ac__sys_calloc(room.seats, sizeof *room.children);
	if (!room.children)
		return -ENOMEM;
	r = ac__socket_open(&template->socket);
	if (r < 0)
		goto err_children;
	ac__output_try_flush();
	block_signals(&room.user_mask);
	r = ac__forkguard_fork(plan->guard->group);
	if (r == 0)
		be_template(plan, template, &room);
	pthread_sigmask(SIG_SETMASK, &room.user_mask, NULL);
	ac__forkguard_close(&template->socket.process_end);
	if (r > 0) {
		template->pid = r;
		r = 0;
	} else {
		ac__forkguard_close(&template->socket.owner_end);
	}
err_children:
	free(room.children);
	return r;
}

static int send_order(struct ac__template *template, enum order_kind kind,
		      unsigned seat, int fd)
{
	struct order order = { .kind = kind, .seat = seat };

	if (template->socket.owner_end < 0)
		return -EPIPE;
	return ac__sys_send(template->socket.owner_end, &order, sizeof order, fd);
}

int ac__template_start(struct ac__template *template, unsigned seat, int process_end)
{
	return send_order(template, ORDER_START, seat, process_end);
}

int ac__template_leave(struct ac__template *template)
{
	return send_order(template, ORDER_LEAVE, 0, -1);
}

int ac__template_next(struct ac__template *template, struct ac__template_event *event)
{
	int fd, r;

	if (template->socket.owner_end < 0)
		return -EPIPE;
	r = ac__sys_receive(template->socket.owner_end, event, sizeof *event, &fd, true);
	ac__sys_close(fd);
	if (r == -EAGAIN)
		return 0;
	return r == sizeof *event ? 1 : -EPIPE;
}

void ac__template_kill(struct ac__template *template)
{
	if (template->socket.owner_end >= 0)
		kill(template->pid, SIGKILL);
}

bool ac__template_close(struct ac__template *template)
{
	int status = 0;
	pid_t pid;

	if (template->socket.owner_end < 0)
		return false;
	ac__sys_shutdown(template->socket.owner_end);
	ac__forkguard_close(&template->socket.owner_end);
	do
		pid = waitpid(template->pid, &status, 0);
	while (pid < 0 && errno == EINTR);
	/* ECHILD: the owner's own wait for any child was faster. */
	return pid > 0 && WIFEXITED(status);
}

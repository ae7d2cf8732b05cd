/* SPDX-License-Identifier: MIT */
/*
 * The process from which workers are forked. Its loop waits in one place for orders on its
 * socket and for the ends of its children (SIGCHLD is let in only while it sleeps). Reports
 * wait in a table until the socket takes them, so owner and template never wait for each other.
 *
 * A kill order and the start of the seat's next worker come through the same socket, and the owner
 * orders that start only after it has read the report of the end. So a kill order never finds
 * another worker in the seat than the one that it was meant for.
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

#include "ending.h"
#include "output.h"
#include "sys.h"
#include "worker.h"

/* Between two looks at a template that is about to end: without a pidfd nothing tells of it. */
#define NAP_NS INT64_C(1000000)
#define EXIT_NS (INT64_C(5) * 1000000000)

/* LEAVE: the workers were told to leave; exit with the last, and report nothing. */
enum order_kind { ORDER_START, ORDER_KILL, ORDER_LEAVE };

struct order {
	uint32_t kind;
	uint32_t seat;
};

/* One for each seat. */
struct child {
	pid_t pid;	/* 0: none */
	bool due;	/* event is to be sent */
	struct ac__template_event event;
};

/* The template's own memory. */
struct server {
	const struct ac__template_plan *plan;
	int sock;
	_Atomic int32_t *pids;	/* the plan's, which the owner's records in this copy give up */
	struct child *children;	/* by seat */
	uint32_t seats;
	uint32_t due;		/* reports to be sent */
	uint32_t alive;
	bool leaving;
	sigset_t user_mask;	/* as it was in the owner */
	struct sigaction user_chld;
};

/* ---- a worker ---- */

static void restore_signals(const struct server *server)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigaction(SIGCHLD, &server->user_chld, NULL);
	/* What Ctrl-C means is the owner's to decide. */
	sigaction(SIGINT, &ignore, NULL);
	sigprocmask(SIG_SETMASK, &server->user_mask, NULL);
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
be_worker(struct server *server, unsigned seat, int lifeline, const char *name)
{
	const struct ac__template_plan *plan = server->plan;
	static struct ac_worker worker;

	atomic_store(&server->pids[seat], getpid());
	ac__template_free_pids(server->pids, server->seats);
	ac__sys_close(server->sock);
	restore_signals(server);
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

static void note_report(struct server *server, uint32_t seat, pid_t pid, int status,
			uint64_t peak_rss)
{
	struct child *child = &server->children[seat];

	if (!child->due)
		server->due++;
	child->due = true;
	child->event = (struct ac__template_event){ .seat = seat,
						     .pid = pid,
						     .status = status,
						     .peak_rss = peak_rss };
}

static void start_child(struct server *server, uint32_t seat, int lifeline)
{
	char name[16];
	pid_t pid;

	/* The pool closes already: nobody will miss this one. */
	if (atomic_load(&server->plan->board->shm->closing)) {
		ac__sys_close(lifeline);
		note_report(server, seat, 0, 0, 0);
		return;
	}
	make_name(name, server->plan->name, seat - 1);
	pid = ac__forkguard_fork(server->plan->group);
	if (pid == 0)
		be_worker(server, seat, lifeline, name);
	ac__sys_close(lifeline);
	if (pid < 0) {
		note_report(server, seat, 0, pid, 0);
		return;
	}
	server->children[seat].pid = pid;
	server->alive++;
}

/* A worker that has closed its end of the lifeline can't be killed through that. Its pid can't be
 * another process's: this process has not reaped it. */
static void kill_child(struct server *server, uint32_t seat)
{
	if (server->children[seat].pid)
		kill(server->children[seat].pid, SIGKILL);
}

/* The template gives its copy of the owner's memory back while the workers end. The kernel takes
 * long to free a large one, and the owner would wait for that. */
static void prepare_to_leave(struct server *server)
{
	const void *keep[] = { server->children, server->plan,
			       server->plan->board, server->plan->board->arena, NULL };

	server->leaving = true;
	ac__sys_shed(keep);
}

static void obey(struct server *server, const struct order *order, int fd)
{
	switch (order->kind) {
	case ORDER_START:
		start_child(server, order->seat, fd);
		return;
	case ORDER_KILL:
		kill_child(server, order->seat);
		break;
	case ORDER_LEAVE:
		prepare_to_leave(server);
		break;
	}
	ac__sys_close(fd);
}

/* False: the owner is gone. */
static bool take_orders(struct server *server)
{
	struct order order;
	int fd, r;

	while ((r = ac__sys_receive(server->sock, &order, sizeof order, &fd, true)) > 0) {
		if (r != sizeof order || order.seat >= server->seats)
			ac__sys_close(fd);
		else
			obey(server, &order, fd);
	}
	return r == -EAGAIN;
}

static uint32_t seat_of(const struct server *server, pid_t pid)
{
	for (uint32_t seat = 0; seat < server->seats; seat++)
		if (server->children[seat].pid == pid)
			return seat;
	return server->seats;
}

/* A child that has ended; 0: none has. It stays to be reaped. */
static pid_t find_ended(void)
{
	siginfo_t end = { 0 };

	return waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT) == 0 ? end.si_pid : 0;
}

/* The pid is taken out of the table first: from the reaping on it may be another process's. The
 * worker has written it there, or will never write anything. */
static void reap(struct server *server)
{
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = find_ended())) {
		uint32_t seat = seat_of(server, pid);

		if (seat < server->seats)
			atomic_store(&server->pids[seat], 0);
		wait4(pid, &status, 0, &usage);
		if (seat == server->seats)
			continue;
		server->children[seat].pid = 0;
		server->alive--;
		note_report(server, seat, pid, status, ac__sys_peak_rss(&usage));
	}
}

static void send_reports(struct server *server)
{
	for (uint32_t seat = 0; server->due && seat < server->seats; seat++) {
		struct child *child = &server->children[seat];

		if (!child->due)
			continue;
		if (send(server->sock, &child->event, sizeof child->event,
			 MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return;
		child->due = false;
		server->due--;
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

static void sleep_for_news(struct server *server)
{
	struct pollfd p = { .fd = server->sock, .events = POLLIN };
	sigset_t but_chld;

	if (server->due && !server->leaving)
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
	    struct server *server)
{
	struct sigaction note = { .sa_handler = ignore_signal };
	char name[16];

	/* What the owner had buffered each worker would write once more. */
	ac__output_discard();
	server->plan = plan;
	server->pids = plan->pids;
	server->sock = template->socket.process_end;
	template->socket.process_end = -1;
	sigaction(SIGCHLD, &note, &server->user_chld);
	plan->let_go(plan->let_go_arg);
	snprintf(name, sizeof name, "%.14s*", plan->name);
	ac__sys_name(name);
	rehearse();
	while (take_orders(server)) {
		reap(server);
		if (server->leaving && !server->alive)
			_exit(0);
		if (!server->leaving)
			send_reports(server);
		sleep_for_news(server);
	}
	for (uint32_t seat = 0; seat < server->seats; seat++)
		kill_child(server, seat);
	while (wait(NULL) > 0)
		;
	_exit(0);
}

/* ---- the owner's side ---- */

static int start_template(struct ac__template *template, const struct ac__template_plan *plan,
			  struct server *server)
{
	int r = ac__socket_open(&template->socket);

	if (r < 0)
		return r;
	block_signals(&server->user_mask);
	r = ac__forkguard_fork(plan->group);
	if (r == 0)
		be_template(plan, template, server);
	pthread_sigmask(SIG_SETMASK, &server->user_mask, NULL);
	ac__forkguard_close(&template->socket.process_end);
	if (r < 0) {
		ac__forkguard_close(&template->socket.owner_end);
		return r;
	}
	template->pid = r;
	ac__forkguard_lock();
	template->pidfd = ac__sys_pidfd(template->pid);
	ac__forkguard_unlock();
	return 0;
}

int ac__template_open(struct ac__template *template, const struct ac__template_plan *plan)
{
	struct server server = { .seats = plan->board->arena->seat_count };
	int r = -ENOMEM;

	server.children = ac__sys_calloc(server.seats, sizeof *server.children);
	if (server.children)
		r = start_template(template, plan, &server);
	free(server.children);
	return r;
}

static struct order order_of(enum order_kind kind, unsigned seat)
{
	return (struct order){ .kind = kind, .seat = seat };
}

int ac__template_start(struct ac__template *template, unsigned seat, int process_end)
{
	struct order order = order_of(ORDER_START, seat);

	return ac__sys_send(template->socket.owner_end, &order, sizeof order, process_end);
}

int ac__template_kill_worker(struct ac__template *template, unsigned seat)
{
	struct order order = order_of(ORDER_KILL, seat);

	return ac__sys_send_now(template->socket.owner_end, &order, sizeof order);
}

int ac__template_leave(struct ac__template *template)
{
	struct order order = order_of(ORDER_LEAVE, 0);

	if (template->socket.owner_end < 0)
		return -EPIPE;
	return ac__sys_send(template->socket.owner_end, &order, sizeof order, -1);
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

static size_t pids_size(uint32_t seats)
{
	return seats * sizeof(_Atomic int32_t);
}

_Atomic int32_t *ac__template_make_pids(uint32_t seats)
{
	return ac__sys_share(pids_size(seats));
}

void ac__template_free_pids(_Atomic int32_t *pids, uint32_t seats)
{
	if (pids)
		ac__sys_unmap((void *)pids, pids_size(seats));
}

void ac__template_kill(struct ac__template *template)
{
	if (template->socket.owner_end < 0)
		return;
	/* By its pid only while nobody has reaped it: the owner's handler for SIGCHLD may have. */
	if (ac__sys_pidfd_kill(template->pidfd, SIGKILL) < 0 &&
	    ac__is_living_child(template->pid))
		kill(template->pid, SIGKILL);
}

/* False also where the owner's own wait for any child was faster: then nobody knows how it ended. */
static bool await_exit(const struct ac__template *template)
{
	int64_t kill_at = ac__sys_now() + EXIT_NS;
	uint64_t peak_rss;
	int status, r;

	while ((r = ac__sys_reap_child(template->pid, template->pidfd, &status, &peak_rss)) == 0) {
		ac__sys_poll(template->pidfd, ac__sys_now() + NAP_NS);
		/* It may be stopped. */
		if (ac__sys_now() > kill_at)
			ac__sys_kill_child(template->pid, template->pidfd, SIGKILL);
	}
	return r == 1 && WIFEXITED(status);
}

bool ac__template_close(struct ac__template *template)
{
	bool in_order;

	if (template->socket.owner_end < 0)
		return false;
	ac__sys_shutdown(template->socket.owner_end);
	ac__forkguard_close(&template->socket.owner_end);
	in_order = await_exit(template);
	ac__forkguard_close(&template->pidfd);
	return in_order;
}

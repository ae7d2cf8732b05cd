/* SPDX-License-Identifier: MIT */
/*
 * The process from which workers are forked. Its loop waits in one place for orders on its
 * socket and for the ends of its children (SIGCHLD is let in only while it sleeps). Reports
 * wait in a table until the socket takes them, so owner and template never wait for each other.
 *
 * A signal and the start of the seat's next worker are ordered through the same socket, and the owner
 * orders that start only after it has read the report of the end. So a signal never finds
 * another worker in the seat than the one that it was meant for.
 *
 * A worker that has ended stays a zombie until the owner has read the report. So the pid that
 * the owner knows is that worker's, or nobody's, for as long as the owner takes the worker for alive.
 */
#define _GNU_SOURCE
#include "template_server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "output.h"
#include "procfs.h"
#include "sys.h"
#include "worker.h"

/* Orders that can't be read for want of memory or descriptors are read again, for about two seconds. */
#define READS_MOST 200
#define READ_AGAIN_NS INT64_C(10000000)
/* From the template's beginning to the first reserve. The owner waits for its first result meanwhile, and
 * many a pool is closed before. */
#define FIRST_RESERVE_NS INT64_C(50000000)
/* From the end of a reserve to the next one: an owner without a free descriptor loses each at once. */
#define RESERVE_NS INT64_C(500000000)
#define SECOND_NS INT64_C(1000000000)

/* ---- a worker ---- */

static void restore_signals(const struct ac__template_server *server)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	sigaction(SIGCHLD, &server->user_chld, NULL);
	/* A runtime has handlers of its own, and must not be interrupted before it knows of the fork. */
	if (server->plan->runtime)
		return;
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
be_worker(struct ac__template_server *server, unsigned seat, uint64_t tag, int lifeline, const char *name)
{
	const struct ac__template_plan *plan = server->plan;
	const struct ac_runtime *runtime = plan->runtime;
	static struct ac_worker worker;

	atomic_store(&server->pids[seat], getpid());
	ac__template_free_pids(server->pids, server->seats);
	ac__sys_close(server->sock);
	ac__sys_close(server->offer);
	restore_signals(server);
	ac__sys_name(name);
	if (ac__worker_sit(&worker, plan->board, seat, lifeline,
			   &plan->owner_bell, name) < 0)
		_exit(127);
	if (runtime) {
		runtime->run(runtime->arg, &worker, seat - 1, tag);
		_exit(0);
	}
	worker.flushes = true;
	if (run_init(plan, &worker) == 0)
		ac__worker_serve(&worker);
	ac__output_flush();
	_exit(0);
}

/* ---- the template's loop ---- */

static void note_report(struct ac__template_server *server, uint32_t seat, pid_t pid, int status,
			uint64_t peak_rss)
{
	struct ac__template_child *child = &server->children[seat];

	if (!child->due)
		server->due++;
	child->due = true;
	child->event = (struct ac__template_event){ .seat = seat,
						     .pid = pid,
						     .status = status,
						     .peak_rss = peak_rss };
}

/* Only now may the pid be another process's. The worker has written it into the table, or will never
 * write anything. */
static void reap_child(struct ac__template_server *server, uint32_t seat)
{
	struct ac__template_child *child = &server->children[seat];

	if (!child->ended)
		return;
	atomic_store(&server->pids[seat], 0);
	waitpid(child->pid, NULL, 0);
	child->pid = 0;
	child->ended = false;
	server->alive--;
}

static bool is_eager(const struct ac__template_plan *plan)
{
	return plan->runtime && plan->runtime->flags & AC_RUNTIME_EAGER;
}

static void start_child(struct ac__template_server *server, uint32_t seat, uint64_t tag, int lifeline)
{
	char name[16];
	pid_t pid;

	reap_child(server, seat);
	server->needs_reserve = true;
	/* The pool closes already: nobody will miss this one. */
	if (atomic_load(&server->plan->board->shm->closing) && !is_eager(server->plan)) {
		ac__sys_close(lifeline);
		note_report(server, seat, 0, 0, 0);
		return;
	}
	make_name(name, server->plan->name, seat - 1);
	pid = ac__forkguard_fork(server->plan->group);
	if (pid == 0)
		be_worker(server, seat, tag, lifeline, name);
	ac__sys_close(lifeline);
	if (pid < 0) {
		note_report(server, seat, 0, pid, 0);
		return;
	}
	atomic_store(&server->pids[seat], pid);
	server->children[seat].pid = pid;
	server->alive++;
}

/* A worker that has closed its end of the lifeline can't be killed through that. Its pid can't be
 * another process's: this process has not reaped it. */
static void signal_child(struct ac__template_server *server, uint32_t seat, int signal)
{
	if (server->children[seat].pid && !server->children[seat].ended)
		kill(server->children[seat].pid, signal);
}

static void kill_reserve(struct ac__template_server *server)
{
	if (!server->reserve)
		return;
	kill(server->reserve, SIGKILL);
	waitpid(server->reserve, NULL, 0);
	server->reserve = 0;
}

/* The template gives its copy of the owner's memory back while the workers end. The kernel takes
 * long to free a large one, and the owner would wait for that. */
static void prepare_to_leave(struct ac__template_server *server)
{
	const void *keep[] = { server->children, server->plan,
			       server->plan->board, server->plan->board->arena, NULL };

	server->leaving = true;
	kill_reserve(server);
	ac__sys_shed(keep);
}

static void obey(struct ac__template_server *server, const struct ac__order *order, int fd)
{
	switch (order->kind) {
	case AC__ORDER_START:
		start_child(server, order->seat, order->value, fd);
		return;
	case AC__ORDER_SIGNAL:
		signal_child(server, order->seat, (int)order->value);
		break;
	case AC__ORDER_REAP:
		reap_child(server, order->seat);
		break;
	case AC__ORDER_LEAD:
		server->needs_reserve = true;
		break;
	case AC__ORDER_LEAVE:
		prepare_to_leave(server);
		break;
	}
	ac__sys_close(fd);
}

/* An order, if it was read at all, came without its descriptor. False: there have been too many. */
static bool excuse_failed_read(struct ac__template_server *server, const struct ac__order *order, int error)
{
	if (order->kind == AC__ORDER_START && order->seat < server->seats)
		note_report(server, order->seat, 0, error, 0);
	ac__sys_poll(-1, ac__sys_now() + READ_AGAIN_NS);
	return ++server->failed_reads < READS_MOST;
}

/* False: the owner is gone, or orders can't be read any more. */
static bool take_orders(struct ac__template_server *server)
{
	for (;;) {
		struct ac__order order = { .kind = AC__ORDER_NONE };
		int fd, r = ac__sys_receive(server->sock, &order, sizeof order, &fd, true);

		if (r == 0 || r == -ECONNRESET)
			return false;
		if (r < 0 && r != -EAGAIN)
			return excuse_failed_read(server, &order, r);
		server->failed_reads = 0;
		if (r == -EAGAIN)
			return true;
		if (r != sizeof order || order.seat >= server->seats)
			ac__sys_close(fd);
		else
			obey(server, &order, fd);
	}
}

static uint32_t seat_of(const struct ac__template_server *server, pid_t pid)
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

static void look_at_child(struct ac__template_server *server, uint32_t seat)
{
	struct ac__template_child *child = &server->children[seat];
	uint64_t peak_rss;
	int status;

	if (!child->pid || child->ended ||
	    ac__sys_peek_child(child->pid, -1, &status, &peak_rss) != 1)
		return;
	child->ended = true;
	note_report(server, seat, child->pid, status, peak_rss);
}

static void lose_reserve(struct ac__template_server *server)
{
	server->reserve = 0;
	server->needs_reserve = true;
	server->reserve_at = ac__sys_now() + RESERVE_NS;
	ac__sys_close(server->offer);
	server->offer = -1;
}

static void look_at_reserve(struct ac__template_server *server)
{
	if (server->reserve && waitpid(server->reserve, NULL, WNOHANG) == server->reserve)
		lose_reserve(server);
}

/* The kernel names one zombie. While that one waits for the owner it hides all others. */
static void note_ends(struct ac__template_server *server)
{
	pid_t pid;

	while ((pid = find_ended())) {
		uint32_t seat = seat_of(server, pid);

		if (pid == server->reserve)
			look_at_reserve(server);
		else if (seat == server->seats)
			waitpid(pid, NULL, 0);
		else if (server->children[seat].ended)
			break;
		else
			look_at_child(server, seat);
	}
	if (!pid)
		return;
	look_at_reserve(server);
	for (uint32_t seat = 0; seat < server->seats; seat++)
		look_at_child(server, seat);
}

static void send_reports(struct ac__template_server *server)
{
	for (uint32_t seat = 0; server->due && seat < server->seats; seat++) {
		struct ac__template_child *child = &server->children[seat];

		if (!child->due)
			continue;
		if (ac__sys_send_now(server->sock, &child->event, sizeof child->event, -1) < 0)
			return;
		child->due = false;
		server->due--;
	}
}

/* ---- the reserve ---- */

static bool wants_reserve(const struct ac__template_server *server)
{
	return server->needs_reserve && !server->reserve && !server->leaving;
}

/* In the reserve: the workers so far are not its children. */
static void be_reserve(struct ac__template_server *server, struct ac__socket *socket)
{
	ac__sys_close(server->sock);
	ac__sys_close(socket->owner_end);
	server->sock = socket->process_end;
	memset(server->children, 0, server->seats * sizeof *server->children);
	server->due = server->alive = 0;
	server->needs_reserve = false;
	server->reserve_at = 0;
}

/* Without memory for it there is none until the next worker is started. */
static void make_reserve(struct ac__template_server *server)
{
	struct ac__socket socket;
	pid_t pid;

	server->needs_reserve = false;
	if (ac__socket_open(&socket) < 0)
		return;
	pid = ac__forkguard_fork(server->plan->group);
	if (pid == 0) {
		be_reserve(server, &socket);
		return;
	}
	ac__sys_close(socket.process_end);
	if (pid < 0) {
		ac__sys_close(socket.owner_end);
		return;
	}
	server->reserve = pid;
	server->offer = socket.owner_end;
}

/* Send the owner its end. A reserve that has ended meanwhile closed the other one, as the owner will see. */
static void offer_reserve(struct ac__template_server *server)
{
	struct ac__template_event event = { .seat = AC__OWNER_SEAT, .pid = server->reserve };

	if (server->offer < 0 ||
	    ac__sys_send_now(server->sock, &event, sizeof event, server->offer) == -EAGAIN)
		return;
	ac__sys_close(server->offer);
	server->offer = -1;
}

/* ---- the template's loop ---- */

static void ignore_signal(int signal)
{
	(void)signal;
}

static void sleep_for_news(struct ac__template_server *server)
{
	struct pollfd p = { .fd = server->sock, .events = POLLIN };
	int64_t ns = AC__MAX(server->reserve_at - ac__sys_now(), 0);
	struct timespec left = { .tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS };
	sigset_t but_chld;

	if (server->due || server->offer >= 0)
		p.events |= POLLOUT;
	sigfillset(&but_chld);
	sigdelset(&but_chld, SIGCHLD);
	ppoll(&p, 1, wants_reserve(server) ? &left : NULL, &but_chld);
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

/* Handlers of other libraries (pthread_atfork) have run in this process, and some start threads. */
static void count_threads(struct ac__template_server *server)
{
	if (!atomic_load(&server->pids[AC__OWNER_SEAT]))
		atomic_store(&server->pids[AC__OWNER_SEAT], ac__procfs_threads(getpid()));
}

static void serve(struct ac__template_server *server)
{
	while (take_orders(server)) {
		note_ends(server);
		if (server->leaving && !server->alive && !server->due)
			_exit(0);
		if (wants_reserve(server) && server->reserve_at <= ac__sys_now())
			make_reserve(server);
		send_reports(server);
		offer_reserve(server);
		if (server->needs_reserve) /* it has started a worker */
			count_threads(server);
		sleep_for_news(server);
	}
}

void ac__template_serve(struct ac__template_server *server, const struct ac__template_plan *plan,
			int sock)
{
	struct sigaction note = { .sa_handler = ignore_signal };
	char name[16];

	/* What the owner had buffered each worker would write once more. */
	ac__output_discard();
	server->plan = plan;
	server->pids = plan->pids;
	server->sock = sock;
	sigaction(SIGCHLD, &note, &server->user_chld);
	plan->let_go(plan->let_go_arg);
	snprintf(name, sizeof name, "%.14s*", plan->name);
	ac__sys_name(name);
	rehearse();
	server->reserve_at = ac__sys_now() + FIRST_RESERVE_NS;
	serve(server);
	kill_reserve(server);
	for (uint32_t seat = 0; seat < server->seats; seat++)
		signal_child(server, seat, SIGKILL);
	while (wait(NULL) > 0)
		;
	_exit(0);
}

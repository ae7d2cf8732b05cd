/* SPDX-License-Identifier: MIT */
/* The owner's side of the template: forking it, its orders, its news, its end. See the header. */
#define _GNU_SOURCE
#include "template_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "ending.h"
#include "sys.h"

/* Between two looks at a template that is about to end: without a pidfd nothing tells of it. */
#define NAP_NS INT64_C(1000000)
#define EXIT_NS (INT64_C(5) * 1000000000)

static const struct ac__template_process none = { .socket = -1, .pidfd = -1 };

void ac__template_init(struct ac__template *template)
{
	*template = (struct ac__template){ .now = none, .reserve = none, .process_end = -1 };
}

void ac__template_let_go(struct ac__template *template)
{
	ac__forkguard_drop(&template->process_end);
	ac__forkguard_drop(&template->now.socket);
	ac__forkguard_drop(&template->now.pidfd);
	ac__forkguard_drop(&template->reserve.socket);
	ac__forkguard_drop(&template->reserve.pidfd);
}

static int open_socket(struct ac__template *template)
{
	struct ac__socket socket;
	int r;

	ac__forkguard_lock();
	r = ac__socket_open(&socket);
	if (r == 0) {
		template->now.socket = socket.owner_end;
		template->process_end = socket.process_end;
	}
	ac__forkguard_unlock();
	return r;
}

/* Before the fork, in the owner's thread, so that no handler of the user's
 * ever runs in the template: it lets in SIGCHLD alone, while it sleeps. */
static void block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static int fork_template(struct ac__template *template, const struct ac__template_plan *plan,
			 struct ac__template_server *server)
{
	const struct ac_runtime *runtime = plan->runtime;
	int r;

	if (runtime && runtime->before_fork)
		runtime->before_fork(runtime->arg);
	block_signals(&server->user_mask);
	r = ac__forkguard_fork(plan->group);
	if (r == 0) {
		int sock = template->process_end;

		template->process_end = -1;
		ac__template_serve(server, plan, sock);
	}
	pthread_sigmask(SIG_SETMASK, &server->user_mask, NULL);
	if (runtime && runtime->after_fork)
		runtime->after_fork(runtime->arg, r);
	return r;
}

static int start_template(struct ac__template *template, const struct ac__template_plan *plan,
			  struct ac__template_server *server)
{
	int r = open_socket(template);

	if (r < 0)
		return r;
	r = fork_template(template, plan, server);
	ac__forkguard_close(&template->process_end);
	if (r < 0) {
		ac__forkguard_close(&template->now.socket);
		return r;
	}
	template->now.pid = r;
	template->now.is_child = true;
	ac__forkguard_lock();
	template->now.pidfd = ac__sys_pidfd(template->now.pid);
	ac__forkguard_unlock();
	return 0;
}

int ac__template_open(struct ac__template *template, const struct ac__template_plan *plan)
{
	struct ac__template_server server = { .seats = plan->board->arena->seat_count, .offer = -1 };
	int r = -ENOMEM;

	server.children = ac__sys_calloc(server.seats, sizeof *server.children);
	if (server.children)
		r = start_template(template, plan, &server);
	free(server.children);
	return r;
}

static struct ac__order order_of(enum ac__order_kind kind, unsigned seat, uint64_t value)
{
	return (struct ac__order){ .kind = kind, .seat = seat, .value = value };
}

int ac__template_start(struct ac__template *template, unsigned seat, uint64_t tag,
		       int process_end)
{
	struct ac__order order = order_of(AC__ORDER_START, seat, tag);

	return ac__sys_send(template->now.socket, &order, sizeof order, process_end);
}

int ac__template_signal_worker(struct ac__template *template, unsigned seat, int signal)
{
	struct ac__order order = order_of(AC__ORDER_SIGNAL, seat, (uint64_t)signal);

	return ac__sys_send_now(template->now.socket, &order, sizeof order, -1);
}

int ac__template_reap_worker(struct ac__template *template, unsigned seat)
{
	struct ac__order order = order_of(AC__ORDER_REAP, seat, 0);

	return ac__sys_send_now(template->now.socket, &order, sizeof order, -1);
}

int ac__template_leave(struct ac__template *template)
{
	struct ac__order order = order_of(AC__ORDER_LEAVE, 0, 0);

	if (!ac__template_is_open(template))
		return -EPIPE;
	return ac__sys_send(template->now.socket, &order, sizeof order, -1);
}

void ac__template_dismiss(struct ac__template *template)
{
	ac__sys_end_sending(template->now.socket);
}

static void close_process(struct ac__template_process *process)
{
	ac__forkguard_close(&process->socket);
	ac__forkguard_close(&process->pidfd);
}

/* One that ended before its pidfd was open may have been reaped, and the pid be another process's: then
 * the other end of its socket is closed. */
static void note_reserve(struct ac__template *template, pid_t pid, int *socket)
{
	struct ac__template_process *reserve = &template->reserve;

	close_process(reserve);
	ac__forkguard_lock();
	reserve->socket = *socket;
	*socket = -1;
	reserve->pid = pid;
	reserve->pidfd = ac__sys_pidfd(pid);
	ac__forkguard_unlock();
	if (ac__sys_poll(reserve->socket, 0) == 0)
		close_process(reserve);
}

int ac__template_next(struct ac__template *template, struct ac__template_event *event)
{
	int fd, r;

	for (;;) {
		if (!ac__template_is_open(template))
			return -EPIPE;
		ac__forkguard_lock();
		r = ac__sys_receive(template->now.socket, event, sizeof *event, &fd, true);
		if (r == sizeof *event && event->seat == AC__OWNER_SEAT && fd >= 0)
			note_reserve(template, event->pid, &fd);
		ac__forkguard_drop(&fd);
		ac__forkguard_unlock();
		if (r == -EAGAIN)
			return 0;
		/* The template left orders unread. The kernel says so once, before what it sent. */
		if (r == -ECONNRESET)
			continue;
		if (r != sizeof *event)
			return -EPIPE;
		if (event->seat != AC__OWNER_SEAT)
			return 1;
	}
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

static void kill_process(const struct ac__template_process *process)
{
	/* By its pid only while nobody has reaped it: the owner's handler for SIGCHLD may have. */
	if (ac__sys_pidfd_kill(process->pidfd, SIGKILL) < 0 && process->is_child &&
	    ac__is_living_child(process->pid))
		kill(process->pid, SIGKILL);
}

void ac__template_kill(struct ac__template *template)
{
	if (ac__template_is_open(template))
		kill_process(&template->now);
}

/* 1, 0 or -ECHILD, as of ac__sys_reap_child. One that was a reserve is another process's child, or
 * has become the owner's (process 1, a subreaper). */
static int ask_for_end(const struct ac__template_process *process, int *status)
{
	uint64_t peak_rss;
	int r = -ECHILD;

	if (process->is_child || process->pidfd >= 0)
		r = ac__sys_reap_child(process->pid, process->pidfd, status, &peak_rss);
	if (r == -ECHILD && process->pidfd >= 0 && ac__sys_poll(process->pidfd, 0) != 0)
		r = 0;
	return r;
}

static void describe_end(struct ac__template *template, int status)
{
	if (WIFSIGNALED(status))
		snprintf(template->end, sizeof template->end,
			 "the process that starts them (the template) was killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(template->end, sizeof template->end,
			 "the process that starts them (the template) has exited with code %d",
			 WEXITSTATUS(status));
}

static void await_exit(struct ac__template *template)
{
	const struct ac__template_process *process = &template->now;
	int64_t kill_at = ac__sys_now() + EXIT_NS;
	int status, r;

	while ((r = ask_for_end(process, &status)) == 0) {
		ac__sys_poll(process->pidfd, ac__sys_now() + NAP_NS);
		/* It may be stopped. */
		if (ac__sys_now() > kill_at)
			kill_process(process);
	}
	if (r == 1)
		describe_end(template, status);
	else if (!template->end[0])
		snprintf(template->end, sizeof template->end,
			 "the process that starts them (the template) has ended");
}

static void lead(struct ac__template *template)
{
	struct ac__order order = order_of(AC__ORDER_LEAD, 0, 0);

	ac__sys_send_now(template->now.socket, &order, sizeof order, -1);
}

bool ac__template_replace(struct ac__template *template)
{
	if (ac__template_is_open(template)) {
		ac__sys_shutdown(template->now.socket);
		ac__forkguard_close(&template->now.socket);
		await_exit(template);
		ac__forkguard_close(&template->now.pidfd);
	}
	ac__forkguard_lock();
	template->now = template->reserve;
	template->reserve = none;
	ac__forkguard_unlock();
	if (!ac__template_is_open(template))
		return false;
	lead(template);
	return true;
}

void ac__template_close(struct ac__template *template)
{
	while (ac__template_replace(template))
		;
}

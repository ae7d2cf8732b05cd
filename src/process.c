/* SPDX-License-Identifier: MIT */
/*
 * Single processes. The child waits on its private socket (see socket.h) until its
 * starter has a pidfd. So no code of the user's runs before, and its pid can't have
 * been reused. From then on the socket is its lifeline; where there are no pidfds, the
 * end of the socket tells the starter of its death. Any thread that checks on the process
 * reaps it, under the lock. Waiting is done without the lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base.h"
#include "socket.h"
#include "forkguard.h"
#include "lifeline.h"
#include "output.h"
#include "sys.h"

/* Nanoseconds between checks of a process: without a descriptor that tells of its end, and with. */
#define NAP_LEAST INT64_C(1000000)
#define NAP_MOST INT64_C(10000000)
#define NAP_WITH_FD INT64_C(1000000000)

struct ac_process {
	struct ac__forkguard guard;
	struct ac__socket socket;	/* owner_end: ours while it lives; -1: detached */
	struct ac__lifeline lifeline; /* in the process itself */
	int pidfd;		/* -1: this system has none */
	pid_t pid;
	bool detached;
	bool forked;		/* this is the copy in another child of the starter */
	pthread_mutex_t lock;	/* of what follows */
	bool ended;
	int signal;		/* that killed it, or 0 */
	int exit_code;		/* -1: killed by a signal, or reaped elsewhere */
	uint64_t peak_rss;	/* 0: not known */
};

/* ---- its end ---- */

static bool reap_locked(struct ac_process *process)
{
	uint64_t peak_rss = 0;
	int status, r;

	if (process->ended)
		return true;
	r = ac__sys_reap_child(process->pid, process->pidfd, &status, &peak_rss);
	if (r == 0)
		return false;
	process->ended = true;
	process->peak_rss = peak_rss;
	if (r > 0 && WIFSIGNALED(status))
		process->signal = WTERMSIG(status);
	else if (r > 0)
		process->exit_code = WEXITSTATUS(status);
	return true;
}

static bool reap(struct ac_process *process)
{
	bool ended;

	pthread_mutex_lock(&process->lock);
	ended = reap_locked(process);
	pthread_mutex_unlock(&process->lock);
	return ended;
}

/*
 * 0 or -ETIMEDOUT. An event on the descriptor is not the end yet: the socket closes before the
 * process is dead, fn may have closed it, a debugger may hold the process. And there may be no event
 * although it has ended: another process may hold a copy of the socket. So no sleep is without end.
 */
static int wait_end(struct ac_process *process, int64_t deadline)
{
	int fd = process->pidfd >= 0 ? process->pidfd : process->socket.owner_end;
	int64_t nap = fd >= 0 ? NAP_WITH_FD : NAP_LEAST;

	while (!reap(process)) {
		int64_t until = AC__MIN(ac__sys_now() + nap, deadline);

		if (ac__sys_poll(fd, until) == 0) {
			fd = -1;
			nap = NAP_LEAST;
		} else if (ac__sys_now() >= deadline) {
			return reap(process) ? 0 : -ETIMEDOUT;
		} else if (fd < 0) {
			nap = AC__MIN(nap * 2, NAP_MOST);
		}
	}
	return 0;
}

static int send_signal(struct ac_process *process, int signal)
{
	int r = -ESRCH;

	/* No other thread reaps it meanwhile, so that no other process gets its pid. */
	pthread_mutex_lock(&process->lock);
	if (!reap_locked(process))
		r = ac__sys_kill_child(process->pid, process->pidfd, signal);
	pthread_mutex_unlock(&process->lock);
	return r;
}

/* A process that can't be killed (it became another user's) is not waited for. */
static void end_process(struct ac_process *process)
{
	if (send_signal(process, SIGKILL) == 0)
		wait_end(process, INT64_MAX);
}

/* ---- its outcome ---- */

#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 32)
#define HAVE_SIGABBREV 1
#endif
#endif

static void describe_signal(char *text, int signal)
{
	const char *name = NULL;

#ifdef HAVE_SIGABBREV
	name = sigabbrev_np(signal);
#endif
	if (name)
		snprintf(text, AC_TEXT_SIZE, "killed by signal %d (SIG%s)",
			 signal, name);
	else
		snprintf(text, AC_TEXT_SIZE, "killed by signal %d", signal);
}

/* Of a process that has ended: without the lock, since no field changes any more. */
static void fill_outcome(const struct ac_process *process,
			 struct ac_outcome *outcome)
{
	int code = process->exit_code;

	*outcome = (struct ac_outcome){ .pid = process->pid,
					.signal = process->signal,
					.exit_code = code,
					.peak_rss = process->peak_rss };
	if (code >= 0) {
		outcome->status = code ? AC_ETASK : 0;
		outcome->value = code;
		if (code)
			snprintf(outcome->text, AC_TEXT_SIZE,
				 "exited with code %d", code);
		return;
	}
	outcome->status = AC_EDIED;
	if (process->signal)
		describe_signal(outcome->text, process->signal);
	else
		snprintf(outcome->text, AC_TEXT_SIZE,
			 "ended, but somebody else reaped it: a wait for any "
			 "child, or SIGCHLD is ignored");
}

/* ---- descriptors ---- */

/* In another child of the starter, before fork returns there. */
static void leave_process(struct ac__forkguard *guard)
{
	struct ac_process *process = AC__CONTAINER(guard, struct ac_process, guard);

	ac__forkguard_drop(&process->socket.owner_end);
	ac__forkguard_drop(&process->socket.process_end);
	ac__forkguard_drop(&process->pidfd);
	ac__lifeline_drop(&process->lifeline);
	process->forked = true;
}

static void open_pidfd(struct ac_process *process)
{
	int fd;

	ac__forkguard_lock();
	fd = ac__sys_pidfd(process->pid);
	process->pidfd = fd < 0 ? -1 : fd;
	ac__forkguard_unlock();
}

static struct ac_process *make_process(bool detached)
{
	struct ac_process *process = ac__sys_calloc(1, sizeof *process);

	if (!process)
		return NULL;
	*process = (struct ac_process){ .guard.left = leave_process,
					.socket = { -1, -1 },
					.lifeline = { .sock = AC__FD_NONE,
						      .stop = { AC__FD_NONE,
								AC__FD_NONE } },
					.pidfd = -1,
					.detached = detached,
					.lock = PTHREAD_MUTEX_INITIALIZER,
					.exit_code = -1 };
	process->guard.group = process;
	ac__forkguard_add(&process->guard);
	return process;
}

static void free_process(struct ac_process *process)
{
	ac__forkguard_close(&process->socket.owner_end);
	ac__forkguard_close(&process->socket.process_end);
	ac__forkguard_close(&process->pidfd);
	ac__forkguard_remove(&process->guard);
	pthread_mutex_destroy(&process->lock);
	free(process);
}

/* ---- the process ---- */

/* Wait until the starter lets it begin, then arm the lifeline. */
static int await_start(struct ac_process *process)
{
	int fd, r;
	char word;

	ac__forkguard_close(&process->socket.owner_end);
	r = ac__sys_receive(process->socket.process_end, &word, 1, &fd, false);
	if (r <= 0)
		return -EPIPE;
	if (!process->detached)
		return ac__lifeline_arm(&process->lifeline);
	ac__forkguard_close(&process->socket.process_end);
	return 0;
}

/* The guard stays on the list: children of fn must not hold the lifeline open. */
__attribute__((noreturn)) static void
be_process(struct ac_process *process, int (*fn)(void *), void *arg,
	   const char *name)
{
	int value;

	/* Not an exit: any code could be taken for a value of fn. */
	ac__output_discard();
	ac__lifeline_init(&process->lifeline, process->socket.process_end);
	if (await_start(process) < 0) {
		raise(SIGKILL);
		_exit(127);
	}
	if (name)
		ac__sys_name(name);
	value = fn(arg);
	ac__output_flush();
	_exit(value & 255);
}

static int let_begin(struct ac_process *process)
{
	int r = ac__sys_send(process->socket.owner_end, "", 1, -1);

	if (process->detached)
		ac__forkguard_close(&process->socket.owner_end);
	/* -EPIPE: it is dead already, as its outcome will say. */
	return r == -EPIPE ? 0 : r;
}

static int start_process(struct ac_process *process, int (*fn)(void *),
			 void *arg, const char *name)
{
	int r = ac__socket_open(&process->socket);

	if (r < 0)
		return r;
	ac__output_try_flush();
	r = ac__forkguard_fork(process);
	if (r == 0)
		be_process(process, fn, arg, name);
	if (r < 0)
		return r;
	process->pid = r;
	ac__forkguard_close(&process->socket.process_end);
	open_pidfd(process);
	r = let_begin(process);
	if (r < 0)
		end_process(process);
	return r;
}

/* ---- section 7 of the header ---- */

int ac_process_start(struct ac_process **process, int (*fn)(void *arg),
		     void *arg, const struct ac_process_opts *opts)
{
	struct ac_process_opts o = { 0 };
	struct ac_process *made;
	int r = ac__opts_copy(&o, sizeof o, opts);

	if (r < 0)
		return r;
	if (!process || !fn || o.flags & ~AC_PROCESS_DETACHED || o.reserved)
		return -EINVAL;
	made = make_process(o.flags & AC_PROCESS_DETACHED);
	if (!made)
		return -ENOMEM;
	r = start_process(made, fn, arg, o.name);
	if (r < 0) {
		free_process(made);
		return r;
	}
	*process = made;
	return 0;
}

pid_t ac_process_pid(const struct ac_process *process)
{
	return process ? process->pid : -EINVAL;
}

int ac_process_join(struct ac_process *process, int64_t timeout_ns,
		    struct ac_outcome *outcome)
{
	int r;

	if (!process)
		return -EINVAL;
	if (process->forked)
		return AC_EFORK;
	r = wait_end(process, ac__sys_deadline(timeout_ns));
	if (r == 0 && outcome)
		fill_outcome(process, outcome);
	return r;
}

int ac_process_kill(struct ac_process *process, int signal)
{
	if (!process)
		return -EINVAL;
	return process->forked ? AC_EFORK : send_signal(process, signal);
}

void ac_process_close(struct ac_process *process)
{
	if (!process)
		return;
	/* The lock may have been held by a thread that this child does not have. */
	if (process->forked) {
		free(process);
		return;
	}
	/* A detached one that still runs will be a zombie of this process. */
	if (process->detached)
		reap(process);
	else
		end_process(process);
	free_process(process);
}

/* SPDX-License-Identifier: MIT */
/*
 * Single processes. A process waits behind a door (see door.h) until its
 * starter has a hold on it, so that nothing of the user's runs before and its
 * pid can't have gone to a stranger. From then on the door is its lifeline,
 * and where there is no pidfd the end of that socket tells of its death. Its
 * exit status is fetched by whoever looks first, under the lock; waiting is
 * done outside of it.
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
#include "door.h"
#include "forkguard.h"
#include "lifeline.h"
#include "output.h"
#include "sys.h"

/* Nanoseconds between looks at a process: without news to come, and with. */
#define NAP_LEAST INT64_C(1000000)
#define NAP_MOST INT64_C(10000000)
#define NAP_FOR_NEWS INT64_C(1000000000)

struct ac_process {
	struct ac__forkguard guard;
	struct ac__door door;	/* owner_end: ours while it lives; -1: detached */
	struct ac__lifeline lifeline; /* in the process itself */
	int pidfd;		/* -1: this system has none */
	pid_t pid;
	bool detached;
	bool stranger;		/* this is the copy of a child that the user forked */
	pthread_mutex_t lock;	/* of what follows */
	bool ended;
	int signal;		/* that killed it, or 0 */
	int exit_code;		/* -1: it has none, or somebody else took it */
	uint64_t peak_rss;	/* 0: not known */
};

/* ---- its end ---- */

static bool look_locked(struct ac_process *process)
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

static bool has_ended(struct ac_process *process)
{
	bool ended;

	pthread_mutex_lock(&process->lock);
	ended = look_locked(process);
	pthread_mutex_unlock(&process->lock);
	return ended;
}

/*
 * 0 or -ETIMEDOUT. The news is that a descriptor closes; the status may follow
 * later (the socket closes before the process is dead, or fn closed it, or a
 * debugger sits on it), and a copy of the socket that slipped away may hold
 * the news back: so no sleep is without end.
 */
static int wait_end(struct ac_process *process, int64_t deadline)
{
	int fd = process->pidfd >= 0 ? process->pidfd : process->door.owner_end;
	int64_t nap = fd >= 0 ? NAP_FOR_NEWS : NAP_LEAST;

	while (!has_ended(process)) {
		int64_t until = AC__MIN(ac__sys_now() + nap, deadline);

		if (ac__sys_poll(fd, until) == 0) {
			fd = -1;
			nap = NAP_LEAST;
		} else if (ac__sys_now() >= deadline) {
			return has_ended(process) ? 0 : -ETIMEDOUT;
		} else if (fd < 0) {
			nap = AC__MIN(nap * 2, NAP_MOST);
		}
	}
	return 0;
}

static int send_signal(struct ac_process *process, int signal)
{
	int r = -ESRCH;

	/* Nobody reaps it meanwhile, so that its pid stays its own. */
	pthread_mutex_lock(&process->lock);
	if (!look_locked(process))
		r = ac__sys_kill_child(process->pid, process->pidfd, signal);
	pthread_mutex_unlock(&process->lock);
	return r;
}

/* What can't be killed (it became another user's) is left, not waited for. */
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

/* Of a process that has ended: nothing of this changes any more. */
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

/* In a child that is none of ours, before fork returns there. */
static void leave_process(struct ac__forkguard *guard)
{
	struct ac_process *process = AC__CONTAINER(guard, struct ac_process, guard);

	ac__forkguard_drop(&process->door.owner_end);
	ac__forkguard_drop(&process->door.process_end);
	ac__forkguard_drop(&process->pidfd);
	ac__lifeline_drop(&process->lifeline);
	process->stranger = true;
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
					.door = { -1, -1 },
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
	ac__forkguard_close(&process->door.owner_end);
	ac__forkguard_close(&process->door.process_end);
	ac__forkguard_close(&process->pidfd);
	ac__forkguard_remove(&process->guard);
	pthread_mutex_destroy(&process->lock);
	free(process);
}

/* ---- the process ---- */

/* Wait for the starter's word, then hang on its life. */
static int pass_door(struct ac_process *process)
{
	int fd, r;
	char word;

	ac__forkguard_close(&process->door.owner_end);
	r = ac__sys_receive(process->door.process_end, &word, 1, &fd, false);
	if (r <= 0)
		return -EPIPE;
	if (!process->detached)
		return ac__lifeline_arm(&process->lifeline);
	ac__forkguard_close(&process->door.process_end);
	return 0;
}

/* The guard stays on the list: what fn forks must not hold the lifeline open. */
__attribute__((noreturn)) static void
be_process(struct ac_process *process, int (*fn)(void *), void *arg,
	   const char *name)
{
	int value;

	/* Not an exit: no code may be taken for what fn returned. */
	ac__output_discard();
	ac__lifeline_init(&process->lifeline, process->door.process_end);
	if (pass_door(process) < 0) {
		raise(SIGKILL);
		_exit(127);
	}
	if (name)
		ac__sys_name(name);
	value = fn(arg);
	ac__output_flush();
	_exit(value & 255);
}

static int open_door(struct ac_process *process)
{
	int r = ac__sys_send(process->door.owner_end, "", 1, -1);

	if (process->detached)
		ac__forkguard_close(&process->door.owner_end);
	/* It is dead already: that is what its outcome will say. */
	return r == -EPIPE ? 0 : r;
}

static int start_process(struct ac_process *process, int (*fn)(void *),
			 void *arg, const char *name)
{
	int r = ac__door_open(&process->door);

	if (r < 0)
		return r;
	ac__output_try_flush();
	r = ac__forkguard_fork(process);
	if (r == 0)
		be_process(process, fn, arg, name);
	if (r < 0)
		return r;
	process->pid = r;
	ac__forkguard_close(&process->door.process_end);
	open_pidfd(process);
	r = open_door(process);
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
	if (process->stranger)
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
	return process->stranger ? AC_EFORK : send_signal(process, signal);
}

void ac_process_close(struct ac_process *process)
{
	if (!process)
		return;
	/* The lock may have been held by a thread that is not in this child. */
	if (process->stranger) {
		free(process);
		return;
	}
	/* A detached one that runs on is this process's zombie when it ends. */
	if (process->detached)
		has_ended(process);
	else
		end_process(process);
	free_process(process);
}

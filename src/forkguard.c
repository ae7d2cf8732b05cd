/* SPDX-License-Identifier: MIT */
/* The list of what a forked child gives up: see the header. */
#define _GNU_SOURCE
#include "forkguard.h"

#include <pthread.h>
#include <signal.h>

#include "sys.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ac__forkguard *guards;
static sigset_t before; /* the signal mask of the thread that holds the lock */
/* How often this thread has locked. Not a recursive mutex: its owner is a thread's number,
 * which is another one in a child. */
static __thread unsigned depth;
/* Of the thread that forks: the group that its child keeps. */
static __thread const void *kept;

static void enter(void)
{
	sigset_t all, mask;

	if (!depth) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &mask);
		pthread_mutex_lock(&lock);
		before = mask;
	}
	depth++;
}

static void leave(void)
{
	sigset_t mask = before;

	if (--depth)
		return;
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void after_fork_in_child(void)
{
	struct ac__forkguard *guard = guards, **last = &guards;

	guards = NULL;
	while (guard) {
		struct ac__forkguard *next = guard->next;

		if (kept && guard->group == kept) {
			guard->next = NULL;
			*last = guard;
			last = &guard->next;
		} else {
			guard->left(guard);
		}
		guard = next;
	}
	leave();
}

static void install_handlers(void)
{
	pthread_atfork(enter, leave, after_fork_in_child);
}

void ac__forkguard_lock(void)
{
	pthread_once(&once, install_handlers);
	enter();
}

void ac__forkguard_unlock(void)
{
	leave();
}

void ac__forkguard_add(struct ac__forkguard *guard)
{
	ac__forkguard_lock();
	guard->next = guards;
	guards = guard;
	ac__forkguard_unlock();
}

void ac__forkguard_remove(struct ac__forkguard *guard)
{
	ac__forkguard_lock();
	for (struct ac__forkguard **at = &guards; *at; at = &(*at)->next)
		if (*at == guard) {
			*at = guard->next;
			break;
		}
	ac__forkguard_unlock();
}

void ac__forkguard_drop(int *fd)
{
	ac__sys_close(*fd);
	*fd = -1;
}

void ac__forkguard_close(int *fd)
{
	ac__forkguard_lock();
	ac__forkguard_drop(fd);
	ac__forkguard_unlock();
}

int ac__forkguard_fork(const void *group)
{
	int pid;

	pthread_once(&once, install_handlers);
	kept = group;
	pid = ac__sys_fork();
	kept = NULL;
	return pid;
}

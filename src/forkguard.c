/* SPDX-License-Identifier: MIT */
/* The list of what a forked child must let go of: see the header. */
#include "forkguard.h"

#include <pthread.h>

#include "sys.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ac__forkguard *guards;
/* Of the thread that forks: the one guard that its child keeps. */
static __thread struct ac__forkguard *kept;

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
	struct ac__forkguard *guard = guards;

	guards = NULL;
	while (guard) {
		struct ac__forkguard *next = guard->next;

		if (guard == kept) {
			guard->next = NULL;
			guards = guard;
		} else {
			guard->left(guard);
		}
		guard = next;
	}
	pthread_mutex_unlock(&lock);
}

static void install_handlers(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void ac__forkguard_lock(void)
{
	pthread_once(&once, install_handlers);
	pthread_mutex_lock(&lock);
}

void ac__forkguard_unlock(void)
{
	pthread_mutex_unlock(&lock);
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

int ac__forkguard_fork(struct ac__forkguard *keep)
{
	int pid;

	pthread_once(&once, install_handlers);
	kept = keep;
	pid = ac__sys_fork();
	kept = NULL;
	return pid;
}

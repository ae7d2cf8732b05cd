/* SPDX-License-Identifier: MIT */
/*
 * What a forked child gives up. A child that the library did not start (a
 * user's fork) must not hold the library's descriptors, nor write into its
 * regions. Whatever has such things registers a guard. In every forked child
 * the guard's left() runs before fork returns there. The list of guards is the
 * library's only state that is global to the process: pthread_atfork passes no
 * argument.
 */
#ifndef AC__FORKGUARD_H
#define AC__FORKGUARD_H

#include "base.h"

struct ac__forkguard {
	/* Runs in the child, single-threaded; may use only what is safe after fork. */
	void (*left)(struct ac__forkguard *guard);
	/* All guards of one pool, say, have the same group. Only the address counts. NULL: none. */
	const void *group;
	struct ac__forkguard *next;
};

/* Both may be called by any thread. A guard whose left() ran is off the list. */
void ac__forkguard_add(struct ac__forkguard *guard);
void ac__forkguard_remove(struct ac__forkguard *guard);

/*
 * No fork happens between these two. Steps that a child must see whole or not
 * at all go in between: opening a descriptor and writing down its number,
 * mapping memory and writing down its address, and the ways back. The guard
 * that reads what was written down is on the list all the time.
 *
 * Signals are blocked in between, so that a signal handler that forks does so
 * before or after. The same thread may lock again: a fork handler of the user's
 * may run between before_fork and after_fork, and may call the library.
 */
void ac__forkguard_lock(void);
void ac__forkguard_unlock(void);

/* Close *fd and write -1 there, as one step for a child: a child forked between the two would
 * close whatever has the number by then. */
void ac__forkguard_close(int *fd);
/* The same inside left(), where nothing else runs. */
void ac__forkguard_drop(int *fd);

/*
 * fork() for a child of the library's own: there the guards of that group stay
 * on the list, and their left() has not run. All others' has. NULL keeps none.
 */
int ac__forkguard_fork(const void *group);

#endif

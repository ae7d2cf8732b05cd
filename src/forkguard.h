/* SPDX-License-Identifier: MIT */
/*
 * A child that we did not start (a user's fork) is nobody: it must not hold
 * our descriptors or write into our regions. Who owns such things registers a
 * guard; its left() runs in every forked child before fork returns there. The
 * list of guards is the library's only state that is global to the process:
 * pthread_atfork knows no other.
 */
#ifndef AC__FORKGUARD_H
#define AC__FORKGUARD_H

#include "base.h"

struct ac__forkguard {
	/* Runs in the child, single-threaded; may use only what is safe after fork. */
	void (*left)(struct ac__forkguard *guard);
	struct ac__forkguard *next;
};

/* Both may be called by any thread. A guard that ran is off the list. */
void ac__forkguard_add(struct ac__forkguard *guard);
void ac__forkguard_remove(struct ac__forkguard *guard);

/*
 * No fork happens between these two: for steps that must be seen whole or not
 * at all by a child, such as opening a descriptor and writing down its number.
 */
void ac__forkguard_lock(void);
void ac__forkguard_unlock(void);

/*
 * fork(), after which keep's left() has not run in the child (keep may be
 * NULL): for children of our own. Everybody else's has.
 */
int ac__forkguard_fork(struct ac__forkguard *keep);

#endif

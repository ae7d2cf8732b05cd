/* SPDX-License-Identifier: MIT */
/*
 * How a piece of work ended; and how a process ended, as far as a process that may not be
 * its parent can know.
 */
#ifndef AC__ENDING_H
#define AC__ENDING_H

#include <sys/types.h>

#include "base.h"

struct ac__ending {
	int status, value, signal, exit_code;
	pid_t pid;
	unsigned seat;		/* the worker's; 0: none had it */
	int64_t ran_ns;		/* as in struct ac_outcome */
	uint64_t peak_rss;
	char text[AC_TEXT_SIZE];
};

/* The worker's process ended, with status as of waitpid. Other fields stay as they are. */
void ac__ending_died(struct ac__ending *ending, int status, uint64_t peak_rss);
/* The same where the kernel has to be asked how it ended. That is not known if the process has
 * been reaped, is not a child of this one, or has an unknown pid (0). */
void ac__ending_ask(struct ac__ending *ending, pid_t pid);

/* For the user. index: of the item in its map or stream. */
void ac__ending_fill(const struct ac__ending *ending, uint64_t index, struct ac_outcome *outcome);
/* By a signal that people, terminals and service managers send, and that no process brings on itself
 * by its work. The kernel's OOM killer sends one of them, too. */
bool ac__ending_is_from_outside(const struct ac__ending *ending);

/* These do not reap. False for pid 0. */
bool ac__is_living_child(pid_t pid);
bool ac__is_gone(pid_t pid); /* or was never there */

#endif

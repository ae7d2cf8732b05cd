/* SPDX-License-Identifier: MIT */
/*
 * How a piece of work ended; and how a process did, as far as one who may not be its
 * parent can know.
 */
#ifndef AC__ENDING_H
#define AC__ENDING_H

#include <sys/types.h>

#include "base.h"

struct ac__ending {
	int status, value, signal, exit_code;
	pid_t pid;
	unsigned seat;		/* 0: no worker had it */
	int64_t ran_ns;		/* as in struct ac_outcome */
	uint64_t peak_rss;
	char text[AC_TEXT_SIZE];
};

/* Its worker's process ended, with status as of waitpid. Other fields stay as they are. */
void ac__ending_died(struct ac__ending *ending, int status, uint64_t peak_rss);
/* The same where the kernel has to be asked how. It is not known of a process that has been
 * reaped, is not a child of ours, or whose pid is not known (0). */
void ac__ending_ask(struct ac__ending *ending, pid_t pid);

/* These only look: its parent reaps it, who may be this process. False for pid 0. */
bool ac__is_living_child(pid_t pid);
bool ac__is_gone(pid_t pid); /* or was never there */

#endif

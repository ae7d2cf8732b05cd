/* SPDX-License-Identifier: MIT */
/*
 * A sweep: the path of one process is learnt, then for each place on it a fresh run is
 * made, in which the process comes to that place and something befalls it there.
 *
 * Places are all instructions of the engine's code. Elsewhere (tasks, libc's copying) and in
 * long loops: the first, the last and 16 between. At system calls: before, inside or
 * asleep, after.
 *
 * Runs that leave the same behind may be merged: those killed at steps between which no
 * shared byte changed and no system call was made. What the process knew dies with it.
 */
#ifndef AC_SWEEP_H
#define AC_SWEEP_H

#include "trace.h"

struct sweep {
	const char *name;
	/* Everything afresh; the process is at its beginning. */
	void (*start)(struct trace *trace);
	/* As in struct trace. */
	bool (*act)(unsigned n);
	/* At the place; or NULL. */
	void (*befall)(void);
	/* It is not killed there: it goes on to its end. */
	bool spared;
	/* All that there is to check, and everything gone again; killed: in place. */
	void (*end)(struct trace *trace, bool killed);
	/* Others act at the same time: no two runs are alike. */
	bool is_crowded;
	/* They are merged all the same, since what others do does not depend on where in
	 * such a set it is. The region is the process's own, and comes on the way. */
	bool merges;
	/* The process has threads, which would meet its breakpoints: runs take long, and
	 * not all are made. */
	bool only_steps;
	/* Steps at which this holds are not merged, and come first; or NULL. */
	bool (*is_critical)(void);
	const void *arg;	/* for start, act and end: sweep_current */
};

extern const struct sweep *sweep_current;
/* A run for every place; otherwise one for all that may be merged, or for some seconds. */
extern bool sweep_full;

void sweep_run(const struct sweep *sweep);

#endif

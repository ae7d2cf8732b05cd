/* SPDX-License-Identifier: MIT */
/* Python as a runtime of the engine's (struct ac_runtime): workers that the template forks. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include <signal.h>

#include "ext.h"

/* What the runtime's functions need. The pool's object contains it. */
struct runtime {
	PyObject *processes;		/* borrowed from the pool's object */
	/* Start the interpreter at once in each worker. Else only when there is work for it: its start
	 * is mostly page faults, one for each page that it writes to. */
	bool eager;
	/* Of the first process of each worker, 0 once that was started: drawn in Python before. */
	uint64_t *first_tags;
	unsigned workers;
	sigset_t mask;		/* of the thread that opened the pool, for the workers */
	struct ac_runtime functions;
};

/* tags: a list of numbers, one for each worker. 0, or -1 with an exception set. */
int runtime_init(struct runtime *runtime, PyObject *processes, PyObject *tags, bool eager);
void runtime_clear(struct runtime *runtime);

#endif

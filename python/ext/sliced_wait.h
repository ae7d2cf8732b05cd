/* SPDX-License-Identifier: MIT */
/* Time limits, and waits that a signal handler's exception (Ctrl-C) ends. */
#ifndef SLICED_WAIT_H
#define SLICED_WAIT_H

#include "ext.h"

/* Monotonic nanoseconds. */
int64_t now_ns(void);
/* A Python time limit in seconds (None: no limit) as nanoseconds. -2 with an exception set. */
int64_t timeout_from(PyObject *seconds);

/*
 * A wait that Python's signal handlers can end. A signal that arrives just before the wait
 * begins interrupts nothing, so the main thread, which runs the handlers, waits in slices.
 * In each round the caller waits for sliced_wait_next() nanoseconds without the GIL, and
 * passes the result to sliced_wait_check().
 */
struct sliced_wait {
	int64_t timeout, end;
	bool sliced;
};

void sliced_wait_begin(struct sliced_wait *wait, int64_t timeout);
int64_t sliced_wait_next(const struct sliced_wait *wait);
/* Runs signal handlers if the round's result r is -EINTR or the end of a slice.
 * -EINTR: wait another round. -1: an exception is set. Otherwise r. */
int sliced_wait_check(const struct sliced_wait *wait, int r);

/* Whether this is the main thread, the only one that runs Python's signal handlers. */
bool runs_handlers(void);
/*
 * For Python code that must run to its end and has raised an exception. true: the exception
 * was a KeyboardInterrupt, is cleared and counted: run the code again, and call
 * PyErr_SetInterrupt() after it has succeeded. false: the exception stays set.
 */
bool postpone_interrupt(unsigned *interrupts);

#endif

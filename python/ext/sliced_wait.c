/* SPDX-License-Identifier: MIT */
/* Time limits, and waits that Ctrl-C ends: see sliced_wait.h. */
#include "sliced_wait.h"

#include <errno.h>
#include <math.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 50000000
/* After this many in a row the code itself raises KeyboardInterrupt: let it pass. */
#define INTERRUPTS_MOST 8

int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t timeout_from(PyObject *seconds)
{
	double value;

	if (!seconds || seconds == Py_None)
		return -1;
	value = PyFloat_AsDouble(seconds);
	if (value == -1.0 && PyErr_Occurred())
		return -2;
	if (isnan(value)) {
		PyErr_SetString(PyExc_ValueError, "timeout must not be NaN");
		return -2;
	}
	if (value <= 0)
		return 0;
	return value > 9e9 ? -1 : (int64_t)(value * 1e9);
}

/* The kernel's main thread; Python's too, since after a fork both are the thread that forked. */
bool runs_handlers(void)
{
	return syscall(SYS_gettid) == getpid();
}

void sliced_wait_begin(struct sliced_wait *wait, int64_t timeout)
{
	wait->timeout = timeout;
	wait->end = timeout > 0 ? now_ns() + timeout : 0;
	wait->sliced = timeout != 0 && runs_handlers();
}

int64_t sliced_wait_next(const struct sliced_wait *wait)
{
	int64_t left = wait->timeout;

	if (left > 0) {
		left = wait->end - now_ns();
		left = left > 0 ? left : 0;
	}
	if (wait->sliced && (left < 0 || left > SLICE_NS))
		return SLICE_NS;
	return left;
}

int sliced_wait_check(const struct sliced_wait *wait, int r)
{
	if (r == -ETIMEDOUT && (wait->timeout < 0 ||
				(wait->timeout > 0 && now_ns() < wait->end)))
		r = -EINTR;
	/* Signal handlers, and the exceptions that handlers raised while a worker was being
	 * started (starter.h). */
	if (r == -EINTR && Py_MakePendingCalls() < 0)
		return -1;
	return r;
}

bool postpone_interrupt(unsigned *interrupts)
{
	if (*interrupts >= INTERRUPTS_MOST || !runs_handlers() ||
	    !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
		return false;
	PyErr_Clear();
	++*interrupts;
	return true;
}

/* SPDX-License-Identifier: MIT */
/* Waits that Ctrl-C ends. */
#include "ext.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLICE_NS 50000000
#define INTERRUPTS_MOST 8 /* then it is no Ctrl-C, but what always comes out */

/* After a fork the main thread is the one that forked. */
bool runs_handlers(void)
{
	return syscall(SYS_gettid) == getpid();
}

void patience_begin(struct patience *patience, int64_t timeout)
{
	patience->timeout = timeout;
	patience->end = timeout > 0 ? now_ns() + timeout : 0;
	patience->sliced = timeout != 0 && runs_handlers();
}

int64_t patience_slice(const struct patience *patience)
{
	int64_t left = patience->timeout;

	if (left > 0) {
		left = patience->end - now_ns();
		left = left > 0 ? left : 0;
	}
	if (patience->sliced && (left < 0 || left > SLICE_NS))
		return SLICE_NS;
	return left;
}

bool put_off_interrupt(unsigned *interrupts)
{
	if (*interrupts >= INTERRUPTS_MOST || !runs_handlers() ||
	    !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
		return false;
	PyErr_Clear();
	++*interrupts;
	return true;
}

int patience_judge(const struct patience *patience, int r)
{
	if (r == -ETIMEDOUT && (patience->timeout < 0 ||
				(patience->timeout > 0 && now_ns() < patience->end)))
		r = -EINTR;
	/* Signals, and what came out of their handlers at the wrong time (pool.c). */
	if (r == -EINTR && Py_MakePendingCalls() < 0)
		return -1;
	return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * For the files that call the kernel: a place where a test can make a call fail, and -errno for
 * -1.
 */
#ifndef AC__SYS_FAULT_H
#define AC__SYS_FAULT_H

#include <errno.h>

#include "sys.h"

#ifdef AC_FAULTS
/* 0, or the -errno that this call is to fail with. */
int ac__fault(enum ac__sys_call call);
#else
#define ac__fault(call) 0
#endif

#define RETURN_FAULT(call)                       \
	do {                                     \
		int failure_ = ac__fault(call);  \
		if (failure_)                    \
			return failure_;         \
	} while (0)

static inline int checked(long result)
{
	return result < 0 ? -errno : (int)result;
}

/* Of a call that opens a descriptor. */
static inline int opened(long result)
{
	return result < 0 ? -errno : ac__sys_lift((int)result);
}

#endif

/* SPDX-License-Identifier: MIT */
/* Options structs that grow at their end: see base.h. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base.h"

/*
 * What is added later must not lie where an earlier caller had padding, whose bytes may be
 * anything: the last member ends where the struct ends.
 */
#define ENDS_WITH(type, member)                                               \
	_Static_assert(offsetof(struct type, member) +                        \
				       sizeof(((struct type *)0)->member) ==  \
			       sizeof(struct type),                           \
		       #type " has padding at its end")
ENDS_WITH(ac_pool_opts, ended);
ENDS_WITH(ac_map_opts, progress_arg);
ENDS_WITH(ac_submit_opts, flags);
ENDS_WITH(ac_stream_opts, flags);
ENDS_WITH(ac_push_opts, user);
ENDS_WITH(ac_process_opts, reserved);
ENDS_WITH(ac_pool_stat, template_threads);
ENDS_WITH(ac_runtime, flags);
ENDS_WITH(ac_trace_event, end_ns);

/* What the whole library takes for granted of the compiler and of libc. */
_Static_assert(sizeof(off_t) == 8, "files of more than 2 GB: -D_FILE_OFFSET_BITS=64");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(long long) == 8,
	       "64-bit atomics without locks, which processes could not share");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && sizeof(int) == 4,
	       "32-bit atomics without locks, which processes could not share");

int ac__opts_copy(void *to, size_t to_size, const void *from)
{
	size_t size;

	memset(to, 0, to_size);
	if (!from)
		return 0;
	memcpy(&size, from, sizeof size);
	if (size < sizeof size)
		return -EINVAL;
	if (size > AC__STRUCT_MOST)
		return -E2BIG;
	for (size_t i = to_size; i < size; i++)
		if (((const unsigned char *)from)[i])
			return -E2BIG;
	memcpy(to, from, AC__MIN(size, to_size));
	return 0;
}

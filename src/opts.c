/* SPDX-License-Identifier: MIT */
/* Options structs that grow at their end: see base.h. */
#include <errno.h>
#include <string.h>

#include "base.h"

int ac__opts_copy(void *to, size_t to_size, const void *from)
{
	size_t size;

	memset(to, 0, to_size);
	if (!from)
		return 0;
	memcpy(&size, from, sizeof size);
	if (size < sizeof size)
		return -EINVAL;
	for (size_t i = to_size; i < size; i++)
		if (((const unsigned char *)from)[i])
			return -E2BIG;
	memcpy(to, from, AC__MIN(size, to_size));
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * How many processors this process may really use: the least of what the
 * affinity mask, the control groups' quota and the user allow.
 */
#define _GNU_SOURCE
#include "cpus.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "allcores.h"
#include "cgroup.h"

#define MASK_MAX (1 << 20)

static int lesser(int a, int b)
{
	return a < b ? a : b;
}

/* Processors in a mask of so many bits, or -errno. */
static int count_mask(int bits)
{
	size_t size = CPU_ALLOC_SIZE(bits);
	cpu_set_t *mask = CPU_ALLOC(bits);
	int n;

	if (!mask)
		return -ENOMEM;
	n = sched_getaffinity(0, size, mask) < 0 ? -errno :
						   CPU_COUNT_S(size, mask);
	CPU_FREE(mask);
	return n;
}

static int count_affinity(void)
{
	int n = -EINVAL;

	/* -EINVAL: the kernel has more processors than the mask has bits. */
	for (int bits = CPU_SETSIZE; n == -EINVAL && bits <= MASK_MAX; bits *= 2)
		n = count_mask(bits);
	return n > 0 ? n : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* A part of a processor counts as a whole one; INT_MAX: no limit. */
static int count_quota(const char *root)
{
	double quota = ac__cgroup_cpus(root);

	if (quota <= 0 || quota >= INT_MAX)
		return INT_MAX;
	return (int)quota + ((int)quota < quota);
}

/* The user's limit; INT_MAX where the variable isn't a positive number. */
static int count_environment(void)
{
	const char *text = getenv("ALLCORES_CPUS");
	long long n = 0;

	if (!text)
		return INT_MAX;
	for (; *text >= '0' && *text <= '9'; text++)
		if (n < INT_MAX)
			n = n * 10 + (*text - '0');
	return *text || n == 0 || n > INT_MAX ? INT_MAX : (int)n;
}

int ac__cpus_count(const char *root, int leave)
{
	int n = lesser(count_affinity(), count_quota(root));

	n = lesser(n, count_environment());
	if (leave > 0)
		n -= leave;
	return n > 0 ? n : 1;
}

int ac_cpus(int leave)
{
	return ac__cpus_count("", leave);
}

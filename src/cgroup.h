/* SPDX-License-Identifier: MIT */
/*
 * The limits that control groups (v1, v2 and both at once) put on this
 * process. root is put before every path: "" for the system, a recorded tree
 * in tests. A file that is missing or can't be understood is no limit.
 */
#ifndef AC__CGROUP_H
#define AC__CGROUP_H

#include <stdint.h>

/* The quota in processors (1.5), the least of all levels; <= 0: no limit. */
double ac__cgroup_cpus(const char *root);

/* Limit less usage in bytes, the least of all levels; INT64_MAX: no limit. */
int64_t ac__cgroup_memory_free(const char *root);

#endif

/* SPDX-License-Identifier: MIT */
/* How many processors this process may really use. */
#ifndef AC__CPUS_H
#define AC__CPUS_H

/* ac_cpus with the control groups of another root (see cgroup.h). */
int ac__cpus_count(const char *root, int leave);

#endif

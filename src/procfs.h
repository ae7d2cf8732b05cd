/* SPDX-License-Identifier: MIT */
/* What /proc/PID/status says of a process. On systems without it nothing is known. */
#ifndef AC__PROCFS_H
#define AC__PROCFS_H

#include <sys/types.h>

#include "base.h"

/* The number of its threads; 0: not known. */
int ac__procfs_threads(pid_t pid);
/* Whether it has a handler for that signal. False where that is not known. */
bool ac__procfs_catches(pid_t pid, int signal);

#endif

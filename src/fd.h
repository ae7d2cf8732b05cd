/* SPDX-License-Identifier: MIT */
/*
 * A descriptor and what it stood for when it was opened. User code may close
 * any number (closefrom, or a loop that makes a daemon) and open a file, a
 * socket or a pipe of its own under it. So before the library writes to such a
 * number, reads from it, maps it or closes it, it asks whether it is still the
 * one: device and inode tell memfds, files, sockets and pipes apart. (Eventfds
 * all have the same inode: the bell is a pipe.) Another thread that replaces the number
 * between the question and its use is not noticed.
 */
#ifndef AC__FD_H
#define AC__FD_H

#include "base.h"

struct ac__fd {
	int number;	/* -1: none */
	uint64_t device, inode;
};

#define AC__FD_NONE ((struct ac__fd){ .number = -1 })

struct ac__fd ac__fd_of(int number);
/* False also for none. */
bool ac__fd_is_same(const struct ac__fd *fd);
/* Of a file; 0 if it is another one now. */
uint64_t ac__fd_size(const struct ac__fd *fd);

/* As ac__forkguard_close and ac__forkguard_drop. A number that is the user's by now stays open. */
void ac__fd_close(struct ac__fd *fd);
void ac__fd_drop(struct ac__fd *fd);

/*
 * A pipe that wakes a poll: the process that sleeps polls and drains pipe[0], others ring
 * pipe[1]. 0 or -errno. Written down as one step for a child, in a struct that a guard knows.
 */
int ac__fd_open_pipe(struct ac__fd pipe[2]);
/* False: it is another one by now, and nothing was written or read. */
bool ac__fd_ring(const struct ac__fd *fd);
bool ac__fd_drain(const struct ac__fd *fd);

#endif

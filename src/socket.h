/* SPDX-License-Identifier: MIT */
/*
 * The private socket between the owner and one of its processes: how the
 * process comes to its seat. The owner keeps one end; the process gets the other, by
 * inheritance or passed by the user's start. To a process that the library did
 * not fork, the owner sends an invitation through it: the seat's number, and
 * descriptors of the region and of the owner's bell. After that the socket is the
 * process's lifeline (see lifeline.h).
 */
#ifndef AC__SOCKET_H
#define AC__SOCKET_H

#include "base.h"
#include "fd.h"

struct ac__socket {
	int owner_end, process_end;
};

/* Both ends are open and written down before any fork can happen. Closed by ac__forkguard_close. */
int ac__socket_open(struct ac__socket *socket);

/* Owner: send seat, region and bell. -EBADF: user code has closed one of them. */
int ac__socket_invite(int owner_end, unsigned seat, const struct ac__fd *region,
		      const struct ac__fd *bell);
/*
 * Process: receive them, waiting for them. Both descriptors are -1 before; a guard that is on
 * the list knows where they are written. -EPIPE: the owner is gone; AC_EVERSION: that was no
 * invitation.
 */
int ac__socket_enter(int process_end, unsigned *seat, int *region_fd, int *bell_fd);

#endif

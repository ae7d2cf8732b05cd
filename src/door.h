/* SPDX-License-Identifier: MIT */
/*
 * The door: how a process comes to its seat. The owner keeps one end of a
 * private socket; the process gets the other, by inheritance or passed. For a process
 * that we did not fork, the region and the owner's bell come through it. Then it is the lifeline:
 * its end kills the process, and so does a byte sent on it (see ac__sys_lifeline).
 */
#ifndef AC__DOOR_H
#define AC__DOOR_H

#include "base.h"
#include "fd.h"

struct ac__door {
	int owner_end, process_end;
};

/* Descriptors are open and written down before any fork can happen. */
int ac__door_open(struct ac__door *door);

/* Owner: put seat, region and bell into the door. -EBADF: user code has closed one of them. */
int ac__door_invite(int owner_end, unsigned seat, const struct ac__fd *region,
		    const struct ac__fd *bell);
/* Process: take them out, waiting for them. Both descriptors are -1 before; a guard that is on
 * the list knows where they are written. -EPIPE: the owner is gone; AC_EVERSION: that was no
 * invitation. */
int ac__door_enter(int process_end, unsigned *seat, int *region_fd, int *bell_fd);

#endif

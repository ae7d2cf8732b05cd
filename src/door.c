/* SPDX-License-Identifier: MIT */
/* Invitations through a private socket: see the header. */
#include "door.h"

#include <errno.h>

#include "forkguard.h"
#include "sys.h"

#define INVITATION UINT32_C(0xac5ea701)

struct invitation {
	uint32_t magic;
	uint32_t seat;
};

int ac__door_open(struct ac__door *door)
{
	int fd[2];
	int r;

	ac__forkguard_lock();
	r = ac__sys_socketpair(fd);
	if (r == 0) {
		door->owner_end = fd[0];
		door->process_end = fd[1];
	}
	ac__forkguard_unlock();
	return r;
}

void ac__door_let_go(int *fd)
{
	ac__sys_close(*fd);
	*fd = -1;
}

void ac__door_close(int *fd)
{
	/* A child forked between the two would close whatever has the number by then. */
	ac__forkguard_lock();
	ac__door_let_go(fd);
	ac__forkguard_unlock();
}

/* Two packets, since a packet carries one descriptor. */
int ac__door_invite(int owner_end, unsigned seat, int region_fd, int bell_fd)
{
	struct invitation note = { .magic = INVITATION, .seat = seat };
	int r = ac__sys_send(owner_end, &note, sizeof note, region_fd);

	return r < 0 ? r : ac__sys_send(owner_end, &note, sizeof note, bell_fd);
}

static int receive_one(int process_end, struct invitation *note, int *fd)
{
	int r = ac__sys_receive(process_end, note, sizeof *note, fd, false);

	if (r == -EMSGSIZE)
		return AC_EVERSION;
	if (r < 0)
		return r;
	if (r == 0)
		return -EPIPE;
	if (r == sizeof *note && note->magic == INVITATION && *fd >= 0)
		return 0;
	ac__door_close(fd);
	return AC_EVERSION;
}

int ac__door_enter(int process_end, unsigned *seat, int *region_fd, int *bell_fd)
{
	struct invitation note;
	int r = receive_one(process_end, &note, region_fd);

	if (r < 0)
		return r;
	r = receive_one(process_end, &note, bell_fd);
	if (r < 0)
		ac__door_close(region_fd);
	*seat = note.seat;
	return r;
}

/* SPDX-License-Identifier: MIT */
/* Invitations through the private socket: see the header. */
#include "socket.h"

#include <errno.h>

#include "forkguard.h"
#include "sys.h"

#define INVITATION UINT32_C(0xac5ea701)

struct invitation {
	uint32_t magic;
	uint32_t seat;
};

int ac__socket_open(struct ac__socket *socket)
{
	int fd[2];
	int r;

	ac__forkguard_lock();
	r = ac__sys_socketpair(fd);
	if (r == 0) {
		socket->owner_end = fd[0];
		socket->process_end = fd[1];
	}
	ac__forkguard_unlock();
	return r;
}

/* Two packets, since a packet carries one descriptor. */
int ac__socket_invite(int owner_end, unsigned seat, const struct ac__fd *region,
		    const struct ac__fd *bell)
{
	struct invitation note = { .magic = INVITATION, .seat = seat };
	int r;

	if (!ac__fd_is_same(region) || !ac__fd_is_same(bell))
		return -EBADF;
	r = ac__sys_send(owner_end, &note, sizeof note, region->number);
	return r < 0 ? r : ac__sys_send(owner_end, &note, sizeof note, bell->number);
}

/* The wait is done without the forkguard's lock: the packet may never come. */
static int receive_one(int process_end, struct invitation *note, int *fd)
{
	int r;

	for (;;) {
		ac__forkguard_lock();
		r = ac__sys_receive(process_end, note, sizeof *note, fd, true);
		ac__forkguard_unlock();
		if (r != -EAGAIN)
			break;
		ac__sys_poll(process_end, INT64_MAX);
	}
	if (r == -EMSGSIZE)
		return AC_EVERSION;
	if (r < 0)
		return r;
	if (r == 0)
		return -EPIPE;
	return r == sizeof *note && note->magic == INVITATION && *fd >= 0 ? 0 :
									    AC_EVERSION;
}

int ac__socket_enter(int process_end, unsigned *seat, int *region_fd, int *bell_fd)
{
	struct invitation note;
	int r = receive_one(process_end, &note, region_fd);

	if (r == 0)
		r = receive_one(process_end, &note, bell_fd);
	if (r < 0) {
		ac__forkguard_close(region_fd);
		ac__forkguard_close(bell_fd);
		return r;
	}
	*seat = note.seat;
	return 0;
}

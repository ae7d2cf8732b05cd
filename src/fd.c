/* SPDX-License-Identifier: MIT */
/* Descriptors that user code may have replaced: see the header. */
#include "fd.h"

#include "forkguard.h"
#include "sys.h"

struct ac__fd ac__fd_of(int number)
{
	struct ac__sys_file file = { 0 };

	ac__sys_stat(number, &file);
	return (struct ac__fd){ .number = number,
				.device = file.device,
				.inode = file.inode };
}

bool ac__fd_is_same(const struct ac__fd *fd)
{
	struct ac__sys_file file;

	return fd->number >= 0 && ac__sys_stat(fd->number, &file) == 0 &&
	       file.inode == fd->inode && file.device == fd->device;
}

uint64_t ac__fd_size(const struct ac__fd *fd)
{
	struct ac__sys_file file;

	return ac__sys_stat(fd->number, &file) == 0 && file.inode == fd->inode &&
			       file.device == fd->device ?
		       file.size :
		       0;
}

void ac__fd_drop(struct ac__fd *fd)
{
	if (ac__fd_is_same(fd))
		ac__sys_close(fd->number);
	fd->number = -1;
}

void ac__fd_close(struct ac__fd *fd)
{
	ac__forkguard_lock();
	ac__fd_drop(fd);
	ac__forkguard_unlock();
}

int ac__fd_open_pipe(struct ac__fd pipe[2])
{
	int fd[2];
	int r;

	ac__forkguard_lock();
	r = ac__sys_pipe(fd);
	if (r == 0) {
		pipe[0] = ac__fd_of(fd[0]);
		pipe[1] = ac__fd_of(fd[1]);
	}
	ac__forkguard_unlock();
	return r;
}

bool ac__fd_ring(const struct ac__fd *fd)
{
	if (!ac__fd_is_same(fd))
		return false;
	ac__sys_write_byte(fd->number);
	return true;
}

bool ac__fd_drain(const struct ac__fd *fd)
{
	if (!ac__fd_is_same(fd))
		return false;
	ac__sys_drain(fd->number);
	return true;
}

/* SPDX-License-Identifier: MIT */
/*
 * The kernel's calls for memory: files that only exist in memory, mappings, pages given
 * back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"
#include "sys_fault.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

void *ac__sys_calloc(size_t n, size_t size)
{
	return ac__fault(AC__SYS_MALLOC) ? NULL : calloc(n, size);
}

static int open_memfd(void)
{
	int fd;

	RETURN_FAULT(AC__SYS_MEMFD);
	fd = memfd_create("allcores",
			  MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	/* Kernels before 6.3 don't know the last flag. */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("allcores", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return opened(fd);
}

static int resize_file(int fd, uint64_t size)
{
	RETURN_FAULT(AC__SYS_RESIZE);
	return checked(ftruncate(fd, (off_t)size));
}

static int seal_file(int fd)
{
	RETURN_FAULT(AC__SYS_SEAL);
	return checked(fcntl(fd, F_ADD_SEALS,
			     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
}

/* Some kernels have memfd_create without sealing: all three steps must work. */
static int sealed_memfd(uint64_t size)
{
	int fd = open_memfd();
	int r;

	if (fd < 0)
		return fd;
	r = resize_file(fd, size);
	if (r == 0)
		r = seal_file(fd);
	if (r < 0) {
		ac__sys_close(fd);
		return r;
	}
	return fd;
}

static int unlinked_file(const char *dir)
{
	char path[256];
	int fd;

	RETURN_FAULT(AC__SYS_TMPFILE);
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
	if (fd >= 0)
		return opened(fd);
	if (snprintf(path, sizeof path, "%s/allcores-XXXXXX", dir) >=
	    (int)sizeof path)
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return opened(fd);
}

static int any_unlinked_file(void)
{
	const char *dirs[] = { getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm" };
	int fd = -ENOENT;

	for (size_t i = 0; fd < 0 && i < sizeof dirs / sizeof *dirs; i++)
		if (dirs[i] && *dirs[i])
			fd = unlinked_file(dirs[i]);
	return fd;
}

int ac__sys_memory(uint64_t size, bool *sealed)
{
	int fd = sealed_memfd(size);

	*sealed = fd >= 0;
	if (fd == -EMFILE || fd == -ENFILE)
		return fd;
	return fd >= 0 ? fd : any_unlinked_file();
}

int ac__sys_preallocate(int fd, uint64_t offset, uint64_t len)
{
	int r;

	RETURN_FAULT(AC__SYS_PREALLOCATE);
	/* Growing beyond the limit would raise SIGXFSZ. */
	if (offset + len > ac__sys_file_limit())
		return -EFBIG;
	do /* some kernels' tmpfs gives up when a signal arrives */
		r = posix_fallocate(fd, (off_t)offset, (off_t)len);
	while (r == EINTR);
	return -r;
}

int ac__sys_stat(int fd, struct ac__sys_file *file)
{
	struct stat s;

	if (fstat(fd, &s) < 0)
		return -errno;
	*file = (struct ac__sys_file){ .device = s.st_dev,
				       .inode = s.st_ino,
				       .size = (uint64_t)s.st_size };
	return 0;
}

uint64_t ac__sys_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) < 0 ||
	    limit.rlim_cur == RLIM_INFINITY)
		return INT64_MAX;
	return limit.rlim_cur;
}

int ac__sys_map(void **address, int fd, uint64_t offset, size_t len)
{
	void *p;

	RETURN_FAULT(AC__SYS_MAP);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		 fd, (off_t)offset);
	if (p == MAP_FAILED)
		return -errno;
	/* A core dump of a huge sparse mapping would take for ever. */
	madvise(p, len, MADV_DONTDUMP);
	*address = p;
	return 0;
}

int ac__sys_map_private(void *address, int fd, uint64_t offset, size_t len)
{
	void *p = mmap(address, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		       (off_t)offset);

	if (p == MAP_FAILED)
		return -errno;
	madvise(p, len, MADV_DONTDUMP); /* a new mapping does not inherit it */
	return 0;
}

void *ac__sys_share(size_t len)
{
	void *p;

	if (ac__fault(AC__SYS_MAP))
		return NULL;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void ac__sys_unmap(void *address, size_t len)
{
	munmap(address, len);
}

void ac__sys_punch(int fd, uint64_t offset, uint64_t len)
{
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		  (off_t)offset, (off_t)len);
}

size_t ac__sys_page(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

#define SHED_FROM (UINT64_C(4) << 20)
#define SANITIZER_FROM (UINT64_C(1) << 40) /* its shadow, which comes before the memory it is for */
#define LARGE_PROCESS_KB 65536 /* below this, reading the maps costs more than it saves */

static bool holds_any(uintptr_t start, uintptr_t end, const void *const *keep)
{
	uintptr_t here = (uintptr_t)&start, thread = (uintptr_t)pthread_self();

	for (; *keep; keep++)
		if ((uintptr_t)*keep >= start && (uintptr_t)*keep < end)
			return true;
	return (here >= start && here < end) || (thread >= start && thread < end);
}

void ac__sys_shed(const void *const *keep)
{
	unsigned long start, end, inode;
	char line[512], perms[5], rest, buffer[4096];
	struct rusage usage;
	FILE *maps;

	if (getrusage(RUSAGE_SELF, &usage) == 0 &&
	    usage.ru_maxrss < LARGE_PROCESS_KB)
		return;
	maps = ac__sys_open_file("/proc/self/maps");
	if (maps)
		setvbuf(maps, buffer, _IOFBF, sizeof buffer);
	while (maps && fgets(line, sizeof line, maps)) {
		/* A name would follow the inode: [heap], [stack] and files have one. */
		int fields = sscanf(line, "%lx-%lx %4s %*s %*s %lu %c", &start,
				    &end, perms, &inode, &rest);

		if (fields >= 3 && end - start >= SANITIZER_FROM)
			break;
		if (fields == 4 && inode == 0 && strcmp(perms, "rw-p") == 0 &&
		    end - start >= SHED_FROM && !holds_any(start, end, keep) &&
		    ((uintptr_t)maps < start || (uintptr_t)maps >= end))
			madvise((void *)start, end - start, MADV_DONTNEED);
	}
	if (maps)
		fclose(maps);
}

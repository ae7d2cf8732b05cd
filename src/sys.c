/* SPDX-License-Identifier: MIT */
/*
 * The only door to the kernel: Linux's calls behind plain functions that
 * return -errno, each with its slow way where a system may lack the fast one.
 */
#define _GNU_SOURCE
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* ---- faults ---- */

#ifdef AC_FAULTS
static struct {
	_Atomic unsigned calls, from, times;
	_Atomic int err;
} faults[AC__SYS_CALL_COUNT];

void ac__fault_disarm(void)
{
	memset(faults, 0, sizeof faults);
}

void ac__fault_arm(enum ac__sys_call call, unsigned nth, unsigned times, int err)
{
	faults[call].calls = 0;
	faults[call].from = nth;
	faults[call].times = times;
	faults[call].err = err;
}

void (*ac__step_hook)(void);

unsigned ac__fault_calls(enum ac__sys_call call)
{
	return faults[call].calls;
}

static int fault(enum ac__sys_call call)
{
	unsigned n = ++faults[call].calls;
	unsigned from = faults[call].from;

	return from && n >= from && n - from < faults[call].times ?
		       -faults[call].err : 0;
}
#else
#define fault(call) 0
#endif

#define RETURN_FAULT(call)                       \
	do {                                     \
		int failure_ = fault(call);      \
		if (failure_)                    \
			return failure_;         \
	} while (0)

static int checked(long result)
{
	return result < 0 ? -errno : (int)result;
}

/* ---- time, processors ---- */

static int64_t read_clock(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t ac__sys_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t ac__sys_now_coarse(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
	return read_clock(CLOCK_MONOTONIC_COARSE);
#else
	return ac__sys_now();
#endif
}

int64_t ac__sys_deadline(int64_t timeout_ns)
{
	int64_t now;

	if (timeout_ns < 0)
		return INT64_MAX;
	now = ac__sys_now();
	return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

void ac__sys_yield(void)
{
	sched_yield();
}

static struct timespec timespec_of(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / 1000000000,
				  .tv_nsec = ns % 1000000000 };
}

/* ---- memory ---- */

void *ac__sys_calloc(size_t n, size_t size)
{
	return fault(AC__SYS_MALLOC) ? NULL : calloc(n, size);
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
	return checked(fd);
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

/* Some kernels have memfd_create only half: all three steps must work. */
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
		return fd;
	if (snprintf(path, sizeof path, "%s/allcores-XXXXXX", dir) >=
	    (int)sizeof path)
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return checked(fd);
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
	do /* some kernels' tmpfs gives up when a signal comes */
		r = posix_fallocate(fd, (off_t)offset, (off_t)len);
	while (r == EINTR);
	return -r;
}

uint64_t ac__sys_file_size(int fd)
{
	struct stat file;

	return fstat(fd, &file) < 0 ? 0 : (uint64_t)file.st_size;
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
	madvise(p, len, MADV_DONTDUMP); /* a new mapping knows nothing of the old one's */
	return 0;
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
#define SANITIZER_FROM (UINT64_C(1) << 40) /* its shadow, which comes before what it shadows */
#define LARGE_PROCESS_KB 65536 /* below this, looking costs more than it saves */

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
	maps = fopen("/proc/self/maps", "re");
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

/* ---- sleeping and waking ---- */

int ac__sys_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline)
{
	/* Given also where there is no limit: a wait without one is restarted after
	 * a handler with SA_RESTART, and -EINTR would never come. */
	struct timespec t = timespec_of(deadline);
	long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen,
			 &t, NULL, FUTEX_BITSET_MATCH_ANY);

	return r < 0 && errno != EAGAIN ? -errno : 0;
}

void ac__sys_futex_wake(_Atomic uint32_t *word, int n)
{
	syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}

static int open_eventfd(void)
{
	RETURN_FAULT(AC__SYS_EVENTFD);
	return checked(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

static int open_pipe(int fd[2])
{
	RETURN_FAULT(AC__SYS_PIPE);
	return checked(pipe2(fd, O_CLOEXEC | O_NONBLOCK));
}

int ac__sys_wakefd(int fd[2])
{
	int r = open_eventfd();

	if (r == -EMFILE || r == -ENFILE)
		return r;
	if (r < 0)
		return open_pipe(fd);
	fd[0] = fd[1] = r;
	return 0;
}

void ac__sys_wakefd_ring(int fd)
{
	static const uint64_t one = 1;
	int saved = errno;

	/* Fails only when the counter or the pipe is full: it is readable then. */
	while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
		;
	errno = saved;
}

void ac__sys_wakefd_drain(int fd)
{
	char buffer[512];
	ssize_t n;
	int saved = errno;

	do
		n = read(fd, buffer, sizeof buffer);
	while (n == sizeof buffer || (n < 0 && errno == EINTR));
	errno = saved;
}

/* ---- descriptors ---- */

int ac__sys_epoll(void)
{
	RETURN_FAULT(AC__SYS_EPOLL);
	return checked(epoll_create1(EPOLL_CLOEXEC));
}

int ac__sys_epoll_add(int epoll, int fd, uint64_t tag, bool hangup_only)
{
	struct epoll_event event = { .events = hangup_only ? 0 : EPOLLIN,
				     .data.u64 = tag };

	RETURN_FAULT(AC__SYS_EPOLL_ADD);
	return checked(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

void ac__sys_epoll_remove(int epoll, int fd)
{
	int saved = errno;

	if (fd >= 0)
		epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
	errno = saved;
}

/* Milliseconds until deadline for poll, rounded up; -1 for never. */
static int milliseconds_until(int64_t deadline)
{
	int64_t left;

	if (deadline == INT64_MAX)
		return -1;
	left = deadline - ac__sys_now();
	if (left <= 0)
		return 0;
	return (int)AC__MIN((left + 999999) / 1000000, INT_MAX);
}

int ac__sys_epoll_wait(int epoll, uint64_t *tags, int n, int64_t deadline)
{
	struct epoll_event events[64];
	int r = epoll_wait(epoll, events, AC__MIN(n, 64),
			   milliseconds_until(deadline));

	for (int i = 0; i < r; i++)
		tags[i] = events[i].data.u64;
	return checked(r);
}

int ac__sys_timerfd(void)
{
	return checked(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

void ac__sys_timerfd_set(int fd, int64_t deadline)
{
	struct itimerspec t = { .it_value = timespec_of(deadline) };

	if (deadline == INT64_MAX)
		memset(&t, 0, sizeof t);
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
}

void ac__sys_close(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
}

int ac__sys_socketpair(int fd[2])
{
	RETURN_FAULT(AC__SYS_SOCKET);
	return checked(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd));
}

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header; /* for its alignment */
};

int ac__sys_send(int sock, const void *data, size_t len, int fd)
{
	union control control = { { 0 } };
	struct iovec part = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t r;

	RETURN_FAULT(AC__SYS_SEND);
	if (fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof control.bytes;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	}
	do
		r = sendmsg(sock, &message, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* The room for one descriptor is, rounded up, room for two. */
static void take_first(const struct cmsghdr *header, int *fd)
{
	size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int one;

		memcpy(&one, CMSG_DATA(header) + i * sizeof one, sizeof one);
		if (i == 0)
			*fd = one;
		else
			ac__sys_close(one);
	}
}

int ac__sys_receive(int sock, void *data, size_t len, int *fd, bool nowait)
{
	union control control;
	struct iovec part = { .iov_base = data, .iov_len = len };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = sizeof control.bytes };
	struct cmsghdr *header;
	ssize_t r;

	*fd = -1;
	RETURN_FAULT(AC__SYS_RECEIVE);
	do
		r = recvmsg(sock, &message,
			    MSG_CMSG_CLOEXEC | (nowait ? MSG_DONTWAIT : 0));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		take_first(header, fd);
	/* An empty packet is not the end, nor is a longer one what was asked for. */
	if ((r == 0 && *fd >= 0) || (message.msg_flags & MSG_TRUNC)) {
		ac__sys_close(*fd);
		*fd = -1;
		return -EMSGSIZE;
	}
	return (int)r;
}

void ac__sys_shutdown(int sock)
{
	shutdown(sock, SHUT_RDWR);
}

void ac__sys_end_sending(int sock)
{
	shutdown(sock, SHUT_WR);
}

int ac__sys_poll(int fd, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int r = poll(&p, 1, milliseconds_until(deadline));

	if (r < 0)
		return -errno;
	return r ? 0 : -ETIMEDOUT;
}

/* ---- processes ---- */

pid_t ac__sys_fork(void)
{
	pid_t pid;

	RETURN_FAULT(AC__SYS_FORK);
	pid = fork();
	return pid < 0 ? -errno : pid;
}

int ac__sys_pidfd(pid_t pid)
{
	RETURN_FAULT(AC__SYS_PIDFD);
#ifdef SYS_pidfd_open
	return checked(syscall(SYS_pidfd_open, pid, 0));
#else
	return -ENOSYS;
#endif
}

int ac__sys_pidfd_kill(int pidfd, int signal)
{
#ifdef SYS_pidfd_send_signal
	return checked(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
#else
	return -ENOSYS;
#endif
}

uint64_t ac__sys_peak_rss(const struct rusage *usage)
{
	return (uint64_t)usage->ru_maxrss * 1024;
}

int ac__sys_peek_child(pid_t pid, siginfo_t *end, uint64_t *peak_rss)
{
	struct rusage usage = { 0 };
	int r;

	end->si_pid = 0;
#if defined(SYS_waitid) && UINTPTR_MAX > UINT32_MAX
	/* libc's waitid has no room for the usage; its struct is the kernel's on 64 bits only. */
	r = (int)syscall(SYS_waitid, P_PID, pid, end, WEXITED | WNOWAIT | WNOHANG, &usage);
#else
	r = waitid(P_PID, (id_t)pid, end, WEXITED | WNOWAIT | WNOHANG);
#endif
	*peak_rss = end->si_pid ? ac__sys_peak_rss(&usage) : 0;
	return r < 0 ? -errno : 0;
}

/*
 * The kernel sends the descriptor's signal to its owner when anything happens
 * on the socket; what happens is the peer's
 * end, or a byte that it sends to kill. PR_SET_PDEATHSIG is no help: it fires when the forking thread ends.
 */
int ac__sys_lifeline(int sock)
{
	RETURN_FAULT(AC__SYS_LIFELINE);
	if (fcntl(sock, F_SETOWN, getpid()) < 0 ||
	    fcntl(sock, F_SETSIG, SIGKILL) < 0 ||
	    fcntl(sock, F_SETFL, O_ASYNC | O_NONBLOCK) < 0)
		return -errno;
	/* The peer may have gone before the signal was armed. */
	return ac__sys_poll(sock, 0) == 0 ? -EPIPE : 0;
}

void ac__sys_name(const char *name)
{
	prctl(PR_SET_NAME, name, 0, 0, 0);
}

void ac__sys_get_name(char name[16])
{
	prctl(PR_GET_NAME, name, 0, 0, 0);
}

int ac__sys_thread(void *(*start)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	int r;

	RETURN_FAULT(AC__SYS_THREAD);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* The user's handlers belong to the user's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, &attr, start, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

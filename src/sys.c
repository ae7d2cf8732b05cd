/* SPDX-License-Identifier: MIT */
/*
 * The kernel's calls behind plain functions that return -errno, each with a slow way where
 * a system may lack the fast one.
 */
#define _GNU_SOURCE
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sys_fault.h"

/* As in linux/futex.h: not every libc comes with the kernel's headers. */
#ifndef FUTEX_WAKE
#define FUTEX_WAKE 1
#define FUTEX_WAIT_BITSET 9
#define FUTEX_BITSET_MATCH_ANY 0xffffffff
#endif

/* ---- faults ---- */

#ifdef AC_FAULTS
static struct {
	_Atomic unsigned calls, from, times;
	_Atomic int err;
} faults[AC__SYS_CALL_COUNT];

void (*ac__step_hook)(void);

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

unsigned ac__fault_calls(enum ac__sys_call call)
{
	return faults[call].calls;
}

int ac__fault(enum ac__sys_call call)
{
	unsigned n = ++faults[call].calls;
	unsigned from = faults[call].from;

	return from && n >= from && n - from < faults[call].times ?
		       -faults[call].err : 0;
}
#endif

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

/* ---- descriptors: their numbers ---- */

void ac__sys_close(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
}

int ac__sys_lift(int fd)
{
	int copy;

	if (fd > STDERR_FILENO)
		return fd;
	copy = checked(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
	ac__sys_close(fd);
	return copy;
}

/* The same for two, of which none stays when one can't be lifted. */
static int lift_both(int result, int fd[2])
{
	if (result < 0)
		return -errno;
	fd[0] = ac__sys_lift(fd[0]);
	fd[1] = ac__sys_lift(fd[1]);
	if (fd[0] >= 0 && fd[1] >= 0)
		return 0;
	result = AC__MIN(fd[0], fd[1]);
	ac__sys_close(fd[0]);
	ac__sys_close(fd[1]);
	return result;
}

FILE *ac__sys_open_file(const char *path)
{
	int fd = opened(open(path, O_RDONLY | O_CLOEXEC));
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (!file)
		ac__sys_close(fd);
	return file;
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

int ac__sys_pipe(int fd[2])
{
	RETURN_FAULT(AC__SYS_PIPE);
	return lift_both(pipe2(fd, O_CLOEXEC | O_NONBLOCK), fd);
}

void ac__sys_write_byte(int fd)
{
	static const struct timespec none;
	sigset_t broken_pipe, before;
	int saved = errno;
	ssize_t r;

	sigemptyset(&broken_pipe);
	sigaddset(&broken_pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
	do
		r = write(fd, "", 1);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EPIPE && !sigismember(&before, SIGPIPE))
		sigtimedwait(&broken_pipe, NULL, &none);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
}

void ac__sys_drain(int fd)
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
	return opened(epoll_create1(EPOLL_CLOEXEC));
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

#define NAP_MS 10

int ac__sys_epoll_wait(int epoll, uint64_t *tags, int n, int64_t deadline)
{
	struct epoll_event events[64];
	int left = milliseconds_until(deadline);
	int r = epoll_wait(epoll, events, AC__MIN(n, 64), left);

	/* User code has closed it: the caller's loop is not to spin. */
	if (r < 0 && (errno == EBADF || errno == EINVAL))
		r = poll(NULL, 0, left < 0 ? NAP_MS : AC__MIN(left, NAP_MS));
	for (int i = 0; i < r; i++)
		tags[i] = events[i].data.u64;
	return checked(r);
}

int ac__sys_timerfd(void)
{
	return opened(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

void ac__sys_timerfd_set(int fd, int64_t deadline)
{
	struct itimerspec t = { .it_value = timespec_of(deadline) };

	if (deadline == INT64_MAX)
		memset(&t, 0, sizeof t);
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
}

int ac__sys_socketpair(int fd[2])
{
	RETURN_FAULT(AC__SYS_SOCKET);
	return lift_both(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), fd);
}

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header; /* for its alignment */
};

static int send_packet(int sock, const void *data, size_t len, int fd, int flags)
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
		r = sendmsg(sock, &message, MSG_NOSIGNAL | flags);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int ac__sys_send(int sock, const void *data, size_t len, int fd)
{
	return send_packet(sock, data, len, fd, 0);
}

int ac__sys_send_now(int sock, const void *data, size_t len, int fd)
{
	return send_packet(sock, data, len, fd, MSG_DONTWAIT);
}

/* Rounded up, the space for one descriptor holds two. */
static void take_first(const struct cmsghdr *header, int *fd)
{
	size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int one;

		memcpy(&one, CMSG_DATA(header) + i * sizeof one, sizeof one);
		if (i == 0)
			*fd = ac__sys_lift(one);
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
	if (*fd < -1) {
		r = *fd;
		*fd = -1;
		return (int)r;
	}
	/* An empty packet is not the end, and a longer one is of another layout. */
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

int ac__sys_poll_two(int first, int second, int64_t deadline)
{
	struct pollfd p[2] = { { .fd = first, .events = POLLIN },
			       { .fd = second, .events = POLLIN } };
	int r = poll(p, 2, milliseconds_until(deadline));

	if (r < 0)
		return -errno;
	if (r == 0)
		return -ETIMEDOUT;
	return p[0].revents ? 0 : 1;
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
	return opened(syscall(SYS_pidfd_open, pid, 0));
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

#define WAIT_PIDFD ((idtype_t)3) /* P_PIDFD, which older headers don't know */

/* libc's waitid does not return the usage; its struct is the kernel's on 64 bits only. */
static int wait_with_usage(idtype_t type, int id, siginfo_t *end, int flags,
			   struct rusage *usage)
{
#if defined(SYS_waitid) && UINTPTR_MAX > UINT32_MAX
	return checked(syscall(SYS_waitid, type, id, end, flags, usage));
#else
	(void)usage;
	return checked(waitid(type, (id_t)id, end, flags));
#endif
}

/* As waitpid has it. */
static int status_of(const siginfo_t *end)
{
	if (end->si_code == CLD_EXITED)
		return (end->si_status & 0xff) << 8;
	return end->si_status | (end->si_code == CLD_DUMPED ? 0x80 : 0);
}

static int wait_child(pid_t pid, int pidfd, int flags, int *status, uint64_t *peak_rss)
{
	struct rusage usage = { 0 };
	siginfo_t end = { 0 };
	int r = -EINVAL;

	flags |= WEXITED | WNOHANG;
	if (pidfd >= 0)
		r = wait_with_usage(WAIT_PIDFD, pidfd, &end, flags, &usage);
	/* Linux 5.3 has pidfds but can't wait for them. */
	if (r == -EINVAL)
		r = wait_with_usage(P_PID, pid, &end, flags, &usage);
	if (r < 0 || !end.si_pid)
		return r;
	*status = status_of(&end);
	*peak_rss = ac__sys_peak_rss(&usage);
	return 1;
}

int ac__sys_reap_child(pid_t pid, int pidfd, int *status, uint64_t *peak_rss)
{
	return wait_child(pid, pidfd, 0, status, peak_rss);
}

int ac__sys_peek_child(pid_t pid, int pidfd, int *status, uint64_t *peak_rss)
{
	return wait_child(pid, pidfd, WNOWAIT, status, peak_rss);
}

int ac__sys_kill_child(pid_t pid, int pidfd, int signal)
{
	int r = pidfd < 0 ? -ENOSYS : ac__sys_pidfd_kill(pidfd, signal);

	if (r == 0 || r == -ESRCH)
		return r;
	return checked(kill(pid, signal));
}

/*
 * The kernel sends the descriptor's signal to its owner when anything happens
 * on the socket. What happens is the peer's end, or a byte that the peer sends to
 * kill. PR_SET_PDEATHSIG is no help: it fires when the forking thread ends.
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

/* Not those that the kernel sends to a thread for what the thread itself did: blocked they kill
 * the process without its handler (faulthandler's), and a user's callback may crash, too. */
static void block_signals(sigset_t *before)
{
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS };
	sigset_t others;

	sigfillset(&others);
	for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
		sigdelset(&others, crashes[i]);
	pthread_sigmask(SIG_SETMASK, &others, before);
}

int ac__sys_thread(pthread_t *thread, void *(*start)(void *), void *arg)
{
	sigset_t before;
	int r;

	RETURN_FAULT(AC__SYS_THREAD);
	/* The user's handlers belong to the user's threads. */
	block_signals(&before);
	r = pthread_create(thread, NULL, start, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

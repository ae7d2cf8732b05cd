/* SPDX-License-Identifier: MIT */
/*
 * The only place that calls the kernel. Everything returns 0 or more for success and
 * -errno for failure. What a system may lack (memfd, pidfd) is tried at run
 * time, never assumed from a version: EPERM, ENOSYS and EINVAL all mean "not here".
 *
 * Built with AC_FAULTS, each kind of call can be made to fail by a test.
 */
#ifndef AC__SYS_H
#define AC__SYS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base.h"

#define AC__SYS_CALLS(X) \
	X(MEMFD) X(TMPFILE) X(RESIZE) X(PREALLOCATE) X(SEAL) X(MAP) X(PIPE) \
	X(EPOLL) X(EPOLL_ADD) X(SOCKET) X(SEND) X(RECEIVE) X(FORK) \
	X(PIDFD) X(LIFELINE) X(THREAD) X(MALLOC)

enum ac__sys_call {
#define AC__SYS_ENUM(name) AC__SYS_##name,
	AC__SYS_CALLS(AC__SYS_ENUM)
#undef AC__SYS_ENUM
	AC__SYS_CALL_COUNT
};

#ifdef AC_FAULTS
/* From the nth call (1 = the next) of that kind on: fail times calls with err. */
void ac__fault_arm(enum ac__sys_call call, unsigned nth, unsigned times, int err);
void ac__fault_disarm(void);
/* Calls of that kind since the last arm or disarm. */
unsigned ac__fault_calls(enum ac__sys_call call);

/* Stands between two steps of the protocol, where a test may yield, die or write. Tests set
 * the hook before they start threads. The real library has nothing here. */
extern void (*ac__step_hook)(void);
#define AC_STEP()                          \
	do {                               \
		if (ac__step_hook)         \
			ac__step_hook();   \
	} while (0)
#else
#define AC_STEP() ((void)0)
#endif

/* ---- time, processors ---- */
int64_t ac__sys_now(void); /* CLOCK_MONOTONIC, ns */
/* The time of the clock's last tick, some milliseconds ago, for a fraction of the cost. */
int64_t ac__sys_now_coarse(void);
/* The absolute end of a relative limit: INT64_MAX for none. */
int64_t ac__sys_deadline(int64_t timeout_ns);
void ac__sys_yield(void);

/* ---- memory ---- */
void *ac__sys_calloc(size_t n, size_t size); /* NULL: none left */

/*
 * Anonymous memory behind a descriptor, close-on-exec. A memfd of size bytes,
 * sealed against any change of size, or (*sealed false) an unlinked file of size 0, to be
 * grown by ac__sys_preallocate before each use.
 */
int ac__sys_memory(uint64_t size, bool *sealed);
int ac__sys_preallocate(int fd, uint64_t offset, uint64_t len);
/* What an open descriptor stands for. */
struct ac__sys_file {
	uint64_t device, inode, size;
};
int ac__sys_stat(int fd, struct ac__sys_file *file);
/* The most bytes that a file of ours may have: RLIMIT_FSIZE. */
uint64_t ac__sys_file_limit(void);
int ac__sys_map(void **address, int fd, uint64_t offset, size_t len);
/* Put a private copy-on-write mapping in place of the shared one. */
int ac__sys_map_private(void *address, int fd, uint64_t offset, size_t len);
void ac__sys_unmap(void *address, size_t len);
/* Memory of zeros that this process shares with the children that it forks; NULL: none. */
void *ac__sys_share(size_t len);
/* Give pages back to the system; the range then reads as zeros (best effort). */
void ac__sys_punch(int fd, uint64_t offset, uint64_t len);
size_t ac__sys_page(void);
/*
 * Give back the pages of this process's large anonymous mappings, but for those
 * that hold one of keep (ends with NULL), the stack or the thread: all others then
 * read as zeros. For a process that will only exit, and waits: its exit takes less time then.
 */
void ac__sys_shed(const void *const *keep);

/* ---- sleeping and waking ---- */
/* Sleep while *word == seen, until deadline. 0 (also spurious), -ETIMEDOUT, -EINTR. */
int ac__sys_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline);
void ac__sys_futex_wake(_Atomic uint32_t *word, int n);

/* A pipe, fd[0] to read from, that never blocks. */
int ac__sys_pipe(int fd[2]);
/* A full pipe is readable as it is, and one without a reader raises no SIGPIPE. */
void ac__sys_write_byte(int fd);
void ac__sys_drain(int fd);

/* ---- descriptors ---- */
int ac__sys_epoll(void);
/* Watch fd for input (or only its end, with hangup_only); events carry tag. */
int ac__sys_epoll_add(int epoll, int fd, uint64_t tag, bool hangup_only);
void ac__sys_epoll_remove(int epoll, int fd);
/* Tags of descriptors with events, at most n. 0 at the deadline or earlier, -EINTR. */
int ac__sys_epoll_wait(int epoll, uint64_t *tags, int n, int64_t deadline);
int ac__sys_timerfd(void);
void ac__sys_timerfd_set(int fd, int64_t deadline); /* INT64_MAX: never */
void ac__sys_close(int fd); /* errno is kept; -1 is allowed */
/*
 * 0 to 2 are the standard streams, also where they are closed: what is printed there must
 * not reach a descriptor of the library. All that is opened or received here comes through this:
 * fd itself, or a copy above 2 (fd is closed then), or -errno (the same).
 */
int ac__sys_lift(int fd);
/* A file for reading, or NULL. */
FILE *ac__sys_open_file(const char *path);

/* A connected pair of close-on-exec packet sockets. */
int ac__sys_socketpair(int fd[2]);
/* One packet, with a descriptor beside it or -1. */
int ac__sys_send(int sock, const void *data, size_t len, int fd);
/* The same without waiting: a packet that does not fit is -EAGAIN. */
int ac__sys_send_now(int sock, const void *data, size_t len, int fd);
/* One packet: its length, 0 at the end; *fd is -1 when none came. Blocks unless nowait. */
int ac__sys_receive(int sock, void *data, size_t len, int *fd, bool nowait);
/* The peer sees the end, also where another process holds a copy of sock. */
void ac__sys_shutdown(int sock);
/* The same, and the peer's end is still seen here. */
void ac__sys_end_sending(int sock);
/* 0 (an event), -ETIMEDOUT, -EINTR: until input or the end of fd. */
int ac__sys_poll(int fd, int64_t deadline);
/* The same for two: 0 or 1 for the first of them with an event. */
int ac__sys_poll_two(int first, int second, int64_t deadline);

/* ---- processes ---- */
pid_t ac__sys_fork(void);
/* A descriptor that is readable once the process has died, or -errno. */
int ac__sys_pidfd(pid_t pid);
int ac__sys_pidfd_kill(int pidfd, int signal);
/*
 * How a child ended: 1, *status as of waitpid and *peak_rss (the most memory that it had resident,
 * in bytes; 0: not known); 0: it still runs; -ECHILD: it is no child, or was reaped elsewhere.
 * pidfd is the child's, or -1: then its pid must not have been reaped, or may be another child's.
 * Neither blocks. After a peek the child is still to be reaped.
 */
int ac__sys_reap_child(pid_t pid, int pidfd, int *status, uint64_t *peak_rss);
int ac__sys_peek_child(pid_t pid, int pidfd, int *status, uint64_t *peak_rss);
/* 0 or -ESRCH, -EPERM, -EINVAL. The same holds for its pid. */
int ac__sys_kill_child(pid_t pid, int pidfd, int signal);
uint64_t ac__sys_peak_rss(const struct rusage *usage);
/* From now on this process is killed when the peer of sock is closed everywhere. */
int ac__sys_lifeline(int sock);
void ac__sys_name(const char *name); /* as in ps and top, 15 bytes */
void ac__sys_get_name(char name[16]);
/* start(arg) on a new thread with all signals blocked, to be joined or detached. */
int ac__sys_thread(pthread_t *thread, void *(*start)(void *), void *arg);

#endif

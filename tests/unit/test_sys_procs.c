/* SPDX-License-Identifier: MIT */
/* Calls of the kernel: descriptors, what is sent through sockets, processes and their lifelines. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "seats.h"
#include "sys.h"

#define MS INT64_C(1000000)

static unsigned descriptors;

static int set_up(void **state)
{
	(void)state;
	ac__fault_disarm();
	descriptors = seats_descriptors();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ac__fault_disarm();
	if (seats_descriptors() == descriptors && !seats_children())
		return 0;
	fprintf(stderr, "descriptors %u before, %u after; or a child is left\n",
		descriptors, seats_descriptors());
	return -1;
}

static bool is_readable(int fd)
{
	return ac__sys_poll(fd, 0) == 0;
}

static bool is_cloexec(int fd)
{
	return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

/* ---- descriptors ---- */

static void test_sys_epoll_names_what_is_due(void **state)
{
	int epoll = ac__sys_epoll(), one[2], two[2];
	uint64_t tags[8];
	int64_t start = ac__sys_now();

	(void)state;
	assert_int_equal(ac__sys_socketpair(one), 0);
	assert_int_equal(ac__sys_socketpair(two), 0);
	assert_int_equal(ac__sys_epoll_add(epoll, one[0], 11, false), 0);
	assert_int_equal(ac__sys_epoll_add(epoll, two[0], 22, true), 0);
	assert_int_equal(ac__sys_epoll_wait(epoll, tags, 8, ac__sys_deadline(20 * MS)), 0);
	assert_true(ac__sys_now() - start >= 20 * MS);
	ac__sys_send(one[1], "x", 1, -1);
	ac__sys_send(two[1], "x", 1, -1);
	assert_int_equal(ac__sys_epoll_wait(epoll, tags, 8, 0), 1);
	assert_true(tags[0] == 11);
	ac__sys_epoll_remove(epoll, one[0]);
	ac__sys_epoll_remove(epoll, -1);
	assert_int_equal(ac__sys_epoll_wait(epoll, tags, 8, 0), 0);
	ac__sys_close(two[1]);
	assert_int_equal(ac__sys_epoll_wait(epoll, tags, 8, INT64_MAX), 1);
	assert_true(tags[0] == 22);
	ac__sys_close(one[0]);
	ac__sys_close(one[1]);
	ac__sys_close(two[0]);
	ac__sys_close(epoll);
}

static void test_sys_timerfd_fires_at_its_deadline(void **state)
{
	int fd = ac__sys_timerfd();

	(void)state;
	assert_true(fd >= 0);
	assert_false(is_readable(fd));
	ac__sys_timerfd_set(fd, ac__sys_deadline(20 * MS));
	assert_int_equal(ac__sys_poll(fd, ac__sys_deadline(5000 * MS)), 0);
	ac__sys_timerfd_set(fd, INT64_MAX);
	assert_false(is_readable(fd));
	ac__sys_timerfd_set(fd, 1); /* long past */
	assert_int_equal(ac__sys_poll(fd, ac__sys_deadline(5000 * MS)), 0);
	ac__sys_close(fd);
}

static void test_sys_close_is_harmless(void **state)
{
	(void)state;
	errno = 77;
	ac__sys_close(-1);
	assert_int_equal(errno, 77);
}

static void test_sys_packets_carry_a_descriptor(void **state)
{
	int sock[2], pipe_fd[2], fd = 99;
	char data[8] = "";

	(void)state;
	assert_int_equal(ac__sys_socketpair(sock), 0);
	assert_true(is_cloexec(sock[0]) && is_cloexec(sock[1]));
	assert_int_equal(ac__sys_receive(sock[1], data, sizeof data, &fd, true), -EAGAIN);
	assert_int_equal(fd, -1);
	assert_int_equal(pipe(pipe_fd), 0);
	assert_int_equal(ac__sys_send(sock[0], "abc", 3, pipe_fd[1]), 0);
	assert_int_equal(ac__sys_send(sock[0], "de", 2, -1), 0);
	assert_int_equal(ac__sys_receive(sock[1], data, sizeof data, &fd, false), 3);
	assert_memory_equal(data, "abc", 3);
	assert_true(fd >= 0 && fd != pipe_fd[1]);
	assert_true(is_cloexec(fd));
	assert_int_equal(write(fd, "x", 1), 1);
	assert_true(is_readable(pipe_fd[0]));
	ac__sys_close(fd);
	assert_int_equal(ac__sys_receive(sock[1], data, sizeof data, &fd, false), 2);
	assert_int_equal(fd, -1);
	ac__sys_close(sock[0]);
	assert_int_equal(ac__sys_receive(sock[1], data, sizeof data, &fd, false), 0);
	assert_int_equal(ac__sys_send(sock[1], "x", 1, -1), -EPIPE);
	ac__sys_close(sock[1]);
	ac__sys_close(pipe_fd[0]);
	ac__sys_close(pipe_fd[1]);
}

/* Rounded up, the space for one descriptor holds two. */
static void test_sys_receive_takes_one_descriptor_and_keeps_no_other(void **state)
{
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr header;
	} control = { { 0 } };
	struct iovec part = { .iov_base = "x", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = sizeof control.bytes };
	int sock[2], two[2] = { 0, 0 }, fd;
	unsigned before;
	char data[8];

	(void)state;
	assert_int_equal(ac__sys_socketpair(sock), 0);
	before = seats_descriptors();
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof two);
	memcpy(CMSG_DATA(&control.header), two, sizeof two);
	assert_int_equal(sendmsg(sock[0], &message, 0), 1);
	assert_int_equal(ac__sys_receive(sock[1], data, sizeof data, &fd, false), 1);
	ac__sys_close(fd);
	assert_int_equal(seats_descriptors(), before);
	ac__sys_close(sock[0]);
	ac__sys_close(sock[1]);
}

/* ---- the numbers of the standard streams ---- */

static bool is_lifted(int fd)
{
	bool lifted = fd > 2 && is_cloexec(fd);

	ac__sys_close(fd);
	return lifted && fcntl(0, F_GETFD) < 0 && fcntl(1, F_GETFD) < 0 &&
	       fcntl(2, F_GETFD) < 0;
}

/* Each bit of the result is one that took a number below 3. */
static int open_all_without_streams(void *arg)
{
	int sock[2], fd = -1, bits = 0;
	char byte;
	bool sealed;
	FILE *file;

	(void)arg;
	for (int i = 0; i < 3; i++)
		close(i);
	bits |= !is_lifted(ac__sys_epoll());
	bits |= !is_lifted(ac__sys_timerfd()) << 1;
	bits |= !is_lifted(ac__sys_memory(65536, &sealed)) << 2;
	ac__fault_arm(AC__SYS_MEMFD, 1, 1, ENOSYS);
	bits |= !is_lifted(ac__sys_memory(65536, &sealed)) << 3;
	fd = ac__sys_pidfd(getpid());
	bits |= (fd >= 0 && !is_lifted(fd)) << 4;
	if (ac__sys_socketpair(sock) < 0 || ac__sys_send(sock[0], "x", 1, sock[0]) < 0 ||
	    ac__sys_receive(sock[1], &byte, 1, &fd, true) != 1)
		return 255;
	bits |= !is_lifted(fd) << 5;
	bits |= !is_lifted(sock[0]) << 6;
	bits |= !is_lifted(sock[1]) << 6;
	file = ac__sys_open_file("/proc/self/maps");
	bits |= (!file || !is_lifted(fileno(file))) << 7;
	return bits;
}

static void test_sys_descriptors_leave_the_standard_streams_alone(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(open_all_without_streams, NULL, 5), 0);
}

/* One descriptor is left, and it is a low one. */
static int open_with_one_left(void *arg)
{
	struct rlimit limit = { 3, 3 };
	int sock[2];

	(void)arg;
	close(0);
	close(1);
	setrlimit(RLIMIT_NOFILE, &limit);
	SEAT_CHECK(ac__sys_epoll() == -EINVAL || ac__sys_epoll() == -EMFILE);
	SEAT_CHECK(ac__sys_socketpair(sock) < 0);
	return fcntl(0, F_GETFD) >= 0 || fcntl(1, F_GETFD) >= 0;
}

static void test_sys_descriptors_that_cannot_be_lifted_are_closed(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(open_with_one_left, NULL, 5), 0);
}

/* ---- processes ---- */

static void test_sys_pidfd_tells_of_the_end(void **state)
{
	pid_t pid = ac__sys_fork();
	int fd, status;

	(void)state;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	fd = ac__sys_pidfd(pid);
	if (fd < 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		skip(); /* this system has no pidfd */
	}
	assert_true(is_cloexec(fd));
	assert_false(is_readable(fd));
	assert_int_equal(ac__sys_pidfd_kill(fd, SIGKILL), 0);
	assert_int_equal(ac__sys_poll(fd, ac__sys_deadline(5000 * MS)), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(ac__sys_pidfd_kill(fd, SIGKILL), -ESRCH);
	ac__sys_close(fd);
	ac__fault_arm(AC__SYS_PIDFD, 1, 1, ENOSYS);
	assert_int_equal(ac__sys_pidfd(getpid()), -ENOSYS);
	ac__fault_arm(AC__SYS_FORK, 1, 1, EAGAIN);
	assert_int_equal(ac__sys_fork(), -EAGAIN);
}

/* A busy worker of an owner: says that it is ready, and ends only by the lifeline. */
static _Noreturn void be_busy(int lifeline, int say)
{
	volatile unsigned work = 0;

	alarm(20);
	if (ac__sys_lifeline(lifeline) != 0 || write(say, "r", 1) != 1)
		_exit(1);
	for (;;)
		work = work + 1;
}

static void test_sys_lifeline_kills_a_busy_child_when_its_peer_closes(void **state)
{
	int sock[2], ready[2], status = 0;
	int64_t start;
	char c;
	pid_t pid;

	(void)state;
	assert_int_equal(ac__sys_socketpair(sock), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		close(sock[0]);
		be_busy(sock[1], ready[1]);
	}
	ac__sys_close(sock[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	usleep(100000);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0); /* and not before */
	start = ac__sys_now();
	ac__sys_close(sock[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(ac__sys_now() - start < 1000 * MS);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ac__sys_close(ready[0]);
	ac__sys_close(ready[1]);
}

static void test_sys_lifeline_kills_a_busy_child_when_its_owner_is_killed(void **state)
{
	int alive[2], status;
	int64_t start;
	char c;
	pid_t owner;

	(void)state;
	assert_int_equal(pipe(alive), 0);
	owner = fork();
	if (owner == 0) {
		int sock[2];

		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		close(alive[0]);
		if (ac__sys_socketpair(sock) < 0)
			_exit(1);
		if (fork() == 0) {
			close(sock[0]);
			be_busy(sock[1], alive[1]);
		}
		close(sock[1]);
		close(alive[1]);
		for (;;)
			pause();
	}
	ac__sys_close(alive[1]);
	assert_int_equal(read(alive[0], &c, 1), 1);
	assert_int_equal(ac__sys_poll(alive[0], ac__sys_deadline(100 * MS)), -ETIMEDOUT);
	start = ac__sys_now();
	kill(owner, SIGKILL);
	assert_int_equal(waitpid(owner, &status, 0), owner);
	/* The worker held the last writing end of the pipe. */
	assert_int_equal(read(alive[0], &c, 1), 0);
	assert_true(ac__sys_now() - start < 1000 * MS);
	ac__sys_close(alive[0]);
}

static int hold_a_cut_line(void *arg)
{
	SEAT_CHECK(ac__sys_lifeline(*(int *)arg) == -EPIPE);
	return 0;
}

static void test_sys_lifeline_says_when_its_peer_has_gone(void **state)
{
	int sock[2], r;

	(void)state;
	assert_int_equal(ac__sys_socketpair(sock), 0);
	ac__sys_close(sock[0]);
	r = seats_in_child(hold_a_cut_line, &sock[1], 5);
	ac__sys_close(sock[1]);
	assert_int_equal(r, 0);
	ac__fault_arm(AC__SYS_LIFELINE, 1, 1, EINVAL);
	assert_int_equal(ac__sys_lifeline(-1), -EINVAL);
}

static int take_a_name(void *arg)
{
	char name[16];

	(void)arg;
	ac__sys_name("a name that is much too long");
	SEAT_CHECK(prctl(PR_GET_NAME, name) == 0);
	SEAT_CHECK(strcmp(name, "a name that is ") == 0);
	return 0;
}

static void test_sys_child_is_peeked_at_and_reaped_once(void **state)
{
	(void)state;
	for (int with = 0; with < 2; with++) {
		uint64_t peak = 0;
		int status = 0, pidfd;
		pid_t pid = ac__sys_fork();

		if (pid == 0)
			for (;;)
				pause();
		pidfd = with ? ac__sys_pidfd(pid) : -1;
		assert_int_equal(ac__sys_peek_child(pid, pidfd, &status, &peak), 0);
		assert_int_equal(ac__sys_reap_child(pid, pidfd, &status, &peak), 0);
		assert_int_equal(ac__sys_kill_child(pid, pidfd, 9999), -EINVAL);
		assert_int_equal(ac__sys_kill_child(pid, pidfd, SIGKILL), 0);
		for (int i = 0; i < 2; i++) {
			while (ac__sys_peek_child(pid, pidfd, &status, &peak) == 0)
				usleep(1000);
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		}
		status = 0;
		assert_int_equal(ac__sys_reap_child(pid, pidfd, &status, &peak), 1);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_int_equal(ac__sys_reap_child(pid, pidfd, &status, &peak), -ECHILD);
		if (pidfd >= 0)
			assert_int_equal(ac__sys_kill_child(pid, pidfd, SIGKILL), -ESRCH);
		ac__sys_close(pidfd);
	}
}

static void test_sys_child_that_exits_has_a_code(void **state)
{
	uint64_t peak;
	int status = 0;
	pid_t pid = ac__sys_fork();

	(void)state;
	if (pid == 0)
		_exit(217);
	while (ac__sys_reap_child(pid, -1, &status, &peak) == 0)
		usleep(1000);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 217);
}

static void test_sys_name_is_cut(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(take_a_name, NULL, 5), 0);
}

static _Atomic uint32_t thread_says;

static void *look_at_mask(void *arg)
{
	sigset_t mask;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	atomic_store(&thread_says, arg == &thread_says &&
				   sigismember(&mask, SIGINT) &&
				   sigismember(&mask, SIGTERM) ? 1 : 2);
	return NULL;
}

static void test_sys_thread_leaves_signals_to_the_users(void **state)
{
	pthread_t thread;
	sigset_t mask;

	(void)state;
	atomic_store(&thread_says, 0);
	assert_int_equal(ac__sys_thread(&thread, look_at_mask, &thread_says), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(thread_says, 1);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	assert_false(sigismember(&mask, SIGINT));
	ac__fault_arm(AC__SYS_THREAD, 1, 1, EAGAIN);
	assert_int_equal(ac__sys_thread(&thread, look_at_mask, NULL), -EAGAIN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sys_epoll_names_what_is_due),
		TEST(test_sys_timerfd_fires_at_its_deadline),
		TEST(test_sys_close_is_harmless),
		TEST(test_sys_packets_carry_a_descriptor),
		TEST(test_sys_receive_takes_one_descriptor_and_keeps_no_other),
		TEST(test_sys_descriptors_leave_the_standard_streams_alone),
		TEST(test_sys_descriptors_that_cannot_be_lifted_are_closed),
		TEST(test_sys_pidfd_tells_of_the_end),
		TEST(test_sys_lifeline_kills_a_busy_child_when_its_peer_closes),
		TEST(test_sys_lifeline_kills_a_busy_child_when_its_owner_is_killed),
		TEST(test_sys_lifeline_says_when_its_peer_has_gone),
		TEST(test_sys_child_is_peeked_at_and_reaped_once),
		TEST(test_sys_child_that_exits_has_a_code),
		TEST(test_sys_name_is_cut),
		TEST(test_sys_thread_leaves_signals_to_the_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

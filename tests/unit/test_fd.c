/* SPDX-License-Identifier: MIT */
/* A descriptor that stands for something else by now is not written to, read from or closed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fd.h"
#include "seats.h"
#include "sys.h"

static unsigned descriptors;
static struct ac__fd bell[2];

static int set_up(void **state)
{
	(void)state;
	ac__fault_disarm();
	descriptors = seats_descriptors();
	return ac__fd_open_pipe(bell);
}

static int tear_down(void **state)
{
	(void)state;
	ac__fault_disarm();
	ac__fd_close(&bell[0]);
	ac__fd_close(&bell[1]);
	return seats_descriptors() == descriptors ? 0 : -1;
}

static void test_fd_pipe_rings_and_drains(void **state)
{
	(void)state;
	assert_true(ac__fd_is_same(&bell[0]) && ac__fd_is_same(&bell[1]));
	assert_int_equal(ac__sys_poll(bell[0].number, 0), -ETIMEDOUT);
	assert_true(ac__fd_ring(&bell[1]));
	assert_true(ac__fd_ring(&bell[1]));
	assert_int_equal(ac__sys_poll(bell[0].number, 0), 0);
	assert_true(ac__fd_drain(&bell[0]));
	assert_int_equal(ac__sys_poll(bell[0].number, 0), -ETIMEDOUT);
}

static void test_fd_none_is_never_the_same(void **state)
{
	struct ac__fd none = AC__FD_NONE, bad = ac__fd_of(-1);

	(void)state;
	assert_false(ac__fd_is_same(&none) || ac__fd_is_same(&bad));
	assert_false(ac__fd_ring(&none) || ac__fd_drain(&none));
	ac__fd_close(&none);
	assert_int_equal(none.number, -1);
}

static void test_fd_closed_forgets_the_number(void **state)
{
	int number = bell[1].number;

	(void)state;
	ac__fd_close(&bell[1]);
	assert_int_equal(bell[1].number, -1);
	assert_int_equal(fcntl(number, F_GETFD), -1);
}

static void test_fd_pipe_that_cannot_be_opened(void **state)
{
	struct ac__fd other[2] = { { .number = -7 }, { .number = -7 } };

	(void)state;
	ac__fault_arm(AC__SYS_PIPE, 1, 1, EMFILE);
	assert_int_equal(ac__fd_open_pipe(other), -EMFILE);
	assert_int_equal(other[0].number, -7);
}

static void test_fd_copy_is_the_same(void **state)
{
	struct ac__fd copy = ac__fd_of(dup(bell[1].number));

	(void)state;
	assert_int_equal(dup2(copy.number, bell[1].number), bell[1].number);
	assert_true(ac__fd_ring(&bell[1]));
	ac__fd_close(&copy);
}

/* ---- replaced ---- */

enum kind { A_FILE, A_SOCKET, A_PIPE, AN_EVENTFD, KINDS };

/* Where to write, and in *other where it arrives. */
static int open_kind(enum kind kind, int *other)
{
	int fd[2] = { -1, -1 };

	switch (kind) {
	case A_FILE:
		fd[1] = memfd_create("a user's file", 0);
		fd[0] = dup(fd[1]);
		break;
	case A_SOCKET:
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
		break;
	case A_PIPE:
		assert_int_equal(pipe(fd), 0);
		break;
	case AN_EVENTFD:
		fd[1] = eventfd(0, EFD_NONBLOCK);
		fd[0] = dup(fd[1]);
		break;
	default:
		fail();
	}
	*other = fd[0];
	return fd[1];
}

static bool is_empty(enum kind kind, int fd)
{
	struct stat s;
	int n;

	if (kind == A_FILE)
		return fstat(fd, &s) == 0 && s.st_size == 0;
	if (kind == AN_EVENTFD)
		return ac__sys_poll(fd, 0) == -ETIMEDOUT;
	return ioctl(fd, FIONREAD, &n) == 0 && n == 0;
}

static void test_fd_replaced_is_not_written_to(void **state)
{
	(void)state;
	for (int kind = 0; kind < KINDS; kind++) {
		struct ac__fd ours[2];
		int other, fd;

		assert_int_equal(ac__fd_open_pipe(ours), 0);
		fd = open_kind(kind, &other);
		assert_int_equal(dup2(fd, ours[1].number), ours[1].number);
		close(fd);
		fd = ours[1].number;
		assert_false(ac__fd_ring(&ours[1]));
		assert_true(is_empty(kind, other));
		ac__fd_close(&ours[1]);
		assert_int_equal(fcntl(fd, F_GETFD), 0); /* still the user's */
		close(fd);
		close(other);
		ac__fd_close(&ours[0]);
	}
}

static void test_fd_replaced_is_not_read_from(void **state)
{
	int number = bell[0].number, fd[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "x", 1), 1);
	assert_int_equal(dup2(fd[0], number), number);
	assert_false(ac__fd_drain(&bell[0]));
	assert_int_equal(read(fd[0], &byte, 1), 1);
	close(number);
	close(fd[0]);
	close(fd[1]);
}

static void test_fd_size_is_of_the_same_file(void **state)
{
	bool sealed;
	struct ac__fd file = ac__fd_of(ac__sys_memory(65536, &sealed));
	int number = file.number;

	(void)state;
	assert_int_equal(ac__fd_size(&file), 65536);
	assert_int_equal(dup2(bell[0].number, number), number);
	assert_int_equal(ac__fd_size(&file), 0);
	close(number);
	assert_int_equal(ac__fd_size(&file), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fd_pipe_rings_and_drains),
		TEST(test_fd_none_is_never_the_same),
		TEST(test_fd_closed_forgets_the_number),
		TEST(test_fd_pipe_that_cannot_be_opened),
		TEST(test_fd_copy_is_the_same),
		TEST(test_fd_replaced_is_not_written_to),
		TEST(test_fd_replaced_is_not_read_from),
		TEST(test_fd_size_is_of_the_same_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* A process gets its seat, region and bell; strangers' packets leave nothing behind. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "socket.h"
#include "forkguard.h"
#include "seats.h"
#include "sys.h"

static unsigned descriptors;
static struct ac__socket sock;
static struct ac__fd bell[2];
static struct ac__fd memory;

static int set_up(void **state)
{
	bool sealed;

	(void)state;
	ac__fault_disarm();
	descriptors = seats_descriptors();
	memory = ac__fd_of(ac__sys_memory(65536, &sealed));
	return ac__socket_open(&sock) || ac__fd_open_pipe(bell) || memory.number < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	ac__fault_disarm();
	ac__forkguard_close(&sock.owner_end);
	ac__forkguard_close(&sock.process_end);
	ac__fd_close(&bell[0]);
	ac__fd_close(&bell[1]);
	ac__fd_close(&memory);
	if (seats_descriptors() == descriptors && !seats_children())
		return 0;
	fprintf(stderr, "descriptors: %u before, %u after\n", descriptors,
		seats_descriptors());
	return -1;
}

static void write_word(int fd, uint32_t word)
{
	void *p;

	assert_int_equal(ac__sys_map(&p, fd, 0, 4096), 0);
	*(uint32_t *)p = word;
	ac__sys_unmap(p, 4096);
}

static void test_socket_close_forgets_the_number(void **state)
{
	(void)state;
	ac__forkguard_close(&sock.owner_end);
	assert_int_equal(sock.owner_end, -1);
	ac__forkguard_close(&sock.owner_end);
}

static void test_socket_open_fails_with_nothing_open(void **state)
{
	struct ac__socket other = { -7, -7 };

	(void)state;
	ac__fault_arm(AC__SYS_SOCKET, 1, 1, EMFILE);
	assert_int_equal(ac__socket_open(&other), -EMFILE);
	assert_int_equal(other.owner_end, -7);
}

static void test_socket_passes_seat_region_and_bell(void **state)
{
	unsigned seat = 0;
	int region_fd = -1, bell_fd = -1;
	void *p;

	(void)state;
	write_word(memory.number, 0xfeed);
	assert_int_equal(ac__socket_invite(sock.owner_end, 17, &memory, &bell[1]), 0);
	assert_int_equal(ac__socket_enter(sock.process_end, &seat, &region_fd, &bell_fd), 0);
	assert_int_equal(seat, 17);
	assert_true(fcntl(region_fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(bell_fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(ac__sys_map(&p, region_fd, 0, 4096), 0);
	assert_int_equal(*(uint32_t *)p, 0xfeed);
	ac__sys_unmap(p, 4096);
	ac__sys_write_byte(bell_fd);
	assert_int_equal(ac__sys_poll(bell[0].number, 0), 0);
	ac__sys_close(region_fd);
	ac__sys_close(bell_fd);
}

/* As a started process would: it has the descriptor of its end and nothing else. */
static int enter_and_answer(void *arg)
{
	unsigned seat;
	int region_fd = -1, bell_fd = -1;
	void *p;

	(void)arg;
	ac__forkguard_close(&sock.owner_end);
	ac__fd_close(&memory);
	SEAT_CHECK(ac__socket_enter(sock.process_end, &seat, &region_fd, &bell_fd) == 0);
	SEAT_CHECK(ac__sys_lifeline(sock.process_end) == 0);
	SEAT_CHECK(ac__sys_map(&p, region_fd, 0, 4096) == 0);
	*(uint32_t *)p = seat;
	ac__sys_write_byte(bell_fd);
	return 0;
}

static void test_socket_lets_another_process_in(void **state)
{
	void *p;

	(void)state;
	assert_int_equal(ac__socket_invite(sock.owner_end, 4096, &memory, &bell[1]), 0);
	assert_int_equal(seats_in_child(enter_and_answer, NULL, 5), 0);
	assert_int_equal(ac__sys_poll(bell[0].number, 0), 0);
	assert_int_equal(ac__sys_map(&p, memory.number, 0, 4096), 0);
	assert_int_equal(*(uint32_t *)p, 4096);
	ac__sys_unmap(p, 4096);
}

static int enter(void)
{
	unsigned seat;
	int region_fd = -1, bell_fd = -1;
	int r = ac__socket_enter(sock.process_end, &seat, &region_fd, &bell_fd);

	if (r == 0) {
		ac__sys_close(region_fd);
		ac__sys_close(bell_fd);
	}
	return r;
}

static void test_socket_owner_gone_before_it_invited(void **state)
{
	(void)state;
	ac__forkguard_close(&sock.owner_end);
	assert_int_equal(enter(), -EPIPE);
}

static void test_socket_owner_gone_in_the_middle(void **state)
{
	(void)state;
	ac__fault_arm(AC__SYS_SEND, 2, 1, ENOBUFS);
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), -ENOBUFS);
	ac__forkguard_close(&sock.owner_end);
	assert_int_equal(enter(), -EPIPE);
}

static void test_socket_process_gone(void **state)
{
	(void)state;
	ac__forkguard_close(&sock.process_end);
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), -EPIPE);
}

static void test_socket_each_receive_may_fail(void **state)
{
	(void)state;
	for (unsigned nth = 1; nth <= 2; nth++) {
		assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), 0);
		ac__fault_arm(AC__SYS_RECEIVE, nth, 1, EMFILE);
		assert_int_equal(enter(), -EMFILE);
		ac__fault_disarm();
		ac__forkguard_close(&sock.owner_end);
		ac__forkguard_close(&sock.process_end);
		assert_int_equal(ac__socket_open(&sock), 0);
	}
}

/* Packets with a descriptor, so that one that is refused could leak. */
static void test_socket_garbage_is_no_invitation(void **state)
{
	static const char garbage[64] = "this is some other program's protocol";

	(void)state;
	for (size_t len = 1; len <= sizeof garbage; len++) {
		assert_int_equal(ac__sys_send(sock.owner_end, garbage, len, memory.number), 0);
		assert_int_equal(enter(), AC_EVERSION);
		assert_int_equal(ac__sys_send(sock.owner_end, garbage, len, -1), 0);
		assert_int_equal(enter(), AC_EVERSION);
	}
}

static void test_socket_garbage_for_the_bell(void **state)
{
	char c[100] = { 0 };

	(void)state;
	ac__fault_arm(AC__SYS_SEND, 2, 1, ENOBUFS);
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), -ENOBUFS);
	ac__fault_disarm();
	assert_int_equal(ac__sys_send(sock.owner_end, c, sizeof c, bell[1].number), 0);
	assert_int_equal(enter(), AC_EVERSION);
}

static void test_socket_invitation_without_descriptors(void **state)
{
	char note[64];
	int fd, len;

	(void)state;
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), 0);
	len = ac__sys_receive(sock.process_end, note, sizeof note, &fd, true);
	ac__sys_close(fd);
	assert_int_equal(ac__sys_send(sock.owner_end, note, (size_t)len, -1), 0);
	assert_int_equal(enter(), AC_EVERSION); /* for want of a bell */
	assert_int_equal(ac__sys_send(sock.owner_end, note, (size_t)len, -1), 0);
	assert_int_equal(enter(), AC_EVERSION);
}

static void test_socket_passes_no_descriptor_of_the_users(void **state)
{
	int number = bell[1].number;

	(void)state;
	assert_int_equal(dup2(sock.owner_end, number), number);
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), -EBADF);
	close(number);
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), -EBADF);
}

/* Right at its beginning, but longer than any invitation: of another layout. */
static void test_socket_longer_invitation_is_another_version(void **state)
{
	char note[64] = { 0 };
	int fd, r;

	(void)state;
	assert_int_equal(ac__socket_invite(sock.owner_end, 1, &memory, &bell[1]), 0);
	r = ac__sys_receive(sock.process_end, note, sizeof note, &fd, false);
	assert_true(r > 0 && r < (int)sizeof note);
	ac__sys_close(fd);
	ac__sys_receive(sock.process_end, note, sizeof note, &fd, false);
	ac__sys_close(fd);
	for (int i = 0; i < 2; i++)
		assert_int_equal(ac__sys_send(sock.owner_end, note, (size_t)r + 4,
					       memory.number), 0);
	assert_int_equal(enter(), AC_EVERSION);
}

/* Empty packets can't be told from the end by their length alone. */
static void test_socket_empty_packet_leaks_nothing(void **state)
{
	(void)state;
	assert_int_equal(ac__sys_send(sock.owner_end, "", 0, memory.number), 0);
	assert_true(enter() < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_socket_close_forgets_the_number),
		TEST(test_socket_open_fails_with_nothing_open),
		TEST(test_socket_passes_seat_region_and_bell),
		TEST(test_socket_lets_another_process_in),
		TEST(test_socket_owner_gone_before_it_invited),
		TEST(test_socket_owner_gone_in_the_middle),
		TEST(test_socket_process_gone),
		TEST(test_socket_each_receive_may_fail),
		TEST(test_socket_garbage_is_no_invitation),
		TEST(test_socket_garbage_for_the_bell),
		TEST(test_socket_invitation_without_descriptors),
		TEST(test_socket_passes_no_descriptor_of_the_users),
		TEST(test_socket_longer_invitation_is_another_version),
		TEST(test_socket_empty_packet_leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

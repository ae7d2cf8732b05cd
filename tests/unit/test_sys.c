/* SPDX-License-Identifier: MIT */
/* Calls of the kernel: the plan that makes calls fail, time, memory, sleeping and waking. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "seats.h"
#include "sys.h"

#define MS INT64_C(1000000)
#define MB (UINT64_C(1) << 20)
#define ALWAYS 1000000

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

static uint64_t bytes_on_disk(int fd)
{
	struct stat s;

	assert_int_equal(fstat(fd, &s), 0);
	return (uint64_t)s.st_blocks * 512;
}

/* ---- the plan of faults ---- */

static void test_sys_faults_hit_exactly_the_calls_planned(void **state)
{
	(void)state;
	ac__fault_arm(AC__SYS_EPOLL, 2, 2, EMFILE);
	for (int n = 1; n <= 4; n++) {
		int fd = ac__sys_epoll();

		assert_int_equal(fd >= 0, n == 1 || n == 4);
		if (fd < 0)
			assert_int_equal(fd, -EMFILE);
		ac__sys_close(fd);
		assert_int_equal(ac__fault_calls(AC__SYS_EPOLL), n);
	}
	assert_int_equal(ac__fault_calls(AC__SYS_PIPE), 0);
	ac__fault_arm(AC__SYS_MALLOC, 1, 1, ENOMEM);
	assert_null(ac__sys_calloc(1, 1));
	ac__fault_disarm();
	assert_int_equal(ac__fault_calls(AC__SYS_EPOLL), 0);
	free(ac__sys_calloc(1, 1));
	assert_int_equal(ac__fault_calls(AC__SYS_MALLOC), 1);
}

/* ---- time ---- */

static void test_sys_deadlines_of_limits(void **state)
{
	int64_t now = ac__sys_now();

	(void)state;
	assert_true(ac__sys_deadline(-1) == INT64_MAX);
	assert_true(ac__sys_deadline(INT64_MIN) == INT64_MAX);
	assert_true(ac__sys_deadline(INT64_MAX) == INT64_MAX);
	assert_true(ac__sys_deadline(INT64_MAX - 1) == INT64_MAX);
	assert_true(ac__sys_deadline(0) >= now);
	assert_true(ac__sys_deadline(1000 * MS) >= now + 1000 * MS);
	assert_true(ac__sys_now() >= now);
}

/* ---- memory ---- */

static void use_memory(int fd, uint64_t len)
{
	void *one, *two;

	assert_int_equal(ac__sys_map(&one, fd, 0, len), 0);
	assert_int_equal(ac__sys_map(&two, fd, 0, len), 0);
	assert_ptr_not_equal(one, two);
	memset(one, 0x5a, len);
	assert_memory_equal(one, two, len);
	ac__sys_unmap(one, len);
	ac__sys_unmap(two, len);
}

static void test_sys_memory_is_sealed_against_any_size(void **state)
{
	bool sealed = false;
	int fd = ac__sys_memory(MB, &sealed);

	(void)state;
	assert_true(fd >= 0);
	if (!sealed) {
		ac__sys_close(fd);
		skip(); /* this system has no memfd */
	}
	assert_true(is_cloexec(fd));
	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(ftruncate(fd, 2 * MB), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	use_memory(fd, MB);
	ac__sys_close(fd);
}

static void test_sys_without_memfd_memory_is_an_unlinked_file(void **state)
{
	static const struct {
		enum ac__sys_call call;
		int err;
	} lacks[] = {
		{ AC__SYS_MEMFD, ENOSYS }, { AC__SYS_MEMFD, EPERM },
		{ AC__SYS_MEMFD, EINVAL }, { AC__SYS_RESIZE, EINVAL },
		{ AC__SYS_SEAL, EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof lacks / sizeof *lacks; i++) {
		struct stat s;
		bool sealed = true;
		int fd;

		ac__fault_arm(lacks[i].call, 1, ALWAYS, lacks[i].err);
		fd = ac__sys_memory(4 * MB, &sealed);
		ac__fault_disarm();
		assert_true(fd >= 0);
		assert_false(sealed);
		assert_true(is_cloexec(fd));
		assert_int_equal(fstat(fd, &s), 0);
		assert_int_equal(s.st_nlink, 0);
		assert_int_equal(s.st_size, 0);
		assert_int_equal(ac__sys_preallocate(fd, 0, MB), 0);
		assert_true(bytes_on_disk(fd) >= MB);
		use_memory(fd, MB);
		ac__sys_close(fd);
	}
}

static void test_sys_memory_fails_when_there_is_no_way(void **state)
{
	bool sealed = true;

	(void)state;
	ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
	ac__fault_arm(AC__SYS_TMPFILE, 1, ALWAYS, EROFS);
	assert_int_equal(ac__sys_memory(MB, &sealed), -EROFS);
	ac__fault_disarm();
	/* Out of descriptors is no reason for the slow way. */
	ac__fault_arm(AC__SYS_MEMFD, 1, 1, EMFILE);
	assert_int_equal(ac__sys_memory(MB, &sealed), -EMFILE);
	assert_int_equal(ac__fault_calls(AC__SYS_TMPFILE), 0);
}

static void test_sys_unlinked_file_finds_another_folder(void **state)
{
	char *before = getenv("TMPDIR");
	bool sealed;
	int fd;

	(void)state;
	before = before ? strdup(before) : NULL;
	setenv("TMPDIR", "/proc/there is no such folder", 1);
	ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
	fd = ac__sys_memory(MB, &sealed);
	if (before)
		setenv("TMPDIR", before, 1);
	else
		unsetenv("TMPDIR");
	free(before);
	assert_true(fd >= 0);
	ac__sys_close(fd);
}

static int grow_to_the_limit(void *arg)
{
	struct rlimit limit = { MB, MB };
	bool sealed;
	int fd;

	(void)arg;
	signal(SIGXFSZ, SIG_DFL);
	ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
	SEAT_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	SEAT_CHECK(ac__sys_file_limit() == MB);
	fd = ac__sys_memory(MB, &sealed);
	SEAT_CHECK(fd >= 0 && !sealed);
	SEAT_CHECK(ac__sys_preallocate(fd, 0, MB / 2) == 0);
	SEAT_CHECK(ac__sys_preallocate(fd, MB / 2, MB / 2) == 0);
	SEAT_CHECK(ac__sys_preallocate(fd, MB / 2, MB / 2 + 1) == -EFBIG);
	SEAT_CHECK(ac__sys_preallocate(fd, MB, 4096) == -EFBIG);
	SEAT_CHECK(ac__sys_preallocate(fd, 100 * MB, 4096) == -EFBIG);
	return 0;
}

static void test_sys_file_limit_is_an_error_and_no_signal(void **state)
{
	(void)state;
	assert_true(ac__sys_file_limit() > 0);
	assert_int_equal(seats_in_child(grow_to_the_limit, NULL, 10), 0);
}

static void ignore_signal(int signal_number)
{
	(void)signal_number;
}

/* On tmpfs fallocate gives up when a signal comes: that is nobody's error. */
static int grow_under_a_signal(void *arg)
{
	struct itimerval soon = { { 0, 0 }, { 0, 5000 } };
	struct sigaction action = { .sa_handler = ignore_signal, .sa_flags = SA_RESTART };
	bool sealed;
	int fd, r;

	(void)arg;
	setenv("TMPDIR", "/dev/shm", 1);
	ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
	fd = ac__sys_memory(0, &sealed);
	SEAT_CHECK(fd >= 0);
	sigaction(SIGPROF, &action, NULL);
	setitimer(ITIMER_PROF, &soon, NULL);
	r = ac__sys_preallocate(fd, 0, 128 * MB);
	SEAT_CHECK(r == 0 || r == -ENOSPC);
	return 0;
}

static void test_sys_preallocate_goes_on_after_signals(void **state)
{
	struct statfs s;

	(void)state;
	if (statfs("/dev/shm", &s) < 0 || s.f_type != 0x01021994 ||
	    s.f_bavail * (uint64_t)s.f_bsize < 256 * MB)
		skip(); /* no tmpfs with room */
	assert_int_equal(seats_in_child(grow_under_a_signal, NULL, 10), 0);
}

/* Does the mapping at address have that flag in smaps? */
static bool has_vm_flag(const void *address, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512], start[32];
	bool inside = false, found = false;

	assert_non_null(f);
	snprintf(start, sizeof start, "%lx-", (unsigned long)address);
	while (fgets(line, sizeof line, f)) {
		if (strncmp(line, start, strlen(start)) == 0)
			inside = true;
		if (inside && strncmp(line, "VmFlags:", 8) == 0) {
			found = strstr(line, flag) != NULL;
			break;
		}
	}
	fclose(f);
	return found;
}

/* An emulator may keep the flag to itself. */
static bool smaps_show_flags(void)
{
	void *p = mmap(NULL, MB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool shown;

	madvise(p, MB, MADV_DONTDUMP);
	shown = has_vm_flag(p, " dd");
	munmap(p, MB);
	return shown;
}

static void test_sys_maps_stay_out_of_core_dumps(void **state)
{
	bool sealed;
	void *p;
	int fd;

	(void)state;
	if (!smaps_show_flags())
		skip();
	fd = ac__sys_memory(MB, &sealed);
	assert_int_equal(ac__sys_map(&p, fd, 0, MB), 0);
	assert_true(has_vm_flag(p, " dd"));
	/* The private view is a new mapping, which knows nothing of that. */
	assert_int_equal(ac__sys_map_private(p, fd, 0, MB), 0);
	assert_true(has_vm_flag(p, " dd"));
	ac__sys_unmap(p, MB);
	ac__sys_close(fd);
}

static void test_sys_private_view_keeps_writes_to_itself(void **state)
{
	bool sealed;
	int fd = ac__sys_memory(MB, &sealed);
	void *one, *two;

	(void)state;
	assert_int_equal(ac__sys_map(&one, fd, 0, MB), 0);
	assert_int_equal(ac__sys_map(&two, fd, 0, MB), 0);
	strcpy(one, "before");
	assert_int_equal(ac__sys_map_private(two, fd, 0, MB), 0);
	assert_string_equal(two, "before");
	strcpy(two, "after");
	assert_string_equal(one, "before");
	ac__sys_unmap(one, MB);
	ac__sys_unmap(two, MB);
	ac__sys_close(fd);
}

static void test_sys_map_fails_with_a_code(void **state)
{
	void *p = &p;
	int fd[2];

	(void)state;
	assert_int_equal(ac__sys_map(&p, -1, 0, 4096), -EBADF);
	assert_int_equal(ac__sys_socketpair(fd), 0);
	assert_true(ac__sys_map(&p, fd[0], 0, 4096) < 0);
	assert_ptr_equal(p, &p);
	ac__sys_close(fd[0]);
	ac__sys_close(fd[1]);
}

static void test_sys_punch_gives_pages_back(void **state)
{
	bool sealed;
	int fd = ac__sys_memory(4 * MB, &sealed);
	char *p;

	(void)state;
	assert_int_equal(ac__sys_map((void **)&p, fd, 0, 4 * MB), 0);
	memset(p, 1, 4 * MB);
	assert_true(bytes_on_disk(fd) >= 4 * MB);
	ac__sys_punch(fd, MB, 2 * MB);
	assert_true(bytes_on_disk(fd) <= 2 * MB);
	assert_int_equal(p[MB - 1], 1);
	assert_int_equal(p[MB], 0);
	assert_int_equal(p[3 * MB], 1);
	ac__sys_unmap(p, 4 * MB);
	ac__sys_close(fd);
}

/* ---- sleeping and waking ---- */

static void test_sys_futex_ends_at_its_deadline(void **state)
{
	_Atomic uint32_t word = 7;
	int64_t start = ac__sys_now();

	(void)state;
	assert_int_equal(ac__sys_futex_wait(&word, 7, ac__sys_deadline(30 * MS)),
			 -ETIMEDOUT);
	assert_true(ac__sys_now() - start >= 30 * MS);
	assert_int_equal(ac__sys_futex_wait(&word, 7, start), -ETIMEDOUT);
	assert_int_equal(ac__sys_futex_wait(&word, 7, 0), -ETIMEDOUT);
	/* Another value: no sleep, whatever the deadline. */
	assert_int_equal(ac__sys_futex_wait(&word, 8, INT64_MAX), 0);
}

static void test_sys_futex_tells_of_signals(void **state)
{
	struct itimerval soon = { { 0, 20000 }, { 0, 20000 } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction action = { .sa_handler = ignore_signal }, before;
	_Atomic uint32_t word = 0;
	int r;

	(void)state;
	sigaction(SIGALRM, &action, &before);
	setitimer(ITIMER_REAL, &soon, NULL);
	r = ac__sys_futex_wait(&word, 0, ac__sys_deadline(5000 * MS));
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &before, NULL);
	assert_int_equal(r, -EINTR);
}

static int wait_for_word(unsigned seat, void *arg)
{
	_Atomic uint32_t *word = arg;

	(void)seat;
	while (atomic_load(word) == 0)
		SEAT_CHECK(ac__sys_futex_wait(word, 0, ac__sys_deadline(10000 * MS)) == 0);
	return 0;
}

static void test_sys_futex_wakes_threads_and_processes(void **state)
{
	_Atomic uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct seats seats;

	(void)state;
	for (int kind = SEATS_THREADS; kind <= SEATS_PROCESSES; kind++) {
		atomic_store(word, 0);
		seats_start(&seats, kind, 3, wait_for_word, word);
		usleep(10000);
		atomic_store(word, 1);
		ac__sys_futex_wake(word, 3);
		assert_int_equal(seats_join(&seats), 0);
	}
	munmap(word, 4096);
}

static void test_sys_pipe_never_blocks(void **state)
{
	int fd[2];

	(void)state;
	assert_int_equal(ac__sys_pipe(fd), 0);
	assert_true(is_cloexec(fd[0]) && is_cloexec(fd[1]));
	assert_false(is_readable(fd[0]));
	ac__sys_drain(fd[0]); /* empty: must not block */
	errno = 77;
	ac__sys_write_byte(fd[1]);
	assert_true(is_readable(fd[0]));
	for (int i = 0; i < 70000; i++) /* more than a pipe holds */
		ac__sys_write_byte(fd[1]);
	assert_true(is_readable(fd[0]));
	ac__sys_drain(fd[0]);
	assert_int_equal(errno, 77);
	assert_false(is_readable(fd[0]));
	ac__sys_write_byte(fd[1]);
	assert_true(is_readable(fd[0]));
	ac__sys_close(fd[0]);
	ac__sys_close(fd[1]);
	ac__fault_arm(AC__SYS_PIPE, 1, 1, EMFILE);
	assert_int_equal(ac__sys_pipe(fd), -EMFILE);
}

static void test_sys_pipe_without_a_reader_raises_no_signal(void **state)
{
	sigset_t pending, before;
	int fd[2];

	(void)state;
	assert_int_equal(ac__sys_pipe(fd), 0);
	ac__sys_close(fd[0]);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, NULL, &before);
	ac__sys_write_byte(fd[1]);
	sigpending(&pending);
	assert_false(sigismember(&pending, SIGPIPE));
	sigprocmask(SIG_SETMASK, NULL, &pending);
	assert_int_equal(sigismember(&pending, SIGPIPE), sigismember(&before, SIGPIPE));
	ac__sys_close(fd[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sys_faults_hit_exactly_the_calls_planned),
		TEST(test_sys_deadlines_of_limits),
		TEST(test_sys_memory_is_sealed_against_any_size),
		TEST(test_sys_without_memfd_memory_is_an_unlinked_file),
		TEST(test_sys_memory_fails_when_there_is_no_way),
		TEST(test_sys_unlinked_file_finds_another_folder),
		TEST(test_sys_file_limit_is_an_error_and_no_signal),
		TEST(test_sys_preallocate_goes_on_after_signals),
		TEST(test_sys_maps_stay_out_of_core_dumps),
		TEST(test_sys_private_view_keeps_writes_to_itself),
		TEST(test_sys_map_fails_with_a_code),
		TEST(test_sys_punch_gives_pages_back),
		TEST(test_sys_futex_ends_at_its_deadline),
		TEST(test_sys_futex_tells_of_signals),
		TEST(test_sys_futex_wakes_threads_and_processes),
		TEST(test_sys_pipe_never_blocks),
		TEST(test_sys_pipe_without_a_reader_raises_no_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

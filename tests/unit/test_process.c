/* SPDX-License-Identifier: MIT */
/*
 * Single processes: what becomes of them, on systems with pidfds and without.
 * Who watches the end of a process that isn't ours holds a pipe, whose other
 * end only that process has: pids can come again. Each test must leave no
 * descriptor and no child behind.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "allcores.h"
#include "seats.h"
#include "sys.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

/* ---- fixtures ---- */

static pid_t tester;
static int descriptors_before;

static int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int set_up(void **state)
{
	(void)state;
	descriptors_before = count_descriptors();
	return 0;
}

static int set_up_without_pidfd(void **state)
{
	ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, ENOSYS);
	return set_up(state);
}

static int tear_down(void **state)
{
	(void)state;
	/* A child in which an assertion failed must not go on with the tests. */
	if (getpid() != tester)
		_exit(70);
	ac__fault_disarm();
	signal(SIGCHLD, SIG_DFL);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(count_descriptors(), descriptors_before);
	return 0;
}

/* ---- what processes run ---- */

static int return_arg(void *arg)
{
	return (int)(intptr_t)arg;
}

static int raise_arg(void *arg)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	/* cmocka's handler is inherited. */
	signal((int)(intptr_t)arg, SIG_DFL);
	raise((int)(intptr_t)arg);
	return 0;
}

static int exit_inside(void *arg)
{
	exit((int)(intptr_t)arg);
}

__attribute__((noreturn)) static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

static int sleep_long(void *arg)
{
	(void)arg;
	sleep_for_ever();
}

static volatile bool stop_spinning; /* nobody ever does */

/* Deaf to everything that can be blocked, and never asleep. */
static int spin(void *arg)
{
	sigset_t all;

	(void)arg;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (!stop_spinning)
		ac__relax();
	return 0;
}

static int nap_50_ms(void *arg)
{
	usleep(50000);
	return (int)(intptr_t)arg;
}

/* ---- short forms ---- */

static struct ac_process *start_flags(int (*fn)(void *), void *arg, unsigned flags)
{
	struct ac_process_opts opts = { .size = sizeof opts, .flags = flags };
	struct ac_process *process;

	assert_int_equal(ac_process_start(&process, fn, arg, &opts), 0);
	return process;
}

static struct ac_process *start(int (*fn)(void *), intptr_t arg)
{
	return start_flags(fn, (void *)arg, 0);
}

static struct ac_outcome outcome_of(struct ac_process *process)
{
	struct ac_outcome outcome;

	memset(&outcome, 0x5a, sizeof outcome);
	assert_int_equal(ac_process_join(process, 20 * SECOND, &outcome), 0);
	assert_int_equal(outcome.pid, ac_process_pid(process));
	assert_int_equal(outcome.worker, 0);
	assert_int_equal(outcome.index, 0);
	return outcome;
}

static struct ac_outcome run(int (*fn)(void *), intptr_t arg)
{
	struct ac_process *process = start(fn, arg);
	struct ac_outcome outcome = outcome_of(process);

	ac_process_close(process);
	return outcome;
}

static bool is_readable(int fd, int milliseconds)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, milliseconds) == 1;
}

/* The last holder of the other end has gone, within a second. */
static bool has_gone(int fd)
{
	char c;

	return is_readable(fd, 1000) && read(fd, &c, 1) == 0;
}

static void open_pipe(int fd[2])
{
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
}

static void close_pipe(int fd[2])
{
	close(fd[0]);
	close(fd[1]);
}

static void wait_ok(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* ---- outcomes ---- */

static void test_process_returns_its_value(void **state)
{
	struct ac_outcome outcome = run(return_arg, 0);

	(void)state;
	assert_int_equal(outcome.status, 0);
	assert_int_equal(outcome.value, 0);
	assert_string_equal(outcome.text, "");

	outcome = run(return_arg, 3);
	assert_int_equal(outcome.status, AC_ETASK);
	assert_int_equal(outcome.value, 3);
	assert_int_equal(outcome.exit_code, 3);
	assert_int_equal(outcome.signal, 0);
	assert_string_equal(outcome.text, "exited with code 3");

	assert_int_equal(run(return_arg, 255).value, 255);
	assert_int_equal(run(return_arg, -1).value, 255);
	assert_int_equal(run(return_arg, 256).status, 0);
}

static void test_process_that_exits_inside(void **state)
{
	struct ac_outcome outcome = run(exit_inside, 4);

	(void)state;
	assert_int_equal(outcome.status, AC_ETASK);
	assert_int_equal(outcome.value, 4);
	assert_int_equal(run(exit_inside, 0).status, 0);
}

static void expect_death(int number, const char *text)
{
	struct ac_outcome outcome = run(raise_arg, number);

	assert_int_equal(outcome.status, AC_EDIED);
	assert_int_equal(outcome.signal, number);
	assert_int_equal(outcome.exit_code, -1);
	assert_int_equal(outcome.value, 0);
	assert_string_equal(outcome.text, text);
}

static void test_process_killed_by_a_signal(void **state)
{
	char text[64];

	(void)state;
	expect_death(SIGKILL, "killed by signal 9 (SIGKILL)");
	expect_death(SIGSEGV, "killed by signal 11 (SIGSEGV)");
	snprintf(text, sizeof text, "killed by signal %d", SIGRTMIN + 1);
	expect_death(SIGRTMIN + 1, text);
}

static void expect_unknown(struct ac_process *process)
{
	struct ac_outcome outcome = outcome_of(process);

	assert_int_equal(outcome.status, AC_EDIED);
	assert_int_equal(outcome.exit_code, -1);
	assert_int_equal(outcome.signal, 0);
	assert_non_null(strstr(outcome.text, "somebody else reaped it"));
	assert_int_equal(ac_process_kill(process, SIGKILL), -ESRCH);
	ac_process_close(process);
}

static void test_process_reaped_by_somebody_else(void **state)
{
	struct ac_process *process = start(return_arg, 3);

	(void)state;
	assert_int_equal(waitpid(-1, NULL, 0), ac_process_pid(process));
	expect_unknown(process);
}

static void test_process_where_sigchld_is_ignored(void **state)
{
	struct ac_process *process;

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	expect_unknown(start(return_arg, 3));
	expect_unknown(start(nap_50_ms, 3));
	process = start(sleep_long, 0);
	assert_int_equal(ac_process_join(process, 0, NULL), -ETIMEDOUT);
	ac_process_close(process);
}

/* ---- join ---- */

static void test_process_join_can_be_repeated(void **state)
{
	struct ac_process *process = start(sleep_long, 0);
	int64_t begin = ac__sys_now();

	(void)state;
	assert_int_equal(ac_process_join(process, 0, NULL), -ETIMEDOUT);
	assert_int_equal(ac_process_join(process, 30 * MS, NULL), -ETIMEDOUT);
	assert_true(ac__sys_now() - begin >= 30 * MS);
	assert_int_equal(ac_process_kill(process, SIGTERM), 0);
	assert_int_equal(ac_process_join(process, -1, NULL), 0);
	assert_int_equal(outcome_of(process).signal, SIGTERM);
	assert_int_equal(outcome_of(process).signal, SIGTERM);
	assert_int_equal(ac_process_join(process, 0, NULL), 0);
	ac_process_close(process);
}

static void *join_in_thread(void *process)
{
	return (void *)(intptr_t)outcome_of(process).value;
}

static void test_process_join_from_two_threads(void **state)
{
	struct ac_process *process = start(nap_50_ms, 7);
	pthread_t threads[2];
	void *value;

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL,
						join_in_thread, process), 0);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &value);
		assert_int_equal((intptr_t)value, 7);
	}
	ac_process_close(process);
}

static void ignore_signal(int number)
{
	(void)number;
}

/* A handler that runs in the waiting thread doesn't end the wait. */
static void test_process_join_outlasts_signals(void **state)
{
	struct sigaction action = { .sa_handler = ignore_signal }, before;
	struct ac_process *process;

	(void)state;
	sigaction(SIGCHLD, &action, &before);
	process = start(nap_50_ms, 2);
	assert_int_equal(run(return_arg, 1).value, 1);
	assert_int_equal(outcome_of(process).value, 2);
	ac_process_close(process);
	sigaction(SIGCHLD, &before, NULL);
}

struct grandchild {
	pid_t pid;
	int descriptors;
};

/* What it forks lives on, but that isn't the process. */
static int leave_grandchild(void *arg)
{
	const int *fd = arg;
	struct grandchild self;

	if (fork())
		return 0;
	self.pid = getpid();
	self.descriptors = count_descriptors();
	if (write(fd[1], &self, sizeof self) == sizeof self)
		sleep_for_ever();
	_exit(1);
}

static void test_process_join_waits_for_no_grandchild(void **state)
{
	int fd[2];
	struct grandchild left;
	struct ac_process *process;

	(void)state;
	open_pipe(fd);
	process = start(leave_grandchild, (intptr_t)fd);
	assert_int_equal(outcome_of(process).status, 0);
	assert_int_equal(read(fd[0], &left, sizeof left), sizeof left);
	/* The pipe; not the lifeline, whose end would not be seen. */
	assert_int_equal(left.descriptors, descriptors_before + 2);
	kill(left.pid, SIGKILL);
	close(fd[1]);
	assert_true(has_gone(fd[0]));
	ac_process_close(process);
	close(fd[0]);
}

static int close_everything(void *arg)
{
	for (int fd = 3; fd < 256; fd++)
		close(fd);
	return nap_50_ms(arg);
}

static void test_process_that_closes_its_descriptors(void **state)
{
	(void)state;
	assert_int_equal(run(close_everything, 5).value, 5);
}

/* ---- kill and close ---- */

/* It is dead then, but nobody has joined it yet. */
static void wait_unreaped(struct ac_process *process)
{
	siginfo_t end;

	assert_int_equal(waitid(P_PID, (id_t)ac_process_pid(process), &end,
				WEXITED | WNOWAIT), 0);
}

static void test_process_kill(void **state)
{
	struct ac_process *process = start(spin, 0);

	(void)state;
	assert_int_equal(ac_process_kill(process, 0), 0);
	assert_int_equal(ac_process_kill(process, 9999), -EINVAL);
	assert_int_equal(ac_process_kill(process, SIGKILL), 0);
	wait_unreaped(process);
	assert_int_equal(ac_process_kill(process, SIGKILL), -ESRCH);
	assert_int_equal(outcome_of(process).signal, SIGKILL);
	assert_int_equal(ac_process_kill(process, SIGKILL), -ESRCH);
	ac_process_close(process);
}

static void test_process_close_kills(void **state)
{
	struct ac_process *process = start(spin, 0);
	pid_t pid = ac_process_pid(process);

	(void)state;
	ac_process_close(process);
	assert_int_equal(kill(pid, 0), -1);
	/* One that is stopped, too. */
	process = start(sleep_long, 0);
	ac_process_kill(process, SIGSTOP);
	assert_int_equal(ac_process_join(process, 20 * MS, NULL), -ETIMEDOUT);
	ac_process_close(process);
	ac_process_close(NULL);
}

/* ---- life with and without its starter ---- */

struct family {
	int (*fn)(void *);
	unsigned flags;
	bool first;	/* it is process 1 of a pid namespace, where that is allowed */
	int life[2];	/* the process alone holds life[1] */
	int order[2];	/* what it is told */
};

static int live(void *arg)
{
	struct family *family = arg;
	char c = 'x';

	close(family->life[0]);
	close(family->order[1]);
	if (write(family->life[1], &c, 1) != 1)
		return 1;
	return family->fn(family);
}

/* A starter that waits for its own end; returns when the process lives. */
static pid_t start_family(struct family *family)
{
	char c;
	pid_t pid;

	open_pipe(family->life);
	open_pipe(family->order);
	pid = fork();
	if (pid == 0) {
		if (family->first && unshare(CLONE_NEWPID) < 0 &&
		    unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0)
			_exit(write(family->life[1], "n", 1) != 1);
		start_flags(live, family, family->flags);
		close_pipe(family->life);
		close_pipe(family->order);
		sleep_for_ever();
	}
	close(family->life[1]);
	close(family->order[0]);
	assert_int_equal(read(family->life[0], &c, 1), 1);
	family->first = family->first && c == 'x';
	return pid;
}

static void kill_starter(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_process_ends_with_its_starter(void **state)
{
	struct family family = { .fn = spin };
	pid_t pid = start_family(&family);

	(void)state;
	assert_false(is_readable(family.life[0], 20));
	kill_starter(pid);
	assert_true(has_gone(family.life[0]));
	close(family.life[0]);
	close(family.order[1]);
}

/* No signal from within kills it. */
static void test_process_ends_with_its_starter_as_process_1(void **state)
{
	struct family family = { .fn = spin, .first = true };
	pid_t pid;

	(void)state;
	SKIP_UNDER_TSAN();
	pid = start_family(&family);
	if (family.first)
		assert_false(is_readable(family.life[0], 20));
	kill_starter(pid);
	assert_true(has_gone(family.life[0]));
	close(family.life[0]);
	close(family.order[1]);
	if (!family.first)
		skip();
}

static int spin_in_grandchild(void *arg)
{
	start(spin, 0);
	return sleep_long(arg);
}

static void test_process_ends_with_its_starters_starter(void **state)
{
	struct family family = { .fn = spin_in_grandchild };

	(void)state;
	kill_starter(start_family(&family));
	assert_true(has_gone(family.life[0]));
	close(family.life[0]);
	close(family.order[1]);
}

/* Says when it is told to. */
static int answer(void *arg)
{
	struct family *family = arg;
	char c;

	return read(family->order[0], &c, 1) != 1 ||
	       write(family->life[1], &c, 1) != 1;
}

static void test_process_detached_survives_its_starter(void **state)
{
	struct family family = { .fn = answer, .flags = AC_PROCESS_DETACHED };
	char c = '?';

	(void)state;
	kill_starter(start_family(&family));
	assert_false(is_readable(family.life[0], 50));
	assert_int_equal(write(family.order[1], &c, 1), 1);
	assert_int_equal(read(family.life[0], &c, 1), 1);
	assert_int_equal(c, '?');
	assert_true(has_gone(family.life[0]));
	close(family.life[0]);
	close(family.order[1]);
}

static void test_process_detached_is_joined_and_killed(void **state)
{
	struct ac_process *process =
		start_flags(nap_50_ms, (void *)6, AC_PROCESS_DETACHED);

	(void)state;
	assert_int_equal(outcome_of(process).value, 6);
	ac_process_close(process);

	process = start_flags(spin, NULL, AC_PROCESS_DETACHED);
	assert_int_equal(ac_process_join(process, 30 * MS, NULL), -ETIMEDOUT);
	assert_int_equal(ac_process_kill(process, SIGKILL), 0);
	assert_int_equal(outcome_of(process).signal, SIGKILL);
	ac_process_close(process);
}

static void test_process_detached_survives_close(void **state)
{
	struct ac_process *process =
		start_flags(nap_50_ms, NULL, AC_PROCESS_DETACHED);
	pid_t pid = ac_process_pid(process);

	(void)state;
	ac_process_close(process);
	wait_ok(pid);

	/* One that has ended is no zombie afterwards. */
	process = start_flags(return_arg, NULL, AC_PROCESS_DETACHED);
	wait_unreaped(process);
	ac_process_close(process);
}

/* ---- children of the user's ---- */

static int use_as_stranger(struct ac_process *process, int descriptors)
{
	struct ac_outcome outcome;
	int wrong = 0;

	wrong |= ac_process_join(process, -1, &outcome) != AC_EFORK;
	wrong |= (ac_process_kill(process, SIGKILL) != AC_EFORK) << 1;
	wrong |= (ac_process_pid(process) <= 0) << 2;
	wrong |= (count_descriptors() != descriptors) << 3;
	ac_process_close(process);
	return wrong;
}

static void test_process_is_nothing_to_a_users_child(void **state)
{
	struct ac_process *process = start(sleep_long, 0);
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(use_as_stranger(process, descriptors_before));
	wait_ok(pid);
	pid = fork();
	if (pid == 0)
		exit(0);
	wait_ok(pid);
	assert_int_equal(ac_process_join(process, 30 * MS, NULL), -ETIMEDOUT);
	assert_int_equal(ac_process_kill(process, SIGTERM), 0);
	assert_int_equal(outcome_of(process).signal, SIGTERM);
	ac_process_close(process);
}

static int use_sibling(void *sibling)
{
	/* One more: its own lifeline. */
	return use_as_stranger(sibling, descriptors_before + 1);
}

static void test_process_is_nothing_to_its_sibling(void **state)
{
	struct ac_process *process = start(sleep_long, 0);

	(void)state;
	assert_int_equal(run(use_sibling, (intptr_t)process).value, 0);
	assert_int_equal(ac_process_join(process, 0, NULL), -ETIMEDOUT);
	ac_process_close(process);
}

static void *start_many(void *failed)
{
	for (int i = 0; i < 30; i++) {
		struct ac_process *process = start(return_arg, i);

		if (outcome_of(process).value != i)
			*(_Atomic int *)failed = 1;
		ac_process_close(process);
	}
	return NULL;
}

static void test_process_starts_beside_others_and_forks(void **state)
{
	pthread_t threads[3];
	_Atomic int failed = 0;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, start_many,
						&failed), 0);
	for (int i = 0; i < 30; i++) {
		pid_t pid = fork();

		/* Whatever the threads had open just then, it isn't here. */
		if (pid == 0)
			_exit(count_descriptors() != descriptors_before);
		wait_ok(pid);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(failed, 0);
}

/* ---- what a process finds ---- */

static void read_name(pid_t pid, char name[32])
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_non_null(fgets(name, 32, f));
	fclose(f);
	name[strcspn(name, "\n")] = '\0';
}

static int say_ready(void *arg)
{
	const int *fd = arg;

	return write(fd[1], "", 1) != 1 || sleep_long(NULL);
}

static void expect_name(const char *given, const char *shown)
{
	struct ac_process_opts opts = { .size = sizeof opts, .name = given };
	struct ac_process *process;
	char name[32], c;
	int fd[2];

	open_pipe(fd);
	assert_int_equal(ac_process_start(&process, say_ready, fd, &opts), 0);
	assert_int_equal(read(fd[0], &c, 1), 1);
	read_name(ac_process_pid(process), name);
	assert_string_equal(name, shown);
	ac_process_close(process);
	close_pipe(fd);
}

static void test_process_name_is_shown(void **state)
{
	char own[32];

	(void)state;
	expect_name("sieve", "sieve");
	expect_name("a name that is far too long", "a name that is ");
	read_name(getpid(), own);
	expect_name(NULL, own);
}

/* Signals are as in any forked child. */
static int find_signals(void *arg)
{
	struct sigaction action;
	sigset_t mask;

	(void)arg;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	sigaction(SIGUSR1, NULL, &action);
	return !sigismember(&mask, SIGUSR2) || sigismember(&mask, SIGUSR1) ||
	       action.sa_handler != ignore_signal;
}

static void test_process_keeps_mask_and_handlers(void **state)
{
	sigset_t mask, before;

	(void)state;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &mask, &before);
	signal(SIGUSR1, ignore_signal);
	assert_int_equal(run(find_signals, 0).status, 0);
	signal(SIGUSR1, SIG_DFL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int print_inside(void *arg)
{
	printf("inside ");
	return (int)(intptr_t)arg;
}

/* In a child, whose stdout is a file and so buffered. */
static void print_around(FILE *f)
{
	dup2(fileno(f), 1);
	printf("before ");
	if (run(print_inside, 0).status)
		printf("failed ");
	printf("after");
	fflush(NULL);
	_exit(0);
}

/* Of a file that has ten bytes in its buffer, and that no child is to write. */
static FILE *open_ten_bytes(void)
{
	FILE *file = tmpfile();

	if (file)
		fprintf(file, "ten bytes\n");
	return file;
}

static long close_and_count(FILE *file)
{
	struct stat s = { 0 };

	fflush(file);
	fstat(fileno(file), &s);
	fclose(file);
	return (long)s.st_size;
}

static _Atomic int lock_step;

/* Holds the lock of stdout, until it is told to let go. */
static void *hold_stdout(void *arg)
{
	(void)arg;
	flockfile(stdout);
	atomic_store(&lock_step, 1);
	while (atomic_load(&lock_step) == 1)
		usleep(1000);
	funlockfile(stdout);
	return NULL;
}

/* Holds the lock of stdin, since it waits for input. */
static void *read_stdin(void *arg)
{
	char line[8];

	(void)arg;
	atomic_store(&lock_step, 1);
	return fgets(line, sizeof line, stdin);
}

static pthread_t start_and_wait(void *(*fn)(void *))
{
	pthread_t thread;

	atomic_store(&lock_step, 0);
	if (pthread_create(&thread, NULL, fn, NULL))
		_exit(99);
	while (atomic_load(&lock_step) == 0)
		usleep(1000);
	usleep(20000);
	return thread;
}

/* How much is written by whom, where another thread holds a lock meanwhile. */
static int start_beside(void *(*fn)(void *))
{
	FILE *file = open_ten_bytes(), *out = tmpfile();
	struct ac_outcome outcome;
	int input[2];
	long written;

	alarm(10);
	if (!file || !out || pipe(input))
		return 1;
	dup2(input[0], 0);
	dup2(fileno(out), 1);
	setvbuf(stdout, NULL, _IOFBF, 4096);
	printf("twelve bytes");
	start_and_wait(fn);
	outcome = run(print_inside, 0);
	if (outcome.status || close_and_count(file) != 10)
		return 2;
	atomic_store(&lock_step, 2);
	written = close_and_count(stdout);
	return written == 12 + 7 ? 0 : (int)written;
}

static void test_process_starts_while_stdout_is_locked(void **state)
{
	pid_t pid;

	(void)state;
	SKIP_UNDER_TSAN();
	pid = fork();
	if (pid == 0)
		_exit(start_beside(hold_stdout));
	wait_ok(pid);
}

static void test_process_starts_while_stdin_is_read(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(start_beside(read_stdin));
	wait_ok(pid);
}

static void test_process_writes_buffered_output_once(void **state)
{
	char text[64] = "";
	FILE *f = tmpfile();
	pid_t pid;

	(void)state;
	assert_non_null(f);
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		print_around(f);
	wait_ok(pid);
	rewind(f);
	assert_non_null(fgets(text, sizeof text, f));
	assert_string_equal(text, "before inside after");
	fclose(f);
}

/* ---- failures ---- */

static void expect_refusal(const struct ac_process_opts *opts, int (*fn)(void *),
			   int code)
{
	static char nothing;
	void *untouched = &nothing;
	struct ac_process *process = untouched;

	assert_int_equal(ac_process_start(&process, fn, NULL, opts), code);
	assert_ptr_equal(process, untouched);
	assert_int_equal(count_descriptors(), descriptors_before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void test_process_refuses_bad_arguments(void **state)
{
	struct ac_process_opts no_size = { .size = 0 };
	struct ac_process_opts flags = { .size = sizeof flags, .flags = 2 };

	(void)state;
	expect_refusal(NULL, NULL, -EINVAL);
	expect_refusal(&no_size, return_arg, -EINVAL);
	expect_refusal(&flags, return_arg, -EINVAL);
	flags = (struct ac_process_opts){ .size = sizeof flags, .reserved = 1 };
	expect_refusal(&flags, return_arg, -EINVAL);
	assert_int_equal(ac_process_start(NULL, return_arg, NULL, NULL), -EINVAL);
	assert_int_equal(ac_process_pid(NULL), -EINVAL);
	assert_int_equal(ac_process_join(NULL, 0, NULL), -EINVAL);
	assert_int_equal(ac_process_kill(NULL, SIGTERM), -EINVAL);
	ac_process_close(NULL);
}

static void test_process_start_fails_whole(void **state)
{
	static const struct {
		enum ac__sys_call call;
		int err, code;
	} cases[] = {
		{ AC__SYS_MALLOC, ENOMEM, -ENOMEM },
		{ AC__SYS_SOCKET, EMFILE, -EMFILE },
		{ AC__SYS_FORK, EAGAIN, -EAGAIN },
		{ AC__SYS_SEND, ENOBUFS, -ENOBUFS },
	};
	struct ac_process_opts detached = { .size = sizeof detached,
					    .flags = AC_PROCESS_DETACHED };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		ac__fault_arm(cases[i].call, 1, 2, cases[i].err);
		expect_refusal(NULL, spin, cases[i].code);
		expect_refusal(&detached, spin, cases[i].code);
		assert_int_equal(run(return_arg, 9).value, 9);
	}
}

/* It never ran, and that can't be mistaken for something that fn returned. */
static void test_process_without_lifeline_does_not_begin(void **state)
{
	static const enum ac__sys_call calls[] = { AC__SYS_LIFELINE,
						   AC__SYS_RECEIVE };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct ac_outcome outcome;

		ac__fault_arm(calls[i], 1, 1, ENOMEM);
		outcome = run(return_arg, 0);
		ac__fault_arm(calls[i], 0, 0, 0);
		assert_int_equal(outcome.status, AC_EDIED);
		assert_int_equal(outcome.signal, SIGKILL);
	}
}

/* ---- all of them ---- */

#define TEST(name) \
	cmocka_unit_test_setup_teardown(test_process_##name, set_up, tear_down)
/* The same once more where there are no pidfds. */
#define BOTH(name) \
	TEST(name), { "test_process_" #name "_without_pidfd", \
		      test_process_##name, set_up_without_pidfd, tear_down, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(returns_its_value),
		BOTH(that_exits_inside),
		BOTH(killed_by_a_signal),
		BOTH(reaped_by_somebody_else),
		BOTH(where_sigchld_is_ignored),
		BOTH(join_can_be_repeated),
		BOTH(join_from_two_threads),
		BOTH(join_outlasts_signals),
		BOTH(join_waits_for_no_grandchild),
		BOTH(that_closes_its_descriptors),
		BOTH(kill),
		BOTH(close_kills),
		TEST(ends_with_its_starter),
		TEST(ends_with_its_starter_as_process_1),
		TEST(ends_with_its_starters_starter),
		BOTH(detached_survives_its_starter),
		BOTH(detached_is_joined_and_killed),
		BOTH(detached_survives_close),
		BOTH(is_nothing_to_a_users_child),
		BOTH(is_nothing_to_its_sibling),
		BOTH(starts_beside_others_and_forks),
		TEST(name_is_shown),
		TEST(keeps_mask_and_handlers),
		TEST(writes_buffered_output_once),
		TEST(starts_while_stdout_is_locked),
		TEST(starts_while_stdin_is_read),
		TEST(refuses_bad_arguments),
		BOTH(start_fails_whole),
		BOTH(without_lifeline_does_not_begin),
	};

	/* A wait that never ends is a failure, not a hang. */
	alarm(50);
	tester = getpid();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

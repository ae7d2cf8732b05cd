/* SPDX-License-Identifier: MIT */
/* A user's fork lets go of what is ours; our own forks keep exactly what they are told to. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "forkguard.h"
#include "seats.h"
#include "sys.h"

static struct counted {
	struct ac__forkguard guard;
	unsigned left;
} guards[3];

static void count_left(struct ac__forkguard *guard)
{
	AC__CONTAINER(guard, struct counted, guard)->left++;
}

static int set_up(void **state)
{
	(void)state;
	ac__fault_disarm();
	for (int i = 0; i < 3; i++) {
		guards[i] = (struct counted){ .guard = { .left = count_left,
							 .group = &guards[i] } };
		ac__forkguard_add(&guards[i].guard);
	}
	return 0;
}

static int tear_down(void **state)
{
	unsigned left = 0;

	(void)state;
	for (int i = 0; i < 3; i++) {
		ac__forkguard_remove(&guards[i].guard);
		left += guards[i].left; /* never in the process that forks */
	}
	return left || seats_children() ? -1 : 0;
}

/* Which guards ran in the child, as bits; each must have run at most once. */
static int left_in_child(void)
{
	int bits = 0;

	for (int i = 0; i < 3; i++) {
		if (guards[i].left > 1)
			return 99;
		bits |= (int)guards[i].left << i;
	}
	return bits;
}

static int exit_code_of(pid_t pid)
{
	int status = 0;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int code_after_fork(const void *group, bool by_user)
{
	pid_t pid = by_user ? fork() : ac__forkguard_fork(group);

	if (pid == 0)
		_exit(left_in_child());
	return exit_code_of(pid);
}

static void test_forkguard_users_fork_leaves_all(void **state)
{
	(void)state;
	assert_int_equal(code_after_fork(NULL, true), 7);
	assert_int_equal(code_after_fork(NULL, true), 7); /* still on the list here */
}

static void test_forkguard_own_fork_keeps_one(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(code_after_fork(&guards[i], false),
				 7 & ~(1 << i));
	assert_int_equal(code_after_fork(NULL, false), 7);
	assert_int_equal(code_after_fork(NULL, true), 7); /* nothing is kept for the next */
}

static void test_forkguard_own_fork_keeps_a_group(void **state)
{
	(void)state;
	guards[0].guard.group = guards[2].guard.group;
	assert_int_equal(code_after_fork(&guards[2], false), 2);
	assert_int_equal(code_after_fork(&guards[0], false), 7);
	guards[1].guard.group = NULL;
	assert_int_equal(code_after_fork(NULL, false), 7);
}

/* In the order in which they were added, for children of the child's own. */
static void test_forkguard_kept_group_is_left_by_grandchildren(void **state)
{
	pid_t pid;

	(void)state;
	for (int i = 0; i < 3; i++)
		guards[i].guard.group = guards;
	pid = ac__forkguard_fork(guards);
	if (pid == 0) {
		ac__forkguard_remove(&guards[1].guard);
		pid = left_in_child() == 0 ? fork() : -1;
		_exit(pid == 0 ? left_in_child() : exit_code_of(pid));
	}
	assert_int_equal(exit_code_of(pid), 5);
}

static void test_forkguard_removed_is_left_alone(void **state)
{
	(void)state;
	ac__forkguard_remove(&guards[1].guard);
	assert_int_equal(code_after_fork(NULL, true), 5);
	ac__forkguard_remove(&guards[1].guard); /* twice is harmless */
	ac__forkguard_remove(&guards[2].guard);
	ac__forkguard_remove(&guards[0].guard);
	assert_int_equal(code_after_fork(NULL, true), 0);
	ac__forkguard_add(&guards[1].guard);
	assert_int_equal(code_after_fork(NULL, true), 2);
}

/* The kept one is a stranger's again for the child's own children; the others are gone. */
static void test_forkguard_kept_is_left_by_grandchildren(void **state)
{
	pid_t pid = ac__forkguard_fork(&guards[1]);

	(void)state;
	if (pid == 0) {
		int mine = left_in_child(), status = 0;
		pid_t grandchild = fork();

		if (grandchild == 0)
			_exit(left_in_child());
		waitpid(grandchild, &status, 0);
		_exit(mine == 5 && WIFEXITED(status) && WEXITSTATUS(status) == 7 ?
			      0 : 1);
	}
	assert_int_equal(exit_code_of(pid), 0);
}

static void test_forkguard_child_may_guard_again(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		guards[0].left = 0;
		ac__forkguard_remove(&guards[1].guard);
		ac__forkguard_add(&guards[0].guard);
		ac__forkguard_lock();
		ac__forkguard_unlock();
		pid = fork();
		if (pid == 0)
			_exit(guards[0].left == 1 && guards[1].left == 1 ? 0 : 1);
		_exit(exit_code_of(pid));
	}
	assert_int_equal(exit_code_of(pid), 0);
}

static void test_forkguard_failed_fork_keeps_nothing(void **state)
{
	(void)state;
	ac__fault_arm(AC__SYS_FORK, 1, 1, EAGAIN);
	assert_int_equal(ac__forkguard_fork(&guards[0]), -EAGAIN);
	assert_int_equal(code_after_fork(NULL, true), 7);
}

/* ---- steps that a child sees whole or not at all ---- */

static struct {
	struct ac__forkguard guard;
	int halves[2]; /* equal, save between the two steps of a writer */
	bool torn;
	_Atomic bool stop;
} pair;

static void look_for_a_tear(struct ac__forkguard *guard)
{
	(void)guard;
	pair.torn = pair.halves[0] != pair.halves[1];
}

static int write_halves(unsigned seat, void *arg)
{
	struct ac__forkguard mine = { .left = look_for_a_tear };

	(void)seat;
	(void)arg;
	while (!atomic_load(&pair.stop)) {
		ac__forkguard_lock();
		pair.halves[0]++;
		ac__sys_yield();
		pair.halves[1]++;
		ac__forkguard_unlock();
		ac__forkguard_add(&mine);
		ac__forkguard_remove(&mine);
	}
	return 0;
}

static void test_forkguard_no_fork_between_lock_and_unlock(void **state)
{
	struct seats seats;
	int torn = 0;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it cannot follow a fork from a program with threads */
#endif
	pair.guard.left = look_for_a_tear;
	ac__forkguard_add(&pair.guard);
	seats_start(&seats, SEATS_THREADS, 2, write_halves, NULL);
	for (int i = 0; i < 100; i++) {
		pid_t pid = i % 2 ? fork() : ac__forkguard_fork(NULL);

		if (pid == 0)
			_exit(pair.torn);
		torn += exit_code_of(pid);
	}
	atomic_store(&pair.stop, true);
	assert_int_equal(seats_join(&seats), 0);
	ac__forkguard_remove(&pair.guard);
	assert_int_equal(torn, 0);
}

/* ---- a fork in the middle ---- */

static volatile int handled;

static void fork_in_handler(int signal)
{
	pid_t pid = fork();

	(void)signal;
	if (pid == 0)
		_exit(pair.torn);
	handled = exit_code_of(pid) == 0 ? 1 : -1;
}

static int raise_between_steps(void *arg)
{
	(void)arg;
	signal(SIGUSR1, fork_in_handler);
	pair.guard.left = look_for_a_tear;
	ac__forkguard_add(&pair.guard);
	ac__forkguard_lock();
	pair.halves[0]++;
	raise(SIGUSR1);
	SEAT_CHECK(handled == 0);
	pair.halves[1]++;
	ac__forkguard_unlock();
	return handled != 1;
}

/* A signal handler that forks waits until the steps are made. */
static void test_forkguard_handler_forks_after_the_steps(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(raise_between_steps, NULL, 5), 0);
}

static void use_the_library(void)
{
	int fd = -1;

	ac__forkguard_lock();
	ac__forkguard_close(&fd);
	ac__forkguard_unlock();
}

static int fork_with_handlers(void *arg)
{
	pid_t pid;

	(void)arg;
	pid = fork();
	if (pid == 0)
		_exit(left_in_child());
	return exit_code_of(pid);
}

/* A user's fork handlers run while the lock is held, and may call the library. */
static void test_forkguard_fork_handlers_may_call_the_library(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(fork_with_handlers, NULL, 5), 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_forkguard_users_fork_leaves_all),
		TEST(test_forkguard_own_fork_keeps_one),
		TEST(test_forkguard_own_fork_keeps_a_group),
		TEST(test_forkguard_kept_group_is_left_by_grandchildren),
		TEST(test_forkguard_removed_is_left_alone),
		TEST(test_forkguard_kept_is_left_by_grandchildren),
		TEST(test_forkguard_child_may_guard_again),
		TEST(test_forkguard_failed_fork_keeps_nothing),
		TEST(test_forkguard_no_fork_between_lock_and_unlock),
		TEST(test_forkguard_handler_forks_after_the_steps),
		TEST(test_forkguard_fork_handlers_may_call_the_library),
	};

	/* Before the library's first: they run inside of its own. */
	pthread_atfork(use_the_library, use_the_library, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * The processes of workers, as a runtime knows them by its tags: their pids, how they ended, signals
 * to them, descriptors that tell of their end; also where their template is lost.
 */
#include "runtime_help.h"

#include <fcntl.h>
#include <poll.h>

#define LONG (10 * SECOND)

/* ---- pids ---- */

static void test_runtime_pid_is_that_of_a_live_process(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(3);
	for (unsigned n = 0; n < 3; n++) {
		unsigned worker = start_of(FIRST_TAG + n)->worker;
		pid_t pid = ac_pool_worker_pid(pool, worker, FIRST_TAG + n);

		assert_true(pid > 0 && is_alive(pid));
		EVENTUALLY(has_run(FIRST_TAG + n));
		assert_int_equal(start_of(FIRST_TAG + n)->pid, pid);
	}
	assert_int_equal(ac_pool_close(pool), 0);
}

/* The template can't fork yet, and whoever asks for the pid waits. */
static void *go_on_later(void *pid)
{
	nap(100 * MS);
	send_signal(*(pid_t *)pid, SIGCONT);
	return NULL;
}

static void test_runtime_pid_is_waited_for(void **state)
{
	struct ac_pool *pool;
	pthread_t thread;
	pid_t template, pid;

	(void)state;
	pool = open_runtime(1);
	EVENTUALLY(has_run(FIRST_TAG));
	template = seen->result;
	assert_true(kill_and_wait(start_of(FIRST_TAG)->pid));
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, LONG, NULL), 0);
	assert_true(send_signal(template, SIGSTOP));
	/* The order waits for the template, unless that was faster. */
	EVENTUALLY(ac_pool_dispatch(pool) >= 0 && seen->count == 2);
	assert_int_equal(pthread_create(&thread, NULL, go_on_later, &template), 0);
	pid = ac_pool_worker_pid(pool, 0, FIRST_TAG + 1);
	pthread_join(thread, NULL);
	assert_true(pid > 0 && is_alive(pid));
	EVENTUALLY(start_of(FIRST_TAG + 1)->pid == pid);
	assert_int_equal(ac_pool_close(pool), 0);
}

static int ask_in_child(void *pool)
{
	struct ac_outcome outcome;

	SEAT_CHECK(ac_pool_worker_pid(pool, 0, FIRST_TAG) == AC_EFORK);
	SEAT_CHECK(ac_pool_worker_join(pool, 0, FIRST_TAG, 0, &outcome) == AC_EFORK);
	SEAT_CHECK(ac_pool_worker_kill(pool, 0, FIRST_TAG, 0) == AC_EFORK);
	SEAT_CHECK(ac_pool_worker_fd(pool, 0, FIRST_TAG) == AC_EFORK);
	ac_pool_close(pool);
	return 0;
}

static void assert_all_return(struct ac_pool *pool, unsigned worker, uint64_t tag, int code)
{
	struct ac_outcome outcome;

	assert_int_equal(ac_pool_worker_pid(pool, worker, tag), code);
	assert_int_equal(ac_pool_worker_join(pool, worker, tag, 0, &outcome), code);
	assert_int_equal(ac_pool_worker_kill(pool, worker, tag, 0), code);
	assert_int_equal(ac_pool_worker_fd(pool, worker, tag), code);
}

static void test_runtime_strange_tags_and_pools_are_refused(void **state)
{
	struct ac_pool *pool, *other;

	(void)state;
	pool = open_runtime(1);
	other = open_pool(1);
	assert_works(pool);
	assert_all_return(pool, 0, FIRST_TAG + 100, -ESRCH);
	assert_all_return(pool, 1, FIRST_TAG, -EINVAL);
	assert_all_return(NULL, 0, FIRST_TAG, -EINVAL);
	assert_all_return(other, 0, 0, -EINVAL);
	assert_int_equal(seats_in_child(ask_in_child, pool, 10), 0);
	assert_int_equal(ac_pool_close(other), 0);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- ends ---- */

static void assert_ended(struct ac_pool *pool, uint64_t tag, int signal, int exit_code)
{
	unsigned worker = start_of(tag)->worker;
	struct ac_outcome outcome;

	/* As often as it is asked for. */
	for (int i = 0; i < 2; i++) {
		memset(&outcome, 0x55, sizeof outcome);
		assert_int_equal(ac_pool_worker_join(pool, worker, tag, LONG, &outcome), 0);
		assert_int_equal(outcome.signal, signal);
		assert_int_equal(outcome.exit_code, exit_code);
		assert_int_equal(outcome.pid, start_of(tag)->pid);
		assert_int_equal(outcome.worker, worker);
	}
	assert_int_equal(ac_pool_worker_join(pool, worker, tag, 0, NULL), 0);
	assert_int_equal(ac_pool_worker_pid(pool, worker, tag), start_of(tag)->pid);
	assert_int_equal(ac_pool_worker_kill(pool, worker, tag, 0), -ESRCH);
	assert_int_equal(ac_pool_worker_kill(pool, worker, tag, SIGKILL), -ESRCH);
}

static void test_runtime_join_tells_of_a_signal(void **state)
{
	struct ac_outcome outcome;
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(1);
	EVENTUALLY(has_run(FIRST_TAG));
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, 20 * MS, &outcome), -ETIMEDOUT);
	assert_true(send_signal(start_of(FIRST_TAG)->pid, SIGKILL));
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, LONG, &outcome), 0);
	assert_int_equal(outcome.status, AC_EDIED);
	assert_true(outcome.peak_rss > 0);
	assert_ended(pool, FIRST_TAG, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_join_tells_of_an_exit_code(void **state)
{
	struct ac_pool *pool;

	(void)state;
	seen->behaviour = EXITS_WITH_7;
	pool = open_runtime(1);
	assert_works(pool);
	assert_ended(pool, FIRST_TAG, 0, 7);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_join_works_after_that_of_the_pool(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(3);
	assert_works(pool);
	EVENTUALLY(has_run(FIRST_TAG) && has_run(FIRST_TAG + 1) && has_run(FIRST_TAG + 2));
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, LONG), 0);
	for (unsigned n = 0; n < 3; n++) {
		assert_false(is_alive(start_of(FIRST_TAG + n)->pid));
		assert_ended(pool, FIRST_TAG + n, 0, 0);
	}
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_join_works_after_terminate(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(2);
	assert_works(pool);
	EVENTUALLY(has_run(FIRST_TAG) && has_run(FIRST_TAG + 1));
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(ac_pool_join(pool, LONG), 0);
	for (unsigned n = 0; n < 2; n++)
		assert_ended(pool, FIRST_TAG + n, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* The template's first fork fails. */
static void test_runtime_join_tells_of_a_process_that_could_not_be_forked(void **state)
{
	struct ac_outcome outcome;
	struct ac_pool *pool;

	(void)state;
	ac__fault_arm(AC__SYS_FORK, 2, 1, EAGAIN);
	pool = open_runtime(1);
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, LONG, &outcome), 0);
	assert_int_equal(outcome.signal, 0);
	assert_int_equal(outcome.exit_code, -1);
	assert_int_equal(outcome.pid, 0);
	assert_string_equal(outcome.text, ac_strerror(-EAGAIN));
	assert_int_equal(ac_pool_worker_pid(pool, 0, FIRST_TAG), -ESRCH);
	assert_works(pool);
	assert_int_equal(seen->count, 2);
	assert_int_equal(ac_pool_close(pool), 0);
}

struct joiner {
	struct ac_pool *pool;
	int result;
	struct ac_outcome outcome;
};

static void *join_first(void *arg)
{
	struct joiner *joiner = arg;

	joiner->result = ac_pool_worker_join(joiner->pool, start_of(FIRST_TAG)->worker, FIRST_TAG,
					     -1, &joiner->outcome);
	return NULL;
}

static void test_runtime_join_in_a_thread_beside_calls(void **state)
{
	struct joiner joiner = { 0 };
	pthread_t thread;

	(void)state;
	joiner.pool = open_runtime(2);
	EVENTUALLY(has_run(FIRST_TAG));
	assert_int_equal(pthread_create(&thread, NULL, join_first, &joiner), 0);
	for (int i = 0; i < 50; i++)
		assert_works(joiner.pool);
	assert_true(send_signal(start_of(FIRST_TAG)->pid, SIGKILL));
	for (int i = 0; i < 50; i++)
		assert_works(joiner.pool);
	pthread_join(thread, NULL);
	assert_int_equal(joiner.result, 0);
	assert_int_equal(joiner.outcome.signal, SIGKILL);
	assert_int_equal(ac_pool_close(joiner.pool), 0);
}

static void test_runtime_one_earlier_process_is_known(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(1);
	for (unsigned n = 0; n < 3; n++) {
		assert_works(pool);
		assert_int_equal(seen->count, n + 1);
		if (n > 0)
			assert_ended(pool, FIRST_TAG + n - 1, SIGKILL, -1);
		if (n > 1)
			assert_all_return(pool, 0, FIRST_TAG + n - 2, -ESRCH);
		assert_true(send_signal(start_of(FIRST_TAG + n)->pid, SIGKILL));
		assert_ended(pool, FIRST_TAG + n, SIGKILL, -1);
	}
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- signals ---- */

static void test_runtime_kill_sends_any_signal(void **state)
{
	struct ac_pool *pool;

	(void)state;
	pool = open_runtime(1);
	assert_works(pool);
	assert_int_equal(ac_pool_worker_kill(pool, 0, FIRST_TAG, 0), 0);
	nap(20 * MS);
	assert_works(pool);
	assert_int_equal(seen->count, 1);
	assert_int_equal(ac_pool_worker_kill(pool, 0, FIRST_TAG, SIGTERM), 0);
	assert_ended(pool, FIRST_TAG, SIGTERM, -1);
	assert_works(pool);
	assert_int_equal(ac_pool_worker_kill(pool, 0, FIRST_TAG + 1, SIGKILL), 0);
	assert_ended(pool, FIRST_TAG + 1, SIGKILL, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* Without pidfds signals are ordered from the template, which does not read now. */
static void test_runtime_kill_never_waits(void **state)
{
	struct ac_pool *pool;
	unsigned n = 0;
	int r;

	(void)state;
	ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, ENOSYS);
	pool = open_runtime(1);
	assert_works(pool);
	assert_true(send_signal(seen->result, SIGSTOP));
	while ((r = ac_pool_worker_kill(pool, 0, FIRST_TAG, 0)) == 0)
		assert_true(++n < 1000000);
	assert_int_equal(r, -EAGAIN);
	assert_true(send_signal(seen->result, SIGCONT));
	EVENTUALLY(ac_pool_worker_kill(pool, 0, FIRST_TAG, SIGTERM) == 0);
	assert_ended(pool, FIRST_TAG, SIGTERM, -1);
	assert_works(pool);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- descriptors ---- */

static bool is_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void test_runtime_descriptor_is_readable_at_the_end(void **state)
{
	struct ac_pool *pool;
	int live, late;

	(void)state;
	pool = open_runtime(1);
	live = ac_pool_worker_fd(pool, 0, FIRST_TAG);
	if (live == -ENOSYS) {
		ac_pool_close(pool);
		skip();
	}
	assert_true(live >= 0);
	assert_true(fcntl(live, F_GETFD) & FD_CLOEXEC);
	EVENTUALLY(has_run(FIRST_TAG));
	assert_works(pool);
	assert_false(is_readable(live));
	assert_true(send_signal(start_of(FIRST_TAG)->pid, SIGKILL));
	EVENTUALLY(is_readable(live));
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, LONG, NULL), 0);
	late = ac_pool_worker_fd(pool, 0, FIRST_TAG);
	assert_true(late >= 0);
	assert_true(fcntl(late, F_GETFD) & FD_CLOEXEC);
	assert_true(is_readable(late));
	close(late);
	close(live);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_descriptor_needs_pidfds(void **state)
{
	struct ac_pool *pool;

	(void)state;
	ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, ENOSYS);
	pool = open_runtime(1);
	assert_works(pool);
	assert_int_equal(ac_pool_worker_fd(pool, 0, FIRST_TAG), -ENOSYS);
	/* Signals go by the template. */
	assert_int_equal(ac_pool_worker_kill(pool, 0, FIRST_TAG, SIGTERM), 0);
	assert_ended(pool, FIRST_TAG, SIGTERM, -1);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- no pid is given to another process ---- */

static char state_of(pid_t pid)
{
	char path[32], state = 0;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	fclose(file);
	return state;
}

static void test_runtime_pid_stays_until_its_end_is_taken(void **state)
{
	struct ac_pool *pool;
	pid_t pid;

	(void)state;
	pool = open_runtime(1);
	EVENTUALLY(has_run(FIRST_TAG));
	pid = start_of(FIRST_TAG)->pid;
	assert_true(kill_and_wait(pid));
	nap(100 * MS);
	assert_int_equal(state_of(pid), 'Z');
	assert_int_equal(ac_pool_worker_join(pool, 0, FIRST_TAG, LONG, NULL), 0);
	EVENTUALLY(state_of(pid) != 'Z');
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_runtime_pid_is_given_back_while_the_pool_leaves(void **state)
{
	struct ac_pool *pool;
	pid_t pids[3];

	(void)state;
	pool = open_runtime(3);
	assert_works(pool);
	for (unsigned n = 0; n < 3; n++) {
		EVENTUALLY(has_run(FIRST_TAG + n));
		pids[n] = start_of(FIRST_TAG + n)->pid;
	}
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, LONG), 0);
	for (unsigned n = 0; n < 3; n++)
		EVENTUALLY(state_of(pids[n]) == 0);
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- the template is lost ---- */

/* Which worker takes a call is not ours to say: so there is one. */
static int outlive_template(void *arg)
{
	struct ac_pool *pool = open_runtime_alone(1);
	struct ac_outcome outcome = { 0 };
	uint64_t tag = FIRST_TAG;
	int fd;

	(void)arg;
	SEAT_CHECK(pool && works(pool));
	SEAT_CHECK(kill_parent_of_workers(pool) && works(pool));
	SEAT_CHECK(seen->count == 1);
	SEAT_CHECK(ac_pool_worker_pid(pool, 0, tag) == start_of(tag)->pid);
	SEAT_CHECK(ac_pool_worker_join(pool, 0, tag, 10 * MS, &outcome) == -ETIMEDOUT);
	fd = ac_pool_worker_fd(pool, 0, tag);
	SEAT_CHECK(fd == -ENOSYS || (fd >= 0 && !is_readable(fd)));
	SEAT_CHECK(fd == -ENOSYS || ac_pool_worker_kill(pool, 0, tag, 0) == 0);
	SEAT_CHECK(fd == -ENOSYS || ac_pool_worker_kill(pool, 0, tag, SIGTERM) == 0);
	if (fd == -ENOSYS)
		SEAT_CHECK(send_signal(start_of(tag)->pid, SIGTERM));
	SEAT_CHECK(ac_pool_worker_join(pool, 0, tag, LONG, &outcome) == 0);
	SEAT_CHECK(outcome.status == AC_EDIED && outcome.pid == start_of(tag)->pid);
	SEAT_CHECK(outcome.signal == 0 && outcome.exit_code == -1);
	SEAT_CHECK(fd < 0 || is_readable(fd));
	SEAT_CHECK(ac_pool_worker_kill(pool, 0, tag, 0) == -ESRCH);
	/* The next one is the reserve's. How it ends is known. */
	SEAT_CHECK(works(pool) && seen->count == 2);
	SEAT_CHECK(start_of(tag + 1)->parent != start_of(tag)->parent);
	SEAT_CHECK(ac_pool_worker_kill(pool, 0, tag + 1, SIGTERM) == 0);
	SEAT_CHECK(ac_pool_worker_join(pool, 0, tag + 1, LONG, &outcome) == 0);
	SEAT_CHECK(outcome.signal == SIGTERM);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(seen->before == 1 && seen->after == 1 && seen->strangers == 0);
	return 0;
}

static void test_runtime_workers_outlive_their_template(void **state)
{
	(void)state;
	ALONE(outlive_template, NULL);
}

static pid_t pid_of_reserve(struct ac_pool *pool)
{
	pid_t pid;

	ac__pool_lock(pool);
	pid = pool->workers.template.reserve.pid;
	ac__pool_unlock(pool);
	return pid;
}

static int outlive_both(void *arg)
{
	struct ac_pool *pool = open_runtime_alone(2);
	struct ac_outcome outcome = { 0 };
	unsigned last = 1;

	(void)arg;
	SEAT_CHECK(pool && works(pool));
	SEAT_CHECK(COMES_TRUE(has_run(FIRST_TAG) && has_run(FIRST_TAG + 1), 10));
	SEAT_CHECK(COMES_TRUE(has_reserve(pool), 10));
	SEAT_CHECK(kill_and_wait(pid_of_reserve(pool)) && kill_and_wait(seen->result));
	for (int i = 0; i < 20; i++)
		SEAT_CHECK(works(pool));
	SEAT_CHECK(kill_and_wait(start_of(FIRST_TAG)->pid));
	for (int i = 0; i < 20; i++)
		SEAT_CHECK(works(pool));
	SEAT_CHECK(ac_pool_worker_join(pool, start_of(FIRST_TAG)->worker, FIRST_TAG, LONG,
				       &outcome) == 0);
	SEAT_CHECK(outcome.signal == 0 && outcome.exit_code == -1);
	SEAT_CHECK(kill_and_wait(start_of(FIRST_TAG + last)->pid));
	SEAT_CHECK(ac_pool_call(pool, echo, "", 1, NULL, NULL, &outcome) == AC_ESTART);
	SEAT_CHECK(strstr(outcome.text, "template") && strstr(outcome.text, "signal 9"));
	SEAT_CHECK(ac_pool_worker_join(pool, start_of(FIRST_TAG + 1)->worker, FIRST_TAG + 1, LONG,
				       &outcome) == 0);
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(seen->before == 1 && seen->after == 1 && seen->strangers == 0);
	return 0;
}

static void test_runtime_workers_outlive_template_and_reserve(void **state)
{
	(void)state;
	ALONE(outlive_both, NULL);
}

/* Killed in starting, so before that start is ordered. Another thread notices it meanwhile. */
static pid_t victim;
static _Atomic unsigned dispatches;
static atomic_bool enough;

static void *dispatch_often(void *pool)
{
	while (!enough) {
		ac_pool_dispatch(pool);
		dispatches++;
		nap(MS);
	}
	return NULL;
}

static int lose_in_starting(void *arg, unsigned worker, uint64_t *tag)
{
	if (victim && kill_and_wait(victim)) {
		unsigned before = dispatches;

		victim = 0;
		while (dispatches < before + 5)
			nap(MS);
	}
	return starting(arg, worker, tag);
}

static int lose_template_in_starting(void *arg)
{
	struct ac_runtime own = runtime;
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .runtime = &own };
	struct ac_outcome outcome;
	struct ac_pool *pool = NULL;
	pthread_t threads[2];

	(void)arg;
	seen->owner = getpid();
	own.starting = lose_in_starting;
	SEAT_CHECK(ac_pool_open(&pool, &opts) == 0 && works(pool));
	SEAT_CHECK(COMES_TRUE(has_reserve(pool), 10));
	victim = seen->result;
	for (int i = 0; i < 2; i++)
		SEAT_CHECK(pthread_create(&threads[i], NULL, dispatch_often, pool) == 0);
	SEAT_CHECK(kill_and_wait(start_of(FIRST_TAG)->pid));
	SEAT_CHECK(works(pool) && victim == 0);
	enough = true;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	/* It is the reserve's, which tells how it ends. */
	SEAT_CHECK(seen->count == 2 && start_of(FIRST_TAG + 1)->parent != seen->result);
	SEAT_CHECK(ac_pool_worker_kill(pool, 0, FIRST_TAG + 1, SIGTERM) == 0);
	SEAT_CHECK(ac_pool_worker_join(pool, 0, FIRST_TAG + 1, LONG, &outcome) == 0);
	SEAT_CHECK(outcome.signal == SIGTERM);
	return ac_pool_close(pool);
}

static void test_runtime_template_is_lost_while_a_start_is_prepared(void **state)
{
	(void)state;
	ALONE(lose_template_in_starting, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RUNTIME_TEST(test_runtime_pid_is_that_of_a_live_process),
		RUNTIME_TEST(test_runtime_pid_is_waited_for),
		RUNTIME_TEST(test_runtime_strange_tags_and_pools_are_refused),
		RUNTIME_TEST(test_runtime_join_tells_of_a_signal),
		RUNTIME_TEST(test_runtime_join_tells_of_an_exit_code),
		RUNTIME_TEST(test_runtime_join_works_after_that_of_the_pool),
		RUNTIME_TEST(test_runtime_join_works_after_terminate),
		RUNTIME_TEST(test_runtime_join_tells_of_a_process_that_could_not_be_forked),
		RUNTIME_TEST(test_runtime_join_in_a_thread_beside_calls),
		RUNTIME_TEST(test_runtime_one_earlier_process_is_known),
		RUNTIME_TEST(test_runtime_kill_sends_any_signal),
		RUNTIME_TEST(test_runtime_kill_never_waits),
		RUNTIME_TEST(test_runtime_descriptor_is_readable_at_the_end),
		RUNTIME_TEST(test_runtime_descriptor_needs_pidfds),
		RUNTIME_TEST(test_runtime_pid_stays_until_its_end_is_taken),
		RUNTIME_TEST(test_runtime_pid_is_given_back_while_the_pool_leaves),
		RUNTIME_TEST(test_runtime_workers_outlive_their_template),
		RUNTIME_TEST(test_runtime_workers_outlive_template_and_reserve),
		RUNTIME_TEST(test_runtime_template_is_lost_while_a_start_is_prepared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

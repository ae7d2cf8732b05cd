/* SPDX-License-Identifier: MIT */
/*
 * Calls of several steps of which one is refused by the system: what was done before it is undone.
 * The same call then succeeds, works, and leaves no descriptor behind.
 */
#include "alone_help.h"

#include <poll.h>

/* More of one kind than any call makes. */
#define STEPS 40

static const int errors[] = { ENOMEM, EMFILE, ENOSPC };

/* Refuse the nth system call of a kind while fn runs; *made: whether there was one. */
static int with_refusal(enum ac__sys_call kind, unsigned nth, int (*fn)(void *arg), void *arg,
			bool *made)
{
	int r;

	ac__fault_arm(kind, nth, 1, errors[nth % COUNT(errors)]);
	r = fn(arg);
	*made = ac__fault_calls(kind) >= nth;
	ac__fault_disarm();
	return r;
}

/* try(arg) with each step refused once, then check(arg, its result). */
static int refuse_each(int (*try)(void *arg), int (*check)(void *arg, int r), void *arg)
{
	for (int kind = 0; kind < AC__SYS_CALL_COUNT; kind++) {
		bool made = true;

		for (unsigned nth = 1; made && nth <= STEPS; nth++) {
			int r = with_refusal((enum ac__sys_call)kind, nth, try, arg, &made);

			if (check(arg, r) == 0)
				continue;
			fprintf(stderr, "call %d of kind %d was refused\n", (int)nth, kind);
			return 1;
		}
	}
	return 0;
}

/* ---- opening a pool ---- */

static int try_open(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2 };

	*(struct ac_pool **)arg = NULL;
	return ac_pool_open(arg, &opts);
}

static int check_open(void *arg, int r)
{
	struct ac_pool **pool = arg;

	SEAT_CHECK((r == 0) == (*pool != NULL));
	if (r == 0) {
		SEAT_CHECK(works(*pool));
		SEAT_CHECK(ac_pool_close(*pool) == 0);
	}
	SEAT_CHECK(seats_descriptors() == help_descriptors);
	SEAT_CHECK(!seats_children());
	SEAT_CHECK(try_open(pool) == 0 && works(*pool));
	SEAT_CHECK(ac_pool_close(*pool) == 0);
	SEAT_CHECK(seats_descriptors() == help_descriptors);
	return 0;
}

static int open_halfway(void *arg)
{
	struct ac_pool *pool;

	(void)arg;
	help_descriptors = seats_descriptors();
	return refuse_each(try_open, check_open, &pool);
}

static void test_halfway_open_is_undone(void **state)
{
	(void)state;
	ALONE_FOR(open_halfway, NULL, 45);
}

/* ---- a descriptor for an event loop ---- */

static int stay(struct ac_call *call)
{
	(void)call;
	for (;;)
		pause();
	return 0;
}

static void count_call(void *arg, struct ac_task *task)
{
	(void)task;
	++*(_Atomic unsigned *)arg;
}

/* An event loop has results, callbacks and time limits. */
static int drive(struct ac_pool *pool, int fd)
{
	_Atomic unsigned called = 0;
	struct ac_submit_opts limited = { .size = sizeof limited, .timeout_ns = 100 * MS };
	struct ac_submit_opts noted = { .size = sizeof noted, .done = count_call,
					.done_arg = &called };
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t end = now() + 10 * SECOND;
	struct ac_outcome outcome;
	struct ac_task *task;

	SEAT_CHECK(ac_pool_submit(pool, &task, stay, NULL, 0, &limited) == 0);
	SEAT_CHECK(ac_pool_submit(pool, NULL, echo, NULL, 0, &noted) == 0);
	/* Only its own look would take the end from the loop: so the loop is asked first. */
	while ((!called || ac_task_outcome(task, &outcome) == -EAGAIN) && now() < end)
		if (poll(&p, 1, 1000) > 0)
			SEAT_CHECK(ac_pool_dispatch(pool) >= 0);
	SEAT_CHECK(called == 1);
	SEAT_CHECK(ac_task_outcome(task, &outcome) == 0 && outcome.status == AC_ETIMEOUT);
	ac_task_free(task);
	return 0;
}

struct looped {
	struct ac_pool *pool;
	bool has_thread;
};

static int try_fd(void *arg)
{
	return ac_pool_fd(((struct looped *)arg)->pool);
}

static int reopen_for_loop(struct looped *looped)
{
	looped->pool = open_alone(1);
	SEAT_CHECK(looped->pool && works(looped->pool));
	if (looped->has_thread)
		SEAT_CHECK(ac_pool_submit(looped->pool, NULL, echo, NULL, 0, NULL) == 0);
	return 0;
}

static int check_fd(void *arg, int r)
{
	struct looped *looped = arg;
	int fd = ac_pool_fd(looped->pool);

	SEAT_CHECK(fd >= 0 && (r < 0 || r == fd));
	SEAT_CHECK(ac_pool_fd(looped->pool) == fd);
	SEAT_CHECK(drive(looped->pool, fd) == 0);
	SEAT_CHECK(ac_pool_close(looped->pool) == 0);
	SEAT_CHECK(seats_descriptors() == help_descriptors);
	return reopen_for_loop(looped);
}

/* Refused and not asked again: the pool works without a loop, as before. */
static int check_fd_refused(void *arg, int r)
{
	struct looped *looped = arg;
	struct ac_submit_opts limited = { .size = sizeof limited, .timeout_ns = 100 * MS };
	_Atomic unsigned called = 0;
	struct ac_submit_opts noted = { .size = sizeof noted, .done = count_call,
					.done_arg = &called };

	if (r < 0) {
		SEAT_CHECK(ac_pool_submit(looped->pool, NULL, stay, NULL, 0, &limited) == 0);
		SEAT_CHECK(ac_pool_submit(looped->pool, NULL, echo, NULL, 0, &noted) == 0);
		/* By the library's thread. */
		SEAT_CHECK(COMES_TRUE(called == 1, 10));
		SEAT_CHECK(ac_pool_join(looped->pool, 10 * SECOND) == 0);
	}
	SEAT_CHECK(ac_pool_close(looped->pool) == 0);
	SEAT_CHECK(seats_descriptors() == help_descriptors);
	return reopen_for_loop(looped);
}

static int fd_halfway(void *arg)
{
	struct looped looped = { .has_thread = false };
	int (*check)(void *, int) = *(int (**)(void *, int))arg;

	help_descriptors = seats_descriptors();
	for (int i = 0; i < 2; i++) {
		looped.has_thread = i;
		SEAT_CHECK(reopen_for_loop(&looped) == 0);
		SEAT_CHECK(refuse_each(try_fd, check, &looped) == 0);
		SEAT_CHECK(ac_pool_close(looped.pool) == 0);
	}
	return 0;
}

static void test_halfway_descriptor_is_undone(void **state)
{
	(void)state;
	ALONE_FOR(fd_halfway, &(int (*)(void *, int)){ check_fd }, 45);
}

static void test_halfway_descriptor_refused_changes_nothing(void **state)
{
	(void)state;
	ALONE_FOR(fd_halfway, &(int (*)(void *, int)){ check_fd_refused }, 45);
}

/* ---- opening a stream, submitting ---- */

struct opened {
	struct ac_pool *pool;
	struct ac_stream *stream;
	struct ac_task *task;
};

static int next_five(void *arg, const void **data, size_t *len)
{
	*data = arg;
	*len = sizeof(int);
	return (*(int *)arg)-- > 0;
}

static int five; /* the source's */

static int try_stream(void *arg)
{
	struct opened *o = arg;
	struct ac_stream_opts opts = { .size = sizeof opts, .source = next_five,
				       .source_arg = &five };

	five = 5;
	o->stream = NULL;
	return ac_stream_open(&o->stream, o->pool, echo, &opts);
}

static int check_stream(void *arg, int r)
{
	struct opened *o = arg;
	struct ac_task *task;
	int n = 0;

	SEAT_CHECK((r == 0) == (o->stream != NULL));
	ac_stream_close(o->stream);
	SEAT_CHECK(try_stream(o) == 0);
	for (; ac_stream_next(o->stream, &task, 10 * SECOND) == 1; n++)
		ac_task_free(task);
	SEAT_CHECK(n == 5);
	ac_stream_close(o->stream);
	return 0;
}

static char argument[100000]; /* in a block */

static int try_submit(void *arg)
{
	struct opened *o = arg;

	o->task = NULL;
	return ac_pool_submit(o->pool, &o->task, echo, argument, sizeof argument, NULL);
}

static int has_right_result(struct opened *o)
{
	const void *data;
	size_t len;

	SEAT_CHECK(ac_task_wait(o->task, 10 * SECOND) == 0);
	SEAT_CHECK(ac_task_result(o->task, &data, &len) == 0);
	SEAT_CHECK(len == sizeof argument && memcmp(data, argument, len) == 0);
	ac_task_free(o->task);
	return 0;
}

static int check_submit(void *arg, int r)
{
	struct opened *o = arg;
	struct ac_pool_stat stat;

	SEAT_CHECK((r == 0) == (o->task != NULL));
	if (r == 0)
		SEAT_CHECK(has_right_result(o) == 0);
	SEAT_CHECK(try_submit(o) == 0 && has_right_result(o) == 0);
	SEAT_CHECK(ac_pool_stat(o->pool, &stat, sizeof stat) == 0 && sum_holds(&stat));
	SEAT_CHECK(ac_pool_join(o->pool, 10 * SECOND) == 0);
	/* Each time by a pool that has neither blocks nor a thread yet. */
	SEAT_CHECK(ac_pool_close(o->pool) == 0);
	SEAT_CHECK(seats_descriptors() == help_descriptors);
	o->pool = open_alone(2);
	SEAT_CHECK(o->pool && works(o->pool));
	return 0;
}

static int in_a_pool(int (*try)(void *), int (*check)(void *, int))
{
	struct opened o = { 0 };

	help_descriptors = seats_descriptors();
	fill_bytes((unsigned char *)argument, sizeof argument, 3);
	o.pool = open_alone(2);
	SEAT_CHECK(o.pool && works(o.pool));
	SEAT_CHECK(refuse_each(try, check, &o) == 0);
	SEAT_CHECK(ac_pool_close(o.pool) == 0);
	SEAT_CHECK(seats_descriptors() == help_descriptors);
	return 0;
}

static int stream_halfway(void *arg)
{
	(void)arg;
	return in_a_pool(try_stream, check_stream);
}

static int submit_halfway(void *arg)
{
	(void)arg;
	return in_a_pool(try_submit, check_submit);
}

static void test_halfway_stream_is_undone(void **state)
{
	(void)state;
	ALONE(stream_halfway, NULL);
}

static void test_halfway_submit_is_undone(void **state)
{
	(void)state;
	ALONE_FOR(submit_halfway, NULL, 45);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_halfway_open_is_undone),
		HELP_TEST(test_halfway_descriptor_is_undone),
		HELP_TEST(test_halfway_descriptor_refused_changes_nothing),
		HELP_TEST(test_halfway_stream_is_undone),
		HELP_TEST(test_halfway_submit_is_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

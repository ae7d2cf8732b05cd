/* SPDX-License-Identifier: MIT */
/* Fed streams and divisible calls, by the words of the public header; and, with internal
 * names, cursors that lie. */
#include "pool_help.h"

#include "worker.h"

static struct ac_pool *pool; /* two workers, unless a test opens another */

/* All processes see it. */
static struct {
	_Atomic unsigned runs;
	_Atomic bool go;
	_Atomic uint64_t cursor;	/* what lie() writes */
	_Atomic unsigned units[1000];	/* how often each was begun */
	_Atomic int pids[1000];		/* by whom last */
} *seen;

static void open_with(int workers, unsigned flags)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers, .flags = flags };

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
}

static int set_up(void **state)
{
	help_set_up(state);
	seen = share(sizeof *seen);
	open_with(2, 0);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running;

	ac_pool_close(pool);
	munmap(seen, sizeof *seen);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

static void open_other(int workers, unsigned flags)
{
	assert_int_equal(ac_pool_close(pool), 0);
	open_with(workers, flags);
}

static struct ac_stream *open_fed(ac_call_fn *fn, unsigned retries)
{
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .retries = retries,
				       .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream = NULL;

	assert_int_equal(ac_stream_open(&stream, pool, fn, &opts), 0);
	assert_non_null(stream);
	return stream;
}

static uint64_t push_int(struct ac_stream *stream, int arg, uint32_t units)
{
	uint64_t index = UINT64_MAX;

	assert_int_equal(ac_stream_push(stream, &arg, sizeof arg, units, &index), 0);
	return index;
}

/* The next result's outcome, the task freed; what it returned, up to size. */
static struct ac_outcome take(struct ac_stream *stream, void *result, size_t size)
{
	struct ac_outcome outcome;
	struct ac_task *task = NULL;
	const void *data;
	size_t len;

	assert_int_equal(ac_stream_next(stream, &task, -1), 1);
	assert_int_equal(ac_task_ready(task), 1);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	if (result && outcome.status == 0) {
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		assert_int_equal(len, size);
		memcpy(result, data, len);
	}
	ac_task_free(task);
	return outcome;
}

static int look(struct ac_stream *stream)
{
	struct ac_task *task = NULL;
	int r = ac_stream_next(stream, &task, 0);

	if (r == 1)
		ac_task_free(task);
	return r;
}

static int next_code(struct ac_stream *stream)
{
	struct ac_task *task = NULL;

	return ac_stream_next(stream, &task, 20 * SECOND);
}

/* ---- what workers run ---- */

static int count(struct ac_call *call)
{
	(void)call;
	atomic_fetch_add(&seen->runs, 1);
	return 0;
}

static int wait_for_go(struct ac_call *call)
{
	(void)call;
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return 0;
}

/* Positive: nap so many ms; negative: die by that signal; 0: at once. */
static int nap_or_die(struct ac_call *call)
{
	int arg = *(const int *)ac_call_arg(call, NULL);

	atomic_fetch_add(&seen->runs, 1);
	if (arg < 0)
		die(-arg);
	if (arg)
		nap(arg * MS);
	return 0;
}

struct span {
	unsigned first;
	int ms;		/* for each unit */
	int die_at;	/* in this one, when it has begun for the first time and seen->go
			 * is set; -1: none */
};

/* Units of 1000, from first on. */
static int run_units(struct ac_call *call)
{
	const struct span *span = ac_call_arg(call, NULL);
	unsigned n = 0;

	while (ac_call_next_unit(call) == 1) {
		unsigned unit = span->first + n++;

		seen->pids[unit] = getpid();
		if (++seen->units[unit] == 1 && (int)unit == span->die_at) {
			while (!seen->go)
				nap(MS);
			die(SIGKILL);
		}
		if (span->ms)
			nap(span->ms * MS);
	}
	if (ac_call_next_unit(call) != 0)
		return 1;
	return ac_call_return(call, &n, sizeof n);
}

static void push_span(struct ac_stream *stream, struct span span, uint32_t units)
{
	assert_int_equal(ac_stream_push(stream, &span, sizeof span, units, NULL), 0);
}

static int tell_index(struct ac_call *call)
{
	uint64_t n = *(const int *)ac_call_arg(call, NULL);

	return ac_call_return(call, &n, sizeof n);
}

/* ---- threads of the owner ---- */

struct helper_thread {
	pthread_t thread;
	struct ac_stream *stream;
	int count, code;
	_Atomic bool waits;
};

static void *push_and_end(void *arg)
{
	struct helper_thread *me = arg;

	for (int i = 0; i < me->count && !me->code; i++)
		me->code = ac_stream_push(me->stream, &i, sizeof i, 0, NULL);
	if (!me->code)
		me->code = ac_stream_end(me->stream);
	return NULL;
}

static void *take_all(void *arg)
{
	struct helper_thread *me = arg;
	struct ac_task *task;

	me->waits = true;
	while ((me->code = ac_stream_next(me->stream, &task, -1)) == 1) {
		me->count++;
		ac_task_free(task);
	}
	return NULL;
}

static void start(struct helper_thread *it, void *(*fn)(void *), struct ac_stream *stream)
{
	it->stream = stream;
	assert_int_equal(pthread_create(&it->thread, NULL, fn, it), 0);
}

static void join(struct helper_thread *it)
{
	assert_int_equal(pthread_join(it->thread, NULL), 0);
}

/* ---- pushing and taking ---- */

static void test_feed_gives_what_was_pushed(void **state)
{
	enum { N = 3000 };
	struct ac_stream *stream = open_fed(tell_index, 0);
	bool taken[N] = { false };
	uint64_t result;

	(void)state;
	assert_int_equal(look(stream), -ETIMEDOUT);
	for (int i = 0; i < N; i++)
		assert_int_equal(push_int(stream, i, 0), i);
	for (int i = 0; i < N; i++) {
		struct ac_outcome outcome = take(stream, &result, sizeof result);

		assert_int_equal(outcome.status, 0);
		assert_int_equal(outcome.index, result);
		assert_in_range(result, 0, N - 1);
		assert_false(taken[result]);
		taken[result] = true;
	}
	assert_int_equal(look(stream), -ETIMEDOUT);
	assert_int_equal(push_int(stream, 0, 0), N);
	take(stream, NULL, 0);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0, 0, NULL), AC_ECLOSED);
	assert_int_equal(next_code(stream), 0);
	assert_int_equal(look(stream), 0);
	ac_stream_close(stream);
}

static void test_feed_carries_bytes_of_all_sizes(void **state)
{
	static const size_t lens[] = { 0, 1, 208, 209, 5000, 100000, 3 * MB };
	unsigned char *bytes = malloc(3 * MB);
	struct ac_stream *stream = open_fed(echo, 0);

	(void)state;
	for (unsigned i = 0; i < COUNT(lens); i++) {
		fill_bytes(bytes, lens[i], i);
		assert_int_equal(ac_stream_push(stream, bytes, lens[i], 0, NULL), 0);
	}
	for (unsigned i = 0; i < COUNT(lens); i++) {
		struct ac_outcome outcome;
		struct ac_task *task;
		const void *data;
		size_t len;

		assert_int_equal(ac_stream_next(stream, &task, -1), 1);
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		assert_in_range(outcome.index, 0, COUNT(lens) - 1);
		assert_int_equal(len, lens[outcome.index]);
		fill_bytes(bytes, len, (unsigned)outcome.index);
		assert_memory_equal(data, bytes, len);
		ac_task_free(task);
	}
	ac_stream_close(stream);
	free(bytes);
}

static void test_feed_from_one_thread_to_another(void **state)
{
	struct ac_stream *stream = open_fed(tell_index, 0);
	struct helper_thread pusher = { .count = (int)seats_scaled(100000) };
	bool *taken = calloc((size_t)pusher.count, sizeof *taken);
	uint64_t result;

	(void)state;
	start(&pusher, push_and_end, stream);
	for (int i = 0; i < pusher.count; i++) {
		struct ac_outcome outcome = take(stream, &result, sizeof result);

		assert_int_equal(outcome.status, 0);
		assert_int_equal(outcome.index, result);
		assert_true(result < (uint64_t)pusher.count && !taken[result]);
		taken[result] = true;
	}
	assert_int_equal(next_code(stream), 0);
	join(&pusher);
	assert_int_equal(pusher.code, 0);
	ac_stream_close(stream);
	free(taken);
}

static void test_feed_several_push_and_several_take(void **state)
{
	enum { N = 4, EACH = 2000 };
	struct ac_stream *stream = open_fed(count, 0);
	struct helper_thread takers[N] = { 0 };
	int total = 0;

	(void)state;
	for (int i = 0; i < N; i++)
		start(&takers[i], take_all, stream);
	for (int i = 0; i < N * EACH; i++)
		push_int(stream, i, 0);
	assert_int_equal(ac_stream_end(stream), 0);
	for (int i = 0; i < N; i++) {
		join(&takers[i]);
		assert_int_equal(takers[i].code, 0);
		total += takers[i].count;
	}
	assert_int_equal(total, N * EACH);
	assert_int_equal(seen->runs, N * EACH);
	ac_stream_close(stream);
}

static void test_feed_backlog_before_the_first_next(void **state)
{
	int n = (int)seats_scaled(200000);
	struct ac_stream *stream = open_fed(count, 0);

	(void)state;
	for (int i = 0; i < n; i++)
		assert_int_equal(push_int(stream, i, 0), i);
	assert_int_equal(ac_stream_end(stream), 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	assert_int_equal(next_code(stream), 0);
	assert_int_equal(seen->runs, n);
	ac_stream_close(stream);
}

static void test_feed_many_pass_a_slow_one(void **state)
{
	int n = (int)seats_scaled(100000);
	struct ac_stream *stream = open_fed(nap_or_die, 0);
	struct ac_outcome outcome;

	(void)state;
	/* It sleeps on while all others pass: its worker is killed for it in the end. */
	assert_int_equal(push_int(stream, HANG_SECONDS * 1000, 0), 0);
	for (int i = 1; i <= n; i += 100) {
		for (int j = 0; j < 100; j++)
			push_int(stream, 0, 0);
		for (int j = 0; j < 100; j++)
			assert_true(take(stream, NULL, 0).index > 0);
	}
	assert_int_equal(look(stream), -ETIMEDOUT);
	assert_int_equal(ac_pool_terminate(pool), 0);
	outcome = take(stream, NULL, 0);
	assert_int_equal(outcome.index, 0);
	assert_int_equal(outcome.status, AC_ECANCELED);
	ac_stream_close(stream);
}

static void test_feed_goes_on_while_nobody_takes(void **state)
{
	int how = -SIGKILL;
	struct ac_stream *stream;

	(void)state;
	open_other(1, 0);
	stream = open_fed(nap_or_die, 0);
	/* More than the table of tasks holds, and deaths in between: only if the backlog
	 * is refilled and the dead are replaced do all run. */
	for (int i = 0; i < 6000; i++)
		push_int(stream, i % 2500 ? 0 : how, 0);
	EVENTUALLY(seen->runs == 6000);
	ac_stream_close(stream);
}

/* ---- waiting ---- */

static void test_feed_end_wakes_who_waits(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);
	struct helper_thread takers[2] = { 0 };

	(void)state;
	for (int i = 0; i < 2; i++)
		start(&takers[i], take_all, stream);
	EVENTUALLY(takers[0].waits && takers[1].waits);
	nap(50 * MS); /* asleep by now, most likely; right either way */
	assert_int_equal(ac_stream_end(stream), 0);
	for (int i = 0; i < 2; i++) {
		join(&takers[i]);
		assert_int_equal(takers[i].code, 0);
	}
	ac_stream_close(stream);
}

static void test_feed_end_waits_for_what_is_under_way(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	push_int(stream, 0, 0);
	start(&taker, take_all, stream);
	assert_int_equal(ac_stream_end(stream), 0);
	EVENTUALLY(seen->runs == 1 && taker.waits);
	seen->go = true;
	join(&taker);
	assert_int_equal(taker.code, 0);
	assert_int_equal(taker.count, 1);
	ac_stream_close(stream);
}

static void test_feed_push_wakes_who_waits(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	start(&taker, take_all, stream);
	for (int i = 1; i <= 20; i++) {
		nap((i % 4) * MS);
		push_int(stream, 0, 0);
		EVENTUALLY(seen->runs == (unsigned)i);
	}
	assert_int_equal(ac_stream_end(stream), 0);
	join(&taker);
	assert_int_equal(taker.count, 20);
	ac_stream_close(stream);
}

static void test_feed_keeps_its_time_limit(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	struct ac_task *task = NULL;
	int64_t before = now();

	(void)state;
	assert_int_equal(ac_stream_next(stream, &task, 30 * MS), -ETIMEDOUT);
	push_int(stream, 0, 0);
	assert_int_equal(ac_stream_next(stream, &task, 30 * MS), -ETIMEDOUT);
	assert_true(now() - before >= 60 * MS);
	assert_int_equal(look(stream), -ETIMEDOUT);
	seen->go = true;
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

static void on_signal(int signal)
{
	(void)signal;
}

static void *kick(void *arg)
{
	struct helper_thread *me = arg;

	while (!me->waits) {
		nap(20 * MS);
		pthread_kill(me->thread, SIGUSR1);
	}
	return NULL;
}

static void test_feed_signals_interrupt_when_asked(void **state)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct helper_thread me = { .thread = pthread_self() };
	struct ac_stream *stream;
	struct ac_task *task;
	pthread_t kicker;

	(void)state;
	open_other(2, AC_POOL_INTERRUPTIBLE);
	stream = open_fed(count, 0);
	sigaction(SIGUSR1, &action, NULL);
	assert_int_equal(pthread_create(&kicker, NULL, kick, &me), 0);
	assert_int_equal(ac_stream_next(stream, &task, 20 * SECOND), -EINTR);
	me.waits = true; /* enough */
	assert_int_equal(pthread_join(kicker, NULL), 0);
	push_int(stream, 0, 0);
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

/* ---- ends of the pool ---- */

static void test_feed_shut_wakes_who_waits_in_vain(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	push_int(stream, 0, 0);
	start(&taker, take_all, stream);
	EVENTUALLY(seen->runs == 1 && taker.waits);
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0, 0, NULL), AC_ECLOSED);
	seen->go = true;
	join(&taker);
	assert_int_equal(taker.count, 1);
	assert_int_equal(taker.code, AC_ECLOSED);
	assert_int_equal(ac_stream_end(stream), 0);
	assert_int_equal(next_code(stream), 0);
	ac_stream_close(stream);
	/* With nothing at all under way. */
	open_other(1, 0);
	stream = open_fed(count, 0);
	taker.waits = false;
	start(&taker, take_all, stream);
	EVENTUALLY(taker.waits);
	nap(20 * MS);
	assert_int_equal(ac_pool_shut(pool), 0);
	join(&taker);
	assert_int_equal(taker.code, AC_ECLOSED);
	ac_stream_close(stream);
}

static void test_feed_terminate_ends_all(void **state)
{
	struct ac_stream *stream = open_fed(nap_or_die, 0);
	struct helper_thread taker = { 0 };

	(void)state;
	for (int i = 0; i < 5000; i++)
		push_int(stream, HANG_SECONDS * 1000, 0);
	start(&taker, take_all, stream);
	EVENTUALLY(seen->runs == 2 && taker.waits);
	assert_int_equal(ac_pool_terminate(pool), 0);
	join(&taker);
	assert_int_equal(taker.count, 5000);
	assert_int_equal(taker.code, AC_ECLOSED);
	ac_stream_close(stream);
}

static int refuse(void *arg)
{
	(void)arg;
	nap(50 * MS);
	return 1;
}

static void test_feed_pool_that_does_not_start(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .init = refuse };
	struct ac_stream *stream;

	(void)state;
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	stream = open_fed(count, 0);
	assert_int_equal(next_code(stream), AC_ESTART);
	assert_int_equal(ac_stream_push(stream, NULL, 0, 0, NULL), AC_ESTART);
	ac_stream_close(stream);
}

static void test_feed_close_with_work_under_way(void **state)
{
	struct ac_stream *stream = open_fed(nap_or_die, 0);

	(void)state;
	push_int(stream, 0, 0);
	push_int(stream, 0, 0);
	EVENTUALLY(seen->runs == 2);
	/* Ended and not taken, running, in the table, and in the owner's memory. */
	for (int i = 0; i < 5000; i++)
		push_int(stream, 100, 0);
	EVENTUALLY(seen->runs == 4);
	ac_stream_close(stream);
	ac_stream_close(NULL);
	assert_works(pool);
	assert_true(seen->runs < 10);
}

static void *close_now(void *arg)
{
	ac_stream_close(arg);
	return NULL;
}

static void test_feed_close_beside_another_stream(void **state)
{
	struct ac_stream *left = open_fed(count, 0), *right = open_fed(count, 0);
	int n = (int)seats_scaled(20000);
	pthread_t closer;

	(void)state;
	for (int i = 0; i < n; i++) {
		push_int(left, 0, 0);
		push_int(right, 0, 0);
	}
	assert_int_equal(pthread_create(&closer, NULL, close_now, left), 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(take(right, NULL, 0).status, 0);
	assert_int_equal(pthread_join(closer, NULL), 0);
	ac_stream_close(right);
}

/* ---- deaths ---- */

static void test_feed_death_costs_one_call(void **state)
{
	struct ac_stream *stream = open_fed(nap_or_die, 0);
	unsigned died = 0;

	(void)state;
	for (int i = 0; i < 60; i++)
		push_int(stream, i % 20 == 7 ? -SIGKILL : 0, 0);
	for (int i = 0; i < 60; i++) {
		struct ac_outcome outcome = take(stream, NULL, 0);

		assert_int_equal(outcome.status, outcome.index % 20 == 7 ? AC_EDIED : 0);
		assert_int_equal(outcome.signal, outcome.status ? SIGKILL : 0);
		died += outcome.status == AC_EDIED;
	}
	assert_int_equal(died, 3);
	ac_stream_close(stream);
}

static int die_once(struct ac_call *call)
{
	(void)call;
	if (atomic_fetch_add(&seen->runs, 1) == 0)
		die(SIGKILL);
	return 0;
}

static void test_feed_retries(void **state)
{
	struct ac_stream *stream = open_fed(die_once, 1);

	(void)state;
	push_int(stream, 0, 0);
	assert_int_equal(take(stream, NULL, 0).status, 0);
	assert_int_equal(seen->runs, 2);
	ac_stream_close(stream);
}

/* ---- event loops ---- */

static void test_feed_in_an_event_loop(void **state)
{
	struct ac_stream *stream = open_fed(count, 0);
	int fd = ac_pool_fd(pool), taken = 0, r;

	(void)state;
	assert_true(fd >= 0);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 10; i++)
			push_int(stream, 0, 0);
		while (taken < 10 * (round + 1)) {
			assert_int_equal(ac__sys_poll(fd, ac__sys_deadline(20 * SECOND)), 0);
			assert_true(ac_pool_dispatch(pool) >= 0);
			while ((r = look(stream)) == 1)
				taken++;
			assert_int_equal(r, -ETIMEDOUT);
		}
	}
	ac_stream_close(stream);
}

/* ---- refusals ---- */

static int no_source(void *arg, const void **data, size_t *len)
{
	(void)arg, (void)data, (void)len;
	return 0;
}

static void test_feed_refuses_what_can_not_be(void **state)
{
	struct ac_stream_opts opts = { .size = sizeof opts };
	struct ac_stream *stream = NULL;
	struct ac_task *task;
	uint64_t index;
	uint32_t kept;

	(void)state;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), -EINVAL);
	assert_int_equal(ac_stream_open(&stream, pool, count, NULL), -EINVAL);
	opts.flags = AC_STREAM_UNORDERED;
	opts.ahead = 3;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), -EINVAL);
	opts.ahead = 0;
	opts.ahead_bytes = 3;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), -EINVAL);
	assert_null(stream);
	opts.ahead_bytes = 0;
	opts.source = no_source;
	assert_int_equal(ac_stream_open(&stream, pool, count, &opts), 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0, 0, NULL), -EINVAL);
	assert_int_equal(ac_stream_end(stream), -EINVAL);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), -EINVAL);
	ac_stream_close(stream);
	stream = open_fed(count, 0);
	assert_int_equal(ac_stream_push(NULL, NULL, 0, 0, NULL), -EINVAL);
	assert_int_equal(ac_stream_push(stream, NULL, 1, 0, NULL), -EINVAL);
	assert_int_equal(ac_stream_end(NULL), -EINVAL);
	assert_int_equal(ac_stream_next(stream, NULL, 0), -EINVAL);
	assert_int_equal(ac_stream_next(NULL, &task, 0), -EINVAL);
	assert_int_equal(ac_stream_take_back(stream, NULL, &kept), -EINVAL);
	assert_int_equal(ac_stream_take_back(stream, &index, NULL), -EINVAL);
	assert_int_equal(ac_stream_take_back(NULL, &index, &kept), -EINVAL);
	ac_stream_close(stream);
}

static int use_in_child(void *arg)
{
	struct ac_stream *stream = arg;
	struct ac_task *task;
	uint64_t index;
	uint32_t kept;

	if (ac_stream_push(stream, NULL, 0, 0, NULL) != AC_EFORK ||
	    ac_stream_next(stream, &task, -1) != AC_EFORK ||
	    ac_stream_take_back(stream, &index, &kept) != AC_EFORK ||
	    ac_stream_end(stream) != AC_EFORK)
		return 1;
	ac_stream_close(stream);
	return 0;
}

static void test_feed_in_a_forked_child(void **state)
{
	struct ac_stream *stream = open_fed(wait_for_go, 0);

	(void)state;
	push_int(stream, 0, 0);
	assert_int_equal(seats_in_child(use_in_child, stream, 20), 0);
	seen->go = true;
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

/* ---- units ---- */

static void assert_begun(unsigned first, unsigned last, unsigned times)
{
	for (unsigned i = first; i < last; i++)
		assert_int_equal(seen->units[i], times);
}

static void test_units_each_begins_once(void **state)
{
	static const uint32_t counts[] = { 1, 2, 3, 63, 64, 65, 500 };
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned n = 0;

	(void)state;
	for (unsigned k = 0; k < COUNT(counts); k++) {
		memset(seen, 0, sizeof *seen);
		push_span(stream, (struct span){ .die_at = -1 }, counts[k]);
		assert_int_equal(take(stream, &n, sizeof n).status, 0);
		assert_int_equal(n, counts[k]);
		assert_begun(0, counts[k], 1);
		assert_begun(counts[k], 1000, 0);
	}
	push_span(stream, (struct span){ .die_at = -1 }, 0);
	assert_int_equal(take(stream, &n, sizeof n).status, 0);
	assert_int_equal(n, 0);
	ac_stream_close(stream);
}

/* As many as the argument says, 0: all. */
static int count_units(struct ac_call *call)
{
	uint32_t most = *(const uint32_t *)ac_call_arg(call, NULL), n = 0;

	while ((!most || n < most) && ac_call_next_unit(call))
		n++;
	return ac_call_return(call, &n, sizeof n);
}

static void test_units_as_many_as_were_pushed(void **state)
{
	uint32_t n = 0, counts[] = { 1, 2000000 };
	struct ac_stream *stream = open_fed(count_units, 0);

	(void)state;
	counts[1] = seats_scaled(counts[1]);
	for (unsigned k = 0; k < COUNT(counts); k++) {
		push_int(stream, 0, counts[k]);
		take(stream, &n, sizeof n);
		assert_int_equal(n, counts[k]);
	}
	ac_stream_close(stream);
}

static void test_units_one_may_stop_early(void **state)
{
	struct ac_stream *stream;
	uint32_t n = 0;

	(void)state;
	open_other(1, 0);
	stream = open_fed(count_units, 0);
	/* What it had claimed is not the next one's. */
	for (int i = 1; i < 1000; i += 9) {
		push_int(stream, i, UINT32_MAX);
		push_int(stream, 0, 5);
		for (int k = 0; k < 2; k++) {
			struct ac_outcome outcome = take(stream, &n, sizeof n);

			assert_int_equal(n, outcome.index % 2 ? 5 : i);
		}
	}
	ac_stream_close(stream);
}

static int no_unit(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return ac_call_next_unit(ac_call_current());
}

static void test_units_are_not_in_other_calls(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned n = 99;
	size_t len = sizeof n;
	struct span span = { .die_at = -1 };
	char items[100] = { 0 };

	(void)state;
	/* Slots are used again: what a divisible call left there is not seen. */
	push_span(stream, span, 10);
	take(stream, NULL, 0);
	assert_int_equal(ac_pool_call(pool, run_units, &span, sizeof span, &n, &len, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(ac_pool_map(pool, no_unit, NULL, items, 1, NULL, 0, 100), 0);
	ac_stream_close(stream);
}

/* ---- taking back ---- */

static void test_units_taken_back_are_run_by_the_other_worker(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 0);
	struct ac_outcome outcomes[2];
	unsigned n[2] = { 0 };
	uint64_t index = 99;
	uint32_t kept = 0;

	(void)state;
	push_span(stream, (struct span){ .ms = 10, .die_at = -1 }, 100);
	EVENTUALLY(seen->units[3] == 1);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 1);
	assert_int_equal(index, 0);
	assert_in_range(kept, 4, 99);
	push_span(stream, (struct span){ .first = kept, .ms = 10, .die_at = -1 }, 100 - kept);
	for (int i = 0; i < 2; i++) {
		unsigned counted;
		struct ac_outcome outcome = take(stream, &counted, sizeof counted);

		assert_int_equal(outcome.status, 0);
		outcomes[outcome.index] = outcome;
		n[outcome.index] = counted;
	}
	assert_int_equal(n[0], kept);
	assert_int_equal(n[1], 100 - kept);
	assert_begun(0, 100, 1);
	/* The first is at its last unit for 10 ms: the other worker is free. */
	assert_true(outcomes[0].pid != outcomes[1].pid);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(seen->pids[i], outcomes[i >= kept].pid);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 0);
	ac_stream_close(stream);
}

/* Before its first unit. */
static int begin_late(struct ac_call *call)
{
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return count_units(call);
}

static void test_units_begun_late_keep_one(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0);
	uint64_t index = 99;
	uint32_t kept = 0, n = 0;

	(void)state;
	push_int(stream, 0, 1);
	push_int(stream, 0, 50);
	EVENTUALLY(seen->runs == 2);
	/* Of two calls the one that has something to give. */
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 1);
	assert_int_equal(index, 1);
	assert_int_equal(kept, 1);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 0);
	seen->go = true;
	for (int i = 0; i < 2; i++) {
		take(stream, &n, sizeof n);
		assert_int_equal(n, 1);
	}
	ac_stream_close(stream);
}

static void test_units_of_calls_that_wait_are_left(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0), *other = open_fed(begin_late, 0);
	uint64_t index = 99;
	uint32_t kept = 99, n = 0;

	(void)state;
	/* Two run and can't be divided; one waits, and another stream's, too. */
	push_int(stream, 0, 0);
	push_int(stream, 0, 0);
	EVENTUALLY(seen->runs == 2);
	push_int(stream, 0, 50);
	push_int(other, 0, 60);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 0);
	assert_int_equal(ac_stream_take_back(other, &index, &kept), 0);
	assert_int_equal(index, 99);
	assert_int_equal(kept, 99);
	seen->go = true;
	for (int i = 0; i < 3; i++) {
		struct ac_outcome outcome = take(stream, &n, sizeof n);

		assert_int_equal(n, outcome.index == 2 ? 50 : 0);
	}
	take(other, &n, sizeof n);
	assert_int_equal(n, 60);
	ac_stream_close(stream);
	ac_stream_close(other);
}

static void test_units_of_a_closed_stream_are_nobodys(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0);
	uint64_t index;
	uint32_t kept;

	(void)state;
	push_int(stream, 0, 50);
	EVENTUALLY(seen->runs == 1);
	ac_stream_close(stream);
	stream = open_fed(begin_late, 0); /* where the other was, most likely */
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 0);
	seen->go = true;
	ac_stream_close(stream);
}

static void test_units_most_are_taken_first(void **state)
{
	struct ac_stream *stream = open_fed(begin_late, 0);
	uint64_t index;
	uint32_t kept, n;

	(void)state;
	push_int(stream, 0, 10);
	push_int(stream, 0, 20);
	EVENTUALLY(seen->runs == 2);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 1);
	assert_int_equal(index, 1);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 1);
	assert_int_equal(index, 0);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 0);
	seen->go = true;
	take(stream, &n, sizeof n);
	take(stream, &n, sizeof n);
	ac_stream_close(stream);
}

/* Cut again and again while they run: each unit begins once, whoever has it. */
static void test_units_cut_at_random_begin_once(void **state)
{
	uint64_t seed = seats_seed(), index;
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned firsts[1000] = { 0 }, counts[1000] = { 0 }, calls = 1, done = 0, n;
	uint32_t kept;

	(void)state;
	counts[0] = 300;
	push_span(stream, (struct span){ .ms = 1, .die_at = -1 }, 300);
	while (done < calls) {
		struct ac_outcome outcome;
		struct ac_task *task;
		const void *data;
		size_t len;

		if (ac_stream_take_back(stream, &index, &kept) == 1) {
			assert_true(index < calls && kept > 0 && kept < counts[index]);
			firsts[calls] = firsts[index] + kept;
			counts[calls] = counts[index] - kept;
			counts[index] = kept;
			push_span(stream, (struct span){ .first = firsts[calls], .ms = 1,
							 .die_at = -1 }, counts[calls]);
			calls++;
		}
		if (ac_stream_next(stream, &task,
				   (int64_t)(seats_random(&seed) % 10) * MS) != 1)
			continue;
		assert_int_equal(ac_task_outcome(task, &outcome), 0);
		assert_int_equal(ac_task_result(task, &data, &len), 0);
		memcpy(&n, data, sizeof n);
		assert_int_equal(n, counts[outcome.index]);
		ac_task_free(task);
		done++;
	}
	assert_begun(0, 300, 1);
	assert_begun(300, 1000, 0);
	ac_stream_close(stream);
}

/* It dies in unit die_at, which is cut off behind. */
static uint32_t cut_and_kill(struct ac_stream *stream, int die_at)
{
	uint64_t index = 99;
	uint32_t kept = 0;

	push_span(stream, (struct span){ .die_at = die_at }, 100);
	EVENTUALLY(seen->units[die_at] == 1);
	assert_int_equal(ac_stream_take_back(stream, &index, &kept), 1);
	assert_int_equal(index, 0);
	assert_in_range(kept, die_at + 1, 99);
	seen->go = true;
	return kept;
}

static void test_units_a_death_costs_what_was_kept(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 0);
	unsigned n = 0;
	uint32_t kept;

	(void)state;
	kept = cut_and_kill(stream, 3);
	assert_int_equal(take(stream, NULL, 0).status, AC_EDIED);
	push_span(stream, (struct span){ .first = kept, .die_at = -1 }, 100 - kept);
	assert_int_equal(take(stream, &n, sizeof n).status, 0);
	assert_int_equal(n, 100 - kept);
	assert_begun(0, 4, 1);
	assert_begun(kept, 100, 1);
	ac_stream_close(stream);
}

static void test_units_a_retry_runs_what_was_kept(void **state)
{
	struct ac_stream *stream = open_fed(run_units, 1);
	unsigned n = 0;
	uint32_t kept;

	(void)state;
	kept = cut_and_kill(stream, 3);
	assert_int_equal(take(stream, &n, sizeof n).status, 0);
	assert_int_equal(n, kept);
	assert_begun(0, 4, 2);
	assert_begun(kept, 100, 0);
	ac_stream_close(stream);
}

/* ---- cursors that lie ---- */

static int lie(struct ac_call *call)
{
	atomic_store(&call->task->cursor, seen->cursor);
	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		nap(MS);
	return 0;
}

#define CURSOR(next, end) ((uint64_t)(end) << 32 | (uint32_t)(next))

static void test_units_lying_cursors_are_not_believed(void **state)
{
	/* Of 100 units. What can be true is taken for true. */
	static const struct {
		uint64_t cursor;
		uint32_t kept; /* 0: nothing is taken back */
	} lies[] = {
		{ CURSOR(0, 0), 0 },
		{ CURSOR(0, 99), 0 },
		{ CURSOR(0, 101), 0 },
		{ CURSOR(5, UINT32_MAX), 0 },
		{ CURSOR(UINT32_MAX, UINT32_MAX), 0 },
		{ CURSOR(UINT32_MAX, 100), 0 },
		{ CURSOR(100, 100), 0 },
		{ CURSOR(101, 100), 0 },
		{ CURSOR(100, 0), 0 },
		{ CURSOR(0, 100), 1 },
		{ CURSOR(99, 100), 99 },
	};
	struct ac_stream *stream = open_fed(lie, 0);

	(void)state;
	for (unsigned i = 0; i < COUNT(lies); i++) {
		uint64_t index = 99;
		uint32_t kept = 0;

		memset(seen, 0, sizeof *seen);
		seen->cursor = lies[i].cursor;
		push_int(stream, 0, 100);
		EVENTUALLY(seen->runs == 1);
		assert_int_equal(ac_stream_take_back(stream, &index, &kept), lies[i].kept > 0);
		assert_int_equal(kept, lies[i].kept);
		assert_int_equal(ac_stream_take_back(stream, &index, &kept), 0);
		seen->go = true;
		assert_int_equal(take(stream, NULL, 0).status, 0);
	}
	ac_stream_close(stream);
	assert_works(pool);
}

static int rewrite(struct ac_call *call)
{
	uint64_t seed = 12345;

	atomic_fetch_add(&seen->runs, 1);
	while (!seen->go)
		atomic_store(&call->task->cursor,
			     CURSOR(seats_random(&seed) % 105, 95 + seats_random(&seed) % 10));
	return 0;
}

/* The end only comes nearer, whatever is written there meanwhile. */
static void test_units_cursor_that_changes_all_the_time(void **state)
{
	struct ac_stream *stream = open_fed(rewrite, 0);
	uint32_t kept, before = 100;
	uint64_t index;

	(void)state;
	push_int(stream, 0, 100);
	EVENTUALLY(seen->runs == 1);
	for (int i = 0; i < 2000; i++)
		if (ac_stream_take_back(stream, &index, &kept)) {
			assert_int_equal(index, 0);
			assert_in_range(kept, 1, before - 1);
			before = kept;
		}
	seen->go = true;
	assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_stream_close(stream);
}

#define FEED_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FEED_TEST(test_feed_gives_what_was_pushed),
		FEED_TEST(test_feed_carries_bytes_of_all_sizes),
		FEED_TEST(test_feed_from_one_thread_to_another),
		FEED_TEST(test_feed_several_push_and_several_take),
		FEED_TEST(test_feed_backlog_before_the_first_next),
		FEED_TEST(test_feed_many_pass_a_slow_one),
		FEED_TEST(test_feed_goes_on_while_nobody_takes),
		FEED_TEST(test_feed_end_wakes_who_waits),
		FEED_TEST(test_feed_end_waits_for_what_is_under_way),
		FEED_TEST(test_feed_push_wakes_who_waits),
		FEED_TEST(test_feed_keeps_its_time_limit),
		FEED_TEST(test_feed_signals_interrupt_when_asked),
		FEED_TEST(test_feed_shut_wakes_who_waits_in_vain),
		FEED_TEST(test_feed_terminate_ends_all),
		FEED_TEST(test_feed_pool_that_does_not_start),
		FEED_TEST(test_feed_close_with_work_under_way),
		FEED_TEST(test_feed_close_beside_another_stream),
		FEED_TEST(test_feed_death_costs_one_call),
		FEED_TEST(test_feed_retries),
		FEED_TEST(test_feed_in_an_event_loop),
		FEED_TEST(test_feed_refuses_what_can_not_be),
		FEED_TEST(test_feed_in_a_forked_child),
		FEED_TEST(test_units_each_begins_once),
		FEED_TEST(test_units_as_many_as_were_pushed),
		FEED_TEST(test_units_one_may_stop_early),
		FEED_TEST(test_units_are_not_in_other_calls),
		FEED_TEST(test_units_taken_back_are_run_by_the_other_worker),
		FEED_TEST(test_units_begun_late_keep_one),
		FEED_TEST(test_units_of_calls_that_wait_are_left),
		FEED_TEST(test_units_of_a_closed_stream_are_nobodys),
		FEED_TEST(test_units_most_are_taken_first),
		FEED_TEST(test_units_cut_at_random_begin_once),
		FEED_TEST(test_units_a_death_costs_what_was_kept),
		FEED_TEST(test_units_a_retry_runs_what_was_kept),
		FEED_TEST(test_units_lying_cursors_are_not_believed),
		FEED_TEST(test_units_cursor_that_changes_all_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

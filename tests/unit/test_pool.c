/* SPDX-License-Identifier: MIT */
/*
 * A pool as a whole, by the words of the public header: opening with every
 * option, initialisers, recycling, stopping, interruptions, and a user's fork.
 */
#include "pool_help.h"

/* ---- options ---- */

static int open_with(const struct ac_pool_opts *opts)
{
	struct ac_pool *const none = (struct ac_pool *)&help_descriptors;
	struct ac_pool *pool = none;
	int r = ac_pool_open(&pool, opts);

	if (r < 0) {
		assert_ptr_equal(pool, none); /* set on success only */
		return r;
	}
	assert_int_equal(r, 0);
	assert_works(pool);
	r = ac_pool_workers(pool, NULL, 0);
	assert_int_equal(ac_pool_close(pool), 0);
	return r;
}

static int open_with_workers(int workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers };

	return open_with(&opts);
}

static void test_pool_open_needs_a_place_for_the_pool(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts };

	(void)state;
	assert_int_equal(ac_pool_open(NULL, NULL), -EINVAL);
	assert_int_equal(ac_pool_open(NULL, &opts), -EINVAL);
}

static void test_pool_default_is_a_worker_for_each_processor(void **state)
{
	(void)state;
	assert_int_equal(open_with(NULL), ac_cpus(0));
	assert_int_equal(open_with_workers(0), ac_cpus(0));
}

static void test_pool_number_of_workers_is_obeyed(void **state)
{
	(void)state;
	assert_int_equal(open_with_workers(1), 1);
	assert_int_equal(open_with_workers(5), 5);
	assert_int_equal(open_with_workers(-1), ac_cpus(1));
	assert_int_equal(open_with_workers(-4000), 1);
	assert_int_equal(open_with_workers(-INT_MAX), 1);
	assert_int_equal(open_with_workers(INT_MIN), 1);
}

static void test_pool_workers_beyond_4096_are_refused(void **state)
{
	(void)state;
	assert_int_equal(open_with_workers(4097), -EINVAL);
	assert_int_equal(open_with_workers(1000000), -EINVAL);
	assert_int_equal(open_with_workers(INT_MAX), -EINVAL);
	/* 4096 is not beyond: it gets as far as the system lets it. */
	ac__fault_arm(AC__SYS_SOCKET, 1, UINT32_MAX, EMFILE);
	assert_int_equal(open_with_workers(4096), -EMFILE);
}

static void test_pool_options_may_be_older_or_newer(void **state)
{
	struct {
		struct ac_pool_opts opts;
		char tail[24];
	} newer = { .opts = { .size = sizeof newer, .workers = 3 } };
	struct ac_pool_opts older = { .size = offsetof(struct ac_pool_opts, init),
				      .workers = 3,
				      .flags = ~0u };

	(void)state;
	assert_int_equal(open_with(&newer.opts), 3);
	newer.tail[23] = 1;
	assert_int_equal(open_with(&newer.opts), -E2BIG);
	assert_int_equal(open_with(&older), 3);
	older.size = 0;
	assert_int_equal(open_with(&older), -EINVAL);
	older.size = 1;
	assert_int_equal(open_with(&older), -EINVAL);
}

static void test_pool_options_out_of_range_are_refused(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1 };

	(void)state;
	opts.flags = AC_POOL_GENTLE << 1;
	assert_int_equal(open_with(&opts), -EINVAL);
	opts.flags = ~0u;
	assert_int_equal(open_with(&opts), -EINVAL);
	opts.flags = AC_POOL_INTERRUPTIBLE;
	assert_int_equal(open_with(&opts), 1);
	opts.trace = UINT_MAX;
	assert_true(open_with(&opts) < 0);
	opts.trace = 10000;
	assert_int_equal(open_with(&opts), 1);
}

/* "As a limit: negative is no limit", everywhere. */
static void test_pool_negative_ready_time_is_no_limit(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .ready_ns = -1 };

	(void)state;
	assert_int_equal(open_with(&opts), 1);
	opts.ready_ns = INT64_MAX;
	assert_int_equal(open_with(&opts), 1);
}

/* ---- names ---- */

static void read_comm(pid_t pid, char name[32])
{
	char path[32];
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(fgets(name, 32, file));
	fclose(file);
	name[strcspn(name, "\n")] = '\0';
}

static bool all_ready(struct ac_pool *pool, struct ac_worker_stat *stats, unsigned n)
{
	assert_int_equal(ac_pool_workers(pool, stats, n), n);
	for (unsigned i = 0; i < n; i++)
		if (stats[i].state != AC_WORKER_IDLE)
			return false;
	return true;
}

static void assert_names(struct ac_pool *pool, const char *zero, const char *one)
{
	struct ac_worker_stat stats[2];
	char name[32];

	EVENTUALLY(all_ready(pool, stats, 2));
	read_comm(stats[0].pid, name);
	assert_string_equal(name, zero);
	assert_string_equal(stats[0].name, zero);
	read_comm(stats[1].pid, name);
	assert_string_equal(name, one);
	assert_string_equal(stats[1].name, one);
}

static void test_pool_workers_are_named(void **state)
{
	char name[] = "crunch";
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .name = name };
	struct ac_pool *pool;
	int how = SIGKILL;

	(void)state;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	memset(name, 'x', sizeof name - 1); /* it was copied */
	assert_names(pool, "crunch-0", "crunch-1");
	assert_int_equal(ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL,
				      NULL), AC_EDIED);
	assert_names(pool, "crunch-0", "crunch-1");
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_pool_long_and_missing_names(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2 };
	struct ac_pool *pool;

	(void)state;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_names(pool, "allcores-0", "allcores-1");
	assert_int_equal(ac_pool_close(pool), 0);
	opts.name = "abcdefghijklmnopqrstuvwxyz";
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_names(pool, "abcdefghijklm-0", "abcdefghijklm-1");
	assert_int_equal(ac_pool_close(pool), 0);
}

/* ---- memory ---- */

static int reserve_bytes(struct ac_call *call)
{
	size_t len = *(const size_t *)ac_call_arg(call, NULL);
	bool got = ac_call_reserve(call, len) != NULL;

	return ac_call_return(call, &got, sizeof got);
}

static int tell_sum(struct ac_call *call)
{
	size_t len;
	const unsigned char *arg = ac_call_arg(call, &len);
	unsigned sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += arg[i];
	return ac_call_return(call, &sum, sizeof sum);
}

static int touch_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(char *)result = *(const char *)item;
	return 0;
}

static void test_pool_memory_limit_refuses_and_goes_on(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .memory = 16 * MB };
	size_t big = 64 * MB, len = sizeof(bool);
	struct ac_map_opts map = { .size = sizeof map, .bound_size = big };
	char *data = calloc(1, big), out;
	struct ac_task *tasks[40];
	struct ac_pool_stat stat;
	struct ac_pool *pool;
	bool got = true;

	(void)state;
	map.bound = data;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	assert_int_equal(ac_pool_call(pool, echo, data, big, NULL, NULL, NULL), -ENOMEM);
	assert_int_equal(ac_pool_submit(pool, tasks, echo, data, big, NULL), -ENOMEM);
	assert_int_equal(ac_pool_map(pool, touch_item, NULL, data, big, &out, 1, 1),
			 -ENOMEM);
	assert_int_equal(ac_pool_map(pool, touch_item, &map, data, 1, &out, 1, 1),
			 -ENOMEM);
	assert_int_equal(ac_pool_call(pool, reserve_bytes, &big, sizeof big, &got,
				      &len, NULL), 0);
	assert_false(got);
	/* What waits, waits in the owner's memory: more than the limit is fine. */
	for (unsigned i = 0; i < COUNT(tasks); i++)
		assert_int_equal(ac_pool_submit(pool, &tasks[i], tell_sum,
						data, MB, NULL), 0);
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		assert_int_equal(status_of(tasks[i]), 0);
		ac_task_free(tasks[i]);
	}
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(stat.bytes <= 16 * MB);
	assert_true(sum_holds(&stat) && !stat.waiting && !stat.running);
	assert_works(pool);
	assert_int_equal(ac_pool_close(pool), 0);
	free(data);
}

/* ---- initialisers ---- */

struct init_shared {
	_Atomic unsigned runs;
	unsigned fail_from; /* runs from this one on fail, from 1; 0: none */
	int value;	    /* what a failing one returns; INT_MIN: it kills itself */
	bool sleeps;
	int stagger_ms;	    /* longer by this, of four runs each */
};

static int initialised;

static int init_worker(void *arg)
{
	struct init_shared *shared = arg;
	unsigned run = atomic_fetch_add(&shared->runs, 1) + 1;

	if (shared->sleeps)
		for (;;)
			pause();
	nap((2 + run % 4) * shared->stagger_ms * MS);
	initialised = 4711;
	if (!shared->fail_from || run < shared->fail_from)
		return 0;
	if (shared->value == INT_MIN)
		die(SIGKILL);
	return shared->value;
}

static int tell_initialised(struct ac_call *call)
{
	return ac_call_return(call, &initialised, sizeof initialised);
}

static int check_initialised(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return initialised != 4711;
}

static struct ac_pool *open_with_init(struct init_shared *shared, unsigned workers,
				      int64_t ready_ns)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = (int)workers,
				     .init = init_worker,
				     .init_arg = shared,
				     .ready_ns = ready_ns };
	struct ac_pool *pool;

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	return pool;
}

static void test_pool_init_runs_first_in_every_worker(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	struct ac_pool *pool = open_with_init(shared, 3, 0);
	int value = 0, how = SIGKILL;
	size_t len = sizeof value;

	(void)state;
	for (int i = 0; i < 4; i++) {
		assert_int_equal(ac_pool_call(pool, tell_initialised, NULL, 0,
					      &value, &len, NULL), 0);
		assert_int_equal(value, 4711);
		assert_int_equal(ac_pool_map(pool, check_initialised, NULL, NULL, 0,
					     NULL, 0, 50), 0);
		assert_int_equal(ac_pool_call(pool, die_so, &how, sizeof how, NULL,
					      NULL, NULL), AC_EDIED);
	}
	EVENTUALLY(shared->runs >= 7);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(shared->runs, 7);
	assert_int_equal(initialised, 0);
	munmap(shared, sizeof *shared);
}

static int no_more(void *arg, const void **data, size_t *len)
{
	(void)arg, (void)data, (void)len;
	return 0;
}

/* Every call says AC_ESTART and why. */
static void assert_start_failed(struct ac_pool *pool)
{
	struct ac_stream_opts source = { .size = sizeof source, .source = no_more };
	struct ac_map_opts opts = { .size = sizeof opts };
	struct ac_outcome outcomes[2] = { { 0 } }, failure = { 0 };
	struct ac_stream *stream;
	struct ac_task *task;

	opts.failure = &failure;
	opts.outcomes = outcomes;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ac_pool_map(pool, check_initialised, &opts, NULL, 0,
					     NULL, 0, 2), AC_ESTART);
		memset(&outcomes[0], 0, sizeof outcomes[0]);
		assert_int_equal(ac_pool_call(pool, tell_initialised, NULL, 0, NULL,
					      NULL, &outcomes[0]), AC_ESTART);
	}
	assert_int_equal(ac_pool_submit(pool, &task, echo, NULL, 0, NULL), AC_ESTART);
	assert_int_equal(ac_stream_open(&stream, pool, echo, &source), AC_ESTART);
}

/* The first task: handed in before anybody knew, it ends with the reason. */
static void assert_first_task_says(struct ac_pool *pool, const char *why)
{
	struct ac_task *task;
	struct ac_outcome outcome;
	int r = ac_pool_submit(pool, &task, echo, NULL, 0, NULL);

	assert_int_equal(r, 0);
	assert_int_equal(status_of(task), AC_ESTART);
	assert_int_equal(ac_task_outcome(task, &outcome), 0);
	assert_int_equal(outcome.pid, 0);
	if (!strstr(outcome.text, why))
		fail_msg("\"%s\" does not say \"%s\"", outcome.text, why);
	ac_task_free(task);
}

static void assert_no_more_runs(struct init_shared *shared, unsigned most)
{
	unsigned runs = shared->runs;

	nap(200 * MS);
	assert_int_equal(shared->runs, runs);
	assert_true(runs <= most);
}

static void test_pool_init_that_fails_fails_every_call(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	struct ac_pool *pool;

	(void)state;
	shared->fail_from = 1;
	shared->value = 17;
	pool = open_with_init(shared, 2, 0);
	assert_first_task_says(pool, "17");
	assert_start_failed(pool);
	assert_no_more_runs(shared, 2);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_close(pool), 0);
	munmap(shared, sizeof *shared);
}

/* "Every call then says AC_ESTART": the outcome that is asked for says it, too. */
static void test_pool_init_failure_is_in_the_outcome_of_later_calls(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	struct ac_outcome outcome = { 0 };
	struct ac_pool *pool;

	(void)state;
	shared->fail_from = 1;
	shared->value = -5;
	pool = open_with_init(shared, 1, 0);
	assert_first_task_says(pool, "-5");
	assert_int_equal(ac_pool_call(pool, echo, NULL, 0, NULL, NULL, &outcome),
			 AC_ESTART);
	assert_int_equal(outcome.status, AC_ESTART);
	assert_true(outcome.text[0]);
	assert_int_equal(ac_pool_close(pool), 0);
	munmap(shared, sizeof *shared);
}

static void test_pool_init_that_dies_fails_every_call(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	struct ac_pool *pool;

	(void)state;
	shared->fail_from = 1;
	shared->value = INT_MIN;
	pool = open_with_init(shared, 2, 0);
	assert_first_task_says(pool, "signal 9");
	assert_start_failed(pool);
	assert_no_more_runs(shared, 12);
	assert_int_equal(ac_pool_close(pool), 0);
	munmap(shared, sizeof *shared);
}

/* At each end there is another one on its way, which is no better. */
static void test_pool_init_that_dies_at_different_times(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	struct ac_task *task;
	struct ac_pool *pool;

	(void)state;
	shared->fail_from = 1;
	shared->value = INT_MIN;
	shared->stagger_ms = 1000;
	pool = open_with_init(shared, 4, 0);
	task = submit_int(pool, nap_ms, 0);
	assert_int_equal(ac_task_wait(task, 25 * SECOND), 0);
	assert_int_equal(status_of(task), AC_ESTART);
	ac_task_free(task);
	assert_no_more_runs(shared, 12);
	assert_int_equal(ac_pool_close(pool), 0);
	munmap(shared, sizeof *shared);
}

static void test_pool_init_that_fails_later_ends_what_is_under_way(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	struct ac_pool *pool;
	struct ac_task *task;
	int how = SIGKILL;

	(void)state;
	shared->fail_from = 3;
	shared->value = 1;
	pool = open_with_init(shared, 2, 0);
	assert_works(pool);
	EVENTUALLY(shared->runs == 2);
	task = submit_int(pool, nap_ms, 20000);
	ac_pool_call(pool, die_so, &how, sizeof how, NULL, NULL, NULL);
	assert_int_equal(status_of(task), AC_ESTART);
	ac_task_free(task);
	assert_start_failed(pool);
	assert_int_equal(ac_pool_close(pool), 0);
	munmap(shared, sizeof *shared);
}

static void test_pool_init_that_never_returns_is_given_up(void **state)
{
	struct init_shared *shared = share(sizeof *shared);
	int64_t start = now();
	struct ac_pool *pool;

	(void)state;
	shared->sleeps = true;
	pool = open_with_init(shared, 2, 100 * MS);
	assert_first_task_says(pool, "in time");
	assert_start_failed(pool);
	assert_no_more_runs(shared, 12);
	assert_int_equal(ac_pool_close(pool), 0);
	assert_true(now() - start < 10 * SECOND);
	munmap(shared, sizeof *shared);
}

/* ---- recycling ---- */

#define RECYCLED 120

static int pid_of_item(const void *item, void *result, const void *bound)
{
	(void)item, (void)bound;
	*(pid_t *)result = getpid();
	return 0;
}

static unsigned most_by_one(const pid_t *pids, unsigned n)
{
	unsigned most = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned same = 0;

		assert_true(pids[i] > 0);
		for (unsigned j = 0; j < n; j++)
			same += pids[j] == pids[i];
		most = same > most ? same : most;
	}
	return most;
}

static void recycle_after(unsigned tasks)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .recycle = tasks };
	struct ac_pool_stat stat;
	struct ac_pool *pool;
	pid_t pids[RECYCLED] = { 0 };

	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	for (unsigned i = 0; i < RECYCLED / 4; i++)
		pids[i] = pid_of_worker(pool);
	assert_in_range(most_by_one(pids, RECYCLED / 4), 1, tasks);
	assert_int_equal(ac_pool_map(pool, pid_of_item, NULL, NULL, 0, pids,
				     sizeof *pids, RECYCLED), 0);
	assert_in_range(most_by_one(pids, RECYCLED), 1, tasks);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.deaths, 0); /* they left by our asking */
	assert_int_equal(stat.done, RECYCLED + RECYCLED / 4);
	assert_int_equal(ac_pool_close(pool), 0);
}

static void test_pool_recycles_after_each_task(void **state)
{
	(void)state;
	recycle_after(1);
}

static void test_pool_recycles_after_three_tasks(void **state)
{
	(void)state;
	recycle_after(3);
}

/* ---- what the system refuses ---- */

/* False: fewer than nth calls were made. */
static bool open_with_fault(enum ac__sys_call call, unsigned nth)
{
	struct ac_pool *pool = NULL;
	unsigned descriptors = seats_descriptors();
	int in = 1, r;
	bool hit;

	ac__fault_arm(call, nth, 1, EMFILE);
	r = ac_pool_open(&pool, NULL);
	hit = ac__fault_calls(call) >= nth;
	if (r < 0)
		assert_null(pool);
	else
		r = ac_pool_call(pool, echo, &in, sizeof in, NULL, NULL, NULL);
	ac__fault_disarm();
	assert_int_equal(ac_pool_close(pool), 0);
	if (r != 0 && r != -EMFILE && r != -ENOMEM && r != AC_ESTART)
		fail_msg("call %d, the %uth refused: %s", (int)call, nth,
			 ac_errname(r));
	assert_int_equal(seats_descriptors(), descriptors);
	assert_int_equal(seats_children(), 0);
	return hit;
}

static void test_pool_open_fails_whole_or_works(void **state)
{
	(void)state;
	for (int call = 0; call < AC__SYS_CALL_COUNT; call++)
		for (unsigned nth = 1; nth < 12; nth++)
			if (!open_with_fault((enum ac__sys_call)call, nth))
				break;
}

/* ---- without standard streams ---- */

static int print_and_copy(const void *item, void *result, const void *bound)
{
	(void)bound;
	printf("item %d\n", *(const int *)item);
	*(int *)result = *(const int *)item;
	return fflush(stdout) == 0;	/* there is nowhere to write it to */
}

static int use_pool_without_streams(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2 };
	int items[1000], results[1000] = { 0 };
	struct ac_pool *own;

	(void)arg;
	for (int i = 0; i < 3; i++)
		close(i);
	for (int i = 0; i < 1000; i++)
		items[i] = i;
	if (ac_pool_open(&own, &opts) < 0)
		return 1;
	if (ac_pool_map(own, print_and_copy, NULL, items, sizeof *items, results,
			sizeof *results, 1000) != 0 ||
	    memcmp(items, results, sizeof items))
		return 2;
	return ac_pool_close(own) ? 3 : 0;
}

static void test_pool_without_standard_streams(void **state)
{
	(void)state;
	assert_int_equal(seats_in_child(use_pool_without_streams, NULL, 20), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_pool_open_needs_a_place_for_the_pool),
		HELP_TEST(test_pool_default_is_a_worker_for_each_processor),
		HELP_TEST(test_pool_number_of_workers_is_obeyed),
		HELP_TEST(test_pool_without_standard_streams),
		HELP_TEST(test_pool_workers_beyond_4096_are_refused),
		HELP_TEST(test_pool_options_may_be_older_or_newer),
		HELP_TEST(test_pool_options_out_of_range_are_refused),
		HELP_TEST(test_pool_negative_ready_time_is_no_limit),
		HELP_TEST(test_pool_workers_are_named),
		HELP_TEST(test_pool_long_and_missing_names),
		HELP_TEST(test_pool_memory_limit_refuses_and_goes_on),
		HELP_TEST(test_pool_init_runs_first_in_every_worker),
		HELP_TEST(test_pool_init_that_fails_fails_every_call),
		HELP_TEST(test_pool_init_failure_is_in_the_outcome_of_later_calls),
		HELP_TEST(test_pool_init_that_dies_fails_every_call),
		HELP_TEST(test_pool_init_that_dies_at_different_times),
		HELP_TEST(test_pool_init_that_fails_later_ends_what_is_under_way),
		HELP_TEST(test_pool_init_that_never_returns_is_given_up),
		HELP_TEST(test_pool_recycles_after_each_task),
		HELP_TEST(test_pool_recycles_after_three_tasks),
		HELP_TEST(test_pool_open_fails_whole_or_works),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

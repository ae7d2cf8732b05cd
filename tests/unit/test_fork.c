/* SPDX-License-Identifier: MIT */
/* A user's forks: in the owner, and inside tasks. The child is nobody and harms nobody. */
#include "alone_help.h"

static struct ac_pool *pool; /* two workers */

static int set_up(void **state)
{
	help_set_up(state);
	pool = open_pool(2);
	return 0;
}

static int tear_down(void **state)
{
	struct ac_pool_stat stat;
	bool clean = ac_pool_join(pool, 20 * SECOND) == 0 &&
		     ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat) &&
		     !stat.waiting && !stat.running && stat.deaths == 0;

	ac_pool_close(pool);
	return help_tear_down(state) == 0 && clean ? 0 : -1;
}

/* ---- in the owner ---- */

static int no_more(void *arg, const void **data, size_t *len)
{
	(void)arg, (void)data, (void)len;
	return 0;
}

static int ignore_item(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	return 0;
}

struct handles {
	struct ac_task *ended, *running, *large;
	struct ac_stream *stream;
};

static int refuse_tasks(struct handles *h)
{
	struct ac_outcome outcome;
	const void *data;
	struct ac_task *task;

	SEAT_CHECK(ac_task_wait(h->running, -1) == AC_EFORK);
	SEAT_CHECK(ac_task_ready(h->running) == AC_EFORK);
	SEAT_CHECK(ac_task_cancel(h->running, 1) == AC_EFORK);
	SEAT_CHECK(ac_task_outcome(h->running, &outcome) < 0);
	SEAT_CHECK(ac_task_result(h->running, &data, NULL) < 0);
	SEAT_CHECK(ac_stream_next(h->stream, &task, -1) == AC_EFORK);
	ac_task_free(h->running);
	ac_task_free(h->ended);
	ac_task_free(h->large);
	ac_stream_close(h->stream);
	return 0;
}

static int refuse_everything(void *arg)
{
	struct ac_stream_opts source = { .size = sizeof source, .source = no_more };
	struct ac_pool_stat stat;
	struct ac_worker_stat worker;
	struct ac_trace_event event;
	struct ac_stream *stream;
	struct ac_task *task;

	SEAT_CHECK(ac_pool_submit(pool, &task, echo, NULL, 0, NULL) == AC_EFORK);
	SEAT_CHECK(ac_pool_call(pool, echo, NULL, 0, NULL, NULL, NULL) == AC_EFORK);
	SEAT_CHECK(ac_pool_map(pool, ignore_item, NULL, NULL, 0, NULL, 0, 1) == AC_EFORK);
	SEAT_CHECK(ac_stream_open(&stream, pool, echo, &source) == AC_EFORK);
	SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == AC_EFORK);
	SEAT_CHECK(ac_pool_workers(pool, &worker, 1) == AC_EFORK);
	SEAT_CHECK(ac_pool_trace(pool, &event, sizeof(struct ac_trace_event), 1) == AC_EFORK);
	SEAT_CHECK(ac_pool_shut(pool) == AC_EFORK);
	SEAT_CHECK(ac_pool_terminate(pool) == AC_EFORK);
	SEAT_CHECK(ac_pool_join(pool, -1) == AC_EFORK);
	SEAT_CHECK(ac_pool_fd(pool) == AC_EFORK);
	SEAT_CHECK(ac_pool_dispatch(pool) == AC_EFORK);
	SEAT_CHECK(refuse_tasks(arg) == 0);
	SEAT_CHECK(ac_pool_close(pool) == AC_EFORK);
	return 0;
}

static void test_fork_child_of_the_owner_is_refused(void **state)
{
	struct ac_stream_opts source = { .size = sizeof source, .source = no_more };
	char *bytes = calloc(1, MB);
	struct handles h;

	(void)state;
	h.ended = submit_int(pool, echo, 1);
	assert_int_equal(status_of(h.ended), 0);
	assert_int_equal(ac_pool_submit(pool, &h.large, echo, bytes, MB, NULL), 0);
	assert_int_equal(status_of(h.large), 0);
	assert_int_equal(ac_stream_open(&h.stream, pool, echo, &source), 0);
	for (int i = 0; i < 3; i++) {
		h.running = submit_int(pool, nap_ms, 100);
		assert_int_equal(seats_in_child(refuse_everything, &h, 10), 0);
		/* And nothing has happened here. */
		assert_works(pool);
		assert_int_equal(status_of(h.running), 0);
		ac_task_free(h.running);
	}
	ac_task_free(h.ended);
	ac_task_free(h.large);
	ac_stream_close(h.stream);
	free(bytes);
}

static int do_nothing(void *arg)
{
	(void)arg;
	return 0;
}

static void test_fork_child_that_ends_disturbs_nobody(void **state)
{
	struct ac_task *tasks[200];

	(void)state;
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		tasks[i] = submit_int(pool, echo, (int)i);
		if (i % 10 == 0)
			assert_int_equal(seats_in_child(do_nothing, NULL, 10), 0);
	}
	for (unsigned i = 0; i < COUNT(tasks); i++) {
		assert_int_equal(status_of(tasks[i]), 0);
		ac_task_free(tasks[i]);
	}
}

#define PAGES 64

/* Pages that the task maps lie where the library has had some of its own. */
static int fork_beside_pages(struct ac_call *call)
{
	char *pages[PAGES];
	int status = -1;
	pid_t pid;

	for (unsigned i = 0; i < PAGES; i++) {
		pages[i] = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages[i] == MAP_FAILED)
			return 1;
		*pages[i] = (char)i;
	}
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		for (unsigned i = 0; i < PAGES; i++)
			if (*(volatile char *)pages[i] != (char)i)
				_exit(1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	for (unsigned i = 0; i < PAGES; i++)
		munmap(pages[i], 4096);
	return status ? ac_call_fail(call, "the child ended with status %#x", status) : 0;
}

static void test_fork_child_of_a_task_keeps_the_tasks_memory(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(ac_pool_call(pool, fork_beside_pages, NULL, 0, NULL, NULL, NULL),
				 0);
}

struct large {
	struct ac_task *task;
	char *data;	/* its result, as the owner read it before the fork */
};

/* What the owner had read is the child's own copy. The block may be another task's by the time
 * the child asks for the result. */
static int use_large(void *arg)
{
	const struct large *large = arg;
	const void *data;
	size_t len;

	SEAT_CHECK(ac_task_result(large->task, &data, &len) == AC_EFORK);
	SEAT_CHECK(*large->data == 'r');
	*large->data = 'c';
	return 0;
}

static void test_fork_child_writes_to_no_shared_memory(void **state)
{
	char *bytes = malloc(MB);
	struct large large;
	const void *data;

	(void)state;
	memset(bytes, 'r', MB);
	assert_int_equal(ac_pool_submit(pool, &large.task, echo, bytes, MB, NULL), 0);
	assert_int_equal(status_of(large.task), 0);
	assert_int_equal(ac_task_result(large.task, &data, NULL), 0);
	large.data = (char *)(uintptr_t)data;
	assert_int_equal(seats_in_child(use_large, &large, 10), 0);
	assert_int_equal(ac_task_result(large.task, &data, NULL), 0);
	assert_int_equal(*(const char *)data, 'r');
	ac_task_free(large.task);
	free(bytes);
}

struct results {
	struct ac_task *large, *medium, *small, *failed;
};

/* Shared memory is used again behind a child's back: only what was copied out can be read. */
static int read_results(void *arg)
{
	const struct results *results = arg;
	struct ac_outcome outcome;
	const void *data = NULL;
	size_t len = 0;

	SEAT_CHECK(ac_task_result(results->large, &data, &len) == AC_EFORK);
	SEAT_CHECK(!data && !len);
	SEAT_CHECK(ac_task_result(results->medium, &data, &len) == 0);
	SEAT_CHECK(len == 10000 && *(const char *)data == 'r');
	SEAT_CHECK(ac_task_result(results->small, &data, &len) == 0);
	SEAT_CHECK(len == sizeof(int) && *(const int *)data == 31);
	SEAT_CHECK(ac_task_result(results->failed, &data, &len) == AC_ETASK);
	SEAT_CHECK(ac_task_outcome(results->large, &outcome) == 0 && outcome.status == 0);
	SEAT_CHECK(ac_task_outcome(results->small, &outcome) == 0 && outcome.status == 0);
	SEAT_CHECK(ac_task_outcome(results->failed, &outcome) == 0 && outcome.value == 5);
	SEAT_CHECK(ac_task_ready(results->large) == 1 && ac_task_wait(results->large, 0) == 0);
	ac_task_free(results->large);
	ac_task_free(results->medium);
	ac_task_free(results->small);
	ac_task_free(results->failed);
	return 0;
}

static void test_fork_child_reads_only_results_that_were_copied(void **state)
{
	char *bytes = malloc(MB);
	struct results results;
	const void *data;

	(void)state;
	memset(bytes, 'r', MB);
	assert_int_equal(ac_pool_submit(pool, &results.large, echo, bytes, MB, NULL), 0);
	assert_int_equal(ac_pool_submit(pool, &results.medium, echo, bytes, 10000, NULL), 0);
	results.small = submit_int(pool, echo, 31);
	results.failed = submit_int(pool, fail_with, 5);
	assert_int_equal(status_of(results.large), 0);
	assert_int_equal(status_of(results.medium), 0);
	assert_int_equal(status_of(results.small), 0);
	assert_int_equal(status_of(results.failed), AC_ETASK);
	assert_int_equal(seats_in_child(read_results, &results, 10), 0);
	/* The owner's are its own. */
	assert_int_equal(ac_task_result(results.large, &data, NULL), 0);
	assert_memory_equal(data, bytes, MB);
	ac_task_free(results.large);
	ac_task_free(results.medium);
	ac_task_free(results.small);
	ac_task_free(results.failed);
	free(bytes);
}

static int read_after_close(void *arg)
{
	const void *data;

	SEAT_CHECK(ac_task_result(arg, &data, NULL) == AC_EFORK);
	ac_task_free(arg);
	return 0;
}

/* A handle may outlive its pool; its result is no more the child's for that. */
static void test_fork_child_reads_no_result_of_a_closed_pool(void **state)
{
	struct ac_pool *closed = open_pool(1);
	char *bytes = calloc(1, MB);
	struct ac_task *task;

	(void)state;
	assert_int_equal(ac_pool_submit(closed, &task, echo, bytes, MB, NULL), 0);
	assert_int_equal(status_of(task), 0);
	assert_int_equal(ac_pool_close(closed), 0);
	assert_int_equal(seats_in_child(read_after_close, task, 10), 0);
	ac_task_free(task);
	free(bytes);
}

static int count_open(void *arg)
{
	return seats_descriptors() > *(unsigned *)arg;
}

static void test_fork_child_holds_no_descriptors(void **state)
{
	(void)state;
	assert_works(pool);
	assert_int_equal(seats_in_child(count_open, &help_descriptors, 10), 0);
}

static int use_own_pool(void *arg)
{
	struct ac_pool *own;
	int in = 3, out = 0;
	size_t len = sizeof out;

	(void)arg;
	ac_pool_close(pool);
	SEAT_CHECK(ac_pool_open(&own, NULL) == 0);
	SEAT_CHECK(ac_pool_call(own, echo, &in, sizeof in, &out, &len, NULL) == 0);
	SEAT_CHECK(out == 3);
	SEAT_CHECK(ac_pool_close(own) == 0);
	return 0;
}

static void test_fork_child_may_open_its_own_pool(void **state)
{
	(void)state;
	assert_works(pool);
	assert_int_equal(seats_in_child(use_own_pool, NULL, 20), 0);
	assert_works(pool);
}

/* An owner that is killed while a child of it lives takes its workers along. */
static int die_with_child(void *arg)
{
	pid_t *pids = arg, child;
	struct ac_pool *own;

	if (ac_pool_open(&own, NULL) < 0)
		return 1;
	ac_pool_call(own, tell_pid, NULL, 0, &pids[0], &(size_t){ sizeof *pids }, NULL);
	child = fork();
	if (child == 0) {
		nap(20 * SECOND);
		_exit(0);
	}
	pids[1] = child;
	raise(SIGKILL);
	return 1;
}

static void test_fork_child_keeps_no_worker_alive(void **state)
{
	pid_t *pids = share(2 * sizeof *pids);

	(void)state;
	assert_int_equal(seats_in_child(die_with_child, pids, 20), -SIGKILL);
	assert_true(pids[0] > 0 && pids[1] > 0);
	EVENTUALLY(!is_alive(pids[0]));
	assert_true(is_alive(pids[1]));
	kill(pids[1], SIGKILL);
	EVENTUALLY(!is_alive(pids[1]));
	munmap(pids, 2 * sizeof *pids);
}

/* ---- inside a task ---- */

/* Both return: the child's return must be nothing. */
static int fork_and_return(struct ac_call *call)
{
	pid_t pids[2] = { 0, getpid() };
	bool child_is_first = *(const int *)ac_call_arg(call, NULL);

	fflush(NULL);
	pids[0] = fork();
	if (pids[0] < 0)
		return 1;
	if (child_is_first ? pids[0] > 0 : pids[0] == 0)
		nap(30 * MS);
	return ac_call_return(call, pids, sizeof pids);
}

static void test_fork_inside_a_call_doubles_nothing(void **state)
{
	struct ac_pool_stat stat;
	pid_t pids[2];
	size_t len;

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct ac_outcome outcome;
		int arg = i % 2;

		len = sizeof pids;
		assert_int_equal(ac_pool_call(pool, fork_and_return, &arg, sizeof arg,
					      pids, &len, &outcome), 0);
		assert_int_equal(len, sizeof pids);
		assert_true(pids[0] > 0); /* the worker's own return */
		assert_int_equal(pids[1], outcome.pid);
		EVENTUALLY(!is_alive(pids[0]));
	}
	for (int i = 0; i < 20; i++)
		assert_works(pool);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.done, 40);
	assert_int_equal(stat.failed, 0);
}

static int fork_at_item(const void *item, void *result, const void *bound)
{
	int i = *(const int *)item;
	pid_t *out = result;

	(void)bound;
	if (i % 10 == 3) {
		fflush(NULL);
		*out = fork();
		if (*out == 0 && i % 20 == 3)
			nap(20 * MS);
		return *out < 0;
	}
	*out = getpid();
	return 0;
}

static void test_fork_inside_a_map_doubles_nothing(void **state)
{
	struct ac_pool_stat stat;
	pid_t results[100];
	int items[100];

	(void)state;
	for (int i = 0; i < 100; i++)
		items[i] = i;
	assert_int_equal(ac_pool_map(pool, fork_at_item, NULL, items, sizeof *items,
				     results, sizeof *results, 100), 0);
	for (int i = 0; i < 100; i++) {
		assert_true(results[i] > 0);
		if (i % 10 == 3)
			EVENTUALLY(!is_alive(results[i]));
	}
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_int_equal(stat.done, 100);
}

/* Printed once, by whom it was printed: what is buffered at a fork is not doubled. */
static int print_a_line(struct ac_call *call)
{
	(void)call;
	return fprintf(stdout, "from a worker\n") < 0;
}

static int print_into_file(void *arg)
{
	struct ac_pool *own;

	if (!freopen(arg, "w", stdout))
		return 1;
	setvbuf(stdout, NULL, _IOFBF, 4096);
	printf("before\n");
	SEAT_CHECK(ac_pool_open(&own, NULL) == 0);
	printf("between\n");
	for (int i = 0; i < 10; i++)
		SEAT_CHECK(ac_pool_call(own, print_a_line, NULL, 0, NULL, NULL, NULL) == 0);
	SEAT_CHECK(ac_pool_close(own) == 0);
	fflush(NULL);
	return 0;
}

static void test_fork_of_workers_prints_nothing_twice(void **state)
{
	char path[] = "/tmp/allcores-fork-XXXXXX", line[64];
	unsigned before = 0, between = 0, workers = 0;
	int made = mkstemp(path);
	FILE *file;

	(void)state;
	assert_true(made >= 0);
	close(made);
	assert_int_equal(seats_in_child(print_into_file, path, 20), 0);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof line, file)) {
		before += strcmp(line, "before\n") == 0;
		between += strcmp(line, "between\n") == 0;
		workers += strcmp(line, "from a worker\n") == 0;
	}
	fclose(file);
	unlink(path);
	assert_int_equal(before, 1);
	assert_int_equal(between, 1);
	assert_int_equal(workers, 10);
}

/* ---- opened at once, and losing the process that forks ---- */

static int tell_family(struct ac_call *call)
{
	pid_t pids[2] = { getpid(), getppid() };

	return ac_call_return(call, pids, sizeof pids);
}

enum { OPENERS = 8 };
static pthread_barrier_t line;

static void *open_with_others(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1 };
	struct ac_pool *own;
	size_t len = 2 * sizeof(pid_t);

	pthread_barrier_wait(&line);
	if (ac_pool_open(&own, &opts) < 0)
		return NULL;
	ac_pool_call(own, tell_family, NULL, 0, arg, &len, NULL);
	return own; /* left open: its owner is about to die */
}

static int open_many_and_die(void *arg)
{
	pthread_t threads[OPENERS];

	pthread_barrier_init(&line, NULL, OPENERS);
	for (int i = 0; i < OPENERS; i++)
		SEAT_CHECK(!pthread_create(&threads[i], NULL, open_with_others,
					   (pid_t *)arg + 2 * i));
	for (int i = 0; i < OPENERS; i++)
		pthread_join(threads[i], NULL);
	raise(SIGKILL);
	return 1;
}

/* No pool's processes may hold the sockets of another, whose owner then seems to live. */
static void test_fork_pools_opened_at_once_end_with_their_owner(void **state)
{
	pid_t *pids = share(2 * OPENERS * sizeof *pids);

	(void)state;
	for (int round = 0; round < 40; round++) {
		memset(pids, 0, 2 * OPENERS * sizeof *pids);
		assert_int_equal(seats_in_child(open_many_and_die, pids, 20), -SIGKILL);
		for (int i = 0; i < 2 * OPENERS; i++) {
			assert_true(pids[i] > 1);
			EVENTUALLY(!is_alive(pids[i]));
		}
	}
	munmap(pids, 2 * OPENERS * sizeof *pids);
}

static void test_fork_worker_lost_with_its_parent_is_replaced(void **state)
{
	struct ac_pool *one = open_pool(1);
	size_t len = 2 * sizeof(pid_t);
	pid_t pids[2];

	(void)state;
	assert_int_equal(ac_pool_call(one, tell_family, NULL, 0, pids, &len, NULL), 0);
	assert_true(pids[1] > 1 && pids[1] != getpid());
	EVENTUALLY(has_reserve(one));
	kill(pids[0], SIGKILL);
	EVENTUALLY(!is_alive(pids[0]));
	kill(pids[1], SIGKILL);
	EVENTUALLY(!is_alive(pids[1]));
	assert_works(one);
	assert_int_equal(ac_pool_close(one), 0);
}

#define FORK_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FORK_TEST(test_fork_child_of_the_owner_is_refused),
		FORK_TEST(test_fork_child_that_ends_disturbs_nobody),
		FORK_TEST(test_fork_child_of_a_task_keeps_the_tasks_memory),
		FORK_TEST(test_fork_child_writes_to_no_shared_memory),
		FORK_TEST(test_fork_child_reads_only_results_that_were_copied),
		FORK_TEST(test_fork_child_reads_no_result_of_a_closed_pool),
		FORK_TEST(test_fork_child_holds_no_descriptors),
		FORK_TEST(test_fork_child_may_open_its_own_pool),
		FORK_TEST(test_fork_child_keeps_no_worker_alive),
		FORK_TEST(test_fork_inside_a_call_doubles_nothing),
		FORK_TEST(test_fork_inside_a_map_doubles_nothing),
		FORK_TEST(test_fork_of_workers_prints_nothing_twice),
		FORK_TEST(test_fork_pools_opened_at_once_end_with_their_owner),
		FORK_TEST(test_fork_worker_lost_with_its_parent_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

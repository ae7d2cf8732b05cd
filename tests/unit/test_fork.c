/* SPDX-License-Identifier: MIT */
/* A user's forks: in the owner, and inside tasks. The child is nobody and harms nobody. */
#include "pool_help.h"

#include <sys/stat.h>

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

/* A result that lies in shared memory is the child's own copy of it. */
static int read_large(void *arg)
{
	const void *data;
	size_t len;

	SEAT_CHECK(ac_task_result(arg, &data, &len) == 0);
	SEAT_CHECK(len == MB && *(const char *)data == 'r');
	*(char *)(uintptr_t)data = 'c';
	return 0;
}

static void test_fork_child_writes_to_no_shared_memory(void **state)
{
	char *bytes = malloc(MB);
	struct ac_task *task;
	const void *data;

	(void)state;
	memset(bytes, 'r', MB);
	assert_int_equal(ac_pool_submit(pool, &task, echo, bytes, MB, NULL), 0);
	assert_int_equal(status_of(task), 0);
	assert_int_equal(seats_in_child(read_large, task, 10), 0);
	assert_int_equal(ac_task_result(task, &data, NULL), 0);
	assert_int_equal(*(const char *)data, 'r');
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

/* ---- forked while pools open and close ---- */

static unsigned shared_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	while (maps && fgets(line, sizeof line, maps))
		n += strstr(line, " rw-s ") && strstr(line, "memfd:allcores");
	if (maps)
		fclose(maps);
	return n;
}

static void *open_and_close(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1 };
	atomic_bool *stop = arg;
	struct ac_pool *own;

	for (unsigned i = seats_scaled(300); i; i--)
		if (ac_pool_open(&own, &opts) == 0)
			ac_pool_close(own);
	atomic_store(stop, true);
	return NULL;
}

static int fork_until(atomic_bool *stop)
{
	unsigned forks = 0, holders = 0;

	while (!atomic_load(stop)) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(seats_descriptors() > help_descriptors || shared_mappings());
		waitpid(pid, &status, 0);
		holders += status != 0;
		forks++;
	}
	if (holders)
		fprintf(stderr, "%u of %u children hold something\n", holders, forks);
	return holders || !forks;
}

static void test_fork_child_holds_nothing_of_pools_that_open_or_close(void **state)
{
	atomic_bool stop = false;
	pthread_t thread;

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it cannot follow a fork from a program with threads */
#endif
	assert_int_equal(pthread_create(&thread, NULL, open_and_close, &stop), 0);
	assert_int_equal(fork_until(&stop), 0);
	pthread_join(thread, NULL);
}

/* ---- what is buffered when workers are forked ---- */

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
static int open_beside(void *fn)
{
	FILE *file = open_ten_bytes(), *out = tmpfile();
	struct ac_pool *own;
	int input[2];
	long written;

	SEAT_CHECK(file && out && pipe(input) == 0);
	dup2(input[0], 0);
	dup2(fileno(out), 1);
	setvbuf(stdout, NULL, _IOFBF, 4096);
	printf("twelve bytes");
	start_and_wait(*(void *(**)(void *))fn);
	SEAT_CHECK(ac_pool_open(&own, NULL) == 0);
	SEAT_CHECK(ac_pool_call(own, print_a_line, NULL, 0, NULL, NULL, NULL) == 0);
	SEAT_CHECK(ac_pool_close(own) == 0);
	SEAT_CHECK(close_and_count(file) == 10);
	atomic_store(&lock_step, 2);
	written = close_and_count(stdout);
	SEAT_CHECK(written == 12 + 14);
	return 0;
}

static void test_fork_of_workers_while_stdout_is_locked(void **state)
{
	void *(*fn)(void *) = hold_stdout;

	(void)state;
	assert_int_equal(seats_in_child(open_beside, &fn, 10), 0);
}

static void test_fork_of_workers_while_stdin_is_read(void **state)
{
	void *(*fn)(void *) = read_stdin;

	(void)state;
	assert_int_equal(seats_in_child(open_beside, &fn, 10), 0);
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
		FORK_TEST(test_fork_child_writes_to_no_shared_memory),
		FORK_TEST(test_fork_child_holds_no_descriptors),
		FORK_TEST(test_fork_child_holds_nothing_of_pools_that_open_or_close),
		FORK_TEST(test_fork_child_may_open_its_own_pool),
		FORK_TEST(test_fork_child_keeps_no_worker_alive),
		FORK_TEST(test_fork_inside_a_call_doubles_nothing),
		FORK_TEST(test_fork_inside_a_map_doubles_nothing),
		FORK_TEST(test_fork_of_workers_prints_nothing_twice),
		FORK_TEST(test_fork_of_workers_while_stdout_is_locked),
		FORK_TEST(test_fork_of_workers_while_stdin_is_read),
		FORK_TEST(test_fork_pools_opened_at_once_end_with_their_owner),
		FORK_TEST(test_fork_worker_lost_with_its_parent_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Work that must go on, whichever thread happens to be there for it: a program that does nothing but
 * poll, a callback that waits, an event loop, a caller that has just copied a long argument.
 */
#include "copies_help.h"

#include <poll.h>

static int reopen_with(int workers)
{
	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(open_with(workers) == 0);
	return 0;
}

/* ---- a program that does nothing but poll ---- */

#define POLLED 60 /* more than one worker's slots */

static int give_long(void *arg, const void **data, size_t *len)
{
	unsigned *given = arg;

	*data = gate.memory;
	*len = SIZE;
	seen->go = ++*given >= POLLED;
	return *given <= POLLED;
}

static int poll_a_source(void)
{
	unsigned given = 0, taken = 0;
	struct ac_stream_opts opts = { .size = sizeof opts, .source = give_long,
				       .source_arg = &given };
	int64_t end = now() + 10 * SECOND;
	struct ac_stream *stream;

	SEAT_CHECK(reopen_with(1) == 0);
	SEAT_CHECK(ac_stream_open(&stream, pool, wait_for_go, &opts) == 0);
	while (taken < POLLED && now() < end) {
		struct ac_task *task;
		int r = ac_stream_next(stream, &task, 0);

		SEAT_CHECK(r == 1 || r == -ETIMEDOUT);
		if (r == 1) {
			taken++;
			ac_task_free(task);
		} else {
			nap(MS);
		}
	}
	SEAT_CHECK(taken == POLLED);
	ac_stream_close(stream);
	return 0;
}

static void test_stalls_no_source_that_is_polled(void **state)
{
	(void)state;
	RUN(poll_a_source);
}

/* ---- a caller that copies while all that is out ends ---- */

static int end_all_during_a_copy(void)
{
	struct ac_pool_stat stat;
	struct copier copier;

	for (int i = 0; i < 32; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, wait_for_go, NULL, 0, NULL) == 0);
	SEAT_CHECK(start_copier(&copier, submit_gated) == 0);
	seen->go = true;
	SEAT_CHECK(COMES_TRUE(ac_pool_stat(pool, &stat, sizeof stat) == 0 &&
				      stat.waiting + stat.running == 0,
			      10));
	nap(2500 * MS); /* the library's thread has no more reason to wake by itself */
	SEAT_CHECK(finish_copier(&copier) == 0);
	SEAT_CHECK(COMES_TRUE(seen->run == 1, 5));
	return is_right(&copier);
}

static void test_stalls_no_call_whose_argument_was_copied_meanwhile(void **state)
{
	(void)state;
	RUN(end_all_during_a_copy);
}

/* ---- callbacks that wait ---- */

#define WAITED_FOR 50

static _Atomic int waited; /* 1: the callback got all that it waited for */

static bool wait_in_slices(struct ac_task *task)
{
	int64_t end = now() + 5 * SECOND;
	int r;

	do
		r = ac_task_wait(task, 10 * MS);
	while (r == -ETIMEDOUT && now() < end);
	return r == 0;
}

static void submit_long_and_wait(void *arg, struct ac_task *task)
{
	struct ac_task *tasks[WAITED_FOR];
	bool right = true;

	(void)arg, (void)task;
	for (int i = 0; i < WAITED_FOR; i++)
		right &= ac_pool_submit(pool, &tasks[i], wait_for_go, gate.memory, SIZE,
					NULL) == 0;
	seen->go = true;
	for (int i = 0; right && i < WAITED_FOR; i++)
		right &= wait_in_slices(tasks[i]);
	for (int i = 0; right && i < WAITED_FOR; i++)
		ac_task_free(tasks[i]);
	waited = right ? 1 : -1;
}

static int wait_in_a_callback(void)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = submit_long_and_wait };

	SEAT_CHECK(ac_pool_submit(pool, NULL, echo, NULL, 0, &opts) == 0);
	SEAT_CHECK(COMES_TRUE(waited, 15));
	SEAT_CHECK(waited == 1);
	return 0;
}

static void test_stalls_no_callback_that_waits_in_slices(void **state)
{
	(void)state;
	RUN(wait_in_a_callback);
}

static int nap_and_fill(const void *item, void *result, const void *bound)
{
	(void)item, (void)bound;
	nap(20 * MS);
	memset(result, 5, 2 * PAGE);
	return 0;
}

static void submit_and_wait(void *arg, size_t ended, size_t count)
{
	struct ac_task *task;

	(void)arg, (void)count;
	if (ended < 24 || waited)
		return;
	waited = ac_pool_submit(pool, &task, echo, NULL, 0, NULL) == 0 &&
				 wait_in_slices(task) ?
			 1 :
			 -1;
	ac_task_free(task);
}

/* While the callback runs, pieces of the map end and wait for their results to be copied. */
static int wait_in_progress(void)
{
	struct ac_map_opts opts = { .size = sizeof opts, .chunk = 1,
				    .progress = submit_and_wait };
	char items[100] = { 0 }, *results = malloc(100 * 2 * PAGE);

	SEAT_CHECK(results && reopen_with(4) == 0);
	SEAT_CHECK(ac_pool_map(pool, nap_and_fill, &opts, items, 1, results, 2 * PAGE, 100) == 0);
	SEAT_CHECK(waited == 1);
	free(results);
	return 0;
}

static void test_stalls_no_progress_callback_that_waits(void **state)
{
	(void)state;
	RUN(wait_in_progress);
}

/* ---- event loops ---- */

static bool is_readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

static int count_and_wait(struct ac_call *call)
{
	(void)call;
	seen->run++;
	while (seen->run < 100)
		nap(MS);
	return 0;
}

/* Both workers get something to do, although one dispatch has seen all results so far. */
static int dispatch_a_queue(void)
{
	int fd = ac_pool_fd(pool);

	SEAT_CHECK(fd >= 0);
	for (int i = 0; i < 32; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, wait_for_go, NULL, 0, NULL) == 0);
	for (int i = 0; i < 4; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, count_and_wait, gate.memory, SIZE,
					  NULL) == 0);
	seen->go = true;
	SEAT_CHECK(is_readable(fd, 10000));
	nap(200 * MS);
	/* Until it has nothing to do. */
	do
		SEAT_CHECK(ac_pool_dispatch(pool) >= 0);
	while (is_readable(fd, 200));
	SEAT_CHECK(COMES_TRUE(seen->run == 2, 5));
	seen->run = 100;
	return 0;
}

static void test_stalls_no_worker_of_an_event_loop(void **state)
{
	(void)state;
	RUN(dispatch_a_queue);
}

static _Atomic unsigned called;

static int64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

/* No thread of this process works, for half a second. */
static bool all_sleep(void)
{
	int64_t before = cpu_time();

	nap(500 * MS);
	return cpu_time() - before < 100 * MS;
}

static void wait_for_go_in_owner(void *arg, struct ac_task *task)
{
	(void)arg, (void)task;
	called++;
	while (!seen->go)
		nap(MS);
}

static int join_pool(struct copier *joiner)
{
	(void)joiner;
	return ac_pool_join(pool, 5 * SECOND);
}

/* An event loop begins while the library's thread is in a callback and others are due. No dispatch
 * comes, so the thread that joins runs them. */
static int join_after_the_thread(void)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = wait_for_go_in_owner };
	struct copier joiner = { .copy = join_pool };

	for (int i = 0; i < 3; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, echo, NULL, 0, &opts) == 0);
	SEAT_CHECK(COMES_TRUE(called == 1, 10));
	SEAT_CHECK(ac_pool_fd(pool) >= 0);
	SEAT_CHECK(pthread_create(&joiner.thread, NULL, run_copier, &joiner) == 0);
	nap(300 * MS);
	SEAT_CHECK(all_sleep());
	seen->go = true;
	pthread_join(joiner.thread, NULL);
	SEAT_CHECK(joiner.result == 0 && called == 3);
	return 0;
}

static void test_stalls_no_join_when_the_thread_leaves_callbacks(void **state)
{
	(void)state;
	RUN(join_after_the_thread);
}

static int take_from_stream(struct copier *taker)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream;
	struct ac_task *task;
	int r = ac_stream_open(&stream, pool, echo, &opts);

	(void)taker;
	if (r < 0)
		return r;
	gate.reached = true;
	r = ac_stream_next(stream, &task, -1);
	ac_stream_close(stream);
	return r;
}

static void count_callback(void *arg, struct ac_task *task)
{
	(void)arg, (void)task;
	called++;
}

#define CANCELLED 8

/* Another thread sleeps for all, and the loop is told all the same: at once, not when that thread
 * wakes for some other reason, once a second. */
static int cancel_while_another_collects(void)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .done = count_callback };
	struct ac_task *tasks[CANCELLED];
	struct copier taker;
	int fd = ac_pool_fd(pool);
	int64_t start, waited_ns = 0;

	for (int i = 0; i < 2; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, wait_for_go, NULL, 0, NULL) == 0);
	for (int i = 0; i < CANCELLED; i++)
		SEAT_CHECK(ac_pool_submit(pool, &tasks[i], echo, NULL, 0, &opts) == 0);
	SEAT_CHECK(start_copier(&taker, take_from_stream) == 0);
	for (int i = 0; i < CANCELLED; i++) {
		nap(300 * MS);
		start = now();
		SEAT_CHECK(ac_task_cancel(tasks[i], 0) == 0);
		while (called <= (unsigned)i)
			SEAT_CHECK(is_readable(fd, 10000) && ac_pool_dispatch(pool) >= 0);
		waited_ns += now() - start;
		ac_task_free(tasks[i]);
	}
	SEAT_CHECK(waited_ns < CANCELLED * SECOND / 3);
	seen->go = true;
	SEAT_CHECK(ac_pool_shut(pool) == 0);
	SEAT_CHECK(finish_copier(&taker) == 0);
	return 0;
}

static void test_stalls_no_callback_while_another_thread_collects(void **state)
{
	(void)state;
	RUN(cancel_while_another_collects);
}

/* ---- threads that should sleep ---- */

static int serve(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;

	if (ac_worker_open(&worker, fd) < 0 || ac_worker_ready(worker, 0, NULL) < 0)
		return 1;
	while (ac_worker_take(worker, &call) == 1)
		ac_worker_done(worker, call, ac_call_run(call));
	return 0;
}

/* Once told to refuse, the third refusal comes when the gate is opened. */
static pid_t start_or_refuse(void *arg, unsigned worker, int fd)
{
	static unsigned refused;
	pid_t pid;

	(void)arg, (void)worker;
	if (!seen->refuse) {
		pid = fork();
		if (pid == 0)
			_exit(serve(fd));
		return pid;
	}
	if (++refused < 3)
		return -EPERM;
	gate.reached = true;
	while (!gate.open)
		nap(MS);
	return -EPERM;
}

/* The library's thread starts a worker meanwhile. What it learns must not make it try again. */
static int terminate_during_a_start(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2,
				     .start = start_or_refuse };
	struct ac_worker_stat workers[2];

	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(ac_pool_open(&pool, &opts) == 0);
	SEAT_CHECK(COMES_TRUE(ac_pool_workers(pool, workers, 2) == 2 &&
				      workers[0].state == AC_WORKER_IDLE &&
				      workers[1].state == AC_WORKER_IDLE,
			      10));
	SEAT_CHECK(ac_pool_submit(pool, NULL, echo, NULL, 0, NULL) == 0);
	nap(200 * MS);
	gate.reached = gate.open = false;
	seen->refuse = true;
	kill(workers[0].pid, SIGKILL);
	SEAT_CHECK(COMES_TRUE(gate.reached, 10));
	SEAT_CHECK(ac_pool_terminate(pool) == 0);
	gate.open = true;
	nap(2500 * MS);
	SEAT_CHECK(all_sleep());
	return 0;
}

static void test_stalls_no_sleep_after_a_start_that_failed_too_late(void **state)
{
	(void)state;
	RUN(terminate_during_a_start);
}

/* ---- work that waits for memory ---- */

static char bytes[2 * MB];

/* One call holds half of the memory until it is told to go. */
static int open_half_full(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2, .memory = 2 * MB };

	SEAT_CHECK(ac_pool_close(pool) == 0);
	SEAT_CHECK(ac_pool_open(&pool, &opts) == 0);
	SEAT_CHECK(ac_pool_submit(pool, NULL, wait_for_go, bytes, MB, NULL) == 0);
	return 0;
}

static int count_run(struct ac_call *call)
{
	(void)call;
	seen->run++;
	return 0;
}

/* All of the memory is wanted by one, and the next would do with the other half. */
static int wait_for_memory_in_turn(void)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream;
	struct ac_task *large, *small;

	SEAT_CHECK(open_half_full() == 0);
	SEAT_CHECK(ac_stream_open(&stream, pool, count_run, &opts) == 0);
	SEAT_CHECK(ac_stream_push(stream, bytes, sizeof bytes, NULL, NULL) == 0);
	SEAT_CHECK(ac_pool_submit(pool, &small, count_run, bytes, MB / 2, NULL) == 0);
	nap(300 * MS);
	SEAT_CHECK(seen->run == 0);
	seen->go = true;
	SEAT_CHECK(ac_stream_next(stream, &large, 10 * SECOND) == 1);
	SEAT_CHECK(ac_task_wait(small, 10 * SECOND) == 0);
	SEAT_CHECK(seen->run == 2);
	ac_task_free(large);
	ac_task_free(small);
	ac_stream_close(stream);
	return 0;
}

static void test_stalls_no_call_that_waits_for_much_memory(void **state)
{
	(void)state;
	RUN(wait_for_memory_in_turn);
}

static int map_large(struct copier *copier)
{
	(void)copier;
	gate.reached = true;
	return ac_pool_map(pool, check_item, NULL, bytes, sizeof bytes, NULL, 0, 1);
}

static int map_what_waits_for_memory(void)
{
	struct copier copier;

	SEAT_CHECK(open_half_full() == 0);
	SEAT_CHECK(start_copier(&copier, map_large) == 0);
	nap(300 * MS);
	seen->go = true;
	SEAT_CHECK(finish_copier(&copier) == 0);
	SEAT_CHECK(copier.result == 0);
	return 0;
}

static void test_stalls_map_waits_for_memory_that_calls_have(void **state)
{
	(void)state;
	RUN(map_what_waits_for_memory);
}

/* ---- the end of a fed stream ---- */

static struct ac_stream *fed;

static int push_into_fed(struct copier *copier)
{
	(void)copier;
	return ac_stream_push(fed, gate.memory, SIZE, NULL, NULL);
}

static int take_from_fed(struct copier *taker)
{
	int r = ac_stream_next(fed, &taker->task, 10 * SECOND);

	return r == 1 ? 0 : r == 0 ? 1 : r;
}

/* What was being pushed is refused, or comes before the end. */
static int end_during_a_push(void)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct copier pusher, taker = { .copy = take_from_fed };

	SEAT_CHECK(ac_stream_open(&fed, pool, check_bytes, &opts) == 0);
	SEAT_CHECK(start_copier(&pusher, push_into_fed) == 0);
	SEAT_CHECK(ac_stream_end(fed) == 0);
	SEAT_CHECK(pthread_create(&taker.thread, NULL, run_copier, &taker) == 0);
	nap(200 * MS);
	SEAT_CHECK(finish_copier(&pusher) == 0);
	SEAT_CHECK(finish_copier(&taker) == 0);
	SEAT_CHECK(pusher.result == 0 ? taker.result == 0 :
					pusher.result == AC_ECLOSED && taker.result == 1);
	ac_task_free(taker.task);
	ac_stream_close(fed);
	return 0;
}

static void test_stalls_push_is_not_lost_behind_the_end(void **state)
{
	(void)state;
	RUN(end_during_a_push);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_stalls_no_source_that_is_polled),
		HELP_TEST(test_stalls_no_call_whose_argument_was_copied_meanwhile),
		HELP_TEST(test_stalls_no_callback_that_waits_in_slices),
		HELP_TEST(test_stalls_no_progress_callback_that_waits),
		HELP_TEST(test_stalls_no_worker_of_an_event_loop),
		HELP_TEST(test_stalls_no_join_when_the_thread_leaves_callbacks),
		HELP_TEST(test_stalls_no_callback_while_another_thread_collects),
		HELP_TEST(test_stalls_no_sleep_after_a_start_that_failed_too_late),
		HELP_TEST(test_stalls_no_call_that_waits_for_much_memory),
		HELP_TEST(test_stalls_map_waits_for_memory_that_calls_have),
		HELP_TEST(test_stalls_push_is_not_lost_behind_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Copies that last as long as a test wants, of arguments and results.
 *
 * A copy lasts as long as the test wants, on any machine: the memory that is copied has a
 * page that can not be touched, and the thread that comes there waits in the handler
 * of the signal until the test opens the gate.
 */
#ifndef AC_TEST_COPIES_HELP_H
#define AC_TEST_COPIES_HELP_H

#include "alone_help.h"

#define PAGE ((size_t)65536) /* at least a page, on any system */
#define SIZE (4 * PAGE)

static struct ac_pool *pool; /* two workers, unless a test opens another */

/* All processes see it. */
static struct {
	_Atomic bool go, refuse;
	_Atomic unsigned run;
} *seen;

/* ---- a gate in memory ---- */

static struct {
	char *memory;		/* SIZE bytes of the test's own */
	char *at;		/* the PAGE that can not be touched */
	_Atomic bool reached, open;
	_Atomic unsigned passed;
} gate;

/* Only what may be called in a handler. */
static inline void wait_at_gate(int signal, siginfo_t *info, void *context)
{
	struct timespec t = { 0, MS };
	char *at = info->si_addr;

	(void)context;
	if (at < gate.at || at >= gate.at + PAGE) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		sigaction(signal, &dfl, NULL);
		return; /* and crash there */
	}
	gate.reached = true;
	while (!gate.open)
		nanosleep(&t, NULL);
	mprotect(gate.at, PAGE, PROT_READ | PROT_WRITE);
	gate.passed++;
}

/* memory: SIZE bytes; the gate is the first whole page in it that is not its first byte's. */
static inline void shut_gate(char *memory)
{
	gate.reached = gate.open = false;
	gate.at = memory + PAGE + (-(uintptr_t)memory & (PAGE - 1));
	if (mprotect(gate.at, PAGE, PROT_NONE) != 0)
		abort();
}

static inline int make_gate(void)
{
	struct sigaction action = { .sa_sigaction = wait_at_gate, .sa_flags = SA_SIGINFO };

	memset(&gate, 0, sizeof gate);
	gate.memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (gate.memory == MAP_FAILED)
		return -1;
	fill_bytes((unsigned char *)gate.memory, SIZE, 7);
	return sigaction(SIGSEGV, &action, NULL);
}

/* ---- fixtures: each test in a child, since a crash or a hang is what is tested for ---- */

static inline int refuse_if_told(void *arg)
{
	(void)arg;
	return seen->refuse;
}

static inline int open_with(int workers)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = workers,
				     .init = refuse_if_told };

	return ac_pool_open(&pool, &opts);
}

/* As many ended as were handed in, and nothing is lost. */
static inline int check_counts(void)
{
	struct ac_pool_stat stat;

	SEAT_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0);
	SEAT_CHECK(stat.submitted == stat.done + stat.failed + stat.cancelled);
	SEAT_CHECK(stat.waiting == 0 && stat.running == 0);
	return 0;
}

static inline int run_with_pool(void *arg)
{
	int (*test)(void) = *(int (**)(void))arg;

	seen = share(sizeof *seen);
	SEAT_CHECK(make_gate() == 0);
	SEAT_CHECK(open_with(2) == 0 && works(pool));
	SEAT_CHECK(test() == 0);
	if (pool) {
		SEAT_CHECK(ac_pool_join(pool, 10 * SECOND) == 0);
		SEAT_CHECK(check_counts() == 0);
		SEAT_CHECK(ac_pool_close(pool) == 0);
	}
	return 0;
}

#define RUN(test) ALONE(run_with_pool, &(int (*)(void)){ test })

/* ---- what copies ---- */

static inline int check_bytes(struct ac_call *call)
{
	size_t len;
	const unsigned char *arg = ac_call_arg(call, &len);

	seen->run++;
	for (size_t i = 0; len == SIZE && i < len; i += 4093)
		if (arg[i] != (unsigned char)((i ^ i >> 8 ^ i >> 16) * 31 + 7))
			return 1;
	return len != SIZE;
}

static inline int check_item(const void *item, void *result, const void *bound)
{
	(void)item, (void)result, (void)bound;
	seen->run++;
	return 0;
}

static inline int fill_result(const void *item, void *result, const void *bound)
{
	(void)item, (void)bound;
	memset(result, 5, PAGE);
	seen->run++;
	return 0;
}

static inline int wait_for_go(struct ac_call *call)
{
	(void)call;
	while (!seen->go)
		nap(MS);
	return 0;
}

struct copier {
	pthread_t thread;
	int (*copy)(struct copier *copier);
	struct ac_task *task;
	_Atomic bool returned;
	int result;
};

static inline int submit_gated(struct copier *copier)
{
	return ac_pool_submit(pool, &copier->task, check_bytes, gate.memory, SIZE, NULL);
}

static inline int call_gated(struct copier *copier)
{
	(void)copier;
	return ac_pool_call(pool, check_bytes, gate.memory, SIZE, NULL, NULL, NULL);
}

static inline int push_gated(struct copier *copier)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct ac_stream *stream;
	struct ac_task *task;
	int r = ac_stream_open(&stream, pool, check_bytes, &opts);

	(void)copier;
	if (r < 0)
		return r;
	r = ac_stream_push(stream, gate.memory, SIZE, NULL, NULL);
	if (r == 0 && ac_stream_next(stream, &task, -1) == 1) {
		struct ac_outcome outcome;

		ac_task_outcome(task, &outcome);
		r = outcome.status;
		ac_task_free(task);
	}
	ac_stream_close(stream);
	return r;
}

static inline int map_gated_bound(struct copier *copier)
{
	struct ac_map_opts opts = { .size = sizeof opts, .bound = gate.memory,
				    .bound_size = SIZE };
	char items[20] = { 0 };

	(void)copier;
	return ac_pool_map(pool, check_item, &opts, items, 1, NULL, 0, 1);
}

/* All items in one chunk. */
static inline int map_gated_items(struct copier *copier)
{
	struct ac_map_opts opts = { .size = sizeof opts, .chunk = SIZE / PAGE };

	(void)copier;
	return ac_pool_map(pool, check_item, &opts, gate.memory, PAGE, NULL, 0, SIZE / PAGE);
}

static inline int map_gated_results(struct copier *copier)
{
	struct ac_map_opts opts = { .size = sizeof opts, .chunk = SIZE / PAGE };
	char items[SIZE / PAGE] = { 0 };

	(void)copier;
	return ac_pool_map(pool, fill_result, &opts, items, 1, gate.memory, PAGE,
			   SIZE / PAGE);
}

static inline int take_gated_result(struct copier *copier)
{
	size_t len = SIZE;
	char *bytes = calloc(1, SIZE);
	int r = ac_pool_call(pool, echo, bytes, SIZE, gate.memory, &len, NULL);

	(void)copier;
	free(bytes);
	return r;
}

static inline void *run_copier(void *arg)
{
	struct copier *copier = arg;

	copier->result = copier->copy(copier);
	copier->returned = true;
	return NULL;
}

/* Returns once the copy has come to the gate. */
static inline int start_copier(struct copier *copier, int (*copy)(struct copier *))
{
	memset(copier, 0, sizeof *copier);
	copier->copy = copy;
	shut_gate(gate.memory);
	SEAT_CHECK(pthread_create(&copier->thread, NULL, run_copier, copier) == 0);
	SEAT_CHECK(COMES_TRUE(gate.reached, 10));
	return 0;
}

static inline int finish_copier(struct copier *copier)
{
	gate.open = true;
	SEAT_CHECK(COMES_TRUE(copier->returned, 10));
	pthread_join(copier->thread, NULL);
	return 0;
}

static inline int is_right(struct copier *copier)
{
	SEAT_CHECK(copier->result == 0);
	if (!copier->task)
		return 0;
	SEAT_CHECK(ac_task_wait(copier->task, 10 * SECOND) == 0);
	SEAT_CHECK(ac_task_result(copier->task, &(const void *){ NULL }, NULL) == 0);
	ac_task_free(copier->task);
	return 0;
}

/* Both workers wait, and more is handed in than slots can take. */
static inline int fill_slots(void)
{
	for (int i = 0; i < 2; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, wait_for_go, NULL, 0, NULL) == 0);
	for (int i = 0; i < 5000; i++)
		SEAT_CHECK(ac_pool_submit(pool, NULL, echo, &i, sizeof i, NULL) == 0);
	return 0;
}

#endif

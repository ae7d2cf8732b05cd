/* SPDX-License-Identifier: MIT */
/*
 * Each kind of system call is made to fail, its first time, its second and so on, while
 * a pool is opened, used and closed: an error or a slower way that works, never a
 * crash, a hang, a wrong result or anything left behind. Template and workers
 * inherit what is armed, so there too the n-th call fails. And the whole
 * workout on systems that lack memfd, eventfd, pidfd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "sys.h"
#include "worker.h"

#define WORKERS 2
#define ITEMS 100
#define CALLS 12
#define BYTES 9000
/* In template and workers nobody sees whether a call was left to fail. */
#define AT_LEAST 6
#define AT_MOST 400

static const char *const names[] = {
#define NAME(call) #call,
	AC__SYS_CALLS(NAME)
#undef NAME
};

/* ---- the workout ---- */

static int add_item(const void *item, void *result, const void *bound)
{
	*(uint64_t *)result = *(const uint64_t *)item + *(const uint64_t *)bound;
	return 0;
}

static int flip_call(struct ac_call *call)
{
	size_t len;
	const unsigned char *from = ac_call_arg(call, &len);
	unsigned char *to = ac_call_reserve(call, len);

	if (!to)
		return ac_call_fail(call, "no memory");
	for (size_t i = 0; i < len; i++)
		to[i] = from[i] ^ 0xff;
	return 0;
}

/* A code, and none that a caller would not expect. */
static int is_code(int r)
{
	return r < 0 && (r > -4096 || (r <= AC_ETASK && r >= AC_EVERSION));
}

static int run_map(struct ac_pool *pool)
{
	uint64_t items[ITEMS], results[ITEMS], bound[200] = { 1000 };
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = bound,
				    .bound_size = sizeof bound };
	int r;

	for (uint64_t i = 0; i < ITEMS; i++)
		items[i] = i;
	r = ac_pool_map(pool, add_item, &opts, items, sizeof *items, results,
			sizeof *results, ITEMS);
	CHECK(r == 0 || is_code(r));
	for (uint64_t i = 0; r == 0 && i < ITEMS; i++)
		CHECK_EQ(results[i], i + 1000);
	return r;
}

static void count_callback(void *arg, struct ac_task *task)
{
	CHECK_EQ(ac_task_ready(task), 1);
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static int check_call(struct ac_task *task, unsigned char byte)
{
	struct ac_outcome outcome;
	const unsigned char *bytes;
	const void *data;
	size_t len;

	CHECK_EQ(ac_task_wait(task, 10 * SECOND), 0);
	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	CHECK(outcome.status == 0 || is_code(outcome.status));
	if (outcome.status)
		return outcome.status;
	CHECK_EQ(ac_task_result(task, &data, &len), 0);
	CHECK_EQ(len, BYTES);
	bytes = data;
	for (unsigned i = 0; i < BYTES; i++)
		CHECK_EQ(bytes[i], byte ^ 0xff);
	return 0;
}

static int run_calls(struct ac_pool *pool)
{
	_Atomic unsigned called = 0;
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .done = count_callback,
				       .done_arg = &called,
				       .timeout_ns = 20 * SECOND };
	struct ac_task *tasks[CALLS];
	unsigned char bytes[BYTES];
	unsigned n = 0;
	int r = 0, first = 0;

	for (n = 0; n < CALLS && r == 0; n++) {
		memset(bytes, (int)n, sizeof bytes);
		r = ac_pool_submit(pool, &tasks[n], flip_call, bytes,
				   sizeof bytes, n % 2 ? &opts : NULL);
	}
	CHECK(r == 0 || is_code(r));
	n -= r != 0;
	first = r;
	for (unsigned i = 0; i < n; i++) {
		r = check_call(tasks[i], (unsigned char)i);
		first = first ? first : r;
		ac_task_free(tasks[i]);
	}
	CHECK_EQ(ac_pool_join(pool, 10 * SECOND), 0);
	CHECK_EQ(called, n / 2);
	return first;
}

/* So that starting a replacement is part of it. */
static void kill_idle(struct ac_pool *pool)
{
	struct ac_worker_stat stats[WORKERS];

	ac_pool_workers(pool, stats, WORKERS);
	if (stats[0].state != AC_WORKER_IDLE || stats[0].pid <= 0)
		return;
	kill(stats[0].pid, SIGKILL);
	crash_await_death(stats[0].pid, SECOND);
}

/* 0, or the first code met. */
static int work_out(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .ready_ns = 3 * SECOND };
	struct ac_pool_stat stat;
	struct ac_pool *pool = NULL;
	int r = ac_pool_open(&pool, &opts), later;

	CHECK(r == 0 || is_code(r));
	CHECK_EQ(r == 0, pool != NULL);
	if (r < 0)
		return r;
	r = run_map(pool);
	kill_idle(pool);
	later = run_calls(pool);
	crash_check_sum(pool, &stat);
	CHECK_EQ(ac_pool_close(pool), 0);
	return r ? r : later;
}

/* ---- one after the other ---- */

struct kind {
	enum ac__sys_call call;
	int err;
	bool lacking;
	enum ac__sys_call lack; /* what fails always, so that call is made */
};

#define KIND(call, err) { AC__SYS_##call, err, false, 0 }
#define KIND_WITHOUT(lack, call, err) \
	{ AC__SYS_##call, err, true, AC__SYS_##lack }

static void arm(const struct kind *kind, unsigned n, unsigned times)
{
	if (kind->lacking)
		ac__fault_arm(kind->lack, 1, UINT32_MAX, ENOSYS);
	ac__fault_arm(kind->call, n, times, kind->err);
}

static void fail_each(void *arg)
{
	const struct kind *kind = arg;
	unsigned n, failed = 0, calls = 0;
	struct crash_print before;
	int64_t start, longest = 0;

	/* Once without: what the C library sets up stays. */
	CHECK_EQ(work_out(), 0);
	crash_print_take(&before);
	for (n = 1; n <= AT_MOST && (n <= AT_LEAST || calls >= n - 1); n++) {
		crash_at("%s fails the %u. time", names[kind->call], n);
		start = crash_now();
		arm(kind, n, 1);
		failed += work_out() != 0;
		calls = ac__fault_calls(kind->call);
		ac__fault_disarm();
		longest = AC__MAX(longest, crash_now() - start);
		crash_print_check(&before);
	}
	CHECK_EQ(work_out(), 0);
	crash_note("%s: %u runs, %u with an error, %u calls in a run, longest %lld ms",
		   names[kind->call], n - 1, failed, calls,
		   (long long)(longest / MS));
}

static void fail_always(void *arg)
{
	const struct kind *kind = arg;
	struct crash_print before;
	int r;

	CHECK_EQ(work_out(), 0);
	crash_print_take(&before);
	arm(kind, 1, UINT32_MAX);
	r = work_out();
	ac__fault_disarm();
	crash_print_check(&before);
	crash_note("%s: %s", names[kind->call], r ? ac_errname(r) : "works");
}

/* ---- systems that lack something ---- */

static pid_t adopted[64];
static unsigned adopted_count;

__attribute__((noreturn)) static void be_adopted(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;

	if (ac_worker_open(&worker, fd) < 0 || ac_worker_ready(worker, 0, NULL) < 0)
		_exit(1);
	while (ac_worker_take(worker, &call) == 1)
		ac_worker_done(worker, call, ac_call_run(call));
	ac_worker_close(worker);
	_exit(0);
}

static pid_t start_adopted(void *arg, unsigned number, int fd)
{
	pid_t pid = fork();

	(void)arg;
	(void)number;
	if (pid == 0)
		be_adopted(fd);
	adopted[adopted_count++] = pid;
	return pid;
}

static void kill_one(struct ac_pool *pool)
{
	struct ac_worker_stat stats[WORKERS];

	CHECK(crash_await_workers(pool, 5 * SECOND));
	ac_pool_workers(pool, stats, WORKERS);
	kill(stats[0].pid, SIGKILL);
	CHECK_EQ(run_map(pool), 0);
	CHECK(crash_await_workers(pool, 5 * SECOND));
}

static void live_without(bool adopt)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .start = adopt ? start_adopted : NULL };
	struct ac_pool_stat stat;
	struct ac_pool *pool;

	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK_EQ(run_map(pool), 0);
	CHECK_EQ(run_calls(pool), 0);
	kill_one(pool);
	CHECK_EQ(run_calls(pool), 0);
	crash_check_usable(pool);
	crash_check_sum(pool, &stat);
	CHECK_EQ(stat.failed, 0);
	crash_check_blocks(pool, 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	while (adopted_count)
		CHECK(waitpid(adopted[--adopted_count], NULL, 0) > 0);
}

struct lack {
	bool memfd, eventfd, pidfd, adopt;
	int err;
};

static void do_without(void *arg)
{
	const struct lack *lack = arg;
	struct crash_print before;

	if (lack->memfd)
		ac__fault_arm(AC__SYS_MEMFD, 1, UINT32_MAX, lack->err);
	if (lack->eventfd)
		ac__fault_arm(AC__SYS_EVENTFD, 1, UINT32_MAX, lack->err);
	if (lack->pidfd)
		ac__fault_arm(AC__SYS_PIDFD, 1, UINT32_MAX, lack->err);
	live_without(lack->adopt);
	crash_print_take(&before);
	live_without(lack->adopt);
	crash_print_check(&before);
}

/* The template dies, and the ends of its workers' sockets can't be watched: what they
 * hold must come to an end all the same. */
static int nap_call(struct ac_call *call)
{
	(void)call;
	crash_sleep(300 * MS);
	return 0;
}

static void lose_watch(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };
	struct ac_worker_stat stats[WORKERS];
	struct ac_task *tasks[WORKERS];
	struct ac_pool *pool;

	(void)arg;
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	ac_pool_workers(pool, stats, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		CHECK_EQ(ac_pool_submit(pool, &tasks[i], nap_call, NULL, 0,
					NULL), 0);
	ac__fault_arm(AC__SYS_EPOLL_ADD, 1, UINT32_MAX, ENOSPC);
	kill(crash_template(getpid()), SIGKILL);
	crash_sleep(100 * MS);
	for (unsigned i = 0; i < WORKERS; i++)
		kill(stats[i].pid, SIGKILL);
	for (unsigned i = 0; i < WORKERS; i++) {
		CHECK_EQ(ac_task_wait(tasks[i], 3 * SECOND), 0);
		ac_task_free(tasks[i]);
	}
	CHECK_EQ(ac_pool_close(pool), 0);
}

static void run_kinds(const struct kind *kinds, unsigned n,
		      void (*fn)(void *arg), const char *how, unsigned seconds)
{
	char name[64];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "%s fails %s (%s)",
			 names[kinds[i].call], how, ac_errname(-kinds[i].err));
		crash_case(name, fn, (void *)&kinds[i], seconds);
	}
}

int main(int argc, char **argv)
{
	static const struct kind kinds[] = {
		KIND(MEMFD, EMFILE), KIND(MEMFD, EPERM), KIND(RESIZE, ENOSPC),
		KIND(SEAL, EINVAL), KIND_WITHOUT(MEMFD, TMPFILE, EACCES),
		KIND_WITHOUT(MEMFD, PREALLOCATE, ENOSPC), KIND(MAP, ENOMEM),
		KIND(EVENTFD, EMFILE), KIND(EVENTFD, ENOSYS),
		KIND_WITHOUT(EVENTFD, PIPE, EMFILE), KIND(EPOLL, EMFILE),
		KIND(EPOLL_ADD, ENOSPC), KIND(SOCKET, EMFILE),
		KIND(SEND, ENOBUFS), KIND(RECEIVE, ENOMEM), KIND(FORK, EAGAIN),
		KIND(LIFELINE, EPERM), KIND(THREAD, EAGAIN), KIND(MALLOC, ENOMEM),
	};
	static const struct lack memfd = { .memfd = true, .err = ENOSYS },
				 eventfd = { .eventfd = true, .err = EPERM },
				 pidfd = { .pidfd = true, .adopt = true,
					   .err = ENOSYS },
				 none = { .adopt = true },
				 all = { true, true, true, false, EPERM },
				 all_adopted = { true, true, true, true, ENOSYS };
	unsigned n = sizeof kinds / sizeof *kinds;

	crash_begin(argc, argv);
	run_kinds(kinds, n, fail_each, "once", 20);
	run_kinds(kinds, n, fail_always, "always", 20);
	crash_case("workers can't be watched", lose_watch, NULL, 10);
	crash_case("no memfd", do_without, (void *)&memfd, 10);
	crash_case("no eventfd", do_without, (void *)&eventfd, 10);
	crash_case("adopted workers", do_without, (void *)&none, 10);
	crash_case("adopted workers, no pidfd", do_without, (void *)&pidfd, 10);
	crash_case("no memfd, eventfd, pidfd", do_without, (void *)&all, 10);
	crash_case("no memfd, eventfd, pidfd, adopted workers", do_without,
		   (void *)&all_adopted, 10);
	return crash_end();
}

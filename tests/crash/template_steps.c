/* SPDX-License-Identifier: MIT */
/*
 * The template is killed at one instruction after another of its life, and at each of its
 * system calls: born, starting the pool's workers, forking its reserve, reporting a death, forking
 * the replacement, leaving with the last. Its owner has work under way all the while: it
 * comes to its end with every call delivered once, and nothing is left. Where the owner knew of a
 * reserve the pool goes on as if nothing had been. Where it did not the workers that are there do the
 * work, or the pool says that it can't go on.
 *
 * Owner and workers run meanwhile: see sweep.h on merging. Quick: one place of each set;
 * "full" as the first argument: each place.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "engine.h"
#include "sweep.h"

#define WORKERS 2
#define CALLS 6
#define BLOCK 4096
#define WAIT (10 * SECOND)
/* All that an owner does takes some milliseconds, with a template lost or not. */
#define DONE_NS (5 * SECOND)

struct plan {
	bool init;	/* workers take a while to become ready */
	unsigned recycle; /* and are replaced after so many calls */
};

static struct ac_pool *pool;
static pid_t owner;
static int go[2];
static int64_t killed_at, longest; /* until the owner had done all, and was gone */
static struct {
	unsigned lost, failed;	/* runs: without a template in the end; that could not go on */
} *ends; /* shared with owners */
static bool had_reserve, is_lost, has_failed; /* the owner's */

static const struct plan *plan(void)
{
	return sweep_current->arg;
}

/* ---- the owner ---- */

static int some_call(struct ac_call *call)
{
	size_t len;
	const void *arg = ac_call_arg(call, &len);

	return ac_call_return(call, arg, len);
}

static int slow_init(void *arg)
{
	(void)arg;
	crash_sleep(MS);
	return 0;
}

static void open_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .recycle = plan()->recycle,
				     .init = plan()->init ? slow_init : NULL };

	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK(ac_pool_fd(pool) >= 0);
}

/* A call that the pool does not take, or that fails. */
static void check_failure(int status, const char *text)
{
	CHECK_EQ(status, AC_ESTART);
	CHECK(is_lost);
	CHECK(!text || strstr(text, "template"));
	has_failed = true;
}

static void note_template(void)
{
	ac__pool_lock(pool);
	had_reserve |= pool->workers.template.reserve.socket >= 0;
	is_lost = pool->workers.template_lost;
	ac__pool_unlock(pool);
	CHECK(!is_lost || !had_reserve);
}

static void check_call(struct ac_task *task, unsigned char byte)
{
	struct ac_outcome outcome;
	const unsigned char *bytes;
	const void *data;
	size_t len;

	CHECK_EQ(ac_task_wait(task, WAIT), 0);
	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	note_template();
	if (outcome.status) {
		check_failure(outcome.status, outcome.text);
		ac_task_free(task);
		return;
	}
	CHECK_EQ(ac_task_result(task, &data, &len), 0);
	CHECK_EQ(len, BLOCK);
	bytes = data;
	for (unsigned i = 0; i < BLOCK; i++)
		CHECK_EQ(bytes[i], byte);
	ac_task_free(task);
}

static bool is_starting(void)
{
	bool starting;

	ac__pool_lock(pool);
	starting = pool->workers.starting;
	ac__pool_unlock(pool);
	return starting;
}

/* All workers, or where there is no template those that are left. */
static void await_workers(void)
{
	int64_t end = crash_now() + WAIT;

	for (;;) {
		bool ready = crash_await_workers(pool, 0);

		note_template();
		if (ready || (is_lost && !is_starting()))
			return;
		CHECK(crash_now() < end);
	}
}

/* Some of them in the hand of the worker that is killed. */
static void run_calls(bool kill_one)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .retries = 2 };
	struct ac_worker_stat stats[WORKERS];
	unsigned char bytes[BLOCK];
	struct ac_task *tasks[CALLS];
	int r[CALLS];

	for (unsigned i = 0; i < CALLS; i++) {
		memset(bytes, (int)i + 1, sizeof bytes);
		r[i] = ac_pool_submit(pool, &tasks[i], some_call, bytes, sizeof bytes, &opts);
		note_template();
		if (r[i])
			check_failure(r[i], NULL);
	}
	CHECK_EQ(ac_pool_workers(pool, stats, WORKERS), WORKERS);
	if (kill_one && stats[0].pid > 0)
		kill(stats[0].pid, SIGKILL);
	for (unsigned i = 0; i < CALLS; i++)
		if (r[i] == 0)
			check_call(tasks[i], (unsigned char)(i + 1));
}

__attribute__((noreturn)) static void be_owner(void)
{
	struct crash_print before;
	struct ac_pool_stat stat;
	char byte;

	close(go[1]);
	CHECK_EQ(read(go[0], &byte, 1), 1);
	crash_print_take(&before);
	open_pool();
	await_workers();
	run_calls(true);
	run_calls(false);
	await_workers();
	if (!plan()->recycle && !has_failed)
		crash_check_usable(pool);
	crash_check_sum(pool, &stat);
	CHECK(stat.failed == 0 || has_failed);
	CHECK_EQ(ac_pool_close(pool), 0);
	ends->lost += is_lost;
	ends->failed += has_failed;
	crash_print_check(&before);
	_exit(0);
}

/* ---- who looks on ---- */

static void say_go(void)
{
	if (go[1] >= 0) {
		CHECK_EQ(write(go[1], "", 1), 1);
		close(go[1]);
	}
	go[1] = -1;
}

static void start_template(struct trace *trace)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	CHECK_EQ(pipe(go), 0);
	owner = fork();
	if (owner == 0)
		be_owner();
	CHECK(owner > 0);
	close(go[0]);
	trace_born(trace, owner, say_go);
}

static void end_template(struct trace *trace, bool killed)
{
	int64_t took;

	killed_at = crash_now();
	trace_kill(trace);
	crash_await_success(owner, DONE_NS);
	crash_await_nobody(5 * SECOND);
	took = crash_now() - killed_at;
	if (killed)
		longest = took > longest ? took : longest;
}

/* ---- the sweeps ---- */

static void run_sweep(void *sweep)
{
	ends = mmap(NULL, sizeof *ends, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(ends != MAP_FAILED);
	sweep_run(sweep);
	crash_note("%u runs without a template in the end, %u of them could not go on", ends->lost,
		   ends->failed);
	crash_note("the longest that an owner took to do all its work: %lld ms",
		   (long long)(longest / MS));
}

static const struct plan plain, with_init = { .init = true },
			 recycled = { .recycle = 3 };

#define SWEEP(name_, plan_)                                                   \
	{ .name = "template killed at each step: " name_,                     \
	  .start = start_template,                                            \
	  .end = end_template,                                                \
	  .is_crowded = true,                                                 \
	  .merges = true,                                                     \
	  .arg = plan_ }

static const struct sweep sweeps[] = {
	SWEEP("from birth to leaving", &plain),
	SWEEP("workers with an initialiser", &with_init),
	SWEEP("workers recycled", &recycled),
};

int main(int argc, char **argv)
{
	sweep_full = argc > 1 && strcmp(argv[1], "full") == 0;
	crash_begin(argc - sweep_full, argv + sweep_full);
	for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++)
		crash_case(sweeps[i].name, run_sweep, (void *)&sweeps[i],
			   sweep_full ? 3600 : 60);
	return crash_end();
}

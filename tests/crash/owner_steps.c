/* SPDX-License-Identifier: MIT */
/*
 * The owner is killed at one instruction after another of the engine's code: while it
 * submits, collects and closes. Its workers and its template go with it, and nothing is left.
 *
 * Its workers run meanwhile, so no two runs are quite alike and none is merged. Quick: places
 * at random for some seconds, system calls first; "full" as the first argument: each.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "pool.h"
#include "sweep.h"

#define WORKERS 2
#define CALLS 4
#define BLOCK 4096
/* They are gone within a second; this one bounds a hang on a busy machine. */
#define GONE_NS (5 * SECOND)

struct owner {
	void (*be)(void);
	bool in_file;	/* there is no memfd */
	bool helped;	/* no event loop: the library has a thread */
};

static struct ac_pool *pool;
static int64_t longest; /* until all were gone */
static char directory[] = "/tmp/owner-steps-XXXXXX"; /* the engine's TMPDIR */

static void fail(void)
{
	_exit(1);
}

/* ---- what the owner does ---- */

TRACE_TASK static int some_call(struct ac_call *call)
{
	size_t len;
	const void *arg = ac_call_arg(call, &len);

	return ac_call_return(call, arg, len);
}

/* So that each run begins alike. */
static void await_sleep(void)
{
	struct ac__seat_shm *seats = pool->room->arena.seats;

	for (unsigned seat = 1; seat <= WORKERS; seat++)
		while (atomic_load(&seats[seat].bell.state) != AC__BELL_ASLEEP)
			crash_sleep(MS / 20);
}

/* With an event loop, so that no thread of the library's meets a breakpoint. */
static void open_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };

	const struct owner *owner = sweep_current->arg;

	if (ac_pool_open(&pool, &opts) < 0 ||
	    (!owner->helped && ac_pool_fd(pool) < 0) ||
	    !crash_await_workers(pool, 10 * SECOND))
		fail();
	await_sleep();
}

static void be_submitter(void)
{
	static unsigned char bytes[BLOCK];
	struct ac_task *task[CALLS];
	struct ac_submit_opts opts = { .size = sizeof opts, .timeout_ns = 60 * SECOND };
	const struct owner *owner = sweep_current->arg;
	const void *data;

	open_pool();
	trace_me();
	for (unsigned i = 0; i < CALLS; i++)
		if (ac_pool_submit(pool, &task[i], some_call, bytes,
				   i % 2 && !owner->helped ? BLOCK : 8,
				   i == 2 ? &opts : NULL) < 0)
			fail();
	for (unsigned i = 0; i < CALLS; i++) {
		if (ac_task_wait(task[i], -1) < 0 ||
		    ac_task_result(task[i], &data, NULL) < 0)
			fail();
		ac_task_free(task[i]);
	}
}

/* The source's items. */
static int next_item(void *arg, const void **item, size_t *len)
{
	static const unsigned char bytes[BLOCK];
	unsigned *n = arg;

	*item = bytes;
	*len = *n % 2 ? BLOCK : 8;
	return (*n)++ < CALLS;
}

static void be_streamer(void)
{
	unsigned n = 0;
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .source = next_item,
				       .source_arg = &n };
	struct ac_stream *stream;
	struct ac_task *task;

	open_pool();
	trace_me();
	if (ac_stream_open(&stream, pool, some_call, &opts) < 0)
		fail();
	while (ac_stream_next(stream, &task, -1) == 1)
		ac_task_free(task);
	ac_stream_close(stream);
}

static void be_closer(void)
{
	open_pool();
	for (unsigned i = 0; i < CALLS; i++)
		if (ac_pool_submit(pool, NULL, some_call, "", 1, NULL) < 0)
			fail();
	await_sleep();
	trace_me();
	if (ac_pool_close(pool) < 0)
		fail();
}

/* ---- who looks on ---- */

static void start_owner(struct trace *trace)
{
	const struct owner *owner = sweep_current->arg;
	pid_t pid;

	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	pid = fork();
	if (pid == 0) {
		if (owner->in_file)
			ac__fault_arm(AC__SYS_MEMFD, 1, UINT32_MAX, ENOSYS);
		owner->be();
		_exit(0);
	}
	CHECK(pid > 0);
	trace_adopt(trace, pid);
}

/* Orphans come here. */
static void await_nobody(void)
{
	int64_t start = crash_now(), took;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (crash_now() - start > GONE_NS)
			crash_fail(__FILE__, __LINE__, "processes are left");
		if (pid == 0)
			crash_sleep(MS / 10);
	}
	CHECK_EQ(errno, ECHILD);
	took = crash_now() - start;
	longest = took > longest ? took : longest;
}

/* Its memory may have been a file for a moment. */
static unsigned count_files(void)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

static void end_owner(struct trace *trace, bool killed)
{
	(void)killed;
	if (!trace->ended)
		trace_kill(trace);
	else
		CHECK(WIFEXITED(trace->status) && WEXITSTATUS(trace->status) == 0);
	await_nobody();
	CHECK_EQ(count_files(), 0);
}

/* ---- the sweeps ---- */

static void run_sweep(void *sweep)
{
	sweep_run(sweep);
	crash_note("the longest that anybody was left: %lld ms",
		   (long long)(longest / MS));
}

static const struct owner submits = { .be = be_submitter },
			  submits_file = { .be = be_submitter, .in_file = true },
			  streams = { .be = be_streamer },
			  submits_helped = { .be = be_submitter, .helped = true },
			  closes = { .be = be_closer },
			  closes_file = { .be = be_closer, .in_file = true };

#define SWEEP(name_, owner_)                                                  \
	{ .name = "owner killed at each step: " name_,                        \
	  .start = start_owner,                                               \
	  .end = end_owner,                                                   \
	  .is_crowded = true,                                                 \
	  .arg = owner_ }

static const struct sweep sweeps[] = {
	SWEEP("submits and collects", &submits),
	SWEEP("submits and collects, memory in a file", &submits_file),
	{ .name = "owner killed at each step: submits and collects, with a helper thread",
	  .start = start_owner,
	  .end = end_owner,
	  .is_crowded = true,
	  .only_steps = true,
	  .arg = &submits_helped },
	SWEEP("a stream", &streams),
	SWEEP("closes", &closes),
	SWEEP("closes, memory in a file", &closes_file),
};

int main(int argc, char **argv)
{
	int status;

	sweep_full = argc > 1 && strcmp(argv[1], "full") == 0;
	crash_begin(argc - sweep_full, argv + sweep_full);
	if (!mkdtemp(directory))
		return 1;
	setenv("TMPDIR", directory, 1);
	for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++)
		crash_case(sweeps[i].name, run_sweep, (void *)&sweeps[i],
			   sweep_full ? 3600 : 60);
	status = crash_end();
	rmdir(directory);
	return status;
}

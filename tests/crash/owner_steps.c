/* SPDX-License-Identifier: MIT */
/*
 * The owner is killed at one instruction after another of the engine's code: while it
 * opens a pool, submits, maps, feeds, collects, terminates and closes. Its workers and its
 * template go with it, and nothing is left.
 *
 * Its workers run meanwhile, so no two runs are quite alike, and none is merged but of
 * those that open: there the workers only begin. Quick: places at random for some seconds,
 * system calls first; "full" as the first argument: each.
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
#include "engine.h"
#include "sweep.h"

#define WORKERS 2
#define CALLS 4
#define BLOCK 4096
#define ITEMS 50
/* They are gone within a second; this one bounds a hang on a busy machine. */
#define GONE_NS (5 * SECOND)

struct owner {
	void (*be)(void);
	bool in_file;	/* there is no memfd */
	bool helped;	/* no event loop: the library has a thread */
	bool init;	/* the workers' initialiser does not return */
	bool adopts;	/* its workers are not the template's */
	bool counts;	/* killed also while it counts the processors */
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

TRACE_TASK static int long_call(struct ac_call *call)
{
	(void)call;
	crash_sleep(20 * SECOND);
	return 0;
}

TRACE_TASK static int some_item(const void *item, void *result, const void *bound)
{
	*(uint64_t *)result = *(const uint64_t *)item + *(const uint64_t *)bound;
	return 0;
}

/* So that each run begins alike. */
static void await_sleep(void)
{
	struct ac__seat_shm *seats = pool->memory->arena.seats;

	for (unsigned seat = 1; seat <= WORKERS; seat++)
		while (atomic_load(&seats[seat].bell.state) != AC__BELL_ASLEEP)
			crash_sleep(MS / 20);
}

/* Of workers that have no other end than their owner's. */
static int wait_for_ever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

__attribute__((noreturn)) static void be_adopted(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;

	if (ac_worker_open(&worker, fd) < 0)
		fail();
	ac_worker_ready(worker, 0, NULL);
	while (ac_worker_take(worker, &call) == 1)
		ac_worker_done(worker, call, ac_call_run(call));
	_exit(0);
}

static pid_t start_adopted(void *arg, unsigned worker, int fd)
{
	pid_t pid = fork();

	(void)arg;
	(void)worker;
	if (pid == 0)
		be_adopted(fd);
	return pid;
}

static void be_opener(void);

static bool counts_traced(void)
{
	const struct owner *owner = sweep_current->arg;

	return sweep_full && owner->counts;
}

/* By then it has done no more than read files, in a hundred thousand steps. */
int __real_ac_cpus(int leave);
int __wrap_ac_cpus(int leave);
int __wrap_ac_cpus(int leave)
{
	const struct owner *owner = sweep_current->arg;
	int n = __real_ac_cpus(leave);

	if (owner->be == be_opener && !counts_traced())
		trace_me();
	return n;
}

static void be_opener(void)
{
	const struct owner *owner = sweep_current->arg;
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .init = owner->init ? wait_for_ever : NULL,
				     .start = owner->adopts ? start_adopted : NULL };

	if (counts_traced())
		trace_me();
	if (ac_pool_open(&pool, &opts) < 0)
		fail();
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

static void be_mapper(void)
{
	uint64_t items[ITEMS] = { 0 }, results[ITEMS], bound = 1;
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = &bound,
				    .bound_size = sizeof bound,
				    .chunk = ITEMS / 5 };

	open_pool();
	trace_me();
	if (ac_pool_map(pool, some_item, &opts, items, sizeof *items, results,
			sizeof *results, ITEMS) < 0)
		fail();
}

/* The second is divided, if it has been begun. */
static void be_feeder(void)
{
	static const unsigned char bytes[BLOCK];
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .flags = AC_STREAM_UNORDERED };
	struct ac_push_opts push = { .size = sizeof push };
	struct ac_stream *stream;
	struct ac_task *task;
	uint64_t index;
	uint32_t kept;

	open_pool();
	trace_me();
	if (ac_stream_open(&stream, pool, some_call, &opts) < 0)
		fail();
	if (ac_bound_make(&push.bound, pool, bytes, sizeof bytes) < 0)
		fail();
	for (unsigned i = 0; i < CALLS; i++) {
		push.units = i == 1 ? 1000 : 0;
		if (ac_stream_push(stream, bytes, i % 2 ? BLOCK : 8, &push, NULL) < 0)
			fail();
	}
	ac_bound_free(push.bound);
	if (ac_stream_take_back(stream, &index, NULL, &kept) < 0 ||
	    ac_stream_end(stream) < 0)
		fail();
	while (ac_stream_next(stream, &task, -1) == 1)
		ac_task_free(task);
	ac_stream_close(stream);
}

/* Some run, some wait; then none is left, and the workers are gone. */
static void be_terminator(void)
{
	open_pool();
	for (unsigned i = 0; i < CALLS; i++)
		if (ac_pool_submit(pool, NULL, long_call, "", 1, NULL) < 0)
			fail();
	trace_me();
	if (ac_pool_terminate(pool) < 0 || ac_pool_join(pool, -1) < 0)
		fail();
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

/* Its memory may have been a file for a moment. */
static unsigned count_files(const char *where, const char *prefix)
{
	DIR *dir = opendir(where);
	struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.' &&
		     strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	if (dir)
		closedir(dir);
	return n;
}

static void end_owner(struct trace *trace, bool killed)
{
	int64_t took;

	(void)killed;
	if (!trace->ended)
		trace_kill(trace);
	else
		CHECK(WIFEXITED(trace->status) && WEXITSTATUS(trace->status) == 0);
	took = crash_await_nobody(GONE_NS);
	longest = took > longest ? took : longest;
	CHECK_EQ(count_files(directory, ""), 0);
	CHECK_EQ(count_files("/dev/shm", "allcores"), 0);
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
			  closes_file = { .be = be_closer, .in_file = true },
			  maps = { .be = be_mapper },
			  feeds = { .be = be_feeder },
			  terminates = { .be = be_terminator },
			  opens = { .be = be_opener, .counts = true },
			  opens_file = { .be = be_opener, .in_file = true },
			  opens_init = { .be = be_opener, .init = true },
			  opens_adopts = { .be = be_opener, .adopts = true };

#define SWEEP(name_, owner_)                                                  \
	{ .name = "owner killed at each step: " name_,                        \
	  .start = start_owner,                                               \
	  .end = end_owner,                                                   \
	  .is_crowded = true,                                                 \
	  .arg = owner_ }

#define SWEEP_OPENING(name_, owner_)                                          \
	{ .name = "owner killed at each step: " name_,                        \
	  .start = start_owner,                                               \
	  .end = end_owner,                                                   \
	  .is_crowded = true,                                                 \
	  .merges = true,                                                     \
	  .arg = owner_ }

static const struct sweep sweeps[] = {
	SWEEP_OPENING("opens", &opens),
	SWEEP("opens, memory in a file", &opens_file),
	SWEEP_OPENING("opens, workers with an initialiser", &opens_init),
	SWEEP_OPENING("opens, workers started by others", &opens_adopts),
	SWEEP("submits and collects", &submits),
	SWEEP("submits and collects, memory in a file", &submits_file),
	{ .name = "owner killed at each step: submits and collects, with a helper thread",
	  .start = start_owner,
	  .end = end_owner,
	  .is_crowded = true,
	  .only_steps = true,
	  .arg = &submits_helped },
	SWEEP("a stream", &streams),
	SWEEP("a map", &maps),
	SWEEP("feeds a stream", &feeds),
	SWEEP("terminates", &terminates),
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

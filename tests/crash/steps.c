/* SPDX-License-Identifier: MIT */
/*
 * A worker is killed at one instruction after another of the engine's code, from its
 * waking through taking, running and completing tasks to its falling asleep. A thread
 * of the owner single-steps it once with ptrace, to learn which instructions there are and how
 * often each is visited; then, for each, it lets a new worker run to a breakpoint there and
 * kills it. What it held at that instant (its word says so) fails or is run again, all other
 * tasks are delivered, each run once, no block stays held, and the worker is replaced.
 *
 * Quick: first and last visits in random order for some seconds; "full" as the
 * first argument: every visit up to the 16th, and the last.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block.h"
#include "crash.h"
#include "pool.h"

#define SEAT 1		/* of the victim */
#define CALLS 5
#define ITEMS 12
#define BYTES 256	/* in a block, both ways; copying more is one step a byte */
#define LARGE 100000	/* kept in place until its handle is freed */
#define BUDGET (2 * SECOND)
#define PLACES 16384
#define VISITS_FULL 16
#define KEPT 65536

extern char __executable_start, etext;

struct variant {
	unsigned workers, retries;
	bool map;
};

static bool full;
static const struct variant *variant;
static struct crash_print before;
static struct ac_pool *pool;
static _Atomic unsigned *runs; /* shared: how often each was run */
/* Tasks whose results keep their blocks, so that new ones are needed all the time. */
static struct ac_task *kept[KEPT];
static unsigned kept_count;

/* ---- instructions ---- */

/* An instruction of the engine's, and how often the victim comes by. */
struct place {
	uint64_t pc;
	unsigned visits;
};

static struct place places[PLACES];
static unsigned place_count;

struct tracer {
	pthread_t thread;
	pid_t pid;
	uint64_t pc;			/* where to kill it; 0: step and learn */
	unsigned visit;			/* at which of its visits, from 1 */
	unsigned held;			/* tasks in its hand when it was killed */
	const char *refused;		/* why it can't be traced */
	_Atomic bool armed;		/* it may be given work now */
	_Atomic bool killed;
	_Atomic unsigned long stops;
};

static void learn_place(uint64_t pc)
{
	if (pc < (uintptr_t)&__executable_start || pc >= (uintptr_t)&etext)
		return;
	for (unsigned i = 0; i < place_count; i++)
		if (places[i].pc == pc) {
			places[i].visits++;
			return;
		}
	CHECK(place_count < PLACES);
	places[place_count++] = (struct place){ pc, 1 };
}

static void request(enum __ptrace_request request, pid_t pid, void *address,
		    uintptr_t data)
{
	if (ptrace(request, pid, address, data) < 0)
		crash_fail(__FILE__, __LINE__, "ptrace %d: %s", (int)request,
			   strerror(errno));
}

#if defined(__x86_64__)
static const char *const unable;

static uint64_t program_counter(pid_t pid)
{
	struct user_regs_struct regs;

	request(PTRACE_GETREGS, pid, 0, (uintptr_t)&regs);
	return regs.rip;
}

static void set_program_counter(pid_t pid, uint64_t pc)
{
	struct user_regs_struct regs;

	request(PTRACE_GETREGS, pid, 0, (uintptr_t)&regs);
	regs.rip = pc;
	request(PTRACE_SETREGS, pid, 0, (uintptr_t)&regs);
}

#define AFTER_BREAKPOINT(pc) ((pc) + 1)
#define WITH_BREAKPOINT(word) (((word) & ~0xffL) | 0xcc)
#else
static const char *const unable = "breakpoints are known for x86-64 only";

static uint64_t program_counter(pid_t pid)
{
	return (uint64_t)pid;
}

static void set_program_counter(pid_t pid, uint64_t pc)
{
	(void)pid;
	(void)pc;
}

#define AFTER_BREAKPOINT(pc) (pc)
#define WITH_BREAKPOINT(word) (word)
#endif

/* ---- the tracer ---- */

/* False: it was killed by end_tracer. */
static bool await_stop(struct tracer *tracer)
{
	int status;

	while (waitpid(tracer->pid, &status, __WALL) < 0)
		CHECK_EQ(errno, EINTR);
	tracer->stops++;
	return WIFSTOPPED(status);
}

static void step_and_learn(struct tracer *tracer)
{
	do {
		request(PTRACE_SINGLESTEP, tracer->pid, 0, 0);
		atomic_store(&tracer->armed, true);
		if (!await_stop(tracer))
			return;
		learn_place(program_counter(tracer->pid));
	} while (true);
}

/* To the place; false: it was killed on the way. */
static bool run_to_place(struct tracer *tracer)
{
	void *address = (void *)tracer->pc;
	long word = ptrace(PTRACE_PEEKTEXT, tracer->pid, address, 0);
	unsigned visits = 0;

	for (;;) {
		request(PTRACE_POKETEXT, tracer->pid, address,
			(uintptr_t)WITH_BREAKPOINT(word));
		request(PTRACE_CONT, tracer->pid, 0, 0);
		atomic_store(&tracer->armed, true);
		if (!await_stop(tracer))
			return false;
		CHECK_EQ(program_counter(tracer->pid), AFTER_BREAKPOINT(tracer->pc));
		if (++visits == tracer->visit)
			return true;
		request(PTRACE_POKETEXT, tracer->pid, address, (uintptr_t)word);
		set_program_counter(tracer->pid, tracer->pc);
		request(PTRACE_SINGLESTEP, tracer->pid, 0, 0);
		if (!await_stop(tracer))
			return false;
	}
}

/* A word of a generation that has passed says nothing. */
static unsigned count_held(void)
{
	unsigned n = 0;

	ac__pool_lock(pool);
	for (uint32_t i = 0; i < pool->board.task_count; i++) {
		uint64_t word = atomic_load(&pool->board.tasks[i].word);

		n += pool->slots[i].published &&
		     ac__word_gen(word) == pool->slots[i].gen &&
		     ac__word_state(word) == AC__TASK_TAKEN &&
		     ac__word_holder(word) == SEAT;
	}
	ac__pool_unlock(pool);
	return n;
}

static void *trace(void *arg)
{
	struct tracer *tracer = arg;

	if (ptrace(PTRACE_SEIZE, tracer->pid, 0, 0) < 0) {
		tracer->refused = strerror(errno);
		atomic_store(&tracer->armed, true);
		return NULL;
	}
	request(PTRACE_INTERRUPT, tracer->pid, 0, 0);
	await_stop(tracer);
	if (!tracer->pc) {
		step_and_learn(tracer);
	} else if (run_to_place(tracer)) {
		tracer->held = count_held();
		kill(tracer->pid, SIGKILL);
		while (await_stop(tracer))
			;
	}
	atomic_store(&tracer->killed, true);
	return NULL;
}

/* The victim sleeps: what is measured begins with its waking. */
static pid_t await_victim(void)
{
	int64_t end = crash_now() + 5 * SECOND;
	struct ac__seat_shm *row = &pool->room->arena.seats[SEAT];

	CHECK(crash_await_workers(pool, 5 * SECOND));
	while (atomic_load(&row->bell.state) != AC__BELL_ASLEEP) {
		CHECK(crash_now() < end);
		crash_sleep(MS / 5);
	}
	return atomic_load(&row->pid);
}

static void start_tracer(struct tracer *tracer, uint64_t pc, unsigned visit)
{
	memset(tracer, 0, sizeof *tracer);
	tracer->pid = await_victim();
	tracer->pc = pc;
	tracer->visit = visit;
	CHECK_EQ(pthread_create(&tracer->thread, NULL, trace, tracer), 0);
	while (!atomic_load(&tracer->armed))
		sched_yield();
	if (tracer->refused)
		crash_skip(tracer->refused);
}

/* All work is done: when nothing happens any more, the victim sleeps for good. */
static void end_tracer(struct tracer *tracer)
{
	unsigned long stops = 0, now;
	unsigned quiet = 0;

	while (!atomic_load(&tracer->killed) && quiet < 5) {
		now = atomic_load(&tracer->stops);
		quiet = now == stops ? quiet + 1 : 0;
		stops = now;
		crash_sleep(MS);
	}
	if (!atomic_load(&tracer->killed))
		kill(tracer->pid, SIGKILL);
	pthread_join(tracer->thread, NULL);
}

/* ---- work ---- */

/* The last fails in its own way, by its own words. */
static int count_call(struct ac_call *call)
{
	size_t len;
	const unsigned char *arg = ac_call_arg(call, &len);
	unsigned char result[BYTES];

	atomic_fetch_add(&runs[arg[0]], 1);
	if (arg[0] == CALLS - 1)
		return ac_call_fail(call, "as it should");
	if (arg[0] >= 2)
		return ac_call_reserve(call, LARGE) ? 0 : 1;
	for (size_t i = 0; i < len; i++)
		result[i] = arg[i] ^ 0xff;
	return ac_call_return(call, result, len);
}

static void check_runs(unsigned i, int status, unsigned held)
{
	unsigned n = atomic_load(&runs[i]);

	if (status == AC_EDIED)
		CHECK(n <= 1);
	else if (variant->retries)
		CHECK(n >= 1 && n <= 1 + held);
	else
		CHECK_EQ(n, 1);
	atomic_store(&runs[i], 0);
}

static void submit_calls(struct ac_task **tasks)
{
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .retries = variant->retries };
	unsigned char bytes[BYTES] = { 0 };

	for (unsigned i = 0; i < CALLS; i++) {
		bytes[0] = (unsigned char)i;
		CHECK_EQ(ac_pool_submit(pool, &tasks[i], count_call, bytes,
					i == 1 ? BYTES : 8, &opts), 0);
	}
}

/* Not that of an argument that a dead worker had begun to write over. */
static void check_result(struct ac_task *task, unsigned i)
{
	const unsigned char *bytes;
	const void *data;
	size_t len;

	CHECK_EQ(ac_task_result(task, &data, &len), 0);
	CHECK_EQ(len, i == 0 ? 8 : i == 1 ? BYTES : LARGE);
	bytes = data;
	for (size_t j = 0; i < 2 && j < len; j++)
		CHECK_EQ(bytes[j], (j ? 0 : i) ^ 0xff);
}

static unsigned check_calls(struct ac_task **tasks, unsigned held)
{
	struct ac_outcome outcome;
	unsigned died = 0;

	for (unsigned i = 0; i < CALLS; i++) {
		CHECK_EQ(ac_task_outcome(tasks[i], &outcome), 0);
		if (outcome.status == AC_EDIED)
			died++;
		else
			CHECK_EQ(outcome.status, i == CALLS - 1 ? AC_ETASK : 0);
		if (outcome.status == AC_ETASK)
			CHECK(strcmp(outcome.text, "as it should") == 0);
		if (outcome.status == 0)
			check_result(tasks[i], i);
		check_runs(i, outcome.status, held);
		if (i >= 2 && outcome.status == 0 && kept_count < KEPT)
			kept[kept_count++] = tasks[i];
		else
			ac_task_free(tasks[i]);
	}
	return died;
}

static unsigned work_on_calls(struct tracer *tracer)
{
	struct ac_task *tasks[CALLS];

	submit_calls(tasks);
	for (unsigned i = 0; i < CALLS; i++)
		CHECK_EQ(ac_task_wait(tasks[i], 10 * SECOND), 0);
	end_tracer(tracer);
	return check_calls(tasks, tracer->held);
}

static int count_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	atomic_fetch_add(&runs[*(const uint32_t *)item], 1);
	*(uint32_t *)result = *(const uint32_t *)item + 1;
	return 0;
}

static unsigned work_on_map(struct tracer *tracer)
{
	uint32_t items[ITEMS], results[ITEMS] = { 0 };
	struct ac_outcome outcomes[ITEMS];
	struct ac_map_opts opts = { .size = sizeof opts,
				    .outcomes = outcomes,
				    .chunk = 3,
				    .retries = variant->retries };
	unsigned died = 0;

	for (uint32_t i = 0; i < ITEMS; i++)
		items[i] = i;
	ac_pool_map(pool, count_item, &opts, items, sizeof *items, results,
		    sizeof *results, ITEMS);
	end_tracer(tracer);
	for (uint32_t i = 0; i < ITEMS; i++) {
		if (outcomes[i].status)
			CHECK_EQ(outcomes[i].status, AC_EDIED);
		CHECK_EQ(results[i], outcomes[i].status ? 0 : i + 1);
		died += outcomes[i].status != 0;
		check_runs(i, outcomes[i].status, tracer->held);
	}
	return died;
}

/* ---- the sweep ---- */

/* A chunk may be in its hand, and all its items be done. */
static void check_died(const struct tracer *tracer, unsigned died)
{
	if (variant->retries)
		CHECK_EQ(died, 0);
	else if (variant->map)
		CHECK(died <= tracer->held);
	else
		CHECK_EQ(died, tracer->held);
}

static void run_to(uint64_t pc, unsigned visit)
{
	struct ac_pool_stat stat;
	struct tracer tracer;
	unsigned died;

	crash_at("program counter %#lx, visit %u",
		 (unsigned long)(pc - (uintptr_t)&__executable_start), visit);
	start_tracer(&tracer, pc, visit);
	died = variant->map ? work_on_map(&tracer) : work_on_calls(&tracer);
	CHECK(tracer.held <= 1);
	check_died(&tracer, died);
	crash_check_sum(pool, &stat);
	crash_check_blocks(pool, kept_count);
}

static unsigned visit_place(const struct place *place)
{
	unsigned n = full ? AC__MIN(place->visits, VISITS_FULL) : 1;

	for (unsigned visit = 1; visit <= n; visit++)
		run_to(place->pc, visit);
	if (place->visits <= n)
		return n;
	run_to(place->pc, place->visits);
	return n + 1;
}

static void shuffle_places(void)
{
	uint64_t seed = crash_seed;

	for (unsigned i = place_count; i > 1; i--) {
		unsigned j = crash_random(&seed) % i;
		struct place place = places[j];

		places[j] = places[i - 1];
		places[i - 1] = place;
	}
}

static void sweep_places(void)
{
	int64_t end = crash_now() + BUDGET;
	unsigned i, kills = 0;

	shuffle_places();
	for (i = 0; i < place_count && (full || crash_now() < end); i++)
		kills += visit_place(&places[i]);
	crash_note("%u of %u instructions, %u kills", i, place_count, kills);
}

/* The others stopped, so that it takes all there is. */
static void learn_places(void)
{
	struct ac__seat_shm *row = pool->room->arena.seats;

	CHECK(crash_await_workers(pool, 5 * SECOND));
	for (unsigned seat = SEAT + 1; seat <= variant->workers; seat++)
		kill(atomic_load(&row[seat].pid), SIGSTOP);
	run_to(0, 0);
	for (unsigned seat = SEAT + 1; seat <= variant->workers; seat++)
		kill(atomic_load(&row[seat].pid), SIGCONT);
}

static void sweep(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts };

#ifdef __SANITIZE_THREAD__
	crash_skip("the thread sanitizer's own instructions are too many");
#endif
	if (unable)
		crash_skip(unable);
	variant = arg;
	opts.workers = (int)variant->workers;
	runs = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(runs != MAP_FAILED);
	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	learn_places();
	sweep_places();
	crash_check_usable(pool);
	while (kept_count)
		ac_task_free(kept[--kept_count]);
	crash_check_blocks(pool, 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

int main(int argc, char **argv)
{
	static const struct variant alone = { 1, 0, false },
				    retried = { 1, 1, false },
				    two = { 2, 0, false },
				    map = { 1, 0, true },
				    map_retried = { 2, 1, true };
	unsigned seconds;

	full = argc > 1 && strcmp(argv[1], "full") == 0;
	seconds = full ? 3600 : 20;
	crash_begin(argc - full, argv + full);
	crash_case("killed at each step, calls", sweep, (void *)&alone, seconds);
	crash_case("killed at each step, calls retried", sweep, (void *)&retried,
		   seconds);
	crash_case("killed at each step, calls, two workers", sweep, (void *)&two,
		   seconds);
	crash_case("killed at each step, map", sweep, (void *)&map, seconds);
	crash_case("killed at each step, map retried, two workers", sweep,
		   (void *)&map_retried, seconds);
	return crash_end();
}

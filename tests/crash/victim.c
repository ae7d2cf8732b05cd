/* SPDX-License-Identifier: MIT */
/* The traced worker's pool, from opening to what it leaves behind: see the header. */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block.h"
#include "sweep.h"
#include "workers_end.h"

#define HANG_NS (10 * SECOND)

struct ac_pool *pool;
_Atomic unsigned *runs;
unsigned held;

static struct crash_print before;
static const struct victim_plan *plan;
static pid_t adopted[8];
static unsigned adopted_count;
static unsigned forced; /* deaths that are none of the sweep's */

static struct ac__seat_shm *row_of(unsigned seat)
{
	return &pool->memory->arena.seats[seat];
}

/* ---- who comes by the user's own fork ---- */

static void serve_adopted(int fd, bool traced)
{
	struct ac_worker *worker;
	struct ac_call *call;

	if (traced)
		trace_me();
	if (ac_worker_open(&worker, fd) < 0)
		_exit(3);
	ac_worker_ready(worker, 0, NULL);
	while (ac_worker_take(worker, &call) == 1)
		ac_worker_done(worker, call, ac_call_run(call));
	ac_worker_close(worker);
	_exit(0);
}

/* The first is the victim. */
static pid_t start_adopted(void *arg, unsigned worker, int fd)
{
	bool first = adopted_count == 0;
	pid_t pid = fork();

	(void)arg;
	(void)worker;
	if (pid == 0)
		serve_adopted(fd, first);
	CHECK(pid > 0 && adopted_count < 8);
	adopted[adopted_count++] = pid;
	return pid;
}

/* They are this process's own. The victim was reaped by its tracer. */
static void reap_adopted(void)
{
	for (unsigned i = 0; i < adopted_count; i++)
		while (waitpid(adopted[i], NULL, 0) < 0 && errno == EINTR)
			;
	adopted_count = 0;
}

/* ---- beginning ---- */

static bool is_asleep(unsigned seat)
{
	struct ac__seat_shm *row = row_of(seat);
	pid_t pid = atomic_load(&row->pid);

	return ac__seat_state(&pool->memory->arena, seat) == AC__SEAT_READY &&
	       atomic_load(&row->bell.state) == AC__BELL_ASLEEP && pid > 0 &&
	       crash_state(pid) == 'S';
}

static void await_sleep(void)
{
	int64_t end = crash_now() + HANG_NS;

	for (unsigned seat = 1; seat <= plan->workers; seat++)
		while (!is_asleep(seat)) {
			CHECK(crash_now() < end);
			ac_pool_dispatch(pool);
			crash_sleep(MS / 20);
		}
}

static void signal_others(int signal)
{
	for (unsigned seat = SEAT + 1; seat <= plan->workers; seat++)
		kill(atomic_load(&row_of(seat)->pid), signal);
}

static void open_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = (int)plan->workers,
				     .recycle = plan->recycle };

	if (plan->birth == VICTIM_ADOPTED)
		opts.start = start_adopted;
	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK(ac_pool_fd(pool) >= 0);
}

static void dispatch(void)
{
	ac_pool_dispatch(pool);
}

static void start_forked(struct trace *trace, void (*before_birth)(void))
{
	pid_t template = crash_template(getpid());
	pid_t pid = atomic_load(&row_of(SEAT)->pid);

	CHECK(template > 0);
	kill(pid, SIGKILL);
	CHECK(crash_await_death(pid, HANG_NS));
	if (before_birth)
		before_birth();
	trace_born(trace, template, dispatch);
	forced = 1;
}

void victim_start(struct trace *trace, const struct victim_plan *its_plan,
		  void (*before_birth)(void))
{
	plan = its_plan;
	forced = held = 0;
	if (!runs)
		runs = mmap(NULL, RUNS * sizeof *runs, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset((void *)runs, 0, RUNS * sizeof *runs);
	open_pool();
	if (plan->birth == VICTIM_ADOPTED) {
		trace_adopt(trace, adopted[0]);
		if (before_birth)
			before_birth();
		return;
	}
	await_sleep();
	signal_others(SIGSTOP);
	if (plan->birth == VICTIM_FORKED)
		start_forked(trace, before_birth);
	else
		trace_seize(trace, atomic_load(&row_of(SEAT)->pid));
}

/* ---- its end ---- */

/* A word of a generation that has passed says nothing. */
static unsigned count_words(enum ac__task_state state, unsigned holder)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < pool->board.task_count; i++) {
		uint64_t word;

		if (pool->slots.slots[i].state != AC__SLOT_PUBLISHED)
			continue;
		word = atomic_load(&pool->board.tasks[i].word);
		n += ac__word_gen(word) == pool->slots.slots[i].gen &&
		     ac__word_state(word) == state && ac__word_holder(word) == holder;
	}
	return n;
}

bool victim_is_critical(void)
{
	return atomic_load(&row_of(SEAT)->task) || count_words(AC__TASK_TAKEN, SEAT);
}

bool victim_is_idle(void)
{
	return !victim_is_critical() &&
	       atomic_load(&row_of(SEAT)->bell.state) == AC__BELL_AWAKE;
}

void victim_check_asleep(void)
{
	if (plan->workers == 1)
		CHECK_EQ(count_words(AC__TASK_READY, AC__OWNER_SEAT), 0);
}

/* Every other time the owner hears of the death before it looks at what was done. */
static void hear_of_death(void)
{
	static unsigned n;

	if (n++ % 2 || plan->birth == VICTIM_ADOPTED)
		return;
	CHECK_EQ(ac__sys_poll(pool->workers.template.now.socket,
			      ac__sys_deadline(HANG_NS)), 0);
	ac__workers_note(&pool->workers, AC__TAG_TEMPLATE);
}

void victim_end(struct trace *trace, bool killed)
{
	/* What was adopted can't be let go. */
	if (killed || (!trace->ended && plan->birth == VICTIM_ADOPTED)) {
		held = count_words(AC__TASK_TAKEN, SEAT);
		trace_kill(trace);
		if (!pool->closing)
			hear_of_death();
	} else {
		trace_let_go(trace);
	}
	signal_others(SIGCONT);
}

void victim_dismiss(void)
{
	CHECK_EQ(ac_pool_shut(pool), 0);
	CHECK_EQ(ac_pool_join(pool, 0), -ETIMEDOUT);
}

/* ---- what is left ---- */

static void check_workers(bool killed)
{
	struct ac_worker_stat stats[8];
	struct ac_pool_stat stat;
	bool adopted_end = plan->birth == VICTIM_ADOPTED;

	CHECK(crash_await_workers(pool, HANG_NS));
	CHECK_EQ(ac_pool_workers(pool, stats, 8), plan->workers);
	if (killed)
		CHECK(stats[SEAT - 1].starts >= 2);
	crash_check_sum(pool, &stat);
	if (!adopted_end)
		CHECK_EQ(stat.deaths, killed + forced);
}

void victim_check(bool killed)
{
	check_workers(killed);
	/* Of recycled workers it would take hundreds. */
	if (!plan->recycle)
		crash_check_usable(pool);
	victim_close();
}

/* The whole table takes longer than all else. */
static void check_blocks(void)
{
	static unsigned n;

	CHECK_EQ(ac__block_in_use(&pool->memory->arena), 0);
	if (sweep_full || n++ % 16 == 0)
		crash_check_blocks(pool, 0);
}

void victim_close(void)
{
	struct ac_pool_stat stat;

	crash_check_sum(pool, &stat);
	check_blocks();
	CHECK_EQ(ac_pool_close(pool), 0);
	pool = NULL;
	reap_adopted();
	crash_print_check(&before);
}

TRACE_TASK void victim_burn(void)
{
	struct timespec now, start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - start.tv_sec) * SECOND + now.tv_nsec - start.tv_nsec < 4000);
}

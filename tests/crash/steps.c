/* SPDX-License-Identifier: MIT */
/*
 * A worker is killed at one instruction after another of the engine's code, from its
 * birth through waking, taking, running and completing to its leaving. What it held at
 * that instant (its word says so) fails or is run again, all other tasks are delivered, each
 * run once, no block stays held, the worker is replaced, and nothing is left of the pool.
 *
 * And not killed: at each instruction its task is cancelled, or more work comes.
 *
 * Quick: places that may be merged once, for some seconds; "full" as the first
 * argument: all of them, each.
 */
#define _GNU_SOURCE
#include <string.h>

#include "parts.h"
#include "sweep.h"
#include "victim.h"

#define CALLS 4
#define BLOCK 4096
#define LARGE 100000
#define WAIT (10 * SECOND)

struct calls {
	struct victim_plan plan;
	unsigned count;	/* 0: CALLS */
	unsigned retries;
	bool at_birth;	/* they are there before the victim is */
	bool leaves;	/* told to, when all is done */
};

static struct ac_task *tasks[CALLS + 1];
static unsigned submitted;
static bool dismissed;

static const struct calls *calls(void)
{
	return sweep_current->arg;
}

static unsigned count_calls(void)
{
	return calls()->count ? calls()->count : CALLS;
}

/* ---- what they run ---- */

/* Inline, a block both ways, a large one; the last fails in its own way, by its own words. */
TRACE_TASK static int some_call(struct ac_call *call)
{
	size_t len;
	const unsigned char *arg = ac_call_arg(call, &len);
	unsigned i = arg[0];

	atomic_fetch_add(&runs[i], 1);
	if (i == 2)
		return ac_call_reserve(call, LARGE) ? 0 : 1;
	if (i == 3)
		return ac_call_fail(call, "as it should");
	return ac_call_return(call, arg, len);
}

static void submit_one(void)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .retries = calls()->retries };
	unsigned char bytes[BLOCK] = { 0 };
	unsigned i = submitted++;

	memset(bytes, (int)(i + 7), sizeof bytes);
	bytes[0] = (unsigned char)i;
	CHECK_EQ(ac_pool_submit(pool, &tasks[i], some_call, bytes, i == 1 ? BLOCK : 8,
				&opts), 0);
}

static void submit_calls(void)
{
	while (submitted < count_calls())
		submit_one();
}

/* ---- how they ended ---- */

static void check_result(unsigned i)
{
	const unsigned char *bytes;
	const void *data;
	size_t len;

	CHECK_EQ(ac_task_result(tasks[i], &data, &len), 0);
	CHECK_EQ(len, i == 1 ? BLOCK : i == 2 ? LARGE : 8);
	bytes = data;
	if (i == 2)
		return;
	CHECK_EQ(bytes[0], i);
	for (size_t j = 1; j < len; j++)
		CHECK_EQ(bytes[j], i + 7);
}

/* Returns 1 if it died, or was cancelled. */
static unsigned check_call(unsigned i)
{
	struct ac_outcome outcome;
	unsigned n;

	CHECK_EQ(ac_task_wait(tasks[i], WAIT), 0);
	CHECK_EQ(ac_task_outcome(tasks[i], &outcome), 0);
	n = atomic_load(&runs[i]);
	if (outcome.status == AC_EDIED || outcome.status == AC_ECANCELED) {
		CHECK(n <= 1);
	} else {
		CHECK_EQ(outcome.status, i == 3 ? AC_ETASK : 0);
		CHECK(n == 1 || (n >= 1 && n <= 1 + held && calls()->retries));
		if (i == 3)
			CHECK(strcmp(outcome.text, "as it should") == 0);
		else
			check_result(i);
	}
	ac_task_free(tasks[i]);
	return outcome.status == AC_EDIED || outcome.status == AC_ECANCELED;
}

static unsigned check_calls(void)
{
	unsigned lost = 0;

	for (unsigned i = 0; i < submitted; i++)
		lost += check_call(i);
	return lost;
}

/* ---- runs ---- */

static void start_calls(struct trace *trace)
{
	submitted = 0;
	dismissed = false;
	victim_start(trace, &calls()->plan, calls()->at_birth ? submit_calls : NULL);
}

static bool act_on_calls(unsigned n)
{
	(void)n;
	if (submitted < count_calls()) {
		submit_calls();
		return true;
	}
	victim_check_asleep();
	if (!calls()->leaves || dismissed)
		return false;
	dismissed = true;
	victim_dismiss();
	return true;
}

static void end_calls(struct trace *trace, bool killed)
{
	unsigned lost;

	victim_end(trace, killed);
	if (!dismissed)
		submit_calls();
	lost = check_calls();
	CHECK(held <= 1);
	CHECK_EQ(lost, calls()->retries ? 0 : held);
	if (dismissed)
		victim_close();
	else
		victim_check(killed);
}

/* ---- what befalls one that is not killed ---- */

static bool was_cancelled;

/* Whatever it is at: the kill must hit this one, and no other. */
static void cancel_second(void)
{
	was_cancelled = submitted > 1 && ac_task_cancel(tasks[1], 1) == 0;
}

static void end_cancelled(struct trace *trace, bool killed)
{
	victim_end(trace, killed);
	submit_calls();
	CHECK_EQ(check_calls(), was_cancelled);
	was_cancelled = false;
	victim_check(false);
}

/* Also while it falls asleep: then it must wake, whatever step it is at. */
static void submit_another(void)
{
	submit_calls();
	submit_one();
}

/* ---- the sweeps ---- */

static void run_sweep(void *sweep)
{
	sweep_run(sweep);
}

static void sweep_calls(const struct sweep *sweep, unsigned seconds)
{
	struct sweep whole = *sweep;

	whole.start = start_calls;
	whole.act = act_on_calls;
	if (!whole.end)
		whole.end = end_calls;
	crash_case(whole.name, run_sweep, &whole, seconds);
}

#define SWEEP(name_, ...) \
	{ .name = "at each step: " name_, .arg = &(const struct calls){ __VA_ARGS__ } }

static const struct calls plain = { .plan = { .workers = 1 } },
			  small = { .plan = { .workers = 1 }, .count = 1 };

static const struct sweep killed[] = {
	{ .name = "at each step: with a task in hand, unmerged",
	  .arg = &small,
	  .is_critical = victim_is_critical },
	SWEEP("calls", .plan = { .workers = 1 }),
	SWEEP("calls retried", .plan = { .workers = 1 }, .retries = 1),
	SWEEP("calls, two workers", .plan = { .workers = 2 }),
	SWEEP("recycled", .plan = { .workers = 1, .recycle = 2 }),
	SWEEP("leaving", .plan = { .workers = 1 }, .leaves = true),
	SWEEP("forked", .plan = { .workers = 1, .birth = VICTIM_FORKED }, .at_birth = true),
	SWEEP("started by others, from open to close",
	      .plan = { .workers = 1, .birth = VICTIM_ADOPTED }, .leaves = true),
};

static const struct sweep spared[] = {
	{ .name = "at each step: its task cancelled, not killed",
	  .arg = &plain,
	  .befall = cancel_second,
	  .spared = true,
	  .end = end_cancelled },
	{ .name = "at each step: more work comes, not killed",
	  .arg = &plain,
	  .befall = submit_another,
	  .is_critical = victim_is_idle,
	  .spared = true },
};

int main(int argc, char **argv)
{
	unsigned seconds;

	sweep_full = argc > 1 && strcmp(argv[1], "full") == 0;
	seconds = sweep_full ? 3600 : 60;
	crash_begin(argc - sweep_full, argv + sweep_full);
	for (size_t i = 0; i < sizeof killed / sizeof *killed; i++)
		sweep_calls(&killed[i], seconds);
	for (size_t i = 0; i < sizeof spared / sizeof *spared; i++)
		sweep_calls(&spared[i], seconds);
	sweep_parts(seconds);
	return crash_end();
}

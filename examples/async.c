/* SPDX-License-Identifier: MIT */
/*
 * Asynchronous calls and all that can become of them: waiting with a limit, callbacks, a
 * function that fails and says why, one that never ends, a worker that is killed.
 * Whatever happens to one call, the others go on.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <allcores.h>

#include "example.h"

static int nap_ms;

static int nap(struct ac_call *call)
{
	int64_t start = clock_now(), slept;

	sleep_for(nap_ms * MS);
	slept = clock_now() - start;
	return ac_call_return(call, &slept, sizeof slept);
}

static int divide(struct ac_call *call)
{
	const int *number = ac_call_arg(call, NULL);
	int quotient;

	if (number[1] == 0)
		return ac_call_fail(call, "%d can't be divided by zero", number[0]);
	quotient = number[0] / number[1];
	return ac_call_return(call, &quotient, sizeof quotient);
}

static int never_end(struct ac_call *call)
{
	(void)call;
	while (pause())		/* never 0 */
		;
	return 0;
}

static int die(struct ac_call *call)
{
	(void)call;
	return raise(SIGKILL);	/* as the kernel does when memory runs out */
}

static struct ac_task *submit(struct ac_pool *pool, ac_call_fn *fn, int a, int b,
			      const struct ac_submit_opts *opts)
{
	int numbers[2] = { a, b };
	struct ac_task *task;

	must(ac_pool_submit(pool, &task, fn, numbers, sizeof numbers, opts));
	return task;
}

/* Wait for a task that has to end with this status; it is freed. */
static struct ac_outcome end_with(struct ac_task *task, int status)
{
	struct ac_outcome outcome;

	must(ac_task_wait(task, -1));
	must(ac_task_outcome(task, &outcome));
	expect(outcome.status == status, "ended with %s instead of %s",
	       ac_errname(outcome.status), ac_errname(status));
	ac_task_free(task);
	return outcome;
}

static void report(const char *what, int64_t took_ns, int64_t floor_ns)
{
	printf("  %s: %.1f ms, floor %.1f ms\n", what, (double)took_ns / 1e6,
	       (double)floor_ns / 1e6);
}

/* Running out of patience doesn't disturb the call: one may wait again. */
static void wait_with_limit(struct ac_pool *pool)
{
	int64_t start = clock_now();
	struct ac_task *task = submit(pool, nap, 0, 0, NULL);
	int code = ac_task_wait(task, nap_ms * MS / 4);
	const void *slept;

	expect(code == -ETIMEDOUT, "a short wait ended with %s", ac_errname(code));
	printf("a short wait: %s\n", ac_strerror(code));
	report("given up", clock_now() - start, nap_ms * MS / 4);
	must(ac_task_wait(task, -1));
	must(ac_task_result(task, &slept, NULL));
	report("waited again", clock_now() - start, *(const int64_t *)slept);
	ac_task_free(task);
}

/* Callbacks come one after the other: what only they use needs no lock. */
struct tally {
	int ended, failed, sum;
};

static void add_to_tally(void *done_arg, struct ac_task *task)
{
	struct tally *tally = done_arg;
	const void *quotient;

	tally->ended++;
	if (ac_task_result(task, &quotient, NULL) == 0)
		tally->sum += *(const int *)quotient;
	else
		tally->failed++;
}

static void call_back(struct ac_pool *pool)
{
	struct tally tally = { 0 };
	struct ac_submit_opts opts = {
		.size = sizeof opts,
		.done = add_to_tally,
		.done_arg = &tally,
	};

	for (int i = 0; i < 10; i++) {
		int numbers[2] = { 100, i };

		/* No handle is asked for: the callback is all that remains of it. */
		must(ac_pool_submit(pool, NULL, divide, numbers, sizeof numbers, &opts));
	}
	must(ac_pool_join(pool, -1));	/* also waits for callbacks to return */
	expect(tally.ended == 10 && tally.failed == 1 && tally.sum == 281,
	       "%d callbacks, %d for failures, sum %d", tally.ended, tally.failed, tally.sum);
	printf("callbacks: %d, of which %d for a failure\n", tally.ended, tally.failed);
}

static void fail(struct ac_pool *pool)
{
	struct ac_outcome outcome = end_with(submit(pool, divide, 7, 0, NULL), AC_ETASK);

	expect(strcmp(outcome.text, "7 can't be divided by zero") == 0,
	       "the text is \"%s\"", outcome.text);
	printf("a failure: %s: %s\n", ac_strerror(outcome.status), outcome.text);
}

/* The limit counts from the start of the function, not from its submission. */
static void run_too_long(struct ac_pool *pool)
{
	struct ac_submit_opts opts = { .size = sizeof opts, .timeout_ns = nap_ms * MS };
	int64_t start = clock_now();
	struct ac_outcome outcome = end_with(submit(pool, never_end, 0, 0, &opts), AC_ETIMEOUT);

	printf("a call without end: %s\n", ac_strerror(outcome.status));
	report("stopped", clock_now() - start, opts.timeout_ns);
}

static void lose_worker(struct ac_pool *pool)
{
	struct ac_task *beside = submit(pool, nap, 0, 0, NULL);
	struct ac_outcome outcome = end_with(submit(pool, die, 0, 0, NULL), AC_EDIED);

	expect(outcome.signal == SIGKILL, "signal %d", outcome.signal);
	printf("a killed worker: %s\n", outcome.text);
	end_with(beside, 0);			/* was running: not disturbed */
	end_with(submit(pool, divide, 6, 3, NULL), 0);	/* came later: there is a new worker */
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "ms", 200, 4, "how long the calls sleep" },
	};
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 2 };
	struct ac_pool *pool;

	args_read(argc, argv, "Asynchronous calls and what can become of them.", args, 1, NULL);
	nap_ms = args[0].value;
	must(ac_pool_open(&pool, &opts));
	wait_with_limit(pool);
	call_back(pool);
	fail(pool);
	run_too_long(pool);
	lose_worker(pool);
	return must(ac_pool_close(pool));
}

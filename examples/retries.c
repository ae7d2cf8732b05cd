/* SPDX-License-Identifier: MIT */
/*
 * Work whose processes die now and then: a library that crashes, memory that runs out. A death
 * costs the one task that its worker held, and that may be run again: so often as retries says.
 * Here each tenth piece kills its worker the first time, and one does it every time.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <allcores.h>

#include "example.h"

enum { RETRIES = 2 };

/* How often each piece was begun. Workers see it, since it is shared before they are forked;
 * without such a table nobody could tell a first time from a second. */
static _Atomic int *begun;
static int limit, hopeless;

/* Whatever it was that killed the worker: the kernel does the same when memory runs out. */
static void die_now_and_then(int piece)
{
	int before = begun[piece]++;

	if (piece == hopeless || (piece % 10 == 3 && before == 0))
		raise(SIGKILL);
}

static int count_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	die_now_and_then(*(const int *)item);
	*(int *)result = primes_below(limit);
	return 0;
}

static int count_call(struct ac_call *call)
{
	int count;

	die_now_and_then(*(const int *)ac_call_arg(call, NULL));
	count = primes_below(limit);
	return ac_call_return(call, &count, sizeof count);
}

/* ---- A map ---- */

static void map_all(struct ac_pool *pool, int count, int expected)
{
	int *items = room_for((size_t)count, sizeof *items);
	int *results = room_for((size_t)count, sizeof *results);
	struct ac_outcome failure;
	struct ac_map_opts opts = {
		.size = sizeof opts,
		.retries = RETRIES,
		.failure = &failure,
	};
	int r;

	for (int i = 0; i < count; i++)
		items[i] = i;
	r = ac_pool_map(pool, count_item, &opts, items, sizeof *items,
			results, sizeof *results, (size_t)count);
	expect(r == AC_EDIED, "the map ended with %s", ac_errname(r));
	expect((int)failure.index == hopeless, "item %d failed", (int)failure.index);
	printf("map: item %d is given up after %d times: %s\n", hopeless, begun[hopeless],
	       failure.text);
	for (int i = 0; i < count; i++)
		expect(i == hopeless || results[i] == expected, "item %d: %d primes", i,
		       results[i]);
	free(items);
	free(results);
}

/* ---- Single calls ---- */

/* 1: it is right; 0: it was given up. */
static int check_task(struct ac_task *task, int piece, int expected)
{
	struct ac_outcome outcome;
	const void *count;

	must(ac_task_wait(task, -1));
	must(ac_task_outcome(task, &outcome));
	if (outcome.status == 0) {
		must(ac_task_result(task, &count, NULL));
		expect(*(const int *)count == expected, "call %d is wrong", piece);
	} else {
		expect(outcome.status == AC_EDIED && outcome.signal == SIGKILL &&
		       piece == hopeless, "call %d: %s", piece, outcome.text);
	}
	ac_task_free(task);
	return outcome.status == 0;
}

static void call_all(struct ac_pool *pool, int count, int expected)
{
	struct ac_task **tasks = room_for((size_t)count, sizeof *tasks);
	struct ac_submit_opts opts = { .size = sizeof opts, .retries = RETRIES };
	int right = 0;

	for (int i = 0; i < count; i++)
		must(ac_pool_submit(pool, &tasks[i], count_call, &i, sizeof i, &opts));
	for (int i = 0; i < count; i++)
		right += check_task(tasks[i], i, expected);
	expect(right == count - 1, "%d of %d calls are right", right, count);
	free(tasks);
}

/* All pieces once; those that kill their worker for the first time twice, one three times. */
static int count_deaths(int count)
{
	int deaths = 0;

	for (int i = 0; i < count; i++) {
		expect(begun[i] == (i == hopeless ? 1 + RETRIES : 1 + (i % 10 == 3)),
		       "piece %d was begun %d times", i, begun[i]);
		deaths += i == hopeless ? 1 + RETRIES : i % 10 == 3;
		begun[i] = 0;
	}
	return deaths;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "pieces", 100, 1, "how many sieves, once as a map and once as single calls" },
		{ "limit", 2000000, 1, "count the primes below this" },
	};
	struct ac_pool_stat stat;
	struct ac_pool *pool;
	struct work work = { 0 };
	int64_t start;
	int count, deaths, expected = 0;

	args_read(argc, argv, "Work whose processes die now and then.", args, 2, NULL);
	count = args[0].value;
	limit = args[1].value;
	hopeless = count / 2;
	for (int i = 0; i < 2 * count; i++) {
		start = clock_now();
		expected = primes_below(limit);
		work_add(&work, clock_now() - start);
	}
	begun = mmap(NULL, (size_t)count * sizeof *begun, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(begun != MAP_FAILED, "no memory");

	start = clock_now();
	must(ac_pool_open(&pool, NULL));
	map_all(pool, count, expected);
	deaths = count_deaths(count);
	call_all(pool, count, expected);
	deaths += count_deaths(count);
	must(ac_pool_stat(pool, &stat, sizeof stat));
	must(ac_pool_close(pool));

	work_report("retries", clock_now() - start, &work, ac_cpus(0));
	expect((int)stat.deaths == deaths, "%d workers died", (int)stat.deaths);
	printf("%d workers died and were replaced; %d of %d pieces succeeded\n", deaths,
	       (int)stat.done, 2 * count);
	return 0;
}

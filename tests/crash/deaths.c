/* SPDX-License-Identifier: MIT */
/*
 * Random workers are killed from outside every few milliseconds while a map, single calls
 * and streams are under way. What the killed held fails as AC_EDIED (or is run
 * again where that was asked for), all else is right, the sum is kept, the pool is usable
 * afterwards, and nothing is left behind.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"

#define WORKERS 4
#define BYTES 4096
#define UNTOUCHED UINT64_C(0x5555555555555555)

/* ---- the killer: a process that knows what ps knows ---- */

static void kill_some(pid_t owner, uint64_t seed, int64_t nap)
{
	pid_t pids[WORKERS * 4];

	for (;;) {
		pid_t template = crash_template(owner);
		unsigned n = template ? crash_workers(template, pids, WORKERS * 4) : 0;

		if (n)
			kill(pids[crash_random(&seed) % n], SIGKILL);
		crash_sleep((int64_t)(crash_random(&seed) % (uint64_t)(2 * nap)));
	}
}

static pid_t start_killer(uint64_t seed, int64_t nap)
{
	pid_t owner = getpid(), pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	prctl(PR_SET_NAME, "killer", 0, 0, 0);
	kill_some(owner, seed, nap);
	_exit(0);
}

static void stop_killer(pid_t killer)
{
	kill(killer, SIGKILL);
	waitpid(killer, NULL, 0);
}

struct scene {
	struct crash_print before;
	pid_t killer;
	struct ac_pool *pool;
};

static void open_scene(struct scene *scene)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };

	crash_print_take(&scene->before);
	/* Before the pool: it shares nothing with it. */
	scene->killer = start_killer(crash_seed, 3 * MS);
	CHECK_EQ(ac_pool_open(&scene->pool, &opts), 0);
}

static void close_scene(struct scene *scene, uint64_t died, uint64_t submitted)
{
	struct ac_pool_stat stat;

	stop_killer(scene->killer);
	crash_check_sum(scene->pool, &stat);
	CHECK_EQ(stat.submitted, submitted);
	CHECK_EQ(stat.failed, died);
	CHECK_EQ(stat.cancelled, 0);
	crash_note("%llu deaths, %llu tasks lost of %llu",
		   (unsigned long long)stat.deaths, (unsigned long long)died,
		   (unsigned long long)submitted);
	crash_check_blocks(scene->pool, 0);
	CHECK(crash_await_workers(scene->pool, 5 * SECOND));
	crash_check_usable(scene->pool);
	CHECK_EQ(ac_pool_close(scene->pool), 0);
	crash_print_check(&scene->before);
}

static void check_death(const struct ac_outcome *outcome)
{
	if (outcome->status != AC_EDIED)
		crash_note("%s: %s", ac_errname(outcome->status), outcome->text);
	CHECK_EQ(outcome->status, AC_EDIED);
	CHECK_EQ(outcome->signal, SIGKILL);
	CHECK(outcome->pid > 0);
}

/* ---- a map ---- */

static int square_item(const void *item, void *result, const void *bound)
{
	uint64_t n = *(const uint64_t *)item;

	if (*(const uint64_t *)bound != 77)
		return 1;
	crash_burn(n % 64 ? 15000 : 100000);
	*(uint64_t *)result = n * n;
	return 0;
}

#define ITEMS 200000u

static uint64_t items[ITEMS], results[ITEMS];
static struct ac_outcome outcomes[ITEMS];

static uint64_t count_lost_items(void)
{
	uint64_t lost = 0;

	for (uint64_t i = 0; i < ITEMS; i++) {
		CHECK_EQ(outcomes[i].index, i);
		if (outcomes[i].status == 0) {
			CHECK_EQ(results[i], i * i);
			continue;
		}
		check_death(&outcomes[i]);
		CHECK_EQ(results[i], UNTOUCHED);
		lost++;
	}
	return lost;
}

static void kill_during_map(void *arg)
{
	static const uint64_t bound = 77;
	struct ac_outcome failure = { 0 };
	struct ac_map_opts opts = { .size = sizeof opts,
				    .bound = &bound,
				    .bound_size = sizeof bound,
				    .outcomes = outcomes,
				    .failure = &failure,
				    .retries = *(unsigned *)arg };
	struct scene scene;
	uint64_t lost;
	int r;

	for (uint64_t i = 0; i < ITEMS; i++) {
		items[i] = i;
		results[i] = UNTOUCHED;
	}
	open_scene(&scene);
	r = ac_pool_map(scene.pool, square_item, &opts, items, sizeof *items,
			results, sizeof *results, ITEMS);
	if (r && r != AC_EDIED)
		crash_note("%s: %s", ac_errname(r), failure.text);
	CHECK(r == 0 || r == AC_EDIED);
	lost = count_lost_items();
	CHECK_EQ(r, lost ? AC_EDIED : 0);
	if (opts.retries)
		CHECK_EQ(lost, 0);
	close_scene(&scene, lost, ITEMS);
}

/* ---- single calls ---- */

static void fill(unsigned char *bytes, uint64_t number, uint64_t add)
{
	for (unsigned i = 0; i < BYTES; i += 8) {
		uint64_t word = number * UINT64_C(0x9e3779b97f4a7c15) + i + add;

		memcpy(bytes + i, &word, 8);
	}
}

static int add_one(struct ac_call *call)
{
	size_t len;
	const uint64_t *from = ac_call_arg(call, &len);
	uint64_t *to = ac_call_reserve(call, BYTES);

	if (len != BYTES || !to)
		return ac_call_fail(call, "%zu bytes, room %p", len, (void *)to);
	crash_burn(40000);
	for (unsigned i = 0; i < BYTES / 8; i++)
		to[i] = from[i] + 1;
	return 0;
}

/* 0, or 1 when it died. */
static unsigned check_task(struct ac_task *task, uint64_t number)
{
	unsigned char expected[BYTES];
	struct ac_outcome outcome;
	const void *data;
	size_t len;

	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	if (outcome.status) {
		check_death(&outcome);
		return 1;
	}
	CHECK_EQ(ac_task_result(task, &data, &len), 0);
	CHECK_EQ(len, BYTES);
	fill(expected, number, 1);
	CHECK(memcmp(data, expected, BYTES) == 0);
	return 0;
}

#define CALLS 20000u
#define UNDER_WAY 2000u /* more than are published at a time */

static struct ac_task *tasks[CALLS];

static void kill_during_calls(void *arg)
{
	struct ac_submit_opts opts = { .size = sizeof opts,
				       .retries = *(unsigned *)arg };
	unsigned char bytes[BYTES];
	struct scene scene;
	uint64_t lost = 0;

	open_scene(&scene);
	for (uint64_t i = 0; i < CALLS + UNDER_WAY; i++) {
		if (i < CALLS) {
			fill(bytes, i, 0);
			CHECK_EQ(ac_pool_submit(scene.pool, &tasks[i], add_one,
						bytes, BYTES, &opts), 0);
		}
		if (i < UNDER_WAY)
			continue;
		CHECK_EQ(ac_task_wait(tasks[i - UNDER_WAY], 10 * SECOND), 0);
		lost += check_task(tasks[i - UNDER_WAY], i - UNDER_WAY);
		ac_task_free(tasks[i - UNDER_WAY]);
	}
	if (opts.retries)
		CHECK_EQ(lost, 0);
	close_scene(&scene, lost, CALLS);
}

/* ---- streams ---- */

#define STREAM 40000u

struct numbers {
	uint64_t next;
	unsigned char bytes[BYTES];
};

static int next_bytes(void *arg, const void **data, size_t *len)
{
	struct numbers *numbers = arg;

	if (numbers->next == STREAM)
		return 0;
	fill(numbers->bytes, numbers->next++, 0);
	*data = numbers->bytes;
	*len = BYTES;
	return 1;
}

static void kill_during_stream(void *arg)
{
	static bool seen[STREAM];
	struct numbers numbers = { 0 };
	struct ac_stream_opts opts = { .size = sizeof opts,
				       .source = next_bytes,
				       .source_arg = &numbers,
				       .flags = *(unsigned *)arg };
	struct ac_outcome outcome;
	struct ac_stream *stream;
	struct ac_task *task;
	struct scene scene;
	uint64_t taken = 0, lost = 0;
	int r;

	open_scene(&scene);
	CHECK_EQ(ac_stream_open(&stream, scene.pool, add_one, &opts), 0);
	while ((r = ac_stream_next(stream, &task, 10 * SECOND)) == 1) {
		CHECK_EQ(ac_task_outcome(task, &outcome), 0);
		CHECK(outcome.index < STREAM && !seen[outcome.index]);
		seen[outcome.index] = true;
		if (!opts.flags)
			CHECK_EQ(outcome.index, taken);
		lost += check_task(task, outcome.index);
		ac_task_free(task);
		taken++;
	}
	CHECK_EQ(r, 0);
	CHECK_EQ(taken, STREAM);
	ac_stream_close(stream);
	close_scene(&scene, lost, STREAM);
}

int main(int argc, char **argv)
{
	unsigned none = 0, many = 1000;
	unsigned ordered = 0, unordered = AC_STREAM_UNORDERED;

	crash_begin(argc, argv);
	crash_case("kill workers during a map", kill_during_map, &none, 30);
	crash_case("kill workers during a map that retries", kill_during_map,
		   &many, 30);
	crash_case("kill workers during calls", kill_during_calls, &none, 30);
	crash_case("kill workers during calls that are retried",
		   kill_during_calls, &many, 30);
	crash_case("kill workers during a stream", kill_during_stream, &ordered, 30);
	crash_case("kill workers during an unordered stream", kill_during_stream,
		   &unordered, 30);
	return crash_end();
}

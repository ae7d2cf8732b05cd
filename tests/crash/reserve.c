/* SPDX-License-Identifier: MIT */
/*
 * The template's reserve, a copy of the template that takes its place: templates are killed one after
 * the other, with work going on, and the pool starts workers all the while. When both are lost
 * the workers go on; and when none of them is left the pool says why it can't go on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "crash.h"

#define WORKERS 3
#define TASKS 30
#define ROUNDS 20
#define SEEN_MOST 256

static struct crash_print before;
static struct ac_pool *pool;
static struct ac_task *tasks[TASKS];
static pid_t seen[SEEN_MOST]; /* all processes of the pool that this test came across */
static unsigned seen_count;

/* ---- steps ---- */

static int nap_call(struct ac_call *call)
{
	crash_sleep(*(const int64_t *)ac_call_arg(call, NULL));
	return 0;
}

static void open_pool(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };

	crash_print_take(&before);
	CHECK_EQ(ac_pool_open(&pool, &opts), 0);
	CHECK(crash_await_workers(pool, 10 * SECOND));
	CHECK(crash_await_reserve(pool, 10 * SECOND));
}

static void close_pool(void)
{
	int64_t start = crash_now();
	struct ac_pool_stat stat;

	crash_check_sum(pool, &stat);
	CHECK_EQ(ac_pool_close(pool), 0);
	CHECK(crash_now() - start < 3 * SECOND);
	crash_print_check(&before);
}

static void submit(unsigned n, int64_t ns)
{
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(ac_pool_submit(pool, &tasks[i], nap_call, &ns, sizeof ns, NULL), 0);
}

static void await_running(unsigned n)
{
	struct ac_pool_stat stat = { 0 };
	int64_t end = crash_now() + 5 * SECOND;

	while (stat.running < n) {
		CHECK(crash_now() < end);
		CHECK_EQ(ac_pool_stat(pool, &stat, sizeof stat), 0);
		crash_sleep(MS);
	}
}

/* How many did not succeed. */
static unsigned collect(unsigned n, struct ac_outcome *failure)
{
	struct ac_outcome outcome;
	unsigned failed = 0;

	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(ac_task_wait(tasks[i], 10 * SECOND), 0);
		CHECK_EQ(ac_task_outcome(tasks[i], &outcome), 0);
		ac_task_free(tasks[i]);
		if (outcome.status == 0)
			continue;
		if (failure)
			*failure = outcome;
		failed++;
	}
	return failed;
}

static pid_t pid_of_worker(unsigned number)
{
	struct ac_worker_stat stats[WORKERS];

	CHECK_EQ(ac_pool_workers(pool, stats, WORKERS), WORKERS);
	CHECK(stats[number].pid > 0);
	return stats[number].pid;
}

static void kill_now(pid_t pid)
{
	CHECK(pid > 0);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK(crash_await_death(pid, 5 * SECOND));
}

/* The reserve first: so nothing takes the template's place. */
static void kill_both(void)
{
	pid_t template = crash_template_of(pool);

	kill_now(crash_reserve_of(pool));
	kill_now(template);
}

static void see(pid_t pid)
{
	CHECK(pid > 0 && seen_count < SEEN_MOST);
	seen[seen_count++] = pid;
}

static void see_all(void)
{
	see(crash_template_of(pool));
	see(crash_reserve_of(pool));
	for (unsigned i = 0; i < WORKERS; i++)
		see(pid_of_worker(i));
}

static void check_nobody_is_left(void)
{
	for (unsigned i = 0; i < seen_count; i++)
		if (!crash_await_death(seen[i], SECOND))
			crash_fail(__FILE__, __LINE__, "process %d is left", (int)seen[i]);
}

/* ---- templates that are killed one after the other ---- */

/* Its workers have no parent any more, and there is a reserve again. */
static void lose_template(void)
{
	submit(TASKS, 2 * MS);
	await_running(WORKERS);
	kill_now(crash_template_of(pool));
	CHECK_EQ(collect(TASKS, NULL), 0);
	CHECK(crash_await_reserve(pool, 10 * SECOND));
}

static void replace_worker(unsigned number)
{
	pid_t old = pid_of_worker(number);

	kill_now(old);
	crash_check_usable(pool);
	CHECK(crash_await_workers(pool, 10 * SECOND));
	CHECK(pid_of_worker(number) != old);
	see_all();
}

static void kill_templates(void *arg)
{
	bool adopts_orphans = *(bool *)arg;
	struct crash_print first, print;

	if (adopts_orphans)
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	open_pool();
	see_all();
	for (unsigned round = 0; round < ROUNDS; round++) {
		crash_at("round %u", round);
		lose_template();
		crash_print_take(&print);
		if (round == 0)
			first = print;
		CHECK_EQ(print.descriptors, first.descriptors);
		replace_worker(round % WORKERS);
	}
	close_pool();
	check_nobody_is_left();
	if (adopts_orphans)
		crash_await_nobody(SECOND);
}

/* The template makes another one. */
static void kill_reserves(void *arg)
{
	(void)arg;
	open_pool();
	for (unsigned round = 0; round < 3; round++) {
		pid_t template = crash_template_of(pool), reserve = crash_reserve_of(pool);

		see_all();
		kill_now(reserve);
		CHECK(crash_await_reserve(pool, 10 * SECOND));
		CHECK(crash_reserve_of(pool) != reserve);
		CHECK_EQ(crash_template_of(pool), template);
	}
	lose_template();
	replace_worker(0);
	close_pool();
	check_nobody_is_left();
}

/* The report of a worker's end, which nobody takes, does not hide that of the reserve. */
static void kill_reserve_behind_worker(void *arg)
{
	pid_t template, reserve, children[8];
	int64_t end = crash_now() + 10 * SECOND;

	(void)arg;
	open_pool();
	template = crash_template_of(pool);
	reserve = crash_reserve_of(pool);
	kill_now(pid_of_worker(0));
	crash_sleep(20 * MS);
	kill_now(reserve);
	/* Two workers, a dead one, and the next reserve. The owner does not look. */
	while (crash_state(reserve) || crash_children(template, children, 8) < 4) {
		CHECK(crash_now() < end);
		crash_sleep(MS);
	}
	CHECK(crash_await_reserve(pool, 10 * SECOND));
	kill_now(template);
	crash_check_usable(pool);
	CHECK(crash_await_workers(pool, 10 * SECOND));
	close_pool();
}

/* ---- both are lost ---- */

static void check_fails(void)
{
	struct ac_outcome failure = { 0 };
	struct ac_worker_stat stats[WORKERS];

	submit(TASKS, 500 * MS);
	await_running(1);
	CHECK_EQ(ac_pool_workers(pool, stats, WORKERS), WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		if (stats[i].pid > 0)
			kill_now(stats[i].pid);
	CHECK(collect(TASKS, &failure) >= 1);
	CHECK_EQ(failure.status, AC_ESTART);
	if (!strstr(failure.text, "template") || !strstr(failure.text, "signal 9"))
		crash_fail(__FILE__, __LINE__, "the text is: %s", failure.text);
	CHECK_EQ(ac_pool_submit(pool, NULL, nap_call, NULL, 0, NULL), AC_ESTART);
}

static void kill_both_and_workers(void *arg)
{
	bool busy = *(bool *)arg;

	open_pool();
	see_all();
	if (busy) {
		submit(TASKS, 5 * MS);
		await_running(WORKERS);
	}
	kill_both();
	if (busy)
		CHECK_EQ(collect(TASKS, NULL), 0);
	crash_check_usable(pool);
	for (unsigned i = 0; i + 1 < WORKERS; i++) {
		kill_now(pid_of_worker(i));
		crash_check_usable(pool);
	}
	check_fails();
	close_pool();
	check_nobody_is_left();
}

/* A template that is stopped does not reap its reserve: that comes to an owner that adopts orphans. */
static void adopt_dead_reserve(void *arg)
{
	pid_t template;

	(void)arg;
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	open_pool();
	see_all();
	template = crash_template_of(pool);
	CHECK_EQ(kill(template, SIGSTOP), 0);
	kill_now(crash_reserve_of(pool));
	kill_now(template);
	crash_check_usable(pool);
	check_fails();
	close_pool();
	check_nobody_is_left();
	crash_await_nobody(SECOND);
}

/* At some time after the pool was opened, mostly before there is a reserve. Either the pool goes on
 * or it says that it can't. */
static void kill_early(void *arg)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = WORKERS };
	unsigned failed = 0, rounds = CRASH_SANITIZED ? 20 : 100;
	uint64_t seed = crash_seed;

	(void)arg;
	crash_print_take(&before);
	for (unsigned round = 0; round < rounds; round++) {
		struct ac_outcome failure = { 0 };
		pid_t template;

		crash_at("round %u", round);
		CHECK_EQ(ac_pool_open(&pool, &opts), 0);
		template = crash_template_of(pool);
		CHECK(template > 0);
		crash_burn((int64_t)(crash_random(&seed) % (uint64_t)(MS / 8 << round % 6)));
		kill(template, SIGKILL);
		for (unsigned i = 0; i < WORKERS; i++) {
			int64_t ns = MS;
			int r = ac_pool_submit(pool, &tasks[i], nap_call, &ns, sizeof ns, NULL);

			CHECK(r == 0 || r == AC_ESTART);
			if (r == 0)
				continue;
			tasks[i] = NULL;
			failure.status = r;
		}
		for (unsigned i = 0; i < WORKERS; i++) {
			if (!tasks[i])
				continue;
			CHECK_EQ(ac_task_wait(tasks[i], 10 * SECOND), 0);
			if (failure.status == 0)
				CHECK_EQ(ac_task_outcome(tasks[i], &failure), 0);
			CHECK(failure.status == 0 || failure.status == AC_ESTART);
			ac_task_free(tasks[i]);
		}
		failed += failure.status != 0;
		CHECK_EQ(ac_pool_close(pool), 0);
		crash_print_check(&before);
	}
	crash_note("%u of %u pools could not go on", failed, rounds);
	CHECK(failed < rounds);
}

/* ---- what must not burn time ---- */

static void set_limit(pid_t pid, int resource, uint64_t n)
{
	struct rlimit limit;

	CHECK_EQ(prlimit(pid, resource, NULL, &limit), 0);
	limit.rlim_cur = n;
	CHECK_EQ(prlimit(pid, resource, &limit, NULL), 0);
}

static int64_t used_time(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* The owner has no descriptor for a reserve, so that each reserve ends at once. */
static void refuse_reserves(void *arg)
{
	struct rlimit limit;
	pid_t template, reserve;
	clockid_t clock;
	int64_t end, used;

	(void)arg;
	open_pool();
	template = crash_template_of(pool);
	reserve = crash_reserve_of(pool);
	CHECK(reserve > 0);
	CHECK_EQ(clock_getcpuclockid(template, &clock), 0);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	set_limit(0, RLIMIT_NOFILE, 3);
	kill(reserve, SIGKILL);
	used = used_time(clock);
	end = crash_now() + 2 * SECOND;
	while (crash_now() < end) {
		ac_pool_dispatch(pool);
		crash_sleep(MS / 10);
	}
	used = used_time(clock) - used;
	set_limit(0, RLIMIT_NOFILE, limit.rlim_cur);
	crash_note("the template used %lld us", (long long)(used / 1000));
	CHECK(used < SECOND / 10);
	CHECK(crash_await_reserve(pool, 10 * SECOND));
	lose_template();
	replace_worker(0);
	close_pool();
}

/* Starts have failed, so the next one waits for its time. Then nobody is left to start it. */
static void sleep_without_template(void *arg)
{
	struct ac_worker_stat stats[WORKERS];
	int64_t used;

	(void)arg;
	open_pool();
	set_limit(crash_template_of(pool), RLIMIT_NOFILE, 0);
	kill_now(pid_of_worker(0));
	CHECK(!crash_await_workers(pool, 300 * MS));
	kill_both();
	CHECK(!crash_await_workers(pool, 1500 * MS));
	submit(1, SECOND);
	used = used_time(CLOCK_PROCESS_CPUTIME_ID);
	CHECK_EQ(collect(1, NULL), 0);
	CHECK(used_time(CLOCK_PROCESS_CPUTIME_ID) - used < SECOND / 2);
	CHECK_EQ(ac_pool_workers(pool, stats, WORKERS), WORKERS);
	crash_check_usable(pool);
	close_pool();
}

int main(int argc, char **argv)
{
	bool no = false, yes = true;

	crash_begin(argc, argv);
	crash_case("templates killed one after the other", kill_templates, &no, 30);
	crash_case("templates killed, of an owner that adopts orphans", kill_templates, &yes,
		   30);
	crash_case("reserves killed one after the other", kill_reserves, NULL, 20);
	crash_case("a reserve killed after a worker that nobody asks for",
		   kill_reserve_behind_worker, NULL, 20);
	crash_case("template and reserve killed, idle", kill_both_and_workers, &no, 20);
	crash_case("template and reserve killed, busy", kill_both_and_workers, &yes, 20);
	crash_case("template and reserve killed, of an owner that adopts orphans",
		   adopt_dead_reserve, NULL, 20);
	crash_case("template killed soon after opening", kill_early, NULL, 40);
	crash_case("the owner can't take a reserve", refuse_reserves, NULL, 20);
	crash_case("no template, and a start was to be tried again", sleep_without_template,
		   NULL, 20);
	return crash_end();
}

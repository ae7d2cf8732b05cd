/* SPDX-License-Identifier: MIT */
/*
 * An owner that waits beside workers that are busy: as many tasks of 200 µs as
 * there are cores, handed in and waited for, again and again. An owner that
 * spins while it waits takes a core from a worker, and the batch takes up to
 * half as long again. "Ideal" is one such task in the owner itself; "loops at
 * once" is what the machine makes of all cores being busy.
 */
#include "bench.h"
#include "peer_pthread.h"

#define BATCHES 200
#define BUSY_NS 200000

static struct {
	struct ac_pool *pool;
	struct peer_pthread *threads;
	uint64_t steps;
	uint64_t expected[BENCH_WORKERS_MAX];
	double took[BATCHES];
} wait_row;

static int run_busy(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(uint64_t *)result = bench_work(*(const uint64_t *)item, wait_row.steps);
	return 0;
}

static int run_busy_call(struct ac_call *call)
{
	uint64_t result;

	run_busy(ac_call_arg(call, NULL), &result, NULL);
	return ac_call_return(call, &result, sizeof result);
}

static void check_result(uint64_t i, uint64_t result)
{
	if (result != wait_row.expected[i])
		bench_die("wrong result of task %llu", (unsigned long long)i);
}

static void collect_ours(struct ac_task *task, uint64_t i)
{
	const void *data;
	size_t len;

	bench_must(ac_task_wait(task, -1), "ac_task_wait");
	bench_must(ac_task_result(task, &data, &len), "ac_task_result");
	if (len != sizeof(uint64_t))
		bench_die("a result of %zu bytes", len);
	check_result(i, *(const uint64_t *)data);
	ac_task_free(task);
}

static void batch_ours(void)
{
	struct ac_task *task[BENCH_WORKERS_MAX];

	for (uint64_t i = 0; i < bench_config.cores; i++)
		bench_must(ac_pool_submit(wait_row.pool, &task[i], run_busy_call, &i, sizeof i,
					  NULL), "ac_pool_submit");
	for (uint64_t i = 0; i < bench_config.cores; i++)
		collect_ours(task[i], i);
}

static void batch_threads(void)
{
	struct peer_task *task[BENCH_WORKERS_MAX];

	for (uint64_t i = 0; i < bench_config.cores; i++)
		task[i] = peer_pthread_submit(wait_row.threads, run_busy, i);
	for (uint64_t i = 0; i < bench_config.cores; i++)
		check_result(i, peer_pthread_collect(wait_row.threads, task[i]));
}

static void batch_ideal(void)
{
	check_result(0, bench_work(0, wait_row.steps));
}

/* The middle batch, µs. */
static void run_batches(void *arg, double *figures)
{
	void (**batch)(void) = arg;

	for (int i = 0; i < BATCHES; i++) {
		int64_t start = bench_now();

		(*batch)();
		wait_row.took[i] = (double)(bench_now() - start) / 1e3;
	}
	figures[0] = bench_percentile(wait_row.took, BATCHES, 0.5);
}

static void run_share(unsigned number)
{
	(void)number;
	for (int i = 0; i < BATCHES; i++)
		batch_ideal();
}

static void run_loops(void *arg, double *figures)
{
	(void)arg;
	figures[0] = (double)bench_on_cores(run_share) / 1e3 / BATCHES;
}

static void set_up(void)
{
	if (bench_config.cores > BENCH_WORKERS_MAX)
		bench_die("more than %d cores", BENCH_WORKERS_MAX);
	wait_row.steps = bench_steps(BUSY_NS);
	for (uint64_t i = 0; i < bench_config.cores; i++)
		wait_row.expected[i] = bench_work(i, wait_row.steps);
	wait_row.pool = bench_pool(bench_config.cores);
	wait_row.threads = peer_pthread_open(bench_config.cores);
}

void bench_row_wait(void)
{
	static void (*ours)(void) = batch_ours, (*threads)(void) = batch_threads,
		    (*ideal)(void) = batch_ideal;
	struct bench_side sides[] = {
		{ .name = "ours", .run = run_batches, .arg = &ours },
		{ .name = "ideal", .run = run_batches, .arg = &ideal },
		{ .name = "loops at once", .run = run_loops },
		{ .name = "pthread pool", .run = run_batches, .arg = &threads },
	};

	set_up();
	bench_interleave(sides, 4, 7);
	for (int i = 1; i < 4; i++)
		bench_report(&(struct bench_line){
			.what = "a task of 200 us on each core", .peer = sides[i].name,
			.unit = "us", .ours = &sides[0].figure[0],
			.theirs = &sides[i].figure[0], .lower = true });
	ac_pool_close(wait_row.pool);
	peer_pthread_close(wait_row.threads);
}

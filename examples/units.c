/* SPDX-License-Identifier: MIT */
/*
 * Calls that can be divided. The costs of these pieces differ much, and nobody knows them: each
 * worker gets an even share of the pieces as the units of one call, and begins them one after
 * the other. When a worker has nothing to do, what the longest call has not begun is taken back,
 * and handed in anew in two halves. No size of a chunk has to be guessed.
 * (ac_pool_map does this by itself; a stream is for those who decide for themselves.)
 */
#include <stdio.h>
#include <stdlib.h>

#include <allcores.h>

#include "example.h"

/* What one call is about. */
struct span {
	uint32_t first, count;
};

/* What it comes to. */
struct sum {
	uint32_t units;
	int64_t primes;
};

static int most;	/* the last piece's limit; the first ones cost next to nothing */
static int pieces;

static int count_piece(uint32_t piece)
{
	double part = (double)(piece + 1) / pieces;

	return primes_below((int)(part * part * part * most) + 1);
}

/* In a worker. How many units are its own it learns as it goes. */
static int count_span(struct ac_call *call)
{
	const struct span *span = ac_call_arg(call, NULL);
	struct sum sum = { 0 };

	while (ac_call_next_unit(call))
		sum.primes += count_piece(span->first + sum.units++);
	return ac_call_return(call, &sum, sizeof sum);
}

/* ---- The owner ---- */

/* Calls by their index in the stream. */
struct calls {
	struct ac_stream *stream;
	struct span *spans;
	uint64_t count;
	int divided;
};

static void push(struct calls *calls, uint32_t first, uint32_t count)
{
	struct ac_push_opts opts = { .size = sizeof opts, .units = count };
	struct span span = { first, count };
	uint64_t index;

	if (!count)
		return;
	must(ac_stream_push(calls->stream, &span, sizeof span, &opts, &index));
	expect(index == calls->count, "call %d came as %d", (int)calls->count, (int)index);
	calls->spans = realloc(calls->spans, ++calls->count * sizeof span);
	expect(calls->spans != NULL, "no memory");
	calls->spans[index] = span;
}

/* Somebody has nothing to do. */
static void divide(struct calls *calls)
{
	uint64_t index;
	uint32_t kept, first, count;

	if (must(ac_stream_take_back(calls->stream, &index, NULL, &kept)) == 0)
		return;	/* no call has a unit that has not begun */
	first = calls->spans[index].first + kept;
	count = calls->spans[index].count - kept;
	calls->spans[index].count = kept;
	calls->divided++;
	push(calls, first, count / 2);
	push(calls, first + count / 2, count - count / 2);
}

/* The next call that has ended: its units, each of them once. */
static uint32_t take(struct calls *calls, int64_t *primes)
{
	struct ac_outcome outcome;
	struct ac_task *task;
	const struct sum *sum;
	const void *data;
	uint32_t units;

	must(ac_stream_next(calls->stream, &task, -1));
	must(ac_task_outcome(task, &outcome));
	must(ac_task_result(task, &data, NULL));
	sum = data;
	units = sum->units;
	expect(units == calls->spans[outcome.index].count, "call %d ran %d units",
	       (int)outcome.index, (int)units);
	*primes += sum->primes;
	ac_task_free(task);
	return units;
}

static int64_t count_all(struct calls *calls, int workers)
{
	int64_t primes = 0;
	uint32_t all = (uint32_t)pieces, ended = 0;

	for (uint32_t i = 0; i < (uint32_t)workers; i++) {
		uint32_t first = (uint32_t)((uint64_t)all * i / (uint32_t)workers);
		uint32_t end = (uint32_t)((uint64_t)all * (i + 1) / (uint32_t)workers);

		push(calls, first, end - first);
	}
	while (ended < all) {
		ended += take(calls, &primes);
		divide(calls);
	}
	must(ac_stream_end(calls->stream));
	return primes;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "pieces", 200, 1, "how many pieces" },
		{ "limit", 20000000, 1, "count the primes below this in the largest" },
	};
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	struct calls calls = { 0 };
	struct ac_pool *pool;
	struct ac_task *task;
	struct work work = { 0 };
	int64_t start, expected = 0, primes;
	int cpus = ac_cpus(0);

	args_read(argc, argv, "Calls that can be divided.", args, 2, NULL);
	pieces = args[0].value;
	most = args[1].value;
	for (int i = 0; i < pieces; i++) {
		start = clock_now();
		expected += count_piece((uint32_t)i);
		work_add(&work, clock_now() - start);
	}

	start = clock_now();
	must(ac_pool_open(&pool, NULL));
	must(ac_stream_open(&calls.stream, pool, count_span, &opts));
	primes = count_all(&calls, cpus);
	expect(ac_stream_next(calls.stream, &task, 0) == 0, "a call is left");
	ac_stream_close(calls.stream);
	must(ac_pool_close(pool));
	work_report("units", clock_now() - start, &work, cpus);

	expect(primes == expected, "%lld primes instead of %lld", (long long)primes,
	       (long long)expected);
	printf("%d pieces came in %d calls, of which %d were divided\n", pieces,
	       (int)calls.count, calls.divided);
	free(calls.spans);
	return 0;
}

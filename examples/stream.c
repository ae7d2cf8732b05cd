/* SPDX-License-Identifier: MIT */
/*
 * Results one by one from a source without end. Which is the first number that needs more than
 * 500 steps to come down to 1, if even numbers are halved and odd ones become 3n + 1? Nobody
 * knows beforehand how far to look: so blocks of numbers are made as they are needed,
 * and whoever takes the results stops when one has the answer.
 */
#include <stdio.h>

#include <allcores.h>

#include "example.h"

enum { BLOCK = 10000 };

/* The first number of a block with more than this many steps, 0 for none. */
struct block {
	int64_t first;
	int steps;
};

static int count_steps(int64_t n)
{
	int steps = 0;

	for (; n > 1; steps++)
		n = n % 2 ? 3 * n + 1 : n / 2;
	return steps;
}

static int64_t search(const struct block *block)
{
	for (int64_t n = block->first; n < block->first + BLOCK; n++)
		if (count_steps(n) > block->steps)
			return n;
	return 0;
}

static int search_in_worker(struct ac_call *call)
{
	int64_t found = search(ac_call_arg(call, NULL));

	return ac_call_return(call, &found, sizeof found);
}

/* The source: called by ac_stream_next, in this process and thread. It never returns 0, the end. */
struct source {
	struct block block;
	int64_t asked;
};

static int next_block(void *source_arg, const void **arg, size_t *len)
{
	struct source *source = source_arg;

	source->block.first = 1 + source->asked++ * BLOCK;
	*arg = &source->block;
	*len = sizeof source->block;
	return 1;
}

static int64_t search_stream(struct ac_stream *stream, int64_t *taken)
{
	int64_t found = 0;

	/* Results come in the order of the source: the first that is found is the first. */
	while (!found) {
		struct ac_task *task;
		const void *result;

		must(ac_stream_next(stream, &task, -1));
		must(ac_task_result(task, &result, NULL));
		found = *(const int64_t *)result;
		ac_task_free(task);
		++*taken;
	}
	return found;
}

static int64_t search_alone(int steps, struct work *work)
{
	struct block block = { 1, steps };
	int64_t found = 0;

	for (; !found; block.first += BLOCK) {
		int64_t start = clock_now();

		found = search(&block);
		work_add(work, clock_now() - start);
	}
	return found;
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "steps", 500, 1, "how many steps a number has to pass" },
	};
	struct source source = { 0 };
	struct ac_stream_opts opts = {
		.size = sizeof opts,
		.source = next_block,
		.source_arg = &source,
	};
	struct ac_stream *stream;
	struct ac_pool *pool;
	struct work work = { 0 };
	int64_t start, expected, found, taken = 0;
	int cpus = ac_cpus(0);

	args_read(argc, argv, "Results one by one from an endless source.", args, 1, NULL);
	source.block.steps = args[0].value;
	expected = search_alone(args[0].value, &work);

	start = clock_now();
	opts.ahead = 4 * (size_t)cpus;	/* keeps all busy, and little is searched in vain */
	must(ac_pool_open(&pool, NULL));
	must(ac_stream_open(&stream, pool, search_in_worker, &opts));
	found = search_stream(stream, &taken);
	ac_stream_close(stream);	/* blocks that have been read ahead are dropped */
	must(ac_pool_close(pool));
	work_report("stream", clock_now() - start, &work, cpus);

	printf("%lld takes %d steps; %lld blocks were read, %lld results taken\n",
	       (long long)found, count_steps(found), (long long)source.asked, (long long)taken);
	expect(found == expected, "the loop found %lld", (long long)expected);
	expect(args[0].value != 500 || found == 626331, "it is 626331");
	expect(source.asked <= taken + (int64_t)opts.ahead, "the source was read too far ahead");
	return 0;
}

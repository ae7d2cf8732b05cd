/* SPDX-License-Identifier: MIT */
/* Data that calls of fed streams share, by the words of the public header; and, with internal
 * names, what is left of it. */
#include "pool_help.h"

#include "engine.h"
#include "worker.h"

#include "feed_help.h"

/* What a call expects to be bound to. */
struct expected {
	size_t len;
	unsigned seed;
	bool none;
	int die;	/* -1: at each attempt; 1: at the first */
	bool spoil;	/* write over what the owner has written, before dying */
	bool wait;	/* for seen->go, before reading */
};

static struct ac_bound *make(size_t len, unsigned seed)
{
	unsigned char *bytes = malloc(len + 1);
	struct ac_bound *bound = NULL;

	fill_bytes(bytes, len, seed);
	assert_int_equal(ac_bound_make(&bound, pool, len ? bytes : NULL, len), 0);
	assert_non_null(bound);
	free(bytes);
	return bound;
}

static void push_bound(struct ac_stream *stream, struct ac_bound *bound, struct expected expected)
{
	struct ac_push_opts opts = { .size = sizeof opts, .bound = bound };

	assert_int_equal(ac_stream_push(stream, &expected, sizeof expected, &opts, NULL), 0);
}

static unsigned blocks_in_use(void)
{
	return ac__block_in_use(ac__pool_arena(pool));
}

/* ---- what workers run ---- */

static int is_as_expected(const struct expected *expected, const unsigned char *bytes, size_t len)
{
	unsigned char *right;
	int same;

	if (expected->none)
		return !bytes && !len;
	if (!bytes || len != expected->len || (uintptr_t)bytes % (len < 4096 ? 16 : 4096))
		return 0;
	right = malloc(len + 1);
	fill_bytes(right, len, expected->seed);
	same = memcmp(right, bytes, len) == 0;
	free(right);
	return same;
}

static void spoil_row(struct ac_call *call)
{
	call->task->bound_block = 12345;
	call->task->bound_len = UINT64_MAX;
	call->task->flags = 0;
}

static int check_bound(struct ac_call *call)
{
	const struct expected *expected = ac_call_arg(call, NULL);
	unsigned run = atomic_fetch_add(&seen->runs, 1);
	size_t len = 99;
	const void *bytes;

	while (expected->wait && !seen->go)
		nap(MS);
	bytes = ac_call_bound(call, &len);
	if (ac_call_bound(call, NULL) != bytes || !is_as_expected(expected, bytes, len))
		return 1;
	if (expected->spoil && run == 0)
		spoil_row(call);
	if (expected->die < 0 || (expected->die && run == 0))
		die(SIGKILL);
	return 0;
}

static int check_bound_of_map(const void *item, void *result, const void *bound)
{
	size_t len;
	const void *same = ac_call_bound(ac_call_current(), &len);

	(void)item, (void)result;
	return same != bound || len != (bound ? 5000 : 0);
}

/* ---- reading ---- */

static void test_bound_is_read_by_all_calls(void **state)
{
	static const size_t lens[] = { 0, 1, 63, 4095, 4096, 4097, 100000, 3 * MB };
	struct ac_stream *stream = open_fed(check_bound, 0);

	(void)state;
	for (unsigned i = 0; i < COUNT(lens); i++) {
		struct ac_bound *bound = make(lens[i], i);

		for (int n = 0; n < 20; n++)
			push_bound(stream, bound, (struct expected){ .len = lens[i], .seed = i });
		ac_bound_free(bound);
	}
	for (unsigned i = 0; i < 20 * COUNT(lens); i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	assert_int_equal(blocks_in_use(), 0);
	ac_stream_close(stream);
}

/* A slot does not remember what its last piece was bound to. */
static void test_bound_is_of_no_other_call(void **state)
{
	struct ac_stream *stream = open_fed(check_bound, 0);
	struct ac_bound *bounds[2] = { make(100, 0), make(5000, 1) };

	(void)state;
	assert_null(ac_call_bound(NULL, NULL));
	for (unsigned i = 0; i < 3000; i++) {
		struct expected expected = { .len = i % 3 ? 5000 : 100, .seed = i % 3 };

		expected.none = i % 3 == 2;
		push_bound(stream, expected.none ? NULL : bounds[i % 3], expected);
	}
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	ac_bound_free(bounds[0]);
	ac_bound_free(bounds[1]);
	ac_bound_free(NULL);
	assert_int_equal(blocks_in_use(), 0);
	ac_stream_close(stream);
}

static void test_bound_of_a_map_is_its_calls(void **state)
{
	static const char bytes[5000];
	struct ac_map_opts opts = { .size = sizeof opts, .bound = bytes,
				    .bound_size = sizeof bytes };

	(void)state;
	assert_int_equal(ac_pool_map(pool, check_bound_of_map, &opts, NULL, 0, NULL, 0, 100), 0);
	assert_int_equal(ac_pool_map(pool, check_bound_of_map, NULL, NULL, 0, NULL, 0, 100), 0);
	assert_int_equal(blocks_in_use(), 0);
}

/* If a call did not hold it, the ones made later would lie in its place. */
static void test_bound_is_kept_by_calls_that_run_and_wait(void **state)
{
	enum { N = 5000 };
	struct ac_stream *stream = open_fed(check_bound, 0);
	struct ac_bound *bound = make(5000, 1), *others[10];

	(void)state;
	for (int i = 0; i < N; i++)
		push_bound(stream, bound,
			   (struct expected){ .len = 5000, .seed = 1, .wait = i < 2 });
	ac_bound_free(bound);
	EVENTUALLY(seen->runs == 2);
	for (unsigned i = 0; i < COUNT(others); i++)
		others[i] = make(5000, 2);
	assert_int_equal(blocks_in_use(), 1 + COUNT(others));
	seen->go = true;
	for (int i = 0; i < N; i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	for (unsigned i = 0; i < COUNT(others); i++)
		ac_bound_free(others[i]);
	assert_int_equal(blocks_in_use(), 0);
	ac_stream_close(stream);
}

/* ---- deaths ---- */

static void test_bound_when_workers_die(void **state)
{
	struct ac_stream *stream = open_fed(check_bound, 0);
	struct ac_bound *bound = make(100000, 1);
	unsigned died = 0;

	(void)state;
	for (int i = 0; i < 60; i++)
		push_bound(stream, bound, (struct expected){ .len = 100000, .seed = 1,
							     .die = i % 20 == 7 ? -1 : 0 });
	ac_bound_free(bound);
	for (int i = 0; i < 60; i++) {
		int status = take(stream, NULL, 0).status;

		assert_true(status == 0 || status == AC_EDIED);
		died += status != 0;
	}
	assert_int_equal(died, 3);
	assert_int_equal(blocks_in_use(), 0);
	ac_stream_close(stream);
}

static void test_bound_when_run_again(void **state)
{
	struct ac_stream *stream = open_fed(check_bound, 2);

	(void)state;
	for (int spoil = 0; spoil < 2; spoil++) {
		struct ac_bound *bound = make(5000, 7);

		atomic_store(&seen->runs, 0);
		push_bound(stream, bound, (struct expected){ .len = 5000, .seed = 7, .die = 1,
							     .spoil = spoil });
		ac_bound_free(bound);
		assert_int_equal(take(stream, NULL, 0).status, 0);
		assert_int_equal(seen->runs, 2);
		assert_int_equal(blocks_in_use(), 0);
	}
	ac_stream_close(stream);
}

/* ---- ends ---- */

static void test_bound_when_its_stream_is_closed(void **state)
{
	struct ac_stream *stream = open_fed(check_bound, 0);
	struct ac_bound *bound = make(5000, 1);

	(void)state;
	for (int i = 0; i < 5000; i++)
		push_bound(stream, bound, (struct expected){ .len = 5000, .seed = 1, .wait = true });
	EVENTUALLY(seen->runs == 2);
	ac_stream_close(stream);
	ac_bound_free(bound);
	assert_int_equal(blocks_in_use(), 1);
	seen->go = true;
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_int_equal(blocks_in_use(), 0);
	assert_int_equal(seen->runs, 2);
	assert_works(pool);
}

/* Those that waited have ended, though their results are not taken. */
static void test_bound_when_its_pool_is_terminated(void **state)
{
	struct ac_stream *stream = open_fed(check_bound, 0);
	struct ac_bound *bound = make(5000, 1), *other;

	(void)state;
	for (int i = 0; i < 5000; i++)
		push_bound(stream, bound, (struct expected){ .len = 5000, .seed = 1, .wait = true });
	EVENTUALLY(seen->runs == 2);
	assert_int_equal(ac_pool_terminate(pool), 0);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	ac_bound_free(bound);
	assert_int_equal(blocks_in_use(), 0);
	other = make(10, 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0,
					&(struct ac_push_opts){ .size = sizeof(struct ac_push_opts),
								.bound = other }, NULL), AC_ECLOSED);
	ac_bound_free(other);
	assert_int_equal(blocks_in_use(), 0);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(take(stream, NULL, 0).status, AC_ECANCELED);
	ac_stream_close(stream);
}

static void test_bound_outlives_its_pool(void **state)
{
	struct ac_stream *stream = open_fed(check_bound, 0);
	struct ac_bound *bound = make(MB, 1);

	(void)state;
	push_bound(stream, bound, (struct expected){ .len = MB, .seed = 1 });
	ac_stream_close(stream);
	open_other(2, 0);
	stream = open_fed(check_bound, 0);
	assert_int_equal(ac_stream_push(stream, NULL, 0,
					&(struct ac_push_opts){ .size = sizeof(struct ac_push_opts),
								.bound = bound }, NULL), -EINVAL);
	ac_bound_free(bound);
	ac_stream_close(stream);
}

/* ---- in a forked child ---- */

struct forked {
	struct ac_stream *stream;
	struct ac_bound *bound;
};

static int use_in_child(void *arg)
{
	struct forked *forked = arg;
	struct ac_bound *other = NULL;
	char bytes[5000] = { 0 };

	if (ac_bound_make(&other, pool, bytes, sizeof bytes) != AC_EFORK || other)
		return 1;
	ac_bound_free(forked->bound);
	ac_stream_close(forked->stream);
	if (ac_pool_close(pool) != AC_EFORK)
		return 2;
	return 0;
}

static void test_bound_in_a_forked_child(void **state)
{
	struct forked forked = { open_fed(check_bound, 0), make(5000, 1) };

	(void)state;
	for (int i = 0; i < 3000; i++)
		push_bound(forked.stream, forked.bound,
			   (struct expected){ .len = 5000, .seed = 1, .wait = true });
	EVENTUALLY(seen->runs == 2);
	assert_int_equal(seats_in_child(use_in_child, &forked, 20), 0);
	assert_int_equal(blocks_in_use(), 1);
	seen->go = true;
	for (int i = 0; i < 3000; i++)
		assert_int_equal(take(forked.stream, NULL, 0).status, 0);
	ac_bound_free(forked.bound);
	assert_int_equal(blocks_in_use(), 0);
	ac_stream_close(forked.stream);
}

/* ---- several threads ---- */

static void *make_push_free(void *arg)
{
	struct ac_stream *stream = arg;

	for (unsigned i = 0; i < 300; i++) {
		struct ac_bound *bound = make(2000 + i * 10, i);

		for (int n = 0; n < 5; n++)
			push_bound(stream, bound,
				   (struct expected){ .len = 2000 + i * 10, .seed = i });
		ac_bound_free(bound);
	}
	return NULL;
}

static void test_bound_made_by_several_threads(void **state)
{
	enum { N = 3 };
	struct ac_stream *stream = open_fed(check_bound, 0);
	pthread_t threads[N];

	(void)state;
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, make_push_free, stream), 0);
	for (int i = 0; i < N * 300 * 5; i++)
		assert_int_equal(take(stream, NULL, 0).status, 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(blocks_in_use(), 0);
	ac_stream_close(stream);
}

/* ---- refusals ---- */

static void test_bound_refuses_what_can_not_be(void **state)
{
	struct ac_bound *bound = NULL;

	(void)state;
	assert_int_equal(ac_bound_make(NULL, pool, "a", 1), -EINVAL);
	assert_int_equal(ac_bound_make(&bound, NULL, "a", 1), -EINVAL);
	assert_int_equal(ac_bound_make(&bound, pool, NULL, 1), -EINVAL);
	assert_null(bound);
}

static void test_bound_counts_as_memory(void **state)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1, .memory = MB };
	char *bytes = calloc(2, MB);
	struct ac_bound *bound = NULL;

	(void)state;
	assert_int_equal(ac_pool_close(pool), 0);
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	for (int i = 0; i < 3; i++) {
		struct ac_bound *other = NULL;

		assert_int_equal(ac_bound_make(&other, pool, bytes, 2 * MB), -ENOMEM);
		assert_int_equal(ac_bound_make(&bound, pool, bytes, MB), 0);
		assert_int_equal(ac_bound_make(&other, pool, bytes, 1), -ENOMEM);
		assert_null(other);
		ac_bound_free(bound);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FEED_TEST(test_bound_is_read_by_all_calls),
		FEED_TEST(test_bound_is_of_no_other_call),
		FEED_TEST(test_bound_of_a_map_is_its_calls),
		FEED_TEST(test_bound_is_kept_by_calls_that_run_and_wait),
		FEED_TEST(test_bound_when_workers_die),
		FEED_TEST(test_bound_when_run_again),
		FEED_TEST(test_bound_when_its_stream_is_closed),
		FEED_TEST(test_bound_when_its_pool_is_terminated),
		FEED_TEST(test_bound_outlives_its_pool),
		FEED_TEST(test_bound_in_a_forked_child),
		FEED_TEST(test_bound_made_by_several_threads),
		FEED_TEST(test_bound_refuses_what_can_not_be),
		FEED_TEST(test_bound_counts_as_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

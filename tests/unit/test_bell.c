/* SPDX-License-Identifier: MIT */
/* A bell wakes whoever sleeps, before, while or after it falls asleep, and costs nothing else. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "bell.h"
#include "seats.h"
#include "word.h"

#define MS INT64_C(1000000)

struct pair {
	struct ac__bell bell[2];
	_Atomic uint32_t work[2];
	uint32_t rounds;
};

static void *shared_bytes(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void test_bell_ring_before_sleep_is_not_lost(void **state)
{
	struct ac__bell bell = { 0 };
	int64_t start = ac__sys_now();

	(void)state;
	ac__bell_arm(&bell);
	assert_true(ac__bell_ring(&bell));
	assert_int_equal(ac__bell_sleep(&bell, ac__sys_deadline(5000 * MS)), 0);
	assert_true(ac__sys_now() - start < 1000 * MS);
}

static void test_bell_rings_only_who_sleeps(void **state)
{
	struct ac__bell bell = { 0 };

	(void)state;
	assert_false(ac__bell_is_armed(&bell));
	assert_false(ac__bell_ring(&bell));
	assert_int_equal(bell.state, AC__BELL_AWAKE);
	ac__bell_arm(&bell);
	assert_true(ac__bell_is_armed(&bell));
	assert_true(ac__bell_claim(&bell));
	assert_int_equal(bell.state, AC__BELL_RUNG);
	assert_false(ac__bell_claim(&bell)); /* one ringer is enough */
	assert_false(ac__bell_ring(&bell));
	ac__bell_disarm(&bell);
	assert_int_equal(bell.state, AC__BELL_AWAKE);
}

static void test_bell_sleep_ends_at_the_deadline(void **state)
{
	struct ac__bell bell = { 0 };
	int64_t start = ac__sys_now();

	(void)state;
	ac__bell_arm(&bell);
	assert_int_equal(ac__bell_sleep(&bell, ac__sys_deadline(30 * MS)),
			 -ETIMEDOUT);
	assert_true(ac__sys_now() - start >= 30 * MS);
	assert_int_equal(bell.state, AC__BELL_ASLEEP);
	assert_int_equal(ac__bell_sleep(&bell, ac__sys_deadline(0)), -ETIMEDOUT);
}

static int sleep_once(unsigned seat, void *arg)
{
	struct pair *pair = arg;

	(void)seat;
	ac__bell_arm(&pair->bell[0]);
	atomic_store(&pair->work[0], 1);
	SEAT_CHECK(ac__bell_sleep(&pair->bell[0], ac__sys_deadline(20000 * MS)) == 0);
	return 0;
}

static void ring_sleeper(enum seats_kind kind, bool only_claim)
{
	struct pair *pair = shared_bytes(sizeof *pair);
	int64_t start;
	struct seats seats;

	seats_start(&seats, kind, 1, sleep_once, pair);
	while (!atomic_load(&pair->work[0]))
		ac__sys_yield();
	/* It is most likely asleep by then; if not, this is the other case. */
	ac__sys_futex_wait(&pair->work[1], 0, ac__sys_deadline(20 * MS));
	start = ac__sys_now();
	if (only_claim) {
		assert_true(ac__bell_claim(&pair->bell[0]));
		assert_int_equal(pair->bell[0].state, AC__BELL_RUNG);
		ac__bell_ring_again(&pair->bell[0]);
	} else {
		assert_true(ac__bell_ring(&pair->bell[0]));
	}
	assert_int_equal(seats_join(&seats), 0);
	assert_true(ac__sys_now() - start < 10000 * MS);
	munmap(pair, sizeof *pair);
}

static void test_bell_rings_a_sleeping_thread(void **state)
{
	(void)state;
	ring_sleeper(SEATS_THREADS, false);
}

static void test_bell_rings_a_sleeping_process(void **state)
{
	(void)state;
	ring_sleeper(SEATS_PROCESSES, false);
}

static void test_bell_rings_again_after_its_ringer_died(void **state)
{
	(void)state;
	ring_sleeper(SEATS_THREADS, true);
	ring_sleeper(SEATS_PROCESSES, true);
}

static void test_bell_ring_again_leaves_the_awake_alone(void **state)
{
	struct ac__bell bell = { 0 };

	(void)state;
	ac__bell_ring_again(&bell);
	assert_int_equal(bell.state, AC__BELL_AWAKE);
	ac__bell_arm(&bell);
	ac__bell_ring_again(&bell);
	assert_int_equal(bell.state, AC__BELL_RUNG);
	ac__bell_arm(&bell); /* who was rung while awake sleeps again all the same */
	assert_int_equal(bell.state, AC__BELL_ASLEEP);
}

/* Each gives the other work in turn: one wake-up lost and both sleep to the deadline. */
static int play_ball(unsigned seat, void *arg)
{
	struct pair *pair = arg;
	struct ac__bell *bell = &pair->bell[seat - 1];
	_Atomic uint32_t *mine = &pair->work[seat - 1];

	for (uint32_t i = 1; i <= pair->rounds; i++) {
		while (atomic_load(mine) < i) {
			ac__bell_arm(bell);
			if (atomic_load(mine) < i)
				SEAT_CHECK(ac__bell_sleep(bell, ac__sys_deadline(20000 * MS)) == 0);
			ac__bell_disarm(bell);
		}
		atomic_store(&pair->work[2 - seat], seat == 1 ? i : i + 1);
		ac__bell_ring(&pair->bell[2 - seat]);
	}
	return 0;
}

static void test_bell_loses_no_wakeup(void **state)
{
	struct pair *pair = shared_bytes(sizeof *pair);
	struct seats seats;

	(void)state;
	for (int kind = SEATS_THREADS; kind <= SEATS_PROCESSES; kind++) {
		memset(pair, 0, sizeof *pair);
		pair->rounds = seats_scaled(20000);
		atomic_store(&pair->work[0], 1);
		seats_start(&seats, kind, 2, play_ball, pair);
		assert_int_equal(seats_join(&seats), 0);
	}
	munmap(pair, sizeof *pair);
}

/* word.h has no program of its own. */
static void test_bell_words_keep_their_parts(void **state)
{
	uint64_t gen = AC__GEN_MASK;
	uint64_t word = ac__word_make(9, AC__HOLDER_MASK, gen);
	ac__word shared = word;

	(void)state;
	assert_int_equal(ac__word_state(word), 9);
	assert_int_equal(ac__word_holder(word), AC__HOLDER_MASK);
	assert_true(ac__word_gen(word) == gen);
	assert_true(ac__word_gen(ac__word_make(1, 2, gen + 1)) == 0);
	assert_int_equal(ac__word_holder(ac__word_make(1, AC__HOLDER_TASK + 5, 3)),
			 AC__HOLDER_TASK + 5);
	assert_false(ac__word_swap(&shared, word - 1, 0));
	assert_true(shared == word);
	assert_true(ac__word_swap(&shared, word, 5));
	assert_true(shared == 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bell_ring_before_sleep_is_not_lost),
		cmocka_unit_test(test_bell_rings_only_who_sleeps),
		cmocka_unit_test(test_bell_sleep_ends_at_the_deadline),
		cmocka_unit_test(test_bell_rings_a_sleeping_thread),
		cmocka_unit_test(test_bell_rings_a_sleeping_process),
		cmocka_unit_test(test_bell_rings_again_after_its_ringer_died),
		cmocka_unit_test(test_bell_ring_again_leaves_the_awake_alone),
		cmocka_unit_test(test_bell_loses_no_wakeup),
		cmocka_unit_test(test_bell_words_keep_their_parts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

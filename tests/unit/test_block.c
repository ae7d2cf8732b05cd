/* SPDX-License-Identifier: MIT */
/* Blocks: taken, given, passed, leased; and what the death of their holders leaves. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "blocks.h"

/* ---- taking and giving ---- */

static void test_block_take_all_sizes(void **state)
{
	(void)state;
	for (uint64_t size = 1; size <= 64 * MB; size *= 2)
		for (int d = -1; d <= 1; d++) {
			struct ac__block block = take(1, size + (uint64_t)d);
			uint64_t offset = row_of(block.id)->offset;

			assert_true(block.size < 2 * (size + 1) ||
				    block.size == AC__BLOCK_LEAST);
			assert_true(offset % block.size == 0);
			assert_true(offset >= arena.region.base);
			assert_true((uintptr_t)block.data % 4096 == 0);
			assert_ptr_equal(ac__block_data(&arena, block.id), block.data);
			((char *)block.data)[0] = 1;
			((char *)block.data)[block.size - 1] = 1;
			ac__block_give(&arena, 1, block.id);
		}
	assert_int_equal(ac__block_in_use(&arena), 0);
}

static void test_block_too_large_is_no_memory(void **state)
{
	struct ac__block block;

	(void)state;
	assert_int_equal(ac__block_take(&arena, 1, UINT64_C(1) << 43, &block), -ENOMEM);
	assert_int_equal(ac__block_take(&arena, 1, UINT64_MAX, &block), -ENOMEM);
	assert_int_equal(ac__block_take(&arena, 1, UINT64_C(1) << 42, &block), -ENOMEM);
	assert_int_equal(ac__block_in_use(&arena), 0);
}

static void test_block_taken_ones_do_not_overlap(void **state)
{
	struct ac__block blocks[40];

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		blocks[i] = take(1, 4096u << i % 6);
		memset(blocks[i].data, (int)i + 1, blocks[i].size);
	}
	for (unsigned i = 0; i < 40; i++) {
		const unsigned char *data = blocks[i].data;

		for (uint64_t at = 0; at < blocks[i].size; at += 512)
			assert_int_equal(data[at], i + 1);
		ac__block_give(&arena, 1, blocks[i].id);
	}
}

static void test_block_warm_one_comes_back(void **state)
{
	struct ac__block first = take(1, 100 * KB), again;
	uint64_t bytes = ac__block_bytes(&arena);

	(void)state;
	ac__block_give(&arena, 1, first.id);
	again = take(2, 128 * KB);
	assert_int_equal(again.id, first.id);
	assert_ptr_equal(again.data, first.data);
	assert_true(ac__block_bytes(&arena) == bytes && bytes == 128 * KB);
	ac__block_give(&arena, 2, again.id);
}

static void test_block_give_of_others_is_ignored(void **state)
{
	struct ac__block block = take(1, 1);

	(void)state;
	ac__block_give(&arena, 2, block.id);
	ac__block_give(&arena, 0, block.id);
	ac__block_give(&arena, 1, 0);
	ac__block_give(&arena, 1, BLOCKS + 1);
	ac__block_give(&arena, 1, UINT32_MAX);
	assert_int_equal(state_of(block.id), AC__BLOCK_HELD);
	ac__block_give(&arena, 1, block.id);
	ac__block_give(&arena, 1, block.id);
	ac__block_give(&arena, 0, block.id); /* free ones have holder 0: not the owner's */
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
}

static void test_block_pass_changes_the_holder(void **state)
{
	struct ac__block block = take(1, 1), seen;

	(void)state;
	assert_false(ac__block_pass(&arena, block.id, 2, 3));
	assert_false(ac__block_pass(&arena, 0, 1, 2));
	assert_false(ac__block_pass(&arena, BLOCKS + 1, 1, 2));
	assert_true(ac__block_pass(&arena, block.id, 1, TASK));
	assert_false(ac__block_pass(&arena, block.id, 1, TASK));
	assert_int_equal(ac__block_check(&arena, block.id, TASK, 4096, &seen), 0);
	assert_ptr_equal(seen.data, block.data);
	assert_true(ac__block_pass(&arena, block.id, TASK, AC__OWNER_SEAT));
	ac__block_give(&arena, AC__OWNER_SEAT, block.id);
	assert_false(ac__block_pass(&arena, block.id, 0, 1));
	assert_int_equal(ac__block_in_use(&arena), 0);
}

static void test_block_memory_limit(void **state)
{
	struct ac__block a = take(1, 4 * MB), b = take(1, 4 * MB), c;

	(void)state;
	assert_int_equal(ac__block_take(&arena, 1, 4096, &c), -ENOMEM);
	assert_int_equal(ac__block_take(&arena, 1, 16 * MB, &c), -ENOMEM);
	ac__block_give(&arena, 1, a.id);
	/* Nothing new is allowed, but a larger one is free. */
	c = take(1, 4096);
	assert_int_equal(c.id, a.id);
	ac__block_give(&arena, 1, c.id);
	ac__block_give(&arena, 1, b.id);
}

/* What nobody uses must not stand against the limit, whatever size it once had. */
static void test_block_memory_limit_counts_no_free_blocks(void **state)
{
	struct ac__block blocks[8];

	(void)state;
	for (int i = 0; i < 8; i++)
		blocks[i] = take(1, MB);
	for (int i = 0; i < 8; i++)
		ac__block_give(&arena, 1, blocks[i].id);
	blocks[0] = take(1, 8 * MB);
	ac__block_give(&arena, 1, blocks[0].id);
}

static void test_block_table_full(void **state)
{
	struct ac__block blocks[4], more;

	(void)state;
	for (int i = 0; i < 4; i++)
		blocks[i] = take(1, 64 * KB);
	assert_int_equal(ac__block_take(&arena, 1, 4096, &more), -ENOMEM);
	ac__block_give(&arena, 1, blocks[2].id);
	more = take(1, 4096);
	assert_int_equal(more.id, blocks[2].id);
	ac__block_give(&arena, 1, more.id);
	for (int i = 0; i < 4; i++)
		ac__block_give(&arena, 1, blocks[i].id);
	assert_int_equal(ac__block_in_use(&arena), 0);
}

static void test_block_table_full_of_free_ones_of_another_size(void **state)
{
	struct ac__block blocks[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		blocks[i] = take(1, 4096);
	for (int i = 0; i < 4; i++)
		ac__block_give(&arena, 1, blocks[i].id);
	blocks[0] = take(1, 64 * KB);
	ac__block_give(&arena, 1, blocks[0].id);
}

/* No room on the disk for a while: later there is as much as ever. */
static void test_block_failed_takes_use_nothing_up(void **state)
{
	struct ac__block block;

	(void)state;
	ac__fault_arm(AC__SYS_PREALLOCATE, 1, ALWAYS, ENOSPC);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(ac__block_take(&arena, 1, GB, &block), -ENOSPC);
	ac__fault_disarm();
	assert_int_equal(ac__block_in_use(&arena), 0);
	assert_true(ac__block_bytes(&arena) == 0);
	block = take(1, 64 * KB);
	ac__block_give(&arena, 1, block.id);
}

/* ---- looking ---- */

static void test_block_check_rejects_what_is_not_so(void **state)
{
	struct ac__block block = take(3, 16 * KB), seen = { 0 };
	struct ac__block_shm *row = row_of(block.id), was = *row;
	static const uint64_t offsets[] = { 0, 4096, 1, UINT64_MAX, UINT64_MAX - 4095,
					    UINT64_C(1) << 63, UINT64_C(1) << 42 };
	static const uint16_t orders[] = { 0, 1, 11, 43, 63, 64, 76, 255, 65535 };

	(void)state;
	assert_int_equal(ac__block_check(&arena, block.id, 3, 16 * KB, &seen), 0);
	assert_int_equal(seen.id, block.id);
	assert_ptr_equal(seen.data, block.data);
	assert_true(seen.size == 16 * KB);
	assert_int_equal(ac__block_check(&arena, block.id, 3, 16 * KB + 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, block.id, 3, UINT64_MAX, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, block.id, 2, 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, block.id, TASK, 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, 0, 3, 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, BLOCKS, 3, 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, BLOCKS + 1, 3, 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, UINT32_MAX, 3, 1, &seen), AC_EBROKEN);
	for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
		row->offset = offsets[i];
		assert_int_equal(ac__block_check(&arena, block.id, 3, 1, &seen), AC_EBROKEN);
	}
	row->offset = was.offset;
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
		row->order = orders[i];
		assert_int_equal(ac__block_check(&arena, block.id, 3, 1, &seen), AC_EBROKEN);
	}
	row->order = was.order;
	ac__block_give(&arena, 3, block.id);
	assert_int_equal(ac__block_check(&arena, block.id, 3, 1, &seen), AC_EBROKEN);
	assert_int_equal(ac__block_check(&arena, block.id, 0, 1, &seen), AC_EBROKEN);
}

/* Who reads it is promised an alignment, and may crash without. */
static void test_block_check_rejects_what_is_not_aligned(void **state)
{
	struct ac__block block = take(3, 16 * KB), seen = { 0 };
	uint64_t offset = row_of(block.id)->offset;

	(void)state;
	row_of(block.id)->offset = offset + 3;
	assert_int_equal(ac__block_check(&arena, block.id, 3, 1, &seen), AC_EBROKEN);
	row_of(block.id)->offset = offset;
	ac__block_give(&arena, 3, block.id);
}

/* ---- leases ---- */

static void test_block_given_while_leased_lives_until_the_last_unlease(void **state)
{
	struct ac__block block = take(1, 4096);
	int a = ac__block_lease(&arena, 2, block.id);
	int b = ac__block_lease(&arena, 3, block.id);
	int c = ac__block_lease(&arena, 3, block.id);

	(void)state;
	assert_true(a >= 0 && b >= 0 && c >= 0 && b != c);
	strcpy(block.data, "kept");
	ac__block_give(&arena, 1, block.id);
	assert_int_equal(state_of(block.id), AC__BLOCK_GONE);
	assert_int_equal(ac__block_in_use(&arena), 1);
	ac__block_unlease(&arena, 3, c);
	ac__block_unlease(&arena, 2, a);
	assert_string_equal(block.data, "kept");
	assert_int_equal(state_of(block.id), AC__BLOCK_GONE);
	assert_int_equal(ac__block_lease(&arena, 2, block.id), -ESTALE);
	ac__block_unlease(&arena, 3, b);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
	assert_int_equal(take(1, 4096).id, block.id); /* and it is on its list */
	ac__block_give(&arena, 1, block.id);
}

static void test_block_unleased_first_goes_with_its_holder(void **state)
{
	struct ac__block block = take(1, 4096);
	int lease = ac__block_lease(&arena, 2, block.id);

	(void)state;
	ac__block_unlease(&arena, 2, lease);
	ac__block_unlease(&arena, 2, lease);
	ac__block_unlease(&arena, 2, -1);
	ac__block_unlease(&arena, 2, AC__LEASES);
	assert_true(ac__block_pass(&arena, block.id, 1, TASK)); /* shared ones too */
	ac__block_give(&arena, TASK, block.id);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
}

static void test_block_lease_of_a_free_block_fails(void **state)
{
	struct ac__block block = take(1, 4096);

	(void)state;
	ac__block_give(&arena, 1, block.id);
	assert_int_equal(ac__block_lease(&arena, 2, block.id), -ESTALE);
	assert_int_equal(ac__block_lease(&arena, 2, BLOCKS), -ESTALE);
	assert_int_equal(ac__block_lease(&arena, 2, BLOCKS + 1), -ESTALE);
	assert_int_equal(ac__block_lease(&arena, 2, 0), -ESTALE);
	for (int i = 0; i < AC__LEASES; i++)
		assert_true(arena.seats[2].lease[i] == 0);
}

static void test_block_leases_of_a_seat_run_out(void **state)
{
	struct ac__block block = take(1, 4096);

	(void)state;
	for (int i = 0; i < AC__LEASES; i++)
		assert_true(ac__block_lease(&arena, 2, block.id) >= 0);
	assert_int_equal(ac__block_lease(&arena, 2, block.id), -ENOSPC);
	ac__block_unlease(&arena, 2, 7);
	assert_int_equal(ac__block_lease(&arena, 2, block.id), 7);
	ac__block_reclaim(&arena, 2);
	ac__block_give(&arena, 1, block.id);
	assert_int_equal(ac__block_in_use(&arena), 0);
}

/* A reader and a holder that lets go look at each other at the same time. */
static struct {
	_Atomic uint32_t id;
	_Atomic bool stop;
	unsigned rounds;
} race;

static int hold_and_let_go(void)
{
	for (unsigned i = 0; i < race.rounds; i++) {
		struct ac__block block;
		int lease;

		SEAT_CHECK(ac__block_take(&arena, 1, 4096, &block) == 0);
		lease = ac__block_lease(&arena, 1, block.id); /* it is SHARED from the start */
		SEAT_CHECK(lease >= 0);
		atomic_store(&race.id, block.id);
		for (unsigned n = 0; n < i % 64; n++)
			ac__relax();
		ac__block_unlease(&arena, 1, lease);
		ac__block_give(&arena, 1, block.id);
	}
	atomic_store(&race.stop, true);
	return 0;
}

static int lease_and_look(void)
{
	while (!atomic_load(&race.stop)) {
		uint32_t id = atomic_load(&race.id);
		int lease = id ? ac__block_lease(&arena, 2, id) : -1;
		uint64_t word, entry;

		if (lease < 0)
			continue;
		word = atomic_load(&row_of(id)->word);
		entry = atomic_load(&arena.seats[2].lease[lease]);
		ac__block_unlease(&arena, 2, lease);
		SEAT_CHECK(ac__word_gen(word) == entry >> 24);
		SEAT_CHECK(ac__word_state(word) == AC__BLOCK_SHARED ||
			   ac__word_state(word) == AC__BLOCK_GONE);
	}
	return 0;
}

static int race_for_a_lease(unsigned seat, void *arg)
{
	int r = seat == 1 ? hold_and_let_go() : lease_and_look();

	(void)arg;
	atomic_store(&race.stop, true);
	return r;
}

static void test_block_lease_that_succeeds_holds(void **state)
{
	struct seats seats;

	(void)state;
	atomic_store(&race.stop, false);
	atomic_store(&race.id, 0);
	race.rounds = seats_scaled(1000000);
	seats_start(&seats, SEATS_THREADS, 2, race_for_a_lease, NULL);
	assert_int_equal(seats_join(&seats), 0);
	assert_int_equal(ac__block_in_use(&arena), 0);
}

/* ---- the crash table, each state built by hand ---- */

static void test_block_death_after_pop(void **state)
{
	struct ac__block block = take(1, 64 * KB);

	(void)state;
	ac__block_give(&arena, 1, block.id);
	atomic_store(list_of(64 * KB), 0); /* popped, not yet swapped */
	ac__block_reclaim(&arena, 1);
	assert_int_equal(take(2, 64 * KB).id, block.id); /* found by the scan */
	ac__block_give(&arena, 2, block.id);
	assert_int_equal(take(2, 64 * KB).id, block.id); /* and listed again */
	ac__block_give(&arena, 2, block.id);
}

static void test_block_death_while_holding(void **state)
{
	struct ac__block mine = take(1, 4096), other = take(2, 4096);

	(void)state;
	ac__block_reclaim(&arena, 1);
	assert_int_equal(state_of(mine.id), AC__BLOCK_FREE);
	assert_int_equal(state_of(other.id), AC__BLOCK_HELD);
	assert_int_equal(take(3, 4096).id, mine.id);
	ac__block_reclaim(&arena, 2);
	ac__block_reclaim(&arena, 3);
	assert_int_equal(ac__block_in_use(&arena), 0);
}

/* Step 3 of take: the entry is the dead one's, its bytes are not there yet. */
static void test_block_death_before_its_bytes(void **state)
{
	struct ac__block block = take(1, 4096);
	uint32_t next = block.id + 1;

	(void)state;
	atomic_store(&arena.shm->hints.used, next); /* this comes first */
	atomic_store(&row_of(next)->word, ac__word_make(AC__BLOCK_HELD, 2, 0));
	ac__block_reclaim(&arena, 2);
	assert_int_equal(state_of(next), AC__BLOCK_UNUSED);
	ac__block_give(&arena, 1, block.id);
}

static void test_block_death_after_moving_top(void **state)
{
	struct ac__block block = take(1, 4096);
	struct ac__block_shm *row = row_of(block.id);

	(void)state;
	row->order = 0; /* carved, not yet written down, not yet counted */
	atomic_store(&arena.shm->hints.bytes, 0);
	ac__block_reclaim(&arena, 1);
	assert_int_equal(state_of(block.id), AC__BLOCK_UNUSED);
	assert_true(ac__block_bytes(&arena) == 0);
	block = take(2, 8192);
	atomic_store(&arena.shm->hints.bytes, 0); /* written down, not yet counted */
	ac__block_reclaim(&arena, 2);
	assert_true(ac__block_bytes(&arena) == 8192);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
}

static void test_block_death_after_giving(void **state)
{
	struct ac__block block = take(1, 4096);

	(void)state;
	atomic_store(&row_of(block.id)->word, ac__word_make(AC__BLOCK_FREE, 0, 1));
	ac__block_reclaim(&arena, 1);
	assert_int_equal(ac__block_in_use(&arena), 0);
	assert_true(ac__block_bytes(&arena) == 4096);
}

static void test_block_death_of_a_reader(void **state)
{
	struct ac__block block = take(1, 4096);
	uint64_t gen = ac__word_gen(row_of(block.id)->word);

	(void)state;
	/* lease 1: the entry is written, the word still says HELD */
	atomic_store(&arena.seats[2].lease[0], gen << 24 | block.id);
	ac__block_reclaim(&arena, 2);
	assert_true(arena.seats[2].lease[0] == 0);
	assert_int_equal(state_of(block.id), AC__BLOCK_HELD);
	/* lease 2 */
	assert_true(ac__block_lease(&arena, 2, block.id) >= 0);
	ac__block_reclaim(&arena, 2);
	assert_true(arena.seats[2].lease[0] == 0);
	ac__block_give(&arena, 1, block.id);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
}

static void test_block_death_of_the_last_reader(void **state)
{
	struct ac__block block = take(1, 4096);
	int lease = ac__block_lease(&arena, 2, block.id);

	(void)state;
	ac__block_give(&arena, 1, block.id);
	ac__block_reclaim(&arena, 2);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
	/* unlease 1: the entry is cleared, the word was not looked at */
	block = take(1, 4096);
	lease = ac__block_lease(&arena, 2, block.id);
	ac__block_give(&arena, 1, block.id);
	atomic_store(&arena.seats[2].lease[lease], 0);
	ac__block_reclaim(&arena, 2);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
}

static void test_block_death_of_a_holder_whose_block_is_leased(void **state)
{
	struct ac__block block = take(1, 4096);
	int lease = ac__block_lease(&arena, 2, block.id);

	(void)state;
	ac__block_reclaim(&arena, 1);
	assert_int_equal(state_of(block.id), AC__BLOCK_GONE);
	ac__block_unlease(&arena, 2, lease);
	assert_int_equal(state_of(block.id), AC__BLOCK_FREE);
}

static void test_block_reclaim_holder_frees_a_tasks(void **state)
{
	struct ac__block one = take(1, 4096), two = take(1, 8192);

	(void)state;
	assert_true(ac__block_pass(&arena, one.id, 1, TASK));
	ac__block_reclaim_holder(&arena, TASK);
	assert_int_equal(state_of(one.id), AC__BLOCK_FREE);
	assert_int_equal(state_of(two.id), AC__BLOCK_HELD);
	ac__block_give(&arena, 1, two.id);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_block_take_all_sizes),
		TEST_FILE(test_block_take_all_sizes),
		TEST(test_block_too_large_is_no_memory),
		TEST(test_block_taken_ones_do_not_overlap),
		TEST(test_block_warm_one_comes_back),
		TEST(test_block_give_of_others_is_ignored),
		TEST(test_block_pass_changes_the_holder),
		TEST_MEMORY(test_block_memory_limit),
		TEST_MEMORY(test_block_memory_limit_counts_no_free_blocks),
		TEST_SMALL(test_block_table_full),
		TEST_SMALL(test_block_table_full_of_free_ones_of_another_size),
		TEST_FILE(test_block_failed_takes_use_nothing_up),
		TEST(test_block_check_rejects_what_is_not_so),
		TEST(test_block_check_rejects_what_is_not_aligned),
		TEST(test_block_given_while_leased_lives_until_the_last_unlease),
		TEST(test_block_unleased_first_goes_with_its_holder),
		TEST(test_block_lease_of_a_free_block_fails),
		TEST(test_block_leases_of_a_seat_run_out),
		TEST(test_block_lease_that_succeeds_holds),
		TEST(test_block_death_after_pop),
		TEST(test_block_death_while_holding),
		TEST(test_block_death_before_its_bytes),
		TEST(test_block_death_after_moving_top),
		TEST(test_block_death_after_giving),
		TEST(test_block_death_of_a_reader),
		TEST(test_block_death_of_the_last_reader),
		TEST(test_block_death_of_a_holder_whose_block_is_leased),
		TEST(test_block_reclaim_holder_frees_a_tasks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Blocks: spoilt hints and tables hurt nobody, pages go back, and nothing leaks with all at it at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "blocks.h"

/* ---- spoilt by a process that went wild ---- */

static int take_and_trim(void *arg)
{
	struct ac__block blocks[8];

	(void)arg;
	for (int i = 0; i < 8; i++)
		SEAT_CHECK(ac__block_take(&arena, 2, 64 * KB, &blocks[i]) == 0);
	for (int i = 0; i < 8; i++)
		for (int k = 0; k < i; k++)
			SEAT_CHECK(blocks[i].id != blocks[k].id);
	for (int i = 0; i < 8; i++)
		ac__block_give(&arena, 2, blocks[i].id);
	ac__block_trim(&arena, 2, 0);
	return 0;
}

/* Three blocks on a list: two free, one held; then next pointers as given. */
static void spoil_list(uint32_t head, uint32_t next)
{
	struct ac__block a = take(1, 64 * KB), b = take(1, 64 * KB), c = take(1, 64 * KB);

	ac__block_give(&arena, 1, a.id);
	ac__block_give(&arena, 1, b.id);
	atomic_store(list_of(64 * KB), UINT64_C(9) << 32 | (head == 99 ? c.id : head));
	for (uint32_t id = a.id; id <= c.id; id++)
		atomic_store(&row_of(id)->next, next == 99 ? id : next);
	assert_int_equal(seats_in_own_child(take_and_trim, NULL, 5), 0);
	ac__block_give(&arena, 1, c.id);
}

static void test_block_list_with_wild_index(void **state)
{
	(void)state;
	spoil_list(1, BLOCKS + 7);
	spoil_list(UINT32_MAX, 0);
	spoil_list(BLOCKS, 1);
}

static void test_block_list_in_a_circle_of_free_ones(void **state)
{
	(void)state;
	spoil_list(1, 99);
	spoil_list(2, 1);
}

/*
 * Its head is held and is its own next. No wild process is needed for that: one gives it and stands
 * still before listing it, another scans, takes, gives and lists it, then the first lists it too.
 */
static void test_block_list_in_a_circle_of_held_ones(void **state)
{
	(void)state;
	spoil_list(99, 99);
}

static void test_block_list_twice_in_it_is_put_right(void **state)
{
	struct ac__block a = take(1, 64 * KB), b = take(1, 64 * KB);
	uint32_t head;

	(void)state;
	ac__block_give(&arena, 1, b.id);
	atomic_store(&row_of(b.id)->next, b.id);
	assert_int_equal(take(1, 64 * KB).id, b.id);
	b = take(1, 64 * KB);
	/* Whoever found that there is nothing behind the circle has cut it. */
	head = (uint32_t)*list_of(64 * KB);
	assert_true(head == 0 || row_of(head)->next != head);
	ac__block_reclaim(&arena, 1);
	(void)a;
}

static int fill_what_was_taken(void *arg)
{
	struct ac__block block = { 0 };
	uint64_t size = *(uint64_t *)arg;

	if (ac__block_take(&arena, 2, size, &block) < 0)
		return 0;
	SEAT_CHECK(block.size >= size && block.data);
	SEAT_CHECK((char *)block.data >= atomic_load(&arena.region.segment[0]) + arena.region.base ||
		   (char *)block.data + size <= atomic_load(&arena.region.segment[0]));
	memset(block.data, 7, size);
	return 0;
}

static void test_block_free_one_with_a_spoilt_size(void **state)
{
	static const uint16_t orders[] = { 0, 1, 11, 43, 63, 64, 72, 73, 255, 65535 };

	(void)state;
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
		struct ac__block block = take(1, 64 * KB);
		uint64_t size = 64 * KB;

		ac__block_give(&arena, 1, block.id);
		row_of(block.id)->order = orders[i];
		assert_int_equal(seats_in_own_child(fill_what_was_taken, &size, 5), 0);
		atomic_store(&row_of(block.id)->word, 0); /* never seen again */
	}
}

static void test_block_free_one_with_a_spoilt_place(void **state)
{
	static const uint64_t offsets[] = { 0, 4096, UINT64_MAX, UINT64_C(1) << 63 };

	(void)state;
	for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
		struct ac__block block = take(1, 4096);
		uint64_t size = 4096;

		ac__block_give(&arena, 1, block.id);
		row_of(block.id)->offset = offsets[i];
		assert_int_equal(seats_in_own_child(fill_what_was_taken, &size, 5), 0);
		assert_true(arena.shm->magic != UINT64_C(0x0707070707070707));
		atomic_store(&row_of(block.id)->word, 0);
	}
}

static void test_block_spoilt_top_spares_the_tables(void **state)
{
	static const uint64_t tops[] = { 0, 4096, UINT64_MAX, UINT64_MAX - 4096,
					 UINT64_C(1) << 63 };

	(void)state;
	for (size_t i = 0; i < sizeof tops / sizeof *tops; i++) {
		uint64_t size = 4096;

		atomic_store(&arena.shm->hints.top, tops[i]);
		assert_int_equal(seats_in_own_child(fill_what_was_taken, &size, 5), 0);
		assert_true(arena.shm->magic != UINT64_C(0x0707070707070707));
	}
}

static int use_spoilt_hints(void *arg)
{
	struct ac__block block;

	(void)arg;
	for (int i = 0; i < 50; i++)
		if (ac__block_take(&arena, 2, 4096u << i % 5, &block) == 0 && i % 2)
			ac__block_give(&arena, 2, block.id);
	ac__block_trim(&arena, 2, 0);
	ac__block_reclaim(&arena, 2);
	return 0;
}

static void test_block_random_hints_neither_crash_nor_hang(void **state)
{
	uint64_t seed = seats_seed();

	(void)state;
	for (unsigned n = 0; n < seats_scaled(200); n++) {
		unsigned char *hints = (unsigned char *)&arena.shm->hints;

		for (int i = 0; i < 20; i++)
			hints[seats_random(&seed) % sizeof arena.shm->hints] =
				(unsigned char)seats_random(&seed);
		for (int i = 0; i < 20; i++)
			atomic_store(&arena.blocks[seats_random(&seed) % 64].next,
				     (uint32_t)seats_random(&seed) % 80);
		assert_int_equal(seats_in_own_child(use_spoilt_hints, NULL, 5), 0);
	}
}

/* ---- giving pages back ---- */

static void fill_and_give(unsigned n, uint64_t size)
{
	struct ac__block blocks[BLOCKS];

	for (unsigned i = 0; i < n; i++) {
		blocks[i] = take(1, size);
		memset(blocks[i].data, 1, size);
	}
	for (unsigned i = 0; i < n; i++)
		ac__block_give(&arena, 1, blocks[i].id);
}

static void test_block_trim_gives_pages_back(void **state)
{
	struct ac__block held = take(2, MB);
	uint64_t before, bytes;

	(void)state;
	memset(held.data, 9, MB);
	fill_and_give(4, 4 * MB);
	before = bytes_of_file();
	bytes = ac__block_bytes(&arena);
	ac__block_trim(&arena, 1, 8 * MB);
	assert_true(bytes_of_file() <= before - 8 * MB);
	assert_true(bytes_of_file() >= before - 12 * MB); /* some stay warm */
	ac__block_trim(&arena, 1, 0);
	assert_true(bytes_of_file() <= before - 16 * MB);
	assert_int_equal(((char *)held.data)[MB - 1], 9);
	assert_true(ac__block_bytes(&arena) == bytes);
	assert_int_equal(ac__block_in_use(&arena), 1);
	fill_and_give(4, 4 * MB); /* cold ones are as good as new */
	assert_true(ac__block_bytes(&arena) == bytes);
	assert_true(bytes_of_file() >= before);
	ac__block_give(&arena, 2, held.id);
}

static void test_block_trim_reaches_all_of_a_size(void **state)
{
	uint64_t before;

	(void)state;
	fill_and_give(512, 16 * KB);
	before = bytes_of_file();
	for (int i = 0; i < 8; i++) /* as often as the pool falls idle */
		ac__block_trim(&arena, 1, 0);
	assert_true(bytes_of_file() <= before - 8 * MB);
}

/* Without a memfd a page that was given back must be got again, or a full disk is a SIGBUS. */
static void test_block_cold_one_is_preallocated_again(void **state)
{
	struct ac__block block;

	(void)state;
	fill_and_give(1, 4 * MB);
	ac__block_trim(&arena, 1, 0);
	ac__fault_arm(AC__SYS_PREALLOCATE, 1, ALWAYS, ENOSPC);
	assert_int_equal(ac__block_take(&arena, 1, 4 * MB, &block), -ENOSPC);
	ac__fault_disarm();
	block = take(1, 4 * MB);
	assert_true(bytes_of_file() >= 4 * MB);
	ac__block_give(&arena, 1, block.id);
}

#define NO_LIMIT 77

/* A free block that this process cannot map: it must not try that one for ever. */
static int trim_what_cannot_be_mapped(void *arg)
{
	unsigned long pages = 0;
	struct rlimit limit;
	FILE *f = fopen("/proc/self/statm", "re");
	struct ac__block block;

	(void)arg;
	SEAT_CHECK(f && fscanf(f, "%lu", &pages) == 1);
	fclose(f);
	for (unsigned k = 1; k < AC__SEGMENTS; k++)
		atomic_store(&arena.region.segment[k], NULL); /* not mapped here yet */
	limit.rlim_cur = limit.rlim_max = pages * ac__sys_page() + 4 * MB;
	SEAT_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	/* An emulator may not enforce it. */
	if (mmap(NULL, 64 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		return NO_LIMIT;
	SEAT_CHECK(ac__block_take(&arena, 2, 64 * MB, &block) == -ENOMEM);
	ac__block_trim(&arena, 2, 0);
	return 0;
}

static void test_block_that_cannot_be_mapped_is_left_to_others(void **state)
{
	int r;

	(void)state;
	fill_and_give(1, 64 * MB);
	r = seats_in_own_child(trim_what_cannot_be_mapped, NULL, 5);
	if (r == NO_LIMIT)
		skip();
	assert_int_equal(r, 0);
	assert_int_equal(ac__block_in_use(&arena), 0);
	fill_and_give(1, 64 * MB);
}

/* ---- all at once ---- */

#define MAILBOXES 8
#define OWN 6

struct traffic {
	_Atomic uint32_t mailbox[MAILBOXES];
	_Atomic uint32_t stop;
	uint64_t seed;
	unsigned rounds; /* 0: until stop */
};

/* Who holds a block writes all over it: two holders would see each other. */
static void mark(struct ac__block *block, uint64_t what)
{
	((_Atomic uint64_t *)block->data)[0] = what;
	((_Atomic uint64_t *)block->data)[block->size / 8 - 1] = what;
}

static bool is_marked(struct ac__block *block, uint64_t what)
{
	return ((_Atomic uint64_t *)block->data)[0] == what &&
	       ((_Atomic uint64_t *)block->data)[block->size / 8 - 1] == what;
}

static int post(struct traffic *traffic, unsigned seat, uint32_t box, uint32_t id)
{
	uint32_t none = 0;

	SEAT_CHECK(ac__block_pass(&arena, id, seat, AC__HOLDER_TASK + box));
	if (atomic_compare_exchange_strong(&traffic->mailbox[box], &none, id))
		return 0;
	/* Full: back it comes. */
	SEAT_CHECK(ac__block_pass(&arena, id, AC__HOLDER_TASK + box, seat));
	ac__block_give(&arena, seat, id);
	return 0;
}

static int fetch(struct traffic *traffic, unsigned seat, uint32_t box)
{
	uint32_t id = atomic_exchange(&traffic->mailbox[box], 0);
	struct ac__block block;

	if (!id)
		return 0;
	SEAT_CHECK(ac__block_check(&arena, id, AC__HOLDER_TASK + box, 4096, &block) == 0);
	SEAT_CHECK(ac__block_pass(&arena, id, AC__HOLDER_TASK + box, seat));
	SEAT_CHECK(is_marked(&block, id));
	ac__block_give(&arena, seat, id);
	return 0;
}

static void lease_for_a_moment(struct traffic *traffic, unsigned seat, uint32_t box)
{
	uint32_t id = atomic_load(&traffic->mailbox[box]);
	int lease = id ? ac__block_lease(&arena, seat, id) : -1;

	if (lease >= 0)
		ac__block_unlease(&arena, seat, lease);
}

static int trade(unsigned seat, void *arg)
{
	struct traffic *traffic = arg;
	uint64_t seed = traffic->seed + seat + (uint64_t)getpid() * 977;
	struct ac__block own[OWN] = { { 0 } };

	for (unsigned i = 0; traffic->rounds ? i < traffic->rounds : !traffic->stop; i++) {
		uint64_t dice = seats_random(&seed);
		struct ac__block *block = &own[dice % OWN];
		uint32_t box = (uint32_t)(dice >> 8) % MAILBOXES;

		lease_for_a_moment(traffic, seat, box);
		if (fetch(traffic, seat, (uint32_t)(dice >> 16) % MAILBOXES))
			return 1;
		if (!block->id) {
			SEAT_CHECK(ac__block_take(&arena, seat, 4096u << (dice >> 24) % 7, block) == 0);
			mark(block, block->id);
			continue;
		}
		SEAT_CHECK(is_marked(block, block->id));
		if (dice >> 63)
			ac__block_give(&arena, seat, block->id);
		else if (post(traffic, seat, box, block->id))
			return 1;
		block->id = 0;
	}
	for (unsigned i = 0; i < OWN; i++)
		ac__block_give(&arena, seat, own[i].id);
	return 0;
}

static void expect_nothing_left(struct traffic *traffic)
{
	for (uint32_t box = 0; box < MAILBOXES; box++) {
		traffic->mailbox[box] = 0;
		ac__block_reclaim_holder(&arena, AC__HOLDER_TASK + box);
	}
	for (unsigned seat = 0; seat < SEATS; seat++)
		ac__block_reclaim(&arena, seat);
	assert_int_equal(ac__block_in_use(&arena), 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_true(ac__word_state(arena.blocks[i].word) <= AC__BLOCK_FREE);
	assert_int_equal(ac__block_audit(&arena), 0);
}

static void test_block_threads_leak_nothing(void **state)
{
	struct traffic *traffic = arena.root;
	struct seats seats;

	(void)state;
	traffic->seed = seats_seed();
	traffic->rounds = seats_scaled(40000);
	seats_start(&seats, SEATS_THREADS, 4, trade, traffic);
	assert_int_equal(seats_join(&seats), 0);
	expect_nothing_left(traffic);
}

static void test_block_killed_processes_leak_nothing(void **state)
{
	struct traffic *traffic = arena.root;
	uint64_t seed = seats_seed();
	int64_t end = ac__sys_deadline(2000000000);
	struct seats seats;
	unsigned kills = 0;

	(void)state;
	traffic->seed = seed;
	seats_start(&seats, SEATS_PROCESSES, 4, trade, traffic);
	while (ac__sys_now() < end) {
		unsigned seat = 1 + (unsigned)(seats_random(&seed) % 4);

		usleep((unsigned)(seats_random(&seed) % 4000));
		if (!seats_kill(&seats, seat))
			break; /* it found something wrong */
		kills++;
		ac__block_reclaim(&arena, seat);
		seats_restart(&seats, seat);
	}
	traffic->stop = 1;
	assert_int_equal(seats_join(&seats), 0);
	assert_true(kills > 10);
	expect_nothing_left(traffic);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_SPOILT(test_block_list_with_wild_index),
		TEST_SPOILT(test_block_list_in_a_circle_of_free_ones),
		TEST_SPOILT(test_block_list_in_a_circle_of_held_ones),
		TEST(test_block_list_twice_in_it_is_put_right),
		TEST_SPOILT(test_block_free_one_with_a_spoilt_size),
		TEST_SPOILT(test_block_free_one_with_a_spoilt_place),
		TEST_SPOILT(test_block_spoilt_top_spares_the_tables),
		TEST_SPOILT(test_block_random_hints_neither_crash_nor_hang),
		TEST(test_block_trim_gives_pages_back),
		TEST(test_block_trim_reaches_all_of_a_size),
		TEST_FILE(test_block_cold_one_is_preallocated_again),
		TEST(test_block_that_cannot_be_mapped_is_left_to_others),
		TEST(test_block_threads_leak_nothing),
		TEST(test_block_killed_processes_leak_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

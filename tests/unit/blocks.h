/* SPDX-License-Identifier: MIT */
/*
 * An arena for the tests of blocks: opened before and audited after each of them. For inclusion
 * in a test program, whose set-up and tear-down it is; not every program uses all of it.
 */
#ifndef AC_TEST_BLOCKS_H
#define AC_TEST_BLOCKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "block.h"
#include "seats.h"

#define MAYBE __attribute__((unused)) static

#define KB (UINT64_C(1) << 10)
#define MB (UINT64_C(1) << 20)
#define GB (UINT64_C(1) << 30)
#define ALWAYS 1000000
#define SEATS 7
#define BLOCKS 1024
#define TASK (AC__HOLDER_TASK + 5)

static struct ac__arena arena;
static unsigned descriptors;

MAYBE int open_arena(uint32_t blocks, uint64_t memory, bool file)
{
	struct ac__arena_plan plan = { .seats = SEATS, .blocks = blocks,
				       .root_len = 4096, .memory = memory,
				       .group = seats_group };

	ac__fault_disarm();
	descriptors = seats_descriptors();
	if (file)
		ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
	return ac__arena_open(&arena, &plan);
}

MAYBE int set_up(void **state)
{
	(void)state;
	return open_arena(BLOCKS, 0, false);
}

MAYBE int set_up_file(void **state)
{
	(void)state;
	return open_arena(BLOCKS, 0, true);
}

MAYBE int set_up_memory(void **state)
{
	(void)state;
	return open_arena(BLOCKS, 8 * MB, false);
}

MAYBE int set_up_small(void **state)
{
	(void)state;
	return open_arena(4, 0, false);
}

/* Whatever a test did, at its end the invariants hold and nothing is open. */
MAYBE int tear_down(void **state)
{
	int r = ac__block_audit(&arena);

	(void)state;
	ac__fault_disarm();
	ac__arena_close(&arena);
	if (r == 0 && seats_descriptors() == descriptors && !seats_children())
		return 0;
	fprintf(stderr, "audit %d; descriptors %u before, %u after\n", r,
		descriptors, seats_descriptors());
	return -1;
}

/* For tests that leave the table spoilt on purpose. */
MAYBE int tear_down_spoilt(void **state)
{
	(void)state;
	ac__fault_disarm();
	ac__arena_close(&arena);
	return seats_children() ? -1 : 0;
}

MAYBE struct ac__block take(uint32_t holder, uint64_t size)
{
	struct ac__block block = { 0 };

	assert_int_equal(ac__block_take(&arena, holder, size, &block), 0);
	assert_true(block.id >= 1 && block.id <= arena.block_count);
	assert_true(block.size >= size && block.size >= AC__BLOCK_LEAST);
	assert_non_null(block.data);
	return block;
}

MAYBE struct ac__block_shm *row_of(uint32_t id)
{
	return &arena.blocks[id - 1];
}

MAYBE unsigned state_of(uint32_t id)
{
	return ac__word_state(row_of(id)->word);
}

MAYBE uint64_t bytes_of_file(void)
{
	struct stat s;

	assert_int_equal(fstat(arena.region.fd.number, &s), 0);
	return (uint64_t)s.st_blocks * 512;
}

MAYBE _Atomic uint64_t *list_of(uint64_t size)
{
	return &arena.shm->hints.free[__builtin_ctzll(size)];
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_SPOILT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_spoilt)
#define TEST_FILE(name) cmocka_unit_test_setup_teardown(name, set_up_file, tear_down)
#define TEST_MEMORY(name) cmocka_unit_test_setup_teardown(name, set_up_memory, tear_down)
#define TEST_SMALL(name) cmocka_unit_test_setup_teardown(name, set_up_small, tear_down)

#endif

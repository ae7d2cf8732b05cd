/* SPDX-License-Identifier: MIT */
/*
 * A board for the tests of the ring. For inclusion in a test program, whose
 * set-up and tear-down it is; not every program uses all of it.
 */
#ifndef AC_TEST_BOARD_H
#define AC_TEST_BOARD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ring.h"
#include "seats.h"

#define MAYBE __attribute__((unused)) static

#define MS INT64_C(1000000)
#define TASKS 64
#define SEATS 70 /* more than one word of the idle map */
#define WORKERS 4

static struct ac__arena arena;
static struct ac__board board;
static uint64_t gens[TASKS];
static unsigned descriptors;

MAYBE int set_up(void **state)
{
	struct ac__board_plan plan = { .tasks = TASKS, .trace = 4 };
	struct ac__arena_plan room = { .seats = SEATS, .blocks = 16,
				       .root_len = ac__board_size(&plan, SEATS),
				       .group = seats_group };

	(void)state;
	ac__fault_disarm();
	descriptors = seats_descriptors();
	memset(gens, 0, sizeof gens);
	if (ac__arena_open(&arena, &room) < 0)
		return -1;
	ac__board_init(&board, &arena, &plan);
	return 0;
}

MAYBE int tear_down(void **state)
{
	(void)state;
	ac__arena_close(&arena);
	return seats_descriptors() == descriptors && !seats_children() ? 0 : -1;
}

MAYBE void publish(uint32_t task)
{
	ac__ring_publish(&board, task, gens[task]);
}

/* The owner's last step: the word is free for its next turn. */
MAYBE void free_task(uint32_t task)
{
	gens[task]++;
	atomic_store(&board.tasks[task].word,
		     ac__word_make(AC__TASK_FREE, AC__OWNER_SEAT, gens[task]));
}

MAYBE unsigned state_of(uint32_t task)
{
	return ac__word_state(board.tasks[task].word);
}

MAYBE bool is_idle(unsigned seat)
{
	return board.shm->idle[seat / 64] >> seat % 64 & 1;
}

MAYBE unsigned bell_of(unsigned seat)
{
	return arena.seats[seat].bell.state;
}

MAYBE bool withdraw(uint32_t task)
{
	bool r = ac__ring_withdraw(&board, task, gens[task]);

	gens[task] += r;
	return r;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

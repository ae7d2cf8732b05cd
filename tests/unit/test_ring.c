/* SPDX-License-Identifier: MIT */
/* The ring, the done list, who sleeps and who spins: step by step in one thread, and spoilt. */
#define _GNU_SOURCE

#include "board.h"

/* ---- the board ---- */

static void test_ring_board_is_attached_with_its_places(void **state)
{
	struct ac__board second;

	(void)state;
	assert_int_equal(ac__board_attach(&second, &arena), 0);
	assert_ptr_equal(second.tasks, board.tasks);
	assert_ptr_equal(second.ring, board.ring);
	assert_ptr_equal(second.trace, board.trace);
	assert_int_equal(second.task_count, TASKS);
	assert_true((char *)&board.trace[5 * SEATS] <= (char *)arena.root + arena.root_len);
	assert_true((uintptr_t)&board.tasks[1] % AC__LINE == 0);
}

static void test_ring_board_that_does_not_fit_is_another_version(void **state)
{
	struct ac__board second;
	struct ac__board_shm was = *board.shm;

	(void)state;
	board.shm->seats = SEATS - 1;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
	board.shm->seats = SEATS;
	board.shm->tasks = TASKS * 2;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
	board.shm->tasks = was.tasks;
	board.shm->trace = 1u << 31;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
	board.shm->trace = was.trace;
	arena.root_len = 64;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
	arena.root_len = ac__board_size(&(struct ac__board_plan){ .tasks = TASKS, .trace = 4 }, SEATS);
	assert_int_equal(ac__board_attach(&second, &arena), 0);
}

static int attach_arena(void)
{
	struct ac__arena second;
	int fd = dup(arena.region.fd.number);
	int r = ac__arena_attach(&second, &fd);

	assert_int_equal(fd, -1);
	if (r == 0)
		ac__arena_close(&second);
	return r;
}

/* By its number, or by where things lie in structs whose sizes are the same. */
static void test_ring_arena_of_another_layout_is_another_version(void **state)
{
	uint32_t version = arena.shm->version, places = arena.shm->places;

	(void)state;
	assert_int_equal(attach_arena(), 0);
	arena.shm->version = 1;
	assert_int_equal(attach_arena(), AC_EVERSION);
	arena.shm->version = version;
	arena.shm->places = (uint32_t)(sizeof(struct ac__arena_shm) ^
				       sizeof(struct ac__seat_shm) << 10 ^
				       sizeof(struct ac__block_shm) << 20);
	assert_int_equal(attach_arena(), AC_EVERSION);
	arena.shm->places = places;
	assert_int_equal(attach_arena(), 0);
}

/* What addresses are computed from is checked, all of it. */
static void test_ring_board_with_spoilt_places_is_another_version(void **state)
{
	struct ac__board second;
	struct ac__board_shm was = *board.shm;

	(void)state;
	board.shm->ring = 1u << 30;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
	board.shm->ring = was.ring;
	board.shm->ring_offset = UINT64_C(1) << 40;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
	board.shm->ring_offset = was.ring_offset;
	board.shm->tasks_offset = UINT64_C(1) << 40;
	assert_int_equal(ac__board_attach(&second, &arena), AC_EVERSION);
}

/* ---- one thread ---- */

static void test_ring_one_task_goes_round(void **state)
{
	(void)state;
	for (uint64_t turn = 0; turn < 1000; turn++) {
		assert_int_equal(ac__ring_take(&board, 3), -1);
		assert_false(ac__ring_any(&board));
		publish(7);
		assert_int_equal(ac__ring_length(&board), 1);
		assert_true(ac__ring_any(&board));
		assert_int_equal(ac__ring_take(&board, 3), 7);
		assert_int_equal(state_of(7), AC__TASK_TAKEN);
		assert_int_equal(ac__word_holder(board.tasks[7].word), 3);
		assert_false(ac__ring_withdraw(&board, 7, gens[7]));
		assert_false(ac__done_any(&board));
		assert_int_equal(ac__done_empty(&board), 0);
		assert_int_equal(ac__done_push(&board, 3, 7), 0);
		assert_true(ac__done_any(&board));
		assert_int_equal(ac__done_empty(&board), 8);
		assert_int_equal(ac__done_next(&board, 7), 0);
		assert_int_equal(ac__done_empty(&board), 0);
		free_task(7);
	}
}

static void test_ring_is_first_in_first_out(void **state)
{
	(void)state;
	for (uint32_t turn = 0; turn < 5; turn++) {
		for (uint32_t i = 0; i < TASKS; i++)
			publish((i * 5 + turn) % TASKS);
		assert_int_equal(ac__ring_length(&board), TASKS);
		for (uint32_t i = 0; i < TASKS; i++)
			assert_int_equal(ac__ring_take(&board, 1), (i * 5 + turn) % TASKS);
		assert_int_equal(ac__ring_take(&board, 1), -1);
		for (uint32_t i = 0; i < TASKS; i++)
			free_task(i);
	}
}

static void test_ring_withdrawn_is_skipped(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		publish(i);
	assert_true(withdraw(0));
	assert_true(withdraw(2));
	assert_int_equal(state_of(2), AC__TASK_FREE);
	assert_false(ac__ring_withdraw(&board, 2, gens[2]));
	assert_int_equal(ac__ring_take(&board, 1), 1);
	publish(2); /* in its next turn */
	assert_int_equal(ac__ring_take(&board, 1), 3);
	assert_int_equal(ac__ring_take(&board, 1), 2);
	assert_int_equal(ac__ring_take(&board, 1), -1);
	publish(0);
	assert_true(withdraw(0));
	assert_false(ac__ring_any(&board));
	assert_int_equal(ac__ring_length(&board), 0); /* any moved over it */
}

static void test_ring_full_of_stale_entries_keeps_what_is_ready(void **state)
{
	bool seen[TASKS] = { false };

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		publish(i);
	for (uint32_t n = 0; n < 10 * TASKS; n++) {
		publish(3 + n % 7);
		assert_true(withdraw(3 + n % 7));
	}
	publish(20);
	for (int i = 0; i < 4; i++) {
		int64_t task = ac__ring_take(&board, 1);

		assert_true(task >= 0 && !seen[task]);
		seen[task] = true;
	}
	assert_true(seen[0] && seen[1] && seen[2] && seen[20]);
	assert_int_equal(ac__ring_take(&board, 1), -1);
}

static void test_ring_republished_is_taken_once(void **state)
{
	(void)state;
	publish(1);
	ac__ring_republish(&board, 1, gens[1]);
	ac__ring_republish(&board, 1, gens[1]);
	assert_int_equal(ac__ring_take(&board, 1), 1);
	assert_int_equal(ac__ring_take(&board, 1), -1);
}

/* All workers are in long tasks, and the owner's audit comes by every second. */
static int audit_again_and_again(void *arg)
{
	(void)arg;
	for (uint32_t i = 0; i < TASKS; i++)
		publish(i);
	for (int audit = 0; audit < 10; audit++)
		for (uint32_t i = 0; i < TASKS; i++)
			ac__ring_republish(&board, i, gens[i]);
	for (uint32_t i = 0; i < TASKS; i++)
		SEAT_CHECK(ac__ring_take(&board, 1) >= 0);
	SEAT_CHECK(ac__ring_take(&board, 1) == -1);
	return 0;
}

static void test_ring_full_of_ready_entries_does_not_hang_the_audit(void **state)
{
	(void)state;
	assert_int_equal(seats_in_own_child(audit_again_and_again, NULL, 5), 0);
}

static int use_spoilt_ring(void *arg)
{
	uint64_t *seed = arg;
	unsigned taken = 0;

	for (int i = 0; i < 10; i++)
		publish((uint32_t)i);
	switch (seats_random(seed) % 4) {
	case 0:
		atomic_store(&board.shm->head, seats_random(seed));
		break;
	case 1:
		atomic_store(&board.shm->tail, seats_random(seed));
		break;
	case 2: /* near the truth */
		atomic_store(&board.shm->head, board.shm->tail + 300 - seats_random(seed) % 600);
		break;
	default:
		for (uint32_t i = 0; i <= board.ring_mask; i++)
			board.ring[i] = seats_random(seed) >> seats_random(seed) % 64;
	}
	ac__ring_length(&board);
	ac__ring_any(&board);
	if (ac__ring_take(&board, 1) >= 0)
		taken++;
	/* The audit puts all right. */
	ac__ring_repair(&board);
	for (uint32_t i = 0; i < 10; i++)
		if (state_of(i) == AC__TASK_READY)
			ac__ring_republish(&board, i, gens[i]);
	publish(20);
	for (int i = 0; i < 1000; i++)
		if (ac__ring_any(&board) && ac__ring_take(&board, 1) >= 0)
			taken++;
	SEAT_CHECK(taken == 11);
	SEAT_CHECK(ac__ring_take(&board, 1) == -1 || state_of(0) != AC__TASK_READY);
	return 0;
}

static void test_ring_spoilt_hints_are_put_right(void **state)
{
	uint64_t seed = seats_seed();

	(void)state;
	for (unsigned n = 0; n < seats_scaled(400); n++) {
		seats_random(&seed);
		assert_int_equal(seats_in_own_child(use_spoilt_ring, &seed, 5), 0);
		memset(&board.shm->head, 0, sizeof board.shm->head);
		memset(&board.shm->tail, 0, sizeof board.shm->tail);
		board.own_tail = board.seen_head = 0;
		memset(board.ring, 0, (board.ring_mask + 1) * sizeof *board.ring);
		for (uint32_t i = 0; i < TASKS; i++)
			free_task(i);
	}
}

/* ---- the done list ---- */

static void test_ring_done_list_gives_all_in_batches(void **state)
{
	bool seen[TASKS] = { false };
	unsigned n = 0;

	(void)state;
	for (uint32_t i = 0; i < TASKS; i++)
		publish(i);
	for (unsigned batch = 1; n < 45; batch++) {
		uint32_t next;

		for (unsigned i = 0; i < batch; i++) {
			int64_t task = ac__ring_take(&board, 1 + i % 3);

			assert_int_equal(ac__done_push(&board, 1 + i % 3, (uint32_t)task), 0);
		}
		next = ac__done_empty(&board);
		for (unsigned i = 0; i < batch; i++, n++) {
			uint32_t task = next - 1;

			assert_true(next && !seen[task]);
			assert_int_equal(state_of(task), AC__TASK_DONE);
			seen[task] = true;
			next = ac__done_next(&board, task);
		}
		assert_int_equal(next, 0);
	}
}

static void test_ring_condemned_cannot_be_completed(void **state)
{
	(void)state;
	publish(5);
	assert_false(ac__ring_condemn(&board, 5, gens[5], 2)); /* not taken yet */
	assert_int_equal(ac__ring_take(&board, 2), 5);
	assert_false(ac__ring_condemn(&board, 5, gens[5], 3));
	assert_false(ac__ring_condemn(&board, 5, gens[5] + 1, 2));
	assert_true(ac__ring_condemn(&board, 5, gens[5], 2));
	assert_int_equal(ac__done_push(&board, 2, 5), -1);
	assert_int_equal(state_of(5), AC__TASK_CONDEMNED);
	assert_false(ac__done_any(&board));
	free_task(5);
	publish(5);
	assert_int_equal(ac__ring_take(&board, 2), 5);
	assert_int_equal(ac__done_push(&board, 2, 5), 0);
	assert_false(ac__ring_condemn(&board, 5, gens[5], 2)); /* too late */
}

static void complete(unsigned seat, int rings)
{
	int64_t task = ac__ring_take(&board, seat);

	assert_true(task >= 0);
	assert_int_equal(ac__done_push(&board, seat, (uint32_t)task), rings);
}

static void test_ring_owner_is_rung_when_it_sleeps_and_little_is_left(void **state)
{
	struct ac__bell *bell = &board.shm->owner_bell;

	(void)state;
	for (uint32_t i = 0; i < 10; i++)
		publish(i);
	complete(1, 0); /* it is awake */
	board.shm->ring_below = 7;
	ac__bell_arm(bell);
	complete(1, 0); /* 8 are left */
	complete(1, 1);
	assert_int_equal(bell->state, AC__BELL_RUNG);
	complete(1, 0); /* somebody rings already */
	ac__bell_disarm(bell);
	complete(1, 0);
	board.shm->ring_below = UINT32_MAX;
	ac__bell_arm(bell);
	complete(1, 1);
}

/* ---- who sleeps, who spins ---- */

static void test_ring_idle_enter_looks_again(void **state)
{
	(void)state;
	assert_true(ac__idle_enter(&board, 66));
	assert_true(is_idle(66));
	assert_int_equal(bell_of(66), AC__BELL_ASLEEP);
	ac__idle_leave(&board, 66);
	assert_false(is_idle(66));
	assert_int_equal(bell_of(66), AC__BELL_AWAKE);
	publish(1);
	assert_false(ac__idle_enter(&board, 66)); /* there is work */
	assert_false(is_idle(66));
	assert_int_equal(bell_of(66), AC__BELL_AWAKE);
	assert_int_equal(ac__ring_take(&board, 66), 1);
	assert_true(ac__idle_enter(&board, 66));
	ac__idle_leave(&board, 66);
	board.shm->closing = 1;
	assert_false(ac__idle_enter(&board, 66)); /* it is time to leave */
	assert_false(is_idle(66));
}

static void test_ring_wake_rings_one_sleeper_for_each_task(void **state)
{
	(void)state;
	assert_true(ac__idle_enter(&board, 2));
	assert_true(ac__idle_enter(&board, 69));
	publish(1);
	ac__ring_wake(&board);
	assert_int_equal(bell_of(2), AC__BELL_RUNG);
	assert_int_equal(bell_of(69), AC__BELL_ASLEEP);
	ac__ring_wake(&board);
	assert_int_equal(bell_of(69), AC__BELL_RUNG);
	ac__ring_wake(&board); /* nobody is left */
	ac__idle_leave(&board, 2);
	assert_false(ac__idle_enter(&board, 2));
}

static void test_ring_wake_passes_over_who_is_awake(void **state)
{
	(void)state;
	assert_true(ac__idle_enter(&board, 2));
	assert_true(ac__idle_enter(&board, 3));
	assert_true(ac__bell_claim(&arena.seats[2].bell)); /* its ringer is slow, or dead */
	board.shm->idle[1] |= UINT64_C(1) << 63; /* no such seat */
	ac__ring_wake(&board);
	assert_int_equal(bell_of(3), AC__BELL_RUNG);
	ac__ring_wake(&board);
	assert_int_equal(bell_of(2), AC__BELL_RUNG);
}

static void test_ring_wake_all_rings_also_the_forgotten(void **state)
{
	(void)state;
	for (unsigned seat = 1; seat < 5; seat++)
		assert_true(ac__idle_enter(&board, seat));
	assert_true(ac__bell_claim(&arena.seats[1].bell));
	board.shm->idle[0] = 0; /* whoever cleared the bits died before it rang */
	ac__ring_wake_all(&board);
	for (unsigned seat = 1; seat < 5; seat++)
		assert_int_equal(bell_of(seat), AC__BELL_RUNG);
	assert_int_equal(bell_of(5), AC__BELL_AWAKE);
}

static void test_ring_spinner_is_only_one(void **state)
{
	(void)state;
	assert_true(ac__idle_enter(&board, 9));
	assert_true(ac__spinner_enter(&board, 2));
	assert_false(ac__spinner_enter(&board, 3));
	assert_false(ac__spinner_enter(&board, 2));
	ac__spinner_leave(&board, 3); /* not its to leave */
	assert_false(ac__spinner_enter(&board, 3));
	publish(1);
	publish(2);
	ac__ring_wake(&board);
	assert_int_equal(bell_of(9), AC__BELL_ASLEEP); /* the spinner will see it */
	assert_int_equal(ac__ring_take(&board, 2), 1);
	ac__spinner_leave(&board, 2);
	ac__ring_hand_on(&board);
	assert_int_equal(bell_of(9), AC__BELL_RUNG); /* for what it leaves behind */
	assert_true(ac__spinner_enter(&board, 3));
}

static void test_ring_hand_on_of_nothing_wakes_nobody(void **state)
{
	(void)state;
	assert_true(ac__idle_enter(&board, 9));
	publish(1);
	assert_int_equal(ac__ring_take(&board, 2), 1);
	ac__ring_hand_on(&board);
	assert_int_equal(bell_of(9), AC__BELL_ASLEEP);
}

static void test_ring_forgotten_seat_is_nowhere(void **state)
{
	(void)state;
	assert_true(ac__spinner_enter(&board, 66));
	assert_true(ac__idle_enter(&board, 66));
	ac__ring_forget_seat(&board, 65);
	assert_true(is_idle(66));
	ac__ring_forget_seat(&board, 66);
	assert_false(is_idle(66));
	assert_int_equal(bell_of(66), AC__BELL_AWAKE);
	assert_int_equal(board.shm->spinner, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_board_is_attached_with_its_places),
		TEST(test_ring_board_that_does_not_fit_is_another_version),
		TEST(test_ring_arena_of_another_layout_is_another_version),
		TEST(test_ring_board_with_spoilt_places_is_another_version),
		TEST(test_ring_one_task_goes_round),
		TEST(test_ring_is_first_in_first_out),
		TEST(test_ring_withdrawn_is_skipped),
		TEST(test_ring_full_of_stale_entries_keeps_what_is_ready),
		TEST(test_ring_republished_is_taken_once),
		TEST(test_ring_full_of_ready_entries_does_not_hang_the_audit),
		TEST(test_ring_spoilt_hints_are_put_right),
		TEST(test_ring_done_list_gives_all_in_batches),
		TEST(test_ring_condemned_cannot_be_completed),
		TEST(test_ring_owner_is_rung_when_it_sleeps_and_little_is_left),
		TEST(test_ring_idle_enter_looks_again),
		TEST(test_ring_wake_rings_one_sleeper_for_each_task),
		TEST(test_ring_wake_passes_over_who_is_awake),
		TEST(test_ring_wake_all_rings_also_the_forgotten),
		TEST(test_ring_spinner_is_only_one),
		TEST(test_ring_hand_on_of_nothing_wakes_nobody),
		TEST(test_ring_forgotten_seat_is_nowhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

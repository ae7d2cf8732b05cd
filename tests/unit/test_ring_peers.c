/* SPDX-License-Identifier: MIT */
/* Each task published is taken once and collected once, by threads and processes, whoever dies. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "board.h"

/* ---- an owner and its workers ---- */

#define NOTHING_FOR (30000 * MS)

/* The owner's private books. */
static struct {
	uint64_t submitted, collected, lost, withdrawn;
	uint64_t to_submit;
	uint64_t number[TASKS]; /* 0: the task is free */
	unsigned char *ended;	/* by number: how often */
	bool wrong;
} books;

static void burn(uint64_t number)
{
	for (unsigned n = number % 8 ? 0 : 2000; n; n--)
		ac__relax();
}

static int64_t spin_for_a_moment(struct ac__board *mine, unsigned seat)
{
	int64_t task = -1;

	if (!ac__spinner_enter(mine, seat))
		return -1;
	for (int i = 0; task < 0 && i < 200; i++)
		task = ac__ring_take(mine, seat);
	ac__spinner_leave(mine, seat);
	return task;
}

static int work(unsigned seat, void *arg)
{
	/* Each process has its own view; threads in their place need one too. */
	struct ac__board mine;
	bool idle = true;

	(void)arg;
	assert_int_equal(ac__board_attach(&mine, &arena), 0);
	for (;;) {
		int64_t task = ac__ring_take(&mine, seat);
		int r;

		if (task < 0 && atomic_load(&board.shm->closing))
			return 0;
		if (task < 0) {
			idle = true;
			task = spin_for_a_moment(&mine, seat);
		}
		if (task < 0) {
			if (!ac__idle_enter(&mine, seat))
				continue;
			r = ac__bell_sleep(&arena.seats[seat].bell, INT64_MAX);
			ac__idle_leave(&mine, seat);
			SEAT_CHECK(r == 0);
			continue;
		}
		if (idle)
			ac__ring_hand_on(&mine);
		idle = false;
		burn(board.tasks[task].number);
		memcpy(board.tasks[task].text, board.tasks[task].data, 16);
		r = ac__done_push(&mine, seat, (uint32_t)task);
		SEAT_CHECK(r >= 0);
		if (r > 0)
			ac__sys_futex_wake(&board.shm->owner_bell.state, 1);
	}
}

static void submit_what_fits(void)
{
	for (uint32_t i = 0; i < TASKS && books.submitted < books.to_submit; i++) {
		struct ac__task_shm *row = &board.tasks[i];

		if (books.number[i])
			continue;
		books.number[i] = row->number = ++books.submitted;
		memcpy(row->data, &row->number, 8);
		memcpy(row->data + 8, &row->number, 8);
		memset(row->text, 0, 16);
		publish(i);
		ac__ring_wake(&board);
		if (row->number % 16 == 0 && withdraw(i)) {
			books.ended[books.number[i]]++;
			books.withdrawn++;
			books.number[i] = 0;
		}
	}
}

static void end_task(uint32_t task, uint64_t *count)
{
	uint64_t word = board.tasks[task].word;

	if (!books.number[task] || ac__word_gen(word) != gens[task] ||
	    books.ended[books.number[task]]++)
		books.wrong = true;
	++*count;
	books.number[task] = 0;
	free_task(task);
}

static void collect_task(uint32_t task)
{
	if (state_of(task) != AC__TASK_DONE ||
	    memcmp(board.tasks[task].text, &books.number[task], 8))
		books.wrong = true;
	end_task(task, &books.collected);
}

static bool collect_done(void)
{
	uint32_t next = ac__done_empty(&board);
	bool any = next != 0;

	for (unsigned n = 0; next; n++) {
		uint32_t task = next - 1;

		if (task >= TASKS || n > TASKS) {
			books.wrong = true;
			break;
		}
		next = ac__done_next(&board, task);
		collect_task(task);
	}
	return any;
}

/* The ordered steps that follow a death. */
static void bury(unsigned seat)
{
	bool ready = false;

	collect_done();
	for (uint32_t i = 0; i < TASKS; i++) {
		uint64_t word = board.tasks[i].word;

		ready |= ac__word_state(word) == AC__TASK_READY;
		if (ac__word_holder(word) != seat || !books.number[i])
			continue;
		if (ac__word_state(word) == AC__TASK_TAKEN)
			end_task(i, &books.lost);
		else if (ac__word_state(word) == AC__TASK_DONE)
			collect_task(i);
	}
	ac__ring_forget_seat(&board, seat);
	ac__seat_free(&arena, seat);
	if (ready)
		ac__ring_wake_all(&board);
}

static uint64_t outstanding(void)
{
	return books.submitted - books.collected - books.lost - books.withdrawn;
}

/* False: there is work, nobody does it, and nothing comes for very long. */
static bool sleep_for_results(int64_t deadline)
{
	struct ac__bell *bell = &board.shm->owner_bell;
	int r = 0;

	ac__bell_arm(bell);
	if (!ac__done_any(&board))
		r = ac__bell_sleep(bell, deadline);
	ac__bell_disarm(bell);
	return r != -ETIMEDOUT;
}

static void start_books(uint64_t to_submit)
{
	memset(&books, 0, sizeof books);
	books.to_submit = to_submit;
	books.ended = calloc(to_submit + 1, 1);
	assert_non_null(books.ended);
	board.shm->ring_below = UINT32_MAX;
}

static void check_books(void)
{
	assert_false(books.wrong);
	assert_true(books.submitted == books.to_submit);
	assert_true(books.collected + books.lost + books.withdrawn == books.submitted);
	for (uint64_t n = 1; n <= books.to_submit; n++)
		assert_int_equal(books.ended[n], 1);
	free(books.ended);
	for (uint32_t i = 0; i < TASKS; i++)
		assert_int_equal(state_of(i), AC__TASK_FREE);
	assert_int_equal(board.shm->spinner, 0);
	for (unsigned seat = 1; seat <= WORKERS; seat++)
		assert_false(is_idle(seat));
}

static void close_board(void)
{
	atomic_store(&board.shm->closing, 1);
	ac__ring_wake_all(&board);
}

static void run_undisturbed(enum seats_kind kind, uint64_t tasks)
{
	struct seats seats;
	bool hung = false;

	start_books(tasks);
	seats_start(&seats, kind, WORKERS, work, NULL);
	while (!hung && !books.wrong && (outstanding() || books.submitted < tasks)) {
		submit_what_fits();
		if (!collect_done())
			hung = outstanding() && !sleep_for_results(ac__sys_deadline(NOTHING_FOR));
	}
	close_board();
	assert_int_equal(seats_join(&seats), 0);
	assert_false(hung);
	assert_true(books.lost == 0);
	check_books();
}

static void test_ring_threads_do_each_task_once(void **state)
{
	(void)state;
	run_undisturbed(SEATS_THREADS, 100000);
}

static void test_ring_processes_do_each_task_once(void **state)
{
	(void)state;
	run_undisturbed(SEATS_PROCESSES, 100000);
}

/* Kills go on until all is done; the owner sleeps only to the next one. */
static void test_ring_killed_processes_lose_only_what_they_held(void **state)
{
	uint64_t seed = seats_seed();
	int64_t quiet_since = ac__sys_now(), next_kill = 0;
	struct seats seats;
	unsigned kills = 0;
	bool hung = false;

	(void)state;
	start_books(seats_scaled(600000));
	seats_start(&seats, SEATS_PROCESSES, WORKERS, work, NULL);
	while (!hung && !books.wrong && (outstanding() || books.submitted < books.to_submit)) {
		unsigned seat = 1 + (unsigned)(seats_random(&seed) % WORKERS);

		submit_what_fits();
		if (collect_done())
			quiet_since = ac__sys_now();
		else if (ac__sys_now() - quiet_since > NOTHING_FOR)
			hung = true;
		else
			sleep_for_results(next_kill);
		if (ac__sys_now() < next_kill)
			continue;
		next_kill = ac__sys_deadline((int64_t)(seats_random(&seed) % 5) * MS);
		if (!seats_kill(&seats, seat))
			break; /* it found something wrong */
		kills++;
		bury(seat);
		seats_restart(&seats, seat);
	}
	close_board();
	assert_int_equal(seats_join(&seats), 0);
	assert_false(hung);
	print_message("# %u kills, %u of %u lost\n", kills, (unsigned)books.lost,
		      (unsigned)books.submitted);
	check_books();
}

/* One kill at a time and then quiet: all that is READY is done though nobody publishes any more. */
static void test_ring_death_leaves_no_sleeper_while_there_is_work(void **state)
{
	uint64_t seed = seats_seed();
	struct seats seats;
	bool hung = false;

	(void)state;
	start_books(seats_scaled(400) * 40);
	books.to_submit = 0;
	seats_start(&seats, SEATS_PROCESSES, WORKERS, work, NULL);
	for (unsigned n = 0; n < seats_scaled(400) && !hung && !books.wrong; n++) {
		unsigned seat = 1 + n % WORKERS;

		books.to_submit += 40;
		submit_what_fits();
		for (unsigned i = (unsigned)(seats_random(&seed) % 2000); i; i--)
			ac__relax();
		if (!seats_kill(&seats, seat))
			break;
		bury(seat);
		seats_restart(&seats, seat);
		while (!hung && !books.wrong && outstanding())
			if (!collect_done())
				hung = !sleep_for_results(ac__sys_deadline(NOTHING_FOR));
	}
	close_board();
	assert_int_equal(seats_join(&seats), 0);
	assert_false(hung);
	check_books();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ring_threads_do_each_task_once),
		TEST(test_ring_processes_do_each_task_once),
		TEST(test_ring_killed_processes_lose_only_what_they_held),
		TEST(test_ring_death_leaves_no_sleeper_while_there_is_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

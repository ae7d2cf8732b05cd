/* SPDX-License-Identifier: MIT */
/* What a pool tells of workers that died at their work, and of those that are at it, for
 * workers of its own and for adopted ones. */
#include "pool_help.h"

#include "worker.h"

static struct ac_pool *pool;
static struct ac_task *task;
static _Atomic bool *refused; /* shared; where it is, workers refuse */

/* ---- workers ---- */

static int burn_and_die(struct ac_call *call)
{
	size_t len = *(const size_t *)ac_call_arg(call, NULL);
	volatile char *memory = malloc(len);

	for (size_t i = 0; memory && i < len; i += 1024)
		memory[i] = 1;
	nap(100 * MS);
	die(SIGKILL);
	return 0;
}

static int nap_long(struct ac_call *call)
{
	nap(*(const int *)ac_call_arg(call, NULL) * MS);
	return 0;
}

static int be_quick(struct ac_call *call)
{
	(void)call;
	return 0;
}

/* And stays for a moment, so that its seat can be looked at. */
static int refuse(int fd)
{
	struct ac_worker *worker;

	if (ac_worker_open(&worker, fd) < 0)
		return 10;
	ac_worker_ready(worker, -1, "no licence");
	*refused = true;
	nap(300 * MS);
	return 0;
}

static int serve(int fd)
{
	struct ac_worker *worker;
	struct ac_call *call;

	if (ac_worker_open(&worker, fd) < 0 || ac_worker_say(worker, "about to be") < 0 ||
	    ac_worker_ready(worker, 0, NULL) < 0)
		return 10;
	while (ac_worker_take(worker, &call) == 1) {
		ac_worker_say(worker, "at it");
		ac_worker_done(worker, call, ac_call_run(call));
	}
	ac_worker_close(worker);
	return 0;
}

static pid_t start_worker(void *arg, unsigned worker, int fd)
{
	pid_t pid = fork();

	(void)arg, (void)worker;
	if (pid == 0) {
		alarm(0);
		_exit(refused ? refuse(fd) : serve(fd));
	}
	return pid;
}

static struct ac_pool *open_adopting(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = 1,
				     .start = start_worker };
	struct ac_pool *adopting;

	assert_int_equal(ac_pool_open(&adopting, &opts), 0);
	return adopting;
}

static int tear_down(void **state)
{
	ac_task_free(task);
	task = NULL;
	ac_pool_close(pool);
	pool = NULL;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return help_tear_down(state);
}

/* ---- of the dead ---- */

static void assert_death_is_told(void)
{
	size_t len = 64 * MB;
	struct ac_outcome outcome;

	assert_int_equal(ac_pool_call(pool, burn_and_die, &len, sizeof len, NULL, NULL,
				      &outcome), AC_EDIED);
	/* By a clock that ticks every few milliseconds. */
	assert_true(outcome.ran_ns >= 80 * MS && outcome.ran_ns < HANG_SECONDS * SECOND);
	assert_true(outcome.peak_rss >= len && outcome.peak_rss < 16 * len);
}

static void test_telling_death_of_a_worker(void **state)
{
	(void)state;
	pool = open_pool(1);
	assert_death_is_told();
	assert_death_is_told(); /* of its replacement */
}

static void test_telling_death_of_an_adopted_worker(void **state)
{
	(void)state;
	pool = open_adopting();
	assert_death_is_told();
	assert_death_is_told();
}

static void test_telling_nothing_of_those_that_live(void **state)
{
	struct ac_outcome outcome;

	(void)state;
	pool = open_pool(1);
	assert_int_equal(ac_pool_call(pool, be_quick, NULL, 0, NULL, NULL, &outcome), 0);
	assert_int_equal(outcome.ran_ns, 0);
	assert_int_equal(outcome.peak_rss, 0);
}

/* The last task took long; the worker is idle now, and dies so. */
static void test_telling_age_of_the_task_at_hand_alone(void **state)
{
	struct ac_worker_stat stat;
	int ms = 30;

	(void)state;
	pool = open_pool(1);
	assert_int_equal(ac_pool_call(pool, nap_long, &ms, sizeof ms, NULL, NULL, NULL), 0);
	EVENTUALLY(ac_pool_workers(pool, &stat, 1) == 1 && stat.task == 0);
	assert_int_equal(stat.task_ns, 0);
}

/* ---- of those at work ---- */

static void test_telling_how_long_a_worker_is_at_it(void **state)
{
	struct ac_worker_stat stat;
	int ms = 300;

	(void)state;
	pool = open_pool(1);
	assert_int_equal(ac_pool_submit(pool, &task, nap_long, &ms, sizeof ms, NULL), 0);
	EVENTUALLY(ac_pool_workers(pool, &stat, 1) == 1 && stat.task_ns > 50 * MS);
	assert_int_equal(stat.state, AC_WORKER_BUSY);
	assert_int_equal(stat.task, 1);
	assert_string_equal(stat.text, "");
}

static void test_telling_what_a_worker_says(void **state)
{
	struct ac_worker_stat stat;
	int ms = 100;

	(void)state;
	pool = open_adopting();
	EVENTUALLY(ac_pool_workers(pool, &stat, 1) == 1 && stat.state == AC_WORKER_IDLE);
	assert_string_equal(stat.text, "about to be");
	assert_int_equal(ac_pool_submit(pool, &task, nap_long, &ms, sizeof ms, NULL), 0);
	EVENTUALLY(ac_pool_workers(pool, &stat, 1) == 1 && !strcmp(stat.text, "at it"));
	/* What it said goes with it. */
	kill(stat.pid, SIGKILL);
	EVENTUALLY(ac_pool_workers(pool, &stat, 1) == 1 && stat.starts == 2 &&
		   stat.state == AC_WORKER_IDLE);
	assert_string_equal(stat.text, "about to be");
	assert_int_equal(ac_pool_shut(pool), 0);
	assert_int_equal(ac_pool_join(pool, 20 * SECOND), 0);
	assert_int_equal(ac_pool_workers(pool, &stat, 1), 1);
	assert_int_equal(stat.state, AC_WORKER_ABSENT);
	assert_string_equal(stat.text, "");
	assert_int_equal(ac_worker_say(NULL, "x"), -EINVAL);
}

/* It is not what the worker says of itself, and the pool's calls tell it. */
static void test_telling_nothing_of_a_refusal(void **state)
{
	struct ac_worker_stat stat;

	(void)state;
	refused = share(sizeof *refused);
	pool = open_adopting();
	EVENTUALLY(*refused);
	assert_int_equal(ac_pool_workers(pool, &stat, 1), 1);
	assert_string_equal(stat.text, "");
	munmap(refused, sizeof *refused);
	refused = NULL;
}

static void test_telling_is_cut_to_its_room(void **state)
{
	struct ac__arena arena;
	struct ac__arena_plan plan = { .seats = 2, .blocks = 8, .root_len = 64 };
	struct ac_worker worker = { .seat = 1 };
	char text[1000];

	(void)state;
	memset(text, 'x', sizeof text);
	text[sizeof text - 1] = '\0';
	assert_int_equal(ac__arena_open(&arena, &plan), 0);
	worker.board.arena = &arena;
	assert_int_equal(ac_worker_say(&worker, text), 0);
	assert_int_equal(strlen(arena.seats[1].text), AC_TEXT_SIZE - 1);
	assert_int_equal(ac_worker_say(&worker, NULL), -EINVAL);
	worker.forked = true;
	assert_int_equal(ac_worker_say(&worker, "x"), AC_EFORK);
	ac__arena_close(&arena);
}

static struct {
	struct ac__arena arena;
	struct ac_worker worker;
	_Atomic bool stop;
	int64_t idle_ns;
} beginner;

/* Task after task, each after a long time with none. */
static void *begin_tasks(void *arg)
{
	struct ac__seat_shm *row = &beginner.arena.seats[1];

	while (!beginner.stop) {
		atomic_store(&row->task, 0);
		atomic_store(&row->task_since, ac__sys_now_coarse() - beginner.idle_ns);
		beginner.worker.board.tasks[0].number++;
		ac__call_begin(&beginner.worker.call, &beginner.worker, 0);
	}
	return arg;
}

static void test_telling_no_idle_time_as_a_task_s(void **state)
{
	struct ac__board_plan plan = { .tasks = 2 };
	struct ac__arena_plan room = { .seats = 2, .blocks = 8,
				       .root_len = ac__board_size(&plan, 2) };
	int64_t start = now(), most = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(ac__arena_open(&beginner.arena, &room), 0);
	ac__board_init(&beginner.worker.board, &beginner.arena, &plan);
	beginner.worker.seat = 1;
	beginner.stop = false;
	beginner.idle_ns = start / 2; /* of the time since the system was started */
	assert_int_equal(pthread_create(&thread, NULL, begin_tasks, NULL), 0);
	while (now() - start < SECOND) {
		int64_t ns;

		ac__seat_task(&beginner.arena, 1, &ns);
		most = ns > most ? ns : most;
	}
	beginner.stop = true;
	pthread_join(thread, NULL);
	ac__arena_close(&beginner.arena);
	assert_true(most < beginner.idle_ns);
}

#define TELLING_TEST(test) cmocka_unit_test_setup_teardown(test, help_set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TELLING_TEST(test_telling_death_of_a_worker),
		TELLING_TEST(test_telling_death_of_an_adopted_worker),
		TELLING_TEST(test_telling_nothing_of_those_that_live),
		TELLING_TEST(test_telling_age_of_the_task_at_hand_alone),
		TELLING_TEST(test_telling_how_long_a_worker_is_at_it),
		TELLING_TEST(test_telling_what_a_worker_says),
		TELLING_TEST(test_telling_nothing_of_a_refusal),
		TELLING_TEST(test_telling_is_cut_to_its_room),
		TELLING_TEST(test_telling_no_idle_time_as_a_task_s),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Random work for a long time: rounds of some seconds, each with one to three
 * pools and one to four threads that use them all, while another thread looks at
 * them, kills and stops workers, kills the template. Pools are shut, terminated, closed and
 * opened again meanwhile. Everything that ends must have ended in a way that is possible
 * for what was done to it, and after each round nothing may be left.
 *
 * ALLCORES_SOAK_SECONDS says for how long (20); ALLCORES_TEST_SEED repeats the choices,
 * not the interleaving.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stress.h"

#define POTS 3
#define HANDS 4
#define WORKERS_MOST 8
#define TRACE 64
#define STUCK_SECONDS 60
#define LOOK_SECONDS 5
/* Often enough to be seen, too seldom to look like workers that never start. */
#define TEMPLATE_KILLS_NS SECOND
#define GROWTH_MOST_KB (128 * 1024)

atomic_bool stress_over;

static struct pot pots[POTS];
static struct hand hands[HANDS];
static unsigned pot_count, hand_count, round_number;
static _Atomic uint64_t lives;
static int64_t next_template_kill;

static bool one_in(uint64_t *seed, uint64_t n)
{
	return stress_below(seed, n) == 0;
}

/* ---- the watchdog ---- */

/* Nothing here can be left to a thread: it may be what hangs. */
static void look_for_moves(int signal)
{
	static uint64_t seen;
	static unsigned idle;
	char text[400];
	int n;

	(void)signal;
	idle = seen == stress_moves ? idle + LOOK_SECONDS : 0;
	seen = stress_moves;
	if (idle < STUCK_SECONDS) {
		alarm(LOOK_SECONDS);
		return;
	}
	n = snprintf(text, sizeof text,
		     "# nothing moves for %d s: ALLCORES_TEST_SEED=%llu, round %u; "
		     "%s, %s, %s, %s\n",
		     STUCK_SECONDS, (unsigned long long)crash_seed, round_number,
		     hands[0].doing, hands[1].doing, hands[2].doing, hands[3].doing);
	if (write(STDOUT_FILENO, text, (size_t)n) < 0 || n)
		_exit(1);
}

static void start_watchdog(void)
{
	struct sigaction action = { .sa_handler = look_for_moves,
				    .sa_flags = SA_RESTART };

	sigaction(SIGALRM, &action, NULL);
	alarm(LOOK_SECONDS);
}

/* ---- a pool's life ---- */

static void open_pot(struct pot *pot, uint64_t *seed)
{
	char name[16];
	struct ac_pool_opts opts = {
		.size = sizeof opts,
		.workers = 1 + (int)stress_below(seed, WORKERS_MOST),
		.recycle = one_in(seed, 3) ? 1 + (unsigned)stress_below(seed, 100) : 0,
		.memory = one_in(seed, 4) ? (4 + stress_below(seed, 12)) << 20 : 0,
		.trace = one_in(seed, 2) ? TRACE : 0,
		.name = name,
	};

	/* Names tell workers of this life from all others. */
	snprintf(name, sizeof name, "%c%llu.", 'a' + (int)pot->number,
		 (unsigned long long)atomic_fetch_add(&lives, 1));
	pot->workers = (unsigned)opts.workers;
	pot->limited = opts.memory;
	pot->traced = opts.trace;
	pot->kills = one_in(seed, 2);
	pot->loop = one_in(seed, 4);
	pot->shut = pot->terminated = pot->struck = pot->beheaded = false;
	pot->uncounted = false;
	pot->submitted = pot->callbacks_due = pot->callbacks_run = 0;
	CHECK_EQ(ac_pool_open(&pot->pool, &opts), 0);
	if (pot->loop)
		CHECK(ac_pool_fd(pot->pool) >= 0);
}

static void check_books(struct pot *pot)
{
	struct ac_pool_stat stat;

	crash_check_sum(pot->pool, &stat);
	if (!pot->uncounted)
		CHECK_EQ(stat.submitted, pot->submitted);
	CHECK_EQ(pot->callbacks_run, pot->callbacks_due);
	/* Once the workers have left nobody gives back what a killed task held:
	 * the region goes as a whole. */
	if (pot->shut)
		return;
	crash_check_blocks(pot->pool, stress_count_blocks(pot));
}

static void close_pot(struct pot *pot)
{
	CHECK_EQ(ac_pool_join(pot->pool, 50 * SECOND), 0);
	check_books(pot);
	CHECK_EQ(ac_pool_close(pot->pool), 0);
	pot->pool = NULL;
	stress_check_late(pot);
	atomic_fetch_add(&stress_moves, 1);
}

static void reopen_pot(struct pot *pot, uint64_t *seed)
{
	pthread_rwlock_wrlock(&pot->lock);
	close_pot(pot);
	open_pot(pot, seed);
	pthread_rwlock_unlock(&pot->lock);
}

static void stop_pot(struct pot *pot, uint64_t *seed)
{
	atomic_store(&pot->shut, true);
	if (one_in(seed, 2)) {
		CHECK_EQ(ac_pool_shut(pot->pool), 0);
		return;
	}
	atomic_store(&pot->terminated, true);
	CHECK_EQ(ac_pool_terminate(pot->pool), 0);
}

/* ---- a thread that uses pools ---- */

static void *use_pots(void *arg)
{
	struct hand *hand = arg;

	while (!stress_over) {
		struct pot *pot = &pots[stress_below(&hand->seed, pot_count)];
		bool finished;

		pthread_rwlock_rdlock(&pot->lock);
		stress_act(hand, pot);
		if (one_in(&hand->seed, 60))
			stop_pot(pot, &hand->seed);
		finished = pot->shut;
		pthread_rwlock_unlock(&pot->lock);
		hand->doing = "closing and opening";
		if (finished || one_in(&hand->seed, 60))
			reopen_pot(pot, &hand->seed);
		hand->doing = "nothing";
	}
	return NULL;
}

/* ---- the thread outside ---- */

static void look_at(struct pot *pot)
{
	struct ac_pool_stat stat;
	struct ac_trace_event events[TRACE];
	int n;

	CHECK_EQ(ac_pool_stat(pot->pool, &stat, sizeof stat), 0);
	CHECK_EQ(stat.submitted, stat.waiting + stat.running + stat.done +
					 stat.failed + stat.cancelled);
	n = ac_pool_trace(pot->pool, events, sizeof(struct ac_trace_event), TRACE);
	CHECK(n >= 0 && n <= (pot->traced ? TRACE : 0));
	for (int i = 0; i < n; i++)
		CHECK(events[i].worker < pot->workers);
	if (pot->loop)
		CHECK(ac_pool_dispatch(pot->pool) >= 0);
}

/* Still the one of that name? */
static bool is_named(pid_t pid, const char *name)
{
	char path[64], line[32] = "";
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(line, sizeof line, file))
		line[0] = '\0';
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	return *name && strcmp(line, name) == 0;
}

/* A worker that is ready; 0: that one is not. */
static pid_t choose_worker(struct pot *pot, uint64_t *seed)
{
	struct ac_worker_stat stats[WORKERS_MOST], *stat;

	CHECK_EQ(ac_pool_workers(pot->pool, stats, WORKERS_MOST), pot->workers);
	stat = &stats[stress_below(seed, pot->workers)];
	return stat->state >= AC_WORKER_IDLE && stat->pid > 0 &&
		       is_named(stat->pid, stat->name) ? stat->pid : 0;
}

static void stop_worker(pid_t pid, uint64_t *seed)
{
	kill(pid, SIGSTOP);
	crash_sleep((int64_t)stress_below(seed, 10) * MS);
	kill(pid, SIGCONT);
}

static void kill_worker(struct pot *pot, pid_t pid)
{
	atomic_store(&pot->struck, true);
	kill(pid, SIGKILL);
}

/* Not before there is a reserve: without one the pool would fail. */
static void kill_template(struct pot *pot)
{
	pid_t template = crash_template_of(pot->pool);

	if (!template || !crash_reserve_of(pot->pool))
		return;
	atomic_store(&pot->beheaded, true);
	kill(template, SIGKILL);
	next_template_kill = crash_now() + TEMPLATE_KILLS_NS;
}

static void disturb(struct pot *pot, uint64_t *seed)
{
	uint64_t n = stress_below(seed, 100);
	pid_t pid;

	look_at(pot);
	pid = choose_worker(pot, seed);
	if (pid && n < 20)
		stop_worker(pid, seed);
	else if (pid && n < 40 && pot->kills)
		kill_worker(pot, pid);
	else if (n < 45 && pot->kills && crash_now() > next_template_kill)
		kill_template(pot);
}

static void *be_outside(void *arg)
{
	uint64_t *seed = arg;

	while (!stress_over) {
		struct pot *pot = &pots[stress_below(seed, pot_count)];

		if (pthread_rwlock_tryrdlock(&pot->lock) == 0) {
			disturb(pot, seed);
			pthread_rwlock_unlock(&pot->lock);
		}
		crash_sleep((int64_t)stress_below(seed, 20) * MS);
	}
	return NULL;
}

/* ---- a round ---- */

static void init_pots(void)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (unsigned i = 0; i < POTS; i++) {
		pots[i].number = i;
		pthread_rwlock_init(&pots[i].lock, &attr);
		pthread_mutex_init(&pots[i].late_lock, NULL);
	}
	pthread_rwlockattr_destroy(&attr);
	for (unsigned i = 0; i < HANDS; i++)
		hands[i] = (struct hand){ .number = i, .doing = "nothing" };
}

static unsigned count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

/* A joined thread's entry may stay for a moment. */
static void check_threads(unsigned before)
{
	int64_t end = crash_now() + SECOND;

	while (count_threads() != before && crash_now() < end)
		crash_sleep(MS);
	CHECK_EQ(count_threads(), before);
}

static void run_round(uint64_t *seed, int64_t duration)
{
	struct crash_print before;
	unsigned threads = count_threads();
	uint64_t outside_seed = crash_random(seed);
	pthread_t outside;

	crash_print_take(&before);
	round_number++;
	pot_count = 1 + (unsigned)stress_below(seed, POTS);
	hand_count = 1 + (unsigned)stress_below(seed, HANDS);
	crash_at("ALLCORES_TEST_SEED=%llu, round %u, %u pools, %u threads",
		 (unsigned long long)crash_seed, round_number, pot_count, hand_count);
	stress_over = false;
	for (unsigned i = 0; i < pot_count; i++)
		open_pot(&pots[i], seed);
	for (unsigned i = 0; i < hand_count; i++) {
		hands[i].seed = crash_random(seed);
		CHECK_EQ(pthread_create(&hands[i].thread, NULL, use_pots, &hands[i]), 0);
	}
	CHECK_EQ(pthread_create(&outside, NULL, be_outside, &outside_seed), 0);
	crash_sleep(duration);
	stress_over = true;
	for (unsigned i = 0; i < hand_count; i++)
		pthread_join(hands[i].thread, NULL);
	pthread_join(outside, NULL);
	for (unsigned i = 0; i < pot_count; i++)
		close_pot(&pots[i]);
	crash_print_check(&before);
	check_threads(threads);
}

/* ---- the whole run ---- */

static long resident_kb(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[128];
	long kb = 0;

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "VmRSS: %ld", &kb) == 1)
			break;
	if (file)
		fclose(file);
	return kb;
}

/* The first rounds show how large it is. */
static void soak(void *arg)
{
	unsigned seconds = *(unsigned *)arg;
	uint64_t seed = crash_seed;
	int64_t end = crash_now() + seconds * SECOND;
	int64_t duration = seconds > 30 ? 3 * SECOND : seconds * SECOND / 10;
	long first = 0, last;

	stress_share();
	init_pots();
	start_watchdog();
	while (crash_now() < end) {
		run_round(&seed, duration / 2 + (int64_t)stress_below(&seed, (uint64_t)duration));
		last = resident_kb();
		if (round_number <= 3)
			first = first > last ? first : last;
	}
	alarm(0);
	crash_note("%u rounds, %llu pools, %llu ends; resident %ld kB, at first %ld kB",
		   round_number, (unsigned long long)lives,
		   (unsigned long long)stress_moves, resident_kb(), first);
	if (!CRASH_SANITIZED)
		CHECK(resident_kb() < first + GROWTH_MOST_KB);
}

int main(int argc, char **argv)
{
	const char *text = getenv("ALLCORES_SOAK_SECONDS");
	int number = text ? atoi(text) : 0;
	unsigned seconds = number > 0 ? (unsigned)number : 20;

	crash_begin(argc, argv);
	crash_case("random work", soak, &seconds, seconds + 120);
	return crash_end();
}

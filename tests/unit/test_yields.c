/* SPDX-License-Identifier: MIT */
/*
 * The whole engine with threads in the seats, so that the thread sanitizer sees both
 * sides, and with yields, naps and deaths at the protocol's steps (AC_STEP), so that it sees
 * orders that seldom come by themselves. A seat's thread that dies ends at a step, whatever it
 * had in hand, and its end of the socket is closed by no hand of its own, as the kernel would.
 *
 * ALLCORES_TEST_SEED repeats what is random, but not the scheduler; ALLCORES_SOAK_SECONDS
 * is how long each case goes on.
 */
#include "pool_help.h"

#include <sched.h>
#include <sys/eventfd.h>

#include "engine.h"
#include "worker.h"

#define SEATS 3
#define HANDS 2
#define ITEMS 150
#define CALLS 24
#define RETRIES 100 /* nothing dies so often */

struct seat {
	int socket, bell, lifeline;
	struct ac__fd owner_bell;
	bool sits;
	struct ac_worker worker;
};

static struct {
	uint64_t seed;
	_Atomic uint64_t threads;	/* ever begun, for their seeds */
	_Atomic unsigned living, deaths, rounds;
	_Atomic unsigned ends;		/* TSan: what the dead wrote came before their end */
	unsigned dies_in;		/* steps, on the average; 0: never */
	struct ac_pool *_Atomic pool;
} all;

static __thread uint64_t my_seed;
static __thread bool mortal;

static uint64_t my_random(void)
{
	if (!my_seed)
		my_seed = all.seed + 1000003 * ++all.threads;
	return seats_random(&my_seed);
}

static uint64_t below(uint64_t n)
{
	return my_random() % n;
}

/* ---- at the steps ---- */

static void yield_at_step(void)
{
	uint64_t n = my_random();

	(void)atomic_load_explicit(&all.ends, memory_order_acquire);
	if (mortal && all.dies_in && (n >> 40) % all.dies_in == 0) {
		mortal = false;
		all.deaths++;
		pthread_exit(NULL);
	}
	switch (n % 64) {
	case 0: nap((int64_t)(n >> 8 & 0xffff)); break;
	case 1: case 2: case 3: case 4: sched_yield(); break;
	case 5: case 6: case 7: case 8:
		for (n = n >> 8 & 255; n; n--)
			ac__relax();
	}
}

/* ---- threads in the seats ---- */

/* However it ends. The socket comes last: then the owner may use the seat again. */
static void leave_seat(void *arg)
{
	struct seat *seat = arg;

	mortal = false;
	if (seat->sits)
		ac__forkguard_remove(&seat->worker.guard);
	ac__sys_close(seat->lifeline);
	ac__sys_close(seat->bell);
	atomic_fetch_add_explicit(&all.ends, 1, memory_order_release);
	ac__sys_close(seat->socket);
	free(seat);
	atomic_fetch_sub(&all.living, 1);
}

static void serve(struct seat *seat)
{
	struct ac__board view;
	struct ac_pool *pool;
	unsigned number;
	int region = -1;

	if (ac__socket_enter(seat->socket, &number, &region, &seat->bell) < 0)
		return;
	seat->owner_bell = ac__fd_of(seat->bell);
	/* The owner's own mapping instead, or the sanitizer would take it for other memory. */
	ac__sys_close(region);
	while (!(pool = atomic_load(&all.pool)))
		sched_yield();
	/* A line to nobody: a real one would kill this whole program. */
	seat->lifeline = eventfd(0, EFD_CLOEXEC);
	if (ac__board_attach(&view, ac__pool_arena(pool)) < 0 ||
	    ac__worker_sit(&seat->worker, &view, number, seat->lifeline,
			   &seat->owner_bell,
			   "yields\0\0\0\0\0\0\0\0\0") < 0)
		return;
	seat->sits = true;
	ac__worker_announce(&seat->worker, 0, NULL);
	mortal = true;
	ac__worker_serve(&seat->worker);
}

static void *run_seat(void *arg)
{
	pthread_cleanup_push(leave_seat, arg);
	serve(arg);
	pthread_cleanup_pop(1);
	return NULL;
}

static pid_t start_seat(void *arg, unsigned number, int fd)
{
	struct seat *seat = calloc(1, sizeof *seat);
	pthread_attr_t attr;
	pthread_t thread;

	(void)arg;
	(void)number;
	if (!seat)
		return -ENOMEM;
	*seat = (struct seat){ .socket = dup(fd), .bell = -1, .lifeline = -1 };
	all.living++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, run_seat, seat))
		abort();
	pthread_attr_destroy(&attr);
	return 0;
}

/* ---- what they run ---- */

static uint32_t mixed(uint32_t n)
{
	return n * 2654435761u ^ n >> 7;
}

/* The argument, each word of it mixed. */
static int mix_call(struct ac_call *call)
{
	size_t len;
	const uint32_t *arg = ac_call_arg(call, &len);
	uint32_t *result = ac_call_reserve(call, len);

	AC_STEP();
	for (size_t i = 0; result && i < len / 4; i++)
		result[i] = mixed(arg[i]);
	AC_STEP();
	return result ? 0 : -1;
}

static int mix_item(const void *item, void *result, const void *bound)
{
	uint32_t n;

	AC_STEP();
	memcpy(&n, item, sizeof n);
	n = mixed(n) + *(const uint32_t *)bound;
	memcpy(result, &n, sizeof n);
	return 0;
}

/* How many units were begun. */
static int count_units(struct ac_call *call)
{
	uint32_t n = 0;

	while (ac_call_next_unit(call)) {
		AC_STEP();
		n++;
	}
	return ac_call_return(call, &n, sizeof n);
}

/* ---- what the owner's threads do ---- */

/* In any thread: not cmocka's asserts. */
#define HAND_CHECK(what)                                                        \
	do {                                                                    \
		if (!(what)) {                                                  \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                \
		}                                                               \
	} while (0)

static const size_t lengths[] = { 0, 4, 208, 212, 5000, 70000 };

static uint32_t *numbers(uint32_t from, size_t len)
{
	uint32_t *data = malloc(len + 4);

	HAND_CHECK(data);
	for (size_t i = 0; i < len / 4; i++)
		data[i] = from + (uint32_t)i;
	return data;
}

static void check_mixed(struct ac_task *task, uint32_t from, size_t len)
{
	const void *data;
	size_t got;

	HAND_CHECK(ac_task_result(task, &data, &got) == 0 && got == len);
	for (size_t i = 0; i < len / 4; i++)
		HAND_CHECK(((const uint32_t *)data)[i] == mixed(from + (uint32_t)i));
}

static _Atomic unsigned called_back;

static void note_callback(void *arg, struct ac_task *task)
{
	(void)arg;
	(void)task;
	called_back++;
}

static void do_calls(struct ac_pool *pool)
{
	struct ac_submit_opts opts = { .size = sizeof opts };
	struct ac_task *tasks[CALLS];
	size_t len = lengths[below(COUNT(lengths))];
	unsigned n = 1 + (unsigned)below(CALLS);
	struct ac_outcome outcome;

	opts.retries = below(4) ? RETRIES : 0;
	opts.done = below(4) ? NULL : note_callback;
	for (unsigned i = 0; i < n; i++) {
		uint32_t *arg = numbers(i, len);

		HAND_CHECK(ac_pool_submit(pool, &tasks[i], mix_call, arg, len, &opts) == 0);
		free(arg);
	}
	for (unsigned i = 0; i < n; i++) {
		int cancelled = below(8) ? -EBUSY : ac_task_cancel(tasks[i], 0);

		HAND_CHECK(ac_task_wait(tasks[i], -1) == 0);
		HAND_CHECK(ac_task_outcome(tasks[i], &outcome) == 0);
		if (cancelled == 0)
			HAND_CHECK(outcome.status == AC_ECANCELED);
		else if (outcome.status)
			HAND_CHECK(outcome.status == AC_EDIED && !opts.retries && all.dies_in);
		else
			check_mixed(tasks[i], i, len);
		ac_task_free(tasks[i]);
	}
}

static void do_map(struct ac_pool *pool)
{
	uint32_t items[ITEMS], results[ITEMS], bound = (uint32_t)my_random();
	struct ac_map_opts opts = { .size = sizeof opts, .retries = RETRIES,
				    .bound = &bound, .bound_size = sizeof bound };
	size_t n = below(ITEMS + 1);

	opts.chunk = below(3) ? 0 : 1 + below(9);
	for (uint32_t i = 0; i < n; i++)
		items[i] = i;
	HAND_CHECK(ac_pool_map(pool, mix_item, &opts, items, sizeof *items, results,
			       sizeof *results, n) == 0);
	for (uint32_t i = 0; i < n; i++)
		HAND_CHECK(results[i] == mixed(i) + bound);
}

struct source {
	uint32_t next, count, number;
};

static int read_source(void *arg, const void **data, size_t *len)
{
	struct source *source = arg;

	if (source->next == source->count)
		return 0;
	source->number = source->next++;
	*data = &source->number;
	*len = sizeof source->number;
	return 1;
}

static void do_stream(struct ac_pool *pool)
{
	struct source source = { .count = (uint32_t)below(ITEMS) };
	struct ac_stream_opts opts = { .size = sizeof opts, .source = read_source,
				       .source_arg = &source, .retries = RETRIES };
	uint32_t taken = 0, leave_at = below(4) ? UINT32_MAX : (uint32_t)below(ITEMS);
	struct ac_stream *stream;
	struct ac_outcome outcome;
	struct ac_task *task;
	int r;

	opts.flags = below(2) ? AC_STREAM_UNORDERED : 0;
	HAND_CHECK(ac_stream_open(&stream, pool, mix_call, &opts) == 0);
	while (taken < leave_at && (r = ac_stream_next(stream, &task, -1)) == 1) {
		HAND_CHECK(ac_task_outcome(task, &outcome) == 0);
		HAND_CHECK(opts.flags || outcome.index == taken);
		check_mixed(task, (uint32_t)outcome.index, sizeof(uint32_t));
		ac_task_free(task);
		taken++;
	}
	HAND_CHECK(taken == leave_at || (r == 0 && taken == source.count));
	ac_stream_close(stream);
}

/* All units are begun once, whoever keeps them. */
static void do_feed(struct ac_pool *pool)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .retries = RETRIES,
				       .flags = AC_STREAM_UNORDERED };
	uint32_t units[ITEMS] = { 0 }, calls = 1 + (uint32_t)below(6), kept;
	struct ac_stream *stream;
	struct ac_outcome outcome;
	struct ac_task *task;
	const void *data;
	uint64_t index;
	int r = 0;

	HAND_CHECK(ac_stream_open(&stream, pool, count_units, &opts) == 0);
	for (uint32_t i = 0; i < calls; i++) {
		uint32_t n = 1 + (uint32_t)below(200);

		HAND_CHECK(ac_stream_push(stream, NULL, 0, UNITS(n), &index) == 0);
		units[index] = n;
	}
	while (calls < ITEMS - 1 && below(12)) {
		if (ac_stream_take_back(stream, &index, NULL, &kept) != 1)
			continue;
		HAND_CHECK(kept >= 1 && kept < units[index]);
		HAND_CHECK(ac_stream_push(stream, NULL, 0, UNITS(units[index] - kept), NULL) == 0);
		units[calls++] = units[index] - kept;
		units[index] = kept;
	}
	HAND_CHECK(ac_stream_end(stream) == 0);
	while ((r = ac_stream_next(stream, &task, -1)) == 1) {
		HAND_CHECK(ac_task_outcome(task, &outcome) == 0 && outcome.status == 0);
		HAND_CHECK(ac_task_result(task, &data, NULL) == 0);
		HAND_CHECK(*(const uint32_t *)data == units[outcome.index]);
		ac_task_free(task);
		calls--;
	}
	HAND_CHECK(r == 0 && calls == 0);
	ac_stream_close(stream);
}

static void look(struct ac_pool *pool)
{
	struct ac_trace_event events[16];
	struct ac_pool_stat stat;

	HAND_CHECK(ac_pool_stat(pool, &stat, sizeof stat) == 0 && sum_holds(&stat));
	HAND_CHECK(ac_pool_trace(pool, events, sizeof(struct ac_trace_event), 16) >= 0);
}

static void *act(void *arg)
{
	static void (*const acts[])(struct ac_pool *) = {
		do_calls, do_map, do_stream, do_feed, look,
	};

	for (unsigned i = 0; i < 4; i++)
		acts[below(COUNT(acts))](arg);
	return NULL;
}

/* ---- rounds ---- */

static void run_round(void)
{
	struct ac_pool_opts opts = { .size = sizeof opts, .workers = SEATS,
				     .start = start_seat };
	pthread_t hands[HANDS];
	struct ac_pool *pool;
	struct ac_pool_stat stat;

	opts.recycle = below(4) ? 0 : 1 + (unsigned)below(50);
	opts.trace = below(2) ? 0 : 8;
	assert_int_equal(ac_pool_open(&pool, &opts), 0);
	atomic_store(&all.pool, pool);
	for (unsigned i = 0; i < HANDS; i++)
		assert_int_equal(pthread_create(&hands[i], NULL, act, pool), 0);
	for (unsigned i = 0; i < HANDS; i++)
		pthread_join(hands[i], NULL);
	assert_int_equal(ac_pool_join(pool, -1), 0);
	assert_int_equal(ac_pool_stat(pool, &stat, sizeof stat), 0);
	assert_true(sum_holds(&stat) && stat.waiting + stat.running == 0);
	assert_int_equal(ac__block_audit(ac__pool_arena(pool)), 0);
	assert_int_equal(ac_pool_close(pool), 0);
	EVENTUALLY(!all.living);
	atomic_store(&all.pool, NULL);
	all.rounds++;
}

static void run_rounds(unsigned dies_in)
{
	const char *seconds = getenv("ALLCORES_SOAK_SECONDS");
	int64_t length = seconds ? atoi(seconds) * SECOND : 2 * SECOND;
	int64_t end = now() + length;

	all.seed = seats_seed();
	all.dies_in = dies_in;
	all.deaths = all.rounds = 0;
	ac__step_hook = yield_at_step;
	do {
		alarm(HANG_SECONDS);
		run_round();
	} while (now() < end);
	ac__step_hook = NULL;
	print_message("# %u rounds, %u deaths\n", all.rounds, all.deaths);
}

static void test_yields_at_all_steps_change_nothing(void **state)
{
	(void)state;
	run_rounds(0);
}

static void test_yields_and_deaths_lose_nothing(void **state)
{
	(void)state;
	run_rounds(600);
	assert_true(all.deaths > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HELP_TEST(test_yields_at_all_steps_change_nothing),
		HELP_TEST(test_yields_and_deaths_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

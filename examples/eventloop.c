/* SPDX-License-Identifier: MIT */
/*
 * A pool in a program that has an event loop already: ac_pool_fd gives one
 * descriptor to wait for beside all others. The library starts no thread then, and
 * callbacks come from ac_pool_dispatch, in the loop's own thread. Here the
 * loop also serves a clock, as another would serve its windows or its network.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <allcores.h>

#include "example.h"

struct loop {
	pthread_t thread;
	int ended, ticks;
	int expected;
};

static int count_primes(struct ac_call *call)
{
	const int *limit = ac_call_arg(call, NULL);
	int count = primes_below(*limit);

	return ac_call_return(call, &count, sizeof count);
}

static void job_ended(void *done_arg, struct ac_task *task)
{
	struct loop *loop = done_arg;
	const void *count;

	must(ac_task_result(task, &count, NULL));
	expect(*(const int *)count == loop->expected, "%d primes", *(const int *)count);
	expect(pthread_equal(loop->thread, pthread_self()), "a callback in another thread");
	loop->ended++;
}

static int open_timer(int64_t ns)
{
	struct itimerspec every = { { 0, ns }, { 0, ns } };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

	expect(fd >= 0 && timerfd_settime(fd, 0, &every, NULL) == 0, "no timer");
	return fd;
}

static void run_loop(struct loop *loop, struct ac_pool *pool, int jobs)
{
	struct pollfd fds[2] = {
		{ .fd = must(ac_pool_fd(pool)), .events = POLLIN },
		{ .fd = open_timer(20 * MS), .events = POLLIN },
	};

	while (loop->ended < jobs) {
		uint64_t expirations;

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents)
			must(ac_pool_dispatch(pool));
		if (fds[1].revents && read(fds[1].fd, &expirations, sizeof expirations) > 0)
			loop->ticks++;
	}
	close(fds[1].fd);
}

int main(int argc, char **argv)
{
	struct arg args[] = {
		{ "jobs", 100, 1, "how many sieves" },
		{ "limit", 4000000, 1, "count the primes below this" },
	};
	struct loop loop = { .thread = pthread_self() };
	struct ac_submit_opts opts = { .size = sizeof opts, .done = job_ended, .done_arg = &loop };
	struct ac_pool *pool;
	struct work work = { 0 };
	int64_t start;
	int jobs, limit;

	args_read(argc, argv, "A pool in an event loop.", args, 2, NULL);
	jobs = args[0].value;
	limit = args[1].value;
	for (int i = 0; i < jobs; i++) {
		start = clock_now();
		loop.expected = primes_below(limit);
		work_add(&work, clock_now() - start);
	}

	start = clock_now();
	must(ac_pool_open(&pool, NULL));
	/* Asked for before the first job, so that no callback comes from elsewhere. */
	must(ac_pool_fd(pool));
	for (int i = 0; i < jobs; i++)
		must(ac_pool_submit(pool, NULL, count_primes, &limit, sizeof limit, &opts));
	run_loop(&loop, pool, jobs);
	must(ac_pool_close(pool));

	work_report("event loop", clock_now() - start, &work, ac_cpus(0));
	expect(loop.ended == jobs, "%d of %d jobs ended", loop.ended, jobs);
	printf("%d jobs ended and %d ticks of the clock came in the same loop\n",
	       loop.ended, loop.ticks);
	return 0;
}

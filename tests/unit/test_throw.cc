/* SPDX-License-Identifier: MIT */
/*
 * Exceptions that leave a callback, which the header forbids. A program that does it all the same
 * may end at once, which says where; or go on with a pool that works. It must not
 * crash later, when nobody can tell why.
 */
#include <csignal>
#include <cstdio>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "allcores.h"

enum phase { BEGUN, CAUGHT, GONE_ON };

/* Seen by the child that throws and by its parent. */
static volatile phase *reached;

static const int SECONDS = 20;

static int nap_item(const void *, void *, const void *)
{
	usleep(2000);
	return 0;
}

static int count_item(const void *item, void *result, const void *)
{
	*static_cast<int *>(result) = *static_cast<const int *>(item) + 1;
	return 0;
}

static int return_at_once(ac_call *)
{
	return 0;
}

static ac_pool *open_two()
{
	ac_pool_opts opts = {};
	ac_pool *pool = nullptr;

	opts.size = sizeof opts;
	opts.workers = 2;
	return ac_pool_open(&pool, &opts) == 0 ? pool : nullptr;
}

/* The pool takes work of every kind, and closes. */
static bool goes_on(ac_pool *pool)
{
	int items[500], results[500];
	struct ac_pool_stat stat;

	for (int i = 0; i < 500; i++)
		items[i] = i;
	if (ac_pool_map(pool, count_item, nullptr, items, sizeof *items, results,
			sizeof *results, 500) != 0)
		return false;
	for (int i = 0; i < 500; i++)
		if (results[i] != i + 1)
			return false;
	if (ac_pool_call(pool, return_at_once, nullptr, 0, nullptr, nullptr, nullptr) != 0 ||
	    ac_pool_join(pool, -1) != 0 || ac_pool_stat(pool, &stat, sizeof stat) != 0)
		return false;
	return stat.submitted == stat.done + stat.failed + stat.cancelled &&
	       ac_pool_close(pool) == 0;
}

/* ---- what throws ---- */

static void throw_midway(void *, size_t ended, size_t)
{
	if (ended > 10)
		throw 42;
}

static void throw_from_progress(ac_pool *pool)
{
	ac_map_opts opts = {};

	opts.size = sizeof opts;
	opts.progress = throw_midway;
	ac_pool_map(pool, nap_item, &opts, nullptr, 0, nullptr, 0, 500);
}

/* More pieces than workers are left behind, and large ones. */
static void throw_from_progress_with_chunks(ac_pool *pool)
{
	static char items[1 << 20], results[1 << 20];
	ac_map_opts opts = {};

	opts.size = sizeof opts;
	opts.progress = throw_midway;
	opts.chunk = 8;
	ac_pool_map(pool, nap_item, &opts, items, 1 << 10, results, 1 << 10, 1 << 10);
}

struct source {
	int left;
};

static int throw_from_third(void *arg, const void **data, size_t *len)
{
	source *from = static_cast<source *>(arg);

	if (--from->left == 0)
		throw 42;
	*data = from;
	*len = sizeof *from;
	return 1;
}

static void throw_from_source(ac_pool *pool)
{
	source from = { 3 };
	ac_stream_opts opts = {};
	ac_stream *stream;
	ac_task *task;

	opts.size = sizeof opts;
	opts.source = throw_from_third;
	opts.source_arg = &from;
	if (ac_stream_open(&stream, pool, return_at_once, &opts) != 0)
		return;
	try {
		ac_stream_next(stream, &task, -1);
	} catch (...) {
		ac_stream_close(stream);
		throw;
	}
}

/* ---- the tests ---- */

static int run_child(void (*throws)(ac_pool *))
{
	ac_pool *pool = open_two();

	if (!pool)
		return 2;
	try {
		throws(pool);
		return 3; /* nothing was thrown */
	} catch (int) {
		*reached = CAUGHT;
	}
	if (!goes_on(pool))
		return 4;
	*reached = GONE_ON;
	return 0;
}

static bool is_right(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 0 && *reached == GONE_ON;
	return WTERMSIG(status) == SIGABRT && *reached == BEGUN;
}

static bool test(int number, const char *name, void (*throws)(ac_pool *))
{
	int status = 0;
	pid_t pid;
	bool right;

	*reached = BEGUN;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		alarm(SECONDS);
		_exit(run_child(throws));
	}
	waitpid(pid, &status, 0);
	right = is_right(status);
	std::printf("%sok %d - %s\n", right ? "" : "not ", number, name);
	if (!right)
		std::printf("# status %#x, phase %d\n", status, *reached);
	return right;
}

int main()
{
	void *memory = mmap(nullptr, sizeof *reached, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool right = true;

	if (memory == MAP_FAILED)
		return 1;
	reached = static_cast<phase *>(memory);
	std::printf("1..3\n");
	right &= test(1, "test_throw_out_of_progress", throw_from_progress);
	right &= test(2, "test_throw_out_of_progress_of_chunks", throw_from_progress_with_chunks);
	right &= test(3, "test_throw_out_of_source", throw_from_source);
	return right ? 0 : 1;
}

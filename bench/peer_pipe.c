/* SPDX-License-Identifier: MIT */
/*
 * Forked workers, two pipes each. A task is one write, because single tasks
 * come one by one; what lies ready in a pipe is read, and answered, together.
 * Nothing here can block for ever: 64 words are far less than a pipe holds.
 */
#include "peer_pipe.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

struct child {
	pid_t pid;
	int in, out;				/* the owner's ends */
	unsigned sent, got;
	size_t index[PEER_PIPE_AHEAD];		/* which items are under way */
};

struct peer_pipe {
	unsigned workers;
	struct pollfd *polls;
	struct child child[];
};

static void write_words(int fd, const uint64_t *words, unsigned count)
{
	size_t size = count * sizeof *words;

	if (write(fd, words, size) != (ssize_t)size)
		bench_die("write to a pipe failed");
}

/* At most max words; 0 at the end. Whole words: nobody writes anything else. */
static unsigned read_words(int fd, uint64_t *words, unsigned max)
{
	ssize_t size = read(fd, words, max * sizeof *words);

	if (size < 0 || size % (ssize_t)sizeof *words)
		bench_die("read from a pipe failed");
	return (unsigned)size / sizeof *words;
}

static void serve(int in, int out, ac_map_fn *fn)
{
	uint64_t args[PEER_PIPE_AHEAD], results[PEER_PIPE_AHEAD];
	unsigned n;

	while ((n = read_words(in, args, PEER_PIPE_AHEAD)) > 0) {
		for (unsigned i = 0; i < n; i++)
			fn(&args[i], &results[i], NULL);
		write_words(out, results, n);
	}
	_exit(0);
}

static void start_child(struct peer_pipe *pool, unsigned number, ac_map_fn *fn)
{
	struct child *child = &pool->child[number];
	int in[2], out[2];

	if (pipe(in) < 0 || pipe(out) < 0 || (child->pid = fork()) < 0)
		bench_die("cannot start a child with pipes");
	if (child->pid == 0) {
		/* Or its elder siblings never see the end of their input. */
		for (unsigned i = 0; i < number; i++) {
			close(pool->child[i].in);
			close(pool->child[i].out);
		}
		close(in[1]);
		close(out[0]);
		serve(in[0], out[1], fn);
	}
	close(in[0]);
	close(out[1]);
	child->in = in[1];
	child->out = out[0];
	pool->polls[number] = (struct pollfd){ .fd = out[0], .events = POLLIN };
}

struct peer_pipe *peer_pipe_open(unsigned workers, ac_map_fn *fn)
{
	struct peer_pipe *pool = calloc(1, sizeof *pool + workers * sizeof *pool->child);

	if (!pool || !(pool->polls = calloc(workers, sizeof *pool->polls)))
		bench_die("no memory");
	pool->workers = workers;
	for (unsigned i = 0; i < workers; i++)
		start_child(pool, i, fn);
	return pool;
}

/* Fill one worker's window, once half of it is empty. Returns how many items went. */
static size_t feed_child(struct child *child, const uint64_t *args, size_t next,
			 size_t count, unsigned ahead)
{
	unsigned room = ahead - (child->sent - child->got), n = 0;

	if (room < (ahead + 1) / 2)
		return 0;
	while (n < room && next + n < count) {
		child->index[child->sent++ % PEER_PIPE_AHEAD] = next + n;
		write_words(child->in, &args[next + n], 1);
		n++;
	}
	return n;
}

static size_t drain_child(struct child *child, uint64_t *results)
{
	uint64_t words[PEER_PIPE_AHEAD];
	unsigned n = read_words(child->out, words, PEER_PIPE_AHEAD);

	for (unsigned i = 0; i < n; i++)
		results[child->index[child->got++ % PEER_PIPE_AHEAD]] = words[i];
	if (n == 0)
		bench_die("a child with pipes is gone");
	return n;
}

void peer_pipe_run(struct peer_pipe *pool, const uint64_t *args, uint64_t *results,
		   size_t count, unsigned ahead)
{
	size_t next = 0, got = 0;

	while (got < count) {
		for (unsigned i = 0; i < pool->workers; i++)
			next += feed_child(&pool->child[i], args, next, count, ahead);
		if (poll(pool->polls, pool->workers, -1) < 0)
			bench_die("poll failed");
		for (unsigned i = 0; i < pool->workers; i++)
			if (pool->polls[i].revents)
				got += drain_child(&pool->child[i], results);
	}
}

uint64_t peer_pipe_call(struct peer_pipe *pool, uint64_t arg)
{
	uint64_t result;

	write_words(pool->child[0].in, &arg, 1);
	if (read_words(pool->child[0].out, &result, 1) != 1)
		bench_die("a child with pipes is gone");
	return result;
}

void peer_pipe_close(struct peer_pipe *pool)
{
	for (unsigned i = 0; i < pool->workers; i++) {
		close(pool->child[i].in);
		close(pool->child[i].out);
	}
	for (unsigned i = 0; i < pool->workers; i++)
		waitpid(pool->child[i].pid, NULL, 0);
	free(pool->polls);
	free(pool);
}

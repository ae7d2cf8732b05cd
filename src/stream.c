/* SPDX-License-Identifier: MIT */
/*
 * A stream: single calls made from a source as results are taken, so many
 * ahead and no more. What has ended waits in a list; in order, it is taken from a
 * ring in which each call has its place.
 */
#include "task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD_LEAST 64
#define AHEAD_MOST (UINT64_C(1) << 30)
#define AHEAD_BYTES (UINT64_C(64) << 20)

struct ac_stream {
	struct ac_pool *pool;
	ac_call_fn *fn;
	struct ac_stream_opts opts;
	bool at_end;
	int error;		/* source's or submit's: told once all before it are taken */
	uint64_t read, taken;	/* calls made, results taken */
	uint64_t bytes;		/* arguments under way */
	struct ac_task **places; /* ordered: by index modulo room */
	uint64_t room;
	struct ac_task *first_ended, **last_ended; /* unordered */
};

/* ---- tasks that end ---- */

static void note_ended(void *arg, struct ac_task *task)
{
	struct ac_stream *stream = arg;

	task->next_ended = NULL;
	*stream->last_ended = task;
	stream->last_ended = &task->next_ended;
}

static bool is_ended(struct ac_task *task)
{
	return atomic_load_explicit(&task->ended, memory_order_acquire) != 0;
}

static bool has_next(void *arg)
{
	struct ac_stream *stream = arg;

	if (stream->opts.flags & AC_STREAM_UNORDERED)
		return stream->first_ended != NULL;
	return is_ended(stream->places[stream->taken % stream->room]);
}

static struct ac_task *take_next(struct ac_stream *stream)
{
	struct ac_task **place = &stream->places[stream->taken % stream->room];
	struct ac_task *task = *place;

	if (stream->opts.flags & AC_STREAM_UNORDERED) {
		task = stream->first_ended;
		stream->first_ended = task->next_ended;
		if (!stream->first_ended)
			stream->last_ended = &stream->first_ended;
		place = &stream->places[task->index % stream->room];
	}
	*place = NULL;
	stream->taken++;
	stream->bytes -= task->arg_len;
	return task;
}

/* ---- reading ahead ---- */

static bool wants_more(const struct ac_stream *stream)
{
	uint64_t ahead = stream->read - stream->taken;

	return !stream->at_end &&
	       (ahead == 0 || (ahead < stream->opts.ahead &&
			       stream->bytes < stream->opts.ahead_bytes));
}

static int submit_one(struct ac_stream *stream, const void *arg, size_t len)
{
	struct ac_task *task = ac__task_make(stream->pool, stream->fn, arg, len);
	int r;

	if (!task)
		return -ENOMEM;
	task->index = stream->read;
	task->retries = stream->opts.retries;
	if (stream->opts.flags & AC_STREAM_UNORDERED) {
		task->ended_hook = note_ended;
		task->hook_arg = stream;
	}
	ac__pool_lock(stream->pool);
	r = ac__pool_accepts(stream->pool);
	if (r == 0)
		r = ac__task_submit(task);
	ac__pool_unlock(stream->pool);
	if (r < 0) {
		ac__task_destroy(task);
		return r;
	}
	stream->places[stream->read % stream->room] = task;
	stream->read++;
	stream->bytes += len;
	return 0;
}

/* Where an unordered stream's calls end out of order their places must not meet: a
 * place is free before it is used again, or reading waits. */
static bool has_place(const struct ac_stream *stream)
{
	return !stream->places[stream->read % stream->room];
}

static void read_ahead(struct ac_stream *stream)
{
	while (wants_more(stream) && has_place(stream)) {
		const void *arg = NULL;
		size_t len = 0;
		int r = stream->opts.source(stream->opts.source_arg, &arg, &len);

		if (r > 0)
			r = !arg && len ? -EINVAL : submit_one(stream, arg, len);
		else
			stream->at_end = true;
		if (r < 0) {
			stream->error = r;
			stream->at_end = true;
		}
	}
}

/* ---- the handle ---- */

static int take_opts(struct ac_stream *stream, const struct ac_stream_opts *user)
{
	struct ac_stream_opts *opts = &stream->opts;
	int r = ac__opts_copy(opts, sizeof *opts, user);

	if (r < 0)
		return r;
	if (!opts->source || opts->flags & ~AC_STREAM_UNORDERED ||
	    opts->ahead > AHEAD_MOST)
		return -EINVAL;
	if (!opts->ahead)
		opts->ahead = AC__MAX(AHEAD_LEAST, 4 * stream->pool->workers);
	if (!opts->ahead_bytes)
		opts->ahead_bytes = AHEAD_BYTES;
	return 0;
}

int ac_stream_open(struct ac_stream **out, struct ac_pool *pool, ac_call_fn *fn,
		   const struct ac_stream_opts *opts)
{
	struct ac_stream *stream;
	int r;

	if (!out || !pool || !fn)
		return -EINVAL;
	if (atomic_load_explicit(&pool->forked, memory_order_relaxed))
		return AC_EFORK;
	stream = ac__sys_calloc(1, sizeof *stream);
	if (!stream)
		return -ENOMEM;
	stream->pool = pool;
	stream->fn = fn;
	stream->last_ended = &stream->first_ended;
	r = take_opts(stream, opts);
	if (r < 0)
		goto err_stream;
	stream->room = ac__power_of_two(stream->opts.ahead);
	stream->places = ac__sys_calloc(stream->room, sizeof *stream->places);
	r = stream->places ? 0 : -ENOMEM;
	if (r < 0)
		goto err_stream;
	ac__pool_lock(pool);
	r = ac__pool_accepts(pool);
	ac__pool_unlock(pool);
	if (r < 0)
		goto err_places;
	*out = stream;
	return 0;
err_places:
	free(stream->places);
err_stream:
	free(stream);
	return r;
}

int ac_stream_next(struct ac_stream *stream, struct ac_task **task, int64_t timeout_ns)
{
	int64_t deadline;
	int r;

	if (!stream || !task)
		return -EINVAL;
	if (atomic_load_explicit(&stream->pool->forked, memory_order_relaxed))
		return AC_EFORK;
	deadline = ac__sys_deadline(timeout_ns);
	read_ahead(stream);
	if (stream->taken == stream->read) {
		r = stream->error;
		stream->error = 0;
		return r;
	}
	ac__pool_lock(stream->pool);
	r = ac__wait(stream->pool, has_next, stream, deadline);
	if (r == 0)
		*task = take_next(stream);
	ac__pool_unlock(stream->pool);
	return r < 0 ? r : 1;
}

static void drop_all(struct ac_stream *stream)
{
	/* Cancelling one may end others: none may come back to the stream. */
	for (uint64_t i = 0; i < stream->room; i++)
		if (stream->places[i])
			stream->places[i]->ended_hook = NULL;
	for (uint64_t i = 0; i < stream->room; i++) {
		struct ac_task *task = stream->places[i];

		if (!task)
			continue;
		if (!is_ended(task))
			ac__task_cancel(task, 0);
		ac__task_abandon(task);
	}
}

void ac_stream_close(struct ac_stream *stream)
{
	if (!stream)
		return;
	if (!atomic_load_explicit(&stream->pool->forked, memory_order_relaxed)) {
		ac__pool_lock(stream->pool);
		drop_all(stream);
		ac__wait_advance(stream->pool);
		ac__wait_changed(stream->pool);
		ac__pool_unlock(stream->pool);
	}
	free(stream->places);
	free(stream);
}

/* SPDX-License-Identifier: MIT */
/*
 * A stream: single calls made from the user's source function as results are taken, so many
 * ahead and no more; or made by pushing, as many as are pushed. Its calls take turns with the
 * pool's other work (see turns.h).
 *
 * Results in order: each call has its place in a ring. Results as they come: a call is in one of
 * two lists, under way, from which it leaves in any order, and ended. A list does not care how
 * far indexes lie apart, since a fed stream has no bound.
 *
 * One thread calls the source function, and it alone knows of reading ahead. All else changes
 * under the pool's lock only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "helper.h"
#include "wait.h"

#define AHEAD_LEAST 64
#define AHEAD_MOST (UINT64_C(1) << 30)
#define AHEAD_BYTES (UINT64_C(64) << 20)

struct list {
	struct ac_task *first, **last;
};

struct ac_stream {
	struct ac_pool *pool;
	ac_call_fn *fn;
	struct ac_stream_opts opts;
	struct ac__source turn;	/* its calls that wait */
	bool at_end;
	int error;		/* source's or submit's: returned once all results before it are taken */
	uint64_t read, taken;	/* calls made, results taken */
	unsigned pushing;	/* calls that are being handed in, perhaps without the lock */
	bool woken;		/* the next thread that would wait returns -EAGAIN instead */
	uint64_t bytes;		/* arguments under way */
	struct ac_task **places; /* ordered: by index modulo capacity */
	uint64_t capacity;
	struct list under_way, ended; /* unordered */
};

static bool is_unordered(const struct ac_stream *stream)
{
	return stream->opts.flags & AC_STREAM_UNORDERED;
}

static bool is_fed(const struct ac_stream *stream)
{
	return !stream->opts.source;
}

static bool is_forked(const struct ac_stream *stream)
{
	return ac__pool_is_forked(stream->pool);
}

/* ---- lists ---- */

static void list_add(struct list *list, struct ac_task *task)
{
	task->next_in_stream = NULL;
	task->at_in_stream = list->last;
	*list->last = task;
	list->last = &task->next_in_stream;
}

static void list_remove(struct list *list, struct ac_task *task)
{
	*task->at_in_stream = task->next_in_stream;
	if (task->next_in_stream)
		task->next_in_stream->at_in_stream = task->at_in_stream;
	else
		list->last = task->at_in_stream;
}

/* ---- tasks that end ---- */

static void note_ended(void *arg, struct ac_task *task)
{
	struct ac_stream *stream = arg;

	list_remove(&stream->under_way, task);
	list_add(&stream->ended, task);
}

static struct ac_task **next_place(struct ac_stream *stream)
{
	return &stream->places[stream->taken % stream->capacity];
}

static bool has_next(void *arg)
{
	struct ac_stream *stream = arg;

	return is_unordered(stream) ? stream->ended.first != NULL :
				      ac__task_has_ended(*next_place(stream));
}

static struct ac_task *take_next(struct ac_stream *stream)
{
	struct ac_task *task;

	if (is_unordered(stream)) {
		task = stream->ended.first;
		list_remove(&stream->ended, task);
	} else {
		task = *next_place(stream);
		*next_place(stream) = NULL;
	}
	stream->taken++;
	stream->bytes -= task->arg_len;
	return task;
}

/* ---- handing in ---- */

static void add_task(struct ac_stream *stream, struct ac_task *task)
{
	task->index = stream->read++;
	if (is_unordered(stream))
		list_add(&stream->under_way, task);
	else
		stream->places[task->index % stream->capacity] = task;
	stream->bytes += task->arg_len;
}

static struct ac_task *make_task(struct ac_stream *stream, const void *arg, size_t len)
{
	struct ac_task *task = ac__task_make(stream->pool, stream->fn, arg, len);

	if (!task)
		return NULL;
	task->job.source = &stream->turn;
	task->retries = stream->opts.retries;
	if (is_unordered(stream)) {
		task->ended_hook = note_ended;
		task->hook_arg = stream;
	}
	return task;
}

/* While a long argument is copied the stream may be ended, but that is not the end yet. */
static int submit_task(struct ac_stream *stream, struct ac_task *task)
{
	int r = ac__task_admit(stream->pool);

	if (r == 0 && is_fed(stream) && stream->at_end)
		r = AC_ECLOSED;
	if (r < 0)
		return r;
	stream->pushing++;
	r = ac__task_submit(task);
	stream->pushing--;
	if (r == 0)
		add_task(stream, task);
	else /* threads may wait for it */
		ac__sleep_wake_finished(&stream->pool->sleep);
	return r;
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
	struct ac_task *task = make_task(stream, arg, len);
	int r;

	if (!task)
		return -ENOMEM;
	ac__pool_lock(stream->pool);
	r = submit_task(stream, task);
	ac__pool_unlock(stream->pool);
	if (r < 0)
		ac__task_destroy(task);
	return r;
}

/* Ask the source for one call. */
static void read_one(struct ac_stream *stream)
{
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

static bool is_half_full(const struct ac_stream *stream)
{
	return 2 * (stream->read - stream->taken) >= stream->opts.ahead ||
	       2 * stream->bytes >= stream->opts.ahead_bytes;
}

/* For a caller that does not wait: the source may block, so it is asked once, and not at all
 * while a result is ready and the workers have enough to do. */
static void read_at_most_one(struct ac_stream *stream)
{
	bool ready;

	ac__pool_lock(stream->pool);
	ac__engine_advance(stream->pool);
	ready = stream->taken != stream->read && has_next(stream);
	ac__pool_unlock(stream->pool);
	if (wants_more(stream) && !(ready && is_half_full(stream)))
		read_one(stream);
}

/* ---- the handle ---- */

static int take_opts(struct ac_stream *stream, const struct ac_stream_opts *user)
{
	struct ac_stream_opts *opts = &stream->opts;
	int r = ac__opts_copy(opts, sizeof *opts, user);

	if (r < 0)
		return r;
	if (opts->flags & ~AC_STREAM_UNORDERED || opts->ahead > AHEAD_MOST)
		return -EINVAL;
	if (!opts->source)
		return !opts->flags || opts->ahead || opts->ahead_bytes ? -EINVAL : 0;
	if (!opts->ahead)
		opts->ahead = AC__MAX(AHEAD_LEAST, 4 * stream->pool->workers.count);
	if (!opts->ahead_bytes)
		opts->ahead_bytes = AHEAD_BYTES;
	return 0;
}

static int make_places(struct ac_stream *stream)
{
	if (is_unordered(stream))
		return 0;
	stream->capacity = ac__power_of_two(stream->opts.ahead);
	stream->places = ac__sys_calloc(stream->capacity, sizeof *stream->places);
	return stream->places ? 0 : -ENOMEM;
}

int ac_stream_open(struct ac_stream **out, struct ac_pool *pool, ac_call_fn *fn,
		   const struct ac_stream_opts *opts)
{
	struct ac_stream *stream;
	int r;

	if (!out || !pool || !fn)
		return -EINVAL;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	stream = ac__sys_calloc(1, sizeof *stream);
	if (!stream)
		return -ENOMEM;
	stream->pool = pool;
	stream->fn = fn;
	ac__source_init(&stream->turn);
	stream->under_way.last = &stream->under_way.first;
	stream->ended.last = &stream->ended.first;
	r = take_opts(stream, opts);
	if (r == 0)
		r = make_places(stream);
	if (r < 0)
		goto err_stream;
	ac__pool_lock(pool);
	r = ac__engine_accepts(pool);
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

static int next_of_source(struct ac_stream *stream, struct ac_task **task, int64_t timeout_ns)
{
	int64_t deadline = ac__sys_deadline(timeout_ns);
	int r;

	if (timeout_ns == 0)
		read_at_most_one(stream);
	while (timeout_ns != 0 && wants_more(stream))
		read_one(stream);
	if (stream->taken == stream->read) {
		r = stream->error;
		stream->error = 0;
		return r;
	}
	ac__pool_lock(stream->pool);
	r = ac__wait_until(stream->pool, has_next, stream, deadline);
	if (r == 0)
		*task = take_next(stream);
	ac__pool_unlock(stream->pool);
	return r < 0 ? r : 1;
}

/* ---- feeding ---- */

/* 0: somebody may push; else why not. */
static int has_no_more(struct ac_stream *stream)
{
	if (stream->taken != stream->read || stream->pushing)
		return 0;
	return stream->at_end ? 1 : ac__engine_accepts(stream->pool);
}

static bool fed_has_news(void *arg)
{
	const struct ac_stream *stream = arg;

	return stream->woken || has_next(arg) || has_no_more(arg) != 0;
}

/* Results come first, then the end. A wake is for a thread that would wait. */
static int take_news(struct ac_stream *stream, struct ac_task **task)
{
	int r;

	if (has_next(stream)) {
		*task = take_next(stream);
		return 1;
	}
	r = has_no_more(stream);
	if (r != 0)
		return AC__MIN(r, 0);
	stream->woken = false;
	/* A thread that is woken each time makes the copies that are left to it, too. */
	ac__wait_fill(stream->pool);
	return -EAGAIN;
}

static int next_of_fed(struct ac_stream *stream, struct ac_task **task, int64_t timeout_ns)
{
	int64_t deadline = ac__sys_deadline(timeout_ns);
	int r;

	ac__pool_lock(stream->pool);
	r = ac__wait_until(stream->pool, fed_has_news, stream, deadline);
	if (r == 0)
		r = take_news(stream, task);
	ac__pool_unlock(stream->pool);
	return r;
}

static int check_fed(const struct ac_stream *stream)
{
	if (!stream || !is_fed(stream))
		return -EINVAL;
	return is_forked(stream) ? AC_EFORK : 0;
}

static int take_push_opts(struct ac_task *task, const struct ac_push_opts *user)
{
	struct ac_push_opts opts;
	int r = ac__opts_copy(&opts, sizeof opts, user);

	if (r < 0)
		return r;
	if (opts.flags || (opts.bound && opts.bound->memory != task->memory))
		return -EINVAL;
	task->units = opts.units;
	task->bound = ac__bound_use(opts.bound);
	task->user = opts.user;
	return 0;
}

int ac_stream_push(struct ac_stream *stream, const void *arg, size_t len,
		   const struct ac_push_opts *opts, uint64_t *index)
{
	struct ac_task *task;
	int r = !arg && len ? -EINVAL : check_fed(stream);

	if (r < 0)
		return r;
	task = make_task(stream, arg, len);
	if (!task)
		return -ENOMEM;
	r = opts ? take_push_opts(task, opts) : 0;
	if (r < 0)
		goto err_task;
	ac__pool_lock(stream->pool);
	r = submit_task(stream, task);
	if (r == 0) {
		if (index)
			*index = task->index;
		ac__helper_take_over(task);
	}
	ac__pool_unlock(stream->pool);
	if (r == 0)
		return 0;
err_task:
	ac__task_destroy(task);
	return r;
}

void *ac_task_user(const struct ac_task *task)
{
	return task ? task->user : NULL;
}

int ac_stream_end(struct ac_stream *stream)
{
	int r = check_fed(stream);

	if (r < 0)
		return r;
	ac__pool_lock(stream->pool);
	stream->at_end = true;
	ac__sleep_wake_finished(&stream->pool->sleep);
	ac__pool_unlock(stream->pool);
	return 0;
}

int ac_stream_wake(struct ac_stream *stream)
{
	int r = check_fed(stream);

	if (r < 0)
		return r;
	ac__pool_lock(stream->pool);
	stream->woken = true;
	ac__sleep_wake_finished(&stream->pool->sleep);
	ac__pool_unlock(stream->pool);
	return 0;
}

/* The call with the most to give. */
static struct ac_task *find_divisible(struct ac_stream *stream)
{
	struct ac_pool *pool = stream->pool;
	struct ac_task *best = NULL;
	uint32_t seen = 0, most = 0, left;

	for (uint32_t slot = 0;
	     seen < pool->slots.published && slot < pool->board.task_count; slot++) {
		struct ac_task *task = ac__task_divisible(pool, slot, &left);

		seen += pool->slots.slots[slot].state == AC__SLOT_PUBLISHED;
		if (!task || task->hook_arg != stream || left <= most)
			continue;
		best = task;
		most = left;
	}
	return best;
}

int ac_stream_take_back(struct ac_stream *stream, uint64_t *index, void **user,
			uint32_t *kept)
{
	int r = !kept ? -EINVAL : check_fed(stream);
	struct ac_task *task;

	if (r < 0)
		return r;
	ac__pool_lock(stream->pool);
	/* Its worker may have begun the rest meanwhile: then the next best. */
	for (unsigned i = 0; r == 0 && i <= stream->pool->workers.count; i++) {
		task = find_divisible(stream);
		if (!task)
			break;
		r = ac__slots_take_back(&stream->pool->slots, task->slot, 1, kept) > 0;
		if (r == 0)
			continue;
		task->units = *kept;
		if (index)
			*index = task->index;
		if (user)
			*user = task->user;
	}
	ac__pool_unlock(stream->pool);
	return r;
}

/* ---- bound data ---- */

int ac_bound_make(struct ac_bound **bound, struct ac_pool *pool, const void *data, size_t len)
{
	if (!bound || !pool || (!data && len))
		return -EINVAL;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	return ac__bound_make(bound, pool->memory, data, len);
}

void ac_bound_free(struct ac_bound *bound)
{
	ac__bound_release(bound);
}

/* ---- taking and leaving ---- */

int ac_stream_next(struct ac_stream *stream, struct ac_task **task, int64_t timeout_ns)
{
	if (!stream || !task)
		return -EINVAL;
	if (is_forked(stream))
		return AC_EFORK;
	return is_fed(stream) ? next_of_fed(stream, task, timeout_ns) :
				next_of_source(stream, task, timeout_ns);
}

static void give_up_task(struct ac_task *task)
{
	if (!ac__task_has_ended(task))
		ac__task_cancel(task, 0);
	ac__task_give_up(task);
}

static void give_up_list(const struct list *list)
{
	struct ac_task *task = list->first, *next;

	for (; task; task = next) {
		next = task->next_in_stream;
		give_up_task(task);
	}
}

static void give_up_all(struct ac_stream *stream)
{
	/* Cancelling one may end others: none may come back to the stream. And a task that runs on
	 * must not be taken for one of another stream that will lie where this one did. */
	for (struct ac_task *t = stream->under_way.first; t; t = t->next_in_stream) {
		t->ended_hook = NULL;
		t->hook_arg = NULL;
	}
	give_up_list(&stream->under_way);
	give_up_list(&stream->ended);
	for (uint64_t i = 0; i < stream->capacity; i++)
		if (stream->places[i])
			give_up_task(stream->places[i]);
}

void ac_stream_close(struct ac_stream *stream)
{
	if (!stream)
		return;
	if (!is_forked(stream)) {
		ac__pool_lock(stream->pool);
		give_up_all(stream);
		ac__engine_advance(stream->pool);
		ac__engine_changed(stream->pool);
		ac__pool_unlock(stream->pool);
	}
	free(stream->places);
	free(stream);
}

/* SPDX-License-Identifier: MIT */
/*
 * A fed stream of the engine. Any threads may push while others take. Each call belongs to a job, a
 * Python object that gets the call's result (allcores/_jobs.py). A call that cannot be pickled is
 * never pushed: its exception is handed to whoever takes next, as its result.
 *
 * The calls under way are known here and not in Python: a call is entered in the same step in which
 * it is pushed, so no result can come before its job is known, and no signal handler in between.
 */
#include "stream.h"

#include <errno.h>

#include "codec.h"
#include "errors.h"
#include "function.h"
#include "sliced_wait.h"

/* A call whose result has not been taken. */
struct call {
	struct call *next, **at;	/* in one of the stream's lists */
	PyObject *job;
	Py_ssize_t first, count;	/* of the job's items, those that it consists of */
	int64_t encode_ns;
	PyObject *failure;		/* why it could not be pushed, or NULL */
};

struct list {
	struct call *first, **last;
};

struct stream_object {
	PyObject_HEAD
	struct ac_stream *stream;	/* NULL: closed */
	PyObject *pool;		/* keeps the following one alive */
	const struct explainer *explainer;
	struct state *state;
	struct list under_way, failed;
	uint64_t pushed, taken, pushed_bytes, taken_bytes;
	unsigned users;		/* calls of the engine with stream that have not returned */
	bool closed;
};

/* ---- lists of calls ---- */

static void list_add(struct list *list, struct call *call)
{
	call->next = NULL;
	call->at = list->last;
	*list->last = call;
	list->last = &call->next;
}

static void list_remove(struct list *list, struct call *call)
{
	*call->at = call->next;
	if (call->next)
		call->next->at = call->at;
	else
		list->last = call->at;
}

static void free_call(struct call *call)
{
	Py_XDECREF(call->failure);
	Py_DECREF(call->job);
	PyMem_Free(call);
}

static void list_free(struct list *list)
{
	struct call *call;

	while ((call = list->first)) {
		list_remove(list, call);
		free_call(call);
	}
}

static int list_traverse(const struct list *list, visitproc visit, void *arg)
{
	for (const struct call *call = list->first; call; call = call->next) {
		Py_VISIT(call->job);
		Py_VISIT(call->failure);
	}
	return 0;
}

static struct call *make_call(PyObject *job, Py_ssize_t first, Py_ssize_t count)
{
	struct call *call = PyMem_Malloc(sizeof *call);

	if (!call)
		return (void *)PyErr_NoMemory();
	*call = (struct call){ .job = Py_NewRef(job), .first = first, .count = count };
	return call;
}

/* ---- life ---- */

PyObject *stream_make(PyObject *pool, const struct explainer *explainer)
{
	struct ac_stream_opts opts = { .size = sizeof opts, .flags = AC_STREAM_UNORDERED };
	PyTypeObject *type = explainer->state->stream_type;
	struct stream_object *self = (struct stream_object *)type->tp_alloc(type, 0);
	int r;

	if (!self)
		return NULL;
	self->state = explainer->state;
	self->pool = Py_NewRef(pool);
	self->explainer = explainer;
	self->under_way.last = &self->under_way.first;
	self->failed.last = &self->failed.first;
	r = ac_stream_open(&self->stream, explainer->pool, ANY_CALL, &opts);
	if (r == 0)
		return (PyObject *)self;
	if (r == AC_ECLOSED || r == AC_EFORK)
		raise_code(self->state, r);
	else
		outcome_raise_refusal(explainer, r);
	Py_DECREF(self);
	return NULL;
}

static void close_stream(struct stream_object *self)
{
	struct ac_stream *stream = self->stream;

	self->closed = true;
	if (!stream)
		return;
	if (self->users) {
		ac_stream_end(stream); /* the last of these threads closes it */
		return;
	}
	self->stream = NULL;
	ac_stream_close(stream);
	list_free(&self->under_way);
	list_free(&self->failed);
}

/* Of a call with stream, counted in users. Another thread may have closed it meanwhile: the engine may
 * start a worker, which runs Python code. Returns whether this thread has closed it now. */
static bool end_use(struct stream_object *self)
{
	self->users--;
	if (!self->closed || self->users)
		return false;
	close_stream(self);
	return true;
}

static int stream_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct stream_object *self = (struct stream_object *)object;
	int r = list_traverse(&self->under_way, visit, arg);

	if (r == 0)
		r = list_traverse(&self->failed, visit, arg);
	if (r)
		return r;
	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->pool);
	return 0;
}

static void stream_dealloc(PyObject *object)
{
	struct stream_object *self = (struct stream_object *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	close_stream(self);
	Py_XDECREF(self->pool);
	type->tp_free(object);
	Py_DECREF(type);
}

static int check_open(struct stream_object *self)
{
	if (self->stream && !self->closed)
		return 0;
	PyErr_SetString(PyExc_ValueError, "the stream is closed");
	return -1;
}

/* ---- pushing ---- */

/* The exception becomes the call's result. Takes over call and error. */
static int fail_call(struct stream_object *self, struct call *call, PyObject *error)
{
	call->failure = error;
	list_add(&self->failed, call);
	ac_stream_wake(self->stream);
	return 0;
}

/* Takes over call. */
static int push_bytes(struct stream_object *self, struct call *call, const struct sink *sink,
		      struct ac_bound *bound, bool divisible)
{
	struct ac_push_opts opts = { .size = sizeof opts,
				     .units = divisible ? (uint32_t)call->count : 0,
				     .bound = bound,
				     .user = call };
	int r;

	if (check_open(self) < 0) {
		free_call(call);
		return -1;
	}
	list_add(&self->under_way, call);
	self->users++;
	r = ac_stream_push(self->stream, sink->data, sink->len, &opts, NULL);
	if (r == 0) {
		self->pushed++;
		self->pushed_bytes += sink->len;
	} else {
		list_remove(&self->under_way, call);
		free_call(call);
	}
	end_use(self);
	if (r == 0)
		return 0;
	/* The stream was begun before its pool was terminated: its work is cut off, so "the
	 * pool is closed" would say too little. */
	outcome_raise_refusal(self->explainer, r == AC_ECLOSED ? AC_ECANCELED : r);
	return -1;
}

/* What a call is made of. */
struct parts {
	PyObject *callable;
	int place;		/* enum function_place, or -1 with an exception set */
	struct ac_bound *bound;
	enum request_kind kind;
	bool divisible;
};

/* Push a call, or note the exception that pickling raised as its result. Takes over call. */
static int push(struct stream_object *self, struct call *call, const struct parts *parts,
		PyObject *payload)
{
	struct encoder *encoder = parts->place < 0 ? NULL : encoder_take(self->state);
	int64_t start = parts->divisible ? now_ns() : 0;
	int r = -1;

	if (encoder)
		r = encode_request(encoder, parts->callable, (enum function_place)parts->place,
				   parts->kind, parts->divisible, payload);
	if (r == 0) {
		call->encode_ns = parts->divisible ? now_ns() - start : 0;
		r = push_bytes(self, call, encoder->sink, parts->bound, parts->divisible);
		encoder_give(self->state, encoder);
		return r;
	}
	encoder_give(self->state, encoder);
	if (PyErr_ExceptionMatches(PyExc_Exception) && self->stream)
		return fail_call(self, call, take_exception());
	free_call(call);
	return -1;
}

static PyObject *stream_push_call(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	struct parts parts = { .kind = REQUEST_ARGS_KWDS };
	PyObject *job, *call_args, *kwds, *payload;
	struct call *call;
	int r = -1;

	if (!PyArg_ParseTuple(args, "OOOO:push_call", &job, &parts.callable, &call_args, &kwds) ||
	    check_open(self) < 0)
		return NULL;
	parts.place = has_name(self->state, parts.callable) ? FUNCTION_NAMED : FUNCTION_IN_PAYLOAD;
	payload = PyTuple_Pack(2, call_args, kwds);
	call = payload ? make_call(job, 0, 1) : NULL;
	if (call)
		r = push(self, call, &parts, payload);
	Py_XDECREF(payload);
	return r < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *stream_fail(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	PyObject *job, *error;
	struct call *call;
	Py_ssize_t first;

	if (!PyArg_ParseTuple(args, "OnO:fail", &job, &first, &error) || check_open(self) < 0)
		return NULL;
	call = make_call(job, first, 0);
	if (!call)
		return NULL;
	fail_call(self, call, Py_NewRef(error));
	Py_RETURN_NONE;
}

/* ---- feeding ---- */

/* What a feed reads and where it is. */
struct feed {
	PyObject *job;
	PyObject *items;	/* an iterator, or a list, tuple or range */
	bool sliced;		/* it is the latter: items are taken by their place */
	struct function_object *function;
	struct parts parts;
	Py_ssize_t first, end;	/* the place of the next item; where to stop, if sliced */
	Py_ssize_t chunk;	/* items of a call; 0: one, and no list of one */
};

/* The next items by their place: NULL without an exception at the end. A program may shorten its
 * list meanwhile. */
static PyObject *slice_payload(const struct feed *feed, Py_ssize_t *count)
{
	Py_ssize_t left = Py_MIN(feed->end, PySequence_Size(feed->items)) - feed->first;

	*count = Py_MIN(feed->chunk ? feed->chunk : 1, left);
	if (left <= 0)
		return NULL;
	if (feed->chunk == 0)
		return PySequence_GetItem(feed->items, feed->first);
	return PySequence_GetSlice(feed->items, feed->first, feed->first + *count);
}

/* The next n items: a list, shorter or empty at the iterator's end. */
static PyObject *read_items(PyObject *iterator, Py_ssize_t n)
{
	PyObject *items = PyList_New(0), *item;

	while (items && PyList_GET_SIZE(items) < n && (item = PyIter_Next(iterator))) {
		if (PyList_Append(items, item) < 0)
			Py_CLEAR(items);
		Py_DECREF(item);
	}
	if (PyErr_Occurred())
		Py_CLEAR(items);
	return items;
}

/* NULL: the input is at its end, or has raised an exception, which is set. */
static PyObject *read_payload(struct feed *feed, Py_ssize_t *count)
{
	PyObject *items;

	if (feed->sliced)
		return slice_payload(feed, count);
	*count = 1;
	if (feed->chunk == 0)
		return PyIter_Next(feed->items);
	items = read_items(feed->items, feed->chunk);
	*count = items ? PyList_GET_SIZE(items) : 0;
	if (items && *count == 0)
		Py_CLEAR(items);
	return items;
}

/* Push the next call. 1: pushed, or failed alone; 0: the input is at its end; -1 with an
 * exception set. What the input raises is the result of one more call, its last. */
static int feed_one(struct stream_object *self, struct feed *feed)
{
	Py_ssize_t count;
	PyObject *payload = read_payload(feed, &count);
	struct call *call;

	if (!payload && !PyErr_Occurred())
		return 0;
	if (!payload) {
		PyObject *error = take_exception();

		call = check_open(self) < 0 ? NULL : make_call(feed->job, feed->first, 0);
		if (call)
			return fail_call(self, call, error);
		Py_DECREF(error);
		return -1;
	}
	call = make_call(feed->job, feed->first, count);
	if (call) {
		feed->first += count;
		feed->parts.place = function_prepare(feed->function);
		feed->parts.bound = feed->function->bound;
	}
	if (!call || push(self, call, &feed->parts, payload) < 0) {
		Py_DECREF(payload);
		return -1;
	}
	Py_DECREF(payload);
	return 1;
}

static int check_feed(struct stream_object *self, struct feed *feed, bool star)
{
	if (check_open(self) < 0)
		return -1;
	feed->sliced = PyList_CheckExact(feed->items) || PyTuple_CheckExact(feed->items) ||
		       PyRange_Check(feed->items);
	if (!feed->sliced && !PyIter_Check(feed->items)) {
		PyErr_Format(PyExc_TypeError, "feed needs an iterator, not %R",
			     Py_TYPE(feed->items));
		return -1;
	}
	if (feed->chunk > UINT32_MAX) {
		PyErr_Format(PyExc_OverflowError, "%zd items are too many for a call", feed->chunk);
		return -1;
	}
	feed->parts.callable = feed->function->callable;
	if (feed->chunk == 0)
		feed->parts.kind = star ? REQUEST_STAR_ITEM : REQUEST_ITEM;
	else
		feed->parts.kind = star ? REQUEST_STAR_ITEMS : REQUEST_ITEMS;
	return 0;
}

static PyObject *stream_feed(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	unsigned long long most_bytes, before = self->pushed_bytes;
	struct feed feed = { 0 };
	Py_ssize_t most, calls = 0, start;
	int star, divisible, r = 1;

	if (!PyArg_ParseTuple(args, "OO!OnnpnpnK:feed", &feed.job, self->state->function_type,
			      &feed.function, &feed.items, &feed.first, &feed.end, &star,
			      &feed.chunk, &divisible, &most, &most_bytes))
		return NULL;
	feed.parts.divisible = divisible;
	if (check_feed(self, &feed, star) < 0)
		return NULL;
	start = feed.first;
	while (r > 0 && calls < most && self->pushed_bytes - before < most_bytes) {
		r = feed_one(self, &feed);
		calls += r > 0;
	}
	if (r < 0)
		return NULL;
	return Py_BuildValue("(nnN)", calls, feed.first - start, PyBool_FromLong(r > 0));
}

static PyObject *stream_end(PyObject *object, PyObject *unused)
{
	struct stream_object *self = (struct stream_object *)object;

	(void)unused;
	if (self->stream)
		ac_stream_end(self->stream);
	Py_RETURN_NONE;
}

static PyObject *stream_wake(PyObject *object, PyObject *unused)
{
	struct stream_object *self = (struct stream_object *)object;

	(void)unused;
	if (self->stream)
		ac_stream_wake(self->stream);
	Py_RETURN_NONE;
}

static PyObject *stream_close(PyObject *object, PyObject *unused)
{
	(void)unused;
	close_stream((struct stream_object *)object);
	Py_RETURN_NONE;
}

static PyObject *stream_jobs(PyObject *object, PyObject *unused)
{
	const struct list *lists[] = { &((struct stream_object *)object)->under_way,
				       &((struct stream_object *)object)->failed };
	PyObject *jobs = PySet_New(NULL);

	(void)unused;
	for (int i = 0; i < 2; i++)
		for (struct call *call = lists[i]->first; jobs && call; call = call->next)
			if (PySet_Add(jobs, call->job) < 0)
				Py_CLEAR(jobs);
	return jobs;
}

static PyObject *stream_take_back(PyObject *object, PyObject *unused)
{
	struct stream_object *self = (struct stream_object *)object;
	struct call *call;
	Py_ssize_t taken;
	uint32_t kept;
	void *user;
	int r;

	(void)unused;
	if (check_open(self) < 0)
		return NULL;
	self->users++;
	r = ac_stream_take_back(self->stream, NULL, &user, &kept);
	if (end_use(self) || r == 0)
		Py_RETURN_NONE;
	if (r < 0)
		return raise_code(self->state, r);
	call = user;
	taken = call->count - kept;
	call->count = kept;
	return Py_BuildValue("(Onn)", call->job, call->first + call->count, taken);
}

/* ---- taking ---- */

/* (first, count, failed, value, elapsed_ns, outside_ns). Takes over value. Py_BuildValue would take
 * as long as all else that is done for a small result. */
static PyObject *make_row(const struct call *call, PyObject *value, const struct response *head)
{
	PyObject *row = PyTuple_New(6);

	if (!row) {
		Py_DECREF(value);
		return NULL;
	}
	PyTuple_SET_ITEM(row, 0, PyLong_FromSsize_t(call->first));
	PyTuple_SET_ITEM(row, 1, PyLong_FromSsize_t(call->count));
	PyTuple_SET_ITEM(row, 2, PyBool_FromLong(head->failed));
	PyTuple_SET_ITEM(row, 3, value);
	PyTuple_SET_ITEM(row, 4, PyLong_FromLongLong(head->elapsed_ns));
	PyTuple_SET_ITEM(row, 5, PyLong_FromLongLong(head->outside_ns + call->encode_ns));
	if (PyErr_Occurred())
		Py_CLEAR(row);
	return row;
}

/* Append a row to the last of batches, a list of (job, rows), or to a new one where that is another
 * job's. Takes over call and value. */
static int append_row(PyObject *batches, struct call *call, PyObject *value,
		      const struct response *head)
{
	PyObject *row = make_row(call, value, head), *batch = NULL;
	Py_ssize_t count = PyList_GET_SIZE(batches);
	int r = -1;

	if (count)
		batch = PyList_GET_ITEM(batches, count - 1);
	if (row && batch && PyTuple_GET_ITEM(batch, 0) == call->job) {
		r = PyList_Append(PyTuple_GET_ITEM(batch, 1), row);
	} else if (row) {
		batch = Py_BuildValue("(O[O])", call->job, row);
		r = batch ? PyList_Append(batches, batch) : -1;
		Py_XDECREF(batch);
	}
	Py_XDECREF(row);
	free_call(call);
	return r;
}

/* Takes over task. */
static int append_task(struct stream_object *self, PyObject *batches, struct ac_task *task)
{
	struct call *call = ac_task_user(task);
	struct response head = { 0 };
	PyObject *value;
	const void *data;
	size_t len;

	list_remove(&self->under_way, call);
	self->taken++;
	if (ac_task_result(task, &data, &len) == 0)
		self->taken_bytes += len;
	value = outcome_value(self->explainer, task, NULL, &head);
	ac_task_free(task);
	if (value)
		return append_row(batches, call, value, &head);
	free_call(call);
	return -1;
}

static int append_failed(struct stream_object *self, PyObject *batches)
{
	struct response head = { .failed = true };
	struct call *call;

	while ((call = self->failed.first)) {
		list_remove(&self->failed, call);
		if (append_row(batches, call, Py_NewRef(call->failure), &head) < 0)
			return -1;
	}
	return 0;
}

/* Wait without the GIL, if at all. Another thread may close the stream meanwhile: then the last thread
 * that was in a call with it really closes it, and 0 is returned (the end). */
static int await_next(struct stream_object *self, struct ac_task **task, int64_t timeout)
{
	struct ac_stream *stream = self->stream;
	int r;

	self->users++;
	if (timeout == 0) {
		r = ac_stream_next(stream, task, 0);
	} else {
		Py_BEGIN_ALLOW_THREADS
		r = ac_stream_next(stream, task, timeout);
		Py_END_ALLOW_THREADS
	}
	if (r == 1 && self->closed && self->users == 1)
		ac_task_free(*task);
	return end_use(self) ? 0 : r;
}

/* Append the results that are ready. Returns what the last ac_stream_next returned; -1 with an
 * exception set. */
static int drain(struct stream_object *self, PyObject *batches, uint64_t most)
{
	uint64_t before = self->taken;
	struct ac_task *task;
	int r = 1;

	if (append_failed(self, batches) < 0)
		return -1;
	while (self->taken - before < most && self->stream && !self->closed &&
	       (r = await_next(self, &task, 0)) == 1)
		if (append_task(self, batches, task) < 0)
			return -1;
	return r;
}

/* As drain, but waits for the first result. */
static int fill(struct stream_object *self, PyObject *batches, uint64_t most, int64_t timeout)
{
	struct sliced_wait wait;
	struct ac_task *task;
	int r = drain(self, batches, most);

	if (PyList_GET_SIZE(batches) || r != -ETIMEDOUT || timeout == 0)
		return r;
	sliced_wait_begin(&wait, timeout);
	do {
		r = await_next(self, &task, sliced_wait_next(&wait));
		if (r == 1) {
			r = append_task(self, batches, task);
			return r < 0 ? r : drain(self, batches, most);
		}
		r = sliced_wait_check(&wait, r);
	} while (r == -EINTR && self->stream && !self->closed);
	/* The end, or awake: because a call has failed while this thread waited, perhaps. */
	if ((r == 0 || r == -EAGAIN) && append_failed(self, batches) < 0)
		return -1;
	return r;
}

static PyObject *stream_take(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	PyObject *seconds = Py_None, *batches;
	Py_ssize_t most = 256;
	int64_t timeout;
	int r;

	if (!PyArg_ParseTuple(args, "|On:take", &seconds, &most))
		return NULL;
	timeout = timeout_from(seconds);
	if (timeout == -2)
		return NULL;
	if (!self->stream || self->closed)
		Py_RETURN_NONE;
	batches = PyList_New(0);
	if (!batches)
		return NULL;
	r = fill(self, batches, (uint64_t)most, timeout);
	if (PyErr_Occurred())
		goto err;
	if (PyList_GET_SIZE(batches) || r == -ETIMEDOUT || r == -EINTR || r == -EAGAIN)
		return batches;
	if (r < 0) {
		outcome_raise_refusal(self->explainer, r == AC_ECLOSED ? AC_ECANCELED : r);
		goto err;
	}
	Py_DECREF(batches);
	Py_RETURN_NONE;
err:
	Py_DECREF(batches);
	return NULL;
}

/* ---- figures ---- */

static PyObject *stream_under_way(PyObject *object, void *unused)
{
	struct stream_object *self = (struct stream_object *)object;

	(void)unused;
	return PyLong_FromUnsignedLongLong(self->pushed - self->taken);
}

static PyObject *stream_weight(PyObject *object, void *unused)
{
	struct stream_object *self = (struct stream_object *)object;
	uint64_t weight = 0;

	(void)unused;
	if (self->pushed)
		weight += self->pushed_bytes / self->pushed;
	if (self->taken)
		weight += self->taken_bytes / self->taken;
	return PyLong_FromUnsignedLongLong(weight);
}

static PyGetSetDef stream_figures[] = {
	{ "under_way", stream_under_way, NULL, "Calls pushed whose results were not taken.", NULL },
	{ "weight", stream_weight, NULL, "Average bytes of a call plus average bytes of a result.", NULL },
	{ 0 },
};

static PyMethodDef stream_methods[] = {
	{ "push_call", stream_push_call, METH_VARARGS,
	  "push_call(job, function, args, kwds)\n\nPush one call of a job." },
	{ "feed", stream_feed, METH_VARARGS,
	  "feed(job, function, items, first, end, star, chunk, divisible, most, most_bytes) -> "
	  "(calls, items, more)\n\n"
	  "Push at most most calls of a Function, of most_bytes bytes together: one for each item "
	  "(chunk 0), or one for each chunk items. items: a list, tuple or range, of which those from "
	  "first up to end are read; or an iterator, whose next item is number first. more false: "
	  "items is at its end. What an iterator raises is the result of one more call, of no items." },
	{ "fail", stream_fail, METH_VARARGS,
	  "fail(job, first, exception)\n\n"
	  "Hand the job a result of no items, this exception, as if a call had failed." },
	{ "take", stream_take, METH_VARARGS,
	  "take(timeout=None, most=256) -> list of (job, rows), or None\n\n"
	  "The results that have arrived; waits for the first one. A row: (first, count, failed, "
	  "value, elapsed_ns, outside_ns). []: none within timeout seconds, or wake() was called. "
	  "None: the stream was ended or closed, and all results have been taken." },
	{ "take_back", stream_take_back, METH_NOARGS,
	  "take_back() -> (job, first, count) or None\n\n"
	  "Take back items that the worker of a divisible call has not begun: the call keeps those "
	  "before them. None: no call has such items." },
	{ "wake", stream_wake, METH_NOARGS,
	  "Make a thread return that waits in take(), or the next one that would wait." },
	{ "jobs", stream_jobs, METH_NOARGS, "jobs() -> set\n\nThe jobs that have calls under way." },
	{ "end", stream_end, METH_NOARGS, "Say that nothing more will be pushed." },
	{ "close", stream_close, METH_NOARGS,
	  "Cancel the calls that no worker has begun, and drop the results of the others." },
	{ 0 },
};

PyType_Spec stream_spec = {
	.name = "allcores._core.Stream",
	.basicsize = sizeof(struct stream_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = (PyType_Slot[]){
		{ Py_tp_dealloc, stream_dealloc },
		{ Py_tp_traverse, stream_traverse },
		{ Py_tp_methods, stream_methods },
		{ Py_tp_getset, stream_figures },
		{ 0 },
	},
};

/* SPDX-License-Identifier: MIT */
/*
 * A fed stream of the engine. One thread may push while another one takes. Each push has an
 * index, from 0. For a call that could not be pickled an empty call is pushed, and the
 * exception takes the place of its result: so indexes, counts and order have no holes.
 */
#include "stream.h"

#include <errno.h>

#include "codec.h"
#include "errors.h"
#include "waiting.h"

struct stream_object {
	PyObject_HEAD
	struct ac_stream *stream;
	PyObject *pool;		/* keeps the following one alive */
	const struct explainer *explainer;
	struct state *state;
	PyObject *failures;	/* {index: exception} of calls that could not be pickled */
	uint64_t pushed, taken, pushed_bytes, taken_bytes;
	unsigned users;		/* threads that are waiting in a call with stream */
	bool closed;
};

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
	self->failures = PyDict_New();
	if (!self->failures)
		goto err;
	r = ac_stream_open(&self->stream, explainer->pool, ANY_CALL, &opts);
	if (r == 0)
		return (PyObject *)self;
	if (r == AC_ECLOSED || r == AC_EFORK)
		raise_code(self->state, r);
	else
		outcome_raise_refusal(explainer, r);
err:
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
}

static int stream_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct stream_object *self = (struct stream_object *)object;

	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->pool);
	Py_VISIT(self->failures);
	return 0;
}

static void stream_dealloc(PyObject *object)
{
	struct stream_object *self = (struct stream_object *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	close_stream(self);
	Py_XDECREF(self->failures);
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

static int push_bytes(struct stream_object *self, const struct sink *sink, uint32_t units,
		      uint64_t *index)
{
	struct ac_push_opts opts = { .size = sizeof opts, .units = units };
	int r;

	if (check_open(self) < 0)
		return -1;
	r = ac_stream_push(self->stream, sink->data, sink->len, &opts, index);
	if (r == 0) {
		self->pushed++;
		self->pushed_bytes += sink->len;
		return 0;
	}
	/* The stream was begun before its pool was terminated: its work is cut off, so "the
	 * pool is closed" would say too little. */
	outcome_raise_refusal(self->explainer, r == AC_ECLOSED ? AC_ECANCELED : r);
	return -1;
}

/* Push an empty call whose result is error. Takes over error. */
static int push_failure(struct stream_object *self, PyObject *error, uint64_t *index)
{
	struct encoder *encoder = encoder_take(self->state);
	PyObject *key = NULL;
	int r = -1;

	if (encoder)
		r = encode_request(self->state, encoder, NULL, REQUEST_NOTHING, false, NULL);
	if (r == 0)
		r = push_bytes(self, encoder->sink, 0, index);
	encoder_give(self->state, encoder);
	if (r == 0) {
		key = PyLong_FromUnsignedLongLong(*index);
		r = key ? PyDict_SetItem(self->failures, key, error) : -1;
	}
	Py_XDECREF(key);
	Py_DECREF(error);
	return r;
}

static int push(struct stream_object *self, PyObject *function, enum request_kind kind,
		uint32_t units, PyObject *payload, uint64_t *index)
{
	struct encoder *encoder = encoder_take(self->state);
	int r;

	if (!encoder)
		return -1;
	r = encode_request(self->state, encoder, function, kind, units > 0, payload);
	if (r == 0) {
		r = push_bytes(self, encoder->sink, units, index);
		encoder_give(self->state, encoder);
		return r;
	}
	encoder_give(self->state, encoder);
	if (!PyErr_ExceptionMatches(PyExc_Exception))
		return -1;
	return push_failure(self, take_exception(), index);
}

static PyObject *stream_push(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	PyObject *function, *items;
	int star, divisible;
	Py_ssize_t count;
	uint64_t index;

	if (!PyArg_ParseTuple(args, "OOpp:push", &function, &items, &star, &divisible))
		return NULL;
	count = PySequence_Size(items);
	if (count < 0)
		return NULL;
	if (count > UINT32_MAX)
		return PyErr_Format(PyExc_OverflowError, "%zd items are too many for a call",
				    count);
	if (push(self, function, star ? REQUEST_STAR_ITEMS : REQUEST_ITEMS,
		 divisible ? (uint32_t)count : 0, items, &index) < 0)
		return NULL;
	return PyLong_FromUnsignedLongLong(index);
}

static PyObject *stream_push_call(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	PyObject *function, *call_args, *kwds, *payload;
	uint64_t index;
	int r;

	if (!PyArg_ParseTuple(args, "OOO:push_call", &function, &call_args, &kwds))
		return NULL;
	payload = PyTuple_Pack(2, call_args, kwds);
	if (!payload)
		return NULL;
	r = push(self, function, REQUEST_ARGS_KWDS, 0, payload, &index);
	Py_DECREF(payload);
	return r < 0 ? NULL : PyLong_FromUnsignedLongLong(index);
}

static PyObject *stream_push_failure(PyObject *object, PyObject *error)
{
	uint64_t index;

	if (push_failure((struct stream_object *)object, Py_NewRef(error), &index) < 0)
		return NULL;
	return PyLong_FromUnsignedLongLong(index);
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

/* Push the next call. 1: pushed; 0: the iterator is at its end; -1 with an exception set. */
static int feed_one(struct stream_object *self, PyObject *function, PyObject *iterator,
		    int star, Py_ssize_t chunk)
{
	enum request_kind kind = star ? REQUEST_STAR_ITEMS : REQUEST_ITEMS;
	PyObject *payload;
	uint64_t index;
	int r;

	if (chunk > 0) {
		payload = read_items(iterator, chunk);
		if (payload && PyList_GET_SIZE(payload) == 0) {
			Py_DECREF(payload);
			return 0;
		}
	} else {
		kind = star ? REQUEST_ARGS : REQUEST_ITEM;
		payload = PyIter_Next(iterator);
	}
	if (!payload)
		return PyErr_Occurred() ? -1 : 0;
	r = push(self, function, kind, 0, payload, &index);
	Py_DECREF(payload);
	return r < 0 ? -1 : 1;
}

static PyObject *stream_feed(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	PyObject *function, *iterator;
	Py_ssize_t chunk, most;
	uint64_t most_bytes = UINT64_MAX, before = self->pushed_bytes;
	int star, r = 1;

	if (!PyArg_ParseTuple(args, "OOpnn|K:feed", &function, &iterator, &star, &chunk,
			      &most, &most_bytes))
		return NULL;
	if (!PyIter_Check(iterator))
		return PyErr_Format(PyExc_TypeError, "feed needs an iterator, not %R",
				    Py_TYPE(iterator));
	for (Py_ssize_t i = 0;
	     i < most && r > 0 && self->pushed_bytes - before < most_bytes; i++)
		r = feed_one(self, function, iterator, star, chunk);
	return r < 0 ? NULL : PyBool_FromLong(r > 0);
}

static PyObject *stream_end(PyObject *object, PyObject *unused)
{
	struct stream_object *self = (struct stream_object *)object;

	(void)unused;
	if (self->stream)
		ac_stream_end(self->stream);
	Py_RETURN_NONE;
}

static PyObject *stream_close(PyObject *object, PyObject *unused)
{
	(void)unused;
	close_stream((struct stream_object *)object);
	Py_RETURN_NONE;
}

static PyObject *stream_take_back(PyObject *object, PyObject *unused)
{
	struct stream_object *self = (struct stream_object *)object;
	uint64_t index;
	uint32_t kept;
	int r;

	(void)unused;
	if (check_open(self) < 0)
		return NULL;
	r = ac_stream_take_back(self->stream, &index, NULL, &kept);
	if (r < 0)
		return raise_code(self->state, r);
	if (r == 0)
		Py_RETURN_NONE;
	return Py_BuildValue("KI", (unsigned long long)index, kept);
}

/* ---- taking ---- */

/* The exception of a call that could not be pickled: a new reference. NULL: it was pickled,
 * or an exception is set. */
static PyObject *take_failure(struct stream_object *self, PyObject *index)
{
	PyObject *error = PyDict_GetItemWithError(self->failures, index);

	if (!error)
		return NULL;
	Py_INCREF(error);
	if (PyDict_DelItem(self->failures, index) < 0)
		PyErr_Clear();
	return error;
}

/* (index, ok, value, elapsed_ns). Frees task. */
static PyObject *row_of(struct stream_object *self, struct ac_task *task)
{
	struct ac_outcome outcome;
	PyObject *index, *value = NULL, *row;
	bool failed = true;
	int64_t elapsed_ns = 0;
	const void *data;
	size_t len;

	ac_task_outcome(task, &outcome);
	self->taken++;
	if (ac_task_result(task, &data, &len) == 0)
		self->taken_bytes += len;
	index = PyLong_FromUnsignedLongLong(outcome.index);
	if (index && PyDict_GET_SIZE(self->failures))
		value = take_failure(self, index);
	if (index && !value && !PyErr_Occurred())
		value = outcome_value(self->explainer, task, NULL, &failed, &elapsed_ns);
	ac_task_free(task);
	if (!index || !value) {
		Py_XDECREF(index);
		return NULL;
	}
	row = PyTuple_New(4);
	if (!row)
		goto out;
	PyTuple_SET_ITEM(row, 0, Py_NewRef(index));
	PyTuple_SET_ITEM(row, 1, Py_NewRef(failed ? Py_False : Py_True));
	PyTuple_SET_ITEM(row, 2, Py_NewRef(value));
	PyTuple_SET_ITEM(row, 3, PyLong_FromLongLong(elapsed_ns));
out:
	Py_DECREF(index);
	Py_DECREF(value);
	return row;
}

static int append_row(struct stream_object *self, PyObject *rows, struct ac_task *task)
{
	PyObject *row = row_of(self, task);
	int r = row ? PyList_Append(rows, row) : -1;

	Py_XDECREF(row);
	return r;
}

/* Wait without the GIL. Another thread may close the stream meanwhile: then the last thread
 * that was waiting really closes it, and 0 is returned (the end). */
static int await_next(struct stream_object *self, struct ac_task **task, int64_t timeout)
{
	struct ac_stream *stream = self->stream;
	int r;

	self->users++;
	Py_BEGIN_ALLOW_THREADS
	r = ac_stream_next(stream, task, timeout);
	Py_END_ALLOW_THREADS
	self->users--;
	if (self->closed && !self->users) {
		if (r == 1)
			ac_task_free(*task);
		close_stream(self);
		return 0;
	}
	return r;
}

/* Append the results that are ready to rows. Returns what the last ac_stream_next returned;
 * -1 with an exception set. */
static int drain(struct stream_object *self, PyObject *rows, Py_ssize_t most)
{
	struct ac_task *task;
	int r = 1;

	while (PyList_GET_SIZE(rows) < most && self->stream && !self->closed &&
	       (r = ac_stream_next(self->stream, &task, 0)) == 1)
		if (append_row(self, rows, task) < 0)
			return -1;
	return r;
}

/* As drain, but waits for the first result. */
static int fill(struct stream_object *self, PyObject *rows, Py_ssize_t most, int64_t timeout)
{
	struct sliced_wait wait;
	struct ac_task *task;
	int r = drain(self, rows, most);

	if (PyList_GET_SIZE(rows) || r != -ETIMEDOUT || timeout == 0)
		return r;
	sliced_wait_begin(&wait, timeout);
	do {
		r = await_next(self, &task, sliced_wait_next(&wait));
		if (r == 1) {
			r = append_row(self, rows, task);
			return r < 0 ? r : drain(self, rows, most);
		}
		r = sliced_wait_check(&wait, r);
	} while (r == -EINTR && self->stream && !self->closed);
	return r;
}

static PyObject *stream_take(PyObject *object, PyObject *args)
{
	struct stream_object *self = (struct stream_object *)object;
	PyObject *seconds = Py_None, *rows;
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
	rows = PyList_New(0);
	if (!rows)
		return NULL;
	r = fill(self, rows, most, timeout);
	if (PyErr_Occurred())
		goto err;
	if (PyList_GET_SIZE(rows) || r == -ETIMEDOUT || r == -EINTR)
		return rows;
	if (r < 0) {
		raise_code(self->state, r == AC_ECLOSED ? AC_ECANCELED : r);
		goto err;
	}
	Py_DECREF(rows);
	Py_RETURN_NONE;
err:
	Py_DECREF(rows);
	return NULL;
}

/* ---- figures ---- */

static PyObject *stream_pushed(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(((struct stream_object *)object)->pushed);
}

static PyObject *stream_taken(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(((struct stream_object *)object)->taken);
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
	{ "pushed", stream_pushed, NULL, "Calls pushed.", NULL },
	{ "taken", stream_taken, NULL, "Results taken.", NULL },
	{ "weight", stream_weight, NULL, "Average bytes of a call plus average bytes of a result.", NULL },
	{ 0 },
};

static PyMethodDef stream_methods[] = {
	{ "push", stream_push, METH_VARARGS,
	  "push(function, items, star, divisible) -> int\n\n"
	  "Push one call for a sequence of items. Returns the call's index." },
	{ "push_call", stream_push_call, METH_VARARGS,
	  "push_call(function, args, kwds) -> int\n\nPush one call. Returns its index." },
	{ "push_failure", stream_push_failure, METH_O,
	  "push_failure(exception) -> int\n\n"
	  "Push a call whose result is this exception. Returns its index." },
	{ "feed", stream_feed, METH_VARARGS,
	  "feed(function, iterator, star, chunk, most, most_bytes) -> bool\n\n"
	  "Push at most most calls of most_bytes bytes together: one for each item (chunk 0), or "
	  "one for each list of chunk items. False: the iterator is at its end. Raises what the "
	  "iterator raises." },
	{ "take", stream_take, METH_VARARGS,
	  "take(timeout=None, most=256) -> list of (index, ok, value, elapsed_ns), or None\n\n"
	  "The results that have arrived; waits for the first one. []: none within timeout "
	  "seconds. None: the stream was ended or closed, and all results have been taken." },
	{ "take_back", stream_take_back, METH_NOARGS,
	  "take_back() -> (index, kept) or None\n\n"
	  "Take back the items that the worker of a divisible call has not begun: the call keeps "
	  "its first kept items. None: no call has such items." },
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

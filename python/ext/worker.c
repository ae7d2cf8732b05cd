/* SPDX-License-Identifier: MIT */
/*
 * The type Worker: the seat that a worker process takes, and the loop in which it runs calls.
 * Decoding, calling and encoding are C. A Python function, allcores.worker.encode_failure,
 * makes the bytes for an exception.
 */
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "codec.h"
#include "errors.h"
#include "small.h"
#include "sliced_wait.h"

#define NAMES_MOST 1024	/* functions whose names a worker remembers */

/* How many forks lie between the process that imported this module and this one. */
static unsigned forks;
static bool counts_forks;

static void count_fork(void)
{
	forks++;
}

/* Of a process that the template forked: there is one seat for it. */
static struct ac_worker *forked_worker;

void worker_set_forked(struct ac_worker *worker)
{
	forked_worker = worker;
}

struct worker_object {
	PyObject_HEAD
	struct ac_worker *worker;
	struct state *state;
	PyObject *encode_failure, *describe;
	PyObject *names;	/* {a function's pickled name: (module, qualname)} */
	PyObject *last_name;	/* of the call before: its key in names, */
	PyObject *last_pair;	/* and what it is there */
};

/* The call that the worker runs at the moment. */
struct job {
	struct ac_call *call;
	struct request head;
	const char *payload;
	size_t payload_len;
	enum stage stage;
	const char *name;	/* the function's, pickled */
	struct small_items items;	/* instead of a decoded payload, see decode_job */
	int64_t start_ns;	/* of a list of items: when it was begun, */
	int64_t items_ns;	/* and when its first item was */
	int64_t elapsed_ns;
	unsigned forks;		/* the count when the job began */
};

/* ---- life ---- */

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
	static char *names[] = { "fd", "encode_failure", "describe", NULL };
	struct worker_object *self;
	PyObject *encode_failure, *describe;
	int fd, r;

	if (!PyArg_ParseTupleAndKeywords(args, kwds, "iOO:Worker", names, &fd,
					 &encode_failure, &describe))
		return NULL;
	if (!counts_forks)
		counts_forks = pthread_atfork(NULL, NULL, count_fork) == 0;
	self = (struct worker_object *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->state = state_of((PyObject *)self);
	self->encode_failure = Py_NewRef(encode_failure);
	self->describe = Py_NewRef(describe);
	self->names = PyDict_New();
	if (!self->state || !self->names || codec_prepare(self->state) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	self->worker = forked_worker;
	r = fd < 0 ? 0 : ac_worker_open(&self->worker, fd);
	if (r == 0 && !self->worker)
		r = -EBADF;
	if (r < 0) {
		raise_code(self->state, r);
		Py_DECREF(self);
		return NULL;
	}
	return (PyObject *)self;
}

static void worker_dealloc(PyObject *object)
{
	struct worker_object *self = (struct worker_object *)object;
	PyTypeObject *type = Py_TYPE(object);

	ac_worker_close(self->worker);
	Py_XDECREF(self->encode_failure);
	Py_XDECREF(self->describe);
	Py_XDECREF(self->names);
	Py_XDECREF(self->last_name);
	Py_XDECREF(self->last_pair);
	type->tp_free(object);
	Py_DECREF(type);
}

static PyObject *worker_ready(PyObject *object, PyObject *args)
{
	struct worker_object *self = (struct worker_object *)object;
	const char *text = NULL;
	int status = 0, r;

	if (!PyArg_ParseTuple(args, "|iz:ready", &status, &text))
		return NULL;
	r = ac_worker_ready(self->worker, status, text);
	if (r < 0)
		return raise_code(self->state, r);
	Py_RETURN_NONE;
}

static PyObject *worker_say(PyObject *object, PyObject *text)
{
	struct worker_object *self = (struct worker_object *)object;
	const char *words = PyUnicode_AsUTF8(text);
	int r = words ? ac_worker_say(self->worker, words) : 0;

	if (r < 0)
		return raise_code(self->state, r);
	return words ? Py_NewRef(Py_None) : NULL;
}

/* ---- the function ---- */

static bool is_last(const struct worker_object *self, const struct job *job)
{
	return self->last_name &&
	       (size_t)PyBytes_GET_SIZE(self->last_name) == job->head.name_len &&
	       !memcmp(PyBytes_AS_STRING(self->last_name), job->name, job->head.name_len);
}

/* Set the text that a dump shows. A failed description must not fail the call. Takes over
 * text. */
static void say(struct worker_object *self, PyObject *text)
{
	const char *words = text && PyUnicode_Check(text) ? PyUnicode_AsUTF8(text) : "?";

	ac_worker_say(self->worker, words ? words : "?");
	Py_XDECREF(text);
	PyErr_Clear();
}

/* (module, qualname): a new reference. */
static PyObject *read_name(struct worker_object *self, PyObject *name)
{
	PyObject *pair = PyDict_GetItemWithError(self->names, name), *module, *qualname;

	if (pair || PyErr_Occurred())
		return Py_XNewRef(pair);
	if (decode_name(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name), &module,
			&qualname) < 0)
		return NULL;
	pair = PyTuple_Pack(2, module, qualname);
	Py_DECREF(module);
	Py_DECREF(qualname);
	if (PyDict_GET_SIZE(self->names) >= NAMES_MOST)
		PyDict_Clear(self->names);
	if (pair && PyDict_SetItem(self->names, name, pair) < 0)
		Py_CLEAR(pair);
	return pair;
}

/* This call's function is the last one from now on. */
static int note_name(struct worker_object *self, const struct job *job)
{
	PyObject *name = PyBytes_FromStringAndSize(job->name, job->head.name_len);
	PyObject *pair = name ? read_name(self, name) : NULL;

	if (!pair) {
		Py_XDECREF(name);
		return -1;
	}
	Py_XSETREF(self->last_name, name);
	Py_XSETREF(self->last_pair, pair);
	say(self, PyUnicode_FromFormat("%U.%U", PyTuple_GET_ITEM(pair, 0),
				       PyTuple_GET_ITEM(pair, 1)));
	return 0;
}

/* What the name means now, as unpickling it would find it: a task may have given it another
 * meaning. A new reference. */
static PyObject *find_function(struct worker_object *self, const struct job *job)
{
	PyObject *function;

	if (!is_last(self, job) && note_name(self, job) < 0)
		return NULL;
	function = look_up_name(PyTuple_GET_ITEM(self->last_pair, 0),
				PyTuple_GET_ITEM(self->last_pair, 1));
	if (function)
		return Py_NewRef(function);
	return decode_object(self->state, job->name, job->head.name_len);
}

/* For a function that has no name. last_name is cleared, so that the next call of the function
 * before sets the text again. */
static void say_nameless(struct worker_object *self, PyObject *function)
{
	Py_CLEAR(self->last_name);
	say(self, PyObject_CallOneArg(self->describe, function));
}

/* ---- a call ---- */

static int open_job(struct job *job, struct ac_call *call)
{
	size_t len;
	const char *arg = ac_call_arg(call, &len);

	*job = (struct job){ .call = call, .forks = forks };
	if (len < sizeof job->head)
		goto err;
	memcpy(&job->head, arg, sizeof job->head);
	if (job->head.name_len > len - sizeof job->head)
		goto err;
	job->name = arg + sizeof job->head;
	job->payload = job->name + job->head.name_len;
	job->payload_len = len - sizeof job->head - job->head.name_len;
	if (job->head.divisible)
		job->start_ns = now_ns();
	return 0;
err:
	PyErr_SetString(PyExc_EOFError, "the call is truncated");
	return -1;
}

static int decode_pair(struct worker_object *self, const struct job *job,
		       PyObject **function, PyObject **payload)
{
	PyObject *both = decode_object(self->state, job->payload, job->payload_len);

	if (!both)
		return -1;
	if (PyTuple_Check(both) && PyTuple_GET_SIZE(both) == 2) {
		*function = Py_NewRef(PyTuple_GET_ITEM(both, 0));
		*payload = Py_NewRef(PyTuple_GET_ITEM(both, 1));
		say_nameless(self, *function);
	} else {
		PyErr_SetString(PyExc_TypeError, "the call is not a pair of function and payload");
	}
	Py_DECREF(both);
	return *payload ? 0 : -1;
}

static PyObject *decode_bound(struct worker_object *self, const struct job *job)
{
	PyObject *function;
	size_t len;
	const void *data = ac_call_bound(job->call, &len);

	if (!data) {
		PyErr_SetString(PyExc_EOFError, "the call's function is missing");
		return NULL;
	}
	function = decode_object(self->state, data, len);
	if (function)
		say_nameless(self, function);
	return function;
}

static PyObject *decode_payload(struct worker_object *self, const struct job *job)
{
	if (job->head.small)
		return small_decode(job->payload, job->payload_len);
	return decode_object(self->state, job->payload, job->payload_len);
}

/* Small items are decoded one by one, each before it runs: the memory of one is used again for the
 * next while the processor has it in its cache. */
static bool has_small_items(struct job *job)
{
	return job->head.small &&
	       (job->head.kind == REQUEST_ITEMS || job->head.kind == REQUEST_STAR_ITEMS) &&
	       small_items_open(&job->items, job->payload, job->payload_len);
}

/* *payload stays NULL if the job has small items. */
static int decode_job(struct worker_object *self, struct job *job, PyObject **function,
		      PyObject **payload)
{
	if (job->head.place == FUNCTION_IN_PAYLOAD)
		return decode_pair(self, job, function, payload);
	*function = job->head.place == FUNCTION_NAMED ? find_function(self, job) :
							decode_bound(self, job);
	if (!*function)
		return -1;
	if (has_small_items(job))
		return 0;
	*payload = decode_payload(self, job);
	return *payload ? 0 : -1;
}

/* Keyword arguments may be any mapping, as behind ** in a call. */
static PyObject *dict_of(PyObject *kwds)
{
	PyObject *dict;

	if (!PyDict_CheckExact(kwds) && !PyObject_HasAttrString(kwds, "keys"))
		return PyErr_Format(PyExc_TypeError,
				    "argument after ** must be a mapping, not %.200s",
				    Py_TYPE(kwds)->tp_name);
	dict = PyDict_New();
	if (dict && PyDict_Update(dict, kwds) < 0)
		Py_CLEAR(dict);
	return dict;
}

/* Reading the arguments runs code of the user's that is not yet the function. */
static PyObject *call_star(struct job *job, PyObject *function, PyObject *args, PyObject *kwds)
{
	PyObject *tuple, *named = NULL, *value = NULL;

	job->stage = STAGE_DECODE;
	tuple = PySequence_Tuple(args);
	if (!tuple)
		return NULL;
	if (kwds)
		named = dict_of(kwds);
	if (named || !kwds) {
		job->stage = STAGE_RUN;
		value = PyObject_Call(function, tuple, named);
	}
	Py_XDECREF(named);
	Py_DECREF(tuple);
	return value;
}

static int append_value(PyObject *values, PyObject *value)
{
	int r = value ? PyList_Append(values, value) : -1;

	Py_XDECREF(value);
	return r;
}

static PyObject *next_item(struct job *job, PyObject *iterator)
{
	if (job->head.divisible && !ac_call_next_unit(job->call))
		return NULL;
	return iterator ? PyIter_Next(iterator) : small_items_next(&job->items);
}

/* items NULL: the job has small items. */
static PyObject *call_items(struct job *job, PyObject *function, PyObject *items)
{
	bool star = job->head.kind == REQUEST_STAR_ITEMS;
	PyObject *iterator = items ? PyObject_GetIter(items) : NULL;
	PyObject *values = PyList_New(0), *item;
	int r = values && (iterator || !items) ? 0 : -1;

	job->items_ns = now_ns();

	while (r == 0 && (item = next_item(job, iterator))) {
		r = append_value(values, star ? call_star(job, function, item, NULL) :
						PyObject_CallOneArg(function, item));
		Py_DECREF(item);
		/* This is a child that the item forked, and that returned from the item's
		 * function: the remaining items are the worker's, not the child's. */
		if (job->forks != forks && r == 0)
			_exit(0);
	}
	job->elapsed_ns = now_ns() - job->items_ns;
	Py_XDECREF(iterator);
	if (r < 0 || PyErr_Occurred())
		Py_CLEAR(values);
	return values;
}

static PyObject *run_job(struct job *job, PyObject *function, PyObject *payload)
{
	switch (job->head.kind) {
	case REQUEST_ITEM:
		return PyObject_CallOneArg(function, payload);
	case REQUEST_ARGS:
	case REQUEST_STAR_ITEM:
		if (PyTuple_CheckExact(payload))
			return PyObject_Call(function, payload, NULL);
		return call_star(job, function, payload, NULL);
	case REQUEST_ARGS_KWDS:
		return call_star(job, function, PyTuple_GET_ITEM(payload, 0),
				 PyTuple_GET_ITEM(payload, 1));
	case REQUEST_ITEMS:
	case REQUEST_STAR_ITEMS:
		return call_items(job, function, payload);
	}
	PyErr_Format(PyExc_ValueError, "the call has the unknown kind %d", job->head.kind);
	return NULL;
}

/* ---- the result ---- */

static int return_bytes(struct job *job, const void *data, size_t len)
{
	int r = ac_call_return(job->call, data, len);

	if (r == 0)
		return 0;
	PyErr_SetString(PyExc_MemoryError, "no shared memory for the result");
	return -1;
}

static int return_value(struct worker_object *self, struct job *job, PyObject *value)
{
	struct response head = {
		.elapsed_ns = job->elapsed_ns,
		.outside_ns = job->start_ns ? job->items_ns - job->start_ns : 0,
	};
	struct encoder *encoder = encoder_take(self->state);
	int r = encoder ? sink_write(encoder->sink, &head, sizeof head) : -1;

	if (r == 0)
		r = encode_value(encoder, value, &head.small);
	if (r == 0)
		memcpy(encoder->sink->data, &head, sizeof head);
	if (r == 0)
		r = return_bytes(job, encoder->sink->data, encoder->sink->len);
	encoder_give(self->state, encoder);
	return r;
}

/* What the function itself raises, and Ctrl-C anywhere. While a call is decoded or its result is
 * encoded, a SystemExit comes from code of the user's that only pickles: it fails the call. */
static bool ends_worker(enum stage stage)
{
	return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
	       (stage == STAGE_RUN && !PyErr_ExceptionMatches(PyExc_Exception));
}

/* An exception that does not end the worker is set: it becomes the result of the call. */
static int return_failure(struct worker_object *self, struct job *job, PyObject *value)
{
	struct response head = { .failed = true };
	PyObject *error, *bytes;
	char *buffer;

	if (ends_worker(job->stage))
		return -1;
	error = take_exception();
	bytes = PyObject_CallFunction(self->encode_failure, "iOO", job->stage, error,
				      value ? value : Py_None);
	Py_XDECREF(error);
	if (!bytes && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
		return -1;
	if (!bytes) {
		PyErr_Clear();
		return ac_call_fail(job->call, "no memory for the exception");
	}
	buffer = ac_call_reserve(job->call, sizeof head + (size_t)PyBytes_GET_SIZE(bytes));
	if (buffer) {
		memcpy(buffer, &head, sizeof head);
		memcpy(buffer + sizeof head, PyBytes_AS_STRING(bytes),
		       (size_t)PyBytes_GET_SIZE(bytes));
	}
	Py_DECREF(bytes);
	return buffer ? 0 : ac_call_fail(job->call, "no shared memory for the exception");
}

/* The status for ac_worker_done, or -1 with an exception that ends the worker. */
static int serve_call(struct worker_object *self, struct ac_call *call)
{
	PyObject *function = NULL, *payload = NULL, *value = NULL;
	struct job job;
	int r = -1;

	if (open_job(&job, call) < 0)
		goto out;
	if (decode_job(self, &job, &function, &payload) < 0)
		goto out;
	job.stage = STAGE_RUN;
	value = run_job(&job, function, payload);
	if (!value)
		goto out;
	job.stage = STAGE_ENCODE;
	r = return_value(self, &job, value);
out:
	if (r < 0)
		r = return_failure(self, &job, value);
	Py_XDECREF(value);
	Py_XDECREF(payload);
	Py_XDECREF(function);
	return r;
}

/* 1: a call; 0: the worker is to exit; -1 with an exception set. */
static int take_call(struct worker_object *self, struct ac_call **call)
{
	int r;

	do {
		Py_BEGIN_ALLOW_THREADS
		r = ac_worker_take(self->worker, call);
		Py_END_ALLOW_THREADS
		if (r == -EINTR && PyErr_CheckSignals() < 0)
			return -1;
	} while (r == -EINTR);
	/* This is a child that a task forked, and that returned from the task's function. */
	if (r == AC_EFORK)
		_exit(0);
	if (r < 0)
		raise_code(self->state, r);
	return r < 0 ? -1 : r;
}

static PyObject *worker_run(PyObject *object, PyObject *unused)
{
	struct worker_object *self = (struct worker_object *)object;
	struct ac_call *call;
	int r;

	(void)unused;
	while ((r = take_call(self, &call)) == 1) {
		r = serve_call(self, call);
		if (r < 0 && PyErr_Occurred())
			return NULL;
		ac_worker_done(self->worker, call, r);
	}
	if (r < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyMethodDef worker_methods[] = {
	{ "ready", worker_ready, METH_VARARGS,
	  "ready(status=0, text=None)\n\nTell the owner that this worker is ready, or "
	  "(status not 0) why it cannot be." },
	{ "say", worker_say, METH_O,
	  "say(text)\n\nSet the text that a dump shows until this worker runs a call." },
	{ "run", worker_run, METH_NOARGS,
	  "Run calls until the pool is closed or this worker has run its share "
	  "(maxtasksperchild). Raises what a call raises, if that is not an Exception." },
	{ 0 },
};

PyType_Spec worker_spec = {
	.name = "allcores._core.Worker",
	.basicsize = sizeof(struct worker_object),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = (PyType_Slot[]){
		{ Py_tp_new, worker_new },
		{ Py_tp_dealloc, worker_dealloc },
		{ Py_tp_methods, worker_methods },
		{ 0 },
	},
};

/* SPDX-License-Identifier: MIT */
/*
 * The type Pool: the engine's pool, whose workers are processes that a crew (a Python
 * object) starts. Its methods convert and call; what a pool means to its
 * users is said in allcores/pool.py.
 */
#include "codec.h"
#include "task.h"

#include <errno.h>
#include <unistd.h>

#include "stream.h"

/* ---- workers ---- */

#define HANDLERS_MOST 8 /* then it is no handler's, but what always comes out */

/* pair: (process, what to do). A child forked since inherits the pending call. */
static bool is_this_process(PyObject *pair)
{
	return PyLong_AsLong(PyTuple_GET_ITEM(pair, 0)) == getpid();
}

static int call_function(void *pair)
{
	PyObject *function = PyTuple_GET_ITEM((PyObject *)pair, 1);
	PyObject *done = is_this_process(pair) ? PyObject_CallNoArgs(function) :
						 Py_NewRef(Py_None);

	Py_DECREF((PyObject *)pair);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

static int raise_exception(void *pair)
{
	PyObject *error = PyTuple_GET_ITEM((PyObject *)pair, 1);
	bool ours = is_this_process(pair);

	if (ours)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_DECREF((PyObject *)pair);
	return ours ? -1 : 0;
}

/* In the main thread, in the wait that this is part of. Takes over object. */
static void when_back(int (*act)(void *), PyObject *object)
{
	PyObject *pair = Py_BuildValue("(iN)", (int)getpid(), object);

	if (!pair)
		PyErr_Clear();
	else if (Py_AddPendingCall(act, pair) < 0)
		Py_DECREF(pair);
}

/* Signals that came meanwhile. */
static void deliver_put_off(PyObject *crew)
{
	PyObject *signals = PyObject_GetAttrString(crew, "put_off");
	PyObject *deliver = signals ? PyObject_GetAttrString(crew, "deliver") : NULL;

	for (Py_ssize_t i = 0; deliver && i < PyList_GET_SIZE(signals); i++)
		when_back(call_function, Py_NewRef(deliver));
	Py_XDECREF(deliver);
	Py_XDECREF(signals);
}

static bool is_handlers_exception(void)
{
	return runs_handlers() && !PyErr_ExceptionMatches(PyExc_MemoryError);
}

/* What a signal handler raised just before or after must not cost the pool a worker, and is raised
 * when we are back. */
static PyObject *ask_crew(PyObject *crew, unsigned worker, int fd)
{
	static unsigned long requests; /* under the GIL */
	unsigned long request = ++requests;
	PyObject *errors[HANDLERS_MOST], *pid;
	unsigned n = 0;

	while (!(pid = PyObject_CallMethod(crew, "start", "Iik", worker, fd, request)) &&
	       n < HANDLERS_MOST && is_handlers_exception())
		errors[n++] = take_exception();
	while (n)
		when_back(raise_exception, errors[--n]);
	return pid;
}

/* Called by the engine without its lock, from any thread of this process. */
static pid_t start_worker(void *arg, unsigned worker, int fd)
{
	PyObject *crew = arg, *pid;
	PyGILState_STATE gil = PyGILState_Ensure();
	pid_t result = -EAGAIN;
	PyObject *type, *value, *traceback;

	/* The thread may be on its way with an exception. */
	PyErr_Fetch(&type, &value, &traceback);
	pid = ask_crew(crew, worker, fd);
	if (pid)
		result = (pid_t)PyLong_AsLong(pid);
	Py_XDECREF(pid);
	if (PyErr_Occurred()) {
		PyObject *error = take_exception();

		if (PyObject_SetAttrString(crew, "failure", error) < 0)
			PyErr_Clear();
		Py_DECREF(error);
		result = -EAGAIN;
	}
	deliver_put_off(crew);
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(gil);
	return result;
}

/* ---- what became of a task ---- */

/* The exception: a new reference, or NULL with one set. The engine may have cut its text within a
 * character. */
static PyObject *explain_outcome(struct pool_object *pool, const struct ac_outcome *outcome,
				 PyObject *function)
{
	PyObject *text = PyUnicode_DecodeUTF8(outcome->text, (Py_ssize_t)strlen(outcome->text),
					      "replace");

	return PyObject_CallMethod(pool->crew, "explain", "isNiiiILKO", outcome->status,
				   ac_errname(outcome->status), text,
				   outcome->signal, outcome->exit_code, (int)outcome->pid,
				   outcome->worker, (long long)outcome->ran_ns,
				   (unsigned long long)outcome->peak_rss,
				   function ? function : Py_None);
}

static PyObject *decode_outcome(struct pool_object *pool, struct ac_task *task,
				PyObject *function, bool *failed, int64_t *elapsed)
{
	struct ac_outcome outcome;
	const void *data;
	size_t len;

	if (ac_task_result(task, &data, &len) == 0)
		return decode_response(pool->state, data, len, failed, elapsed);
	ac_task_outcome(task, &outcome);
	return explain_outcome(pool, &outcome, function);
}

PyObject *value_of(struct pool_object *pool, struct ac_task *task, PyObject *function,
		   bool *failed, int64_t *elapsed)
{
	unsigned interrupts = 0;
	PyObject *value;

	do {
		*failed = true;
		*elapsed = 0;
		value = decode_outcome(pool, task, function, failed, elapsed);
	} while (!value && put_off_interrupt(&interrupts));
	if (!value) {
		*failed = true;
		value = take_exception();
	}
	if (interrupts)
		PyErr_SetInterrupt();
	return value;
}

PyObject *explain_refusal(struct pool_object *pool, int code)
{
	struct ac_outcome outcome = { .status = code, .exit_code = -1 };

	/* A pool that failed tells why to a call that wants to know. */
	if (code == AC_ESTART || code == AC_EBROKEN)
		ac_pool_call(pool->pool, ANY_CALL, NULL, 0, NULL, NULL, &outcome);
	if (!outcome.text[0])
		PyOS_snprintf(outcome.text, sizeof outcome.text, "%s",
			      ac_strerror(code));
	outcome.status = code;
	return explain_outcome(pool, &outcome, NULL);
}

/* ---- the object ---- */

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
	static char *names[] = { "workers", "recycle", "crew", "result_type", NULL };
	struct ac_pool_opts opts = { .size = sizeof opts, .start = start_worker,
				     .flags = AC_POOL_INTERRUPTIBLE };
	PyObject *crew, *result_type;
	struct pool_object *self;
	int r;

	if (!PyArg_ParseTupleAndKeywords(args, kwds, "iIOO!:Pool", names, &opts.workers,
					 &opts.recycle, &crew, &PyType_Type, &result_type))
		return NULL;
	self = (struct pool_object *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->state = state_of((PyObject *)self);
	self->crew = Py_NewRef(crew);
	self->result_type = Py_NewRef(result_type);
	if (!self->state) {
		Py_DECREF(self);
		return NULL;
	}
	if (!PyType_IsSubtype((PyTypeObject *)result_type, self->state->task_type)) {
		PyErr_SetString(PyExc_TypeError, "result_type must be a subclass of Task");
		Py_DECREF(self);
		return NULL;
	}
	opts.start_arg = crew;
	r = ac_pool_open(&self->pool, &opts);
	if (Py_MakePendingCalls() == 0 && r < 0)
		raise_code(self->state, r);
	if (PyErr_Occurred()) {
		Py_DECREF(self);
		return NULL;
	}
	return (PyObject *)self;
}

static int pool_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct pool_object *self = (struct pool_object *)object;

	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->crew);
	Py_VISIT(self->result_type);
	return dropped_traverse(self, visit, arg);
}

/* Nobody can be in a call of it any more: who is, has a reference. */
static void pool_dealloc(PyObject *object)
{
	struct pool_object *self = (struct pool_object *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	dropped_clear(self);
	if (self->pool) {
		ac_pool_terminate(self->pool);
		Py_BEGIN_ALLOW_THREADS
		ac_pool_close(self->pool);
		Py_END_ALLOW_THREADS
	}
	Py_XDECREF(self->crew);
	Py_XDECREF(self->result_type);
	type->tp_free(object);
	Py_DECREF(type);
}

/* ---- handing in ---- */

/* A result that was there before its task: the exception that is set, if it is a failure
 * of this call alone; others (KeyboardInterrupt) are the caller's. */
static PyObject *fail_result(struct task_object *result)
{
	if (!PyErr_ExceptionMatches(PyExc_Exception)) {
		Py_DECREF(result);
		return NULL;
	}
	task_settle(result, take_exception(), true);
	return (PyObject *)result;
}

static int submit_encoded(struct pool_object *self, struct task_object *result,
			  const struct sink *sink)
{
	int r = ac_pool_submit(self->pool, &result->task, ANY_CALL, sink->data, sink->len,
			       NULL);

	if (r == 0)
		return 0;
	if (r == AC_ECLOSED || r == AC_EFORK) {
		raise_code(self->state, r);
		return -1;
	}
	task_settle(result, explain_refusal(self, r), true);
	return 0;
}

static PyObject *pool_submit(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
	struct pool_object *self = (struct pool_object *)object;
	struct task_object *result;
	struct encoder *encoder;
	PyObject *payload;
	bool named;
	int r;

	if (n != 4)
		return PyErr_Format(PyExc_TypeError,
				    "submit(owner, function, args, kwds) takes 4 arguments");
	if (self->dropped.count)
		dropped_look(self);
	named = args[3] != Py_None && !(PyDict_Check(args[3]) && PyDict_GET_SIZE(args[3]) == 0);
	result = task_make(self, args[0], args[1]);
	encoder = result ? encoder_take(self->state) : NULL;
	if (!encoder) {
		Py_XDECREF(result);
		return NULL;
	}
	payload = named ? PyTuple_Pack(2, args[2], args[3]) : Py_NewRef(args[2]);
	r = payload ? encode_request(self->state, encoder, args[1],
				     named ? REQUEST_ARGS_KWDS : REQUEST_ARGS, false,
				     payload) : -1;
	Py_XDECREF(payload);
	if (r < 0) {
		encoder_give(self->state, encoder);
		return fail_result(result);
	}
	r = submit_encoded(self, result, encoder->sink);
	encoder_give(self->state, encoder);
	if (r < 0)
		Py_CLEAR(result);
	return (PyObject *)result;
}

static PyObject *pool_stream(PyObject *object, PyObject *unused)
{
	(void)unused;
	return stream_make((struct pool_object *)object);
}

/* ---- seeing ---- */

static PyObject *pool_stat(PyObject *object, PyObject *unused)
{
	struct pool_object *self = (struct pool_object *)object;
	struct ac_pool_stat stat;
	int r = ac_pool_stat(self->pool, &stat, sizeof stat);

	(void)unused;
	if (r < 0)
		return raise_code(self->state, r);
	return Py_BuildValue("{sKsKsKsKsKsKsKsK}", "submitted", stat.submitted, "waiting",
			     stat.waiting, "running", stat.running, "done", stat.done,
			     "failed", stat.failed, "cancelled", stat.cancelled, "deaths",
			     stat.deaths, "bytes", stat.bytes);
}

static PyObject *pool_workers(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	struct ac_worker_stat *stats;
	PyObject *rows = NULL, *row;
	unsigned n;
	int r;

	if (!PyArg_ParseTuple(args, "I:workers", &n))
		return NULL;
	stats = PyMem_Calloc(n ? n : 1, sizeof *stats);
	if (!stats)
		return PyErr_NoMemory();
	r = ac_pool_workers(self->pool, stats, n);
	if (r < 0)
		raise_code(self->state, r);
	else
		rows = PyList_New(0);
	for (unsigned i = 0; rows && i < n && (int)i < r; i++) {
		row = Py_BuildValue("(iiKLN)", stats[i].state, (int)stats[i].pid,
				    (unsigned long long)stats[i].task,
				    (long long)stats[i].task_ns,
				    PyUnicode_DecodeUTF8(stats[i].text, (Py_ssize_t)strlen(stats[i].text),
							 "replace"));
		if (!row || PyList_Append(rows, row) < 0)
			Py_CLEAR(rows);
		Py_XDECREF(row);
	}
	PyMem_Free(stats);
	return rows;
}

/* ---- stopping ---- */

static PyObject *pool_shut(PyObject *object, PyObject *unused)
{
	struct pool_object *self = (struct pool_object *)object;
	int r = ac_pool_shut(self->pool);

	(void)unused;
	if (r < 0)
		return raise_code(self->state, r);
	Py_RETURN_NONE;
}

static PyObject *pool_terminate(PyObject *object, PyObject *unused)
{
	struct pool_object *self = (struct pool_object *)object;
	int r = ac_pool_terminate(self->pool);

	(void)unused;
	if (r < 0)
		return raise_code(self->state, r);
	dropped_look_at_all(self);
	Py_RETURN_NONE;
}

static PyObject *pool_join(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	PyObject *seconds = Py_None;
	struct patience patience;
	int64_t timeout;
	int r;

	if (!PyArg_ParseTuple(args, "|O:join", &seconds))
		return NULL;
	timeout = timeout_from(seconds);
	if (timeout == -2)
		return NULL;
	patience_begin(&patience, timeout);
	do {
		Py_BEGIN_ALLOW_THREADS
		r = ac_pool_join(self->pool, patience_slice(&patience));
		Py_END_ALLOW_THREADS
		r = patience_judge(&patience, r);
		if (r == -1)
			return NULL;
	} while (r == -EINTR);
	if (r < 0 && r != -ETIMEDOUT)
		return raise_code(self->state, r);
	dropped_look_at_all(self);
	return PyBool_FromLong(r == 0);
}

static PyObject *pool_dropped(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromSize_t(((struct pool_object *)object)->dropped.count);
}

static PyGetSetDef pool_figures[] = {
	{ "dropped", pool_dropped, NULL,
	  "Calls under way whose results were dropped.", NULL },
	{ 0 },
};

static PyMethodDef pool_methods[] = {
	{ "submit", (PyCFunction)(void (*)(void))pool_submit, METH_FASTCALL,
	  "submit(owner, function, args, kwds) -> Task\n\n"
	  "Hand in one call. owner is kept alive until the result is there." },
	{ "stream", pool_stream, METH_NOARGS, "stream() -> Stream" },
	{ "stat", pool_stat, METH_NOARGS, "Counts of tasks since the pool was opened." },
	{ "workers", pool_workers, METH_VARARGS,
	  "workers(n) -> list of (state, pid, number of its call, nanoseconds at it, what it "
	  "says)\n\nThe first n. States: 0 absent, 1 starting, 2 idle, 3 busy." },
	{ "shut", pool_shut, METH_NOARGS, "Take no more work." },
	{ "terminate", pool_terminate, METH_NOARGS, "Stop now; does not wait." },
	{ "join", pool_join, METH_VARARGS,
	  "join(timeout=None) -> bool\n\nWait until all work has ended, and, after shut "
	  "or terminate, the workers are gone. False: not within timeout seconds." },
	{ 0 },
};

PyType_Spec pool_spec = {
	.name = "allcores._core.Pool",
	.basicsize = sizeof(struct pool_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = (PyType_Slot[]){
		{ Py_tp_new, pool_new },
		{ Py_tp_dealloc, pool_dealloc },
		{ Py_tp_traverse, pool_traverse },
		{ Py_tp_methods, pool_methods },
		{ Py_tp_getset, pool_figures },
		{ 0 },
	},
};

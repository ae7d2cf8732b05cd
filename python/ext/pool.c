/* SPDX-License-Identifier: MIT */
/*
 * The type Pool: the engine's pool. A Python object (a subclass of WorkerProcesses) starts the
 * worker processes, or knows those that the engine forks. The methods of Pool convert arguments and call the engine; allcores/pool.py says
 * what a pool means to its users.
 */
#include "pool.h"

#include <errno.h>

#include "codec.h"
#include "errors.h"
#include "function.h"
#include "records.h"
#include "runtime.h"
#include "starter.h"
#include "stream.h"
#include "task.h"
#include "sliced_wait.h"

struct pool_object {
	PyObject_HEAD
	struct explainer explainer;	/* the engine's pool and its WorkerProcesses */
	struct dropped dropped;
	struct runtime runtime;		/* of a pool whose workers the template forks */
	PyTypeObject *result_type;	/* what submit returns: a subclass of Task */
};

/* ---- life ---- */

/* Who starts the workers: the Python object processes or, with a list of tags, the engine's
 * template. */
static int choose_starter(struct pool_object *self, struct ac_pool_opts *opts, PyObject *tags,
			  int eager)
{
	if (tags == Py_None) {
		opts->start = starter_start;
		opts->ended = starter_ended;
		opts->start_arg = &self->explainer;
		return 0;
	}
	if (runtime_init(&self->runtime, self->explainer.processes, tags, eager) < 0)
		return -1;
	opts->workers = (int)self->runtime.workers;
	opts->runtime = &self->runtime.functions;
	return 0;
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwds)
{
	static char *names[] = { "workers", "recycle", "processes", "result_type", "tags", "eager", NULL };
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .flags = AC_POOL_INTERRUPTIBLE | AC_POOL_GENTLE };
	PyObject *processes, *result_type, *tags;
	struct pool_object *self;
	struct explainer *explainer;
	int eager, r;

	if (!PyArg_ParseTupleAndKeywords(args, kwds, "iIOO!Op:Pool", names, &opts.workers,
					 &opts.recycle, &processes, &PyType_Type, &result_type, &tags,
					 &eager))
		return NULL;
	self = (struct pool_object *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	explainer = &self->explainer;
	explainer->state = state_of((PyObject *)self);
	explainer->processes = Py_NewRef(processes);
	self->dropped.explainer = explainer;
	self->result_type = (PyTypeObject *)Py_NewRef(result_type);
	if (!explainer->state) {
		Py_DECREF(self);
		return NULL;
	}
	if (!PyType_IsSubtype(self->result_type, explainer->state->task_type)) {
		PyErr_SetString(PyExc_TypeError, "result_type must be a subclass of Task");
		Py_DECREF(self);
		return NULL;
	}
	if (codec_prepare(explainer->state) < 0 || choose_starter(self, &opts, tags, eager) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	r = ac_pool_open(&explainer->pool, &opts);
	if (r < 0) {
		raise_code(explainer->state, r);
		Py_DECREF(self);
		return NULL;
	}
	return (PyObject *)self;
}

static int pool_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct pool_object *self = (struct pool_object *)object;

	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->explainer.processes);
	Py_VISIT(self->result_type);
	return dropped_traverse(&self->dropped, visit, arg);
}

/* No thread is in a method of the pool any more: such a thread would hold a reference. */
static void pool_dealloc(PyObject *object)
{
	struct pool_object *self = (struct pool_object *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	dropped_clear(&self->dropped);
	if (self->explainer.pool) {
		ac_pool_terminate(self->explainer.pool);
		Py_BEGIN_ALLOW_THREADS
		ac_pool_close(self->explainer.pool);
		Py_END_ALLOW_THREADS
	}
	runtime_clear(&self->runtime);
	Py_XDECREF(self->explainer.processes);
	Py_XDECREF(self->result_type);
	type->tp_free(object);
	Py_DECREF(type);
}

/* ---- submitting ---- */

/* The call could not be pickled. An Exception becomes its result; others (KeyboardInterrupt)
 * stay set for the caller. Takes over result. */
static PyObject *fail_result(struct task_object *result)
{
	if (!PyErr_ExceptionMatches(PyExc_Exception)) {
		Py_DECREF(result);
		return NULL;
	}
	task_set_result(result, take_exception(), true);
	return (PyObject *)result;
}

static int submit_encoded(struct pool_object *self, struct task_object *result,
			  const struct sink *sink)
{
	int r = ac_pool_submit(self->explainer.pool, &result->task, ANY_CALL, sink->data,
			       sink->len, NULL);

	if (r == 0)
		return 0;
	if (r == AC_ECLOSED || r == AC_EFORK) {
		raise_code(self->explainer.state, r);
		return -1;
	}
	task_set_result(result, outcome_refusal(&self->explainer, r), true);
	return 0;
}

static PyObject *pool_submit(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
	struct pool_object *self = (struct pool_object *)object;
	struct state *state = self->explainer.state;
	struct task_object *result;
	struct encoder *encoder;
	enum function_place place;
	PyObject *payload;
	bool has_kwds;
	int r;

	if (n != 4)
		return PyErr_Format(PyExc_TypeError,
				    "submit(owner, function, args, kwds) takes 4 arguments");
	if (self->dropped.count)
		dropped_check_two(&self->dropped);
	has_kwds = !PyDict_CheckExact(args[3]) || PyDict_GET_SIZE(args[3]);
	place = has_name(state, args[1]) ? FUNCTION_NAMED : FUNCTION_IN_PAYLOAD;
	result = task_make(self->result_type, object, &self->dropped, args[0], args[1]);
	encoder = result ? encoder_take(state) : NULL;
	if (!encoder) {
		Py_XDECREF(result);
		return NULL;
	}
	payload = has_kwds ? PyTuple_Pack(2, args[2], args[3]) : Py_NewRef(args[2]);
	r = payload ? encode_request(encoder, args[1], place,
				     has_kwds ? REQUEST_ARGS_KWDS : REQUEST_ARGS, false,
				     payload) : -1;
	Py_XDECREF(payload);
	if (r < 0) {
		encoder_give(state, encoder);
		return fail_result(result);
	}
	r = submit_encoded(self, result, encoder->sink);
	encoder_give(state, encoder);
	if (r < 0)
		Py_CLEAR(result);
	return (PyObject *)result;
}

static PyObject *pool_stream(PyObject *object, PyObject *unused)
{
	(void)unused;
	return stream_make(object, &((struct pool_object *)object)->explainer);
}

static PyObject *pool_function(PyObject *object, PyObject *callable)
{
	struct explainer *explainer = &((struct pool_object *)object)->explainer;

	return function_make(explainer->state, object, explainer->pool, callable);
}

/* ---- figures ---- */

static PyObject *pool_stat(PyObject *object, PyObject *unused)
{
	struct pool_object *self = (struct pool_object *)object;
	struct ac_pool_stat stat;
	int r = ac_pool_stat(self->explainer.pool, &stat, sizeof stat);

	(void)unused;
	if (r < 0)
		return raise_code(self->explainer.state, r);
	return Py_BuildValue("{sKsKsKsKsKsKsKsKsK}", "submitted", stat.submitted, "waiting",
			     stat.waiting, "running", stat.running, "done", stat.done,
			     "failed", stat.failed, "cancelled", stat.cancelled, "deaths",
			     stat.deaths, "bytes", stat.bytes, "template_threads",
			     stat.template_threads);
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
	r = ac_pool_workers(self->explainer.pool, stats, n);
	if (r < 0)
		raise_code(self->explainer.state, r);
	else
		rows = PyList_New(0);
	for (unsigned i = 0; rows && i < n && (int)i < r; i++) {
		row = record_of_worker_stat(self->explainer.state, &stats[i]);
		if (!row || PyList_Append(rows, row) < 0)
			Py_CLEAR(rows);
		Py_XDECREF(row);
	}
	PyMem_Free(stats);
	return rows;
}

/* ---- the processes of forked workers ---- */

static PyObject *pool_worker_pid(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	unsigned long long tag;
	unsigned worker;
	pid_t pid;

	if (!PyArg_ParseTuple(args, "IK:worker_pid", &worker, &tag))
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS
		pid = ac_pool_worker_pid(self->explainer.pool, worker, tag);
		Py_END_ALLOW_THREADS
		if (pid == -EINTR && PyErr_CheckSignals() < 0)
			return NULL;
	} while (pid == -EINTR);
	if (pid == -ESRCH)
		Py_RETURN_NONE;
	return pid < 0 ? raise_code(self->explainer.state, pid) : PyLong_FromLong(pid);
}

static PyObject *pool_worker_join(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	PyObject *seconds = Py_None;
	struct ac_outcome outcome;
	struct sliced_wait wait;
	unsigned long long tag;
	unsigned worker;
	int64_t timeout;
	int r;

	if (!PyArg_ParseTuple(args, "IK|O:worker_join", &worker, &tag, &seconds))
		return NULL;
	timeout = timeout_from(seconds);
	if (timeout == -2)
		return NULL;
	sliced_wait_begin(&wait, timeout);
	do {
		Py_BEGIN_ALLOW_THREADS
		r = ac_pool_worker_join(self->explainer.pool, worker, tag,
					sliced_wait_next(&wait), &outcome);
		Py_END_ALLOW_THREADS
		r = sliced_wait_check(&wait, r);
		if (r == -1)
			return NULL;
	} while (r == -EINTR);
	if (r == -ETIMEDOUT)
		Py_RETURN_NONE;
	if (r < 0 && r != -ESRCH)
		return raise_code(self->explainer.state, r);
	if (r == -ESRCH)
		outcome = (struct ac_outcome){ .exit_code = -1 };
	return record_of_outcome(self->explainer.state, &outcome);
}

static PyObject *pool_worker_kill(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	unsigned long long tag;
	unsigned worker;
	int signal, r;

	if (!PyArg_ParseTuple(args, "IKi:worker_kill", &worker, &tag, &signal))
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS
		r = ac_pool_worker_kill(self->explainer.pool, worker, tag, signal);
		Py_END_ALLOW_THREADS
		if (r == -EINTR && PyErr_CheckSignals() < 0)
			return NULL;
	} while (r == -EINTR);
	if (r < 0 && r != -ESRCH)
		return raise_code(self->explainer.state, r);
	return PyBool_FromLong(r == 0);
}

static PyObject *pool_worker_fd(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	unsigned long long tag;
	unsigned worker;
	int r;

	if (!PyArg_ParseTuple(args, "IK:worker_fd", &worker, &tag))
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS
		r = ac_pool_worker_fd(self->explainer.pool, worker, tag);
		Py_END_ALLOW_THREADS
		if (r == -EINTR && PyErr_CheckSignals() < 0)
			return NULL;
	} while (r == -EINTR);
	return r < 0 ? raise_code(self->explainer.state, r) : PyLong_FromLong(r);
}

/* ---- stopping ---- */

static PyObject *pool_shut(PyObject *object, PyObject *unused)
{
	struct pool_object *self = (struct pool_object *)object;
	int r = ac_pool_shut(self->explainer.pool);

	(void)unused;
	if (r < 0)
		return raise_code(self->explainer.state, r);
	Py_RETURN_NONE;
}

static PyObject *pool_terminate(PyObject *object, PyObject *unused)
{
	struct pool_object *self = (struct pool_object *)object;
	int r = ac_pool_terminate(self->explainer.pool);

	(void)unused;
	if (r < 0)
		return raise_code(self->explainer.state, r);
	dropped_check_all(&self->dropped);
	Py_RETURN_NONE;
}

static PyObject *pool_join(PyObject *object, PyObject *args)
{
	struct pool_object *self = (struct pool_object *)object;
	PyObject *seconds = Py_None;
	struct sliced_wait wait;
	int64_t timeout;
	int r;

	if (!PyArg_ParseTuple(args, "|O:join", &seconds))
		return NULL;
	timeout = timeout_from(seconds);
	if (timeout == -2)
		return NULL;
	sliced_wait_begin(&wait, timeout);
	do {
		Py_BEGIN_ALLOW_THREADS
		r = ac_pool_join(self->explainer.pool, sliced_wait_next(&wait));
		Py_END_ALLOW_THREADS
		r = sliced_wait_check(&wait, r);
		if (r == -1)
			return NULL;
	} while (r == -EINTR);
	if (r < 0 && r != -ETIMEDOUT)
		return raise_code(self->explainer.state, r);
	dropped_check_all(&self->dropped);
	return PyBool_FromLong(r == 0);
}

static PyObject *pool_dropped(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromSize_t(((struct pool_object *)object)->dropped.count);
}

static PyGetSetDef pool_figures[] = {
	{ "dropped", pool_dropped, NULL,
	  "Calls whose results were dropped and that were not seen to have ended.", NULL },
	{ 0 },
};

static PyMethodDef pool_methods[] = {
	{ "submit", (PyCFunction)(void (*)(void))pool_submit, METH_FASTCALL,
	  "submit(owner, function, args, kwds) -> Task\n\n"
	  "Submit one call. owner is kept alive until the result is there." },
	{ "stream", pool_stream, METH_NOARGS, "stream() -> Stream" },
	{ "function", pool_function, METH_O,
	  "function(callable) -> Function\n\nWhat Stream.feed calls: pickled once for all calls." },
	{ "stat", pool_stat, METH_NOARGS, "Counts of tasks since the pool was opened." },
	{ "workers", pool_workers, METH_VARARGS,
	  "workers(n) -> list of WorkerStat\n\nWhat each of the first n workers is doing." },
	{ "worker_pid", pool_worker_pid, METH_VARARGS,
	  "worker_pid(worker, tag) -> int | None\n\nThe pid of a forked worker's process, once it "
	  "has been forked. None: it never was." },
	{ "worker_join", pool_worker_join, METH_VARARGS,
	  "worker_join(worker, tag, timeout=None) -> Outcome | None\n\nWait for "
	  "the end of a forked worker's process. Signal 0 and exit code -1: how it ended is not known. "
	  "None: not within timeout seconds." },
	{ "worker_kill", pool_worker_kill, METH_VARARGS,
	  "worker_kill(worker, tag, signal) -> bool\n\nFalse: it has ended." },
	{ "worker_fd", pool_worker_fd, METH_VARARGS,
	  "worker_fd(worker, tag) -> int\n\nA descriptor that is readable once it has ended." },
	{ "shut", pool_shut, METH_NOARGS, "Accept no more calls." },
	{ "terminate", pool_terminate, METH_NOARGS,
	  "Cancel all calls and kill the workers; does not wait." },
	{ "join", pool_join, METH_VARARGS,
	  "join(timeout=None) -> bool\n\nWait until all calls have ended, and, after shut "
	  "or terminate, all workers have exited. False: not within timeout seconds." },
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

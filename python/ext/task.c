/* SPDX-License-Identifier: MIT */
/*
 * One call. Its result is decoded in the thread that asks for it first. Subclasses in Python
 * (results that have callbacks, results of maps) have no task here and bring methods of
 * their own.
 */
#include "task.h"

#include <errno.h>
#include <structmember.h>
#include <unistd.h>

#include "errors.h"
#include "sliced_wait.h"

/* ---- life ---- */

struct task_object *task_make(PyTypeObject *type, PyObject *pool, struct dropped *dropped,
			      PyObject *owner, PyObject *function)
{
	struct task_object *self = (struct task_object *)type->tp_alloc(type, 0);

	if (!self)
		return NULL;
	self->state = dropped->explainer->state;
	self->pool = Py_NewRef(pool);
	self->dropped = dropped;
	self->owner = Py_NewRef(owner);
	self->function = Py_NewRef(function);
	return self;
}

static int task_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct task_object *self = (struct task_object *)object;

	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->pool);
	Py_VISIT(self->owner);
	Py_VISIT(self->function);
	Py_VISIT(self->value);
	Py_VISIT(self->unfetched);
	return 0;
}

static int task_clear(PyObject *object)
{
	struct task_object *self = (struct task_object *)object;

	/* Before its pool: this may be the last reference, with which the pool is closed. */
	ac_task_free(self->task);
	self->task = NULL;
	self->dropped = NULL;
	Py_CLEAR(self->pool);
	Py_CLEAR(self->owner);
	Py_CLEAR(self->function);
	Py_CLEAR(self->value);
	Py_CLEAR(self->unfetched);
	return 0;
}

/* In a forked child the failure is its parent's to report. */
static void report_if_ours(PyObject *object, PyObject *unfetched)
{
	PyObject *pid = PyTuple_GET_ITEM(unfetched, 0);

	if (PyLong_AsLong(pid) == getpid())
		report_unfetched(state_of(object), PyTuple_GET_ITEM(unfetched, 1),
				 PyTuple_GET_ITEM(unfetched, 2));
}

/* The user dropped the result. This is C, since a signal handler that raises an exception
 * could cut a Python __del__ short. */
static void task_finalize(PyObject *object)
{
	struct task_object *self = (struct task_object *)object;
	struct ac_task *task = self->task;

	if (self->unfetched && PyTuple_Check(self->unfetched)) {
		report_if_ours(object, self->unfetched);
	} else if (task && !self->has_result) {
		self->task = NULL;
		dropped_add(self->dropped, task, self->function);
	}
}

static void task_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	task_clear(object);
	type->tp_free(object);
	Py_DECREF(type);
}

/* ---- the result ---- */

/* Where there is no memory for the note, the failure is not reported. */
static void note_unfetched(struct task_object *self)
{
	self->unfetched = Py_BuildValue("(iOO)", (int)getpid(), self->value,
					self->function ? self->function : Py_None);
	if (!self->unfetched)
		PyErr_Clear();
}

void task_set_result(struct task_object *self, PyObject *value, bool failed)
{
	if (!value) {
		value = take_exception();
		failed = true;
	}
	if (self->has_result) {
		Py_XDECREF(value);
		return;
	}
	self->value = value;
	self->failed = failed;
	self->has_result = true;
	if (failed)
		note_unfetched(self);
	if (!self->users) {
		ac_task_free(self->task);
		self->task = NULL;
	}
	Py_CLEAR(self->owner);
	Py_CLEAR(self->function);
}

/* The task has ended. Decoding runs the user's code without a lock: another thread may set
 * the result meanwhile. */
static void decode(struct task_object *self)
{
	struct response head;
	PyObject *value;

	self->users++;
	value = outcome_value(self->dropped->explainer, self->task, self->function, &head);
	self->users--;
	task_set_result(self, value, head.failed);
}

/* 0: the task has ended; -EINTR: wait for it. ac_task_ready may start workers, which runs
 * Python code, so another thread may have set the result when this returns. */
static int poll_task(struct task_object *self)
{
	int r;

	self->users++;
	r = ac_task_ready(self->task) == 1 ? 0 : -EINTR;
	self->users--;
	return r;
}

/* Wait until the result is here: 1, 0 after the timeout, -1 with an exception set. */
static int await_result(struct task_object *self, int64_t timeout)
{
	struct sliced_wait wait;
	int r;

	if (self->has_result)
		return 1;
	if (!self->task) {
		PyErr_SetString(PyExc_RuntimeError, "this result belongs to no task");
		return -1;
	}
	r = poll_task(self);
	if (self->has_result)
		return 1;
	if (r == -EINTR)
		sliced_wait_begin(&wait, timeout);
	while (r == -EINTR) {
		self->users++;
		Py_BEGIN_ALLOW_THREADS
		r = ac_task_wait(self->task, sliced_wait_next(&wait));
		Py_END_ALLOW_THREADS
		self->users--;
		if (self->has_result)
			return 1;
		r = sliced_wait_check(&wait, r);
		if (r == -1)
			return -1;
	}
	if (r == -ETIMEDOUT)
		return 0;
	if (r < 0) {
		raise_code(self->state, r);
		return -1;
	}
	decode(self);
	return 1;
}

/* ---- methods ---- */

static int parse_timeout(PyObject *args, PyObject *kwds, const char *format, int64_t *timeout)
{
	static char *names[] = { "timeout", NULL };
	PyObject *seconds = Py_None;

	if (!PyArg_ParseTupleAndKeywords(args, kwds, format, names, &seconds))
		return -1;
	*timeout = timeout_from(seconds);
	return *timeout == -2 ? -1 : 0;
}

static PyObject *task_get(PyObject *object, PyObject *args, PyObject *kwds)
{
	struct task_object *self = (struct task_object *)object;
	int64_t timeout;
	int r;

	if (parse_timeout(args, kwds, "|O:get", &timeout) < 0)
		return NULL;
	r = await_result(self, timeout);
	if (r < 0)
		return NULL;
	if (r == 0) {
		PyErr_SetNone(self->state->timeout_error);
		return NULL;
	}
	if (!self->failed)
		return Py_NewRef(self->value);
	Py_CLEAR(self->unfetched);
	PyErr_SetObject((PyObject *)Py_TYPE(self->value), self->value);
	return NULL;
}

static PyObject *task_wait(PyObject *object, PyObject *args, PyObject *kwds)
{
	int64_t timeout;

	if (parse_timeout(args, kwds, "|O:wait", &timeout) < 0 ||
	    await_result((struct task_object *)object, timeout) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *task_ready(PyObject *object, PyObject *unused)
{
	int r = await_result((struct task_object *)object, 0);

	(void)unused;
	return r < 0 ? NULL : PyBool_FromLong(r);
}

static PyObject *task_successful(PyObject *object, PyObject *unused)
{
	struct task_object *self = (struct task_object *)object;
	int r = await_result(self, 0);

	(void)unused;
	if (r < 0)
		return NULL;
	if (r == 0)
		return PyErr_Format(PyExc_ValueError, "%R not ready", object);
	Py_CLEAR(self->unfetched);
	return PyBool_FromLong(!self->failed);
}

static PyMemberDef task_members[] = {
	{ "_unfetched", T_OBJECT, offsetof(struct task_object, unfetched), 0,
	  "(pid, exception, function) to be logged when this result is dropped, or None." },
	{ 0 },
};

static PyMethodDef task_methods[] = {
	{ "get", (PyCFunction)(void (*)(void))task_get, METH_VARARGS | METH_KEYWORDS,
	  "get($self, timeout=None)\n--\n\n"
	  "Wait for the end of the work, and return its value.\n\n"
	  "timeout: for how many seconds to wait, at most; None: as long as it takes.\n\n"
	  "Raises:\n"
	  "    What the function raised; WorkerDied and the others that allcores.pool.Pool lists.\n"
	  "    TimeoutError (multiprocessing's): the work has not ended within timeout seconds. It\n"
	  "        goes on, and get may be called again.\n"
	  "    ValueError: timeout is NaN.\n"
	  "    RuntimeError: this process is a forked child of the pool's, and the result was not\n"
	  "        ready at the fork." },
	{ "wait", (PyCFunction)(void (*)(void))task_wait, METH_VARARGS | METH_KEYWORDS,
	  "wait($self, timeout=None)\n--\n\n"
	  "Wait until the work has ended. Whether it has, ready() says.\n\n"
	  "timeout: for how many seconds to wait, at most; None: as long as it takes.\n\n"
	  "Raises:\n"
	  "    ValueError: timeout is NaN.\n"
	  "    RuntimeError: as get." },
	{ "ready", task_ready, METH_NOARGS,
	  "ready($self)\n--\n\nReturn whether the work has ended, and its callback has returned." },
	{ "successful", task_successful, METH_NOARGS,
	  "successful($self)\n--\n\n"
	  "Return whether the work ended without an exception.\n\n"
	  "Raises:\n"
	  "    ValueError: it has not ended." },
	{ 0 },
};

PyType_Spec task_spec = {
	.name = "allcores._core.Task",
	.basicsize = sizeof(struct task_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = (PyType_Slot[]){
		{ Py_tp_new, PyType_GenericNew },
		{ Py_tp_finalize, task_finalize },
		{ Py_tp_dealloc, task_dealloc },
		{ Py_tp_traverse, task_traverse },
		{ Py_tp_clear, task_clear },
		{ Py_tp_methods, task_methods },
		{ Py_tp_members, task_members },
		{ 0 },
	},
};

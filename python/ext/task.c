/* SPDX-License-Identifier: MIT */
/*
 * One call: waited for, decoded where it is asked for. Subclasses in Python (results that
 * have callbacks, results of maps) have no task here and bring methods of their own.
 */
#include "task.h"

#include <errno.h>
#include <structmember.h>
#include <unistd.h>

#include "codec.h"

/* ---- life ---- */

struct task_object *task_make(struct pool_object *pool, PyObject *owner,
			      PyObject *function)
{
	PyTypeObject *type = (PyTypeObject *)pool->result_type;
	struct task_object *self = (struct task_object *)type->tp_alloc(type, 0);

	if (!self)
		return NULL;
	self->state = pool->state;
	self->pool = (struct pool_object *)Py_NewRef(pool);
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

	/* Before its pool, which may be closed with this. */
	ac_task_free(self->task);
	self->task = NULL;
	Py_CLEAR(self->pool);
	Py_CLEAR(self->owner);
	Py_CLEAR(self->function);
	Py_CLEAR(self->value);
	Py_CLEAR(self->unfetched);
	return 0;
}

/* In a forked child it is its parent's to tell. */
static void tell_unfetched(PyObject *object, PyObject *unfetched)
{
	PyObject *pid = PyTuple_GET_ITEM(unfetched, 0);

	if (PyLong_AsLong(pid) == getpid())
		report_unfetched(state_of(object), PyTuple_GET_ITEM(unfetched, 1),
				 PyTuple_GET_ITEM(unfetched, 2));
}

/* Nobody will ask for it any more. In C, since a signal handler that raises would cut short a
 * __del__ of Python's. */
static void task_finalize(PyObject *object)
{
	struct task_object *self = (struct task_object *)object;
	struct ac_task *task = self->task;

	if (self->unfetched && PyTuple_Check(self->unfetched)) {
		tell_unfetched(object, self->unfetched);
	} else if (task && !self->settled) {
		self->task = NULL;
		dropped_add(self->pool, task, self->function);
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

/* ---- settling ---- */

/* Without memory for it nobody will hear of it. */
static void note_unfetched(struct task_object *self)
{
	self->unfetched = Py_BuildValue("(iOO)", (int)getpid(), self->value,
					self->function ? self->function : Py_None);
	if (!self->unfetched)
		PyErr_Clear();
}

void task_settle(struct task_object *self, PyObject *value, bool failed)
{
	if (!value) {
		value = take_exception();
		failed = true;
	}
	if (self->settled) {
		Py_XDECREF(value);
		return;
	}
	self->value = value;
	self->failed = failed;
	self->settled = true;
	if (failed)
		note_unfetched(self);
	if (!self->waiting) {
		ac_task_free(self->task);
		self->task = NULL;
	}
	Py_CLEAR(self->owner);
	Py_CLEAR(self->function);
}

/* Its task has ended. Decoding runs the user's code: another thread may be faster. */
static void decode(struct task_object *self)
{
	int64_t elapsed;
	PyObject *value;
	bool failed;

	self->waiting++;
	value = value_of(self->pool, self->task, self->function, &failed, &elapsed);
	self->waiting--;
	task_settle(self, value, failed);
}

/* 0, or -EINTR: it has to be waited for. A look may start workers, which runs Python code, and
 * other threads meanwhile. */
static int look(struct task_object *self)
{
	int r;

	self->waiting++;
	r = ac_task_ready(self->task) == 1 ? 0 : -EINTR;
	self->waiting--;
	return r;
}

/* Wait until it is settled: 1, 0 when the time is over, -1 with an exception set. */
static int await_settled(struct task_object *self, int64_t timeout)
{
	struct patience patience;
	int r;

	if (self->settled)
		return 1;
	if (!self->task) {
		PyErr_SetString(PyExc_RuntimeError, "this result belongs to no task");
		return -1;
	}
	r = look(self);
	if (self->settled)
		return 1;
	if (r == -EINTR)
		patience_begin(&patience, timeout);
	while (r == -EINTR) {
		self->waiting++;
		Py_BEGIN_ALLOW_THREADS
		r = ac_task_wait(self->task, patience_slice(&patience));
		Py_END_ALLOW_THREADS
		self->waiting--;
		if (self->settled)
			return 1;
		r = patience_judge(&patience, r);
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
	r = await_settled(self, timeout);
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
	    await_settled((struct task_object *)object, timeout) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *task_ready(PyObject *object, PyObject *unused)
{
	int r = await_settled((struct task_object *)object, 0);

	(void)unused;
	return r < 0 ? NULL : PyBool_FromLong(r);
}

static PyObject *task_successful(PyObject *object, PyObject *unused)
{
	struct task_object *self = (struct task_object *)object;
	int r = await_settled(self, 0);

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
	  "What is to be told when it is collected: (pid, exception, function), or None." },
	{ 0 },
};

static PyMethodDef task_methods[] = {
	{ "get", (PyCFunction)(void (*)(void))task_get, METH_VARARGS | METH_KEYWORDS,
	  "get(timeout=None)\n\nThe value, or the exception, raised. TimeoutError after "
	  "timeout seconds." },
	{ "wait", (PyCFunction)(void (*)(void))task_wait, METH_VARARGS | METH_KEYWORDS,
	  "wait(timeout=None)\n\nWait until it is ready, at most timeout seconds." },
	{ "ready", task_ready, METH_NOARGS, "Whether the call has ended." },
	{ "successful", task_successful, METH_NOARGS,
	  "Whether the call ended without an exception. ValueError before it has ended." },
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

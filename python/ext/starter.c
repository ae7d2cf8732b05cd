/* SPDX-License-Identifier: MIT */
/*
 * Starting workers: see starter.h.
 *
 * A signal handler may raise an exception out of any line of the crew. That must not cost
 * the pool a worker, so the crew is asked again, and the exception is raised later. The crew
 * in turn makes signal handlers wait while it forks (allcores/signals.py); their signals are
 * delivered when the start is over.
 */
#include "starter.h"

#include <errno.h>
#include <unistd.h>

#include "errors.h"
#include "waiting.h"

/* After 8 attempts the exception does not come from a signal handler: raise it. */
#define ATTEMPTS_MOST 8

/*
 * A pending call's argument is a pair: the pid of the process that added it, and what to
 * call or raise. A child that is forked before the call inherits it and must ignore it.
 */
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

/* Takes over object. Without memory for it, or with too many pending calls, it is lost. */
static void add_pending(int (*act)(void *), PyObject *object)
{
	PyObject *pair = Py_BuildValue("(iN)", (int)getpid(), object);

	if (!pair)
		PyErr_Clear();
	else if (Py_AddPendingCall(act, pair) < 0)
		Py_DECREF(pair);
}

/* One pending call for each signal that arrived while the crew made the handlers wait. */
static void deliver_signals(PyObject *crew)
{
	PyObject *signals = PyObject_GetAttrString(crew, "postponed");
	PyObject *deliver = signals ? PyObject_GetAttrString(crew, "deliver") : NULL;

	for (Py_ssize_t i = 0; deliver && i < PyList_GET_SIZE(signals); i++)
		add_pending(call_function, Py_NewRef(deliver));
	Py_XDECREF(deliver);
	Py_XDECREF(signals);
}

/* Whether a signal handler may have raised the exception that is set. */
static bool may_be_handlers(void)
{
	return runs_handlers() && !PyErr_ExceptionMatches(PyExc_MemoryError);
}

/* Ask until the crew answers. The crew knows a repeated request by its number, and does not
 * start a second process for it. */
static PyObject *ask_crew(PyObject *crew, unsigned worker, int fd)
{
	static unsigned long requests; /* under the GIL */
	unsigned long request = ++requests;
	PyObject *errors[ATTEMPTS_MOST], *pid;
	unsigned n = 0;

	while (!(pid = PyObject_CallMethod(crew, "start", "Iik", worker, fd, request)) &&
	       n < ATTEMPTS_MOST && may_be_handlers())
		errors[n++] = take_exception();
	while (n)
		add_pending(raise_exception, errors[--n]);
	return pid;
}

/* The engine calls this without its lock, from any thread of this process. */
pid_t starter_start(void *arg, unsigned worker, int fd)
{
	PyObject *crew = arg, *pid;
	PyGILState_STATE gil = PyGILState_Ensure();
	pid_t result = -EAGAIN;
	PyObject *type, *value, *traceback;

	/* The calling thread may have an exception set. */
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
	deliver_signals(crew);
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(gil);
	return result;
}

/* SPDX-License-Identifier: MIT */
/*
 * Python code without signal handlers: see undisturbed.h.
 *
 * Python runs signal handlers in the main thread alone, between any two steps of whatever code runs
 * there, and what a handler raises ends that code. A signal that arrives while the main
 * thread waits for another one is handled when the wait is over. The handlers stay as the
 * program has set them.
 */
#include "undisturbed.h"

#include <pthread.h>
#include <signal.h>

#include "errors.h"
#include "sliced_wait.h"

/* What is to be called, and with what. */
struct c_call {
	void (*function)(void *arg);
	void *arg;
};

/* ref: a weak reference to a lock of importlib's. */
static bool holds_lock(PyObject *ref)
{
	PyObject *lock = PyObject_CallNoArgs(ref);
	PyObject *owner = lock && lock != Py_None ? PyObject_GetAttrString(lock, "owner") : NULL;
	bool holds = owner && PyLong_Check(owner) &&
		     PyLong_AsUnsignedLong(owner) == PyThread_get_thread_ident();

	Py_XDECREF(owner);
	Py_XDECREF(lock);
	PyErr_Clear();
	return holds;
}

/* Whether this thread is in the midst of an import. Another thread that pickles a function of that
 * module would wait for the import's end. */
static bool is_importing(void)
{
	PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
	PyObject *importlib = PyMapping_GetItemString(modules, "_frozen_importlib");
	PyObject *locks = importlib ? PyObject_GetAttrString(importlib, "_module_locks") : NULL;
	PyObject *refs = locks ? PyMapping_Values(locks) : NULL;
	bool holds = false;

	for (Py_ssize_t i = 0; refs && !holds && i < PyList_GET_SIZE(refs); i++)
		holds = holds_lock(PyList_GET_ITEM(refs, i));
	Py_XDECREF(refs);
	Py_XDECREF(locks);
	Py_XDECREF(importlib);
	PyErr_Clear();
	return holds;
}

static void call_here(const struct c_call *call)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *type, *value, *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	call->function(call->arg);
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(gil);
}

static void *run_thread(void *call)
{
	call_here(call);
	return NULL;
}

static int call_in_thread(struct c_call *call)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, run_thread, call);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		pthread_join(thread, NULL);
	return -r;
}

static bool must_call_here(void)
{
	PyObject *type, *value, *traceback;
	PyGILState_STATE gil;
	bool must;

	if (!runs_handlers())
		return true;
	gil = PyGILState_Ensure();
	PyErr_Fetch(&type, &value, &traceback);
	must = is_importing();
	PyErr_Restore(type, value, traceback);
	PyGILState_Release(gil);
	return must;
}

int run_undisturbed(void (*function)(void *arg), void *arg)
{
	struct c_call call = { function, arg };
	PyGILState_STATE gil;
	int r;

	if (must_call_here()) {
		call_here(&call);
		return 0;
	}
	gil = PyGILState_Ensure(); /* so that there is one to release */
	Py_BEGIN_ALLOW_THREADS
	r = call_in_thread(&call);
	Py_END_ALLOW_THREADS
	PyGILState_Release(gil);
	return r;
}

/* ---- from Python ---- */

/* The same for a Python function, with its result. */
struct python_call {
	PyObject *function, *value, *error;
};

static void call_function(void *arg)
{
	struct python_call *call = arg;

	call->value = PyObject_CallNoArgs(call->function);
	if (!call->value)
		call->error = take_exception();
}

PyObject *undisturbed(PyObject *module, PyObject *function)
{
	struct python_call call = { .function = function };

	(void)module;
	if (run_undisturbed(call_function, &call) < 0) {
		PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
		return NULL;
	}
	if (call.error) {
		PyErr_SetObject((PyObject *)Py_TYPE(call.error), call.error);
		Py_DECREF(call.error);
	}
	return call.value;
}

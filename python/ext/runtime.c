/* SPDX-License-Identifier: MIT */
/*
 * Python as a runtime of the engine's: see runtime.h.
 *
 * The template is forked between PyOS_BeforeFork and PyOS_AfterFork_Parent, with the GIL and the
 * import lock held, and runs no Python. Each worker is forked from it in that same state, and
 * calls PyOS_AfterFork_Child: to the interpreter there was one fork, that of the owner.
 */
#include "runtime.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "errors.h"
#include "starter.h"
#include "undisturbed.h"
#include "worker.h"

/* ---- in the owner ---- */

static void before_fork(void *arg)
{
	struct runtime *self = arg;

	pthread_sigmask(SIG_SETMASK, NULL, &self->mask);
	PyOS_BeforeFork();
}

static void after_fork(void *arg, int result)
{
	(void)arg, (void)result;
	PyOS_AfterFork_Parent();
}

struct start {
	PyObject *processes;
	unsigned worker;
	uint64_t tag;
	int error;
};

static void ask_for_process(void *arg)
{
	struct start *start = arg;
	PyObject *tag = PyObject_CallMethod(start->processes, "make_replacement", "I", start->worker);

	if (tag)
		start->tag = PyLong_AsUnsignedLongLong(tag);
	Py_XDECREF(tag);
	if (PyErr_Occurred())
		starter_note_failure(start->processes);
	else
		start->error = 0;
}

static int starting(void *arg, unsigned worker, uint64_t *tag)
{
	struct runtime *self = arg;
	struct start start = { .processes = self->processes, .worker = worker, .error = -EAGAIN };
	int r;

	/* One thread at a time starts a process for this worker. */
	if (self->first_tags[worker]) {
		*tag = self->first_tags[worker];
		self->first_tags[worker] = 0;
		return 0;
	}
	r = run_undisturbed(ask_for_process, &start);
	*tag = start.tag;
	return r < 0 ? r : start.error;
}

/* ---- in the worker ---- */

/* False: the worker is to exit, and has never run any Python. */
static bool sleep_until_work(const struct runtime *self, struct ac_worker *worker)
{
	sigset_t mask = self->mask;
	int r;

	/* A Ctrl-C waits until a handler for it stands. */
	sigaddset(&mask, SIGINT);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	ac_worker_ready(worker, 0, NULL);
	do
		r = ac_worker_wait(worker);
	while (r == -EINTR);
	return r != 0;
}

/* The mask is restored in Python, once the worker's signal handlers are set. */
static void run(void *arg, struct ac_worker *worker, unsigned number, uint64_t tag)
{
	struct runtime *self = arg;
	PyObject *code;
	long value = 1;

	if (!self->eager && !sleep_until_work(self, worker))
		_exit(0);
	PyOS_AfterFork_Child();
	worker_set_forked(worker);
	code = PyObject_CallMethod(self->processes, "run_worker", "IK", number, (unsigned long long)tag);
	if (code)
		value = PyLong_AsLong(code);
	if (PyErr_Occurred())
		PyErr_Print();
	_exit((int)value);
}

/* ---- life ---- */

static int read_tags(struct runtime *self, PyObject *tags)
{
	if (!PyList_Check(tags)) {
		PyErr_SetString(PyExc_TypeError, "tags must be a list");
		return -1;
	}
	self->workers = (unsigned)PyList_GET_SIZE(tags);
	self->first_tags = PyMem_Calloc(self->workers ? self->workers : 1, sizeof(uint64_t));
	if (!self->first_tags) {
		PyErr_NoMemory();
		return -1;
	}
	for (unsigned i = 0; i < self->workers; i++)
		self->first_tags[i] = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(tags, i));
	return PyErr_Occurred() ? -1 : 0;
}

int runtime_init(struct runtime *self, PyObject *processes, PyObject *tags, bool eager)
{
	self->processes = processes;
	self->eager = eager;
	self->functions = (struct ac_runtime){ .size = sizeof self->functions,
					       .arg = self,
					       .before_fork = before_fork,
					       .after_fork = after_fork,
					       .starting = starting,
					       .run = run,
					       .flags = eager ? AC_RUNTIME_EAGER : 0 };
	return read_tags(self, tags);
}

void runtime_clear(struct runtime *self)
{
	PyMem_Free(self->first_tags);
	self->first_tags = NULL;
}

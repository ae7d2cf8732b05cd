/* SPDX-License-Identifier: MIT */
/* Starting workers by a crew: see starter.h. */
#include "starter.h"

#include <errno.h>

#include "errors.h"
#include "undisturbed.h"

struct start {
	PyObject *crew;
	unsigned worker;
	int fd;
	pid_t pid;
};

void starter_note_failure(PyObject *crew)
{
	PyObject *error = take_exception();

	if (PyObject_SetAttrString(crew, "failure", error) < 0)
		PyErr_Clear();
	Py_DECREF(error);
}

static void ask_crew(void *arg)
{
	struct start *start = arg;
	PyObject *pid = PyObject_CallMethod(start->crew, "start", "Ii", start->worker, start->fd);

	if (pid)
		start->pid = (pid_t)PyLong_AsLong(pid);
	Py_XDECREF(pid);
	if (!PyErr_Occurred())
		return;
	start->pid = -EAGAIN;
	starter_note_failure(start->crew);
}

/* The engine calls this without its lock, from any thread of this process. An exception of a signal
 * handler in the crew's code would lose the process that it has just started. */
pid_t starter_start(void *crew, unsigned worker, int fd)
{
	struct start start = { .crew = crew, .worker = worker, .fd = fd, .pid = -EAGAIN };
	int r = run_undisturbed(ask_crew, &start);

	return r < 0 ? r : start.pid;
}

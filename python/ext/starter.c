/* SPDX-License-Identifier: MIT */
/* Starting workers by a crew: see starter.h. */
#include "starter.h"

#include <errno.h>
#include <stdio.h>

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

struct end {
	PyObject *crew;
	unsigned worker;
	struct ac_outcome *outcome;
	int counts;
};

static void ask_crew_how(void *arg)
{
	struct end *end = arg;
	struct ac_outcome *outcome = end->outcome;
	PyObject *how = PyObject_CallMethod(end->crew, "ended", "Iiii", end->worker,
					    (int)outcome->pid, outcome->signal,
					    outcome->exit_code);
	const char *text;

	if (how && PyArg_ParseTuple(how, "iisp", &outcome->signal, &outcome->exit_code, &text,
				    &end->counts))
		snprintf(outcome->text, sizeof outcome->text, "%s", text);
	Py_XDECREF(how);
	if (PyErr_Occurred())
		starter_note_failure(end->crew);
}

int starter_ended(void *crew, unsigned worker, struct ac_outcome *outcome)
{
	struct end end = { .crew = crew, .worker = worker, .outcome = outcome };

	run_undisturbed(ask_crew_how, &end);
	return end.counts;
}

/* SPDX-License-Identifier: MIT */
/* Worker processes that Python starts: see starter.h. */
#include "starter.h"

#include <errno.h>
#include <stdio.h>

#include "errors.h"
#include "undisturbed.h"

struct start {
	PyObject *processes;
	unsigned worker;
	int fd;
	pid_t pid;
};

void starter_note_failure(PyObject *processes)
{
	PyObject *error = take_exception();

	if (PyObject_SetAttrString(processes, "failure", error) < 0)
		PyErr_Clear();
	Py_DECREF(error);
}

static void ask_for_process(void *arg)
{
	struct start *start = arg;
	PyObject *pid = PyObject_CallMethod(start->processes, "start_worker", "Ii", start->worker, start->fd);

	if (pid)
		start->pid = (pid_t)PyLong_AsLong(pid);
	Py_XDECREF(pid);
	if (!PyErr_Occurred())
		return;
	start->pid = -EAGAIN;
	starter_note_failure(start->processes);
}

/* The engine calls this without its lock, from any thread of this process. An exception of a signal
 * handler in start_worker would lose the process that it has just started. */
pid_t starter_start(void *processes, unsigned worker, int fd)
{
	struct start start = { .processes = processes, .worker = worker, .fd = fd, .pid = -EAGAIN };
	int r = run_undisturbed(ask_for_process, &start);

	return r < 0 ? r : start.pid;
}

struct end {
	PyObject *processes;
	unsigned worker;
	struct ac_outcome *outcome;
	int counts;
};

static void ask_how_it_ended(void *arg)
{
	struct end *end = arg;
	struct ac_outcome *outcome = end->outcome;
	PyObject *how = PyObject_CallMethod(end->processes, "describe_failed_start", "Iiii", end->worker,
					    (int)outcome->pid, outcome->signal,
					    outcome->exit_code);
	const char *text;

	if (how && PyArg_ParseTuple(how, "iisp", &outcome->signal, &outcome->exit_code, &text,
				    &end->counts))
		snprintf(outcome->text, sizeof outcome->text, "%s", text);
	Py_XDECREF(how);
	if (PyErr_Occurred())
		starter_note_failure(end->processes);
}

int starter_ended(void *processes, unsigned worker, struct ac_outcome *outcome)
{
	struct end end = { .processes = processes, .worker = worker, .outcome = outcome };

	run_undisturbed(ask_how_it_ended, &end);
	return end.counts;
}

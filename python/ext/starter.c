/* SPDX-License-Identifier: MIT */
/* Worker processes that Python starts: see starter.h. */
#include "starter.h"

#include <errno.h>
#include <stdio.h>

#include "errors.h"
#include "records.h"
#include "undisturbed.h"

void starter_note_failure(PyObject *processes)
{
	PyObject *error = take_exception();

	if (PyObject_SetAttrString(processes, "failure", error) < 0)
		PyErr_Clear();
	Py_DECREF(error);
}

struct start {
	const struct explainer *explainer;
	unsigned worker;
	int fd;
	pid_t pid;
};

static void ask_for_process(void *arg)
{
	struct start *start = arg;
	PyObject *pid = PyObject_CallMethod(start->explainer->processes, "start_worker", "Ii",
					    start->worker, start->fd);

	if (pid)
		start->pid = (pid_t)PyLong_AsLong(pid);
	Py_XDECREF(pid);
	if (!PyErr_Occurred())
		return;
	start->pid = -EAGAIN;
	starter_note_failure(start->explainer->processes);
}

/* The engine calls this without its lock, from any thread of this process. An exception of a signal
 * handler in start_worker would lose the process that it has just started. */
pid_t starter_start(void *explainer, unsigned worker, int fd)
{
	struct start start = { .explainer = explainer, .worker = worker, .fd = fd, .pid = -EAGAIN };
	int r = run_undisturbed(ask_for_process, &start);

	return r < 0 ? r : start.pid;
}

struct end {
	const struct explainer *explainer;
	struct ac_outcome *outcome;
	int counts;
};

static PyObject *ask_how_it_ended(const struct end *end)
{
	const struct explainer *explainer = end->explainer;
	PyObject *record = record_of_outcome(explainer->state, end->outcome);

	return PyObject_CallMethod(explainer->processes, "describe_failed_start", "(N)",
				   record);
}

/* exitcode: as Process.exitcode, None where it is not known. */
static int note_exitcode(struct ac_outcome *outcome, PyObject *exitcode)
{
	long code = exitcode == Py_None ? -1 : PyLong_AsLong(exitcode);

	if (code == -1 && PyErr_Occurred())
		return -1;
	outcome->signal = exitcode != Py_None && code < 0 ? (int)-code : 0;
	outcome->exit_code = code < 0 ? -1 : (int)code;
	return 0;
}

static void note_how_it_ended(void *arg)
{
	struct end *end = arg;
	struct ac_outcome *outcome = end->outcome;
	PyObject *how = ask_how_it_ended(end), *exitcode;
	const char *text;

	if (how && PyArg_ParseTuple(how, "Osp", &exitcode, &text, &end->counts) &&
	    note_exitcode(outcome, exitcode) == 0)
		snprintf(outcome->text, sizeof outcome->text, "%s", text);
	Py_XDECREF(how);
	if (PyErr_Occurred())
		starter_note_failure(end->explainer->processes);
}

int starter_ended(void *explainer, unsigned worker, struct ac_outcome *outcome)
{
	struct end end = { .explainer = explainer, .outcome = outcome };

	(void)worker; /* is outcome->worker */
	run_undisturbed(note_how_it_ended, &end);
	return end.counts;
}

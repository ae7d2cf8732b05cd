/* SPDX-License-Identifier: MIT */
/* Structs of allcores.h as named tuples: see records.h. */
#include "records.h"

#include <string.h>

static PyStructSequence_Field outcome_fields[] = {
	{ "status", "0, or the code of a failure." },
	{ "name", "Its name, \"AC_EDIED\" or \"ENOMEM\"." },
	{ "text", "Details in words, or \"\"." },
	{ "signal", "The signal that killed the worker, or 0." },
	{ "exit_code", "The worker's exit code, or -1." },
	{ "pid", "The worker's, 0 if no worker took the call." },
	{ "worker", "The worker's number, from 0." },
	{ "ran_ns", "How long the call had run when its worker died; 0: not known." },
	{ "peak_rss", "The largest memory of the dead worker, in bytes; 0: not known." },
	{ 0 },
};

static PyStructSequence_Desc outcome_desc = {
	.name = "allcores._core.Outcome",
	.doc = "How a call or a process has ended: struct ac_outcome.",
	.fields = outcome_fields,
	.n_in_sequence = sizeof outcome_fields / sizeof outcome_fields[0] - 1,
};

static PyStructSequence_Field worker_stat_fields[] = {
	{ "state", "WORKER_ABSENT, WORKER_STARTING, WORKER_IDLE or WORKER_BUSY." },
	{ "pid", "0 when absent." },
	{ "call", "The number of the call that it runs, or 0." },
	{ "ns", "For how long it has run that call." },
	{ "text", "What the worker says of itself." },
	{ 0 },
};

static PyStructSequence_Desc worker_stat_desc = {
	.name = "allcores._core.WorkerStat",
	.doc = "What a worker is doing: struct ac_worker_stat.",
	.fields = worker_stat_fields,
	.n_in_sequence = sizeof worker_stat_fields / sizeof worker_stat_fields[0] - 1,
};

static PyTypeObject *add_record(PyObject *module, PyStructSequence_Desc *desc)
{
	PyTypeObject *type = PyStructSequence_NewType(desc);

	if (type && PyModule_AddType(module, type) < 0)
		Py_CLEAR(type);
	return type;
}

int records_add_types(PyObject *module, struct state *state)
{
	state->outcome_type = add_record(module, &outcome_desc);
	state->worker_stat_type = add_record(module, &worker_stat_desc);
	return state->outcome_type && state->worker_stat_type ? 0 : -1;
}

/* The engine may have cut the text within a character. */
static PyObject *decode_text(const char *text)
{
	return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

/* Takes over the items. One that is NULL: an exception is set. */
static PyObject *make_record(PyTypeObject *type, PyObject *const *items, Py_ssize_t n)
{
	PyObject *record = PyStructSequence_New(type);

	for (Py_ssize_t i = 0; i < n; i++) {
		if (!items[i])
			Py_CLEAR(record);
		if (record)
			PyStructSequence_SetItem(record, i, items[i]);
		else
			Py_XDECREF(items[i]);
	}
	return record;
}

PyObject *record_of_outcome(const struct state *state, const struct ac_outcome *outcome)
{
	PyObject *items[] = {
		PyLong_FromLong(outcome->status),
		PyUnicode_FromString(ac_errname(outcome->status)),
		decode_text(outcome->text),
		PyLong_FromLong(outcome->signal),
		PyLong_FromLong(outcome->exit_code),
		PyLong_FromLong(outcome->pid),
		PyLong_FromUnsignedLong(outcome->worker),
		PyLong_FromLongLong(outcome->ran_ns),
		PyLong_FromUnsignedLongLong(outcome->peak_rss),
	};

	return make_record(state->outcome_type, items, sizeof items / sizeof items[0]);
}

PyObject *record_of_worker_stat(const struct state *state, const struct ac_worker_stat *stat)
{
	PyObject *items[] = {
		PyLong_FromLong(stat->state),
		PyLong_FromLong(stat->pid),
		PyLong_FromUnsignedLongLong(stat->task),
		PyLong_FromLongLong(stat->task_ns),
		decode_text(stat->text),
	};

	return make_record(state->worker_stat_type, items, sizeof items / sizeof items[0]);
}

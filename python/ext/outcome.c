/* SPDX-License-Identifier: MIT */
/* Values and exceptions of calls that have ended: see outcome.h. */
#include "outcome.h"

#include "errors.h"
#include "records.h"
#include "sliced_wait.h"

/* The exception: a new reference, or NULL with one set. */
static PyObject *make_exception(const struct explainer *explainer,
				const struct ac_outcome *outcome, PyObject *function)
{
	PyObject *record = record_of_outcome(explainer->state, outcome);

	return PyObject_CallMethod(explainer->processes, "make_exception", "NO", record,
				   function ? function : Py_None);
}

static PyObject *decode_or_make_exception(const struct explainer *explainer,
					  struct ac_task *task, PyObject *function,
					  struct response *head)
{
	struct ac_outcome outcome;
	const void *data;
	size_t len;

	if (ac_task_result(task, &data, &len) == 0)
		return decode_response(explainer->state, data, len, head);
	ac_task_outcome(task, &outcome);
	return make_exception(explainer, &outcome, function);
}

PyObject *outcome_value(const struct explainer *explainer, struct ac_task *task,
			PyObject *function, struct response *head)
{
	unsigned interrupts = 0;
	PyObject *value;

	do {
		*head = (struct response){ .failed = true };
		value = decode_or_make_exception(explainer, task, function, head);
	} while (!value && postpone_interrupt(&interrupts));
	if (!value) {
		head->failed = true;
		value = take_exception();
	}
	if (interrupts)
		PyErr_SetInterrupt();
	return value;
}

PyObject *outcome_failure(const struct explainer *explainer, struct ac_task *task,
			  PyObject *function)
{
	struct ac_outcome outcome;
	struct response head;
	const void *data;
	size_t len;

	ac_task_outcome(task, &outcome);
	if (outcome.status == AC_ECANCELED)
		return NULL;
	if (ac_task_result(task, &data, &len) == 0 && !response_failed(data, len))
		return NULL;
	return outcome_value(explainer, task, function, &head);
}

PyObject *outcome_refusal(const struct explainer *explainer, int code)
{
	struct ac_outcome outcome = { .status = code, .exit_code = -1 };

	/* A pool that has failed says why only to a call that asks for its outcome. */
	if (code == AC_ESTART || code == AC_EBROKEN)
		ac_pool_call(explainer->pool, ANY_CALL, NULL, 0, NULL, NULL, &outcome);
	if (!outcome.text[0])
		PyOS_snprintf(outcome.text, sizeof outcome.text, "%s",
			      ac_strerror(code));
	outcome.status = code;
	return make_exception(explainer, &outcome, NULL);
}

void outcome_raise_refusal(const struct explainer *explainer, int code)
{
	PyObject *error = outcome_refusal(explainer, code);

	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
}

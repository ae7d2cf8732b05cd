/* SPDX-License-Identifier: MIT */
/*
 * Dropped calls: see dropped_calls.h.
 *
 * No thread waits for these calls. Each submit and each drop checks two dropped tasks for
 * failures. Closing the pool checks all of them.
 */
#include "dropped_calls.h"

#include "sliced_wait.h"

struct dropped_call {
	struct ac_task *task;
	PyObject *function;
};

void report_unfetched(struct state *state, PyObject *error, PyObject *function)
{
	PyObject *type, *value, *traceback, *done;
	unsigned interrupts = 0;

	PyErr_Fetch(&type, &value, &traceback);
	do
		done = PyObject_CallFunctionObjArgs(state->log_unfetched, error,
						    function ? function : Py_None, NULL);
	while (!done && postpone_interrupt(&interrupts));
	if (!done)
		PyErr_WriteUnraisable(function);
	Py_XDECREF(done);
	if (interrupts)
		PyErr_SetInterrupt();
	PyErr_Restore(type, value, traceback);
}

static void free_call(struct dropped_call call)
{
	ac_task_free(call.task);
	Py_DECREF(call.function);
}

/* In a forked child the failures are its parent's to report. */
static bool is_forked_copy(const struct dropped *dropped)
{
	return ac_pool_workers(dropped->explainer->pool, NULL, 0) == AC_EFORK;
}

/* For a call that has ended. Logging runs Python code, which may drop other results. */
static void report_and_free(struct dropped *dropped, struct dropped_call call)
{
	const struct explainer *explainer = dropped->explainer;
	PyObject *type, *value, *traceback, *error = NULL;

	PyErr_Fetch(&type, &value, &traceback);
	if (!is_forked_copy(dropped))
		error = outcome_failure(explainer, call.task, call.function);
	if (error)
		report_unfetched(explainer->state, error, call.function);
	Py_XDECREF(error);
	free_call(call);
	PyErr_Restore(type, value, traceback);
}

static bool reserve_one(struct dropped *dropped)
{
	size_t capacity = dropped->capacity ? 2 * dropped->capacity : 64;
	struct dropped_call *calls;

	if (dropped->count < dropped->capacity)
		return true;
	calls = PyMem_Realloc(dropped->calls, capacity * sizeof *calls);
	if (!calls)
		return false;
	dropped->calls = calls;
	dropped->capacity = capacity;
	return true;
}

/* Put a call that has not ended in front of the next one to be checked: its turn comes last. */
static void keep(struct dropped *dropped, struct dropped_call call)
{
	if (!reserve_one(dropped)) {
		free_call(call);
		return;
	}
	if (dropped->next > dropped->count)
		dropped->next = dropped->count;
	dropped->calls[dropped->count++] = dropped->calls[dropped->next];
	dropped->calls[dropped->next++] = call;
}

/* The call is not in the list meanwhile: ac_task_ready may start workers, which runs Python
 * code, which may drop results and so change the list. */
static void check_call(struct dropped *dropped, struct dropped_call call)
{
	int r = ac_task_ready(call.task);

	if (r == 1)
		report_and_free(dropped, call);
	else if (r == 0)
		keep(dropped, call);
	else
		free_call(call); /* a forked child's copy */
}

void dropped_add(struct dropped *dropped, struct ac_task *task, PyObject *function)
{
	check_call(dropped, (struct dropped_call){ task, Py_NewRef(function) });
	dropped_check_two(dropped);
}

static void check_next(struct dropped *dropped)
{
	struct dropped_call call;

	if (dropped->next >= dropped->count)
		dropped->next = 0;
	call = dropped->calls[dropped->next];
	dropped->calls[dropped->next] = dropped->calls[--dropped->count];
	check_call(dropped, call);
}

void dropped_check_two(struct dropped *dropped)
{
	for (int i = 0; i < 2 && dropped->count; i++)
		check_next(dropped);
}

void dropped_check_all(struct dropped *dropped)
{
	dropped->next = 0;
	while (dropped->next < dropped->count)
		check_next(dropped);
}

int dropped_traverse(struct dropped *dropped, visitproc visit, void *arg)
{
	for (size_t i = 0; i < dropped->count; i++)
		Py_VISIT(dropped->calls[i].function);
	return 0;
}

void dropped_clear(struct dropped *dropped)
{
	struct dropped_call *calls = dropped->calls;
	size_t count = dropped->count;

	dropped->calls = NULL;
	dropped->count = dropped->capacity = dropped->next = 0;
	for (size_t i = 0; i < count; i++)
		free_call(calls[i]);
	PyMem_Free(calls);
}

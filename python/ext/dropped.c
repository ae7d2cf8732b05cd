/* SPDX-License-Identifier: MIT */
/*
 * Results that were dropped before their calls had ended. Their failures are reported, as
 * asyncio does for tasks: a program that only hands work in would never hear of them.
 *
 * Nobody waits for these calls. Who drops another one, or hands one in, looks at two of them on
 * its way; the pool's end at all.
 */
#include "codec.h"
#include "ext.h"

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
		done = PyObject_CallFunctionObjArgs(state->report, error,
						    function ? function : Py_None, NULL);
	while (!done && put_off_interrupt(&interrupts));
	if (!done)
		PyErr_WriteUnraisable(function);
	Py_XDECREF(done);
	if (interrupts)
		PyErr_SetInterrupt();
	PyErr_Restore(type, value, traceback);
}

/* A new reference: the exception, or NULL where there is none to tell of. */
static PyObject *failure_of(struct pool_object *pool, const struct dropped_call *call)
{
	struct ac_outcome outcome;
	const void *data;
	int64_t elapsed;
	bool failed;
	size_t len;

	ac_task_outcome(call->task, &outcome);
	if (outcome.status == AC_ECANCELED)
		return NULL;
	if (ac_task_result(call->task, &data, &len) == 0 && !response_failed(data, len))
		return NULL;
	return value_of(pool, call->task, call->function, &failed, &elapsed);
}

static void forget(struct dropped_call call)
{
	ac_task_free(call.task);
	Py_DECREF(call.function);
}

/* In a forked child it is its parent's to tell. */
static bool is_ours(struct pool_object *pool)
{
	return ac_pool_workers(pool->pool, NULL, 0) != AC_EFORK;
}

/* Its end is told, if there is something to tell. Python code runs here, which may drop others. */
static void settle(struct pool_object *pool, struct dropped_call call)
{
	PyObject *type, *value, *traceback, *error;

	PyErr_Fetch(&type, &value, &traceback);
	error = is_ours(pool) ? failure_of(pool, &call) : NULL;
	if (error)
		report_unfetched(pool->state, error, call.function);
	Py_XDECREF(error);
	forget(call);
	PyErr_Restore(type, value, traceback);
}

static bool make_room(struct dropped *dropped)
{
	size_t room = dropped->room ? 2 * dropped->room : 64;
	struct dropped_call *calls;

	if (dropped->count < dropped->room)
		return true;
	calls = PyMem_Realloc(dropped->calls, room * sizeof *calls);
	if (!calls)
		return false;
	dropped->calls = calls;
	dropped->room = room;
	return true;
}

/* Back to its place, or where there is one now. */
static void keep(struct dropped *dropped, struct dropped_call call)
{
	if (!make_room(dropped)) {
		forget(call);
		return;
	}
	if (dropped->next > dropped->count)
		dropped->next = dropped->count;
	dropped->calls[dropped->count++] = dropped->calls[dropped->next];
	dropped->calls[dropped->next++] = call;
}

/* A look at a task may start workers, and so run Python code, which may come here: what is looked at
 * is not on the list. */
static void look_at(struct pool_object *pool, struct dropped_call call)
{
	int r = ac_task_ready(call.task);

	if (r == 1)
		settle(pool, call);
	else if (r == 0)
		keep(&pool->dropped, call);
	else
		forget(call); /* in a forked child */
}

void dropped_add(struct pool_object *pool, struct ac_task *task, PyObject *function)
{
	look_at(pool, (struct dropped_call){ task, Py_NewRef(function) });
	dropped_look(pool);
}

static void look_at_next(struct pool_object *pool)
{
	struct dropped *dropped = &pool->dropped;
	struct dropped_call call;

	if (dropped->next >= dropped->count)
		dropped->next = 0;
	call = dropped->calls[dropped->next];
	dropped->calls[dropped->next] = dropped->calls[--dropped->count];
	look_at(pool, call);
}

void dropped_look(struct pool_object *pool)
{
	for (int i = 0; i < 2 && pool->dropped.count; i++)
		look_at_next(pool);
}

void dropped_look_at_all(struct pool_object *pool)
{
	pool->dropped.next = 0;
	while (pool->dropped.next < pool->dropped.count)
		look_at_next(pool);
}

int dropped_traverse(struct pool_object *pool, visitproc visit, void *arg)
{
	for (size_t i = 0; i < pool->dropped.count; i++)
		Py_VISIT(pool->dropped.calls[i].function);
	return 0;
}

void dropped_clear(struct pool_object *pool)
{
	struct dropped dropped = pool->dropped;

	pool->dropped = (struct dropped){ 0 };
	for (size_t i = 0; i < dropped.count; i++)
		forget(dropped.calls[i]);
	PyMem_Free(dropped.calls);
}

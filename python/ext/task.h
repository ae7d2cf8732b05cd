/* SPDX-License-Identifier: MIT */
/* The type Task: one call as its owner sees it, and its value once that is decoded. */
#ifndef TASK_H
#define TASK_H

#include "dropped_calls.h"

extern PyType_Spec task_spec;

struct task_object {
	PyObject_HEAD
	struct state *state;
	struct ac_task *task;	/* NULL before submission and once the result is here */
	PyObject *pool;		/* keeps the following one alive */
	struct dropped *dropped;
	PyObject *owner;	/* the user's pool: alive as long as it has work */
	PyObject *function;	/* named when its worker dies */
	PyObject *value;	/* or the exception */
	bool has_result, failed;
	PyObject *unfetched;	/* (pid, exception, function) of a failure nobody asked for yet */
	unsigned users;		/* threads that are in a call with task */
};

/* A result of the given subclass of Task, whose task the caller submits. owner stays alive
 * until the result is there; pool is the object that dropped belongs to. NULL with an
 * exception set. */
struct task_object *task_make(PyTypeObject *type, PyObject *pool, struct dropped *dropped,
			      PyObject *owner, PyObject *function);
/* Set the value, or the exception. Takes over value; NULL: the exception that is set.
 * A second call changes nothing. */
void task_set_result(struct task_object *self, PyObject *value, bool failed);

#endif

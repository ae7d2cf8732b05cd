/* SPDX-License-Identifier: MIT */
/* The type Task: one call as its owner sees it, and its value once that is decoded. */
#ifndef TASK_H
#define TASK_H

#include "ext.h"

struct task_object {
	PyObject_HEAD
	struct state *state;
	struct ac_task *task;	/* NULL before submission and once decoded */
	struct pool_object *pool;
	PyObject *owner;	/* the user's pool: alive as long as it has work */
	PyObject *function;	/* named when its worker dies */
	PyObject *value;	/* or the exception */
	bool settled, failed;
	PyObject *unfetched;	/* (pid, exception, function) of a failure that nobody has heard of */
	unsigned waiting;	/* threads that are in a call with task */
};

/* One that is to be submitted, of the pool's result type. NULL with an exception set. */
struct task_object *task_make(struct pool_object *pool, PyObject *owner,
			      PyObject *function);
/* Its value, or its exception, is there: takes over value, which may be NULL for "an
 * exception is set". Only the first one counts. */
void task_settle(struct task_object *self, PyObject *value, bool failed);

#endif

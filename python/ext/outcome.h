/* SPDX-License-Identifier: MIT */
/* What became of a call, as an object: the value that it returned, or an exception. */
#ifndef OUTCOME_H
#define OUTCOME_H

#include "codec.h"

/* What explaining the calls of one pool takes. The pool's object contains it, so whoever
 * uses it holds a reference to that object. */
struct explainer {
	struct state *state;
	struct ac_pool *pool;
	PyObject *processes;		/* its method make_exception makes the exceptions */
};

/*
 * The value of a task that has ended, or its exception (head->failed): a new reference. NULL
 * where there is no memory even for an exception. The user's code runs here (unpickling). A
 * Ctrl-C meanwhile is raised later, and the result is not lost.
 */
PyObject *outcome_value(const struct explainer *explainer, struct ac_task *task,
			PyObject *function, struct response *head);
/* The exception of a task that has ended, a new reference. NULL: the task returned a value,
 * or was cancelled, or there is no memory. */
PyObject *outcome_failure(const struct explainer *explainer, struct ac_task *task,
			  PyObject *function);
/* The exception for a call that the engine refused with code: a new reference, or NULL with
 * one set. */
PyObject *outcome_refusal(const struct explainer *explainer, int code);
/* The same, set. */
void outcome_raise_refusal(const struct explainer *explainer, int code);

#endif

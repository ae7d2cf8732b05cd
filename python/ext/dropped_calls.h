/* SPDX-License-Identifier: MIT */
/*
 * Calls whose results were dropped before the calls ended. Their failures are logged, as
 * asyncio does for its tasks: otherwise a program that only submits would never hear of them.
 */
#ifndef DROPPED_CALLS_H
#define DROPPED_CALLS_H

#include "outcome.h"

/* The dropped calls of one pool, whose object contains it. */
struct dropped {
	const struct explainer *explainer;
	struct dropped_call *calls;
	size_t count, capacity, next;	/* next: the index of the call to check next */
};

/* Keep a task whose result was dropped until it has ended, then log its failure, if it
 * failed. Takes over task. */
void dropped_add(struct dropped *dropped, struct ac_task *task, PyObject *function);
/* Check two calls for their end. Every submit and every drop does so: as each adds at most
 * one call, the list does not grow by calls that have ended. */
void dropped_check_two(struct dropped *dropped);
/* Check all of them: the pool is being joined or was terminated. */
void dropped_check_all(struct dropped *dropped);
int dropped_traverse(struct dropped *dropped, visitproc visit, void *arg);
/* Free all tasks, with no word about their failures. */
void dropped_clear(struct dropped *dropped);

/* Log a failure that nobody fetched. An exception that is set stays set. */
void report_unfetched(struct state *state, PyObject *error, PyObject *function);

#endif

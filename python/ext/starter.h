/* SPDX-License-Identifier: MIT */
/* Worker processes that the engine does not fork: a Python object, StartedWorkers, starts them. */
#ifndef STARTER_H
#define STARTER_H

#include "outcome.h"

/*
 * The hook ac_pool_opts.start: calls the method start_worker of explainer->processes. Returns the pid,
 * or -EAGAIN; then the attribute failure of processes says why.
 */
pid_t starter_start(void *explainer, unsigned worker, int fd);
/* The hook ac_pool_opts.ended: the method describe_failed_start says how. explainer: their
 * start_arg. */
int starter_ended(void *explainer, unsigned worker, struct ac_outcome *outcome);
/* An exception is set: it becomes the attribute failure of processes. */
void starter_note_failure(PyObject *processes);

#endif

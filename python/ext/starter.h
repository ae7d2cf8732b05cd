/* SPDX-License-Identifier: MIT */
/* Starting worker processes that the engine does not fork: a crew (a Python object) does it. */
#ifndef STARTER_H
#define STARTER_H

#include "ext.h"

/*
 * The hook ac_pool_opts.start; crew is its start_arg, a borrowed reference. Returns the pid,
 * or -EAGAIN; then the attribute failure of the crew says why.
 */
pid_t starter_start(void *crew, unsigned worker, int fd);
/* The hook ac_pool_opts.ended: the crew's method ended says how. */
int starter_ended(void *crew, unsigned worker, struct ac_outcome *outcome);
/* An exception is set: it becomes the attribute failure of the crew. */
void starter_note_failure(PyObject *crew);

#endif

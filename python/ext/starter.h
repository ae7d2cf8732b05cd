/* SPDX-License-Identifier: MIT */
/* Starting the worker processes of a pool, which a crew (a Python object) does. */
#ifndef STARTER_H
#define STARTER_H

#include "ext.h"

/*
 * The hook ac_pool_opts.start; crew is its start_arg, a borrowed reference. Returns the pid,
 * or -EAGAIN; then the attribute failure of the crew says why. Exceptions of signal handlers
 * that interrupted the crew become pending calls of the main thread: the wait that the start
 * is part of raises them (Py_MakePendingCalls).
 */
pid_t starter_start(void *crew, unsigned worker, int fd);

#endif

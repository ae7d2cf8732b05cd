/* SPDX-License-Identifier: MIT */
/* The type Worker, for worker processes. */
#ifndef WORKER_H
#define WORKER_H

#include "ext.h"

extern PyType_Spec worker_spec;

/* In a process that the engine's template forked: Worker(-1, ...) is this worker, the library's. */
void worker_set_forked(struct ac_worker *worker);

#endif

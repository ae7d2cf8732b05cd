/* SPDX-License-Identifier: MIT */
/* The type Worker, for worker processes. */
#ifndef WORKER_H
#define WORKER_H

#include "ext.h"

extern PyType_Spec worker_spec;

/* Where a call failed: the first argument of encode_failure. Python sees these as constants of
 * the module. */
enum stage { STAGE_DECODE, STAGE_RUN, STAGE_ENCODE };

/* In a process that the engine's template forked: Worker(-1, ...) is this worker, the library's. */
void worker_set_forked(struct ac_worker *worker);

#endif

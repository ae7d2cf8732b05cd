/* SPDX-License-Identifier: MIT */
/* The named tuples that the extension hands to Python: _core.Outcome and _core.WorkerStat. */
#ifndef RECORDS_H
#define RECORDS_H

#include "ext.h"

/* Make both types, and add them to the module. 0, or -1 with an exception set. */
int records_add_types(PyObject *module, struct state *state);
/* New references, or NULL with an exception set. */
PyObject *record_of_outcome(const struct state *state, const struct ac_outcome *outcome);
PyObject *record_of_worker_stat(const struct state *state, const struct ac_worker_stat *stat);

#endif

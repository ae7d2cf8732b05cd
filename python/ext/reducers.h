/* SPDX-License-Identifier: MIT */
/* The type Reducers: which function pickles the objects of a type, as of now. */
#ifndef REDUCERS_H
#define REDUCERS_H

#include "ext.h"

extern PyType_Spec reducers_spec;

/* tables: (ForkingPickler's own, copyreg's), two dictionaries. A new reference, or NULL with an
 * exception set. */
PyObject *reducers_make(struct state *state, PyObject *tables);

#endif

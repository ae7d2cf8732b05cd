/* SPDX-License-Identifier: MIT */
/* The type Stream: calls are pushed by the hundred, their results taken as they arrive. */
#ifndef STREAM_H
#define STREAM_H

#include "outcome.h"

extern PyType_Spec stream_spec;

/* A new stream. pool is the object that explainer belongs to, and is kept alive. NULL with
 * an exception set. */
PyObject *stream_make(PyObject *pool, const struct explainer *explainer);

#endif

/* SPDX-License-Identifier: MIT */
/* The type Stream: calls of one kind handed in by the hundred, results as they come. */
#ifndef STREAM_H
#define STREAM_H

#include "ext.h"

PyObject *stream_make(struct pool_object *pool);

#endif

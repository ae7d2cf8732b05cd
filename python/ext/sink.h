/* SPDX-License-Identifier: MIT */
/* A growing buffer for one message. It is a Python object with a method write, so that a
 * pickler writes to it. */
#ifndef SINK_H
#define SINK_H

#include "ext.h"

struct sink {
	PyObject_HEAD
	char *data;
	size_t len, capacity;
};

extern PyType_Spec sink_spec;

/* Make sure that len more bytes have space. -1 with an exception set. */
int sink_reserve(struct sink *sink, size_t len);
/* Append. -1 with an exception set. */
int sink_write(struct sink *sink, const void *data, size_t len);

#endif

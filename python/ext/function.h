/* SPDX-License-Identifier: MIT */
/* The type Function: what a map or imap calls for each item, encoded once for all of its calls. */
#ifndef FUNCTION_H
#define FUNCTION_H

#include "codec.h"

extern PyType_Spec function_spec;

struct function_object {
	PyObject_HEAD
	struct state *state;
	PyObject *callable;
	PyObject *pool_object;	/* keeps the following one alive */
	struct ac_pool *pool;
	struct ac_bound *bound;	/* the callable's pickle; NULL: it has a name, or no call was made */
	int64_t encode_ns;	/* how long pickling took */
};

/* A Function for calls of this pool, or NULL with an exception set. */
PyObject *function_make(struct state *state, PyObject *pool_object, struct ac_pool *pool,
			PyObject *callable);
/* Where the worker will find it: pickles it, if that was not done and is needed. Returns enum
 * function_place, or -1 with an exception set, the user's where pickling raised one. */
int function_prepare(struct function_object *self);

#endif

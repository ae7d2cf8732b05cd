/* SPDX-License-Identifier: MIT */
/* The library's codes as exceptions; the exception that is set, as an object. */
#ifndef ERRORS_H
#define ERRORS_H

#include "ext.h"

/* Sets the exception for a code of the library. Returns NULL. */
PyObject *raise_code(struct state *state, int code);
/* Clears the exception that is set and returns it, a new reference with its traceback. */
PyObject *take_exception(void);

#endif

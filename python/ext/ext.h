/* SPDX-License-Identifier: MIT */
/*
 * What every file of the extension allcores._core needs: Python, allcores.h, and the
 * module's state.
 *
 * The extension is a thin layer: a method converts its arguments, calls one function of
 * allcores.h and converts the result. Beyond that the extension knows how a call is
 * written as bytes (codec.h). Its files lie in layers (tools/check_floors.py).
 *
 * The GIL: a thread that holds the pool's lock never waits for the GIL (the engine calls
 * `start` without its lock), so calls that do not block are made with the GIL held. Calls
 * that may wait for work release it.
 */
#ifndef EXT_H
#define EXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "allcores.h"

struct encoder;

/* A function's name: the objects that the function has for it, and its pickle. */
struct name {
	PyObject *module, *qualname, *pickle;
	const PyObject *callable;	/* whose name it is: only to be compared, may be gone */
};

struct state {
	PyTypeObject *sink_type, *pool_type, *task_type, *stream_type, *function_type, *worker_type;
	PyTypeObject *outcome_type, *worker_stat_type;	/* named tuples: records.h */
	PyObject *forking_pickler;	/* NULL before codec_prepare */
	PyTypeObject *reducers_type;
	PyObject *reducers;	/* a Reducers: what programs have registered for types */
	PyObject *plain_dumps;	/* its method dumps, if that is the standard library's own */
	PyObject *str_dumps, *str_loads, *str_module, *str_qualname;
	PyObject *timeout_error;
	PyObject *from_code;	/* allcores.errors.from_code */
	PyObject *log_unfetched;	/* allcores.errors.report_unfetched */
	struct name last_name;	/* see has_name */
	struct encoder *spare_encoder;	/* kept for the next message, or NULL */
};

/* The module's identity. module.c adds its functions and types. */
extern struct PyModuleDef core_module;

/* The state of the module that the object's class comes from, also for a Python subclass. */
static inline struct state *state_of(PyObject *object)
{
	PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &core_module);

	return module ? PyModule_GetState(module) : NULL;
}

#endif

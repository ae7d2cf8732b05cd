/* SPDX-License-Identifier: MIT */
/*
 * The extension allcores._core: converts, calls one function of allcores.h, converts
 * back. What it knows beyond that is how a call is written as bytes (codec.h).
 *
 * The GIL: whoever holds the pool's lock never waits for the GIL (the engine calls
 * `start` without its lock), so calls that do not block are made with the GIL held; calls
 * that may wait for work release it.
 */
#ifndef EXT_H
#define EXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "allcores.h"

struct encoder;

struct state {
	PyTypeObject *sink_type, *pool_type, *task_type, *stream_type, *worker_type;
	PyObject *forking_pickler, *loads;
	PyObject *plain;	/* functions pickled by name: {function: bytes}; NULL: at exit */
	PyObject *timeout_error;
	PyObject *explain_code;	/* allcores.errors.from_code */
	PyObject *report;	/* allcores.errors.report_unfetched */
	struct encoder *spare;	/* one that nobody uses at the moment */
};

extern struct PyModuleDef core_module;

/* An object's class may be a Python subclass: the state is found by the base. */
static inline struct state *state_of(PyObject *object)
{
	PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &core_module);

	return module ? PyModule_GetState(module) : NULL;
}

/* Types, each in its file. NULL with an exception set. */
extern PyType_Spec sink_spec, pool_spec, task_spec, stream_spec, worker_spec;

/* ---- waiting.c ---- */

/*
 * A wait with a limit that Python's signal handlers can end. A signal that comes when
 * the wait has not quite begun interrupts nothing: so the thread that runs the handlers
 * waits in slices. Round: wait patience_slice() without the GIL, then patience_judge.
 */
struct patience {
	int64_t timeout, end;
	bool sliced;
};

void patience_begin(struct patience *patience, int64_t timeout);
int64_t patience_slice(const struct patience *patience);
/* What the wait's result r means: -EINTR: go on; -1: an exception is set; else r. */
int patience_judge(const struct patience *patience, int r);

/* Whether this is the main thread: Python's signal handlers run there alone. */
bool runs_handlers(void);
/* Python code that has to come to its end raised, and what it raised is a Ctrl-C: run it again,
 * and PyErr_SetInterrupt() when it has. */
bool put_off_interrupt(unsigned *interrupts);

/* ---- errors.c ---- */

/* Set the exception for a code of the library. Returns NULL. */
PyObject *raise_code(struct state *state, int code);
/* Seconds as Python gives them (None: no limit) to nanoseconds. -2: an exception is set. */
int64_t timeout_from(PyObject *seconds);
/* The exception that is set, taken: a new reference, its traceback attached. */
PyObject *take_exception(void);
/* Monotonic nanoseconds. */
int64_t now_ns(void);

/* ---- pool.c ---- */

/* Calls whose results were given up before they had ended (dropped.c). */
struct dropped {
	struct dropped_call *calls;
	size_t count, room, next;
};

struct pool_object {
	PyObject_HEAD
	struct ac_pool *pool;
	struct state *state;
	PyObject *crew;		/* starts processes, explains their ends */
	PyObject *result_type;	/* what submit returns: a subclass of Task */
	struct dropped dropped;
};

/* What became of a task that has ended: its value, or (*failed) the exception. A new reference;
 * NULL where there is no memory at all. A Ctrl-C is raised after it, and takes nothing away. */
PyObject *value_of(struct pool_object *pool, struct ac_task *task, PyObject *function,
		   bool *failed, int64_t *elapsed);
/* The exception for a call that was refused with code: a new reference, or NULL with one set. */
PyObject *explain_refusal(struct pool_object *pool, int code);

/* ---- dropped.c ---- */

/* Nobody will ask what becomes of this task: keep it until that is known, and tell if it
 * failed. Takes over task. */
void dropped_add(struct pool_object *pool, struct ac_task *task, PyObject *function);
/* Look whether some have ended: at two of them, which keeps up with those that come; at all. */
void dropped_look(struct pool_object *pool);
void dropped_look_at_all(struct pool_object *pool);
int dropped_traverse(struct pool_object *pool, visitproc visit, void *arg);
void dropped_clear(struct pool_object *pool);
/* Of a failure that nobody fetched: log it. An exception that is set stays set. */
void report_unfetched(struct state *state, PyObject *error, PyObject *function);

/* The number that single calls go by: the meaning is in the message. */
#define ANY_CALL ((ac_call_fn *)1)

#endif

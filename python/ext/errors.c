/* SPDX-License-Identifier: MIT */
/* Codes of the library to exceptions; times; the exception at hand. */
#include "ext.h"

#include <math.h>
#include <time.h>

PyObject *raise_code(struct state *state, int code)
{
	PyObject *error = PyObject_CallFunction(state->explain_code, "iss", code,
						ac_errname(code), ac_strerror(code));

	if (error) {
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		Py_DECREF(error);
	}
	return NULL;
}

int64_t timeout_from(PyObject *seconds)
{
	double value;

	if (!seconds || seconds == Py_None)
		return -1;
	value = PyFloat_AsDouble(seconds);
	if (value == -1.0 && PyErr_Occurred())
		return -2;
	if (isnan(value)) {
		PyErr_SetString(PyExc_ValueError, "timeout must not be NaN");
		return -2;
	}
	if (value <= 0)
		return 0;
	return value > 9e9 ? -1 : (int64_t)(value * 1e9);
}

PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
	return PyErr_GetRaisedException();
#else
	PyObject *type, *value, *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (traceback)
		PyException_SetTraceback(value, traceback);
	Py_XDECREF(type);
	Py_XDECREF(traceback);
	return value;
#endif
}

int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

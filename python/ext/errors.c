/* SPDX-License-Identifier: MIT */
/* The library's codes as exceptions: see errors.h. */
#include "errors.h"

PyObject *raise_code(struct state *state, int code)
{
	PyObject *error = PyObject_CallFunction(state->from_code, "iss", code,
						ac_errname(code), ac_strerror(code));

	if (error) {
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		Py_DECREF(error);
	}
	return NULL;
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

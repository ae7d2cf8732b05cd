/* SPDX-License-Identifier: MIT */
/*
 * A pickler's dispatch table that looks into two dictionaries. ForkingPickler makes itself a copy of
 * both. A pickler that is kept would not see what a program registers later.
 */
#include "reducers.h"

struct reducers {
	PyObject_HEAD
	PyObject *own, *common;
};

PyObject *reducers_make(struct state *state, PyObject *tables)
{
	PyTypeObject *type = state->reducers_type;
	struct reducers *self = (struct reducers *)type->tp_alloc(type, 0);

	if (self && !PyArg_ParseTuple(tables, "O!O!", &PyDict_Type, &self->own, &PyDict_Type,
				      &self->common)) {
		self->own = self->common = NULL;
		Py_CLEAR(self);
	}
	if (self) {
		Py_INCREF(self->own);
		Py_INCREF(self->common);
	}
	return (PyObject *)self;
}

static PyObject *reducers_get(PyObject *object, PyObject *type)
{
	struct reducers *self = (struct reducers *)object;
	PyObject *function = PyDict_GetItemWithError(self->own, type);

	if (!function && !PyErr_Occurred())
		function = PyDict_GetItemWithError(self->common, type);
	if (!function && !PyErr_Occurred())
		PyErr_SetObject(PyExc_KeyError, type);
	return Py_XNewRef(function);
}

static void reducers_dealloc(PyObject *object)
{
	struct reducers *self = (struct reducers *)object;
	PyTypeObject *type = Py_TYPE(object);

	Py_XDECREF(self->own);
	Py_XDECREF(self->common);
	type->tp_free(object);
	Py_DECREF(type);
}

PyType_Spec reducers_spec = {
	.name = "allcores._core.Reducers",
	.basicsize = sizeof(struct reducers),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = (PyType_Slot[]){
		{ Py_tp_dealloc, reducers_dealloc },
		{ Py_mp_subscript, reducers_get },
		{ 0 },
	},
};

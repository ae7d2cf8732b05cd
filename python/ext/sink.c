/* SPDX-License-Identifier: MIT */
/* See sink.h. */
#include "sink.h"

#include <string.h>

#define SINK_LEAST 512

int sink_reserve(struct sink *sink, size_t len)
{
	size_t capacity = sink->capacity ? sink->capacity : SINK_LEAST;
	char *grown;

	if (len <= sink->capacity - sink->len)
		return 0;
	while (capacity - sink->len < len)
		capacity += capacity;
	grown = PyMem_Realloc(sink->data, capacity);
	if (!grown) {
		PyErr_NoMemory();
		return -1;
	}
	sink->data = grown;
	sink->capacity = capacity;
	return 0;
}

int sink_write(struct sink *sink, const void *data, size_t len)
{
	if (sink_reserve(sink, len) < 0)
		return -1;
	memcpy(sink->data + sink->len, data, len);
	sink->len += len;
	return 0;
}

static PyObject *sink_write_method(PyObject *self, PyObject *data)
{
	Py_buffer view;
	int r;

	if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	r = sink_write((struct sink *)self, view.buf, (size_t)view.len);
	PyBuffer_Release(&view);
	if (r < 0)
		return NULL;
	Py_RETURN_NONE;
}

static void sink_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyMem_Free(((struct sink *)self)->data);
	type->tp_free(self);
	Py_DECREF(type);
}

static PyMethodDef sink_methods[] = {
	{ "write", sink_write_method, METH_O, "Append bytes." },
	{ 0 },
};

PyType_Spec sink_spec = {
	.name = "allcores._core.Sink",
	.basicsize = sizeof(struct sink),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = (PyType_Slot[]){
		{ Py_tp_dealloc, sink_dealloc },
		{ Py_tp_methods, sink_methods },
		{ 0 },
	},
};

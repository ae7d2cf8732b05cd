/* SPDX-License-Identifier: MIT */
/*
 * What a map calls: see function.h.
 *
 * A callable with state (a partial, a bound method) is pickled once and written into shared memory
 * once. Each call reads it there and unpickles a copy of its own, as each chunk of a map does in the
 * standard library.
 */
#include "function.h"

#include "errors.h"
#include "sliced_wait.h"

PyObject *function_make(struct state *state, PyObject *pool_object, struct ac_pool *pool,
			PyObject *callable)
{
	PyTypeObject *type = state->function_type;
	struct function_object *self = (struct function_object *)type->tp_alloc(type, 0);

	if (!self)
		return NULL;
	self->state = state;
	self->callable = Py_NewRef(callable);
	self->pool_object = Py_NewRef(pool_object);
	self->pool = pool;
	return (PyObject *)self;
}

static int bind(struct function_object *self, struct encoder *encoder)
{
	int64_t start = now_ns();
	struct ac_bound *bound;
	int r;

	if (encode_object(encoder, self->callable) < 0)
		return -1;
	self->encode_ns = now_ns() - start;
	r = ac_bound_make(&bound, self->pool, encoder->sink->data, encoder->sink->len);
	if (r < 0) {
		raise_code(self->state, r);
		return -1;
	}
	/* Another thread may have done the same while the user's code ran. */
	ac_bound_free(self->bound);
	self->bound = bound;
	return 0;
}

int function_prepare(struct function_object *self)
{
	struct encoder *encoder;
	int r;

	if (self->bound)
		return FUNCTION_BOUND;
	if (has_name(self->state, self->callable))
		return FUNCTION_NAMED;
	encoder = encoder_take(self->state);
	r = encoder ? bind(self, encoder) : -1;
	encoder_give(self->state, encoder);
	return r < 0 ? -1 : FUNCTION_BOUND;
}

static PyObject *function_prepare_method(PyObject *object, PyObject *unused)
{
	(void)unused;
	return function_prepare((struct function_object *)object) < 0 ? NULL : Py_NewRef(Py_None);
}

static int function_traverse(PyObject *object, visitproc visit, void *arg)
{
	struct function_object *self = (struct function_object *)object;

	Py_VISIT(Py_TYPE(object));
	Py_VISIT(self->callable);
	Py_VISIT(self->pool_object);
	return 0;
}

static void function_dealloc(PyObject *object)
{
	struct function_object *self = (struct function_object *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	ac_bound_free(self->bound); /* before its pool */
	Py_XDECREF(self->callable);
	Py_XDECREF(self->pool_object);
	type->tp_free(object);
	Py_DECREF(type);
}

static PyMethodDef function_methods[] = {
	{ "prepare", function_prepare_method, METH_NOARGS,
	  "Pickle it now, if it has no name. Raises what pickling raises." },
	{ 0 },
};

PyType_Spec function_spec = {
	.name = "allcores._core.Function",
	.basicsize = sizeof(struct function_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = (PyType_Slot[]){
		{ Py_tp_dealloc, function_dealloc },
		{ Py_tp_traverse, function_traverse },
		{ Py_tp_methods, function_methods },
		{ 0 },
	},
};

/* SPDX-License-Identifier: MIT */
/* Calls to bytes and back: see codec.h. */
#include "codec.h"

#include <string.h>

#define SINK_LEAST 512
#define SINK_KEEP (4 << 20)	/* an encoder with a larger sink is not kept */
#define MEMO_KEEP 1024		/* bytes; after a longer message the pickler is not kept */
#define PICKLES_MOST 1024	/* functions whose pickles are kept */
#define VIEW_FROM 4096		/* bytes; longer pickles are parsed without a copy */

/* ---- the sink ---- */

int sink_write(struct sink *sink, const void *data, size_t len)
{
	if (len > sink->capacity - sink->len) {
		size_t capacity = sink->capacity ? sink->capacity : SINK_LEAST;
		char *grown;

		while (capacity - sink->len < len)
			capacity += capacity;
		grown = PyMem_Realloc(sink->data, capacity);
		if (!grown) {
			PyErr_NoMemory();
			return -1;
		}
		sink->data = grown;
		sink->capacity = capacity;
	}
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

/* ---- the encoder ---- */

/* The pickler is kept from message to message: making one costs several times what a small
 * pickle does. */
static int make_pickler(struct state *state, struct encoder *encoder)
{
	encoder->pickler = PyObject_CallFunction(state->forking_pickler, "Oi",
						 encoder->sink, 5);
	if (!encoder->pickler)
		return -1;
	encoder->dump = PyObject_GetAttrString(encoder->pickler, "dump");
	encoder->clear_memo = PyObject_GetAttrString(encoder->pickler, "clear_memo");
	return encoder->dump && encoder->clear_memo ? 0 : -1;
}

static void free_pickler(struct encoder *encoder)
{
	Py_CLEAR(encoder->dump);
	Py_CLEAR(encoder->clear_memo);
	Py_CLEAR(encoder->pickler);
}

static struct encoder *encoder_make(struct state *state)
{
	struct encoder *encoder = PyMem_Calloc(1, sizeof *encoder);

	if (!encoder)
		return (void *)PyErr_NoMemory();
	encoder->sink = (struct sink *)state->sink_type->tp_alloc(state->sink_type, 0);
	if (encoder->sink && make_pickler(state, encoder) == 0)
		return encoder;
	encoder_free(encoder);
	return NULL;
}

void encoder_free(struct encoder *encoder)
{
	if (!encoder)
		return;
	free_pickler(encoder);
	Py_XDECREF(encoder->sink);
	PyMem_Free(encoder);
}

/* Pickling runs the user's code, which may pickle another call meanwhile. So the spare
 * encoder is taken, not shared, and the inner call makes an encoder of its own. */
struct encoder *encoder_take(struct state *state)
{
	struct encoder *encoder = state->spare_encoder;

	state->spare_encoder = NULL;
	if (!encoder)
		return encoder_make(state);
	encoder->sink->len = 0;
	if (encoder->pickler || make_pickler(state, encoder) == 0)
		return encoder;
	encoder_free(encoder);
	return NULL;
}

void encoder_give(struct state *state, struct encoder *encoder)
{
	if (!encoder || state->spare_encoder || encoder->sink->capacity > SINK_KEEP) {
		encoder_free(encoder);
		return;
	}
	/* A pickler's memo never shrinks, and every message clears all of it. */
	if (encoder->sink->len > MEMO_KEEP)
		free_pickler(encoder);
	state->spare_encoder = encoder;
}

int encode_object(struct encoder *encoder, PyObject *object)
{
	PyObject *done = PyObject_CallOneArg(encoder->dump, object);
	PyObject *cleared, *type, *value, *traceback;

	/* Also after a failure, whose exception stays set: the memo holds references. */
	PyErr_Fetch(&type, &value, &traceback);
	cleared = PyObject_CallNoArgs(encoder->clear_memo);
	Py_XDECREF(cleared);
	PyErr_Restore(type, value, traceback);
	Py_XDECREF(done);
	return done && cleared ? 0 : -1;
}

/* ---- requests ---- */

/* Whether its pickle is its name, and it has no state that changes from call to call. */
static bool is_pickled_by_name(PyObject *function)
{
	if (PyFunction_Check(function) || Py_IS_TYPE(function, &PyType_Type))
		return true;
	if (!PyCFunction_CheckExact(function))
		return false;
	return !PyCFunction_GET_SELF(function) ||
	       PyModule_Check(PyCFunction_GET_SELF(function));
}

/* Nothing is kept at the interpreter's exit: a function keeps its module alive, whose open
 * files are flushed when the module is freed. */
static int keep_pickle(struct state *state, PyObject *function, PyObject *bytes)
{
	if (!state->function_pickles)
		return 0;
	if (PyDict_GET_SIZE(state->function_pickles) >= PICKLES_MOST)
		PyDict_Clear(state->function_pickles);
	return PyDict_SetItem(state->function_pickles, function, bytes);
}

/* The function's pickle: a new reference. */
static PyObject *function_pickle(struct state *state, PyObject *function)
{
	PyObject *bytes = NULL;
	struct encoder *encoder;

	if (state->function_pickles)
		bytes = PyDict_GetItemWithError(state->function_pickles, function);
	if (bytes || PyErr_Occurred())
		return Py_XNewRef(bytes);
	encoder = encoder_take(state);
	if (!encoder)
		return NULL;
	if (encode_object(encoder, function) == 0)
		bytes = PyBytes_FromStringAndSize(encoder->sink->data,
						  (Py_ssize_t)encoder->sink->len);
	encoder_give(state, encoder);
	if (bytes && keep_pickle(state, function, bytes) < 0)
		Py_CLEAR(bytes);
	return bytes;
}

static int encode_bundled(struct encoder *encoder, PyObject *function, PyObject *payload)
{
	PyObject *both = PyTuple_Pack(2, function, payload);
	int r = both ? encode_object(encoder, both) : -1;

	Py_XDECREF(both);
	return r;
}

static int encode_named(struct state *state, struct encoder *encoder, struct request *head,
			PyObject *function, PyObject *payload)
{
	PyObject *name = function_pickle(state, function);
	int r;

	if (!name)
		return -1;
	head->function_len = (uint32_t)PyBytes_GET_SIZE(name);
	r = sink_write(encoder->sink, head, sizeof *head);
	if (r == 0)
		r = sink_write(encoder->sink, PyBytes_AS_STRING(name), head->function_len);
	Py_DECREF(name);
	return r < 0 ? r : encode_object(encoder, payload);
}

int encode_request(struct state *state, struct encoder *encoder, PyObject *function,
		   enum request_kind kind, bool divisible, PyObject *payload)
{
	struct request head = { .kind = kind, .divisible = divisible };

	if (!payload)
		return sink_write(encoder->sink, &head, sizeof head);
	if (is_pickled_by_name(function))
		return encode_named(state, encoder, &head, function, payload);
	head.bundled = true;
	if (sink_write(encoder->sink, &head, sizeof head) < 0)
		return -1;
	return encode_bundled(encoder, function, payload);
}

/* ---- decoding ---- */

PyObject *decode_object(struct state *state, const void *data, size_t len)
{
	PyObject *bytes, *object;

	if (len < VIEW_FROM)
		bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
	else
		bytes = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)len, PyBUF_READ);
	if (!bytes)
		return NULL;
	object = PyObject_CallOneArg(state->loads, bytes);
	Py_DECREF(bytes);
	return object;
}

bool response_failed(const void *data, size_t len)
{
	struct response head;

	if (len < sizeof head)
		return true;
	memcpy(&head, data, sizeof head);
	return head.failed;
}

PyObject *decode_response(struct state *state, const void *data, size_t len, bool *failed,
			  int64_t *elapsed_ns)
{
	struct response head;
	PyObject *bytes, *object;

	if (len < sizeof head) {
		PyErr_SetString(PyExc_EOFError, "the result is truncated");
		return NULL;
	}
	memcpy(&head, data, sizeof head);
	bytes = PyBytes_FromStringAndSize((const char *)data + sizeof head,
					  (Py_ssize_t)(len - sizeof head));
	if (!bytes)
		return NULL;
	object = PyObject_CallOneArg(state->loads, bytes);
	Py_DECREF(bytes);
	*failed = head.failed;
	*elapsed_ns = head.elapsed_ns;
	if (object && head.failed && !PyExceptionInstance_Check(object)) {
		PyErr_Format(PyExc_TypeError, "the failure is not an exception: %R", object);
		Py_CLEAR(object);
	}
	return object;
}

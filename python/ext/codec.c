/* SPDX-License-Identifier: MIT */
/* Calls to bytes and back: see codec.h. */
#include "codec.h"

#include <string.h>

#include "reducers.h"
#include "small.h"

#define SINK_KEEP (4 << 20)	/* an encoder with a larger sink is not kept */
#define MEMO_KEEP 1024		/* bytes; after a longer message the pickler is not kept */
#define VIEW_FROM 4096		/* bytes; longer pickles are parsed without a copy */

/* ---- which pickler ---- */

static PyObject *import_name(const char *module_name, const char *name)
{
	PyObject *module = PyImport_ImportModule(module_name);
	PyObject *object = module ? PyObject_GetAttrString(module, name) : NULL;

	Py_XDECREF(module);
	return object;
}

/* The standard library's own method dumps, or NULL without an exception if it was replaced: by
 * dill, by a program's own reducer. */
static PyObject *plain_dumps(PyObject *pickler)
{
	PyObject *dumps = PyDict_GetItemString(((PyTypeObject *)pickler)->tp_dict, "dumps");
	PyObject *module = dumps ? PyObject_GetAttrString(dumps, "__module__") : NULL;
	bool plain = module && PyUnicode_Check(module) &&
		     !PyUnicode_CompareWithASCIIString(module, "multiprocessing.reduction");

	Py_XDECREF(module);
	PyErr_Clear();
	return plain ? Py_NewRef(dumps) : NULL;
}

static int find_reducers(struct state *state)
{
	PyObject *find = import_name("allcores._stdlib_private", "reducers_of");
	PyObject *tables = find ? PyObject_CallOneArg(find, state->forking_pickler) : NULL;

	state->reducers = tables ? reducers_make(state, tables) : NULL;
	Py_XDECREF(tables);
	Py_XDECREF(find);
	return state->reducers ? 0 : -1;
}

int codec_prepare(struct state *state)
{
	PyObject *reducer;

	if (state->forking_pickler)
		return 0;
	reducer = import_name("multiprocessing.context", "reduction");
	state->forking_pickler = reducer ? PyObject_GetAttrString(reducer, "ForkingPickler") : NULL;
	Py_XDECREF(reducer);
	if (!state->forking_pickler)
		return -1;
	if (PyType_Check(state->forking_pickler))
		state->plain_dumps = plain_dumps(state->forking_pickler);
	return state->plain_dumps ? find_reducers(state) : 0;
}

/* The pickler's loads, a function. A program may replace it at any time. */
static PyObject *call_loads(const struct state *state, PyObject *bytes)
{
	PyObject *loads = NULL;

	if (state->plain_dumps) /* so the pickler is a class */
		loads = PyDict_GetItemWithError(((PyTypeObject *)state->forking_pickler)->tp_dict,
						state->str_loads);
	if (loads && PyCFunction_Check(loads)) /* pickle.loads, found in a tenth of the time */
		return PyObject_CallOneArg(loads, bytes);
	PyErr_Clear();
	return PyObject_CallMethodOneArg(state->forking_pickler, state->str_loads, bytes);
}

/* A program may replace dumps at any time. */
static bool dumps_plainly(const struct state *state)
{
	return state->plain_dumps &&
	       PyDict_GetItemWithError(((PyTypeObject *)state->forking_pickler)->tp_dict,
				       state->str_dumps) == state->plain_dumps;
}

/* ---- the encoder ---- */

/* The pickler is kept from message to message: making one costs several times what a small
 * pickle does. */
static int make_pickler(struct encoder *encoder)
{
	encoder->pickler = PyObject_CallFunction(encoder->state->forking_pickler, "Oi",
						 encoder->sink, 5);
	if (!encoder->pickler ||
	    PyObject_SetAttrString(encoder->pickler, "dispatch_table", encoder->state->reducers) < 0)
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
	encoder->state = state;
	encoder->sink = (struct sink *)state->sink_type->tp_alloc(state->sink_type, 0);
	if (encoder->sink)
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
	return encoder;
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

static int encode_plainly(struct encoder *encoder, PyObject *object)
{
	PyObject *done, *cleared, *type, *value, *traceback;

	if (!encoder->dump && make_pickler(encoder) < 0) {
		free_pickler(encoder);
		return -1;
	}
	done = PyObject_CallOneArg(encoder->dump, object);
	/* Also after a failure, whose exception stays set: the memo holds references. */
	PyErr_Fetch(&type, &value, &traceback);
	cleared = PyObject_CallNoArgs(encoder->clear_memo);
	Py_XDECREF(cleared);
	PyErr_Restore(type, value, traceback);
	Py_XDECREF(done);
	return done && cleared ? 0 : -1;
}

static int encode_by_dumps(struct encoder *encoder, PyObject *object)
{
	PyObject *data = PyObject_CallMethodOneArg(encoder->state->forking_pickler,
						   encoder->state->str_dumps, object);
	Py_buffer view;
	int r;

	if (!data)
		return -1;
	r = PyObject_GetBuffer(data, &view, PyBUF_SIMPLE);
	if (r == 0) {
		r = sink_write(encoder->sink, view.buf, (size_t)view.len);
		PyBuffer_Release(&view);
	}
	Py_DECREF(data);
	return r;
}

int encode_object(struct encoder *encoder, PyObject *object)
{
	return dumps_plainly(encoder->state) ? encode_plainly(encoder, object) :
					       encode_by_dumps(encoder, object);
}

/* A program's own dumps sees all objects. */
int encode_value(struct encoder *encoder, PyObject *value, bool *small)
{
	int r = dumps_plainly(encoder->state) ? small_encode(encoder->sink, value) : 0;

	*small = r == 1;
	if (r)
		return r < 0 ? -1 : 0;
	return encode_object(encoder, value);
}

/* ---- names ---- */

/* A pickle, and simple enough to be taken apart again: protocol 4, GLOBAL, module and qualified name
 * in a line each, STOP. */
#define NAME_PROTOCOL "\x80\x04"
#define NAME_BEGIN NAME_PROTOCOL "c"
#define NAME_END "\n."

PyObject *look_up_name(PyObject *module, PyObject *qualname)
{
	PyObject *found = PyDict_GetItemWithError(PyImport_GetModuleDict(), module);

	if (found && PyModule_CheckExact(found))
		found = PyDict_GetItemWithError(PyModule_GetDict(found), qualname);
	else
		found = NULL;
	if (!found)
		PyErr_Clear();
	return found;
}

/* The parts of a qualified name with dots, one by one, as pickle finds them. */
static bool means_by_parts(PyObject *module, PyObject *qualname, PyObject *callable)
{
	PyObject *dot = PyUnicode_FromString(".");
	PyObject *parts = dot ? PyUnicode_Split(qualname, dot, -1) : NULL;
	PyObject *at = parts ? Py_XNewRef(look_up_name(module, PyList_GET_ITEM(parts, 0))) : NULL;

	for (Py_ssize_t i = 1; at && i < PyList_GET_SIZE(parts); i++)
		Py_SETREF(at, PyObject_GetAttr(at, PyList_GET_ITEM(parts, i)));
	PyErr_Clear();
	Py_XDECREF(at); /* something else holds it, if it is the callable */
	Py_XDECREF(parts);
	Py_XDECREF(dot);
	return at == callable;
}

/* Whether its pickle is its name, and it has no state that changes from call to call. */
static bool pickles_by_name(PyObject *callable)
{
	if (PyFunction_Check(callable) || Py_IS_TYPE(callable, &PyType_Type))
		return true;
	if (!PyCFunction_CheckExact(callable))
		return false;
	return !PyCFunction_GET_SELF(callable) ||
	       PyModule_Check(PyCFunction_GET_SELF(callable));
}

/* New references, or NULL without an exception. */
static void names_of(struct state *state, PyObject *callable, PyObject **module,
		     PyObject **qualname)
{
	if (PyFunction_Check(callable)) {
		*module = Py_XNewRef(((PyFunctionObject *)callable)->func_module);
		*qualname = Py_XNewRef(((PyFunctionObject *)callable)->func_qualname);
		return;
	}
	*module = PyObject_GetAttr(callable, state->str_module);
	*qualname = *module ? PyObject_GetAttr(callable, state->str_qualname) : NULL;
	PyErr_Clear();
}

static bool is_line(PyObject *text)
{
	return PyUnicode_CheckExact(text) &&
	       PyUnicode_FindChar(text, '\n', 0, PyUnicode_GET_LENGTH(text), 1) == -1;
}

/* The pickle of a name, or NULL without an exception. */
static PyObject *make_name(PyObject *module, PyObject *qualname)
{
	PyObject *text = NULL, *utf8, *name = NULL;

	if (is_line(module) && is_line(qualname))
		text = PyUnicode_FromFormat("c%U\n%U\n.", module, qualname);
	utf8 = text ? PyUnicode_AsUTF8String(text) : NULL;
	if (utf8)
		name = PyBytes_FromString(NAME_PROTOCOL);
	if (name)
		PyBytes_Concat(&name, utf8);
	Py_XDECREF(utf8);
	Py_XDECREF(text);
	PyErr_Clear();
	return name;
}

/* Functions in C make the text of their name anew each time. */
static bool is_same(PyObject *text, PyObject *last)
{
	return text == last || (last && PyUnicode_Check(text) && PyUnicode_Check(last) &&
				PyUnicode_Compare(text, last) == 0);
}

/* Keep the name that was used last: making its pickle takes longer than checking what it means. */
static bool keep_name(struct state *state, PyObject *callable, PyObject *module,
		      PyObject *qualname)
{
	struct name *last = &state->last_name;

	last->callable = callable;
	if (is_same(module, last->module) && is_same(qualname, last->qualname))
		return true;
	Py_XSETREF(last->pickle, make_name(module, qualname));
	Py_XSETREF(last->module, Py_NewRef(module));
	Py_XSETREF(last->qualname, Py_NewRef(qualname));
	if (last->pickle)
		return true;
	Py_CLEAR(last->module);
	last->callable = NULL;
	return false;
}

bool has_name(struct state *state, PyObject *callable)
{
	PyObject *module = NULL, *qualname = NULL;
	bool has = false;

	if (!pickles_by_name(callable) || !dumps_plainly(state))
		return false;
	names_of(state, callable, &module, &qualname);
	if (module && qualname && keep_name(state, callable, module, qualname))
		has = look_up_name(module, qualname) == callable ||
		      means_by_parts(module, qualname, callable);
	Py_XDECREF(module);
	Py_XDECREF(qualname);
	return has;
}

/* Since has_name has looked, user code may have run, and another call may have kept its name. */
static void keep_name_again(struct state *state, PyObject *callable)
{
	PyObject *module = NULL, *qualname = NULL;

	names_of(state, callable, &module, &qualname);
	if (module && qualname)
		keep_name(state, callable, module, qualname);
	Py_XDECREF(module);
	Py_XDECREF(qualname);
}

static int write_name(struct encoder *encoder, PyObject *callable)
{
	const struct name *last = &encoder->state->last_name;

	if (last->callable != callable)
		keep_name_again(encoder->state, callable);
	if (last->callable == callable)
		return sink_write(encoder->sink, PyBytes_AS_STRING(last->pickle),
				  (size_t)PyBytes_GET_SIZE(last->pickle));
	PyErr_Format(PyExc_AttributeError, "%R has lost its name", callable);
	return -1;
}

int decode_name(const char *data, size_t len, PyObject **module, PyObject **qualname)
{
	size_t begin = strlen(NAME_BEGIN), end = strlen(NAME_END);
	const char *line;

	*module = *qualname = NULL;
	line = len > begin + end ? memchr(data + begin, '\n', len - begin - end) : NULL;
	if (line) {
		*module = PyUnicode_FromStringAndSize(data + begin, line - data - (Py_ssize_t)begin);
		*qualname = PyUnicode_FromStringAndSize(line + 1, data + len - end - line - 1);
	} else {
		PyErr_SetString(PyExc_EOFError, "the function's name is truncated");
	}
	if (*module && *qualname) {
		PyUnicode_InternInPlace(module);
		PyUnicode_InternInPlace(qualname);
		return 0;
	}
	Py_CLEAR(*module);
	Py_CLEAR(*qualname);
	return -1;
}

/* ---- requests ---- */

static int encode_pair(struct encoder *encoder, PyObject *callable, PyObject *payload)
{
	PyObject *both = PyTuple_Pack(2, callable, payload);
	int r = both ? encode_object(encoder, both) : -1;

	Py_XDECREF(both);
	return r;
}

int encode_request(struct encoder *encoder, PyObject *callable, enum function_place place,
		   enum request_kind kind, bool divisible, PyObject *payload)
{
	struct request head = { .kind = kind, .place = place, .divisible = divisible };
	struct sink *sink = encoder->sink;
	size_t at = sink->len;

	if (sink_write(sink, &head, sizeof head) < 0)
		return -1;
	if (place == FUNCTION_IN_PAYLOAD)
		return encode_pair(encoder, callable, payload);
	if (place == FUNCTION_NAMED) {
		if (write_name(encoder, callable) < 0)
			return -1;
		head.name_len = (uint32_t)(sink->len - at - sizeof head);
	}
	if (encode_value(encoder, payload, &head.small) < 0)
		return -1;
	memcpy(sink->data + at, &head, sizeof head);
	return 0;
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
	object = call_loads(state, bytes);
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

/* The pickle is copied to private memory before it is parsed. */
static PyObject *unpickle_copy(struct state *state, const void *data, size_t len)
{
	PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len), *object = NULL;

	if (bytes)
		object = PyObject_CallMethodOneArg(state->forking_pickler, state->str_loads,
						   bytes);
	Py_XDECREF(bytes);
	return object;
}

PyObject *decode_response(struct state *state, const void *data, size_t len,
			  struct response *head)
{
	PyObject *object;

	if (len < sizeof *head) {
		PyErr_SetString(PyExc_EOFError, "the result is truncated");
		return NULL;
	}
	memcpy(head, data, sizeof *head);
	data = (const char *)data + sizeof *head;
	len -= sizeof *head;
	object = head->small ? small_decode(data, len) : unpickle_copy(state, data, len);
	if (object && head->failed && !PyExceptionInstance_Check(object)) {
		PyErr_Format(PyExc_TypeError, "the failure is not an exception but %.200s",
			     Py_TYPE(object)->tp_name);
		Py_CLEAR(object);
	}
	return object;
}

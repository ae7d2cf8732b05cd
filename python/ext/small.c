/* SPDX-License-Identifier: MIT */
/*
 * See small.h. A value is a tag and what follows it, numbers as they lie in memory:
 *	INT (int64_t), FLOAT		the number
 *	STR (UTF-8), BYTES		uint8_t length, the bytes
 *	TUPLE, LIST			uint32_t count, the items
 */
#include "small.h"

#include <string.h>

#define NESTED_MOST 5		/* tuples or a list within one another */
#define ENCODING_MOST (4 << 20)	/* bytes, about */

enum tag { NONE, FALSE, TRUE, INT, FLOAT, STR, BYTES, TUPLE, LIST };

struct encoding {
	struct sink *sink;
	size_t most;		/* of sink->len */
	unsigned nested;	/* values that the next one is in */
};

struct decoding {
	const uint8_t *at, *end;
	unsigned nested;
};

/* ---- encoding: each function returns what small_encode does ---- */

static int encode_value(struct encoding *encoding, PyObject *object);

static inline int put(struct encoding *encoding, enum tag tag, const void *data, size_t len)
{
	struct sink *sink = encoding->sink;

	if (sink->capacity - sink->len < 1 + len && sink_reserve(sink, 1 + len) < 0)
		return -1;
	sink->data[sink->len] = (char)tag;
	memcpy(sink->data + sink->len + 1, data, len);
	sink->len += 1 + len;
	return 1;
}

static int encode_int(struct encoding *encoding, PyObject *object)
{
	int overflow;
	int64_t value = PyLong_AsLongLongAndOverflow(object, &overflow);

	return overflow ? 0 : put(encoding, INT, &value, sizeof value);
}

static int encode_bytes(struct encoding *encoding, enum tag tag, const void *data, Py_ssize_t len)
{
	uint8_t short_len = (uint8_t)len;

	if (len > UINT8_MAX)
		return 0;
	if (put(encoding, tag, &short_len, sizeof short_len) < 0)
		return -1;
	return sink_write(encoding->sink, data, short_len) < 0 ? -1 : 1;
}

static int encode_str(struct encoding *encoding, PyObject *object)
{
	Py_ssize_t len = PyUnicode_GET_LENGTH(object);
	PyObject *bytes;
	int r;

	if (len > UINT8_MAX)
		return 0;
	if (PyUnicode_IS_COMPACT_ASCII(object))
		return encode_bytes(encoding, STR, PyUnicode_DATA(object), len);
	/* Not PyUnicode_AsUTF8AndSize, which keeps a copy in the user's string. */
	bytes = PyUnicode_AsUTF8String(object);
	if (!bytes) {
		PyErr_Clear(); /* half of a surrogate pair, which pickle can write */
		return 0;
	}
	r = encode_bytes(encoding, STR, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
	Py_DECREF(bytes);
	return r;
}

static int encode_items(struct encoding *encoding, enum tag tag, PyObject *const *items,
			Py_ssize_t n)
{
	uint32_t count = (uint32_t)n;
	int r;

	if (n > UINT32_MAX || encoding->nested == NESTED_MOST)
		return 0;
	r = put(encoding, tag, &count, sizeof count);
	encoding->nested++;
	for (uint32_t i = 0; r == 1 && i < count; i++)
		r = encoding->sink->len > encoding->most ? 0 : encode_value(encoding, items[i]);
	encoding->nested--;
	return r;
}

static int encode_value(struct encoding *encoding, PyObject *object)
{
	if (PyLong_CheckExact(object))
		return encode_int(encoding, object);
	if (PyUnicode_CheckExact(object))
		return encode_str(encoding, object);
	if (PyTuple_CheckExact(object))
		return encode_items(encoding, TUPLE, ((PyTupleObject *)object)->ob_item,
				    PyTuple_GET_SIZE(object));
	if (PyFloat_CheckExact(object))
		return put(encoding, FLOAT, &((PyFloatObject *)object)->ob_fval, sizeof(double));
	if (object == Py_None)
		return put(encoding, NONE, "", 0);
	if (PyBool_Check(object))
		return put(encoding, object == Py_True ? TRUE : FALSE, "", 0);
	if (PyBytes_CheckExact(object))
		return encode_bytes(encoding, BYTES, PyBytes_AS_STRING(object),
				    PyBytes_GET_SIZE(object));
	if (PyList_CheckExact(object) && !encoding->nested)
		return encode_items(encoding, LIST, ((PyListObject *)object)->ob_item,
				    PyList_GET_SIZE(object));
	return 0;
}

int small_encode(struct sink *sink, PyObject *object)
{
	struct encoding encoding = { .sink = sink, .most = sink->len + ENCODING_MOST };
	size_t before = sink->len;
	int r = encode_value(&encoding, object);

	if (r != 1)
		sink->len = before;
	return r;
}

/* ---- decoding ---- */

static PyObject *decode_value(struct decoding *decoding);

static void *refuse(void)
{
	PyErr_SetString(PyExc_ValueError, "the value is truncated or damaged");
	return NULL;
}

static inline bool get(struct decoding *decoding, void *data, size_t len)
{
	if ((size_t)(decoding->end - decoding->at) < len)
		return refuse();
	memcpy(data, decoding->at, len);
	decoding->at += len;
	return true;
}

static PyObject *decode_bytes(struct decoding *decoding, enum tag tag)
{
	char bytes[UINT8_MAX];
	uint8_t len;

	if (!get(decoding, &len, sizeof len) || !get(decoding, bytes, len))
		return NULL;
	return tag == STR ? PyUnicode_DecodeUTF8(bytes, len, NULL)
			  : PyBytes_FromStringAndSize(bytes, len);
}

static int decode_items(struct decoding *decoding, PyObject **items, uint32_t count)
{
	decoding->nested++;
	for (uint32_t i = 0; i < count; i++) {
		items[i] = decode_value(decoding);
		if (!items[i])
			return -1;
	}
	decoding->nested--;
	return 0;
}

static PyObject *decode_sequence(struct decoding *decoding, enum tag tag)
{
	PyObject *sequence;
	uint32_t count;

	if (!get(decoding, &count, sizeof count))
		return NULL;
	/* Each item is a byte at least: a wrong count takes no memory. */
	if (count > (size_t)(decoding->end - decoding->at) || decoding->nested == NESTED_MOST)
		return refuse();
	sequence = tag == LIST ? PyList_New(count) : PyTuple_New(count);
	/* The garbage collector would do so, once it has looked into the tuple. */
	if (sequence && tag == TUPLE && count)
		PyObject_GC_UnTrack(sequence);
	if (sequence && decode_items(decoding, tag == LIST ?
					((PyListObject *)sequence)->ob_item :
					((PyTupleObject *)sequence)->ob_item, count) < 0)
		Py_CLEAR(sequence);
	return sequence;
}

static PyObject *decode_value(struct decoding *decoding)
{
	int64_t integer;
	double real;
	uint8_t tag;

	if (!get(decoding, &tag, sizeof tag))
		return NULL;
	switch (tag) {
	case NONE:
		Py_RETURN_NONE;
	case FALSE:
		Py_RETURN_FALSE;
	case TRUE:
		Py_RETURN_TRUE;
	case INT:
		return get(decoding, &integer, sizeof integer) ? PyLong_FromLongLong(integer) : NULL;
	case FLOAT:
		return get(decoding, &real, sizeof real) ? PyFloat_FromDouble(real) : NULL;
	case STR:
	case BYTES:
		return decode_bytes(decoding, tag);
	case TUPLE:
		return decode_sequence(decoding, tag);
	case LIST:
		return decoding->nested ? refuse() : decode_sequence(decoding, tag);
	}
	return refuse();
}

PyObject *small_decode(const void *data, size_t len)
{
	struct decoding decoding = { .at = data, .end = (const uint8_t *)data + len };
	PyObject *object = decode_value(&decoding);

	if (object && decoding.at != decoding.end) {
		Py_DECREF(object);
		return refuse();
	}
	return object;
}

bool small_items_open(struct small_items *items, const void *data, size_t len)
{
	uint8_t tag = len ? *(const uint8_t *)data : NONE;

	if ((tag != LIST && tag != TUPLE) || len < 1 + sizeof items->left)
		return false;
	memcpy(&items->left, (const uint8_t *)data + 1, sizeof items->left);
	items->at = (const uint8_t *)data + 1 + sizeof items->left;
	items->end = (const uint8_t *)data + len;
	return true;
}

PyObject *small_items_next(struct small_items *items)
{
	struct decoding decoding = { .at = items->at, .end = items->end, .nested = 1 };
	PyObject *item = items->left ? decode_value(&decoding) : NULL;

	items->left -= item != NULL;
	items->at = decoding.at;
	return item;
}

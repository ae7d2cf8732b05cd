/* SPDX-License-Identifier: MIT */
/*
 * How a call is written as bytes.
 *
 * A request: struct request, the function's name where it has one, the payload.
 * - A function that pickles by name is written as that pickle, and only while its name means this
 *   very function: that is looked up for each call, by the owner and by the worker.
 * - Any other callable has state, which each call gets anew. That of a single call is pickled
 *   together with the payload. That of a map is pickled once and bound to its calls (function.h).
 * - The payload is an object: an argument tuple, (args, kwds), an item, or a sequence of items.
 * A response: struct response, then an object: the value, a list of values, or
 * an exception.
 * Payloads and values are written by small_encode (small.h) where it can, else as one pickle.
 */
#ifndef CODEC_H
#define CODEC_H

#include "sink.h"

enum request_kind {
	REQUEST_ARGS,		/* f(*payload) */
	REQUEST_ARGS_KWDS,	/* f(*payload[0], **payload[1]) */
	REQUEST_ITEM,		/* f(payload) */
	REQUEST_STAR_ITEM,	/* f(*payload) */
	REQUEST_ITEMS,		/* [f(x) for x in payload] */
	REQUEST_STAR_ITEMS,	/* [f(*x) for x in payload] */
};

/* Where the worker finds the function. */
enum function_place {
	FUNCTION_NAMED,		/* in front of the payload: a pickle of its name */
	FUNCTION_IN_PAYLOAD,	/* the payload is (function, payload) */
	FUNCTION_BOUND,		/* in the data that is bound to the call: its pickle */
};

struct request {
	uint8_t kind, place;
	bool divisible;		/* the worker asks ac_call_next_unit before each item */
	bool small;		/* small_encode has written the payload */
	uint32_t name_len;
};

struct response {
	bool failed;		/* the object is an exception */
	bool small;		/* small_encode has written it */
	bool has_descriptors;	/* which somebody has to take, see _sent_descriptors.py */
	uint8_t unused[5];
	int64_t elapsed_ns;	/* of a list of items: their time, */
	int64_t outside_ns;	/* and that of decoding function and items */
};

/* The number that every call has in the engine: which function to call, the request says. */
#define ANY_CALL ((ac_call_fn *)1)

struct encoder {
	struct state *state;
	PyObject *pickler, *dump, *clear_memo;
	struct sink *sink;
};

/* Before the first call of a process: find the pickler that is to be used. As in the standard
 * library, a reducer that a program sets in its context counts from then on only if it was set
 * before. 0, or -1 with an exception set. */
int codec_prepare(struct state *state);

/* An encoder with an empty sink, for one message. NULL with an exception set. */
struct encoder *encoder_take(struct state *state);
/* Give it back, to be used for the next message. */
void encoder_give(struct state *state, struct encoder *encoder);
void encoder_free(struct encoder *encoder);
/* Append to the sink, as a pickle. -1 with an exception set. */
int encode_object(struct encoder *encoder, PyObject *object);
/* Append to the sink. *small: by small_encode. -1 with an exception set. */
int encode_value(struct encoder *encoder, PyObject *value, bool *small);

/* Whether this callable is written as its name: it pickles so, and its name means this object now. */
bool has_name(struct state *state, PyObject *callable);
/* Append a whole request. FUNCTION_NAMED only right after has_name. */
int encode_request(struct encoder *encoder, PyObject *callable, enum function_place place,
		   enum request_kind kind, bool divisible, PyObject *payload);

/* The name in a request: module and qualname, new references. -1 with an exception set. */
int decode_name(const char *data, size_t len, PyObject **module, PyObject **qualname);
/* What a name means now: a borrowed reference. NULL, without an exception: that takes more than
 * dictionary look-ups. */
PyObject *look_up_name(PyObject *module, PyObject *qualname);

/* Unpickle: a new reference. NULL with an exception set. */
PyObject *decode_object(struct state *state, const void *data, size_t len);
/* Whether a response is an exception. Decoding a truncated response raises one. */
bool response_failed(const void *data, size_t len);
bool response_has_descriptors(const void *data, size_t len);
/* The object of a response: a new reference, or NULL with an exception set. The pickle is
 * copied to private memory before it is parsed. */
PyObject *decode_response(struct state *state, const void *data, size_t len,
			  struct response *head);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * How a call is written as bytes.
 *
 * A request: struct request, the function, the payload.
 * - The function is a pickle of its own when it is one that pickles by name: written
 *   once, known by identity to the owner and by these bytes to the worker. Any other callable
 *   has state, which each call gets anew: it is pickled together with the payload.
 * - The payload is one pickle: an argument tuple, (args, kwds), an item, or a sequence of items.
 * A response: struct response, then one pickle: the value, a list of values, or
 * an exception.
 */
#ifndef CODEC_H
#define CODEC_H

#include "ext.h"

enum request_kind {
	REQUEST_ARGS,		/* f(*payload) */
	REQUEST_ARGS_KWDS,	/* f(*payload[0], **payload[1]) */
	REQUEST_ITEM,		/* f(payload) */
	REQUEST_ITEMS,		/* [f(x) for x in payload] */
	REQUEST_STAR_ITEMS,	/* [f(*x) for x in payload] */
	REQUEST_NOTHING,	/* no payload: stands for a call that could not be pickled */
};

struct request {
	uint8_t kind;
	bool bundled;		/* the payload is (function, payload) */
	bool divisible;		/* the worker asks ac_call_next_unit before each item */
	uint8_t unused;
	uint32_t function_len;
};

struct response {
	bool failed;		/* the pickle is an exception */
	uint8_t unused[7];
	int64_t elapsed_ns;	/* of a list of items */
};

extern PyType_Spec sink_spec;

/* The number that every call has in the engine: which function to call, the request says. */
#define ANY_CALL ((ac_call_fn *)1)

/* A growing buffer to which a pickler writes: a Python object with a method write. */
struct sink {
	PyObject_HEAD
	char *data;
	size_t len, capacity;
};

struct encoder {
	PyObject *pickler, *dump, *clear_memo;
	struct sink *sink;
};

/* An encoder with an empty sink, for one message. NULL with an exception set. */
struct encoder *encoder_take(struct state *state);
/* Give it back, to be used for the next message. */
void encoder_give(struct state *state, struct encoder *encoder);
void encoder_free(struct encoder *encoder);
/* These append to the sink. -1 with an exception set. */
int sink_write(struct sink *sink, const void *data, size_t len);
int encode_object(struct encoder *encoder, PyObject *object);
/* Append a whole request. payload NULL: REQUEST_NOTHING. */
int encode_request(struct state *state, struct encoder *encoder, PyObject *function,
		   enum request_kind kind, bool divisible, PyObject *payload);

/* Unpickle: a new reference. NULL with an exception set. */
PyObject *decode_object(struct state *state, const void *data, size_t len);
/* Whether a response is an exception. Decoding a truncated response raises one. */
bool response_failed(const void *data, size_t len);
/* The object of a response: a new reference, or NULL with an exception set. The pickle is
 * copied to private memory before it is parsed. */
PyObject *decode_response(struct state *state, const void *data, size_t len, bool *failed,
			  int64_t *elapsed_ns);

#endif

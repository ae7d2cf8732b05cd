/* SPDX-License-Identifier: MIT */
/*
 * Small values as bytes, without pickle, which takes ten times as long for one number: None, bool,
 * int of 64 bits, float, str and bytes up to 255 bytes, and tuples of these, nested a few times. A
 * list of such values is one too, but not within another value: lists can be changed, so it shows
 * whether two places hold the same one, as pickle keeps it. Only the very types count, no subclasses.
 *
 * A value that is in two places is written twice, where pickle refers to the first. That is why
 * strings, and encodings as a whole, have a largest size.
 */
#ifndef SMALL_H
#define SMALL_H

#include "sink.h"

/* Append object to the sink. 1: done; 0: it is no small value, and nothing was appended; -1 with
 * an exception set. */
int small_encode(struct sink *sink, PyObject *object);

/* The object: a new reference, or NULL with an exception set, ValueError if small_encode has not
 * written this. Each byte is read once, so another process may change them meanwhile. */
PyObject *small_decode(const void *data, size_t len);

/* A list or a tuple that small_encode has written, decoded item by item. */
struct small_items {
	const uint8_t *at, *end;
	uint32_t left;
};

/* false: these bytes are neither. */
bool small_items_open(struct small_items *items, const void *data, size_t len);
/* A new reference, or NULL: at the end, or with an exception set. */
PyObject *small_items_next(struct small_items *items);

#endif

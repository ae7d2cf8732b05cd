/* SPDX-License-Identifier: MIT */
/*
 * Callbacks that are due, first in, first out. An entry is part of the task whose callback is to
 * be called. The pool's lock guards all of this.
 */
#ifndef AC__CALLBACKS_H
#define AC__CALLBACKS_H

#include "base.h"

struct ac__callback {
	struct ac__callback *next;
};

struct ac__callbacks {
	struct ac__callback *first, **last; /* due and not called yet */
	unsigned pending;	/* tasks whose callback has not returned yet, due or not */
	bool running;		/* a thread is calling them: callbacks run one at a time */
};

static inline void ac__callbacks_init(struct ac__callbacks *callbacks)
{
	*callbacks = (struct ac__callbacks){ .last = &callbacks->first };
}

static inline void ac__callbacks_push(struct ac__callbacks *callbacks,
				      struct ac__callback *callback)
{
	callback->next = NULL;
	*callbacks->last = callback;
	callbacks->last = &callback->next;
}

/* The queue is not empty. */
static inline struct ac__callback *ac__callbacks_pop(struct ac__callbacks *callbacks)
{
	struct ac__callback *callback = callbacks->first;

	callbacks->first = callback->next;
	if (!callbacks->first)
		callbacks->last = &callbacks->first;
	return callback;
}

#endif

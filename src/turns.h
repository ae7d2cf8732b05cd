/* SPDX-License-Identifier: MIT */
/*
 * Turns: work that cannot be published yet waits in sources. All single calls of a pool are one
 * source, each map is one, each stream is one. The sources take turns, and within a source
 * first come is first served. So a call waits for what is out already and for one piece of each
 * other source, however much that one has. The pool's lock guards all of this.
 */
#ifndef AC__TURNS_H
#define AC__TURNS_H

#include "base.h"

struct ac__job_ops;

struct ac__source {
	struct ac__job *first, **last;	/* those that wait, in the order in which they came */
	struct ac__source *next, **at;	/* among the sources that wait; at NULL: not there */
	unsigned held;	/* its pieces whose argument is being copied: the next must not overtake them */
};

/* A job: what was handed in and is not over. It is cut into pieces (see slots.h). */
struct ac__job {
	const struct ac__job_ops *ops;
	struct ac__source *source;
	struct ac__job *next, **at; /* in its source, while pieces are left; at NULL: not there */
};

struct ac__turns {
	struct ac__source *first, **last;
};

void ac__turns_init(struct ac__turns *turns);
void ac__source_init(struct ac__source *source);

/* Its next piece may go out at once: no earlier one waits or is on its way. */
static inline bool ac__source_is_idle(const struct ac__source *source)
{
	return !source->first && !source->held;
}

/* Behind the other jobs of its source. */
void ac__turns_enqueue(struct ac__turns *turns, struct ac__job *job);
/* Allowed for a job that is in no source. */
void ac__turns_dequeue(struct ac__turns *turns, struct ac__job *job);
/* The source goes behind the others; or it leaves, where nothing of it may go out now. */
void ac__turns_pass(struct ac__turns *turns, struct ac__source *source);

#endif

/* SPDX-License-Identifier: MIT */
/* Two kinds of queue: sources that wait for a turn, and each source's jobs. See the header. */
#include "turns.h"

void ac__turns_init(struct ac__turns *turns)
{
	*turns = (struct ac__turns){ .last = &turns->first };
}

void ac__source_init(struct ac__source *source)
{
	*source = (struct ac__source){ .last = &source->first };
}

static void add_source(struct ac__turns *turns, struct ac__source *source)
{
	source->next = NULL;
	source->at = turns->last;
	*turns->last = source;
	turns->last = &source->next;
}

static void remove_source(struct ac__turns *turns, struct ac__source *source)
{
	if (!source->at)
		return;
	*source->at = source->next;
	if (source->next)
		source->next->at = source->at;
	else
		turns->last = source->at;
	source->at = NULL;
}

void ac__turns_pass(struct ac__turns *turns, struct ac__source *source)
{
	remove_source(turns, source);
	if (source->first && !source->held)
		add_source(turns, source);
}

void ac__turns_enqueue(struct ac__turns *turns, struct ac__job *job)
{
	struct ac__source *source = job->source;

	job->next = NULL;
	job->at = source->last;
	*source->last = job;
	source->last = &job->next;
	if (!source->at && !source->held)
		add_source(turns, source);
}

void ac__turns_dequeue(struct ac__turns *turns, struct ac__job *job)
{
	struct ac__source *source = job->source;

	if (!job->at)
		return;
	*job->at = job->next;
	if (job->next)
		job->next->at = job->at;
	else
		source->last = job->at;
	job->at = NULL;
	if (!source->first)
		remove_source(turns, source);
}

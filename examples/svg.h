/* SPDX-License-Identifier: MIT */
/*
 * A picture of what the workers of some pools did: a line for each worker, a
 * rectangle for each piece of work. One SVG file that any browser shows.
 */
#ifndef SVG_H
#define SVG_H

#include <stdint.h>

#include <allcores.h>

struct svg_panel {
	const char *title, *caption;	/* plain text, free of < and & */
	const struct ac_trace_event *events; /* ordered by worker and time */
	int count, workers;
	int64_t start_ns, end_ns;	/* the time axis, CLOCK_MONOTONIC */
	int64_t floor_ns;		/* after start_ns; where the dashed line stands */
	const char *dark, *light;	/* neighbours' colours, to be told apart in grey too */
};

/* 0, or -errno when the file could not be written. */
int svg_write(const char *path, const char *title, const char *subtitle,
	      const struct svg_panel *panels, int count);

#endif

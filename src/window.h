/* SPDX-License-Identifier: MIT */
/*
 * The window: how many pieces may be out at a time. A piece is out from its publication until it is
 * collected. Another source's work can't overtake pieces that are out, but it can overtake those
 * that wait. So no more pieces are out than take about 20 ms, and a few for each worker. After a pause the window begins small; it doubles while the pieces are collected
 * faster than that. With short tasks all slots are in use within a millisecond.
 */
#ifndef AC__WINDOW_H
#define AC__WINDOW_H

#include "base.h"

struct ac__window {
	uint32_t size, first, least, most;
	uint64_t epoch_collected;	/* when size was last set: pieces collected, */
	int64_t epoch_at;		/* and the time */
	int64_t collected_at;		/* when a piece was last collected */
};

/* most: slots that there are. */
void ac__window_init(struct ac__window *window, unsigned workers, uint32_t most);
/* A piece goes out, and it is the only one. collected: pieces that the pool has ever collected. */
void ac__window_begin(struct ac__window *window, uint64_t collected);
/* Pieces were collected. */
void ac__window_adapt(struct ac__window *window, uint64_t collected);

#endif

/* SPDX-License-Identifier: MIT */
/* How the window follows from how fast pieces end: see the header. */
#include "window.h"

#include "sys.h"

/* The pieces that are out should take about so long together. */
#define OUT_NS INT64_C(20000000)
#define PAUSE_NS INT64_C(100000000)

static void begin_epoch(struct ac__window *window, uint64_t size, uint64_t collected, int64_t now)
{
	window->size = (uint32_t)AC__MIN(size, window->most);
	window->epoch_at = now;
	window->epoch_collected = collected;
}

/* At least so many keep the workers busy while the owner wakes up and refills. */
void ac__window_init(struct ac__window *window, unsigned workers, uint32_t most)
{
	*window = (struct ac__window){ .first = AC__MIN(8 * workers + 16, most),
				       .least = AC__MIN(4 * workers + 8, most),
				       .most = most };
	window->size = window->first;
}

/* After a pause, what was before says nothing of what begins now. */
void ac__window_begin(struct ac__window *window, uint64_t collected)
{
	int64_t now = ac__sys_now_coarse();
	bool paused = now - window->collected_at > PAUSE_NS;

	begin_epoch(window, paused ? window->first : window->size, collected, now);
}

/* An epoch ends once a whole window was collected; or after a time in which two should have been,
 * and then the size follows from how many were. */
void ac__window_adapt(struct ac__window *window, uint64_t collected)
{
	uint64_t n = collected - window->epoch_collected, size = window->size;
	int64_t now = ac__sys_now_coarse(), took = now - window->epoch_at;

	window->collected_at = now;
	if (took > 2 * OUT_NS)
		size = AC__MAX(2 * n * OUT_NS / (uint64_t)took, window->least);
	else if (n < size)
		return;
	else if (took < OUT_NS)
		size *= 2;
	begin_epoch(window, size, collected, now);
}

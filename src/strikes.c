/* SPDX-License-Identifier: MIT */
/* Counting failed starts and idle ends: see the header. */
#include "strikes.h"

#include <stdio.h>

/* So many failed starts in a row are enough while no worker is ready. */
#define FAILED_STARTS_MOST 3
#define PAUSE_NS INT64_C(1000000000)
#define OUTSIDE_PAUSE_NS INT64_C(10000000) /* the first; each one is twice as long */
#define OUTSIDE_DOUBLINGS_MOST 7
#define OUTSIDE_NS (INT64_C(30) * 1000000000)
#define IDLE_ENDS_MOST 100
#define QUICK_NS INT64_C(1000000000)

/* A process that somebody else ended says nothing of the next one. But whoever does that may never
 * stop: after a while without a ready worker it counts. */
static bool is_excused(struct ac__strikes *strikes, const struct ac__start_failure *failure,
		       int64_t now, int64_t *pause_ns)
{
	unsigned doublings = AC__MIN(strikes->outside_ends, OUTSIDE_DOUBLINGS_MOST);

	if (!strikes->outside_ends++ || failure->any_ready)
		strikes->outside_since = now;
	*pause_ns = AC__MIN(OUTSIDE_PAUSE_NS << doublings, PAUSE_NS);
	return now - strikes->outside_since < OUTSIDE_NS;
}

/*
 * A worker that is ready, or may yet get ready, is worth waiting for. A start that the system
 * refused says nothing of the processes on their way, however often it is refused: the strike
 * is taken back. A process that ended does say something: the others may end in the same
 * way, each excused by the next, so there is one more strike for each seat and no more.
 */
const char *ac__strikes_failed_start(struct ac__strikes *strikes,
				     const struct ac__start_failure *failure, int64_t now,
				     int64_t *pause_ns)
{
	unsigned most = FAILED_STARTS_MOST + failure->workers;

	if (failure->from_outside) {
		if (is_excused(strikes, failure, now, pause_ns))
			return NULL;
		strikes->failed_starts = AC__MAX(strikes->failed_starts, FAILED_STARTS_MOST - 1);
	}
	*pause_ns = 0;
	if (++strikes->failed_starts < FAILED_STARTS_MOST)
		return NULL;
	*pause_ns = PAUSE_NS;
	if (failure->any_ready || (failure->refused && failure->any_coming)) {
		strikes->failed_starts--;
		return NULL;
	}
	if (failure->any_coming && strikes->failed_starts < most)
		return NULL;
	snprintf(strikes->reason, sizeof strikes->reason, "no worker becomes ready: %s",
		 failure->why);
	return strikes->reason;
}

const char *ac__strikes_idle_end(struct ac__strikes *strikes, uint64_t collected, int64_t now,
				 unsigned workers, const char *why)
{
	if (collected != strikes->idle_collected || now - strikes->idle_end_at > QUICK_NS)
		strikes->idle_ends = 0;
	strikes->idle_collected = collected;
	strikes->idle_end_at = now;
	if (++strikes->idle_ends < IDLE_ENDS_MOST + workers)
		return NULL;
	snprintf(strikes->reason, sizeof strikes->reason,
		 "workers end before they take any work: %s", why);
	return strikes->reason;
}

/* SPDX-License-Identifier: MIT */
/*
 * Where threads of the owner sleep. One of them, the collecting thread, sleeps for all on the
 * pool's epoll: results (the bell), ends of processes, time limits. The others sleep privately,
 * each on a futex word of its own, and the collecting thread wakes those whose wait is over. A
 * thread that stops waiting hands the collecting on.
 *
 * The pool's lock guards all of this. Nothing here releases the lock or sleeps: the engine does.
 */
#ifndef AC__SLEEP_H
#define AC__SLEEP_H

#include "fd.h"
#include "ring.h"

/* Tags of the pool's epoll. */
#define AC__TAG_BELL 0
#define AC__TAG_TIMER 1

/* What a thread waits for. */
struct ac__wait {
	bool (*is_over)(void *arg);	/* called under the lock, by any thread */
	void *arg;
	bool helping;	/* the helper thread: it waits for work of its own, not for a result */
};

/* A thread that sleeps privately. */
struct ac__sleeper {
	_Atomic uint32_t woken;
	const struct ac__wait *wait;
	struct ac__sleeper *next;
};

struct ac__sleep {
	struct ac__board *board;
	struct ac__fd bell[2];	/* a pipe: the collecting thread polls the first, workers ring the second */
	int epoll, timer;	/* timer -1 unless an event loop drives the pool */
	struct ac__sleeper *sleepers;
	const struct ac__wait *collector; /* what the collecting thread waits for; NULL: no thread collects */
	int64_t until;			/* the collecting thread sleeps no longer than this */
};

/* Descriptors are written down where a forked child finds them (ac__sleep_let_go). */
int ac__sleep_open(struct ac__sleep *sleep, struct ac__board *board);
void ac__sleep_close(struct ac__sleep *sleep);
/* In a child: close what only the owner needs, and, unless it is a worker, the bell. */
void ac__sleep_let_go(struct ac__sleep *sleep, bool keep_bell);
/* From now on an event loop drives the pool: the timer's descriptor is part of the epoll. */
int ac__sleep_open_timer(struct ac__sleep *sleep);

static inline bool ac__sleep_is_looped(const struct ac__sleep *sleep)
{
	return sleep->timer >= 0;
}

/* ---- the collecting thread ---- */

/* below: ring for a result only when at most so many READY pieces are left; -1: for none. False:
 * do not sleep, something has come since the bell was armed. */
bool ac__sleep_arm(struct ac__sleep *sleep, int64_t below);
void ac__sleep_begin(struct ac__sleep *sleep, const struct ac__wait *wait, int64_t until);
void ac__sleep_end(struct ac__sleep *sleep);
/* No sleep is without end: user code may have closed the bell, which nobody can ring then. */
int64_t ac__sleep_bound(const struct ac__sleep *sleep, int64_t until);
/* Wake the collecting thread, or the event loop. */
void ac__sleep_ring(struct ac__sleep *sleep);

/* ---- the others ---- */

void ac__sleep_add(struct ac__sleep *sleep, struct ac__sleeper *sleeper);
void ac__sleep_remove(struct ac__sleep *sleep, struct ac__sleeper *sleeper);
/* Wake every thread whose wait is over, the collecting one too. */
void ac__sleep_wake_finished(struct ac__sleep *sleep);
/* Where no thread collects, wake one that will. */
void ac__sleep_hand_on(struct ac__sleep *sleep);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Peers for tests: the same function runs in N seats as threads (so that the
 * thread sanitizer sees them) or as forked processes (so that they can be
 * killed). Processes die with the test program, however it ends.
 */
#ifndef AC_TEST_SEATS_H
#define AC_TEST_SEATS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* The thread sanitizer flushes stdout in _exit, has threads of its own, and does not come with a
 * library that is loaded: what tests of these things find under it is about the sanitizer. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifdef UNDER_TSAN
#define SKIP_UNDER_TSAN() skip()
#else
#define SKIP_UNDER_TSAN() ((void)0)
#endif

/* What a peer runs: 0, or non-zero if the test has failed there. */
typedef int seat_fn(unsigned seat, void *arg);

/* For use in peers and in children: cmocka's asserts belong to the test's own thread. */
#define SEAT_CHECK(what)                                                   \
	do {                                                               \
		if (!(what)) {                                             \
			fprintf(stderr, "%s:%d: failed in a peer: %s\n",   \
				__FILE__, __LINE__, #what);                \
			return 1;                                          \
		}                                                          \
	} while (0)

#define SEATS_MOST 16

enum seats_kind { SEATS_THREADS, SEATS_PROCESSES };

struct seats_peer {
	struct seats *seats;
	pthread_t thread;
	pid_t pid;
	int result;
	bool runs;
};

/* Seats 1 to count; seat 0 is the caller's, as the owner's is in a pool. */
struct seats {
	enum seats_kind kind;
	unsigned count;
	seat_fn *fn;
	void *arg;
	struct seats_peer peers[SEATS_MOST + 1];
};

void seats_start(struct seats *seats, enum seats_kind kind, unsigned count,
		 seat_fn *fn, void *arg);
/* Processes only. True: it was killed; false: it had ended by itself (its result is kept). */
bool seats_kill(struct seats *seats, unsigned seat);
void seats_restart(struct seats *seats, unsigned seat);
/* Wait for all. Returns how many failed; killed ones count unless seats_kill did it. */
unsigned seats_join(struct seats *seats);

/*
 * Run fn(arg) in a forked child, which is killed by SIGALRM after so many seconds.
 * Returns its exit code, or -signal.
 */
int seats_in_child(int (*fn)(void *arg), void *arg, unsigned seconds);
/* The same in a child that shares the regions of the group seats_group, as peers that are
 * processes do. */
int seats_in_own_child(int (*fn)(void *arg), void *arg, unsigned seconds);
extern const char seats_group[1];

/* Open descriptors of this process, and its children that are not reaped yet. */
unsigned seats_descriptors(void);
unsigned seats_children(void);

/* Printed, so that a failed run can be repeated with ALLCORES_TEST_SEED. */
uint64_t seats_seed(void);
uint64_t seats_random(uint64_t *seed);

/* Thousands of steps become hundreds under sanitizers that slow things down. */
unsigned seats_scaled(unsigned steps);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What the crash tests share. Each case runs in a forked process of its own,
 * which owns its pools: so a case may crash, hang, be killed or be limited. The
 * program around it counts (TAP), ends what is out of time, and sees that a second after the
 * case none of its processes is left, wherever they went (it is their subreaper).
 */
#ifndef AC_CRASH_H
#define AC_CRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "allcores.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CRASH_SANITIZED 1
#else
#define CRASH_SANITIZED 0
#endif

/* For use in a case, by any thread of the process that runs it: ends the case. */
#define CHECK(what) \
	((what) ? (void)0 : crash_fail(__FILE__, __LINE__, "%s", #what))
#define CHECK_EQ(a, b)                                                        \
	do {                                                                  \
		long long a_ = (long long)(a), b_ = (long long)(b);           \
		if (a_ != b_)                                                 \
			crash_fail(__FILE__, __LINE__, "%s (%lld) == %s (%lld)", \
				   #a, a_, #b, b_);                           \
	} while (0)

/* ---- the program ---- */

/* Words on the command line choose the cases whose names have one of them. */
void crash_begin(int argc, char **argv);
/* Run one case in a process of its own; out of time after so many seconds. */
void crash_case(const char *name, void (*fn)(void *arg), void *arg, unsigned seconds);
/* The exit code. */
int crash_end(void);

/* ---- within a case ---- */

void crash_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4), noreturn));
void crash_skip(const char *why) __attribute__((noreturn));
/* Where the case is: shown if it fails, however it fails. */
void crash_at(const char *format, ...) __attribute__((format(printf, 1, 2)));
void crash_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From ALLCORES_TEST_SEED, or the clock; printed by crash_begin. */
extern uint64_t crash_seed;
uint64_t crash_random(uint64_t *seed);

int64_t crash_now(void);
void crash_sleep(int64_t ns);
/* Keep a processor busy for so long. */
void crash_burn(int64_t ns);

/* What a pool must leave as it was. */
struct crash_print {
	unsigned descriptors, mappings;
	bool children;
};
void crash_print_take(struct crash_print *print);
/* The same again, within a second? */
void crash_print_check(const struct crash_print *before);

/* Submitted = done + failed + cancelled, and nothing waits or runs. */
void crash_check_sum(struct ac_pool *pool, struct ac_pool_stat *stat);
/* So many blocks are held, by anybody, within two seconds. */
void crash_check_blocks(struct ac_pool *pool, unsigned held);
/* All workers READY, within the time; false when they are not. */
bool crash_await_workers(struct ac_pool *pool, int64_t ns);
/* A map and a single call on each worker, with right results. */
void crash_check_usable(struct ac_pool *pool);

/* ---- processes, as the system sees them ---- */

/* Those whose parent is parent: how many, at most most written. */
unsigned crash_children(pid_t parent, pid_t *pids, unsigned most);
/* The pool's only direct child of the owner; 0: none, or a reserve has taken its place. */
pid_t crash_template(pid_t owner);
/* The process that starts the pool's workers now, and the one that will take its place, as far as
 * the owner knows; 0: there is none. */
pid_t crash_template_of(struct ac_pool *pool);
pid_t crash_reserve_of(struct ac_pool *pool);
/* Both are there, within the time; false when they are not. */
bool crash_await_reserve(struct ac_pool *pool, int64_t ns);
/* The workers that this template has forked. */
unsigned crash_workers(pid_t template, pid_t *pids, unsigned most);
/* A state letter as in /proc: 'R', 'S', 'T', 'Z'; 0: it is gone. */
char crash_state(pid_t pid);
/* It is there, and no zombie; it may be stopped. */
bool crash_lives(pid_t pid);
/* Dead (or a zombie), within the time. */
bool crash_await_death(pid_t pid, int64_t ns);
/* A child of ours, which exits with 0 within the time, or the case fails. */
void crash_await_success(pid_t pid, int64_t ns);
/* This process has no child left within the time, or the case fails; with the kernel's leave
 * to adopt orphans (PR_SET_CHILD_SUBREAPER): nor has anybody below. How long that took. */
int64_t crash_await_nobody(int64_t ns);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What the example programs share: a clock, arguments, checks, and the floor:
 * the time that no pool can beat on this machine. Nothing in here is needed to use allcores.
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <stddef.h>
#include <stdint.h>

#define MS INT64_C(1000000)	/* nanoseconds in a millisecond */

int64_t clock_now(void);	/* nanoseconds, CLOCK_MONOTONIC */
void sleep_for(int64_t ns);
double seconds(int64_t ns);

/* End the program with a message if an allcores call failed; otherwise its code. */
#define must(call) must_code((call), #call)
int must_code(int code, const char *call);
/* The same for what a program finds out about its own results. */
void expect(int right, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Zeroed room for count objects, or the end of the program. */
void *room_for(size_t count, size_t size);

/* A number on the command line: its default, then what the user gave. */
struct arg {
	const char *name;
	int value;
	int least;
	const char *help;
};

/* Fill args from the command line in their order, answer --help. Further numbers are
 * allowed if more says what they are. Returns the index in argv of the first of those. */
int args_read(int argc, char **argv, const char *what, struct arg *args, int count,
	      const char *more);
/* One number by itself; ends the program if it is none. */
int arg_number(const char *text, const char *name, int least);

/* The same jobs done one after the other without the library: what the floor is made of. */
struct work {
	int64_t total_ns, longest_ns;
};

void work_add(struct work *work, int64_t ns);
/* The least time for this work when so many jobs can run at once: an even
 * share of it, or its longest job. */
int64_t work_floor(const struct work *work, int at_once);
/* Print time and floor: "who: 0.51 s, floor 0.50 s (...)". */
void work_report(const char *who, int64_t took_ns, const struct work *work, int at_once);

int lesser(int a, int b);

/* The job of several examples: how many primes are below limit? */
int primes_below(int limit);

#endif

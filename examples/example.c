/* SPDX-License-Identifier: MIT */
/*
 * What the example programs share, see example.h.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <allcores.h>

#include "example.h"

int64_t clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 * MS + now.tv_nsec;
}

void sleep_for(int64_t ns)
{
	struct timespec left = { ns / (1000 * MS), ns % (1000 * MS) };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

double seconds(int64_t ns)
{
	return (double)ns / 1e9;
}

int must_code(int code, const char *call)
{
	if (code >= 0)
		return code;
	fprintf(stderr, "%s: %s: %s\n", call, ac_errname(code), ac_strerror(code));
	/* The pool needs no cleaning up: workers end with their owner. */
	exit(EXIT_FAILURE);
}

void expect(int right, const char *format, ...)
{
	va_list args;

	if (right)
		return;
	fputs("wrong: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

void *room_for(size_t count, size_t size)
{
	void *room = calloc(count ? count : 1, size);

	expect(room != NULL, "no memory for %zu objects of %zu bytes", count, size);
	return room;
}

/* ---- The command line ---- */

int arg_number(const char *text, const char *name, int least)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < least || value > INT_MAX) {
		fprintf(stderr, "%s: \"%s\" is not a number from %d to %d; try --help\n",
			name, text, least, INT_MAX);
		exit(2);
	}
	return (int)value;
}

static void print_help(const char *program, const char *what, const struct arg *args, int count,
		       const char *more)
{
	printf("usage: %s", program);
	for (int i = 0; i < count; i++)
		printf(" [%s]", args[i].name);
	printf("%s%s%s\n\n%s\n\n", more ? " [" : "", more ? more : "", more ? "...]" : "", what);
	for (int i = 0; i < count; i++)
		printf("  %-10s %s (default: %d)\n", args[i].name, args[i].help, args[i].value);
}

int args_read(int argc, char **argv, const char *what, struct arg *args, int count,
	      const char *more)
{
	int i;

	for (i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help(argv[0], what, args, count, more);
			exit(EXIT_SUCCESS);
		}
	for (i = 0; i < count && i + 1 < argc; i++)
		args[i].value = arg_number(argv[i + 1], args[i].name, args[i].least);
	if (i + 1 < argc && !more) {
		fprintf(stderr, "%s: \"%s\" is one argument too many; try --help\n",
			argv[0], argv[i + 1]);
		exit(2);
	}
	return i + 1;
}

/* ---- The floor ---- */

void work_add(struct work *work, int64_t ns)
{
	work->total_ns += ns;
	if (ns > work->longest_ns)
		work->longest_ns = ns;
}

int64_t work_floor(const struct work *work, int at_once)
{
	int64_t share = work->total_ns / at_once;

	return share > work->longest_ns ? share : work->longest_ns;
}

void work_report(const char *who, int64_t took_ns, const struct work *work, int at_once)
{
	int64_t floor = work_floor(work, at_once);

	printf("%s: %.3f s, floor %.3f s ", who, seconds(took_ns), seconds(floor));
	if (floor == work->longest_ns)
		printf("(the longest job)");
	else
		printf("(%.3f s of work, %d at once)", seconds(work->total_ns), at_once);
	printf(": %.2f times the floor, %.2f times faster than one core\n",
	       (double)took_ns / (double)floor, (double)work->total_ns / (double)took_ns);
}

int lesser(int a, int b)
{
	return a < b ? a : b;
}

/* ---- The sieve ---- */

/*
 * A bit for each odd number: small enough for the cache of one core, so that
 * more cores don't just wait for the same memory.
 */
int primes_below(int limit)
{
	int half = limit / 2, count = limit > 2;
	unsigned char *composite = room_for((size_t)half / 8 + 1, 1);

	for (int64_t i = 1; i < half; i++) {
		int64_t prime = 2 * i + 1;

		if (composite[i / 8] >> i % 8 & 1)
			continue;
		count++;
		for (int64_t k = prime * prime / 2; k < half; k += prime)
			composite[k / 8] |= (unsigned char)(1 << k % 8);
	}
	free(composite);
	return count;
}

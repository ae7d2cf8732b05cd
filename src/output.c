/* SPDX-License-Identifier: MIT */
/* Buffered output around forks: see the header. */
#define _GNU_SOURCE
#include "output.h"

#include <stdio.h>
#include <stdio_ext.h>

static void try_flush(FILE *file)
{
	if (ftrylockfile(file) != 0)
		return;
	fflush_unlocked(file);
	funlockfile(file);
}

void ac__output_try_flush(void)
{
	try_flush(stdout);
	try_flush(stderr);
}

void ac__output_flush(void)
{
	fflush(stdout);
	fflush(stderr);
}

void ac__output_discard(void)
{
	__fpurge(stdout);
	__fpurge(stderr);
}

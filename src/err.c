/* SPDX-License-Identifier: MIT */
/*
 * Codes and their words. Ours come from one table here, the system's from
 * libc's own, so no text is ever composed, allocated or shared.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "allcores.h"

#define ERRORS(X)                                                             \
	X(AC_ETASK, "the task's function reported failure")                   \
	X(AC_EDIED, "the worker died while it held the task")                 \
	X(AC_ETIMEOUT, "the task ran over its time limit and was stopped")    \
	X(AC_ECANCELED, "the task was cancelled")                             \
	X(AC_EBROKEN, "the pool is broken: its shared region is damaged")      \
	X(AC_ESTART, "workers cannot be started, or their initialiser failed") \
	X(AC_ECLOSED, "the pool takes no more work")                          \
	X(AC_EFORK, "the handle belongs to another process")                  \
	X(AC_EVERSION, "owner and worker were built with different layouts")

#define TEXT_OF(n) #n
#define TEXT(n) TEXT_OF(n)

#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 32)
#define HAVE_STRERRORNAME 1
#endif
#endif

#ifdef HAVE_STRERRORNAME
static const char *system_name(int err)
{
	return strerrorname_np(err);
}

/* Not strerror: it translates, and the translation need not be static. */
static const char *system_text(int err)
{
	return strerrordesc_np(err);
}
#else
static const char *system_name(int err)
{
	(void)err;
	return NULL;
}

static const char *system_text(int err)
{
	(void)err;
	return "a system error";
}
#endif

const char *ac_version(void)
{
	return TEXT(AC_VERSION_MAJOR) "." TEXT(AC_VERSION_MINOR) "." TEXT(
		AC_VERSION_PATCH);
}

static bool is_system(int code)
{
	return code < 0 && code != INT_MIN;
}

const char *ac_strerror(int code)
{
	const char *text = NULL;

	switch (code) {
#define CASE(name, words) \
	case name:        \
		return words;
		ERRORS(CASE)
#undef CASE
	case 0:
		return "success";
	}
	if (is_system(code))
		text = system_text(-code);
	return text ? text : "unknown error";
}

const char *ac_errname(int code)
{
	const char *name = NULL;

	switch (code) {
#define CASE(name, words) \
	case name:        \
		return #name;
		ERRORS(CASE)
#undef CASE
	}
	if (is_system(code))
		name = system_name(-code);
	return name ? name : "unknown";
}

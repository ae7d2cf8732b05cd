/* SPDX-License-Identifier: MIT */
/*
 * Codes, their names and texts. All are constants, of this file or of libc: no text is ever
 * composed, allocated or shared.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <locale.h>
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

/* Linux's errors, named here since not every libc can. */
#define SYSTEM_ERRORS(X) \
	X(EPERM) X(ENOENT) X(ESRCH) X(EINTR) X(EIO) X(ENXIO) X(E2BIG) X(ENOEXEC) X(EBADF) \
	X(ECHILD) X(EAGAIN) X(ENOMEM) X(EACCES) X(EFAULT) X(ENOTBLK) X(EBUSY) X(EEXIST) \
	X(EXDEV) X(ENODEV) X(ENOTDIR) X(EISDIR) X(EINVAL) X(ENFILE) X(EMFILE) X(ENOTTY) \
	X(ETXTBSY) X(EFBIG) X(ENOSPC) X(ESPIPE) X(EROFS) X(EMLINK) X(EPIPE) X(EDOM) \
	X(ERANGE) X(EDEADLK) X(ENAMETOOLONG) X(ENOLCK) X(ENOSYS) X(ENOTEMPTY) X(ELOOP) \
	X(ENOMSG) X(EIDRM) X(ECHRNG) X(EL2NSYNC) X(EL3HLT) X(EL3RST) X(ELNRNG) X(EUNATCH) \
	X(ENOCSI) X(EL2HLT) X(EBADE) X(EBADR) X(EXFULL) X(ENOANO) X(EBADRQC) X(EBADSLT) \
	X(EBFONT) X(ENOSTR) X(ENODATA) X(ETIME) X(ENOSR) X(ENONET) X(ENOPKG) X(EREMOTE) \
	X(ENOLINK) X(EADV) X(ESRMNT) X(ECOMM) X(EPROTO) X(EMULTIHOP) X(EDOTDOT) X(EBADMSG) \
	X(EOVERFLOW) X(ENOTUNIQ) X(EBADFD) X(EREMCHG) X(ELIBACC) X(ELIBBAD) X(ELIBSCN) \
	X(ELIBMAX) X(ELIBEXEC) X(EILSEQ) X(ERESTART) X(ESTRPIPE) X(EUSERS) X(ENOTSOCK) \
	X(EDESTADDRREQ) X(EMSGSIZE) X(EPROTOTYPE) X(ENOPROTOOPT) X(EPROTONOSUPPORT) \
	X(ESOCKTNOSUPPORT) X(EOPNOTSUPP) X(EPFNOSUPPORT) X(EAFNOSUPPORT) X(EADDRINUSE) \
	X(EADDRNOTAVAIL) X(ENETDOWN) X(ENETUNREACH) X(ENETRESET) X(ECONNABORTED) \
	X(ECONNRESET) X(ENOBUFS) X(EISCONN) X(ENOTCONN) X(ESHUTDOWN) X(ETOOMANYREFS) \
	X(ETIMEDOUT) X(ECONNREFUSED) X(EHOSTDOWN) X(EHOSTUNREACH) X(EALREADY) X(EINPROGRESS) \
	X(ESTALE) X(EUCLEAN) X(ENOTNAM) X(ENAVAIL) X(EISNAM) X(EREMOTEIO) X(EDQUOT) \
	X(ENOMEDIUM) X(EMEDIUMTYPE) X(ECANCELED) X(ENOKEY) X(EKEYEXPIRED) X(EKEYREVOKED) \
	X(EKEYREJECTED) X(EOWNERDEAD) X(ENOTRECOVERABLE) X(ERFKILL) X(EHWPOISON) \
	NEW_SYSTEM_ERRORS(X)

#ifdef EFTYPE /* older headers do not have it */
#define NEW_SYSTEM_ERRORS(X) X(EFTYPE)
#else
#define NEW_SYSTEM_ERRORS(X)
#endif

static const char *system_name(int err)
{
	switch (err) {
#define CASE(name) \
	case name: \
		return #name;
		SYSTEM_ERRORS(CASE)
#undef CASE
	}
	return NULL;
}

#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 32)
#define HAVE_STRERRORDESC 1
#endif
#endif

/* Not strerror: it translates, and the translation need not be static. */
#ifdef HAVE_STRERRORDESC
static const char *system_text(int err)
{
	return strerrordesc_np(err);
}
#else
/* The C locale is a constant of libc: nothing is allocated. */
static const char *system_text(int err)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

	return c ? strerror_l(err, c) : "a system error";
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
	if (is_system(code) && system_name(-code))
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
	case 0:
		return "OK";
	}
	if (is_system(code))
		name = system_name(-code);
	return name ? name : "unknown";
}

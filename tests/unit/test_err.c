/* SPDX-License-Identifier: MIT */
/* Every code has a name and a text; nothing that is no code does. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "allcores.h"

static void test_err_version_is_the_build_systems(void **state)
{
	char header[32];

	(void)state;
	snprintf(header, sizeof header, "%d.%d.%d", AC_VERSION_MAJOR,
		 AC_VERSION_MINOR, AC_VERSION_PATCH);
	assert_string_equal(header, AC_VERSION);
	assert_string_equal(ac_version(), AC_VERSION);
}

static void test_err_names_our_codes(void **state)
{
	(void)state;
	assert_string_equal(ac_errname(AC_ETASK), "AC_ETASK");
	assert_string_equal(ac_errname(AC_EDIED), "AC_EDIED");
	assert_string_equal(ac_errname(AC_ETIMEOUT), "AC_ETIMEOUT");
	assert_string_equal(ac_errname(AC_ECANCELED), "AC_ECANCELED");
	assert_string_equal(ac_errname(AC_EBROKEN), "AC_EBROKEN");
	assert_string_equal(ac_errname(AC_ESTART), "AC_ESTART");
	assert_string_equal(ac_errname(AC_ECLOSED), "AC_ECLOSED");
	assert_string_equal(ac_errname(AC_EFORK), "AC_EFORK");
	assert_string_equal(ac_errname(AC_EVERSION), "AC_EVERSION");
}

/* Walks the whole range, so that a code added to the header but not to the table fails. */
static void test_err_our_codes_have_texts_of_their_own(void **state)
{
	(void)state;
	for (int a = AC_ETASK; a >= AC_EVERSION; a--) {
		assert_string_not_equal(ac_errname(a), "unknown");
		assert_string_not_equal(ac_strerror(a), "unknown error");
		for (int b = AC_ETASK; b > a; b--)
			assert_string_not_equal(ac_strerror(a), ac_strerror(b));
	}
	assert_string_equal(ac_errname(AC_EVERSION - 1), "unknown");
	assert_string_equal(ac_errname(AC_ETASK + 1), "unknown");
}

static void test_err_knows_the_systems_codes(void **state)
{
	(void)state;
	assert_string_equal(ac_errname(-ENOMEM), "ENOMEM");
	assert_string_equal(ac_errname(-EPERM), "EPERM");
	assert_string_equal(ac_errname(-ETIMEDOUT), "ETIMEDOUT");
	assert_string_equal(ac_errname(-EAGAIN), "EAGAIN");
	assert_string_equal(ac_strerror(-EINVAL), "Invalid argument");
#ifdef __GLIBC__
	assert_string_equal(ac_strerror(-ENOMEM), "Cannot allocate memory");
#else
	assert_string_equal(ac_strerror(-ENOMEM), "Out of memory");
#endif
}

/* Every error that libc can describe has a name and a text. */
static void test_err_names_all_of_the_systems_codes(void **state)
{
	(void)state;
	for (int code = 1; code < 200; code++) {
		bool known = strncmp(strerror(code), "Unknown", 7) != 0 &&
			     strncmp(strerror(code), "No error", 8) != 0;

		assert_int_equal(strcmp(ac_errname(-code), "unknown") != 0, known);
		assert_int_equal(strcmp(ac_strerror(-code), "unknown error") != 0, known);
	}
}

static void test_err_success_has_a_text(void **state)
{
	(void)state;
	assert_string_equal(ac_strerror(0), "success");
	assert_string_equal(ac_errname(0), "OK");
}

static void test_err_strangers_are_unknown_never_null(void **state)
{
	static const int codes[] = { 1, 9999, 20001, INT_MAX, -9999, INT_MIN,
				     INT_MIN + 1 };

	(void)state;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		assert_string_equal(ac_errname(codes[i]), "unknown");
		assert_string_equal(ac_strerror(codes[i]), "unknown error");
	}
	for (int code = -5000; code <= 5000; code++) {
		assert_non_null(ac_errname(code));
		assert_non_null(ac_strerror(code));
	}
}

static void test_err_is_static_and_leaves_errno_alone(void **state)
{
	const char *text = ac_strerror(-ENOENT);

	(void)state;
	errno = 77;
	ac_strerror(-9999);
	ac_errname(-ENOENT);
	assert_int_equal(errno, 77);
	assert_ptr_equal(text, ac_strerror(-ENOENT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_version_is_the_build_systems),
		cmocka_unit_test(test_err_names_our_codes),
		cmocka_unit_test(test_err_our_codes_have_texts_of_their_own),
		cmocka_unit_test(test_err_knows_the_systems_codes),
		cmocka_unit_test(test_err_names_all_of_the_systems_codes),
		cmocka_unit_test(test_err_success_has_a_text),
		cmocka_unit_test(test_err_strangers_are_unknown_never_null),
		cmocka_unit_test(test_err_is_static_and_leaves_errno_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

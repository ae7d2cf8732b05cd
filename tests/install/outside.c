/* SPDX-License-Identifier: MIT */
/*
 * A program outside of the project, C and C++ at once: does it get the
 * library that its header is of?
 */
#include <stdio.h>
#include <string.h>

#include <allcores.h>

int main(void)
{
	char header[32];

	snprintf(header, sizeof header, "%d.%d.%d", AC_VERSION_MAJOR,
		 AC_VERSION_MINOR, AC_VERSION_PATCH);
	printf("header %s, library %s, %s: %s\n", header, ac_version(),
	       ac_errname(AC_EDIED), ac_strerror(AC_EDIED));
	return strcmp(header, ac_version()) != 0 ||
	       strcmp(ac_errname(AC_EDIED), "AC_EDIED") != 0;
}

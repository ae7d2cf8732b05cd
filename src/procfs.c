/* SPDX-License-Identifier: MIT */
/* Reading /proc/PID/status: see the header. */
#include "procfs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

/* The number behind name in the file, in that base; 0: it is not there. */
static unsigned long long read_field(pid_t pid, const char *name, int base)
{
	char path[32], line[256];
	unsigned long long value = 0;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	file = ac__sys_open_file(path);
	if (!file)
		return 0;
	while (fgets(line, sizeof line, file))
		if (!strncmp(line, name, strlen(name))) {
			value = strtoull(line + strlen(name), NULL, base);
			break;
		}
	fclose(file);
	return value;
}

int ac__procfs_threads(pid_t pid)
{
	return (int)read_field(pid, "Threads:", 10);
}

bool ac__procfs_catches(pid_t pid, int signal)
{
	return read_field(pid, "SigCgt:", 16) >> (signal - 1) & 1;
}

/* SPDX-License-Identifier: MIT */
/*
 * Runs every file of a directory through the fuzzer's one function: what was found once stays
 * found, with any compiler.	fuzz_replay DIRECTORY|FILE...
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE_MOST 4096
#define FILES_MOST 1000
#define HANG_SECONDS 30

static unsigned files;

static void replay_file(const char *path)
{
	static uint8_t data[SIZE_MOST];
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file) {
		printf("not ok %u - %s: cannot be read\n", ++files, path);
		return;
	}
	size = fread(data, 1, sizeof data, file);
	fclose(file);
	/* Said before, since a crash is the end of this program. */
	fprintf(stderr, "%s\n", path);
	alarm(HANG_SECONDS);
	LLVMFuzzerTestOneInput(data, size);
	alarm(0);
	printf("ok %u - %s\n", ++files, path);
	fflush(stdout);
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void replay_directory(const char *path)
{
	struct dirent **entries;
	char name[1024];
	int n = scandir(path, &entries, is_visible, alphasort);

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
		replay_file(name);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	else
		replay_file(path);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay_directory(argv[i]);
	printf("1..%u\n", files);
	return files ? 0 : 1;
}

/* SPDX-License-Identifier: MIT */
/* A program outside of the project, C and C++ at once: maps 100 items. */
#include <stdio.h>

#include <allcores.h>

#define COUNT 100

static int square(const void *item, void *result, const void *bound)
{
	int n = *(const int *)item;

	(void)bound;
	*(int *)result = n * n;
	return 0;
}

int main(void)
{
	int items[COUNT], results[COUNT];
	struct ac_pool *pool;
	int r;

	for (int i = 0; i < COUNT; i++)
		items[i] = i;
	r = ac_pool_open(&pool, NULL);
	if (r == 0) {
		r = ac_pool_map(pool, square, NULL, items, sizeof *items,
				results, sizeof *results, COUNT);
		ac_pool_close(pool);
	}
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", ac_errname(r), ac_strerror(r));
		return 1;
	}
	for (int i = 0; i < COUNT; i++)
		if (results[i] != i * i)
			return 2;
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * OpenMP's loop and tasks over the same functions, called through the same
 * pointers. Its threads stay between regions, so its pool is as warm as ours.
 */
#include "peer_openmp.h"

bool peer_openmp_here(void)
{
#ifdef _OPENMP
	return true;
#else
	return false;
#endif
}

void peer_openmp_for(unsigned threads, ac_map_fn *fn, const uint64_t *items,
		     uint64_t *results, size_t count)
{
	(void)threads;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(threads)
#endif
	for (size_t i = 0; i < count; i++)
		fn(&items[i], &results[i], NULL);
}

void peer_openmp_tasks(unsigned threads, ac_map_fn *fn, const uint64_t *items,
		       uint64_t *results, size_t count)
{
	(void)threads;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#pragma omp single
#endif
	for (size_t i = 0; i < count; i++) {
#ifdef _OPENMP
#pragma omp task firstprivate(i)
#endif
		fn(&items[i], &results[i], NULL);
	}
}

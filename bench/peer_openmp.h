/* SPDX-License-Identifier: MIT */
/*
 * The peer "OpenMP": what a C programmer gets from one line of pragma, without
 * isolation. Where the compiler has no OpenMP, peer_openmp_here is false.
 */
#ifndef PEER_OPENMP_H
#define PEER_OPENMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allcores.h"

bool peer_openmp_here(void);
/* A loop over items with the dynamic schedule, one item at a time as is its default. */
void peer_openmp_for(unsigned threads, ac_map_fn *fn, const uint64_t *items,
		     uint64_t *results, size_t count);
/* One OpenMP task for each item. */
void peer_openmp_tasks(unsigned threads, ac_map_fn *fn, const uint64_t *items,
		       uint64_t *results, size_t count);

#endif

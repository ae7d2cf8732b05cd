/* SPDX-License-Identifier: MIT */
/*
 * The peer "pthread pool": threads that take tasks from one queue under one
 * mutex, as C programmers write it, with the same submit, wait and collect
 * as ours. No isolation: it is here to be beaten all the same.
 */
#ifndef PEER_PTHREAD_H
#define PEER_PTHREAD_H

#include <stdint.h>

#include "allcores.h"

struct peer_pthread;
struct peer_task;

struct peer_pthread *peer_pthread_open(unsigned threads);
struct peer_task *peer_pthread_submit(struct peer_pthread *pool, ac_map_fn *fn, uint64_t arg);
/* Wait for the task, free it, return its result. */
uint64_t peer_pthread_collect(struct peer_pthread *pool, struct peer_task *task);
void peer_pthread_close(struct peer_pthread *pool);

#endif

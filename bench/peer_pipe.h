/* SPDX-License-Identifier: MIT */
/*
 * The peer "fork and pipes": child processes with a pipe in and a pipe out
 * each, what C programmers write today when they want isolation.
 */
#ifndef PEER_PIPE_H
#define PEER_PIPE_H

#include <stddef.h>
#include <stdint.h>

#include "allcores.h"

#define PEER_PIPE_AHEAD 64	/* the most that may be under way in one worker */

struct peer_pipe;

struct peer_pipe *peer_pipe_open(unsigned workers, ac_map_fn *fn);
/* args[i] to results[i], at most ahead (to PEER_PIPE_AHEAD) under way in each worker. */
void peer_pipe_run(struct peer_pipe *pool, const uint64_t *args, uint64_t *results,
		   size_t count, unsigned ahead);
/* One blocking round trip. */
uint64_t peer_pipe_call(struct peer_pipe *pool, uint64_t arg);
void peer_pipe_close(struct peer_pipe *pool);

#endif

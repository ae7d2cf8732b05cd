/* SPDX-License-Identifier: MIT */
/*
 * A pool's whole life for tests in which the system refuses something: opened, used in
 * each way, workers lost, closed. Any call may say why it can't; none may crash, hang, return
 * something wrong or leave anything behind.
 */
#ifndef AC_WORKOUT_H
#define AC_WORKOUT_H

#include "crash.h"

#define WORKOUT_WORKERS 2

#define WORKOUT_ADOPT 1u /* the workers are forked by the test, not by the template */
#define WORKOUT_LOOP 2u	 /* driven as by an event loop: no helper thread */
#define WORKOUT_SPARE 4u /* no worker is killed */

/* 0, or the first code met. */
int workout(unsigned flags);
/* The same for ac_process. */
int workout_processes(void);

/* Parts of it. A code, and none that a caller would not expect: */
bool workout_is_code(int r);
int workout_map(struct ac_pool *pool);
int workout_calls(struct ac_pool *pool);
/* For ac_pool_opts.start; and once the pool is closed. */
pid_t workout_start(void *arg, unsigned number, int fd);
void workout_reap(void);

#endif

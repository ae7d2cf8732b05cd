/* SPDX-License-Identifier: MIT */
/*
 * The helper thread: the one thread that a pool may have in its owner. It does what no other
 * thread waits for: runs callbacks, stops tasks that are over their limit, replaces workers, refills
 * the ring from a long queue, makes long copies. The first call that returns before its work is
 * done starts it. A pool used through blocking calls never has it, nor one that an event loop
 * drives. All functions but the last: under the lock.
 */
#ifndef AC__HELPER_H
#define AC__HELPER_H

#include "task.h"

/* Start the thread unless it runs already. */
void ac__helper_need(struct ac_pool *pool);
/* A task was handed in and its caller goes away: some thread must do what it needs. Releases
 * (start); the task may have ended, and be gone, after it. */
void ac__helper_take_over(struct ac_task *task);
/* It ends as soon as it can; nobody waits. */
void ac__helper_dismiss(struct ac_pool *pool);
/* Run the callbacks that are due, the lock released around each. Needed where there is no helper
 * thread. */
void ac__helper_run_callbacks(struct ac_pool *pool);
/* Dismiss it and wait for its end. Without the lock, when no other call of the pool runs, and not
 * in a callback. */
void ac__helper_stop(struct ac_pool *pool);

#endif

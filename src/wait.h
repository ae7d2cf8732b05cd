/* SPDX-License-Identifier: MIT */
/* Waiting: what a thread of the owner does until its condition holds. */
#ifndef AC__WAIT_H
#define AC__WAIT_H

#include "engine.h"

/*
 * Wait until is_over(arg), which is called under the lock by any thread: 0, -ETIMEDOUT, or -EINTR
 * (in an interruptible pool). The lock is held before and after, and released in between.
 */
int ac__wait_until(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg, int64_t deadline);
/* The same for the helper thread, with no limit: it waits for work of its own, and results wake
 * it only where that asks for it. */
void ac__wait_helping(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg);
/* Make one of the copies that slots wait for, where no helper thread can make it. For calls that do
 * not wait: a program may make no others, and nothing would ever be copied. Releases (copy, start). */
void ac__wait_fill(struct ac_pool *pool);

#endif

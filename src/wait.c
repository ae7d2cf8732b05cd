/* SPDX-License-Identifier: MIT */
/*
 * Waiting: advance, ask, spin for a moment, sleep, and again. Copies that slots wait for are made
 * on the way.
 */
#include "wait.h"

#include <errno.h>

/* A sleep of so long is likely to be followed by another one: no spin is worth it then. */
#define LONG_SLEEP_NS 200000

/* A copy may take long. A thread whose wait has a limit leaves it to the helper thread, if there is
 * one and it is not held up: a callback that it runs may itself wait for the copy. */
static bool may_fill(const struct ac_pool *pool, int64_t deadline)
{
	return deadline == INT64_MAX || !pool->helper.running || pool->callbacks.running;
}

void ac__wait_fill(struct ac_pool *pool)
{
	if (may_fill(pool, 0) && ac__engine_fill_one(pool))
		ac__engine_advance(pool);
}

static bool is_past(int64_t deadline)
{
	return deadline != INT64_MAX && ac__sys_now() >= deadline;
}

static int wait_for(struct ac_pool *pool, const struct ac__wait *wait, int64_t deadline)
{
	bool spun = wait->helping;
	int64_t before;
	int r = 0;

	for (;;) {
		ac__engine_advance(pool);
		if (wait->is_over(wait->arg))
			return 0;
		if (r == -EINTR && pool->interruptible && !wait->helping)
			return r;
		if (is_past(deadline)) {
			ac__wait_fill(pool);
			return wait->is_over(wait->arg) ? 0 : -ETIMEDOUT;
		}
		if (may_fill(pool, deadline) && ac__engine_fill_one(pool))
			continue;
		if (!spun) {
			ac__engine_spin(pool);
			spun = !ac__done_any(&pool->board);
			continue;
		}
		before = ac__sys_now();
		r = ac__engine_sleep(pool, wait, deadline);
		spun = wait->helping || ac__sys_now() - before > LONG_SLEEP_NS;
	}
}

int ac__wait_until(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg, int64_t deadline)
{
	struct ac__wait wait = { .is_over = is_over, .arg = arg };
	int r = wait_for(pool, &wait, deadline);

	ac__sleep_hand_on(&pool->sleep);
	return r;
}

void ac__wait_helping(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg)
{
	struct ac__wait wait = { .is_over = is_over, .arg = arg, .helping = true };

	wait_for(pool, &wait, INT64_MAX);
	ac__sleep_hand_on(&pool->sleep);
}

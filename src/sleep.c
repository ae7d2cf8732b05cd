/* SPDX-License-Identifier: MIT */
/* Which threads sleep, which one collects, which are woken: see the header. */
#include "sleep.h"

#include "forkguard.h"

#define SLEEP_NS (INT64_C(10) * 1000000000)
#define SLEEP_WITHOUT_BELL_NS INT64_C(20000000)

/* ---- opening ---- */

/* Opened and written down as one step for a child. */
static int open_descriptors(struct ac__sleep *sleep)
{
	int r = ac__sys_epoll();

	if (r < 0)
		return r;
	sleep->epoll = r;
	return ac__fd_open_pipe(sleep->bell);
}

int ac__sleep_open(struct ac__sleep *sleep, struct ac__board *board)
{
	int r;

	sleep->board = board;
	sleep->until = INT64_MAX;
	ac__forkguard_lock();
	r = open_descriptors(sleep);
	ac__forkguard_unlock();
	if (r == 0)
		r = ac__sys_epoll_add(sleep->epoll, sleep->bell[0].number, AC__TAG_BELL, false);
	if (r < 0)
		ac__sleep_close(sleep);
	return r;
}

void ac__sleep_close(struct ac__sleep *sleep)
{
	ac__forkguard_lock();
	ac__sleep_let_go(sleep, false);
	ac__forkguard_unlock();
}

void ac__sleep_let_go(struct ac__sleep *sleep, bool keep_bell)
{
	ac__forkguard_drop(&sleep->epoll);
	ac__forkguard_drop(&sleep->timer);
	ac__fd_drop(&sleep->bell[0]);
	if (!keep_bell)
		ac__fd_drop(&sleep->bell[1]);
}

int ac__sleep_open_timer(struct ac__sleep *sleep)
{
	int r;

	if (ac__sleep_is_looped(sleep))
		return 0;
	ac__forkguard_lock();
	r = ac__sys_timerfd();
	sleep->timer = AC__MAX(r, -1);
	ac__forkguard_unlock();
	if (r < 0)
		return r;
	r = ac__sys_epoll_add(sleep->epoll, sleep->timer, AC__TAG_TIMER, false);
	if (r < 0)
		ac__forkguard_close(&sleep->timer);
	return r;
}

/* ---- the collecting thread ---- */

bool ac__sleep_arm(struct ac__sleep *sleep, int64_t below)
{
	struct ac__board_shm *shm = sleep->board->shm;

	if (below < 0)
		return true;
	atomic_store_explicit(&shm->ring_below, (uint32_t)below, memory_order_relaxed);
	ac__bell_arm(&shm->owner_bell);
	AC_STEP();
	/* Sleeping is right only if nothing has come since the bell was armed (B2). */
	return !ac__done_any(sleep->board) || ac__ring_length(sleep->board) > below;
}

void ac__sleep_begin(struct ac__sleep *sleep, const struct ac__wait *wait, int64_t until)
{
	sleep->collector = wait;
	sleep->until = until;
}

void ac__sleep_end(struct ac__sleep *sleep)
{
	ac__bell_disarm(&sleep->board->shm->owner_bell);
	sleep->collector = NULL;
	sleep->until = INT64_MAX;
}

int64_t ac__sleep_bound(const struct ac__sleep *sleep, int64_t until)
{
	bool rings = ac__fd_is_same(&sleep->bell[0]) && ac__fd_is_same(&sleep->bell[1]);
	int64_t most = ac__sys_now() + (rings ? SLEEP_NS : SLEEP_WITHOUT_BELL_NS);

	return AC__MIN(until, most);
}

void ac__sleep_ring(struct ac__sleep *sleep)
{
	ac__fd_ring(&sleep->bell[1]);
}

/* ---- the others ---- */

static void wake(struct ac__sleeper *sleeper)
{
	atomic_store(&sleeper->woken, 1);
	ac__sys_futex_wake(&sleeper->woken, 1);
}

void ac__sleep_add(struct ac__sleep *sleep, struct ac__sleeper *sleeper)
{
	sleeper->next = sleep->sleepers;
	sleep->sleepers = sleeper;
}

void ac__sleep_remove(struct ac__sleep *sleep, struct ac__sleeper *sleeper)
{
	for (struct ac__sleeper **at = &sleep->sleepers; *at; at = &(*at)->next)
		if (*at == sleeper) {
			*at = sleeper->next;
			return;
		}
}

void ac__sleep_wake_finished(struct ac__sleep *sleep)
{
	const struct ac__wait *collector = sleep->collector;

	for (struct ac__sleeper *s = sleep->sleepers; s; s = s->next)
		if (s->wait->is_over(s->wait->arg))
			wake(s);
	/* The collecting thread sleeps for its own sake, too. */
	if (collector && collector->is_over(collector->arg))
		ac__sleep_ring(sleep);
}

void ac__sleep_hand_on(struct ac__sleep *sleep)
{
	if (!sleep->collector && sleep->sleepers)
		wake(sleep->sleepers);
}

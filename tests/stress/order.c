/* SPDX-License-Identifier: MIT */
/* What a worker does for a single call of the long run, and bytes that can be checked. */
#define _GNU_SOURCE
#include "order.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

_Atomic uint32_t *stress_runs;

/* ---- chance ---- */

uint64_t stress_below(uint64_t *seed, uint64_t below)
{
	return below ? crash_random(seed) % below : 0;
}

void stress_share(void)
{
	stress_runs = mmap(NULL, STRESS_RUNS * sizeof *stress_runs,
			   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(stress_runs != MAP_FAILED);
}

uint64_t stress_number(void)
{
	static _Atomic uint64_t last;
	uint64_t number = atomic_fetch_add(&last, 1) % STRESS_RUNS;

	atomic_store(&stress_runs[number], 0);
	return number;
}

/* ---- bytes that can be checked ---- */

void stress_fill(void *data, size_t len, uint64_t seed)
{
	char *to = data;

	for (size_t i = 0; i < len; i += sizeof seed) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		memcpy(to + i, &seed, len - i < sizeof seed ? len - i : sizeof seed);
	}
}

bool stress_is_filled(const void *data, size_t len, uint64_t seed)
{
	const char *at = data;

	for (size_t i = 0; i < len; i += sizeof seed) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		if (memcmp(at + i, &seed,
			   len - i < sizeof seed ? len - i : sizeof seed) != 0)
			return false;
	}
	return true;
}

/* ---- in a worker ---- */

static int answer_order(struct ac_call *call, const struct order *order)
{
	void *room = ac_call_reserve(call, order->result_len);

	if (!room)
		return ac_call_fail(call, "no room");
	stress_fill(room, order->result_len, order->seed + 1);
	return 0;
}

int stress_do_order(struct ac_call *call)
{
	size_t len;
	const char *arg = ac_call_arg(call, &len);
	struct order order;
	uint32_t before;

	if (len < sizeof order)
		return len ? ac_call_fail(call, "a length of %zu", len) : 0;
	memcpy(&order, arg, sizeof order);
	if (len != order.len || order.number >= STRESS_RUNS ||
	    !stress_is_filled(arg + sizeof order, len - sizeof order, order.seed))
		return ac_call_fail(call, "the argument is damaged");
	before = atomic_fetch_add(&stress_runs[order.number], 1);
	switch (order.kind) {
	case NAP:
		crash_sleep(order.ns);
		break;
	case BURN:
		crash_burn(order.ns);
		break;
	case FAIL:
		ac_call_fail(call, "failed %u", order.value);
		return (int)order.value + 1;
	case EXIT:
		_exit((int)order.value);
	case KILL:
		raise(SIGKILL);
		break;
	case KILL_ONCE:
		if (before == 0)
			raise(SIGKILL);
		break;
	case ENDLESS:
		for (;;)
			crash_sleep(MS);
	default:
		break;
	}
	return answer_order(call, &order);
}

/* SPDX-License-Identifier: MIT */
/* An order tells a worker how a single call is to end; its argument starts with it. */
#ifndef AC_STRESS_ORDER_H
#define AC_STRESS_ORDER_H

#include "crash.h"

enum kind { ECHO, EMPTY, NAP, BURN, FAIL, EXIT, KILL, KILL_ONCE, ENDLESS };

struct order {
	uint64_t number, seed, len, result_len;
	uint32_t kind, value;
	int64_t ns;
};

/* len bytes that follow from seed. */
void stress_fill(void *data, size_t len, uint64_t seed);
bool stress_is_filled(const void *data, size_t len, uint64_t seed);

/* An empty argument is allowed, and gives an empty result. */
int stress_do_order(struct ac_call *call);

#endif

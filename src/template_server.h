/* SPDX-License-Identifier: MIT */
/* The template's own side: what runs in that process, and the orders that the owner sends it. */
#ifndef AC__TEMPLATE_SERVER_H
#define AC__TEMPLATE_SERVER_H

#include <signal.h>

#include "template.h"

/* LEAD: the reserve is the template from now on. LEAVE: the workers were told to leave; exit once all
 * are reaped. */
enum ac__order_kind {
	AC__ORDER_NONE,
	AC__ORDER_START,
	AC__ORDER_SIGNAL,
	AC__ORDER_REAP,
	AC__ORDER_LEAD,
	AC__ORDER_LEAVE,
};

struct ac__order {
	uint32_t kind;
	uint32_t seat;
	uint64_t value;	/* START: the worker's tag; SIGNAL: which */
};

/* One for each seat. */
struct ac__template_child {
	pid_t pid;	/* 0: none */
	bool ended;	/* a zombie */
	bool due;	/* event is to be sent */
	struct ac__template_event event;
};

/* The template's own memory. */
struct ac__template_server {
	const struct ac__template_plan *plan;
	int sock;
	_Atomic int32_t *pids;	/* the plan's, which the owner's records in this copy give up */
	struct ac__template_child *children;	/* by seat */
	uint32_t seats;
	uint32_t due;		/* reports to be sent */
	uint32_t alive;		/* and zombies */
	pid_t reserve;		/* 0: none */
	int offer;		/* the owner's end of its socket, to be sent; -1: none, or sent */
	bool needs_reserve;	/* it leads, and the owner does not wait for its first worker any more */
	int64_t reserve_at;	/* not before that time */
	unsigned failed_reads;	/* of orders, in a row */
	bool leaving;
	sigset_t user_mask;	/* as it was in the owner */
	struct sigaction user_chld;
};

/* In the process that was just forked, with all signals blocked: be the template, which reads orders
 * from sock. children and seats, user_mask, and offer (-1) are set. */
__attribute__((noreturn)) void ac__template_serve(struct ac__template_server *server,
						  const struct ac__template_plan *plan, int sock);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The audit: the words in the region against the owner's table of tasks. Made now and then
 * while work is out, so that even spoilt hints are put right. The pool's lock is held.
 */
#ifndef AC__AUDIT_H
#define AC__AUDIT_H

#include "slots.h"

/* is_present(arg, seat): the seat has a process. Collects what is done; enters every READY task
 * into the ring again where that looks empty. What does not fit sets slots->broken. */
void ac__audit(struct ac__slots *slots, bool (*is_present)(const void *arg, unsigned seat),
	       const void *arg);

#endif

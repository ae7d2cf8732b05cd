/* SPDX-License-Identifier: MIT */
/* Time limits of tasks. The pool's lock is held. */
#ifndef AC__OVERDUE_H
#define AC__OVERDUE_H

#include "slots.h"

/* End one piece that is over its time limit. Returns the seat whose process the caller must
 * kill; 0: none is over its limit, and *next says when one may be (INT64_MAX: never). */
__attribute__((warn_unused_result)) unsigned
ac__overdue_end_one(struct ac__slots *slots, int64_t now, int64_t *next);

#endif

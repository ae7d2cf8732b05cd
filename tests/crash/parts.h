/* SPDX-License-Identifier: MIT */
/* Sweeps over work that comes in parts: a map's chunks, a divisible call's units. */
#ifndef AC_PARTS_H
#define AC_PARTS_H

void sweep_parts(unsigned seconds);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The bytes that processes share: one descriptor, mapped in segments on first
 * use. Places are offsets, never pointers, since each process has its own addresses.
 *
 * Segment 0 is [0, base); segment k is [base << (k-1), base << k): which one an
 * offset lies in follows from the offset alone. A block whose size is a power of
 * two and which is aligned to its size never crosses from one segment into the
 * next.
 */
#ifndef AC__REGION_H
#define AC__REGION_H

#include "base.h"
#include "fd.h"
#include "forkguard.h"

#define AC__SEGMENTS 44

struct ac__region {
	struct ac__fd fd;
	_Atomic bool lost; /* user code has closed fd: no more can be mapped or given back */
	bool sealed;	/* the file has its whole size already and never changes it */
	uint64_t base;	/* size of segment 0: a power of two, whole pages */
	uint64_t limit;	/* no offset is beyond this */
	char *_Atomic segment[AC__SEGMENTS];
	struct ac__forkguard guard;
};

/*
 * A new region of zeros, segment 0 mapped and safe to touch. limit 0: as much as the
 * system allows. Children that ac__forkguard_fork(group) starts share it. In all others
 * it becomes private: what is mapped stays readable, and what the child writes there is seen
 * by the child alone.
 */
int ac__region_open(struct ac__region *region, uint64_t base, uint64_t limit,
		    const void *group);
/* Map the region that another process opened. No child shares it. Takes over fd in any case. */
int ac__region_attach(struct ac__region *region, int fd, uint64_t base,
		      uint64_t limit, bool sealed);
void ac__region_close(struct ac__region *region);

/* Make a range safe to touch: 0, or -ENOMEM, -ENOSPC, -EFBIG, -EBADF (lost). Done before its
 * first use. */
int ac__region_reserve(struct ac__region *region, uint64_t offset, uint64_t len);

/* Does the range exist, and can it be touched without a fault? The kernel is asked, not shared
 * memory. */
bool ac__region_holds(const struct ac__region *region, uint64_t offset, uint64_t len);
/* Give the range's pages back to the system: it reads as zeros then (best effort). */
void ac__region_punch(struct ac__region *region, uint64_t offset, uint64_t len);
/* This is a child that does not share it. */
static inline bool ac__region_is_private(const struct ac__region *region)
{
	return region->fd.number < 0;
}
/*
 * The address of [offset, offset + len), or NULL: it lies outside, crosses
 * segments, or can't be mapped. Any thread.
 */
void *ac__region_at(struct ac__region *region, uint64_t offset, uint64_t len);

#endif

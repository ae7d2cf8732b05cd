/* SPDX-License-Identifier: MIT */
/* Shared bytes, mapped in segments on first use: see the header. */
#include "region.h"

#include <errno.h>
#include <stdatomic.h>

#include "sys.h"

/* A sparse file costs what is touched; this is merely beyond what any machine holds. */
#define LARGEST (UINT64_C(1) << 42)

static unsigned segment_of(const struct ac__region *region, uint64_t offset)
{
	uint64_t n = offset / region->base;

	return n == 0 ? 0 : 64 - (unsigned)__builtin_clzll(n);
}

static uint64_t segment_start(const struct ac__region *region, unsigned k)
{
	return k == 0 ? 0 : region->base << (k - 1);
}

static size_t segment_size(const struct ac__region *region, unsigned k)
{
	return k == 0 ? region->base : region->base << (k - 1);
}

/* Two threads may come at once: the first to write it down wins. */
static char *map_segment(struct ac__region *region, unsigned k)
{
	void *mine;
	char *theirs = NULL;

	if (ac__sys_map(&mine, region->fd, segment_start(region, k),
			segment_size(region, k)) < 0)
		return NULL;
	if (atomic_compare_exchange_strong(&region->segment[k], &theirs, mine))
		return mine;
	ac__sys_unmap(mine, segment_size(region, k));
	return theirs;
}

void *ac__region_at(struct ac__region *region, uint64_t offset, uint64_t len)
{
	unsigned k;
	uint64_t start;
	char *address;

	if (AC__UNLIKELY(offset >= region->limit ||
			 len > region->limit - offset))
		return NULL;
	k = segment_of(region, offset);
	start = segment_start(region, k);
	if (AC__UNLIKELY(k >= AC__SEGMENTS ||
			 offset - start + len > segment_size(region, k)))
		return NULL;
	address = atomic_load_explicit(&region->segment[k], memory_order_acquire);
	if (AC__UNLIKELY(!address)) {
		address = map_segment(region, k);
		if (!address)
			return NULL;
	}
	return address + (offset - start);
}

static void clear_segments(struct ac__region *region)
{
	for (unsigned k = 0; k < AC__SEGMENTS; k++)
		atomic_init(&region->segment[k], NULL);
}

int ac__region_open(struct ac__region *region, uint64_t base, uint64_t limit)
{
	uint64_t most = AC__MIN(LARGEST, ac__sys_file_limit());
	int r;

	clear_segments(region);
	region->base = ac__power_of_two(AC__MAX(base, ac__sys_page()));
	/* The limit is for what comes after segment 0. */
	if (most < region->base)
		return -EFBIG;
	if (limit && limit < most - region->base)
		most = region->base + limit;
	region->limit = most;
	region->fd = ac__sys_memory(most, &region->sealed);
	if (region->fd < 0)
		return region->fd;
	r = ac__region_reserve(region, 0, region->base);
	if (r == 0 && !map_segment(region, 0))
		r = -ENOMEM;
	if (r < 0)
		ac__sys_close(region->fd);
	return r;
}

int ac__region_attach(struct ac__region *region, int fd, uint64_t base,
		      uint64_t limit, bool sealed)
{
	clear_segments(region);
	region->fd = fd;
	region->sealed = sealed;
	region->base = base;
	region->limit = limit;
	if (map_segment(region, 0))
		return 0;
	ac__sys_close(fd);
	return -ENOMEM;
}

int ac__region_reserve(struct ac__region *region, uint64_t offset, uint64_t len)
{
	if (offset > region->limit || len > region->limit - offset)
		return -ENOMEM;
	return region->sealed ? 0 :
				ac__sys_preallocate(region->fd, offset, len);
}

bool ac__region_holds(const struct ac__region *region, uint64_t offset, uint64_t len)
{
	uint64_t size = region->sealed ? region->limit :
					 ac__sys_file_size(region->fd);

	return offset <= size && len <= size - offset;
}

void ac__region_close(struct ac__region *region)
{
	for (unsigned k = 0; k < AC__SEGMENTS; k++) {
		char *address = atomic_load(&region->segment[k]);

		if (address)
			ac__sys_unmap(address, segment_size(region, k));
	}
	clear_segments(region);
	ac__sys_close(region->fd);
	region->fd = -1;
}

void ac__region_privatise(struct ac__region *region)
{
	for (unsigned k = 0; k < AC__SEGMENTS; k++) {
		char *address = atomic_load(&region->segment[k]);

		if (!address)
			continue;
		/* Better a fault there than a stray write into the pool. */
		if (ac__sys_map_private(address, region->fd,
					segment_start(region, k),
					segment_size(region, k)) < 0) {
			ac__sys_unmap(address, segment_size(region, k));
			atomic_store(&region->segment[k], NULL);
		}
	}
	/* What is not mapped by now never will be. */
	ac__sys_close(region->fd);
	region->fd = -1;
}

/* SPDX-License-Identifier: MIT */
/* Shared bytes, mapped in segments on first use: see the header. */
#include "region.h"

#include <errno.h>
#include <stdatomic.h>

#include "sys.h"

/* A sparse file costs only the pages that are touched. No machine has so much memory. */
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

/* If not, the number is another file's by now, which must not be mapped, grown or punched. */
static bool has_descriptor(struct ac__region *region)
{
	if (ac__fd_is_same(&region->fd))
		return true;
	atomic_store(&region->lost, true);
	return false;
}

/* Two threads may need it at once: the second finds the first one's. Under the forkguard's
 * lock, so that no child has a mapping that its parent had not written down. */
static char *map_segment(struct ac__region *region, unsigned k)
{
	char *address;
	void *mapped;

	ac__forkguard_lock();
	address = atomic_load(&region->segment[k]);
	if (!address && has_descriptor(region) &&
	    ac__sys_map(&mapped, region->fd.number, segment_start(region, k),
			segment_size(region, k)) == 0) {
		address = mapped;
		atomic_store(&region->segment[k], address);
	}
	ac__forkguard_unlock();
	return address;
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

/* ---- opening and closing ---- */

static void privatise_segment(struct ac__region *region, unsigned k)
{
	char *address = atomic_load(&region->segment[k]);

	if (!address || (has_descriptor(region) &&
			 ac__sys_map_private(address, region->fd.number,
					     segment_start(region, k),
					     segment_size(region, k)) == 0))
		return;
	/* Better a fault there than a stray write into the pool. */
	ac__sys_unmap(address, segment_size(region, k));
	atomic_store(&region->segment[k], NULL);
}

/* In a child that is not to share it. The child can map no further segment. */
static void make_private(struct ac__forkguard *guard)
{
	struct ac__region *region = AC__CONTAINER(guard, struct ac__region, guard);

	for (unsigned k = 0; k < AC__SEGMENTS; k++)
		privatise_segment(region, k);
	ac__fd_drop(&region->fd);
}

/* From here on a child finds descriptor and mappings either written down or not there at all. */
static void prepare(struct ac__region *region, const void *group)
{
	*region = (struct ac__region){ .fd = AC__FD_NONE, .guard.left = make_private,
				       .guard.group = group };
	for (unsigned k = 0; k < AC__SEGMENTS; k++)
		atomic_init(&region->segment[k], NULL);
	ac__forkguard_add(&region->guard);
}

void ac__region_close(struct ac__region *region)
{
	ac__forkguard_lock();
	for (unsigned k = 0; k < AC__SEGMENTS; k++) {
		char *address = atomic_load(&region->segment[k]);

		if (address)
			ac__sys_unmap(address, segment_size(region, k));
		atomic_store(&region->segment[k], NULL);
	}
	ac__fd_drop(&region->fd);
	ac__forkguard_remove(&region->guard);
	ac__forkguard_unlock();
}

static int open_memory(struct ac__region *region)
{
	int fd;

	ac__forkguard_lock();
	fd = ac__sys_memory(region->limit, &region->sealed);
	if (fd >= 0)
		region->fd = ac__fd_of(fd);
	ac__forkguard_unlock();
	return fd < 0 ? fd : 0;
}

int ac__region_open(struct ac__region *region, uint64_t base, uint64_t limit,
		    const void *group)
{
	uint64_t most = AC__MIN(LARGEST, ac__sys_file_limit());
	int r;

	prepare(region, group);
	region->base = ac__power_of_two(AC__MAX(base, ac__sys_page()));
	/* limit does not count segment 0. */
	if (limit && limit < most - AC__MIN(most, region->base))
		most = region->base + limit;
	region->limit = most;
	r = most < region->base ? -EFBIG : open_memory(region);
	if (r == 0)
		r = ac__region_reserve(region, 0, region->base);
	if (r == 0 && !map_segment(region, 0))
		r = -ENOMEM;
	if (r < 0)
		ac__region_close(region);
	return r;
}

int ac__region_attach(struct ac__region *region, int fd, uint64_t base,
		      uint64_t limit, bool sealed)
{
	prepare(region, NULL);
	region->fd = ac__fd_of(fd);
	region->sealed = sealed;
	region->base = base;
	region->limit = limit;
	if (map_segment(region, 0))
		return 0;
	ac__region_close(region);
	return -ENOMEM;
}

/* ---- ranges ---- */

int ac__region_reserve(struct ac__region *region, uint64_t offset, uint64_t len)
{
	if (offset > region->limit || len > region->limit - offset)
		return -ENOMEM;
	if (region->sealed)
		return 0;
	return has_descriptor(region) ?
		       ac__sys_preallocate(region->fd.number, offset, len) :
		       -EBADF;
}

bool ac__region_holds(const struct ac__region *region, uint64_t offset, uint64_t len)
{
	uint64_t size = region->sealed ? region->limit : ac__fd_size(&region->fd);

	return offset <= size && len <= size - offset;
}

void ac__region_punch(struct ac__region *region, uint64_t offset, uint64_t len)
{
	if (has_descriptor(region))
		ac__sys_punch(region->fd.number, offset, len);
}

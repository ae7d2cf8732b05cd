/* SPDX-License-Identifier: MIT */
/*
 * What every file may use: sizes, attributes, small arithmetic. Includes
 * nothing of ours but the public header.
 */
#ifndef AC__BASE_H
#define AC__BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "allcores.h"

#define AC__LINE 64 /* bytes that move between cores as one */

/* In shared memory: what one side writes often has cache lines of its own. */
#define AC__ALIGNED(n) __attribute__((aligned(n)))

#define AC__LIKELY(x) __builtin_expect(!!(x), 1)
#define AC__UNLIKELY(x) __builtin_expect(!!(x), 0)

#define AC__CONTAINER(pointer, type, member) \
	((type *)((char *)(pointer) - offsetof(type, member)))

#define AC__MIN(a, b) ((a) < (b) ? (a) : (b))
#define AC__MAX(a, b) ((a) > (b) ? (a) : (b))

/* align is a power of two; the caller has made sure that it can't overflow. */
static inline uint64_t ac__align_up(uint64_t n, uint64_t align)
{
	return (n + align - 1) & ~(align - 1);
}

/* The least power of two that is not below n; n is at most 2^63. */
static inline uint64_t ac__power_of_two(uint64_t n)
{
	return n <= 1 ? 1 : UINT64_C(1) << (64 - __builtin_clzll(n - 1));
}

static inline void ac__relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

/* No public struct will ever be larger: a size beyond this was not set, or not by sizeof. */
#define AC__STRUCT_MOST 4096

/*
 * Options structs grow at their end; size tells which version the caller was
 * compiled with. Copies what is there over defaults of zero.
 * -EINVAL: size was not set; -E2BIG: it is absurd (nothing but size is read then), or the caller
 * sets options that this library doesn't know.
 */
int ac__opts_copy(void *to, size_t to_size, const void *from);

#endif

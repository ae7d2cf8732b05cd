/* SPDX-License-Identifier: MIT */
/* What the linker (the file wraps) and the compiler put in place of the system. */
#ifndef AC_FUZZ_WRAPS_H
#define AC_FUZZ_WRAPS_H

#include <pthread.h>

#include "ring.h"

int64_t __wrap_ac__sys_now(void);
int64_t __wrap_ac__sys_deadline(int64_t timeout_ns);
void __wrap_ac__sys_yield(void);
void __wrap_ac__sys_timerfd_set(int fd, int64_t deadline);
int __wrap_ac__sys_thread(pthread_t *thread, void *(*start)(void *), void *arg);
int64_t __wrap_ac__cgroup_memory_free(const char *root);
int __wrap_ac_cpus(int leave);
int __real_ac__sys_epoll_wait(int epoll, uint64_t *tags, int n, int64_t deadline);
int __wrap_ac__sys_epoll_wait(int epoll, uint64_t *tags, int n, int64_t deadline);
void __real_ac__sys_futex_wake(_Atomic uint32_t *word, int n);
void __wrap_ac__sys_futex_wake(_Atomic uint32_t *word, int n);
void __real_ac__sys_unmap(void *address, size_t len);
void __wrap_ac__sys_unmap(void *address, size_t len);
int __real_ac__arena_open(struct ac__arena *arena, const struct ac__arena_plan *plan);
int __wrap_ac__arena_open(struct ac__arena *arena, const struct ac__arena_plan *plan);
void __real_ac__board_init(struct ac__board *board, struct ac__arena *arena,
			   const struct ac__board_plan *plan);
void __wrap_ac__board_init(struct ac__board *board, struct ac__arena *arena,
			   const struct ac__board_plan *plan);

void __sanitizer_cov_load1(void *address);
void __sanitizer_cov_load2(void *address);
void __sanitizer_cov_load4(void *address);
void __sanitizer_cov_load8(void *address);
void __sanitizer_cov_load16(void *address);

#endif

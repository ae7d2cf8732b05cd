/* SPDX-License-Identifier: MIT */
/* Options structs: what callers of other versions hand in, and where their members lie. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base.h"

/* A member that moves breaks programs that were compiled before. */
#if UINTPTR_MAX > UINT32_MAX
#define AT(type, member, offset) \
	_Static_assert(offsetof(struct type, member) == (offset), #type "." #member " has moved")
#define SIZE(type, size) \
	_Static_assert(sizeof(struct type) == (size), #type " has another size")

AT(ac_pool_opts, workers, 8);
AT(ac_pool_opts, init, 16);
AT(ac_pool_opts, init_arg, 24);
AT(ac_pool_opts, recycle, 32);
AT(ac_pool_opts, name, 40);
AT(ac_pool_opts, ready_ns, 48);
AT(ac_pool_opts, memory, 56);
AT(ac_pool_opts, trace, 64);
AT(ac_pool_opts, flags, 68);
AT(ac_pool_opts, start, 72);
AT(ac_pool_opts, start_arg, 80);
AT(ac_pool_opts, runtime, 88);
AT(ac_pool_opts, ended, 96);
SIZE(ac_pool_opts, 104);

AT(ac_map_opts, bound, 8);
AT(ac_map_opts, bound_size, 16);
AT(ac_map_opts, chunk, 24);
AT(ac_map_opts, outcomes, 32);
AT(ac_map_opts, failure, 40);
AT(ac_map_opts, retries, 48);
AT(ac_map_opts, flags, 52);
AT(ac_map_opts, progress, 56);
AT(ac_map_opts, progress_arg, 64);
SIZE(ac_map_opts, 72);

AT(ac_submit_opts, done, 8);
AT(ac_submit_opts, done_arg, 16);
AT(ac_submit_opts, timeout_ns, 24);
AT(ac_submit_opts, retries, 32);
AT(ac_submit_opts, flags, 36);
SIZE(ac_submit_opts, 40);

AT(ac_stream_opts, source, 8);
AT(ac_stream_opts, source_arg, 16);
AT(ac_stream_opts, ahead, 24);
AT(ac_stream_opts, ahead_bytes, 32);
AT(ac_stream_opts, retries, 40);
AT(ac_stream_opts, flags, 44);
SIZE(ac_stream_opts, 48);

AT(ac_push_opts, units, 8);
AT(ac_push_opts, flags, 12);
AT(ac_push_opts, bound, 16);
AT(ac_push_opts, user, 24);
SIZE(ac_push_opts, 32);

AT(ac_process_opts, name, 8);
AT(ac_process_opts, flags, 16);
AT(ac_process_opts, reserved, 20);
SIZE(ac_process_opts, 24);

AT(ac_outcome, value, 4);
AT(ac_outcome, signal, 8);
AT(ac_outcome, exit_code, 12);
AT(ac_outcome, pid, 16);
AT(ac_outcome, worker, 20);
AT(ac_outcome, index, 24);
AT(ac_outcome, ran_ns, 32);
AT(ac_outcome, peak_rss, 40);
AT(ac_outcome, text, 48);
SIZE(ac_outcome, 48 + AC_TEXT_SIZE);

AT(ac_worker_stat, pid, 4);
AT(ac_worker_stat, task, 8);
AT(ac_worker_stat, tasks, 16);
AT(ac_worker_stat, busy_ns, 24);
AT(ac_worker_stat, starts, 32);
AT(ac_worker_stat, name, 36);
AT(ac_worker_stat, task_ns, 56);
AT(ac_worker_stat, text, 64);
SIZE(ac_worker_stat, 64 + AC_TEXT_SIZE);

AT(ac_pool_stat, waiting, 8);
AT(ac_pool_stat, running, 16);
AT(ac_pool_stat, done, 24);
AT(ac_pool_stat, failed, 32);
AT(ac_pool_stat, cancelled, 40);
AT(ac_pool_stat, deaths, 48);
AT(ac_pool_stat, bytes, 56);
AT(ac_pool_stat, template_threads, 64);
SIZE(ac_pool_stat, 72);

AT(ac_trace_event, task, 8);
AT(ac_trace_event, items, 16);
AT(ac_trace_event, start_ns, 24);
AT(ac_trace_event, end_ns, 32);
SIZE(ac_trace_event, 40);
#endif

/* As the library knows it, and as other versions of the header have it. */
struct known {
	size_t size;
	uint32_t a, b;
};

struct newer {
	struct known known;
	uint32_t c, d;
};

static void test_opts_null_means_defaults(void **state)
{
	struct known to = { 1, 2, 3 };

	(void)state;
	assert_int_equal(ac__opts_copy(&to, sizeof to, NULL), 0);
	assert_true(to.size == 0 && to.a == 0 && to.b == 0);
}

static void test_opts_of_an_older_caller(void **state)
{
	struct known from = { .size = offsetof(struct known, b), .a = 5, .b = 6 }, to;

	(void)state;
	assert_int_equal(ac__opts_copy(&to, sizeof to, &from), 0);
	assert_int_equal(to.a, 5);
	assert_int_equal(to.b, 0);
}

static void test_opts_of_a_newer_caller(void **state)
{
	struct newer from = { .known = { .size = sizeof from, .a = 5, .b = 6 } };
	struct known to;

	(void)state;
	assert_int_equal(ac__opts_copy(&to, sizeof to, &from), 0);
	assert_true(to.a == 5 && to.b == 6);
	from.d = 1;
	assert_int_equal(ac__opts_copy(&to, sizeof to, &from), -E2BIG);
}

static void test_opts_without_a_size(void **state)
{
	struct known from = { .size = 0 }, to;

	(void)state;
	assert_int_equal(ac__opts_copy(&to, sizeof to, &from), -EINVAL);
	from.size = sizeof from.size - 1;
	assert_int_equal(ac__opts_copy(&to, sizeof to, &from), -EINVAL);
}

/* Nothing beyond size is read: it lies at the end of a page with nothing behind. */
static void test_opts_of_an_absurd_size(void **state)
{
	static const size_t sizes[] = { 4097, 1u << 20, SIZE_MAX / 2, SIZE_MAX };
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct known to;

	(void)state;
	assert_true(pages != MAP_FAILED);
	assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		memcpy(pages + page - sizeof *sizes, &sizes[i], sizeof *sizes);
		assert_int_equal(ac__opts_copy(&to, sizeof to, pages + page - sizeof *sizes),
				 -E2BIG);
	}
	munmap(pages, 2 * page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opts_null_means_defaults),
		cmocka_unit_test(test_opts_of_an_older_caller),
		cmocka_unit_test(test_opts_of_a_newer_caller),
		cmocka_unit_test(test_opts_without_a_size),
		cmocka_unit_test(test_opts_of_an_absurd_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Offsets to addresses: the right segment, never beyond, the same bytes for everybody. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "region.h"
#include "seats.h"
#include "sys.h"

#define KB (UINT64_C(1) << 10)
#define MB (UINT64_C(1) << 20)
#define BASE (64 * KB)
#define ALWAYS 1000000

static struct ac__region region;
static unsigned descriptors;

static int set_up(void **state)
{
	(void)state;
	ac__fault_disarm();
	descriptors = seats_descriptors();
	return ac__region_open(&region, BASE, 0, seats_group);
}

static int tear_down(void **state)
{
	(void)state;
	ac__fault_disarm();
	ac__region_close(&region);
	if (seats_descriptors() == descriptors && !seats_children())
		return 0;
	fprintf(stderr, "descriptors: %u before, %u after\n", descriptors,
		seats_descriptors());
	return -1;
}

/* An unlinked file in place of the memfd. */
static int set_up_file(void **state)
{
	(void)state;
	ac__fault_disarm();
	descriptors = seats_descriptors();
	ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
	return ac__region_open(&region, BASE, 0, seats_group);
}

static unsigned mapped_segments(const struct ac__region *r)
{
	unsigned n = 0;

	for (unsigned k = 0; k < AC__SEGMENTS; k++)
		n += atomic_load(&r->segment[k]) != NULL;
	return n;
}

static int attach_again(struct ac__region *second)
{
	return ac__region_attach(second, dup(region.fd.number), region.base,
				 region.limit, region.sealed);
}

static void test_region_base_is_whole_pages_and_a_power_of_two(void **state)
{
	struct ac__region other;

	(void)state;
	assert_true(region.base == BASE);
	assert_int_equal(ac__region_open(&other, 1, 0, NULL), 0);
	assert_true(other.base == ac__sys_page());
	ac__region_close(&other);
	assert_int_equal(ac__region_open(&other, 70000, 0, NULL), 0);
	assert_true(other.base == 128 * KB);
	ac__region_close(&other);
	assert_int_equal(other.fd.number, -1);
}

static void test_region_offsets_find_their_segment(void **state)
{
	(void)state;
	assert_int_equal(mapped_segments(&region), 1);
	assert_ptr_equal(ac__region_at(&region, 100, 1), region.segment[0] + 100);
	/* The first and the last byte of each segment; 64 KB to 64 GB. */
	for (unsigned k = 1; k <= 20; k++) {
		uint64_t start = BASE << (k - 1);
		char *first = ac__region_at(&region, start, start);

		assert_non_null(first);
		assert_ptr_equal(first, region.segment[k]);
		assert_int_equal(mapped_segments(&region), k + 1);
		assert_ptr_equal(ac__region_at(&region, 2 * start - 1, 1),
				 first + start - 1);
	}
}

static void test_region_blocks_never_cross(void **state)
{
	(void)state;
	assert_non_null(ac__region_at(&region, 0, BASE));
	assert_null(ac__region_at(&region, 0, BASE + 1));
	assert_null(ac__region_at(&region, BASE - 1, 2));
	for (unsigned k = 1; k <= 8; k++) {
		uint64_t start = BASE << (k - 1);

		assert_null(ac__region_at(&region, start, start + 1));
		assert_null(ac__region_at(&region, 2 * start - 4096, 4097));
		for (uint64_t size = 4096; size <= start; size *= 2)
			for (uint64_t at = start; at < 2 * start; at += size * 5)
				assert_non_null(ac__region_at(&region, at, size));
	}
}

static void test_region_out_of_range_is_null(void **state)
{
	uint64_t limit = region.limit;

	(void)state;
	assert_null(ac__region_at(&region, limit, 1));
	assert_null(ac__region_at(&region, limit - 1, 2));
	assert_null(ac__region_at(&region, limit + 1, 0));
	assert_null(ac__region_at(&region, UINT64_MAX, 1));
	assert_null(ac__region_at(&region, UINT64_MAX, UINT64_MAX));
	assert_null(ac__region_at(&region, 1, UINT64_MAX));
	assert_null(ac__region_at(&region, UINT64_C(1) << 63, 4096));
	assert_int_equal(ac__region_reserve(&region, limit, 1), -ENOMEM);
	assert_int_equal(ac__region_reserve(&region, UINT64_MAX, 1), -ENOMEM);
	assert_int_equal(ac__region_reserve(&region, 1, UINT64_MAX), -ENOMEM);
	assert_int_equal(mapped_segments(&region), 1);
}

static void test_region_limit_is_for_what_follows_the_base(void **state)
{
	struct ac__region other;

	(void)state;
	assert_int_equal(ac__region_open(&other, BASE, MB, NULL), 0);
	assert_true(other.limit == BASE + MB);
	assert_non_null(ac__region_at(&other, BASE + MB - 1, 1));
	assert_null(ac__region_at(&other, BASE + MB, 1));
	ac__region_close(&other);
}

static void see_the_same_bytes(void)
{
	struct ac__region second;
	char *mine, *theirs;

	assert_int_equal(attach_again(&second), 0);
	for (uint64_t at = 8; at < 4 * MB; at *= 2) {
		uint64_t len = at < 4096 ? 8 : 4096;

		assert_int_equal(ac__region_reserve(&region, at, len), 0);
		mine = ac__region_at(&region, at, len);
		theirs = ac__region_at(&second, at, len);
		assert_ptr_not_equal(mine, theirs);
		assert_int_equal(mine[0], 0); /* fresh bytes are zeros */
		memset(mine, (int)(at % 251 + 1), len);
		assert_memory_equal(mine, theirs, len);
	}
	ac__region_close(&second);
}

static void test_region_attached_sees_the_same_bytes(void **state)
{
	(void)state;
	see_the_same_bytes();
}

static void test_region_attach_takes_over_the_descriptor_when_it_fails(void **state)
{
	struct ac__region second;

	(void)state;
	ac__fault_arm(AC__SYS_MAP, 1, 1, ENOMEM);
	assert_int_equal(attach_again(&second), -ENOMEM);
}

static void test_region_open_fails_with_nothing_open(void **state)
{
	static const enum ac__sys_call calls[] = { AC__SYS_MAP, AC__SYS_PREALLOCATE,
						   AC__SYS_TMPFILE };
	struct ac__region other;

	(void)state;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
		ac__fault_arm(calls[i], 1, ALWAYS, ENOSPC);
		assert_true(ac__region_open(&other, BASE, 0, NULL) < 0);
		ac__fault_disarm();
		assert_int_equal(seats_descriptors(), descriptors + 1);
	}
}

/* ---- growing where there is no memfd ---- */

static void test_region_in_a_file_grows_as_it_is_reserved(void **state)
{
	struct stat s;

	(void)state;
	assert_false(region.sealed);
	assert_int_equal(fstat(region.fd.number, &s), 0);
	assert_true((uint64_t)s.st_size == BASE);
	see_the_same_bytes();
	assert_int_equal(ac__region_reserve(&region, 32 * MB, MB), 0);
	memset(ac__region_at(&region, 32 * MB, MB), 1, MB);
	assert_int_equal(fstat(region.fd.number, &s), 0);
	assert_true((uint64_t)s.st_size == 33 * MB);
	assert_true((uint64_t)s.st_blocks * 512 < 16 * MB); /* sparse between */
	ac__fault_arm(AC__SYS_PREALLOCATE, 1, 1, ENOSPC);
	assert_int_equal(ac__region_reserve(&region, 64 * MB, MB), -ENOSPC);
}

/* ---- limits ---- */

#define NO_LIMIT 77

static int map_with_little_space(void *arg)
{
	unsigned long pages = 0;
	struct rlimit limit;
	FILE *f = fopen("/proc/self/statm", "re");

	(void)arg;
	SEAT_CHECK(f && fscanf(f, "%lu", &pages) == 1);
	fclose(f);
	limit.rlim_cur = limit.rlim_max = pages * ac__sys_page() + 64 * MB;
	SEAT_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	/* An emulator may not enforce it. */
	if (mmap(NULL, 128 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		return NO_LIMIT;
	SEAT_CHECK(ac__region_at(&region, 256 * MB, 4096) == NULL);
	SEAT_CHECK(ac__region_at(&region, 256 * MB, 4096) == NULL);
	SEAT_CHECK(ac__region_at(&region, MB, 4096) != NULL);
	*(char *)ac__region_at(&region, MB, 4096) = 1;
	return 0;
}

static void test_region_address_space_limit_is_null(void **state)
{
	int r = seats_in_own_child(map_with_little_space, NULL, 5);

	(void)state;
	if (r == NO_LIMIT)
		skip();
	assert_int_equal(r, 0);
}

static int open_with_a_file_limit(void *limit_of_region)
{
	struct rlimit limit = { 128 * KB, 128 * KB };
	struct ac__region other;

	signal(SIGXFSZ, SIG_DFL);
	SEAT_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	for (int file = 0; file <= 1; file++) {
		ac__fault_disarm();
		if (file)
			ac__fault_arm(AC__SYS_MEMFD, 1, ALWAYS, ENOSYS);
		SEAT_CHECK(ac__region_open(&other, 256 * KB, *(uint64_t *)limit_of_region,
					   NULL) == -EFBIG);
		SEAT_CHECK(ac__region_open(&other, 64 * KB, 0, NULL) == 0);
		SEAT_CHECK(other.limit <= 128 * KB);
		SEAT_CHECK(ac__region_reserve(&other, 128 * KB, 4096) < 0);
		ac__region_close(&other);
	}
	return 0;
}

static void test_region_file_limit_is_an_error_and_no_signal(void **state)
{
	uint64_t none = 0;

	(void)state;
	assert_int_equal(seats_in_child(open_with_a_file_limit, &none, 5), 0);
}

static void test_region_file_limit_holds_with_a_limit_of_ours(void **state)
{
	uint64_t some = MB;

	(void)state;
	assert_int_equal(seats_in_child(open_with_a_file_limit, &some, 5), 0);
}

/* ---- threads, and children that are nobody ---- */

static int map_all(unsigned seat, void *arg)
{
	(void)arg;
	for (unsigned k = 1; k <= 12; k++) {
		uint64_t at = BASE << (k - 1);
		_Atomic uint32_t *word = ac__region_at(&region, at, 4096);

		SEAT_CHECK(word);
		atomic_fetch_add(word, seat);
	}
	return 0;
}

static void test_region_threads_map_each_segment_once(void **state)
{
	struct seats seats;

	(void)state;
	seats_start(&seats, SEATS_THREADS, 4, map_all, NULL);
	assert_int_equal(seats_join(&seats), 0);
	assert_int_equal(mapped_segments(&region), 13);
	for (unsigned k = 1; k <= 12; k++)
		assert_int_equal(*(uint32_t *)ac__region_at(&region, BASE << (k - 1), 4),
				 1 + 2 + 3 + 4);
}

static void test_region_processes_share(void **state)
{
	struct seats seats;

	(void)state;
	seats_start(&seats, SEATS_PROCESSES, 4, map_all, NULL);
	assert_int_equal(seats_join(&seats), 0);
	assert_int_equal(mapped_segments(&region), 1); /* theirs are theirs */
	for (unsigned k = 1; k <= 12; k++)
		assert_int_equal(*(uint32_t *)ac__region_at(&region, BASE << (k - 1), 4),
				 1 + 2 + 3 + 4);
}

static int write_in_a_users_child(void *arg)
{
	char *low = ac__region_at(&region, 0, 8);
	char *high = ac__region_at(&region, MB, 8);

	(void)arg;
	SEAT_CHECK(strcmp(low, "low") == 0 && strcmp(high, "high") == 0);
	strcpy(low, "child's");
	strcpy(high, "child's");
	SEAT_CHECK(strcmp(ac__region_at(&region, MB, 8), "child's") == 0);
	return 0;
}

static void test_region_is_private_in_a_users_child(void **state)
{
	char *low = ac__region_at(&region, 0, 8);
	char *high = ac__region_at(&region, MB, 8);

	(void)state;
	strcpy(low, "low");
	assert_int_equal(ac__region_reserve(&region, MB, 8), 0);
	strcpy(high, "high");
	assert_int_equal(seats_in_child(write_in_a_users_child, NULL, 5), 0);
	assert_string_equal(low, "low");
	assert_string_equal(high, "high");
}

/* A segment that was not mapped when the child was forked. */
static int map_in_a_users_child(void *arg)
{
	char *late;

	(void)arg;
	late = ac__region_at(&region, 16 * MB, 8);
	if (late)
		strcpy(late, "child's");
	return 0;
}

static void test_region_maps_nothing_later_in_a_users_child(void **state)
{
	(void)state;
	assert_int_equal(ac__region_reserve(&region, 16 * MB, 8), 0);
	assert_int_equal(seats_in_child(map_in_a_users_child, NULL, 5), 0);
	assert_string_equal(ac__region_at(&region, 16 * MB, 8), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_IN_FILE(name) cmocka_unit_test_setup_teardown(name, set_up_file, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_region_base_is_whole_pages_and_a_power_of_two),
		TEST(test_region_offsets_find_their_segment),
		TEST(test_region_blocks_never_cross),
		TEST(test_region_out_of_range_is_null),
		TEST(test_region_limit_is_for_what_follows_the_base),
		TEST(test_region_attached_sees_the_same_bytes),
		TEST(test_region_attach_takes_over_the_descriptor_when_it_fails),
		TEST(test_region_open_fails_with_nothing_open),
		TEST_IN_FILE(test_region_in_a_file_grows_as_it_is_reserved),
		TEST(test_region_address_space_limit_is_null),
		TEST(test_region_file_limit_is_an_error_and_no_signal),
		TEST(test_region_file_limit_holds_with_a_limit_of_ours),
		TEST(test_region_threads_map_each_segment_once),
		TEST(test_region_processes_share),
		TEST(test_region_is_private_in_a_users_child),
		TEST_IN_FILE(test_region_is_private_in_a_users_child),
		TEST(test_region_maps_nothing_later_in_a_users_child),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Control groups are read from recorded trees, in tests/data/cgroup, and from
 * odd ones written here. sched_getaffinity is replaced in this program, so
 * that the trees meet a machine of any size.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "allcores.h"
#include "cgroup.h"
#include "cpus.h"

#ifndef AC_TEST_DATA
#define AC_TEST_DATA "tests/data"
#endif

#define TREE(name) AC_TEST_DATA "/cgroup/" name
#define NO_TREE TREE("there is none")

/* ---- a machine of any size ---- */

static struct {
	int processors; /* 0: ask the kernel */
	int bits;	/* of the kernel's mask: smaller ones are refused */
	int error;
} machine;

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *mask)
{
	memset(mask, 0, size);
	if (!machine.processors && !machine.error)
		return syscall(SYS_sched_getaffinity, pid, size, mask) < 0 ? -1 : 0;
	errno = machine.error ? machine.error : EINVAL;
	if (machine.error || size * 8 < (size_t)machine.bits)
		return -1;
	/* From the top, where a mask that is too small would not see them. */
	for (int i = 1; i <= machine.processors; i++)
		CPU_SET_S((size_t)(machine.bits - i), size, mask);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	unsetenv("ALLCORES_CPUS");
	machine.processors = 64;
	machine.bits = 1024;
	machine.error = 0;
	return 0;
}

/* ---- recorded trees ---- */

#define UNLIMITED INT64_MAX

static const struct {
	const char *root;
	double cpus;
	int64_t room;
	int count; /* on 64 processors */
} trees[] = {
	/* a parent is stricter than the group and its own parent */
	{ TREE("v2_nested"), 3, 536870912 - 104857600, 3 },
	/* the container's own path is the mount's root */
	{ TREE("v2_docker"), 2, 268435456 - 67108864, 2 },
	/* half a processor; more memory in use than allowed */
	{ TREE("v2_private"), 0.5, 0, 1 },
	/* "/../foo" seen through "/": the mount point itself */
	{ TREE("v2_outside"), 7, 100000000, 7 },
	/* "/../foo" seen through "/.." */
	{ TREE("v2_parent"), 5, 999999, 5 },
	/* no memory controller; a quota of 0 above is none */
	{ TREE("v2_fraction"), 1.5, UNLIMITED, 2 },
	{ TREE("v2_max"), -1, UNLIMITED, 64 },
	{ TREE("v1_docker"), 2.5, 268435456 - 67108864, 3 },
	{ TREE("v1_unlimited"), -1, UNLIMITED, 64 },
	/* both are full, mostly of cached files; the job is the stricter then */
	{ TREE("v2_cache"), -1, 1000000000 - 370000000, 64 },
	/* the totals count at the parent, the plain figure where there are none */
	{ TREE("v1_cache"), -1, 500000000 - 90000000, 64 },
	{ TREE("hybrid"), 2, 600000000, 2 },
	{ TREE("garbage_limits"), -1, UNLIMITED, 64 },
	/* a good line among bad ones, which name stricter groups */
	{ TREE("garbage_proc"), 6, UNLIMITED, 6 },
	{ NO_TREE, -1, UNLIMITED, 64 },
};

static void test_cpus_reads_recorded_trees(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof trees / sizeof *trees; i++) {
		double cpus = ac__cgroup_cpus(trees[i].root);
		int64_t room = ac__cgroup_memory_free(trees[i].root);
		int count = ac__cpus_count(trees[i].root, 0);

		if (cpus != trees[i].cpus || room != trees[i].room ||
		    count != trees[i].count)
			fail_msg("%s: %g cpus, %lld bytes, count %d",
				 trees[i].root, cpus, (long long)room, count);
	}
}

/* ---- odd trees ---- */

#define MOUNTINFO "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"

static char made[] = "/tmp/allcores-test-XXXXXX";

static int make_tree(void **state)
{
	strcpy(made + strlen(made) - 6, "XXXXXX");
	return mkdtemp(made) ? set_up(state) : -1;
}

static int remove_one(const char *path, const struct stat *s, int type,
		      struct FTW *ftw)
{
	(void)s;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int remove_tree(void **state)
{
	(void)state;
	return nftw(made, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void write_file(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	assert_true(snprintf(path, sizeof path, "%s/%s", made, name) <
		    (int)sizeof path);
	for (char *p = path + strlen(made); (p = strchr(p + 1, '/'));) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_cpus_decodes_blanks_in_mountinfo(void **state)
{
	(void)state;
	write_file("proc/self/cgroup", "0::/a b\\c/d\n");
	write_file("proc/self/mountinfo",
		   "30 23 0:26 /a\\040b\\134c /my\\040groups\\1 rw - cgroup2 - rw\n");
	write_file("my groups\\1/d/cpu.max", "300000 100000\n");
	assert_true(ac__cgroup_cpus(made) == 3);
}

static void test_cpus_allows_colons_in_groups(void **state)
{
	(void)state;
	write_file("proc/self/cgroup", "0::/system.slice:docker:1\n");
	write_file("proc/self/mountinfo", MOUNTINFO);
	write_file("sys/fs/cgroup/system.slice:docker:1/cpu.max", "300000 100000\n");
	assert_true(ac__cgroup_cpus(made) == 3);
}

static void test_cpus_of_a_deleted_group_are_its_parents(void **state)
{
	(void)state;
	write_file("proc/self/cgroup", "0::/a/b (deleted)\n");
	write_file("proc/self/mountinfo", MOUNTINFO);
	write_file("sys/fs/cgroup/a/cpu.max", "300000 100000\n");
	assert_true(ac__cgroup_cpus(made) == 3);
}

static void test_cpus_takes_no_neighbour_for_a_parent(void **state)
{
	(void)state;
	write_file("proc/self/cgroup", "0::/abc\n");
	write_file("proc/self/mountinfo",
		   "30 23 0:26 /ab /one rw - cgroup2 cgroup2 rw\n"
		   "31 23 0:26 /abc /two rw - cgroup2 cgroup2 rw\n"
		   "32 23 0:26 /abc/d /three rw - cgroup2 cgroup2 rw\n");
	write_file("one/cpu.max", "100000 100000\n");
	write_file("onec/cpu.max", "100000 100000\n");
	write_file("two/cpu.max", "200000 100000\n");
	write_file("three/cpu.max", "100000 100000\n");
	assert_true(ac__cgroup_cpus(made) == 2);
}

static int64_t room_with_stat(const char *stat)
{
	write_file("sys/fs/cgroup/memory.stat", stat);
	return ac__cgroup_memory_free(made);
}

static void test_cpus_room_with_cached_files_is_within_the_limit(void **state)
{
	(void)state;
	write_file("proc/self/cgroup", "0::/\n");
	write_file("proc/self/mountinfo", MOUNTINFO);
	write_file("sys/fs/cgroup/memory.max", "1000\n");
	write_file("sys/fs/cgroup/memory.current", "700\n");
	assert_int_equal(room_with_stat("inactive_file 100\n"), 400);
	assert_int_equal(room_with_stat("inactive_file 700\n"), 1000);
	assert_int_equal(room_with_stat("inactive_file 9999\n"), 1000);
	/* Not understood, or not there: nothing can be given back. */
	assert_int_equal(room_with_stat("inactive_file -100\n"), 300);
	assert_int_equal(room_with_stat("inactive_file 99999999999999999999\n"), 300);
	assert_int_equal(room_with_stat("inactive_file\n\ninactive_file \n"), 300);
	assert_int_equal(room_with_stat("xinactive_file 100\ninactive_files 1"), 300);
	assert_int_equal(room_with_stat(""), 300);
	/* More in use than allowed, as after the limit was lowered. */
	write_file("sys/fs/cgroup/memory.current", "1500\n");
	assert_int_equal(room_with_stat("inactive_file 400\n"), 0);
	assert_int_equal(room_with_stat("inactive_file 600\n"), 100);
}

/* len bytes "/xx...x/xx...x", in components that a file system would take. */
static char *long_path(size_t len)
{
	char *path = test_malloc(len + 1);

	for (size_t i = 0; i < len; i++)
		path[i] = i % 200 ? 'x' : '/';
	path[len] = '\0';
	return path;
}

static void write_long(const char *name, const char *format, const char *path)
{
	char *text = test_malloc(strlen(format) + strlen(path));

	sprintf(text, format, path);
	write_file(name, text);
	test_free(text);
}

static void test_cpus_survives_overlong_paths(void **state)
{
	char *path = long_path(100000);

	(void)state;
	write_long("proc/self/cgroup", "0::/a%s\n", path);
	write_long("proc/self/mountinfo",
		   "29 23 0:25 / / rw - overlay overlay lowerdir=%s\n" MOUNTINFO, path);
	write_file("sys/fs/cgroup/a/cpu.max", "300000 100000\n");
	/* A parent that can be named still counts. */
	assert_true(ac__cgroup_cpus(made) == 3);

	write_long("proc/self/mountinfo",
		   "30 23 0:26 / %s rw - cgroup2 cgroup2 rw\n", path);
	assert_true(ac__cgroup_cpus(made) <= 0);
	assert_true(ac__cgroup_cpus(path) <= 0);
	assert_true(ac__cgroup_memory_free(path) == INT64_MAX);

	/* Every length around the limit. */
	for (size_t len = PATH_MAX - 100; len < PATH_MAX + 10; len++) {
		path[len] = '\0';
		write_long("proc/self/cgroup", "0::%s\n", path);
		write_file("proc/self/mountinfo", MOUNTINFO);
		assert_true(ac__cgroup_cpus(made) <= 0);
		path[len] = 'x';
	}
	test_free(path);
}

/* ---- affinity ---- */

static void test_cpus_counts_the_mask(void **state)
{
	(void)state;
	assert_int_equal(ac__cpus_count(NO_TREE, 0), 64);
	machine.processors = 1;
	assert_int_equal(ac__cpus_count(NO_TREE, 0), 1);
	assert_int_equal(ac__cpus_count(TREE("v2_nested"), 0), 1);
}

static void test_cpus_grows_the_mask(void **state)
{
	(void)state;
	machine.processors = 1500;
	machine.bits = 8192;
	assert_int_equal(ac__cpus_count(NO_TREE, 0), 1500);
}

static void test_cpus_without_affinity_counts_processors(void **state)
{
	(void)state;
	machine.error = EPERM;
	assert_int_equal(ac__cpus_count(NO_TREE, 0), sysconf(_SC_NPROCESSORS_ONLN));
	machine.error = EINVAL; /* whatever the size: the search must end */
	assert_int_equal(ac__cpus_count(NO_TREE, 0), sysconf(_SC_NPROCESSORS_ONLN));
}

/* In a child: confine it to one of its processors, then count. */
static int count_confined(void)
{
	cpu_set_t mask, one;
	int first = 0;

	machine.processors = 0;
	if (sched_getaffinity(0, sizeof mask, &mask) < 0)
		return 100;
	while (!CPU_ISSET(first, &mask))
		first++;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	if (sched_setaffinity(0, sizeof one, &one) < 0)
		return 101;
	return ac_cpus(0) == 1 ? ac__cpus_count(NO_TREE, 0) : 102;
}

static void test_cpus_of_a_confined_process_is_one(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(count_confined());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

static void test_cpus_of_this_system_are_at_least_one(void **state)
{
	(void)state;
	machine.processors = 0;
	assert_in_range(ac_cpus(0), 1, sysconf(_SC_NPROCESSORS_CONF));
	assert_int_equal(ac_cpus(INT_MAX), 1);
	assert_true(ac__cgroup_memory_free("") >= 0);
}

/* ---- the user's wishes ---- */

static void test_cpus_obeys_the_environment(void **state)
{
	static const struct {
		const char *text;
		int count;
	} cases[] = {
		{ "1", 1 }, { "5", 5 }, { "007", 7 }, { "63", 63 }, { "65", 64 },
		/* larger than the machine, than int, than long long */
		{ "2147483648", 64 }, { "999999999999", 64 },
		{ "99999999999999999999999999999999", 64 },
		/* not positive numbers: ignored */
		{ "0", 64 }, { "00", 64 }, { "", 64 }, { "x", 64 }, { "2x", 64 },
		{ "-1", 64 }, { "+2", 64 }, { "1.5", 64 }, { " 2", 64 },
		{ "2 ", 64 }, { "0x2", 64 }, { "4294967297x", 64 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		setenv("ALLCORES_CPUS", cases[i].text, 1);
		if (ac__cpus_count(NO_TREE, 0) != cases[i].count)
			fail_msg("\"%s\": %d", cases[i].text,
				 ac__cpus_count(NO_TREE, 0));
	}
	/* It can lower the quota, not raise it. */
	setenv("ALLCORES_CPUS", "60", 1);
	assert_int_equal(ac__cpus_count(TREE("v2_nested"), 0), 3);
	setenv("ALLCORES_CPUS", "2", 1);
	assert_int_equal(ac__cpus_count(TREE("v2_nested"), 0), 2);
}

static void test_cpus_leaves_some_but_never_all(void **state)
{
	(void)state;
	assert_int_equal(ac__cpus_count(NO_TREE, 2), 62);
	assert_int_equal(ac__cpus_count(NO_TREE, 63), 1);
	assert_int_equal(ac__cpus_count(NO_TREE, 64), 1);
	assert_int_equal(ac__cpus_count(NO_TREE, INT_MAX), 1);
	assert_int_equal(ac__cpus_count(NO_TREE, -1), 64);
	assert_int_equal(ac__cpus_count(NO_TREE, INT_MIN), 64);
	/* Taken off what is allowed, not off what the machine has. */
	assert_int_equal(ac__cpus_count(TREE("v2_nested"), 1), 2);
}

#define TEST(name) cmocka_unit_test_setup(test_cpus_##name, set_up)
#define TREE_TEST(name) \
	cmocka_unit_test_setup_teardown(test_cpus_##name, make_tree, remove_tree)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reads_recorded_trees),
		TREE_TEST(decodes_blanks_in_mountinfo),
		TREE_TEST(allows_colons_in_groups),
		TREE_TEST(of_a_deleted_group_are_its_parents),
		TREE_TEST(takes_no_neighbour_for_a_parent),
		TREE_TEST(room_with_cached_files_is_within_the_limit),
		TREE_TEST(survives_overlong_paths),
		TEST(counts_the_mask),
		TEST(grows_the_mask),
		TEST(without_affinity_counts_processors),
		TEST(of_a_confined_process_is_one),
		TEST(of_this_system_are_at_least_one),
		TEST(obeys_the_environment),
		TEST(leaves_some_but_never_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * A process near its limits (descriptors, processes, address space, file
 * size, a full disk), also its template and its workers: an error or a slower way, never a
 * signal, a hang or a leak.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "crash.h"
#include "sys.h"

#define WORKERS 2
#define CALLS 20
#define NOBODY 65534

static struct crash_print before;

static void set_limit(int resource, uint64_t n)
{
	struct rlimit limit = { .rlim_cur = n };

	CHECK_EQ(getrlimit(resource, &(struct rlimit){ 0 }), 0);
	limit.rlim_max = RLIM_INFINITY;
	if (setrlimit(resource, &limit) < 0) {
		getrlimit(resource, &limit);
		limit.rlim_cur = n;
		CHECK_EQ(setrlimit(resource, &limit), 0);
	}
}

static int reverse_call(struct ac_call *call)
{
	size_t len;
	const unsigned char *from = ac_call_arg(call, &len);
	unsigned char *to = ac_call_reserve(call, len);

	if (!to)
		return ac_call_fail(call, "no memory");
	for (size_t i = 0; i < len; i++)
		to[i] = from[len - 1 - i];
	return 0;
}

static int is_code(int r)
{
	return r < 0 && (r > -4096 || (r <= AC_ETASK && r >= AC_EVERSION));
}

static int check_call(struct ac_task *task, const unsigned char *bytes, size_t len)
{
	struct ac_outcome outcome;
	const unsigned char *result;
	const void *data;
	size_t result_len;

	CHECK_EQ(ac_task_wait(task, 10 * SECOND), 0);
	CHECK_EQ(ac_task_outcome(task, &outcome), 0);
	CHECK(outcome.status == 0 || is_code(outcome.status));
	if (outcome.status)
		return outcome.status;
	CHECK_EQ(ac_task_result(task, &data, &result_len), 0);
	CHECK_EQ(result_len, len);
	result = data;
	for (size_t i = 0; i < len; i += 997)
		CHECK_EQ(result[i], bytes[len - 1 - i]);
	return 0;
}

/* Calls of len bytes each way: 0, or the first code met. */
static int run_calls(struct ac_pool *pool, size_t len)
{
	struct ac_task *tasks[CALLS];
	unsigned char *bytes = malloc(len);
	unsigned n;
	int r = 0, first;

	if (!bytes)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++)
		bytes[i] = (unsigned char)(i * 7);
	for (n = 0; n < CALLS && r == 0; n++)
		r = ac_pool_submit(pool, &tasks[n], reverse_call, bytes, len, NULL);
	CHECK(r == 0 || is_code(r));
	n -= r != 0;
	first = r;
	for (unsigned i = 0; i < n; i++) {
		r = check_call(tasks[i], bytes, len);
		first = first ? first : r;
		ac_task_free(tasks[i]);
	}
	free(bytes);
	return first;
}

static struct ac_pool *try_open(int *r)
{
	struct ac_pool_opts opts = { .size = sizeof opts,
				     .workers = WORKERS,
				     .ready_ns = 3 * SECOND };
	struct ac_pool *pool = NULL;

	*r = ac_pool_open(&pool, &opts);
	CHECK(*r == 0 || is_code(*r));
	return pool;
}

/* Open, work, close: 0 or the first code met. */
static int work_out(size_t len)
{
	struct ac_pool_stat stat;
	int r;
	struct ac_pool *pool = try_open(&r);

	if (!pool)
		return r;
	r = run_calls(pool, len);
	crash_check_sum(pool, &stat);
	CHECK_EQ(ac_pool_close(pool), 0);
	return r;
}

/* ---- descriptors ---- */

static void few_descriptors(void *arg)
{
	unsigned left, failed = 0;
	struct rlimit limit;
	int lowest;

	(void)arg;
	CHECK_EQ(work_out(8), 0);
	crash_print_take(&before);
	getrlimit(RLIMIT_NOFILE, &limit);
	lowest = dup(0);
	close(lowest);
	for (left = 0; left < 24; left++) {
		crash_at("%u descriptors left", left);
		set_limit(RLIMIT_NOFILE, (uint64_t)lowest + left);
		failed += work_out(10000) != 0;
		set_limit(RLIMIT_NOFILE, limit.rlim_cur);
		crash_print_check(&before);
	}
	crash_note("%u of %u runs with an error", failed, left);
	CHECK(failed > 0 && failed < left);
}

/* The limit is reached once the pool is open, and workers die. */
static void no_descriptor_for_replacement(void *arg)
{
	struct ac_worker_stat stats[WORKERS];
	struct ac_pool *pool;
	struct rlimit limit;
	int r;

	(void)arg;
	crash_print_take(&before);
	getrlimit(RLIMIT_NOFILE, &limit);
	pool = try_open(&r);
	CHECK(pool && crash_await_workers(pool, 5 * SECOND));
	ac_pool_workers(pool, stats, WORKERS);
	set_limit(RLIMIT_NOFILE, 3);
	kill(stats[0].pid, SIGKILL);
	CHECK_EQ(run_calls(pool, 10000), 0);
	set_limit(RLIMIT_NOFILE, limit.rlim_cur);
	/* Tried again within a second or so. */
	CHECK_EQ(run_calls(pool, 8), 0);
	crash_sleep(1500 * MS);
	CHECK_EQ(run_calls(pool, 8), 0);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

/* ---- processes ---- */

/* Root has no limit. */
static void become_nobody(void)
{
	if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		crash_skip("needs root, to become somebody else");
}

static void few_processes(void *arg)
{
	unsigned failed = 0;

	(void)arg;
	become_nobody();
	CHECK_EQ(work_out(8), 0);
	crash_print_take(&before);
	for (unsigned n = 0; n < 6; n++) {
		crash_at("at most %u processes", n);
		set_limit(RLIMIT_NPROC, n);
		failed += work_out(10000) != 0;
		crash_print_check(&before);
	}
	crash_note("%u of 6 runs with an error", failed);
	CHECK(failed > 0);
}

/* ---- the template's own ---- */

static void set_limit_of(pid_t pid, int resource, uint64_t n)
{
	struct rlimit limit;

	CHECK_EQ(prlimit(pid, resource, NULL, &limit), 0);
	limit.rlim_cur = n;
	CHECK_EQ(prlimit(pid, resource, &limit, NULL), 0);
}

static void kill_workers(struct ac_pool *pool, unsigned n)
{
	struct ac_worker_stat stats[WORKERS];

	ac_pool_workers(pool, stats, WORKERS);
	for (unsigned i = 0; i < n; i++)
		kill(stats[i].pid, SIGKILL);
	for (unsigned i = 0; i < n; i++)
		CHECK(crash_await_death(stats[i].pid, SECOND));
}

/* Open already, the template can start no more: one worker lost, and its seat is filled
 * when that is possible again; all lost, and the pool says that it can't go on. */
static void starve_template(void *arg)
{
	int resource = *(int *)arg, r;
	struct rlimit limit;
	struct ac_pool *pool;
	pid_t template;

	if (resource == RLIMIT_NPROC)
		become_nobody();
	crash_print_take(&before);
	CHECK_EQ(getrlimit(resource, &limit), 0);
	pool = try_open(&r);
	CHECK(pool && crash_await_workers(pool, 5 * SECOND));
	template = crash_template(getpid());
	set_limit_of(template, resource, 0);
	kill_workers(pool, 1);
	CHECK_EQ(run_calls(pool, 10000), 0);
	CHECK(!crash_await_workers(pool, 100 * MS));
	set_limit_of(template, resource, limit.rlim_cur);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	CHECK_EQ(run_calls(pool, 10000), 0);
	set_limit_of(template, resource, 0);
	kill_workers(pool, WORKERS);
	CHECK_EQ(run_calls(pool, 8), AC_ESTART);
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

/* Its only free descriptor is that of standard input, which is none for the library: so the order
 * to start a worker is read without what belongs to it. */
static void leave_standard_input(void *arg)
{
	struct rlimit limit;
	struct ac_pool *pool;
	pid_t template;
	int r;

	(void)arg;
	close(0);
	crash_print_take(&before);
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	pool = try_open(&r);
	CHECK(pool && crash_await_workers(pool, 5 * SECOND));
	template = crash_template(getpid());
	set_limit_of(template, RLIMIT_NOFILE, 1);
	kill_workers(pool, 1);
	CHECK_EQ(run_calls(pool, 10000), 0);
	CHECK(!crash_await_workers(pool, 100 * MS));
	set_limit_of(template, RLIMIT_NOFILE, limit.rlim_cur);
	CHECK(crash_await_workers(pool, 5 * SECOND));
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

/* ---- address space ---- */

/* Bytes that are mapped now. */
static uint64_t space_of(pid_t pid)
{
	unsigned long pages = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	CHECK(file && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Of what is mapped now, and so much more. */
static void limit_space(uint64_t more)
{
	set_limit(RLIMIT_AS, space_of(getpid()) + more);
}

/* An emulator may not enforce it. */
static void require_limit_of_space(void)
{
	void *p;

	if (CRASH_SANITIZED)
		crash_skip("sanitizers need address space");
	limit_space(UINT64_C(4) << 20);
	p = mmap(NULL, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	set_limit(RLIMIT_AS, RLIM_INFINITY);
	if (p != MAP_FAILED)
		crash_skip("address space has no limit here");
}

static void little_space_before(void *arg)
{
	unsigned failed = 0, n = 0;

	(void)arg;
	require_limit_of_space();
	CHECK_EQ(work_out(8), 0);
	crash_print_take(&before);
	for (uint64_t more = 4096; more < UINT64_C(1) << 30; more *= 2, n++) {
		crash_at("%llu bytes more", (unsigned long long)more);
		limit_space(more);
		failed += work_out(100000) != 0;
		set_limit(RLIMIT_AS, RLIM_INFINITY);
		crash_print_check(&before);
	}
	crash_note("%u of %u runs with an error", failed, n);
	CHECK(failed > 0 && failed < n);
}

static void little_space_after(void *arg)
{
	struct ac_pool_stat stat;
	struct ac_pool *pool;
	int r;

	(void)arg;
	require_limit_of_space();
	crash_print_take(&before);
	pool = try_open(&r);
	CHECK(pool && run_calls(pool, 8) == 0);
	limit_space(UINT64_C(24) << 20);
	for (size_t len = 1000; len < 20000000; len *= 3) {
		crash_at("calls of %zu bytes", len);
		r = run_calls(pool, len);
		CHECK(r == 0 || r == -ENOMEM || r == AC_ETASK);
	}
	CHECK(r != 0);
	CHECK_EQ(run_calls(pool, 8), 0);
	crash_check_sum(pool, &stat);
	crash_check_blocks(pool, 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	set_limit(RLIMIT_AS, RLIM_INFINITY);
	crash_print_check(&before);
}

/* The workers' own: what they can't map fails the task, and no worker dies of it. */
static void little_space_in_workers(void *arg)
{
	struct ac_worker_stat stats[WORKERS];
	struct ac_pool_stat stat;
	struct ac_pool *pool;
	int r;

	(void)arg;
	require_limit_of_space();
	crash_print_take(&before);
	pool = try_open(&r);
	CHECK(pool && crash_await_workers(pool, 5 * SECOND));
	ac_pool_workers(pool, stats, WORKERS);
	for (unsigned i = 0; i < WORKERS; i++)
		set_limit_of(stats[i].pid, RLIMIT_AS, space_of(stats[i].pid) + 65536);
	CHECK_EQ(run_calls(pool, 8), 0);
	r = run_calls(pool, 6000000);
	CHECK(r == -ENOMEM || r == AC_ETASK);
	CHECK_EQ(run_calls(pool, 8), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		set_limit_of(stats[i].pid, RLIMIT_AS, RLIM_INFINITY);
	CHECK_EQ(run_calls(pool, 6000000), 0);
	crash_check_sum(pool, &stat);
	CHECK_EQ(stat.deaths, 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

/* ---- a full disk ---- */

static char disk[] = "/tmp/limits-XXXXXX";

/* Of this case alone: it goes with it. */
static void mount_disk(uint64_t size)
{
	char how[64];

	snprintf(how, sizeof how, "size=%llu", (unsigned long long)size);
	CHECK_EQ(mount("limits", disk, "tmpfs", 0, how), 0);
}

static void begin_disks(void)
{
	ac__fault_arm(AC__SYS_MEMFD, 1, UINT32_MAX, ENOSYS);
	if (!mkdtemp(disk))
		crash_skip("no directory to mount on");
	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("limits", disk, "tmpfs", 0, "size=64k") < 0) {
		rmdir(disk);
		crash_skip("may not mount a file system");
	}
	CHECK_EQ(umount(disk), 0);
	setenv("TMPDIR", disk, 1);
}

static void end_disks(void)
{
	ac__fault_disarm();
	CHECK_EQ(rmdir(disk), 0);
}

static void small_disk(void *arg)
{
	unsigned failed = 0, n = 0;

	(void)arg;
	begin_disks();
	crash_print_take(&before);
	for (uint64_t size = 65536; size <= UINT64_C(1) << 26; size *= 2, n++) {
		crash_at("a disk of %llu bytes", (unsigned long long)size);
		mount_disk(size);
		failed += work_out(300000) != 0;
		crash_print_check(&before);
		/* All that was on it is gone, or it would be busy. */
		CHECK_EQ(umount(disk), 0);
	}
	crash_note("%u of %u runs with an error", failed, n);
	CHECK(failed > 0 && failed < n);
	end_disks();
}

/* To its last byte. */
static void fill_disk(const char *path)
{
	static const char bytes[65536];
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	while (write(fd, bytes, sizeof bytes) > 0)
		;
	CHECK_EQ(errno, ENOSPC);
	close(fd);
}

static void full_disk_after(void *arg)
{
	struct ac_pool *pool;
	char path[64];
	int r;

	(void)arg;
	begin_disks();
	mount_disk(UINT64_C(64) << 20);
	crash_print_take(&before);
	pool = try_open(&r);
	CHECK(pool && run_calls(pool, 8) == 0);
	snprintf(path, sizeof path, "%s/full", disk);
	fill_disk(path);
	for (size_t len = 1000; len < 8000000; len *= 3) {
		crash_at("calls of %zu bytes", len);
		r = run_calls(pool, len);
		CHECK(r == 0 || r == -ENOSPC || r == -ENOMEM || r == AC_ETASK);
	}
	CHECK(r != 0);
	CHECK_EQ(run_calls(pool, 8), 0);
	unlink(path);
	CHECK_EQ(run_calls(pool, 300000), 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
	CHECK_EQ(umount(disk), 0);
	end_disks();
}

/* ---- file size ---- */

static void small_files(void *arg)
{
	static const char *const how[] = { "memfd", "a file" };
	unsigned failed = 0, n = 0;

	(void)arg;
	CHECK_EQ(work_out(8), 0);
	crash_print_take(&before);
	for (unsigned way = 0; way < 2; way++)
		for (uint64_t most = 1; most < UINT64_C(1) << 26; most *= 4, n++) {
			crash_at("files of %llu bytes, %s",
				 (unsigned long long)most, how[way]);
			if (way)
				ac__fault_arm(AC__SYS_MEMFD, 1, UINT32_MAX, ENOSYS);
			set_limit(RLIMIT_FSIZE, most);
			failed += work_out(100000) != 0;
			set_limit(RLIMIT_FSIZE, RLIM_INFINITY);
			ac__fault_disarm();
			crash_print_check(&before);
		}
	crash_note("%u of %u runs with an error", failed, n);
	CHECK(failed > 0 && failed < n);
}

/* The limit comes when the pool is open: what grows must look before it writes. */
static void small_files_after(void *arg)
{
	struct ac_pool *pool;
	int r;

	crash_print_take(&before);
	if (arg)
		ac__fault_arm(AC__SYS_MEMFD, 1, UINT32_MAX, ENOSYS);
	pool = try_open(&r);
	CHECK(pool && run_calls(pool, 8) == 0);
	set_limit(RLIMIT_FSIZE, UINT64_C(8) << 20);
	for (size_t len = 1000; len < 8000000; len *= 3) {
		crash_at("calls of %zu bytes", len);
		r = run_calls(pool, len);
		CHECK(r == 0 || is_code(r));
	}
	CHECK_EQ(run_calls(pool, 8), 0);
	CHECK_EQ(ac_pool_close(pool), 0);
	crash_print_check(&before);
}

int main(int argc, char **argv)
{
	int descriptors = RLIMIT_NOFILE, processes = RLIMIT_NPROC;

	crash_begin(argc, argv);
	crash_case("few descriptors", few_descriptors, NULL, 20);
	crash_case("no descriptor for a replacement",
		   no_descriptor_for_replacement, NULL, 15);
	crash_case("few processes", few_processes, NULL, 20);
	crash_case("no descriptor for the template", starve_template, &descriptors, 15);
	crash_case("no descriptor for the template but standard input", leave_standard_input, NULL,
		   15);
	crash_case("no process for the template", starve_template, &processes, 15);
	crash_case("little address space, before opening", little_space_before,
		   NULL, 20);
	crash_case("little address space, after opening", little_space_after,
		   NULL, 20);
	crash_case("little address space, workers", little_space_in_workers, NULL, 20);
	crash_case("small disk, before opening", small_disk, NULL, 20);
	crash_case("full disk, after opening", full_disk_after, NULL, 20);
	crash_case("small files, before opening", small_files, NULL, 20);
	crash_case("small files, after opening", small_files_after, NULL, 20);
	crash_case("small files, after opening, no memfd", small_files_after,
		   argv, 20);
	return crash_end();
}

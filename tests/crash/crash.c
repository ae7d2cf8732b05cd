/* SPDX-License-Identifier: MIT */
/* Cases in processes of their own, and what they leave behind: see the header. */
#define _GNU_SOURCE
#include "crash.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block.h"
#include "engine.h"

#define PIDS 512
#define EXIT_FAILED 1
#define EXIT_SKIPPED 77

uint64_t crash_seed;

static unsigned cases, failures;
static char **words;
static char *place; /* shared with the cases */
#define PLACE_SIZE 256

/* ---- time, chance ---- */

int64_t crash_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

void crash_sleep(int64_t ns)
{
	struct timespec t = { .tv_sec = ns / SECOND, .tv_nsec = ns % SECOND };

	nanosleep(&t, NULL);
}

void crash_burn(int64_t ns)
{
	int64_t end = crash_now() + ns;

	while (crash_now() < end)
		;
}

/* splitmix64 */
uint64_t crash_random(uint64_t *seed)
{
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* ---- processes ---- */

/* From "pid (comm) S ppid": the comm may have anything in it. */
static bool read_stat(pid_t pid, char comm[16], char *state, pid_t *parent)
{
	char path[64], line[512], *open, *close;
	FILE *file;
	size_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(line, 1, sizeof line - 1, file);
	fclose(file);
	line[n] = '\0';
	open = strchr(line, '(');
	close = strrchr(line, ')');
	if (!open || !close)
		return false;
	*close = '\0';
	snprintf(comm, 16, "%.15s", open + 1);
	return sscanf(close + 1, " %c %d", state, parent) == 2;
}

unsigned crash_children(pid_t parent, pid_t *pids, unsigned most)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name), its;
		char comm[16], state;

		if (pid > 0 && read_stat(pid, comm, &state, &its) &&
		    its == parent && n < most)
			pids[n++] = pid;
	}
	if (dir)
		closedir(dir);
	return n;
}

char crash_state(pid_t pid)
{
	char comm[16], state;
	pid_t parent;

	return read_stat(pid, comm, &state, &parent) ? state : 0;
}

bool crash_lives(pid_t pid)
{
	char state = crash_state(pid);

	return state && state != 'Z' && state != 'X';
}

bool crash_await_death(pid_t pid, int64_t ns)
{
	int64_t end = crash_now() + ns;

	while (crash_lives(pid)) {
		if (crash_now() > end)
			return false;
		crash_sleep(MS);
	}
	return true;
}

void crash_await_success(pid_t pid, int64_t ns)
{
	int64_t end = crash_now() + ns;
	int status;
	pid_t ended;

	while ((ended = waitpid(pid, &status, WNOHANG)) == 0) {
		if (crash_now() > end)
			crash_fail(__FILE__, __LINE__, "process %d hangs", (int)pid);
		crash_sleep(MS / 10);
	}
	CHECK_EQ(ended, pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int64_t crash_await_nobody(int64_t ns)
{
	int64_t start = crash_now();
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (crash_now() - start > ns)
			crash_fail(__FILE__, __LINE__, "processes are left");
		if (pid == 0)
			crash_sleep(MS / 10);
	}
	CHECK_EQ(errno, ECHILD);
	return crash_now() - start;
}

static bool has_star(pid_t pid)
{
	char comm[16], state;
	pid_t parent;

	return read_stat(pid, comm, &state, &parent) && *comm &&
	       comm[strlen(comm) - 1] == '*' && state != 'Z';
}

pid_t crash_template(pid_t owner)
{
	pid_t pids[PIDS];
	unsigned n = crash_children(owner, pids, PIDS);

	for (unsigned i = 0; i < n; i++)
		if (has_star(pids[i]))
			return pids[i];
	return 0;
}

/* A child that has just been forked is still called as its parent is. */
unsigned crash_workers(pid_t template, pid_t *pids, unsigned most)
{
	pid_t children[PIDS];
	unsigned n = crash_children(template, children, PIDS), kept = 0;

	for (unsigned i = 0; i < n && kept < most; i++)
		if (crash_state(children[i]) != 'Z' && !has_star(children[i]))
			pids[kept++] = children[i];
	return kept;
}

static pid_t living_pid(struct ac_pool *pool, const struct ac__template_process *process)
{
	pid_t pid;

	ac__pool_lock(pool);
	pid = process->socket >= 0 ? process->pid : 0;
	ac__pool_unlock(pool);
	return pid > 0 && crash_lives(pid) ? pid : 0;
}

pid_t crash_template_of(struct ac_pool *pool)
{
	return living_pid(pool, &pool->workers.template.now);
}

pid_t crash_reserve_of(struct ac_pool *pool)
{
	return living_pid(pool, &pool->workers.template.reserve);
}

bool crash_await_reserve(struct ac_pool *pool, int64_t ns)
{
	int64_t end = crash_now() + ns;

	while (!crash_template_of(pool) || !crash_reserve_of(pool)) {
		if (crash_now() > end)
			return false;
		ac_pool_dispatch(pool);
		crash_sleep(MS);
	}
	return true;
}

/* ---- what is left ---- */

static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

static unsigned count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned n = 0;

	while (file && fgets(line, sizeof line, file))
		n += strstr(line, "allcores") && strstr(line, "(deleted)");
	if (file)
		fclose(file);
	return n;
}

void crash_print_take(struct crash_print *print)
{
	siginfo_t info = { 0 };

	print->descriptors = count_descriptors();
	print->mappings = count_mappings();
	print->children = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

void crash_print_check(const struct crash_print *before)
{
	struct crash_print now;
	int64_t end = crash_now() + SECOND;

	do {
		crash_print_take(&now);
		if (now.descriptors == before->descriptors &&
		    now.mappings == before->mappings &&
		    now.children == before->children)
			return;
		crash_sleep(5 * MS);
	} while (crash_now() < end);
	CHECK_EQ(now.descriptors, before->descriptors);
	CHECK_EQ(now.mappings, before->mappings);
	CHECK_EQ(now.children, before->children);
}

/* ---- a pool's promises ---- */

void crash_check_sum(struct ac_pool *pool, struct ac_pool_stat *stat)
{
	CHECK_EQ(ac_pool_stat(pool, stat, sizeof *stat), 0);
	CHECK_EQ(stat->waiting, 0);
	CHECK_EQ(stat->running, 0);
	CHECK_EQ(stat->submitted, stat->done + stat->failed + stat->cancelled);
}

/* All entries: the arena's own count believes what a worker may have left half done. */
static unsigned count_blocks(struct ac__arena *arena)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < arena->block_count; i++) {
		unsigned state = ac__word_state(atomic_load(&arena->blocks[i].word));

		n += state != AC__BLOCK_FREE && state != AC__BLOCK_UNUSED;
	}
	return n;
}

void crash_check_blocks(struct ac_pool *pool, unsigned held)
{
	struct ac__arena *arena = &pool->memory->arena;
	int64_t end = crash_now() + 2 * SECOND;

	while (count_blocks(arena) != held && crash_now() < end) {
		ac_pool_dispatch(pool);
		crash_sleep(MS);
	}
	CHECK_EQ(count_blocks(arena), held);
	CHECK_EQ(ac__block_audit(arena), 0);
}

static bool all_ready(struct ac_pool *pool)
{
	static struct ac_worker_stat stats[PIDS];
	int n = ac_pool_workers(pool, stats, PIDS);

	for (int i = 0; i < n; i++)
		if (stats[i].state < AC_WORKER_IDLE || !crash_lives(stats[i].pid))
			return false;
	return true;
}

bool crash_await_workers(struct ac_pool *pool, int64_t ns)
{
	int64_t end = crash_now() + ns;

	while (!all_ready(pool)) {
		if (crash_now() > end)
			return false;
		ac_pool_dispatch(pool);
		crash_sleep(MS);
	}
	return true;
}

static int triple_item(const void *item, void *result, const void *bound)
{
	(void)bound;
	*(uint64_t *)result = *(const uint64_t *)item * 3;
	return 0;
}

static int triple_call(struct ac_call *call)
{
	uint64_t n = *(const uint64_t *)ac_call_arg(call, NULL) * 3;

	return ac_call_return(call, &n, sizeof n);
}

void crash_check_usable(struct ac_pool *pool)
{
	uint64_t items[300], results[300], n;
	size_t len = sizeof n;

	for (uint64_t i = 0; i < 300; i++)
		items[i] = i;
	CHECK_EQ(ac_pool_map(pool, triple_item, NULL, items, sizeof *items,
			     results, sizeof *results, 300), 0);
	for (uint64_t i = 0; i < 300; i++)
		CHECK_EQ(results[i], i * 3);
	CHECK_EQ(ac_pool_call(pool, triple_call, items + 7, sizeof *items, &n,
			      &len, NULL), 0);
	CHECK_EQ(n, 21);
}

/* ---- a case's own process ---- */

void crash_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("# ");
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
	va_end(args);
}

void crash_at(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(place, PLACE_SIZE, format, args);
	va_end(args);
}

void crash_fail(const char *file, int line, const char *format, ...)
{
	const char *name = strrchr(file, '/');
	va_list args;

	va_start(args, format);
	printf("# %s:%d: ", name ? name + 1 : file, line);
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
	_exit(EXIT_FAILED);
}

void crash_skip(const char *why)
{
	crash_note("skipped: %s", why);
	_exit(EXIT_SKIPPED);
}

/* Not _exit: the sanitizer's look for leaks comes at an exit. */
__attribute__((noreturn)) static void
be_case(void (*fn)(void *arg), void *arg, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)
		_exit(EXIT_FAILED);
	fn(arg);
	exit(0);
}

/* ---- the program around it ---- */

static void show_process(pid_t pid, const char *why)
{
	char comm[16], state, path[64], line[160] = "";
	pid_t parent;
	FILE *file;

	if (!read_stat(pid, comm, &state, &parent))
		return;
	snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
	file = fopen(path, "re");
	if (file && !fgets(line, sizeof line, file))
		line[0] = '\0';
	if (file)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
	crash_note("%s: %d (%s) %c, child of %d, syscall %s", why, (int)pid,
		   comm, state, (int)parent, line);
}

static void show_tree(pid_t pid, const char *why, unsigned depth)
{
	pid_t pids[PIDS];
	unsigned n = crash_children(pid, pids, PIDS);

	show_process(pid, why);
	for (unsigned i = 0; depth && i < n; i++)
		show_tree(pids[i], why, depth - 1);
}

/* True: it has ended, as *status says. Orphans of the case come here too. */
static bool await_case(pid_t pid, unsigned seconds, int *status)
{
	int64_t end = crash_now() + seconds * SECOND;

	for (;;) {
		pid_t ended = waitpid(-1, status, WNOHANG);

		if (ended == pid)
			return true;
		if (ended > 0)
			continue;
		if (crash_now() > end)
			return false;
		crash_sleep(MS);
	}
}

/* All processes of the case end with it, or are ended here: false. */
static bool await_orphans(void)
{
	int64_t end = crash_now() + SECOND * (CRASH_SANITIZED ? 3 : 1);
	pid_t pids[PIDS], ended;
	unsigned n;

	while ((ended = waitpid(-1, NULL, WNOHANG)) >= 0 && crash_now() < end)
		if (ended == 0)
			crash_sleep(MS);
	if (ended < 0)
		return true;
	/* With each that ends, its children come here: stopped ones would stay. */
	do {
		n = crash_children(getpid(), pids, PIDS);
		for (unsigned i = 0; i < n; i++) {
			if (crash_lives(pids[i]))
				show_process(pids[i], "left behind");
			kill(pids[i], SIGKILL);
		}
	} while (waitpid(-1, NULL, 0) > 0);
	return false;
}

static bool is_chosen(const char *name)
{
	if (!words || !*words)
		return true;
	for (char **word = words; *word; word++)
		if (strstr(name, *word))
			return true;
	return false;
}

static void report(const char *name, bool passed, int status)
{
	cases++;
	if (passed && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
		printf("ok %u - %s # SKIP see above\n", cases, name);
	} else if (passed && status == 0) {
		printf("ok %u - %s\n", cases, name);
	} else {
		if (WIFSIGNALED(status))
			crash_note("ended by signal %d", WTERMSIG(status));
		else
			crash_note("exit code %d", WEXITSTATUS(status));
		if (*place)
			crash_note("it was at: %s", place);
		printf("not ok %u - %s\n", cases, name);
		failures++;
	}
	fflush(stdout);
}

void crash_case(const char *name, void (*fn)(void *arg), void *arg, unsigned seconds)
{
	pid_t parent = getpid(), pid;
	int status = 0;
	bool passed = true;

	if (!is_chosen(name))
		return;
	*place = '\0';
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		be_case(fn, arg, parent);
	if (!await_case(pid, seconds * (CRASH_SANITIZED ? 2 : 1), &status)) {
		crash_note("out of time");
		show_tree(pid, "out of time", 3);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		passed = false;
	}
	passed &= await_orphans();
	report(name, passed, status);
}

void crash_begin(int argc, char **argv)
{
	const char *text = getenv("ALLCORES_TEST_SEED");

	(void)argc;
	words = argv + 1;
	place = mmap(NULL, PLACE_SIZE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	crash_seed = text ? strtoull(text, NULL, 0) :
			    (uint64_t)crash_now() * 2654435761u + (uint64_t)getpid();
	crash_note("seed ALLCORES_TEST_SEED=%llu", (unsigned long long)crash_seed);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

int crash_end(void)
{
	printf("1..%u\n", cases);
	return failures != 0;
}

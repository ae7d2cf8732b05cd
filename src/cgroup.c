/* SPDX-License-Identifier: MIT */
/*
 * The limits of control groups. /proc/self/cgroup names the process's group
 * in each hierarchy, /proc/self/mountinfo where hierarchies can be seen. Each
 * level up to the mount point may limit more than the one below it, so all
 * are read. In a hybrid system a controller is in one hierarchy only and its
 * files are missing in the others: it need not be known which one has it.
 */
#define _GNU_SOURCE
#include "cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forkguard.h"
#include "sys.h"

struct search {
	const char *root;
	const char *controller;
	void (*read_level)(struct search *s, const char *dir, bool unified);
	double cpus;
	int64_t free_memory;
};

/* One line of mountinfo: root is the group that is seen at point. */
struct mount {
	char *root, *point, *type, *options;
};

/* ---- files ---- */

static FILE *open_file(const char *dir, const char *name)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof path, "%s/%s", dir, name);

	return n < 0 || n >= (int)sizeof path ? NULL : ac__sys_open_file(path);
}

/* Without its newline; false at the end, or when there is no file. */
static bool read_line(FILE *f, char **line, size_t *size)
{
	if (!f || getline(line, size, f) < 0)
		return false;
	(*line)[strcspn(*line, "\n")] = '\0';
	return true;
}

static void close_file(FILE *f, char *line)
{
	free(line);
	if (f)
		fclose(f);
}

/* Anything but digits, such as "max" or "-1", is not a number: no limit. */
static bool take_number(char **text, int64_t *number)
{
	char *word = strsep(text, " \n");

	*number = 0;
	if (!word || !*word)
		return false;
	for (; *word >= '0' && *word <= '9'; word++)
		if (__builtin_mul_overflow(*number, 10, number) ||
		    __builtin_add_overflow(*number, *word - '0', number))
			return false;
	return !*word;
}

static bool read_numbers(const char *dir, const char *name, int64_t *numbers,
			 int count)
{
	char buffer[128];
	char *text = buffer;
	FILE *f = open_file(dir, name);
	bool ok = f && fgets(buffer, sizeof buffer, f);

	for (int i = 0; ok && i < count; i++)
		ok = take_number(&text, &numbers[i]);
	close_file(f, NULL);
	return ok;
}

/* ---- one level ---- */

static void read_cpus(struct search *s, const char *dir, bool unified)
{
	int64_t n[2]; /* quota and period */
	bool ok = unified ? read_numbers(dir, "cpu.max", n, 2) :
			    read_numbers(dir, "cpu.cfs_quota_us", &n[0], 1) &&
			    read_numbers(dir, "cpu.cfs_period_us", &n[1], 1);
	double cpus;

	if (!ok || n[0] <= 0 || n[1] <= 0)
		return;
	cpus = (double)n[0] / (double)n[1];
	if (s->cpus <= 0 || cpus < s->cpus)
		s->cpus = cpus;
}

/* The number beside key in memory.stat, or -1. */
static int64_t read_stat(const char *dir, const char *key)
{
	FILE *f = open_file(dir, "memory.stat");
	char *line = NULL;
	size_t size = 0;
	int64_t found = -1;

	while (found < 0 && read_line(f, &line, &size)) {
		char *value = line;
		int64_t n;

		if (strcmp(strsep(&value, " "), key) == 0 &&
		    take_number(&value, &n))
			found = n;
	}
	close_file(f, line);
	return found;
}

/*
 * Cached files count as usage, but the kernel drops those that were not used lately before
 * an allocation fails. In v1 the plain figure leaves out the groups below.
 */
static int64_t read_reclaimable(const char *dir, bool unified)
{
	int64_t n = unified ? -1 : read_stat(dir, "total_inactive_file");

	if (n < 0)
		n = read_stat(dir, "inactive_file");
	return n < 0 ? 0 : n;
}

static void read_memory(struct search *s, const char *dir, bool unified)
{
	int64_t limit, usage, cache, left;

	if (!read_numbers(dir, unified ? "memory.max" : "memory.limit_in_bytes",
			  &limit, 1) ||
	    !read_numbers(dir, unified ? "memory.current" : "memory.usage_in_bytes",
			  &usage, 1))
		return;
	/* v1 says "no limit" by INT64_MAX rounded down to its page size. */
	if (limit >= INT64_MAX / 2)
		return;
	/* The figures are of different moments: the cache may seem larger than the usage. */
	cache = read_reclaimable(dir, unified);
	usage = cache < usage ? usage - cache : 0;
	left = usage < limit ? limit - usage : 0;
	if (left < s->free_memory)
		s->free_memory = left;
}

/* ---- which levels ---- */

static void walk_up(struct search *s, const char *point, const char *path,
		    bool unified)
{
	char dir[PATH_MAX];
	size_t top = strlen(s->root) + strlen(point);
	char *slash;
	int n = snprintf(dir, sizeof dir, "%s%s%s", s->root, point, path);

	if (n < 0 || top >= sizeof dir)
		return;
	/* Where path was cut short there is no file, but its parents are read. */
	s->read_level(s, dir, unified);
	while ((slash = strrchr(dir + top, '/'))) {
		*slash = '\0';
		s->read_level(s, dir, unified);
	}
}

static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (;; list++) {
		if (strncmp(list, word, len) == 0 &&
		    (list[len] == ',' || list[len] == '\0'))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
	}
}

/* Whether a component of path is "..". */
static bool goes_up(const char *path)
{
	while ((path = strstr(path, "/.."))) {
		path += 3;
		if (*path == '/' || *path == '\0')
			return true;
	}
	return false;
}

/* The group's path below the mount's root; NULL when it is not below it. */
static const char *path_below(const char *root, const char *path)
{
	size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);

	if (strncmp(path, root, len) != 0)
		return NULL;
	path += len;
	if ((*path && *path != '/') || goes_up(path))
		return NULL;
	return path;
}

/* ---- /proc ---- */

static bool is_octal(const char *s, int digits)
{
	for (int i = 0; i < digits; i++)
		if (s[i] < '0' || s[i] > '7')
			return false;
	return true;
}

/* mountinfo writes blanks and backslashes as "\040". */
static void decode_octal(char *s)
{
	char *to = s;

	while (*s) {
		if (*s == '\\' && is_octal(s + 1, 3)) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* "36 35 98:0 ROOT POINT options tags... - TYPE source OPTIONS" */
static bool parse_mount(char *line, struct mount *m)
{
	char *tail = strstr(line, " - ");

	if (!tail)
		return false;
	*tail = '\0';
	tail += 3;
	for (int i = 0; i < 3; i++)
		strsep(&line, " ");
	m->root = strsep(&line, " ");
	m->point = strsep(&line, " ");
	m->type = strsep(&tail, " ");
	strsep(&tail, " ");
	m->options = tail;
	if (!m->root || !m->point || !m->options)
		return false;
	decode_octal(m->root);
	decode_octal(m->point);
	return *m->root == '/' && *m->point == '/';
}

static bool shows_hierarchy(const struct mount *m, const struct search *s,
			    bool unified)
{
	if (unified)
		return strcmp(m->type, "cgroup2") == 0;
	return strcmp(m->type, "cgroup") == 0 &&
	       has_word(m->options, s->controller);
}

/*
 * Visit the mounts that have the group below their root, or, with outside,
 * those that have not: there only the mount point can be read. Returns how many.
 */
static int visit_mounts(struct search *s, const char *path, bool unified,
			bool outside)
{
	FILE *f = open_file(s->root, "proc/self/mountinfo");
	char *line = NULL;
	size_t size = 0;
	struct mount m;
	int visited = 0;

	while (read_line(f, &line, &size)) {
		const char *below;

		if (!parse_mount(line, &m) || !shows_hierarchy(&m, s, unified))
			continue;
		below = path_below(m.root, path);
		if (!below != outside)
			continue;
		walk_up(s, m.point, below ? below : "", unified);
		visited++;
	}
	close_file(f, line);
	return visited;
}

/* "4:cpu,cpuacct:/path" in v1, "0::/path" in v2; the path may have colons. */
static void visit_group(struct search *s, char *line)
{
	char *path = line;
	char *controllers;
	bool unified;

	strsep(&path, ":");
	controllers = strsep(&path, ":");
	if (!path)
		return;
	unified = !*controllers;
	if (!unified && !has_word(controllers, s->controller))
		return;
	/* A mount of another group is read only if no mount has this one. */
	if (!visit_mounts(s, path, unified, false))
		visit_mounts(s, path, unified, true);
}

/* Under the forkguard's lock: no child is to hold the files that are open meanwhile. */
static void search_groups(struct search *s)
{
	char *line = NULL;
	size_t size = 0;
	FILE *f;

	ac__forkguard_lock();
	f = open_file(s->root, "proc/self/cgroup");
	while (read_line(f, &line, &size))
		visit_group(s, line);
	close_file(f, line);
	ac__forkguard_unlock();
}

double ac__cgroup_cpus(const char *root)
{
	struct search s = { .root = root, .controller = "cpu",
			    .read_level = read_cpus, .cpus = -1 };

	search_groups(&s);
	return s.cpus;
}

int64_t ac__cgroup_memory_free(const char *root)
{
	struct search s = { .root = root, .controller = "memory",
			    .read_level = read_memory, .free_memory = INT64_MAX };

	search_groups(&s);
	return s.free_memory;
}

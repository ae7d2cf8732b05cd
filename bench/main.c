/* SPDX-License-Identifier: MIT */
/*
 * The benchmark's command: which rows there are, and which are to run. Each
 * row runs in a process of its own, so that one row's threads and memory do
 * not weigh on the next, and one that hangs is ended and named.
 */
#include "bench.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROW_SECONDS 90	/* longer than any row takes: it hangs */

struct row {
	const char *name;
	void (*run)(void);
	const char *about;
};

static const struct row rows[] = {
	{ "map", bench_row_map, "map over items of 100 ns on all cores" },
	{ "noop", bench_row_noop, "map over no-op items, against OpenMP" },
	{ "task", bench_row_task, "single no-op tasks submitted and collected" },
	{ "call", bench_row_call, "blocking round trips of a no-op" },
	{ "wait", bench_row_wait, "an owner that waits beside workers that are busy" },
	{ "open", bench_row_open, "open to first result, and close, against bare fork" },
	{ "skew", bench_row_skew, "lists of skewed lengths, against one at a time" },
	{ "sleep", bench_row_sleep, "50 sleeps on pools of 2 to 50, against one at a time" },
	{ "large", bench_row_large, "16 MB in and out, against memcpy" },
	{ "idle", bench_row_idle, "what an idle pool of 50 costs" },
	{ "death", bench_row_death, "from a worker's death to its owner's answer" },
};

#define ROWS (sizeof rows / sizeof *rows)

static void print_help(FILE *to)
{
	fprintf(to, "usage: allcores-bench [--json] [--rounds N] [row...]\n\n"
		"Measures allcores against its peers, turn by turn in one run, and prints\n"
		"medians. Without rows all of them are run, in about two minutes.\n"
		"Exit code 1 means a wrong result or a failed call, never a slow one.\n\n");
	for (size_t i = 0; i < ROWS; i++)
		fprintf(to, "  %-8s %s\n", rows[i].name, rows[i].about);
	fprintf(to, "\n  --json      one JSON object a line, with all samples\n"
		"  --rounds N  rounds for each comparison, 1 to %d (default: each row's own)\n"
		"  --help      this text\n", BENCH_ROUNDS_MAX);
}

static const struct row *find_row(const char *name)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

static void run_child(const struct row *row)
{
	alarm(ROW_SECONDS);
	row->run();
	exit(0);
}

/* Figures against an ideal mean little when others had the cores. */
static void note_others(const struct bench_load *before)
{
	struct bench_load after = bench_load_now();
	double others = bench_load_others(before, &after);

	if (others > 0.05)
		bench_note("others used %.2f of %u cores meanwhile", others,
			   bench_config.cores);
}

/* 0, or 1 when the row failed. */
static int run_row(const struct row *row)
{
	struct bench_load before = bench_load_now();
	int status;
	pid_t pid;

	bench_config.row = row->name;
	bench_head();
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		run_child(row);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("bench: fork");
		return 1;
	}
	if (WIFSIGNALED(status))
		fprintf(stderr, "bench: %s: %s\n", row->name,
			WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
	note_others(&before);
	return status != 0;
}

static int parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'j':
			bench_config.json = true;
			break;
		case 'r':
			bench_config.rounds = atoi(optarg);
			if (bench_config.rounds >= 1 && bench_config.rounds <= BENCH_ROUNDS_MAX)
				break;
			/* fall through */
		default:
			print_help(option == 'h' ? stdout : stderr);
			exit(option == 'h' ? 0 : 2);
		}
	}
	for (int i = optind; i < argc; i++) {
		if (!find_row(argv[i])) {
			fprintf(stderr, "bench: no row is called %s\n", argv[i]);
			exit(2);
		}
	}
	return optind;
}

static void print_heading(void)
{
	if (bench_config.json)
		return;
	printf("allcores %s on %u cores; ours and theirs turn by turn, medians\n", ac_version(),
	       bench_config.cores);
#ifndef __OPTIMIZE__
	puts("built without optimisation: these figures mean nothing");
#endif
}

int main(int argc, char **argv)
{
	int first = parse_options(argc, argv), failed = 0;

	bench_config.cores = (unsigned)ac_cpus(0);
	print_heading();
	if (first == argc)
		for (size_t i = 0; i < ROWS; i++)
			failed |= run_row(&rows[i]);
	for (int i = first; i < argc; i++)
		failed |= run_row(find_row(argv[i]));
	return failed;
}

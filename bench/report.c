/* SPDX-License-Identifier: MIT */
/*
 * Lines of the table: for people, or with --json one object a line, so that
 * two versions can be compared later. The ratio is the median of the rounds'
 * ratios, not the ratio of the medians: a disturbance of the machine that
 * lasts longer than a turn then hits both sides.
 */
#include "bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static double divide(double a, double b)
{
	return b != 0 ? a / b : NAN;
}

static double subtract(double a, double b)
{
	return a - b;
}

static double series_worst(const struct bench_series *series, bool lower)
{
	double copy[BENCH_ROUNDS_MAX];

	memcpy(copy, series->sample, sizeof copy);
	return bench_percentile(copy, (size_t)series->count, lower ? 1 : 0);
}

static double line_figure(const struct bench_line *line, const struct bench_series *series)
{
	if (!series)
		return NAN;
	return line->worst ? series_worst(series, line->lower) : bench_median(series);
}

/* The median of f(ours, theirs) over the rounds; of the worst, where they are judged. */
static double pair_figure(const struct bench_line *line, double (*f)(double, double))
{
	double values[BENCH_ROUNDS_MAX];
	int n = line->ours->count;

	if (line->worst && line->theirs)
		return f(line_figure(line, line->ours), line_figure(line, line->theirs));
	if (!line->theirs || n == 0 || line->theirs->count == 0)
		return NAN;
	if (n != line->theirs->count)
		return f(bench_median(line->ours), bench_median(line->theirs));
	for (int i = 0; i < n; i++)
		values[i] = f(line->ours->sample[i], line->theirs->sample[i]);
	return bench_percentile(values, (size_t)n, 0.5);
}

static double line_score(const struct bench_line *line)
{
	switch (line->by) {
	case BENCH_BY_OURS:
		return line_figure(line, line->ours);
	case BENCH_BY_RATIO:
		return pair_figure(line, divide);
	case BENCH_BY_DIFFERENCE:
		return pair_figure(line, subtract);
	default:
		return NAN;
	}
}

static const char *line_verdict(const struct bench_line *line)
{
	double score = line_score(line);

	if (line->by == BENCH_NO_GOAL)
		return "-";
	if (line->lower)
		return score <= line->least ? "ok" : "short";
	return score >= line->least ? "ok" : "short";
}

/* ---- for people ------------------------------------------------------------ */

static void format_number(char *text, size_t size, double value)
{
	double a = fabs(value);
	int digits = a >= 100 ? 0 : a >= 10 ? 1 : a >= 0.1 || a == 0 ? 2 : 4;

	if (isnan(value))
		snprintf(text, size, "-");
	else
		snprintf(text, size, "%.*f", digits, value);
}

static void format_figure(char *text, size_t size, double value, const char *unit)
{
	char number[32];

	format_number(number, sizeof number, value);
	if (isnan(value))
		snprintf(text, size, "-");
	else
		snprintf(text, size, "%s %s", number, unit);
}

static void format_goal(char *text, size_t size, const struct bench_line *line, double goal)
{
	const char *sign = line->lower ? "<=" : ">=";

	switch (line->by) {
	case BENCH_BY_OURS:
		snprintf(text, size, "%s %g %s", sign, goal, line->unit);
		break;
	case BENCH_BY_RATIO:
		snprintf(text, size, "%s %.2f", sign, goal);
		break;
	case BENCH_BY_DIFFERENCE:
		snprintf(text, size, "%s +%g %s", sign, goal, line->unit);
		break;
	default:
		snprintf(text, size, "-");
	}
}

void bench_head(void)
{
	if (!bench_config.json)
		printf("\n%-48s %5s %12s %12s %7s %12s %12s\n", bench_config.row, "cores",
		       "ours", "theirs", "ratio", "at least", "meant");
}

static void print_line(const struct bench_line *line)
{
	char what[128], ours[48], theirs[48], ratio[32], least[48], meant[48] = "-";

	snprintf(what, sizeof what, "%s%s%s", line->what, line->peer ? " : " : "",
		 line->peer ? line->peer : "");
	format_figure(ours, sizeof ours, line_figure(line, line->ours), line->unit);
	format_figure(theirs, sizeof theirs, line_figure(line, line->theirs), line->unit);
	format_number(ratio, sizeof ratio, pair_figure(line, divide));
	format_goal(least, sizeof least, line, line->least);
	if (line->meant > 0)
		format_goal(meant, sizeof meant, line, line->meant);
	printf("  %-46s %5u %12s %12s %7s %12s %12s  %s\n", what, bench_config.cores, ours,
	       theirs, ratio, least, meant, line_verdict(line));
}

/* ---- for programs ---------------------------------------------------------- */

static void print_json_number(const char *name, double value)
{
	if (isfinite(value))
		printf(", \"%s\": %.9g", name, value);
	else
		printf(", \"%s\": null", name);
}

static void print_json_series(const char *name, const struct bench_series *series)
{
	if (!series)
		return;
	printf(", \"%s\": [", name);
	for (int i = 0; i < series->count; i++)
		printf("%s%.9g", i ? ", " : "", series->sample[i]);
	putchar(']');
}

/* No text here holds a quote or a backslash. */
static void print_json(const struct bench_line *line)
{
	static const char *const by[] = { "none", "ours", "ratio", "difference" };

	printf("{\"row\": \"%s\", \"what\": \"%s\", \"peer\": \"%s\", \"unit\": \"%s\"",
	       bench_config.row, line->what, line->peer ? line->peer : "", line->unit);
	printf(", \"version\": \"%s\", \"cores\": %u", ac_version(), bench_config.cores);
	print_json_number("ours", line_figure(line, line->ours));
	print_json_number("theirs", line_figure(line, line->theirs));
	print_json_number("ratio", pair_figure(line, divide));
	print_json_number("difference", pair_figure(line, subtract));
	printf(", \"goal\": \"%s\", \"lower\": %s", by[line->by], line->lower ? "true" : "false");
	print_json_number("least", line->by ? line->least : NAN);
	print_json_number("meant", line->meant > 0 ? line->meant : NAN);
	printf(", \"verdict\": \"%s\"", line_verdict(line));
	print_json_series("ours_samples", line->ours);
	print_json_series("theirs_samples", line->theirs);
	puts("}");
}

void bench_report(const struct bench_line *line)
{
	if (bench_config.json)
		print_json(line);
	else
		print_line(line);
	fflush(stdout);
}

void bench_note(const char *format, ...)
{
	va_list args;
	char text[256];

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (bench_config.json)
		printf("{\"row\": \"%s\", \"note\": \"%s\"}\n", bench_config.row, text);
	else
		printf("  (%s)\n", text);
	fflush(stdout);
}

/* SPDX-License-Identifier: MIT */
/*
 * Draws the picture of svg.h: panels below each other, each with a title, the
 * workers' lines, and a time axis of its own. No scripts: tooltips are <title> elements.
 */
#include <errno.h>
#include <stdio.h>

#include "svg.h"

enum {
	WIDTH = 1000,
	LEFT = 96,		/* room for the workers' names */
	RIGHT = 64,		/* room for their load */
	PLOT = WIDTH - LEFT - RIGHT,
	HEAD = 84,		/* the picture's title, subtitle */
	PANEL_HEAD = 62,
	PANEL_FOOT = 66,
	FOOT = 44,		/* the legend */
	ROW_MOST = 30,
	ROWS_MOST = 480,	/* more workers get thinner lines, not a longer picture */
	ROW_LEAST = 3,
};

static double row_height(const struct svg_panel *panel)
{
	double height = (double)ROWS_MOST / panel->workers;

	return height > ROW_MOST ? ROW_MOST : height < ROW_LEAST ? ROW_LEAST : height;
}

static double panel_height(const struct svg_panel *panel)
{
	return PANEL_HEAD + row_height(panel) * panel->workers + PANEL_FOOT;
}

/* Where the axis ends: a little after whatever comes last. */
static double axis_ns(const struct svg_panel *panel)
{
	int64_t took = panel->end_ns - panel->start_ns;

	return 1.02 * (double)(took > panel->floor_ns ? took : panel->floor_ns);
}

static double place(const struct svg_panel *panel, int64_t ns)
{
	return LEFT + PLOT * (double)ns / axis_ns(panel);
}

/* 1, 2 or 5 times a power of ten, so that there are 5 to 12 ticks. */
static double tick_step(double span)
{
	double step = 1e-6;

	for (;;) {
		if (span / step <= 12)
			return step;
		if (span / (2 * step) <= 12)
			return 2 * step;
		if (span / (5 * step) <= 12)
			return 5 * step;
		step *= 10;
	}
}

static void draw_axis(FILE *file, const struct svg_panel *panel, double top, double bottom)
{
	double span = axis_ns(panel) / 1e9, step = tick_step(span);
	int ms = span < 1;

	for (int i = 0; i * step <= span; i++) {
		double x = LEFT + PLOT * i * step / span;

		fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
			"stroke=\"#d8d8d8\"/>\n", x, top, x, bottom + 5);
		fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
			x, bottom + 19, ms ? i * step * 1e3 : i * step);
	}
	fprintf(file, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#555\"/>\n",
		LEFT, bottom, LEFT + PLOT, bottom);
	fprintf(file, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"middle\">%s since the pool was "
		"opened</text>\n", LEFT + PLOT / 2, bottom + 37, ms ? "milliseconds" : "seconds");
}

static void draw_event(FILE *file, const struct svg_panel *panel,
		       const struct ac_trace_event *event, double y, double height, int dark)
{
	int64_t start = event->start_ns - panel->start_ns;
	int64_t length = event->end_ns - event->start_ns;
	char items[40] = "";

	if (event->items > 1)
		snprintf(items, sizeof items, " (%llu items)", (unsigned long long)event->items);
	fprintf(file, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\">",
		place(panel, start), y, place(panel, length) - LEFT, height,
		dark ? panel->dark : panel->light);
	fprintf(file, "<title>task %llu%s on worker %u: %.2f ms, from %.4f s</title></rect>\n",
		(unsigned long long)event->task, items, event->worker, (double)length / 1e6,
		(double)start / 1e9);
}

/* Names and loads only as close as they can be read. */
static int labelled(const struct svg_panel *panel, int worker)
{
	int every = 1;

	while (every * row_height(panel) < 13)
		every++;
	return worker % every == 0;
}

static void draw_labels(FILE *file, const struct svg_panel *panel, int worker, double y,
			int64_t busy_ns)
{
	double took = (double)(panel->end_ns - panel->start_ns);

	if (!labelled(panel, worker))
		return;
	fprintf(file, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">worker %d</text>\n",
		LEFT - 10, y + 4, worker);
	fprintf(file, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f %%</text>\n",
		WIDTH - 16, y + 4, 100 * (double)busy_ns / took);
}

static void draw_workers(FILE *file, const struct svg_panel *panel, double top)
{
	double height = row_height(panel), gap = height > 8 ? 3 : 0.5;
	int event = 0;

	for (int worker = 0; worker < panel->workers; worker++) {
		double y = top + worker * height;
		int64_t busy_ns = 0;

		fputs("<g stroke=\"#222\" stroke-width=\"0.5\">\n", file);
		for (int dark = 1; event < panel->count &&
		     (int)panel->events[event].worker == worker; event++, dark = !dark) {
			draw_event(file, panel, &panel->events[event], y + gap, height - 2 * gap,
				   dark);
			busy_ns += panel->events[event].end_ns - panel->events[event].start_ns;
		}
		fputs("</g>\n", file);
		draw_labels(file, panel, worker, y + height / 2, busy_ns);
	}
}

static void draw_panel(FILE *file, const struct svg_panel *panel, double y)
{
	double top = y + PANEL_HEAD, bottom = top + row_height(panel) * panel->workers;
	double floor = place(panel, panel->floor_ns);

	fprintf(file, "<text x=\"%d\" y=\"%.1f\" font-size=\"16\" font-weight=\"bold\">%s"
		"</text>\n", LEFT, y + 18, panel->title);
	fprintf(file, "<text x=\"%d\" y=\"%.1f\" fill=\"#444\">%s</text>\n",
		LEFT, y + 38, panel->caption);
	fprintf(file, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">at work</text>\n",
		WIDTH - 16, top - 8);
	draw_axis(file, panel, top, bottom);
	draw_workers(file, panel, top);
	fprintf(file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#c00000\" "
		"stroke-width=\"2\" stroke-dasharray=\"6 4\"/>\n",
		floor, top - 6, floor, bottom + 6);
}

static void draw_legend(FILE *file, const struct svg_panel *panel, double y)
{
	for (int light = 0; light < 2; light++)
		fprintf(file, "<rect x=\"%d\" y=\"%.1f\" width=\"26\" height=\"14\" fill=\"%s\" "
			"stroke=\"#222\" stroke-width=\"0.5\"/>\n", LEFT + 26 * light, y,
			light ? panel->light : panel->dark);
	fprintf(file, "<text x=\"%d\" y=\"%.1f\">one rectangle is one task, whatever its shade: "
		"point at it for its number and time; white: the worker has none</text>\n",
		LEFT + 60, y + 12);
	fprintf(file, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#c00000\" "
		"stroke-width=\"2\" stroke-dasharray=\"6 4\"/>\n", LEFT, y + 30, LEFT + 52, y + 30);
	fprintf(file, "<text x=\"%d\" y=\"%.1f\">the floor: an even share of the work, as "
		"measured on one core, or the longest task</text>\n", LEFT + 60, y + 34);
}

static void draw_all(FILE *file, const char *title, const char *subtitle,
		     const struct svg_panel *panels, int count)
{
	double height = HEAD + FOOT, y = HEAD;

	for (int i = 0; i < count; i++)
		height += panel_height(&panels[i]);
	fprintf(file, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" "
		"width=\"%d\" height=\"%.0f\" font-family=\"Helvetica, Arial, sans-serif\" "
		"font-size=\"13\" fill=\"#111\">\n", WIDTH, height, WIDTH, height);
	fprintf(file, "<title>%s</title>\n", title);
	fprintf(file, "<rect width=\"%d\" height=\"%.0f\" fill=\"#ffffff\"/>\n", WIDTH, height);
	fprintf(file, "<text x=\"%d\" y=\"34\" font-size=\"22\" font-weight=\"bold\">%s</text>\n",
		LEFT, title);
	fprintf(file, "<text x=\"%d\" y=\"56\" fill=\"#444\">%s</text>\n", LEFT, subtitle);
	for (int i = 0; i < count; i++) {
		draw_panel(file, &panels[i], y);
		y += panel_height(&panels[i]);
	}
	if (count)
		draw_legend(file, &panels[0], y - 6);
	fputs("</svg>\n", file);
}

int svg_write(const char *path, const char *title, const char *subtitle,
	      const struct svg_panel *panels, int count)
{
	FILE *file = fopen(path, "w");
	int failed;

	if (!file)
		return -errno;
	draw_all(file, title, subtitle, panels, count);
	failed = ferror(file);
	if (fclose(file))
		return -errno;
	return failed ? -EIO : 0;
}

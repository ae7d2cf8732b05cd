/* SPDX-License-Identifier: MIT */
/*
 * How processes ended, in words; and asking the kernel without reaping.
 */
#include "ending.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "sys.h"

void ac__ending_died(struct ac__ending *ending, int status, uint64_t peak_rss)
{
	bool killed = WIFSIGNALED(status);

	ending->status = AC_EDIED;
	ending->peak_rss = peak_rss;
	ending->signal = killed ? WTERMSIG(status) : 0;
	ending->exit_code = killed ? -1 : WEXITSTATUS(status);
	if (killed)
		snprintf(ending->text, sizeof ending->text,
			 "its worker was killed by signal %d (%s)%s", ending->signal,
			 strsignal(ending->signal), WCOREDUMP(status) ? ", core dumped" : "");
	else
		snprintf(ending->text, sizeof ending->text,
			 "its worker exited with code %d", ending->exit_code);
}

void ac__ending_ask(struct ac__ending *ending, pid_t pid)
{
	uint64_t peak_rss;
	int status;

	if (pid > 0 && ac__sys_peek_child(pid, -1, &status, &peak_rss) == 1) {
		ac__ending_died(ending, status, peak_rss);
		return;
	}
	ending->status = AC_EDIED;
	ending->exit_code = -1;
	snprintf(ending->text, sizeof ending->text, "its worker ended; how is not known");
}

void ac__ending_fill(const struct ac__ending *ending, uint64_t index, struct ac_outcome *outcome)
{
	*outcome = (struct ac_outcome){ .status = ending->status,
					.value = ending->value,
					.signal = ending->signal,
					.exit_code = ending->exit_code,
					.pid = ending->pid,
					.worker = ending->seat ? ending->seat - 1 : 0,
					.index = index,
					.ran_ns = ending->ran_ns,
					.peak_rss = ending->peak_rss };
	memcpy(outcome->text, ending->text, sizeof outcome->text);
}

bool ac__ending_is_from_outside(const struct ac__ending *ending)
{
	return ending->signal == SIGKILL || ending->signal == SIGTERM ||
	       ending->signal == SIGINT || ending->signal == SIGHUP;
}

/* As long as it has not been reaped no other process has its pid. */
bool ac__is_living_child(pid_t pid)
{
	uint64_t peak_rss;
	int status;

	return pid > 0 && ac__sys_peek_child(pid, -1, &status, &peak_rss) == 0;
}

bool ac__is_gone(pid_t pid)
{
	uint64_t peak_rss;
	int status;

	return pid > 0 && (ac__sys_peek_child(pid, -1, &status, &peak_rss) == 1 ||
			   (kill(pid, 0) < 0 && errno == ESRCH));
}

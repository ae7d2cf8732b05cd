/* SPDX-License-Identifier: MIT */
/*
 * Ends in words, and how the kernel is asked for them without reaping anybody.
 */
#include "ending.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "sys.h"

/* By a signal, or with a code where that is 0. */
static void describe(struct ac__ending *ending, int signal, int exit_code, bool dumped)
{
	ending->status = AC_EDIED;
	ending->signal = signal;
	ending->exit_code = signal ? -1 : exit_code;
	if (signal)
		snprintf(ending->text, sizeof ending->text,
			 "its worker was killed by signal %d (%s)%s", signal,
			 strsignal(signal), dumped ? ", core dumped" : "");
	else
		snprintf(ending->text, sizeof ending->text,
			 "its worker exited with code %d", exit_code);
}

void ac__ending_died(struct ac__ending *ending, int status, uint64_t peak_rss)
{
	ending->peak_rss = peak_rss;
	if (WIFSIGNALED(status))
		describe(ending, WTERMSIG(status), 0, WCOREDUMP(status));
	else
		describe(ending, 0, WEXITSTATUS(status), false);
}

static bool is_ended_child(pid_t pid, siginfo_t *end, uint64_t *peak_rss)
{
	return pid > 0 && ac__sys_peek_child(pid, end, peak_rss) == 0 && end->si_pid;
}

void ac__ending_ask(struct ac__ending *ending, pid_t pid)
{
	siginfo_t end;

	if (is_ended_child(pid, &end, &ending->peak_rss)) {
		if (end.si_code == CLD_EXITED)
			describe(ending, 0, end.si_status & 0xff, false);
		else
			describe(ending, end.si_status, 0, end.si_code == CLD_DUMPED);
		return;
	}
	ending->status = AC_EDIED;
	ending->exit_code = -1;
	snprintf(ending->text, sizeof ending->text, "its worker ended; how is not known");
}

/* While it has not been reaped its pid is nobody else's. */
bool ac__is_living_child(pid_t pid)
{
	uint64_t peak_rss;
	siginfo_t end;

	return pid > 0 && ac__sys_peek_child(pid, &end, &peak_rss) == 0 && !end.si_pid;
}

bool ac__is_gone(pid_t pid)
{
	uint64_t peak_rss;
	siginfo_t end;

	return is_ended_child(pid, &end, &peak_rss) ||
	       (pid > 0 && kill(pid, 0) < 0 && errno == ESRCH);
}

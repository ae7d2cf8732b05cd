/* SPDX-License-Identifier: MIT */
/* Ending with the owner, also as process 1: see the header. */
#include "lifeline.h"

#include <signal.h>
#include <unistd.h>

#include "sys.h"

/* User code may have closed the pipe that stops the thread: then a stop is noticed as late as this. */
#define LOOK_NS INT64_C(1000000000)

void ac__lifeline_init(struct ac__lifeline *line, int sock)
{
	*line = (struct ac__lifeline){ .sock = ac__fd_of(sock),
				       .stop = { AC__FD_NONE, AC__FD_NONE } };
}

static void *watch(void *arg)
{
	struct ac__lifeline *line = arg;

	ac__sys_name("allcores-line");
	for (;;) {
		int first = ac__sys_poll_two(line->sock.number, line->stop[0].number,
					     ac__sys_deadline(LOOK_NS));

		/* Another descriptor has the number: its input is not the owner's end. */
		if (atomic_load(&line->stopping) || !ac__fd_is_same(&line->sock))
			return NULL;
		if (first == 0)
			_exit(128 + SIGKILL);
	}
}

static int start_watching(struct ac__lifeline *line)
{
	int r = ac__fd_open_pipe(line->stop);

	if (r == 0)
		r = ac__sys_thread(&line->thread, watch, line);
	line->watched = r == 0;
	if (r < 0) {
		ac__fd_close(&line->stop[0]);
		ac__fd_close(&line->stop[1]);
	}
	return r;
}

int ac__lifeline_arm(struct ac__lifeline *line)
{
	int r = ac__sys_lifeline(line->sock.number);

	if (r < 0 || getpid() != 1)
		return r;
	return start_watching(line);
}

void ac__lifeline_disarm(struct ac__lifeline *line)
{
	if (line->watched) {
		atomic_store(&line->stopping, true);
		ac__fd_ring(&line->stop[1]);
		pthread_join(line->thread, NULL);
		line->watched = false;
	}
	ac__fd_close(&line->stop[0]);
	ac__fd_close(&line->stop[1]);
}

void ac__lifeline_drop(struct ac__lifeline *line)
{
	line->watched = false;
	ac__fd_drop(&line->sock);
	ac__fd_drop(&line->stop[0]);
	ac__fd_drop(&line->stop[1]);
}

/* SPDX-License-Identifier: MIT */
/* Killing worker processes, and letting them leave. */
#ifndef AC__WORKERS_KILL_H
#define AC__WORKERS_KILL_H

#include "workers.h"

void ac__workers_kill(struct ac__workers *workers, unsigned seat);
/* Any signal, on a user's behalf; of a worker that the template forked. 0, -ESRCH, -EAGAIN. */
int ac__workers_signal(struct ac__workers *workers, unsigned seat, int signal);
/* The gentle way: SIGTERM for those that have a handler for it, SIGKILL for others at work. Those that
 * are idle are left to ac__workers_dismiss, those that leave already are left alone. */
void ac__workers_stop_all(struct ac__workers *workers);
void ac__workers_kill_all(struct ac__workers *workers);
/* Those that are ready and have not noticed that they are to leave. */
void ac__workers_kill_unresponsive(struct ac__workers *workers);
/* All that remain were killed, or have ended already: only the news of it is missing. */
bool ac__workers_only_news_missing(const struct ac__workers *workers);
/* The board says closing: workers that sleep wake and leave. */
void ac__workers_dismiss(struct ac__workers *workers);
/* All have ended: the template exits, whichever orders it could not be sent. */
void ac__workers_dismiss_template(struct ac__workers *workers);

#endif

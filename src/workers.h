/* SPDX-License-Identifier: MIT */
/*
 * The owner's record of its worker processes: which process is in which seat, how it is started,
 * watched and killed. The pool's lock guards all of this, and nothing here releases it. Nothing
 * here knows of tasks, of sleeping threads or of the pool: what happened is returned to the
 * caller, the engine, as values.
 *
 *	workers.c	the records; descriptors, and what the epoll watches
 *	workers_start.c	starting processes
 *	workers_end.c	noticing that they have ended, and how
 *	workers_kill.c	killing them
 */
#ifndef AC__WORKERS_H
#define AC__WORKERS_H

#include <pthread.h>

#include "ending.h"
#include "template.h"

/* Tags of the pool's epoll; those below are other files'. */
#define AC__TAG_TEMPLATE 15
#define AC__TAG_SEAT 16 /* and up: 16 + seat */

enum ac__record_state {
	AC__RECORD_ABSENT,
	AC__RECORD_STARTING,
	AC__RECORD_READY,
};

/* The owner's own record of a seat. */
struct ac__worker_record {
	enum ac__record_state state;
	struct ac__socket socket;	/* the owner's end is the worker's lifeline */
	int64_t socket_ended_at; /* user-started: its socket ended, the process may live on; 0: no */
	int pidfd;		/* user-started, or its template is lost; -1: none */
	pid_t pid;		/* the same; 0: not known */
	bool killed;		/* by the owner */
	bool lost_template;	/* its template is lost: its pidfd and its socket tell of its end */
	bool orphaned;		/* the same, and that was while it was starting */
	bool in_start;		/* the user's start function runs for it, without the lock */
	pthread_t starter;	/* the thread that runs it */
	bool noted;		/* the epoll says that something happened */
	bool unwatched;		/* the epoll does not tell of its end: polled now and then */
	int64_t ready_by;	/* while it is starting */
	unsigned starts;
	uint64_t tag;		/* of the process that is there now */
	/* The last process that has ended here: its tag, and how. */
	uint64_t last_tag;
	struct ac__ending last;
};

struct ac__workers {
	struct ac__board *board;
	struct ac__worker_record *records; /* by seat; 0 is unused */
	unsigned count;		/* seats 1 to count */
	int epoll;
	struct ac__template_plan plan;
	struct ac_runtime runtime; /* the plan's, unless that has none */
	struct ac__template template;
	pid_t (*start)(void *arg, unsigned worker, int fd); /* the user's, or NULL */
	int (*ended)(void *arg, unsigned worker, struct ac_outcome *outcome); /* the same */
	void *start_arg;
	int64_t ready_ns;
	unsigned starting, ready, unwatched, noted;
	bool in_runtime;	/* a thread is in the runtime's function starting, without the lock */
	bool template_noted;	/* the epoll says that something happened */
	bool template_opening;	/* a thread forks it, without the lock */
	bool start_lost;	/* it had ended before it could be told to start a worker */
	bool template_lost;	/* and no reserve is left: no worker can be started any more */
	bool leaving;		/* workers were told to leave */
	bool any_got_ready;	/* since this was last asked */
	int64_t poll_at;	/* the unwatched are polled then */
	int64_t retry_at;	/* vacant seats are filled then; INT64_MAX: at once */
	char name[16];
};

/* board and epoll are the pool's. plan.let_go: see template.h. Descriptors are written down
 * where a forked child finds them (ac__workers_let_go). 0 or -ENOMEM. */
int ac__workers_open(struct ac__workers *workers, struct ac__board *board, unsigned count,
		     int epoll, const struct ac_pool_opts *opts,
		     const struct ac__template_plan *plan);
void ac__workers_close(struct ac__workers *workers);
/* In a child: close its descriptors, and, unless it is the template, give the pids up. */
void ac__workers_let_go(struct ac__workers *workers, bool keep_pids);

static inline struct ac__arena *ac__workers_arena(const struct ac__workers *workers)
{
	return workers->board->arena;
}
/* The template is open, and no thread is forking it just now. */
static inline bool ac__workers_has_template(const struct ac__workers *workers)
{
	return ac__template_is_open(&workers->template) && !workers->template_opening;
}
static inline bool ac__workers_all_ended(const struct ac__workers *workers)
{
	return workers->starting == 0 && workers->ready == 0;
}
static inline bool ac__workers_any_vacant(const struct ac__workers *workers)
{
	return workers->starting + workers->ready < workers->count;
}
/* The seat has a process, or one is on its way. */
static inline bool ac__workers_is_present(const struct ac__workers *workers, unsigned seat)
{
	return workers->records[seat].state != AC__RECORD_ABSENT;
}

/* ---- for the other files of this module ---- */

void ac__workers_set_unwatched(struct ac__workers *workers, struct ac__worker_record *record,
			       bool unwatched);
void ac__workers_set_noted(struct ac__workers *workers, struct ac__worker_record *record,
			   bool noted);
/* Have the epoll tell of the end of the worker's socket, and of its process. False: it can't. */
bool ac__workers_watch_socket(struct ac__workers *workers, unsigned seat);
bool ac__workers_watch_pidfd(struct ac__workers *workers, unsigned seat);
/* Of record->pid, if that is known, the system has pidfds, and it is not open yet. */
void ac__workers_open_pidfd(struct ac__worker_record *record);
/* 0, or why the epoll can't tell of what the template sends. */
int ac__workers_watch_template(struct ac__workers *workers);
/* The process of this record has ended, or was never there. */
void ac__workers_note_last(struct ac__worker_record *record, const struct ac__ending *ending);
/* Its descriptors, and whatever watches them. */
void ac__workers_close_record(struct ac__workers *workers, struct ac__worker_record *record);
/* Whether a worker is ready is a word that its process writes. The owner reads that word when it
 * matters. */
void ac__workers_note_ready(struct ac__workers *workers, unsigned seat);

#endif

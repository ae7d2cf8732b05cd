/* SPDX-License-Identifier: MIT */
/*
 * The owner's side of a pool, inside. One lock guards everything here; no
 * worker ever knows of it. Who reads shared memory on behalf of the pool does so in
 * books.c, once, and checks.
 *
 *	books.c   which task is in which slot: publish, collect, settle, audit
 *	crew.c    which process is in which seat: start, watch, bury, replace
 *	wait.c    where threads of the owner sleep, and who collects for all
 *	helper.c  the one thread: callbacks, and work that nobody waits for
 *	task.c, map.c, stream.c	 what users hand in: jobs
 */
#ifndef AC__POOL_H
#define AC__POOL_H

#include <pthread.h>

#include "block.h"
#include "socket.h"
#include "ending.h"
#include "forkguard.h"
#include "ring.h"
#include "template.h"

struct ac_pool;

/*
 * A job: what was handed in and is not over. It is cut into pieces, each of
 * which becomes a task in a slot. All its functions run under the pool's lock.
 */
struct ac__job {
	const struct ac__job_ops *ops;
	struct ac__job *next, **at; /* in the queue of those with pieces left; at NULL: not there */
};

struct ac__job_ops {
	/* Write the next piece into slot. 1: there is more; 0: that was the
	 * last; -EAGAIN: none just now; another code: none any more, nothing was
	 * written, and the job has left the queue by itself (and may be gone). */
	int (*prepare)(struct ac_pool *pool, struct ac__job *job, uint32_t slot);
	/* The piece in slot has ended. True: run the same piece again. */
	bool (*settle)(struct ac_pool *pool, struct ac__job *job, uint32_t slot,
		       const struct ac__ending *ending);
	/* What was not published never will be. It is off the queue. */
	void (*abort)(struct ac_pool *pool, struct ac__job *job,
		      const struct ac__ending *ending);
};

/* Data that all pieces of a map share: freed with the last slot that uses it. */
struct ac__bound {
	unsigned users;
	uint32_t block;
	uint64_t len;
};

/* The owner's own record of a task: what it believes, whatever the region says. */
struct ac__slot {
	struct ac__job *job;	/* NULL: free, or its waiter has been answered already */
	uint64_t gen;
	bool published;
	uint32_t arg_block;	/* the owner's, given back when the slot is freed */
	void *arg_data;		/* where that block lies */
	uint8_t doubts;		/* audits in a row that did not believe its word */
	struct ac__bound *bound;
	int64_t timeout_ns;	/* 0: none */
	uint64_t first;		/* of a map's chunk: its first item, how many, */
	uint32_t count, end;	/* and where it (or a divisible call) ends now that the
				 * rest was taken back */
};

enum ac__member_state {
	AC__MEMBER_ABSENT,
	AC__MEMBER_STARTING,
	AC__MEMBER_PRESENT,
};

/* The owner's own record of a seat. */
struct ac__member {
	enum ac__member_state state;
	struct ac__socket socket;	/* the owner's end is the lifeline */
	int64_t left_at;	/* adopted: its end is closed, the process may live on; 0: no */
	int pidfd;		/* adopted, where there are pidfds; else -1 */
	pid_t pid;		/* adopted; 0: not known */
	bool doomed;		/* killed by us */
	bool orphaned;		/* the template was lost while it was starting */
	bool in_start;		/* the user's start is at it, without the lock */
	bool unwatched;		/* the epoll would not have it: looked at now and then */
	int64_t ready_by;	/* while it is starting */
	unsigned starts;
};

/* What a task's result may need longer than its pool. */
struct ac__room {
	_Atomic unsigned users;
	struct ac__arena arena;
};

/* A thread of the owner that sleeps while another one collects. */
struct ac__sleeper {
	_Atomic uint32_t woken;
	bool (*is_over)(void *arg);
	void *arg;
	struct ac__sleeper *next;
};

struct ac_pool {
	pthread_mutex_t lock;
	struct ac__room *room;
	struct ac__board board;
	struct ac__forkguard guard;
	_Atomic bool forked;	/* this is a child that we did not start */
	bool shut, terminated;
	bool closing;		/* workers were told to leave */
	bool overdue;		/* all that remained at the last leave_by had ended, or were killed */
	int64_t leave_by;
	struct ac__ending failure; /* status 0: none; else the pool can't go on */

	/* books.c */
	struct ac__slot *slots;
	uint32_t *free_slots;
	uint32_t free_count, published, timed;
	struct ac__job *first_job, **last_job;
	uint64_t next_number;
	_Atomic uint64_t settled; /* goes up with each piece that ended */
	uint64_t submitted, done, failed, cancelled, deaths; /* in tasks */

	/* crew.c */
	struct ac__member *crew; /* by seat; 0 is unused */
	unsigned workers;
	struct ac__template_plan plan;
	struct ac__template template;
	pid_t (*start)(void *arg, unsigned worker, int fd);
	void *start_arg;
	int64_t ready_ns;
	unsigned starting, present, bad_starts, unwatched;
	unsigned idle_ends;	/* in quick succession, with nothing settled in between */
	uint64_t idle_settled;
	int64_t idle_end_at;
	int64_t look_at;	/* the unwatched are looked at then */
	int64_t retry_at;	/* vacant seats are filled then; INT64_MAX: none */
	char name[16];

	/* wait.c */
	struct ac__fd bell[2];
	int epoll, timer; /* timer -1 unless an event loop watches */
	bool interruptible, collecting;
	uint32_t spin_ns;	/* the owner's own copy */
	int64_t sleeping_until;	/* of the one who collects */
	int64_t audit_at;
	struct ac__sleeper *sleepers, collector; /* the latter while collecting */
	bool collector_helps;	/* it is the helper */

	/* helper.c */
	struct ac_task *first_callback, **last_callback;
	unsigned callbacks;	/* tasks with one that has not returned yet */
	bool helper, helper_stop, in_callback;
	pthread_cond_t helper_gone;
};

static inline struct ac__arena *ac__pool_arena(struct ac_pool *pool)
{
	return &pool->room->arena;
}
static inline void ac__pool_lock(struct ac_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
}
static inline void ac__pool_unlock(struct ac_pool *pool)
{
	pthread_mutex_unlock(&pool->lock);
}

/* 0, or why nothing can be handed in: AC_ECLOSED, AC_EBROKEN, AC_ESTART. */
int ac__pool_accepts(struct ac_pool *pool);
void ac__outcome_fill(struct ac_outcome *outcome, const struct ac__ending *ending,
		      uint64_t index);
struct ac__room *ac__room_use(struct ac__room *room);
void ac__room_leave(struct ac__room *room);
/* All unfinished work ends with this; no more is taken. */
void ac__pool_fail(struct ac_pool *pool, int status, const char *text);
/* The region lies: as above with AC_EBROKEN, and the workers are killed. */
void ac__pool_break(struct ac_pool *pool, const char *what);

/* In a child: close what is the owner's alone; region and bell are left. */
void ac__pool_let_go(void *pool);

/* ---- books.c ---- */
int ac__books_open(struct ac_pool *pool);
void ac__books_close(struct ac_pool *pool);
/* The jobs with pieces left, first come first served. */
void ac__books_enqueue(struct ac_pool *pool, struct ac__job *job);
void ac__books_dequeue(struct ac_pool *pool, struct ac__job *job);
/* A free slot for a job's piece, to be published or given back; -1: none. */
int64_t ac__books_take_slot(struct ac_pool *pool);
void ac__books_return_slot(struct ac_pool *pool, uint32_t slot);
/* The slot's task, to be written by prepare. */
static inline struct ac__task_shm *ac__books_task(struct ac_pool *pool, uint32_t slot)
{
	return &pool->board.tasks[slot];
}
/* Room for len bytes of argument: inline, or a block. NULL: no memory. */
void *ac__books_arg_room(struct ac_pool *pool, uint32_t slot, uint64_t len);
/* NULL on failure. A map's data: leave it to give it up. */
struct ac__bound *ac__bound_make(struct ac_pool *pool, const void *data, uint64_t len);
void ac__bound_leave(struct ac_pool *pool, struct ac__bound *bound);
void ac__books_publish(struct ac_pool *pool, uint32_t slot, struct ac__job *job);
void ac__books_refill(struct ac_pool *pool);
/* Settle all that is on the done list: how many. */
unsigned ac__books_collect(struct ac_pool *pool);
/* Settle what a dead seat held; ending says how it died. True: it held something. */
bool ac__books_bury(struct ac_pool *pool, unsigned seat, const struct ac__ending *ending);
/* End everything that is under way or waiting. */
void ac__books_end_all(struct ac_pool *pool, const struct ac__ending *ending);
/* A READY piece will not run: true, its slot is free. */
bool ac__books_withdraw(struct ac_pool *pool, uint32_t slot);
/* A piece that runs is condemned, and its worker killed; the slot is set aside until
 * the worker is gone. False: it has just ended, or is not running. */
bool ac__books_condemn(struct ac_pool *pool, uint32_t slot);
/* Take back a chunk's items that nobody has begun, or a call's units, but for the first
 * least: how many, from *first (in the chunk). */
uint32_t ac__books_take_back(struct ac_pool *pool, uint32_t slot, uint32_t least,
			     uint32_t *first);
/* How many of a call's units could be taken back from the worker that is at it,
 * which keeps one at least. */
uint32_t ac__books_units_left(struct ac_pool *pool, uint32_t slot);
/* Stop what is over its limit. The next time to look. */
int64_t ac__books_check_limits(struct ac_pool *pool, int64_t now);
/* The words against the books, and every READY task in the ring. */
void ac__books_audit(struct ac_pool *pool);

/* ---- crew.c ---- */
int ac__crew_open(struct ac_pool *pool, const struct ac_pool_opts *opts);
void ac__crew_close(struct ac_pool *pool);
/* What woke the collector: a tag of the pool's epoll. */
void ac__crew_attend(struct ac_pool *pool, uint64_t tag);
/* Ready, overdue, to be tried again: the next time to look. */
int64_t ac__crew_check(struct ac_pool *pool, int64_t now);
void ac__crew_kill(struct ac_pool *pool, unsigned seat);
void ac__crew_kill_all(struct ac_pool *pool);
/* Those that are ready, and have not noticed that they are to leave. */
void ac__crew_kill_deaf(struct ac_pool *pool);
/* All that are left were killed, or have ended already: somebody is to tell of it. */
bool ac__crew_is_overdue(struct ac_pool *pool);
/* Once closing is set: whoever sleeps leaves. */
void ac__crew_dismiss(struct ac_pool *pool);
bool ac__crew_gone(struct ac_pool *pool);
/* In a child: close its descriptors. */
void ac__crew_let_go(struct ac_pool *pool);

#define AC__TAG_BELL 0
#define AC__TAG_TEMPLATE 1
#define AC__TAG_TIMER 2
#define AC__TAG_MEMBER 16 /* and up: 16 + seat */

/* ---- wait.c ---- */
int ac__wait_open(struct ac_pool *pool);
void ac__wait_close(struct ac_pool *pool);
/* Results, time limits, and pieces for the free slots. */
void ac__wait_advance(struct ac_pool *pool);
/* The same, with deaths, for an event loop. */
void ac__wait_look(struct ac_pool *pool);
/* Sleep until is_over(arg), called under the lock: 0, -ETIMEDOUT, -EINTR (if the pool is
 * interruptible). The lock is held before and after, not while sleeping. */
int ac__wait(struct ac_pool *pool, bool (*is_over)(void *arg), void *arg,
	     int64_t deadline);
/* The helper's: it waits for its own work, and results wake it only where that asks for it. */
void ac__wait_helping(struct ac_pool *pool, bool (*is_over)(void *arg));
/* Wake whoever has what he waits for. */
void ac__wait_wake_finished(struct ac_pool *pool);
/* What a sleeping collector should wake for has changed. */
void ac__wait_changed(struct ac_pool *pool);

/* ---- helper.c ---- */
/* Somebody must do what nobody waits for: start the thread, once. */
void ac__helper_need(struct ac_pool *pool);
/* It ends when it comes to it; nobody waits. */
void ac__helper_dismiss(struct ac_pool *pool);
void ac__helper_stop(struct ac_pool *pool);
/* How few READY pieces should wake it; -1: none. */
int64_t ac__helper_below(struct ac_pool *pool);
void ac__helper_push(struct ac_pool *pool, struct ac_task *task);
/* Run the callbacks that are due; the lock is given up around each. */
void ac__helper_run(struct ac_pool *pool);

#endif

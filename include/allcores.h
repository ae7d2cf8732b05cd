/* SPDX-License-Identifier: MIT */
/*
 * allcores: every core at work on independent pieces of a computation.
 *
 *	static int count_primes(const void *limit, void *count, const void *bound)
 *	{
 *		*(int *)count = primes_below(*(const int *)limit);
 *		return 0;
 *	}
 *
 *	struct ac_pool *pool;
 *	if (ac_pool_open(&pool, NULL) < 0)          // one worker for each core
 *		...
 *	ac_pool_map(pool, count_primes, NULL, limits, sizeof *limits,
 *		    counts, sizeof *counts, 100);
 *	ac_pool_close(pool);
 *
 * A pool is a set of worker processes beside the process that opened it, its
 * owner. Workers are forked at ac_pool_open, so they see the owner's globals
 * and functions as they were then. Later changes reach them only in
 * arguments and results. A worker that crashes costs the one task that it
 * held: that task fails and says why, the worker is replaced, all other work goes on.
 *
 * Read from top to bottom and stop when you have what you need:
 *	1  errors and version
 *	2  the pool: open, map, close
 *	3  single calls: bytes in, bytes out, results waited for, callbacks
 *	4  streams: results one by one, from a source that is read as needed or fed by pushing
 *	5  statistics: what the workers do
 *	6  stopping early, event loops
 *	7  single processes
 *	8  processors
 *	9  workers that you start
 *	10 languages with a runtime of their own
 *
 * What holds everywhere
 * - Functions return 0 (or a count) for success and a negative code for
 *   failure: -errno where the system said so, an AC_E code otherwise. errno
 *   itself is never the channel. ac_strerror names both kinds.
 * - Times are nanoseconds in an int64_t. As a limit: negative is "no limit", 0 is "do not wait".
 *   Clocks read CLOCK_MONOTONIC.
 * - Any thread of the owner may call any function at any time. Only a function that frees a
 *   handle must be the last call that uses it.
 * - A handle that is NULL is a mistake: -EINVAL, or NULL or 0 where no code can be returned.
 *   Functions that free a handle allow it.
 * - A child that you fork gets no pool: calls there return AC_EFORK.
 *   ac_pool_close and ac_task_free there release the child's memory, with no effect on the owner.
 * - Options are structs whose first member is their size. Zero everywhere
 *   else means the default; NULL instead of options means all defaults.
 *   -EINVAL: size was not set; -E2BIG: it is beyond any such struct, or options that this
 *   library does not know are set.
 * - Arrays of ac_outcome and ac_worker_stat are passed without a size: these structs do not
 *   grow within one SONAME.
 * - The library never prints, exits, aborts or installs a signal handler in
 *   the owner.
 * - Before the library forks it flushes stdout and stderr, but not one that another thread has
 *   locked. The new process discards what is still buffered in these two, so that nothing is
 *   written twice. It flushes both when it ends, and a worker also when it has nothing to do. All
 *   other FILEs stay as they are: a task that writes to one flushes it.
 *
 * What to know before you rely on it
 * - Workers trust each other and their owner with their data: a pool guards
 *   against accidents, not against attackers. See SECURITY.md.
 * - Functions for a pool must be in memory when it is opened: code loaded with dlopen
 *   later does not exist in the workers.
 * - A worker ignores SIGINT; the owner decides what Ctrl-C means. Workers end
 *   with their owner, however it ends.
 * - A task may close descriptors that are not its own, and open others under the same numbers.
 *   The library writes nothing into those. The worker exits after the task and is replaced.
 * - A worker ends by _exit after flushing stdout and stderr: atexit handlers run in
 *   the owner only.
 */
#ifndef ALLCORES_H
#define ALLCORES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef AC_API
#define AC_API __attribute__((visibility("default")))
#endif

/* ---- 1. Errors and version --------------------------------------------- */

#define AC_VERSION_MAJOR 0
#define AC_VERSION_MINOR 1
#define AC_VERSION_PATCH 0

/* The library's version as text, "0.1.0": static, never freed. Any thread. */
AC_API const char *ac_version(void);

/*
 * Codes of the library. The first five say how a task ended; a call returns them only
 * where it waits for one task (ac_pool_call) or for many (ac_pool_map).
 */
#define AC_ETASK	(-20001) /* the task's function returned non-zero */
#define AC_EDIED	(-20002) /* the worker died while it held the task */
#define AC_ETIMEOUT	(-20003) /* the task ran over its time limit and was stopped */
#define AC_ECANCELED	(-20004) /* cancelled, or its pool was terminated */
#define AC_EBROKEN	(-20005) /* the shared region is damaged */
#define AC_ESTART	(-20006) /* workers cannot be started, exit at once, or their initialiser failed */
#define AC_ECLOSED	(-20007) /* the pool takes no more work */
#define AC_EFORK	(-20008) /* the handle belongs to another process */
#define AC_EVERSION	(-20009) /* owner and worker were built with different layouts */

/* The meaning of a code, -errno or AC_E: static text, never NULL, any thread. */
AC_API const char *ac_strerror(int code);
/* Its name, "AC_EDIED", "ENOMEM", or "OK" for 0: static text, never NULL ("unknown" for
 * others). */
AC_API const char *ac_errname(int code);

#define AC_TEXT_SIZE 192

/* How a task ended, or one item of a map. */
struct ac_outcome {
	int status;		/* 0, or a code: see above */
	int value;		/* what the function returned */
	int signal;		/* AC_EDIED: the signal that killed the worker, or 0 */
	int exit_code;		/* AC_EDIED: its exit code, or -1 */
	pid_t pid;		/* the worker's, 0 if no worker took the task */
	unsigned worker;	/* the worker's number, from 0 */
	uint64_t index;		/* which item of its map or stream, from 0 */
	/* AC_EDIED: how long the worker had run the task (or the chunk of a map) when its end was
	 * noticed, to a few milliseconds; 0: not known. */
	int64_t ran_ns;
	/* AC_EDIED, and of single processes: the most memory that the process ever had resident, in
	 * bytes, as the kernel counts it (getrusage's ru_maxrss). It includes the largest child that
	 * the process waited for. Linux keeps the figure over exec, so a process started by spawn has
	 * at least what its parent had then. 0: not known. */
	uint64_t peak_rss;
	char text[AC_TEXT_SIZE]; /* from ac_call_fail, or a sentence of the library; "" for success */
};

/* ---- 2. The pool: open, map, close ------------------------------------- */

/*
 * Work takes turns. All single calls of a pool take turns with each of its maps and each of its
 * streams, a piece at a time; within each of these, first come is first served. So a short call
 * does not wait for the end of a long map that was handed in before it. It waits for the pieces
 * that the workers were given already: about 20 ms of work or, where pieces are longer, a few for
 * each worker. Long arguments and results (above 64 KB) that one thread copies delay no other
 * thread's calls.
 */
struct ac_pool;
struct ac_runtime;

struct ac_pool_opts {
	size_t size;		/* sizeof(struct ac_pool_opts) */

	/* 0: one for each processor that may really be used (ac_cpus);
	 * n > 0: exactly n; n < 0: all processors but -n, at least one. */
	int workers;

	/* Runs in each worker before its first task, in replacements too. If it returns
	 * non-zero the pool fails: every call then returns AC_ESTART. */
	int (*init)(void *init_arg);
	void *init_arg;

	/* A worker is replaced after this many tasks (an item of a map counts
	 * as one); 0: never. */
	unsigned recycle;

	/* Workers are called "name-0", "name-1"... in ps and top. At most 15
	 * bytes are shown. Default "allcores". Copied. */
	const char *name;

	/* A worker that is not ready within this time, initialiser included, is killed.
	 * 0: ten minutes; negative: no limit. */
	int64_t ready_ns;

	/* The most bytes that payloads may occupy in shared memory; a call
	 * that would need more fails with -ENOMEM. 0: what the system allows. */
	uint64_t memory;

	/* Events kept for each worker for ac_pool_trace; 0: none are recorded. */
	unsigned trace;

	/* AC_POOL_... flags. */
	unsigned flags;

	/* Workers that you start: see section 9. */
	pid_t (*start)(void *start_arg, unsigned worker, int fd);
	void *start_arg;

	/* Workers of a language with a runtime of its own: see section 10. Copied. */
	const struct ac_runtime *runtime;

	/* How a worker ended that you started: see section 9. May be NULL. */
	int (*ended)(void *start_arg, unsigned worker, struct ac_outcome *outcome);
};

/* Calls that block return -EINTR when a signal handler ran in their thread. */
#define AC_POOL_INTERRUPTIBLE 1u
/* ac_pool_terminate lets workers end in their own way where they can: a worker whose process handles
 * SIGTERM gets that signal; others are killed if they are at work or starting, and leave as from
 * a closed pool if they are idle. ac_pool_join then kills what has not gone within two seconds. */
#define AC_POOL_GENTLE 2u

/*
 * Open a pool. Returns when the workers are being started; the first calls
 * wait for them. *pool is set on success only; close it with ac_pool_close.
 * Forks, and flushes stdout and stderr before, but waits for the lock of neither (see the notes
 * on top). Blocks for about the time of a fork.
 * -EINVAL: pool is NULL, or an option is out of range (workers beyond 4096);
 * -ENOMEM, -EMFILE, -EAGAIN...: what the system refused.
 */
AC_API int ac_pool_open(struct ac_pool **pool, const struct ac_pool_opts *opts);

/*
 * What a map runs for one item, in a worker. Both pointers are valid during
 * the call only, and aligned for any type of their size. The result is zeroed before.
 * bound is the map's opts->bound (aligned to 64), or NULL.
 * Return 0, or anything else to fail this item.
 */
typedef int ac_map_fn(const void *item, void *result, const void *bound);

struct ac_map_opts {
	size_t size;		/* sizeof(struct ac_map_opts) */

	/* Data that all items share: written once for the map, read in place. */
	const void *bound;
	size_t bound_size;

	/* Items handed to a worker at a time. 0: found by measuring, which is
	 * as good as one at a time for long items and cheap for short ones. */
	size_t chunk;

	/* What became of each item, or NULL: count entries, caller's. */
	struct ac_outcome *outcomes;

	/* The first failure by index, or NULL: one entry, caller's. */
	struct ac_outcome *failure;

	/* An item whose worker died is run again, at most this many times. */
	unsigned retries;

	/* AC_MAP_STOP: after the first failure start no further item; those
	 * not run have the status AC_ECANCELED. Default: run them all. */
	unsigned flags;

	/* Called in the calling thread now and then: ended of count items have ended. May call
	 * anything but ac_pool_close and ac_pool_join of this pool (-EDEADLK). Must neither
	 * throw nor longjmp. A C++ exception is guarded against, no more: the map is stopped as
	 * by AC_MAP_STOP, what runs ends, and the exception passes on to the caller. For that
	 * the unwinder must be there when the library is loaded; a program linked with
	 * -static-libgcc also needs -Wl,-u,__gcc_personality_v0. longjmp is not guarded
	 * against. */
	void (*progress)(void *progress_arg, size_t ended, size_t count);
	void *progress_arg;
};

#define AC_MAP_STOP 1u

/*
 * Run fn over count items, items[i] to results[i], on all workers; return when all items
 * have ended. items is count * item_size bytes, results count * result_size bytes;
 * either may be NULL with size 0. A failed item's result is left as it was.
 * 0: all items succeeded. Otherwise the failure with the lowest index:
 * AC_ETASK, AC_EDIED, AC_ECANCELED, AC_EBROKEN, AC_ESTART.
 * -ENOMEM: memory ran out; items not run are cancelled.
 * A map that never began: -EINVAL (NULL function or sizes that do not fit), -E2BIG,
 * -EOVERFLOW (count * size beyond the address space), AC_ECLOSED, AC_EFORK, -ENOMEM.
 * -EINTR with AC_POOL_INTERRUPTIBLE: items that had not begun are cancelled, those that ran have
 * ended.
 */
AC_API int ac_pool_map(struct ac_pool *pool, ac_map_fn *fn,
		       const struct ac_map_opts *opts,
		       const void *items, size_t item_size,
		       void *results, size_t result_size, size_t count);

/*
 * Finish all work, let the workers exit, release everything. NULL is allowed. The
 * last call that may use the pool: no other thread may be in a call of the pool or of its
 * tasks, and its streams are closed before. Its tasks, which have all ended then, remain and
 * are freed one by one. Blocks until all work has ended and the workers are gone; workers that
 * do not exit within ten seconds after the work are killed. No thread of the library is left.
 * Returns 0; AC_EFORK in a forked child (whose copy is released); -EDEADLK in a callback of the
 * same pool (done or progress), which it would wait for: the pool stays open.
 */
AC_API int ac_pool_close(struct ac_pool *pool);

/* ---- 3. Single calls ----------------------------------------------------- */

struct ac_call;		/* a task as its worker sees it */
struct ac_task;		/* a task as its owner sees it */

/* What a single call runs, in a worker. Returns 0, or anything else to fail. */
typedef int ac_call_fn(struct ac_call *call);

/* For use inside the function, by the thread that runs it: */

/* The argument, read in place (aligned to 16; to 4096 from 4096 bytes on).
 * Valid during the call. Never NULL. len may be NULL. */
AC_API const void *ac_call_arg(const struct ac_call *call, size_t *len);
/* What the call is bound to (ac_push_opts.bound, or its map's bound), read in place: aligned to 16,
 * to 4096 from 4096 bytes on. Valid during the call. NULL: it is bound to nothing. len may be
 * NULL. All calls that share it read the same bytes: nobody may write there. */
AC_API const void *ac_call_bound(const struct ac_call *call, size_t *len);
/* Space for a result of len bytes, to be written in place: the one way that
 * copies nothing. Reserving again replaces it. NULL: no memory (the call goes on). */
AC_API void *ac_call_reserve(struct ac_call *call, size_t len);
/* Return these bytes: ac_call_reserve and a copy. 0, -ENOMEM or -EINVAL. */
AC_API int ac_call_return(struct ac_call *call, const void *data, size_t len);
/* Set the text of a failure (as printf does), cut at AC_TEXT_SIZE - 1 bytes.
 * Returns AC_ETASK, so that a function can end with return ac_call_fail(...). */
AC_API int ac_call_fail(struct ac_call *call, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The call that this thread is running, also inside a map's function; NULL
 * outside a task. */
AC_API struct ac_call *ac_call_current(void);
/* The number of the worker that runs the call, from 0. */
AC_API unsigned ac_call_worker(const struct ac_call *call);
/*
 * Of a divisible call (ac_push_opts.units): 1: begin the next unit; 0: no unit
 * is left, all have begun or the owner took the rest back. Units begin in order:
 * the first 1 is for unit 0. Never blocks, costs a few nanoseconds: units are
 * claimed several at a time, about a microsecond's worth. 0 in other calls.
 */
AC_API int ac_call_next_unit(struct ac_call *call);

struct ac_submit_opts {
	size_t size;		/* sizeof(struct ac_submit_opts) */

	/* Called once when the task has ended, one callback of a pool after the other: by a
	 * thread of the library or, where an event loop drives the pool, by the thread that
	 * dispatches, joins or closes. May call anything but ac_pool_close and ac_pool_join of
	 * this pool (-EDEADLK). Must neither throw nor longjmp. A C++ exception is guarded
	 * against, no more: it counts as a return, and passes on out of ac_pool_dispatch,
	 * ac_pool_join or ac_pool_close, which may be called again; in the library's thread it
	 * ends the program. */
	void (*done)(void *done_arg, struct ac_task *task);
	void *done_arg;

	/* The longest that the function may run, counted from its start;
	 * 0: no limit. Over it the worker is killed: AC_ETIMEOUT. */
	int64_t timeout_ns;

	/* If the worker dies, run again, at most this many times. */
	unsigned retries;

	unsigned flags;		/* none so far: 0 */
};

/*
 * Submit one call: arg_len bytes at arg, copied before this returns. Does not
 * block and has no upper bound: calls that the workers cannot take yet wait in the
 * owner's memory. *task is the caller's, to be freed with ac_task_free; if task is
 * NULL, nobody waits for the task, and it is freed after its callback.
 * -EINVAL, AC_ECLOSED, AC_ESTART, AC_EBROKEN, AC_EFORK, -ENOMEM.
 */
AC_API int ac_pool_submit(struct ac_pool *pool, struct ac_task **task,
			  ac_call_fn *fn, const void *arg, size_t arg_len,
			  const struct ac_submit_opts *opts);

/*
 * Submit and wait: the result's first *len bytes are copied to result, and *len
 * set to its whole length (compare: larger means cut). result and len may be NULL.
 * 0, the task's status, or ac_pool_submit's codes; -EINTR with AC_POOL_INTERRUPTIBLE: a call
 * that had not begun is cancelled, one that runs goes on, and its result is dropped. outcome may
 * be NULL; otherwise *outcome is filled whatever is returned, also where the call was refused.
 */
AC_API int ac_pool_call(struct ac_pool *pool, ac_call_fn *fn,
			const void *arg, size_t arg_len,
			void *result, size_t *len, struct ac_outcome *outcome);

/*
 * All five return -EINVAL where task, outcome or data is NULL. In a child that was forked before
 * the task had ended, those that need the pool return AC_EFORK: ready, wait, cancel.
 */
/* 1: it has ended; 0: not yet. Never blocks. */
AC_API int ac_task_ready(struct ac_task *task);
/* Wait until it has ended: 0, -ETIMEDOUT or -EINTR (the task goes on). */
AC_API int ac_task_wait(struct ac_task *task, int64_t timeout_ns);
/* What became of it: 0 and *outcome; -EAGAIN before it has ended. */
AC_API int ac_task_outcome(struct ac_task *task, struct ac_outcome *outcome);
/* The result of a task that succeeded, read in place: valid until
 * ac_task_free, also after its pool is closed; len may be NULL. 0; -EAGAIN before it has
 * ended; its status if it failed; AC_EFORK for a result above 64 KB in a forked child, where
 * another task's bytes may lie in its place by then. */
AC_API int ac_task_result(struct ac_task *task, const void **data, size_t *len);
/*
 * Cancel: a task that waits will not run; one that runs goes on unless
 * kill is set: then its worker is killed (and no other). 0: the task has ended with
 * AC_ECANCELED; -EBUSY: it runs and kill was not set; -EALREADY: it had ended.
 */
AC_API int ac_task_cancel(struct ac_task *task, int kill);
/* Free the handle, at any time; the task itself goes on. NULL is allowed. */
AC_API void ac_task_free(struct ac_task *task);

/* ---- 4. Streams ---------------------------------------------------------- */

struct ac_stream;

struct ac_stream_opts {
	size_t size;		/* sizeof(struct ac_stream_opts) */

	/* The next argument: 1 and *arg, *len (to stay valid until the next
	 * call of source), 0 at the end, or a negative code: the stream returns that code
	 * after the results before it, and ends. Called only by the thread that is in
	 * ac_stream_next. NULL: the stream is fed, see ac_stream_push. */
	int (*source)(void *source_arg, const void **arg, size_t *len);
	void *source_arg;

	/* The read-ahead: how far source is read beyond the results that were taken, in items
	 * (0: 4 for each worker, at least 64) and in bytes of arguments (0: 64 MB). One item is
	 * read whatever its size. Not for fed streams. */
	size_t ahead;
	uint64_t ahead_bytes;

	unsigned retries;	/* as in ac_submit_opts */
	unsigned flags;		/* AC_STREAM_... */
};

/* Results as they come. Default: in the order of the source. */
#define AC_STREAM_UNORDERED 1u

/* Open a stream of calls of fn: over a source, or, if source is NULL, over arguments that are
 * pushed. The latter gives results as they come, so its flags must be AC_STREAM_UNORDERED.
 * -EINVAL, AC_ECLOSED, AC_EFORK, -ENOMEM. */
AC_API int ac_stream_open(struct ac_stream **stream, struct ac_pool *pool,
			  ac_call_fn *fn, const struct ac_stream_opts *opts);
/*
 * The next task that has ended, failed ones too: 1 and *task, the caller's,
 * to be freed; its outcome's index tells its place. 0: the source is at its
 * end and all results are taken. -ETIMEDOUT, -EINTR: call again. Otherwise
 * source's own code, or ac_pool_submit's.
 *
 * Over a source: one thread at a time. The source is read until the read-ahead is full; no
 * limit cuts that short. With a limit of 0 the source is asked once at most, and not at all if a
 * result is ready and half of the read-ahead is under way.
 *
 * Fed: any threads, also several at once (each result goes to one of
 * them), while others push. Waits while no call has ended, also while none is under
 * way, since another thread may push. 0: after ac_stream_end, all results are taken. If
 * none is under way and the pool takes no more work, the code that ac_stream_push
 * would return: AC_ECLOSED, AC_ESTART, AC_EBROKEN. -EAGAIN: ac_stream_wake was called.
 */
AC_API int ac_stream_next(struct ac_stream *stream, struct ac_task **task,
			  int64_t timeout_ns);
/* Close: calls that wait are cancelled; those that run end, and their results are dropped. NULL
 * is allowed. The last call that may use the stream: no other thread may be in one. */
AC_API void ac_stream_close(struct ac_stream *stream);

/* Data that many calls of a pool's streams share. */
struct ac_bound;

/*
 * Copy len bytes into the pool's shared memory, once, for any number of calls to read in place
 * (ac_call_bound). *bound is the caller's, to be freed with ac_bound_free. Any thread; delays no
 * other thread. -EINVAL (also: data is NULL and len is not 0), AC_EFORK, -ENOMEM.
 */
AC_API int ac_bound_make(struct ac_bound **bound, struct ac_pool *pool, const void *data,
			 size_t len);
/*
 * Free the handle, at any time: calls that were pushed with it keep the data until they have
 * ended, and the last one gives the memory back. Like a task it may outlive its pool, whose shared
 * memory stays as long. Any thread; never blocks; in a forked child it releases that child's copy.
 * NULL is allowed.
 */
AC_API void ac_bound_free(struct ac_bound *bound);

struct ac_push_opts {
	size_t size;		/* sizeof(struct ac_push_opts) */

	/* The call can be divided into this many units, which its worker begins one after the
	 * other by ac_call_next_unit; 0: it can't. Divided or not, it is one task: in the pool's
	 * counts, for recycle, and for retries, which run again all units that the call kept. */
	uint32_t units;

	unsigned flags;		/* none so far: 0 */

	/* Data that the call shares with others, of the same pool; or NULL. The handle may be
	 * freed once the call was pushed. */
	struct ac_bound *bound;

	/* ac_task_user gives it back. The library does nothing with it, and does not give it back
	 * for calls whose results are not taken before ac_stream_close. */
	void *user;
};

/*
 * Push one call to a fed stream: len bytes at arg, copied before this returns. Any
 * thread; never blocks, and has no upper bound: calls that the workers cannot take yet wait
 * in the owner's memory. *index (index may be NULL) is the call's place from 0, as in its
 * outcome.
 * -EINVAL (also: the stream has a source), -E2BIG, AC_ECLOSED (the pool's, or after
 * ac_stream_end), AC_ESTART, AC_EBROKEN, AC_EFORK, -ENOMEM.
 */
AC_API int ac_stream_push(struct ac_stream *stream, const void *arg, size_t len,
			  const struct ac_push_opts *opts, uint64_t *index);
/* What a task of a fed stream was pushed with (ac_push_opts.user); NULL for others. Any thread,
 * also after the pool was closed. */
AC_API void *ac_task_user(const struct ac_task *task);
/* Nothing more will be pushed: once all results are taken ac_stream_next returns 0, also
 * to a thread that waits in it already. Any thread, any number of times. 0, -EINVAL, AC_EFORK. */
AC_API int ac_stream_end(struct ac_stream *stream);
/*
 * Wake one thread that waits in ac_stream_next of a fed stream: it returns -EAGAIN at once. If none
 * waits, the next call of ac_stream_next that would wait, or time out, returns -EAGAIN instead.
 * While there are results, and at the end, ac_stream_next returns those, and the wake stays.
 * Exactly one call returns -EAGAIN for it; several wakes before that are one. Any thread, any
 * number of times; never blocks. 0, -EINVAL (also: the stream has a source), AC_EFORK.
 */
AC_API int ac_stream_wake(struct ac_stream *stream);
/*
 * Take units back from a call of a fed stream that a worker has begun, so that other workers
 * can run them: from the call with the most units that were not begun. 1: *index and *user
 * (as it was pushed) say which call (both may be NULL), *kept how many units it keeps, at least
 * one; the rest, from *kept on, is the caller's, to be pushed anew in a call of its own. The call
 * itself ends as if it had been pushed with *kept units. 0: no call has units to take back. Any
 * thread; never blocks. -EINVAL, AC_EFORK.
 */
AC_API int ac_stream_take_back(struct ac_stream *stream, uint64_t *index, void **user,
			       uint32_t *kept);

/* ---- 5. Statistics -------------------------------------------------------- */

#define AC_WORKER_ABSENT   0	/* no process yet, or not any more */
#define AC_WORKER_STARTING 1	/* being started, or in its initialiser */
#define AC_WORKER_IDLE     2
#define AC_WORKER_BUSY     3

struct ac_worker_stat {
	int state;		/* AC_WORKER_... */
	pid_t pid;		/* 0 when absent */
	uint64_t task;		/* the number of the task that it runs (see ac_trace_event), 0: none */
	uint64_t tasks;		/* tasks (items of maps) that the workers of this number have done */
	int64_t busy_ns;	/* time that they were not idle */
	unsigned starts;	/* processes that were started with this number */
	char name[16];		/* as in ps and top */
	int64_t task_ns;	/* how long it has run that task, to a few milliseconds; 0: none */
	char text[AC_TEXT_SIZE]; /* what the worker says of itself (ac_worker_say); "" for nothing */
};

/* Fill at most n entries, one for each worker. Returns how many workers the pool has;
 * AC_EFORK, -EINVAL. Never blocks. Figures of a worker at work are a moment old. */
AC_API int ac_pool_workers(struct ac_pool *pool, struct ac_worker_stat *stats,
			   unsigned n);

/* All counts since the pool was opened, in tasks (an item of a map is one).
 * Always: submitted = waiting + running + done + failed + cancelled. */
struct ac_pool_stat {
	uint64_t submitted, waiting, running, done, failed, cancelled;
	uint64_t deaths;	/* workers that ended unasked; those that the pool killed do not count */
	uint64_t bytes;		/* shared memory set aside for payloads */
	/* Threads of the process that forks the workers (the template). More than 1: a library of the
	 * program's starts threads in each forked child. A worker then may inherit a lock that
	 * such a thread holds. 0: not known yet, or the workers are not forked by a template. */
	uint64_t template_threads;
};

/* 0, or AC_EFORK, -EINVAL. stat_size is sizeof *stat. Never blocks. */
AC_API int ac_pool_stat(struct ac_pool *pool, struct ac_pool_stat *stat,
			size_t stat_size);

/* One piece of work on one worker: a task, or a chunk of a map. */
struct ac_trace_event {
	unsigned worker;
	uint64_t task;		/* counts up from 1 as pieces are handed out to the workers */
	uint64_t items;		/* items of a map's chunk, 1 for a single call */
	int64_t start_ns, end_ns; /* CLOCK_MONOTONIC */
};

/* The last events of all workers, at most n, ordered by worker and time; for
 * pools opened with trace. event_size is sizeof *events. Never blocks, so an event that its worker
 * overwrites meanwhile is left out. Returns how many; -EINVAL, AC_EFORK, -ENOMEM. */
AC_API int ac_pool_trace(struct ac_pool *pool, struct ac_trace_event *events,
			 size_t event_size, unsigned n);

/* ---- 6. Stopping early, event loops --------------------------------------- */

/* Take no more work: later submissions return AC_ECLOSED. 0 or AC_EFORK. */
AC_API int ac_pool_shut(struct ac_pool *pool);
/* Stop now: all unfinished work ends with AC_ECANCELED, workers are killed (but see AC_POOL_GENTLE), no
 * more work is taken. Does not wait for the processes to end. 0 or AC_EFORK. */
AC_API int ac_pool_terminate(struct ac_pool *pool);
/* Wait until all work has ended and its callbacks have returned; after shut
 * or terminate, until the workers are gone too: an idle worker that has not begun to exit within
 * ten seconds, since it is stopped, is killed. 0, -ETIMEDOUT, -EINTR, AC_EFORK; -EDEADLK in a
 * callback of the same pool (done or progress), which it would wait for. */
AC_API int ac_pool_join(struct ac_pool *pool, int64_t timeout_ns);

/*
 * A descriptor that is readable when ac_pool_dispatch has something to do:
 * for poll, epoll, libuv, asyncio. The pool's, not to be closed or read. From
 * the first successful call on, an event loop drives the pool: callbacks run inside
 * ac_pool_dispatch, and the library starts no thread. AC_EFORK, or what the system refused; a
 * call that failed changes nothing.
 */
AC_API int ac_pool_fd(struct ac_pool *pool);
/* Do what is due, without blocking: results, deaths, time limits, callbacks. Returns how many
 * tasks (items of maps) have ended since the last dispatch, or since the first ac_pool_fd,
 * whichever call noticed their end; AC_EFORK. */
AC_API int ac_pool_dispatch(struct ac_pool *pool);

/* ---- 7. Single processes -------------------------------------------------- */

struct ac_process;

struct ac_process_opts {
	size_t size;		/* sizeof(struct ac_process_opts) */
	const char *name;	/* in ps and top, at most 15 bytes shown; NULL: unchanged */
	unsigned flags;		/* AC_PROCESS_... */
	unsigned reserved;	/* 0 */
};

/* It may outlive the process that started it. By default it is killed then. */
#define AC_PROCESS_DETACHED 1u

/*
 * Fork a process that runs fn(arg) and exits with what it returns (0 to 255), by _exit after
 * flushing stdout and stderr. arg is the child's copy. Forks the calling thread: where other threads run,
 * fn may use only what is safe after fork. -EINVAL, -EAGAIN, -ENOMEM, -EMFILE.
 */
AC_API int ac_process_start(struct ac_process **process, int (*fn)(void *arg),
			    void *arg, const struct ac_process_opts *opts);
/* Its process id, also after its end; -EINVAL for NULL (no pid: don't kill it). */
AC_API pid_t ac_process_pid(const struct ac_process *process);
/* Wait for its end: 0 and *outcome (may be NULL; status 0 for exit code 0,
 * AC_ETASK with value for another, AC_EDIED with signal), or -ETIMEDOUT, AC_EFORK, -EINVAL.
 * May be called again. */
AC_API int ac_process_join(struct ac_process *process, int64_t timeout_ns,
			   struct ac_outcome *outcome);
/* Send a signal, never to a stranger that got the same pid. 0; -ESRCH when it has
 * ended; AC_EFORK; -EINVAL. */
AC_API int ac_process_kill(struct ac_process *process, int signal);
/* Kill it if it still runs (unless detached), reap it, free the handle. NULL allowed. */
AC_API void ac_process_close(struct ac_process *process);

/* ---- 8. Processors -------------------------------------------------------- */

/*
 * How many processors this process may really use, minus leave, at least 1:
 * the least of the affinity mask, the cgroups' quota (v1 and v2, through all
 * parents, rounded up) and the environment's ALLCORES_CPUS. Reads a few files; any thread.
 */
AC_API int ac_cpus(int leave);

/* ---- 9. Workers that you start -------------------------------------------- */

/*
 * With ac_pool_opts.start the pool forks nothing itself. It calls start for every worker that it
 * needs, replacements too, in any of the owner's threads, also in the library's. start
 * starts a process that inherits or is passed the descriptor fd, and returns the pid of the
 * process, or -errno. The pool closes fd after start returns (duplicate it to keep it). The process
 * must hold no other copy than the one that it passes to ac_worker_open. The pool watches the
 * process but does not reap it: that is for its parent to do.
 *
 * If start fails during ac_pool_open, ac_pool_open returns its error and calls start no more;
 * workers that were started before end. If the process has come to ac_worker_open although start
 * failed, the pool keeps it as one with an unknown pid.
 *
 * start returns 0 where the pid is not known, or is known only in another pid namespace. Then
 * the pool learns of the end of the process by its descriptor alone: no other process may hold a
 * copy of it, and how the process ended is not known. The pool shows the pid that the process
 * itself reports. If such a process never comes to ac_worker_open it can't be killed.
 *
 * A process that ends before it is ready is a failed start, and a few of these in a row with no
 * worker ready make the pool fail. But where SIGKILL, SIGTERM, SIGINT or SIGHUP, sent by somebody
 * else, ends a process before ac_worker_open, the start is tried again, more slowly each time (up to
 * a second), and is a failed one only when no worker has been ready for 30 s. So it is with workers
 * that the pool forks, too. The library does not tell the kernel's OOM killer from others.
 *
 * ended is called for each process that ends by itself before ac_worker_open, from any thread,
 * as start. outcome says what the kernel has told: signal, exit_code, text. It tells of children
 * only, and not once they are reaped. The function writes there what it knows better. It returns
 * 0; or 1: this is a failed start, whatever the signal is.
 */
struct ac_worker;

/*
 * In the new process: take the seat. Maps the region and arms the lifeline: from now on this process
 * dies with its owner (as process 1 of a pid namespace by a thread that ac_worker_close joins).
 * Takes over fd, whatever it returns. -EINVAL, AC_EVERSION, -ENOMEM, -EMFILE, -EAGAIN,
 * AC_ECLOSED (the owner is gone). One thread per worker.
 */
AC_API int ac_worker_open(struct ac_worker **worker, int fd);
/* Tell the owner that this worker is ready (status 0), or that it will not
 * be (non-zero; text, or NULL, says why): the pool then fails with AC_ESTART. */
AC_API int ac_worker_ready(struct ac_worker *worker, int status, const char *text);
/* What this worker does, for ac_worker_stat: cut at AC_TEXT_SIZE - 1 bytes, shown until the
 * next call. Costs a copy. -EINVAL, AC_EFORK. */
AC_API int ac_worker_say(struct ac_worker *worker, const char *text);
/* Wait until there may be a task, without taking it: 1; 0: exit now; -EINTR when a signal
 * handler ran. For a worker with costly preparations before its first task; other workers may
 * take that task meanwhile. */
AC_API int ac_worker_wait(struct ac_worker *worker);
/* Wait for a task: 1 and *call; 0: exit now (the pool closes, this worker is to be recycled, or
 * a task has closed its descriptors); -EINTR when a signal handler ran. */
AC_API int ac_worker_take(struct ac_worker *worker, struct ac_call **call);
/* The function as the owner gave it: to the library a number, whose meaning is yours. */
AC_API ac_call_fn *ac_call_function(const struct ac_call *call);
/*
 * For a process that has the owner's functions at the owner's addresses (forked, not
 * executed): run the call's function, as a single call or for the items of a part of a map, and
 * return the value for ac_worker_done. Other processes know by themselves what a number
 * means, and must not be given maps.
 */
AC_API int ac_call_run(struct ac_call *call);
/* Complete the task: value 0 is success. */
AC_API void ac_worker_done(struct ac_worker *worker, struct ac_call *call, int value);
/* Leave the pool, and free. The process lives on. A task that was not completed fails with
 * AC_EDIED. A process that lives on must call this: one that only closes its descriptors is killed
 * a moment later, or, where the pool can't kill it (unknown pid, no pidfds), taken for dead. */
AC_API void ac_worker_close(struct ac_worker *worker);

/* ---- 10. Languages with a runtime of their own ----------------------------- */

/*
 * An interpreter has to know of a fork, and has its own idea of what a worker does. With
 * ac_pool_opts.runtime the pool calls these functions. Workers are forked by the template
 * as in any pool: the template is forked once, in ac_pool_open, and is a copy of the owner
 * with one thread. The owner forks nothing later. No function of the runtime runs in the template.
 * Handlers of pthread_atfork do, and so should not start threads (ac_pool_stat.template_threads).
 *
 * The library does not flush stdout and stderr in such a pool, neither in the owner nor in its workers.
 */
struct ac_runtime {
	size_t size;		/* sizeof(struct ac_runtime) */
	void *arg;		/* passed to each function */

	/* Around the template's fork, in the thread that is in ac_pool_open. after_fork runs in the
	 * owner only: result is a pid, or -errno where the fork failed. May be NULL. */
	void (*before_fork)(void *arg);
	void (*after_fork)(void *arg, int result);

	/* Before each start of a worker, in the owner: in any thread, also in the library's. Sets *tag,
	 * by which the runtime knows this process: another one for each start. Returns 0, or -errno:
	 * then the start has failed. May be NULL: all tags are 0. */
	int (*starting)(void *arg, unsigned worker, uint64_t *tag);

	/*
	 * In the new process, which is the worker of that number. All signals are blocked, and SIGINT
	 * is not ignored: the function sets handlers and the mask. It calls ac_worker_ready, then
	 * takes and completes tasks (section 9). It may exit, or return, which is _exit(0).
	 * worker is not to be closed. The descriptors, the directory and the memory are
	 * those of the owner in ac_pool_open.
	 */
	void (*run)(void *arg, struct ac_worker *worker, unsigned number, uint64_t tag);

	uint64_t flags;		/* AC_RUNTIME_... */
};

/* run has something to do besides tasks, an initialiser for example: it is called for each worker
 * even if the pool is closed before that worker was forked. By default such a worker is not forked at all. */
#define AC_RUNTIME_EAGER 1u

/*
 * The process that was started with that tag for that worker; of pools with a runtime. All may be called by
 * any thread. -ESRCH: there was never such a process, or another one has been in its place and has ended, too;
 * -EINVAL, AC_EFORK.
 */
/* Its pid, also after its end. Waits until it has been forked, which takes some milliseconds at
 * most. -EINTR with AC_POOL_INTERRUPTIBLE. Until the pool has noticed the end of the worker (then
 * ac_pool_worker_join returns) no other process gets this pid. */
AC_API pid_t ac_pool_worker_pid(struct ac_pool *pool, unsigned worker, uint64_t tag);
/* Wait for its end: 0 and *outcome (may be NULL): signal or exit_code, pid and peak_rss. Both
 * signal 0 and exit_code -1: it ended, but how is not known (its template was lost). -ETIMEDOUT,
 * -EINTR. May be called again, also after ac_pool_join. */
AC_API int ac_pool_worker_join(struct ac_pool *pool, unsigned worker, uint64_t tag,
			       int64_t timeout_ns, struct ac_outcome *outcome);
/* Send it a signal, never to a stranger that got the same pid. 0; -ESRCH also when it has ended;
 * -EAGAIN: not now, the template has too many orders to read; -EINTR. Waits while the runtime's
 * function starting runs for it. */
AC_API int ac_pool_worker_kill(struct ac_pool *pool, unsigned worker, uint64_t tag, int signal);
/* A descriptor that is readable once it has ended (close-on-exec, the caller's to close), or -errno:
 * -ENOSYS where the system has no pidfds. Waits like ac_pool_worker_pid. */
AC_API int ac_pool_worker_fd(struct ac_pool *pool, unsigned worker, uint64_t tag);

#ifdef __cplusplus
}
#endif

#endif

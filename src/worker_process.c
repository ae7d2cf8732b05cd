/* SPDX-License-Identifier: MIT */
/*
 * The processes of a pool's workers, as a language's runtime knows them: by the tag that the runtime
 * chose at the start. The owner's records hold one process for each worker, and how the one
 * before it has ended.
 */
#include <errno.h>
#include <unistd.h>

#include "wait.h"
#include "workers_kill.h"

/* Between two looks for the pid, which a process writes down without telling anybody. */
#define LOOK_NS INT64_C(500000)

/* What a thread looks for, and what it has found. */
struct search {
	struct ac_pool *pool;
	unsigned seat;
	uint64_t tag;
};

static const struct ac__worker_record *record_of(const struct search *search)
{
	return &search->pool->workers.records[search->seat];
}

static bool has_ended(const struct search *search)
{
	return record_of(search)->last_tag == search->tag && record_of(search)->last.status;
}

/* It is being started, or runs, or its end was not noticed yet. The runtime knows the tag of a process
 * before its own function for the start has returned: until then the seat's next process may be
 * this one. */
static bool is_there(const struct search *search)
{
	const struct ac__worker_record *record = record_of(search);

	if (record->state == AC__RECORD_ABSENT)
		return false;
	return record->in_start ? !has_ended(search) : record->tag == search->tag;
}

static bool is_being_started(const struct search *search)
{
	return is_there(search) && record_of(search)->in_start;
}

static bool was_started(void *search)
{
	return !is_being_started(search);
}

static bool is_over(void *search)
{
	return !is_there(search);
}

/* 0, with the lock held, or why not. */
static int begin(struct search *search, struct ac_pool *pool, unsigned worker, uint64_t tag)
{
	if (!pool || worker >= pool->workers.count || !pool->workers.plan.runtime)
		return -EINVAL;
	if (ac__pool_is_forked(pool))
		return AC_EFORK;
	*search = (struct search){ .pool = pool, .seat = worker + 1, .tag = tag };
	ac__pool_lock(pool);
	ac__engine_poll(pool);
	ac__engine_changed(pool);
	if (is_there(search) || has_ended(search))
		return 0;
	ac__pool_unlock(pool);
	return -ESRCH;
}

/* The pid, 0 if it could not be forked, -EINTR. */
static pid_t await_pid(struct search *search)
{
	struct ac_pool *pool = search->pool;

	while (is_there(search)) {
		pid_t pid = atomic_load(&pool->workers.plan.pids[search->seat]);
		int r;

		if (pid)
			return pid;
		r = ac__wait_until(pool, is_over, search, ac__sys_deadline(LOOK_NS));
		if (r == -EINTR)
			return r;
	}
	return has_ended(search) ? record_of(search)->last.pid : 0;
}

pid_t ac_pool_worker_pid(struct ac_pool *pool, unsigned worker, uint64_t tag)
{
	struct search search;
	pid_t pid = begin(&search, pool, worker, tag);

	if (pid < 0)
		return pid;
	pid = await_pid(&search);
	ac__pool_unlock(pool);
	return pid ? pid : -ESRCH;
}

static void fill_end(const struct ac__ending *ending, struct ac_outcome *outcome)
{
	if (!outcome)
		return;
	*outcome = (struct ac_outcome){ .status = ending->status,
					.signal = ending->signal,
					.exit_code = ending->exit_code,
					.pid = ending->pid,
					.worker = ending->seat ? ending->seat - 1 : 0,
					.peak_rss = ending->peak_rss };
	memcpy(outcome->text, ending->text, sizeof outcome->text);
}

int ac_pool_worker_join(struct ac_pool *pool, unsigned worker, uint64_t tag, int64_t timeout_ns,
			struct ac_outcome *outcome)
{
	int64_t deadline = ac__sys_deadline(timeout_ns);
	struct search search;
	int r = begin(&search, pool, worker, tag);

	if (r < 0)
		return r;
	r = ac__wait_until(pool, is_over, &search, deadline);
	if (r == 0 && !has_ended(&search))
		r = -ESRCH;
	if (r == 0)
		fill_end(&record_of(&search)->last, outcome);
	ac__pool_unlock(pool);
	return r;
}

int ac_pool_worker_kill(struct ac_pool *pool, unsigned worker, uint64_t tag, int signal)
{
	struct search search;
	int r = begin(&search, pool, worker, tag);

	if (r < 0)
		return r;
	r = ac__wait_until(pool, was_started, &search, INT64_MAX);
	if (r == 0 && !is_there(&search))
		r = -ESRCH;
	if (r == 0)
		r = ac__workers_signal(&pool->workers, search.seat, signal);
	ac__pool_unlock(pool);
	return r;
}

/* A pipe without a writer. */
static int open_ended(void)
{
	int fd[2], r;

	ac__forkguard_lock();
	r = ac__sys_pipe(fd);
	if (r == 0)
		ac__sys_close(fd[1]);
	ac__forkguard_unlock();
	return r < 0 ? r : fd[0];
}

/* The pid is that process's as long as the owner has not taken the news of its end. */
int ac_pool_worker_fd(struct ac_pool *pool, unsigned worker, uint64_t tag)
{
	struct search search;
	pid_t pid;
	int r = begin(&search, pool, worker, tag);

	if (r < 0)
		return r;
	pid = await_pid(&search);
	if (!is_there(&search))
		r = open_ended();
	else
		r = pid < 0 ? pid : ac__sys_pidfd(pid);
	ac__pool_unlock(pool);
	return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * Each system call that a process of a pool makes is refused once, at each place where it
 * is made, with each error that Linux has for it: the owner (its workers forked, or
 * adopted; alone, or driven by an event loop), the template, a worker, the starter of single
 * processes. The kernel's own door is used, by ptrace, so this finds also what libc calls.
 * After it all goes on, by a slower way or with a code; nothing hangs, nothing is left.
 *
 * Quick: for each place one error by chance, for some seconds; "full" as the first argument:
 * each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "tracee.h"
#include "workout.h"

#define ERRORS 6
#define OFTEN 40 /* more calls of a kind in one run are alike */
#define BUDGET (3 * SECOND)
/* Less than what closing gives to workers that don't leave. */
#define RUN_NS (8 * SECOND * (1 + CRASH_SANITIZED))

struct refusal {
	long call;
	int errors[ERRORS];
	bool after;	/* it is done all the same */
	bool (*applies)(const struct trace *trace); /* NULL: always */
};

/* Waking others can't fail. */
static bool is_sleep(const struct trace *trace)
{
	return (tracee_argument(trace, 1) & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
}

/* Linux 5.3 has pidfds and does not wait for them. */
static bool is_by_pidfd(const struct trace *trace)
{
	return tracee_argument(trace, 0) == 3;
}

static bool is_waiting(const struct trace *trace)
{
	return !(tracee_argument(trace, 2) & WNOHANG);
}

/* What is not here can't fail, or fails for a bug of the caller's only; sleeps that end early
 * are here, as EINTR. */
/* Newer machines have only the later forms of these calls. */
#ifndef SYS_epoll_wait
#define SYS_epoll_wait SYS_epoll_pwait
#endif

static const struct refusal refusals[] = {
	{ SYS_memfd_create, { EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM, EINVAL }, false, NULL },
	{ SYS_ftruncate, { ENOSPC, EFBIG, EINVAL, EPERM, EINTR }, false, NULL },
	{ SYS_fcntl, { EINVAL, EPERM, ENOMEM }, false, NULL },
	{ SYS_openat, { EMFILE, ENFILE, EACCES, ENOMEM, EINTR }, false, NULL },
	{ SYS_read, { EINTR, EIO }, false, NULL },
	{ SYS_write, { EINTR }, false, NULL },
	{ SYS_close, { EINTR, EIO }, true, NULL },
	{ SYS_fallocate, { EOPNOTSUPP, ENOSPC, EINTR, EPERM }, false, NULL },
	{ SYS_mmap, { ENOMEM, EAGAIN, EPERM }, false, NULL },
	{ SYS_mprotect, { ENOMEM }, false, NULL },
	{ SYS_madvise, { EINVAL, ENOMEM, EAGAIN }, false, NULL },
	{ SYS_prlimit64, { EPERM, ENOSYS }, false, NULL },
	{ SYS_sched_getaffinity, { EPERM, ENOSYS, EINVAL }, false, NULL },
	{ SYS_pipe2, { EMFILE, ENFILE, ENOMEM }, false, NULL },
	{ SYS_epoll_create1, { EMFILE, ENFILE, ENOMEM }, false, NULL },
	{ SYS_epoll_ctl, { ENOSPC, ENOMEM }, false, NULL },
	{ SYS_epoll_wait, { EINTR }, false, NULL },
	{ SYS_timerfd_create, { EMFILE, ENFILE, ENOMEM }, false, NULL },
	{ SYS_socketpair, { EMFILE, ENFILE, ENOMEM, EAFNOSUPPORT }, false, NULL },
	{ SYS_sendmsg, { ENOBUFS, ENOMEM, EINTR, ETOOMANYREFS }, false, NULL },
	{ SYS_sendto, { ENOBUFS, EAGAIN, EINTR }, false, NULL },
	{ SYS_recvmsg, { ENOMEM, EINTR, ENOBUFS }, false, NULL },
#ifdef SYS_poll
	{ SYS_poll, { EINTR, ENOMEM }, false, NULL },
#endif
	{ SYS_ppoll, { EINTR, ENOMEM }, false, NULL },
	{ SYS_futex, { EINTR, EAGAIN }, false, is_sleep },
	{ SYS_clone, { EAGAIN, ENOMEM, EPERM }, false, NULL },
	{ SYS_clone3, { EAGAIN, ENOMEM, ENOSYS }, false, NULL },
	{ SYS_waitid, { EINVAL }, false, is_by_pidfd },
	{ SYS_wait4, { EINTR }, false, is_waiting },
	{ SYS_pidfd_open, { ENOSYS, EMFILE, ENOMEM, EPERM, EINVAL }, false, NULL },
	{ SYS_pidfd_send_signal, { ENOSYS, EPERM }, false, NULL },
};

#define REFUSALS (sizeof refusals / sizeof *refusals)

/* Whose calls, in what. */
struct target {
	const char *name;
	void (*start)(struct trace *trace);
	void (*be)(void);
	unsigned flags;	/* of the workout */
};

/* One run. */
struct run {
	const struct refusal *refusal; /* NULL: only count */
	unsigned nth;
	int error;
	bool reached;
	unsigned made[REFUSALS];
};

static bool full;
static const struct target *target;
static pid_t owner;
static int go[2];
static int64_t longest;

/* ---- owners ---- */

static unsigned flags; /* of the workout */

static void work(void)
{
	workout(flags);
}

static void work_with_processes(void)
{
	workout_processes();
}

/* What it looks at before and after is its own affair. */
__attribute__((noreturn)) static void be_traced_owner(void)
{
	struct crash_print before;

	crash_print_take(&before);
	trace_me();
	target->be();
	TRACE_MARK();
	crash_print_check(&before);
	_exit(0);
}

__attribute__((noreturn)) static void be_owner_of_traced(void)
{
	struct crash_print before;
	char byte;

	CHECK_EQ(read(go[0], &byte, 1), 1);
	close(go[0]);
	crash_print_take(&before);
	target->be();
	crash_print_check(&before);
	_exit(0);
}

/* ---- beginnings ---- */

static void fork_owner(void (*be)(void))
{
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	owner = fork();
	if (owner == 0)
		be();
	CHECK(owner > 0);
}

static void start_owner(struct trace *trace)
{
	fork_owner(be_traced_owner);
	trace_adopt(trace, owner);
}

static void say_go(void)
{
	if (go[1] < 0)
		return;
	CHECK_EQ(write(go[1], "", 1), 1);
	close(go[1]);
	go[1] = -1;
}

static void start_template(struct trace *trace)
{
	CHECK_EQ(pipe2(go, O_CLOEXEC), 0);
	fork_owner(be_owner_of_traced);
	close(go[0]);
	trace_born(trace, owner, say_go);
}

/* The first that the template forks. */
static void start_worker(struct trace *trace)
{
	struct trace template = { 0 };

	start_template(&template);
	trace_child(trace, &template);
}

/* ---- runs ---- */

/* At its beginning. True: it is refused. */
static bool begin_call(struct trace *trace, struct run *run)
{
	long call = tracee_call(trace);
	const struct refusal *refused = NULL;

	for (size_t i = 0; i < REFUSALS; i++) {
		const struct refusal *refusal = &refusals[i];

		if (refusal->call != call ||
		    (refusal->applies && !refusal->applies(trace)))
			continue;
		if (++run->made[i] == run->nth && refusal == run->refusal)
			refused = refusal;
	}
	if (!refused)
		return false;
	run->reached = true;
	if (!refused->after)
		tracee_skip_call(trace);
	return true;
}

/* Until its end, or its mark. */
static void lead(struct trace *trace, struct run *run)
{
	bool in_call = false, refused = false;

	for (;;) {
		tracee_resume(trace, PTRACE_SYSCALL);
		if (tracee_await_news(trace, false) == TRACEE_ENDED)
			return;
		if (!tracee_is_at_call(trace))
			break;
		in_call = !in_call;
		if (in_call)
			refused = begin_call(trace, run);
		else if (refused)
			tracee_set_result(trace, -run->error);
	}
	tracee_request(PTRACE_DETACH, trace->pid, 0, 0);
}

static void make_run(struct run *run)
{
	struct trace trace = { 0 };
	int64_t start, took;

	target->start(&trace);
	start = crash_now();
	lead(&trace, run);
	if (!(trace.pid == owner && trace.ended))
		crash_await_success(owner, RUN_NS);
	else
		CHECK(WIFEXITED(trace.status) && WEXITSTATUS(trace.status) == 0);
	crash_await_nobody(5 * SECOND);
	took = crash_now() - start;
	CHECK(took < RUN_NS);
	longest = took > longest ? took : longest;
}

/* ---- all of them ---- */

struct place {
	const struct refusal *refusal;
	unsigned nth;
	int error;
};

static unsigned count_errors(const struct refusal *refusal)
{
	unsigned n = 0;

	while (n < ERRORS && refusal->errors[n])
		n++;
	return n;
}

static struct place *list_places(const struct run *learnt, unsigned *count)
{
	struct place *places = calloc(REFUSALS * OFTEN * ERRORS, sizeof *places);
	uint64_t seed = crash_seed;

	CHECK(places);
	for (size_t i = 0; i < REFUSALS; i++) {
		const struct refusal *refusal = &refusals[i];
		unsigned made = learnt->made[i], errors = count_errors(refusal);

		for (unsigned n = 1; n <= made && n <= OFTEN; n++) {
			unsigned one = (unsigned)(crash_random(&seed) % errors);

			for (unsigned e = 0; e < errors; e++)
				if (full || e == one)
					places[(*count)++] = (struct place){
						refusal, n, refusal->errors[e] };
		}
	}
	return places;
}

static void shuffle(struct place *places, unsigned count)
{
	uint64_t seed = crash_seed;

	for (unsigned i = count; i > 1; i--) {
		unsigned j = (unsigned)(crash_random(&seed) % i);
		struct place place = places[j];

		places[j] = places[i - 1];
		places[i - 1] = place;
	}
}

/* How often it sleeps, and is rung, is different each time. */
static bool is_steady(const struct refusal *refusal)
{
	long call = refusal->call;

	return call != SYS_futex && call != SYS_epoll_wait && call != SYS_ppoll &&
	       call != SYS_read && call != SYS_write;
}

static void refuse_each(void *arg)
{
	struct run learnt = { 0 };
	unsigned count = 0, missed = 0, lost = 0, i;
	struct place *places;
	int64_t end;

	trace_need();
	if (CRASH_SANITIZED)
		crash_skip("a sanitizer ends the program where its own system calls fail");
	target = arg;
	flags = target->flags;
	crash_at("learning");
	/* Once without: what the C library sets up stays. */
	target->be();
	make_run(&learnt);
	places = list_places(&learnt, &count);
	if (!full)
		shuffle(places, count);
	end = crash_now() + BUDGET;
	for (i = 0; i < count && (full || crash_now() < end); i++) {
		struct run run = { .refusal = places[i].refusal,
				   .nth = places[i].nth,
				   .error = places[i].error };

		crash_at("system call %ld, the %u., is refused: %s", run.refusal->call,
			 run.nth, ac_errname(-run.error));
		make_run(&run);
		missed += !run.reached;
		lost += !run.reached && is_steady(run.refusal);
	}
	crash_note("%u refusals, %u runs, missed %u (%u of them no sleeps), longest %lld ms",
		   count, i, missed, lost, (long long)(longest / MS));
	CHECK(i > missed && lost <= 2 + i / 4);
	free(places);
}

int main(int argc, char **argv)
{
	static const struct target targets[] = {
		{ "an owner", start_owner, work, 0 },
		{ "an owner in an event loop", start_owner, work, WORKOUT_LOOP },
		{ "an owner of adopted workers", start_owner, work, WORKOUT_ADOPT },
		{ "a starter of processes", start_owner, work_with_processes, 0 },
		{ "a template", start_template, work, 0 },
		{ "a worker", start_worker, work, WORKOUT_SPARE },
	};
	char name[80];

	full = argc > 1 && strcmp(argv[1], "full") == 0;
	crash_begin(argc - full, argv + full);
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
		snprintf(name, sizeof name, "each system call of %s is refused",
			 targets[i].name);
		crash_case(name, refuse_each, (void *)&targets[i], full ? 3600 : 60);
	}
	return crash_end();
}

/* SPDX-License-Identifier: MIT */
/* The path: learning it, and coming to a place on it. See the header. */
#define _GNU_SOURCE
#include "trace.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "tracee.h"

#define STEPS_MOST (1u << 20)
#define PLACES (1u << 16) /* a power of two */
#define BACK_MOST 64 /* steps from a breakpoint to a place nearby */
#define OPTIONS (PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)

struct trace_place {
	uint64_t pc;
	uint32_t visits;
};

/* ---- the path ---- */

static struct trace_place *place_of(const struct trace_path *path, uint64_t pc)
{
	uint32_t i = (uint32_t)(pc * UINT64_C(0x9e3779b97f4a7c15) >> 48);

	while (path->places[i % PLACES].pc && path->places[i % PLACES].pc != pc)
		i++;
	return &path->places[i % PLACES];
}

uint32_t trace_visits(const struct trace_path *path, uint64_t pc)
{
	return place_of(path, pc)->visits;
}

static void note_step(struct trace_path *path, uint64_t pc, enum trace_kind kind)
{
	struct trace_place *place = place_of(path, pc);

	if (path->count == path->room) {
		path->room = path->room ? 2 * path->room : 4096;
		CHECK(path->room <= STEPS_MOST);
		path->steps = realloc(path->steps, path->room * sizeof *path->steps);
		CHECK(path->steps);
	}
	place->pc = pc;
	place->visits += kind == TRACE_AT;
	path->steps[path->count++] = (struct trace_step){
		.pc = pc,
		.visit = place->visits,
		.set = path->set,
		.kind = kind,
		.engine = tracee_is_engine(pc),
	};
}

/* The kernel's state has changed, or may have. */
static void note_call(struct trace_path *path, uint64_t pc, enum trace_kind kind)
{
	if (!path)
		return;
	path->set++;
	note_step(path, pc, kind);
}

void trace_forget(struct trace_path *path)
{
	free(path->steps);
	free(path->places);
	memset(path, 0, sizeof *path);
}

/* ---- one instruction ---- */

static void enter_call(struct trace *trace)
{
	trace->in_call = true;
	trace->calls++;
	trace->call = tracee_program_counter(trace);
}

static bool act(struct trace *trace)
{
	return trace->act && trace->act(trace->acts++);
}

/* Resumed, it may fall asleep: who wakes it is the script, or others. */
static enum tracee_news await_and_act(struct trace *trace, struct trace_path *path)
{
	/* Others may wake it at any time: only who learns wants to know that it slept. */
	bool may_sleep = trace->act || path, noted = false;
	enum tracee_news news;

	while ((news = tracee_await_news(trace, may_sleep)) == TRACEE_ASLEEP) {
		trace->asleep = true;
		if (path && (trace->act || !noted))
			note_call(path, trace->call, TRACE_ASLEEP);
		noted = true;
		if (!trace->act)
			may_sleep = false;
		else if (!act(trace))
			return TRACEE_ASLEEP;
		trace->asleep = false;
	}
	return news;
}

/* TRACEE_ASLEEP: that is its end. */
static enum tracee_news leave_call(struct trace *trace, struct trace_path *path)
{
	tracee_resume(trace, PTRACE_SYSCALL);
	trace->in_call = false;
	return await_and_act(trace, path);
}

static enum tracee_news step_call(struct trace *trace, struct trace_path *path)
{
	tracee_resume(trace, PTRACE_SYSCALL);
	if (tracee_await_news(trace, false) == TRACEE_ENDED)
		return TRACEE_ENDED;
	enter_call(trace);
	note_call(path, trace->call, TRACE_ENTERED);
	return leave_call(trace, path);
}

static enum tracee_news step_on(struct trace *trace, struct trace_path *path)
{
	uint64_t pc;
	enum tracee_news news;

	if (trace->in_call) {
		news = leave_call(trace, path);
		if (path)
			path->set++;
		return news;
	}
	pc = tracee_program_counter(trace);
	if (tracee_is_system_call(pc)) {
		news = step_call(trace, path);
		if (path)
			path->set++;
		return news;
	}
	tracee_resume(trace, PTRACE_SINGLESTEP);
	news = tracee_await_news(trace, false);
	if (news == TRACEE_STOPPED && tracee_is_breakpoint(pc) && !act(trace))
		return TRACEE_ASLEEP;
	return news;
}

void trace_learn(struct trace *trace, struct trace_path *path,
		 struct trace_change (*look)(void *arg), void *arg)
{
	struct trace_change change;

	path->places = calloc(PLACES, sizeof *path->places);
	CHECK(path->places);
	look(arg);
	if (trace->in_call)
		note_call(path, trace->call, TRACE_ENTERED);
	else
		note_step(path, tracee_program_counter(trace), TRACE_AT);
	while (step_on(trace, path) == TRACEE_STOPPED) {
		change = look(arg);
		path->set += change.changed;
		note_step(path, tracee_program_counter(trace), TRACE_AT);
		path->steps[path->count - 1].critical = change.critical;
	}
}

/* ---- to a place ---- */

/* Where a breakpoint is to be, for what comes at step k: a place that is seldom visited. */
static unsigned choose_anchor(const struct trace_path *path, unsigned k)
{
	uint64_t best = UINT64_MAX;
	unsigned anchor = 0;

	for (unsigned j = k + 1; j-- > 1;) {
		const struct trace_step *step = &path->steps[j];
		uint64_t cost = (uint64_t)step->visit * 3 + (k - j);

		if (best != UINT64_MAX && k - j > BACK_MOST)
			break;
		/* Elsewhere the way there may differ: malloc's, the linker's. */
		if (step->kind == TRACE_AT && cost < best &&
		    (step->engine || tracee_is_system_call(step->pc))) {
			best = cost;
			anchor = j;
		}
	}
	return anchor;
}

/* Its code is whole while it forks: a child would meet the breakpoint, and nobody there
 * knows of it. */
static void spare_child(struct trace *trace, uint64_t breakpoint)
{
	if (!breakpoint || !tracee_is_forking(trace))
		return;
	if (trace->breakpoint)
		tracee_clear_breakpoint(trace);
	else
		tracee_set_breakpoint(trace, breakpoint);
}

/* To the next trap. It stops at system calls too, so that it stands still while others act. */
static enum tracee_news run_on(struct trace *trace)
{
	uint64_t breakpoint = trace->breakpoint;
	enum tracee_news news;

	for (;;) {
		tracee_resume(trace, PTRACE_SYSCALL);
		trace->in_call = false;
		news = await_and_act(trace, NULL);
		if (news != TRACEE_STOPPED || !tracee_is_at_call(trace))
			return news;
		spare_child(trace, breakpoint);
	}
}

/* To that visit of pc, and its code whole again. False: it came to its end before. */
static bool run_to(struct trace *trace, uint64_t pc, unsigned visit)
{
	unsigned visits = !trace->in_call && tracee_program_counter(trace) == pc;
	uint64_t at;

	if (visits && step_on(trace, NULL) != TRACEE_STOPPED)
		return false;
	for (;;) {
		tracee_set_breakpoint(trace, pc);
		if (run_on(trace) != TRACEE_STOPPED)
			return false;
		tracee_clear_breakpoint(trace);
		at = tracee_program_counter(trace) - 1;
		if (at != pc) {
			CHECK(tracee_is_breakpoint(at));
			if (!act(trace))
				return false;
			continue;
		}
		tracee_set_program_counter(trace, pc);
		if (++visits == visit)
			return true;
		if (step_on(trace, NULL) != TRACEE_STOPPED)
			return false;
	}
}

/* To the instruction of step k. */
static bool reach_instruction(struct trace *trace, const struct trace_path *path,
			      unsigned k)
{
	unsigned anchor = trace->only_steps ? 0 : choose_anchor(path, k);

	if (anchor && !run_to(trace, path->steps[anchor].pc, path->steps[anchor].visit))
		return false;
	for (unsigned j = anchor + 1; j <= k; j++)
		if (path->steps[j].kind == TRACE_AT &&
		    step_on(trace, NULL) != TRACEE_STOPPED)
			return false;
	return tracee_program_counter(trace) == path->steps[k].pc;
}

/* So often has it slept in the call of step k. */
static bool fall_asleep(struct trace *trace, unsigned times)
{
	tracee_resume(trace, PTRACE_SYSCALL);
	trace->in_call = false;
	while (tracee_await_news(trace, true) == TRACEE_ASLEEP) {
		trace->asleep = true;
		if (--times == 0)
			return true;
		if (!act(trace))
			return false;
	}
	return false;
}

bool trace_reach(struct trace *trace, const struct trace_path *path, unsigned k)
{
	unsigned first = k;

	if (path->steps[k].kind == TRACE_AT)
		return reach_instruction(trace, path, k);
	while (path->steps[first].kind == TRACE_ASLEEP)
		first--;
	if (first > 0) {
		if (!reach_instruction(trace, path, first - 1))
			return false;
		tracee_resume(trace, PTRACE_SYSCALL);
		if (tracee_await_news(trace, false) == TRACEE_ENDED)
			return false;
		enter_call(trace);
	}
	return k == first || fall_asleep(trace, k - first);
}

void trace_finish(struct trace *trace)
{
	enum tracee_news news = TRACEE_STOPPED;

	/* It may be at a mark already, or sleep. */
	if (trace->asleep)
		news = await_and_act(trace, NULL);
	while (news == TRACEE_STOPPED) {
		news = run_on(trace);
		if (news == TRACEE_STOPPED && !act(trace))
			return;
	}
}

/* ---- beginnings and ends ---- */

void trace_seize(struct trace *trace, pid_t pid)
{
	trace->pid = pid;
	tracee_request(PTRACE_SEIZE, pid, 0, OPTIONS);
	tracee_request(PTRACE_INTERRUPT, pid, 0, 0);
	CHECK_EQ(tracee_await_news(trace, false), TRACEE_STOPPED);
	tracee_resume(trace, PTRACE_SYSCALL);
	CHECK_EQ(tracee_await_news(trace, false), TRACEE_STOPPED);
	enter_call(trace);
}

void trace_me(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
}

void trace_adopt(struct trace *trace, pid_t pid)
{
	trace->pid = pid;
	CHECK(tracee_has_news(trace, true));
	CHECK(WIFSTOPPED(trace->status));
	tracee_request(PTRACE_SETOPTIONS, pid, 0, OPTIONS);
}

/* It is traced, and may be stopped: its next child is, too, and it is let go. */
static void take_child(struct trace *trace, struct trace *parent, void (*poll)(void))
{
	unsigned long pid = 0;

	while (!pid) {
		if (poll)
			poll();
		parent->status = 0;
		if (!tracee_has_news(parent, !poll)) {
			sched_yield();
			continue;
		}
		CHECK(WIFSTOPPED(parent->status));
		if (parent->status >> 16 == PTRACE_EVENT_FORK)
			tracee_request(PTRACE_GETEVENTMSG, parent->pid, 0, (long)&pid);
		else
			tracee_request(PTRACE_CONT, parent->pid, 0,
				tracee_is_stranger(parent) ? WSTOPSIG(parent->status) : 0);
	}
	trace->pid = (pid_t)pid;
	CHECK_EQ(tracee_await_news(trace, false), TRACEE_STOPPED);
	tracee_request(PTRACE_SETOPTIONS, trace->pid, 0, OPTIONS);
	tracee_request(PTRACE_DETACH, parent->pid, 0, 0);
}

void trace_born(struct trace *trace, pid_t parent, void (*poll)(void))
{
	struct trace of_parent = { .pid = parent, .request = PTRACE_CONT };

	tracee_request(PTRACE_SEIZE, parent, 0, OPTIONS | PTRACE_O_TRACEFORK);
	take_child(trace, &of_parent, poll);
}

void trace_child(struct trace *trace, struct trace *parent)
{
	tracee_request(PTRACE_SETOPTIONS, parent->pid, 0, OPTIONS | PTRACE_O_TRACEFORK);
	tracee_resume(parent, PTRACE_CONT);
	take_child(trace, parent, NULL);
}

void trace_kill(struct trace *trace)
{
	if (trace->ended)
		return;
	kill(trace->pid, SIGKILL);
	while (!trace->ended)
		tracee_has_news(trace, true);
}

void trace_let_go(struct trace *trace)
{
	if (trace->ended)
		return;
	if (!trace->stopped)
		tracee_request(PTRACE_INTERRUPT, trace->pid, 0, 0);
	if (!trace->stopped && tracee_await_news(trace, false) == TRACEE_ENDED)
		return;
	tracee_clear_breakpoint(trace);
	tracee_request(PTRACE_DETACH, trace->pid, 0, 0);
}

/* In a process that is to be traced and does nothing else. */
static const char *try_to_trace(void)
{
	const char *refused = NULL;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	if (ptrace(PTRACE_SEIZE, pid, NULL, OPTIONS) < 0)
		refused = strerror(errno);
	kill(pid, SIGKILL);
	waitpid(pid, &status, __WALL);
	return refused;
}

void trace_need(void)
{
	const char *refused = tracee_unable() ? tracee_unable() : try_to_trace();

#ifdef __SANITIZE_THREAD__
	refused = "the thread sanitizer's own instructions are too many";
#endif
	if (refused)
		crash_skip(refused);
}

/* SPDX-License-Identifier: MIT */
/* Code and registers, requests and news: see the header. */
#define _GNU_SOURCE
#include "tracee.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "crash.h"

#define HANG_NS (20 * SECOND)
#define LOOKS 30 /* before it is asked whether it sleeps */
#define CALL_TRAP (SIGTRAP | 0x80)

extern char __executable_start, etext;
/* Of the section of TRACE_TASK; none is there where no task is. */
extern char __start_traced_tasks[] __attribute__((weak));
extern char __stop_traced_tasks[] __attribute__((weak));

/* ---- this machine ---- */

#if defined(__x86_64__)
#define UNABLE NULL
#define BREAKPOINT 0xcc

/* The code is the same here: it was forked, and breakpoints are its own. */
bool tracee_is_breakpoint(uint64_t pc)
{
	return *(const volatile uint8_t *)(uintptr_t)pc == BREAKPOINT;
}

bool tracee_is_system_call(uint64_t pc)
{
	const volatile uint8_t *code = (const volatile uint8_t *)(uintptr_t)pc;

	return code[0] == 0x0f && code[1] == 0x05;
}

static long code_at(uint64_t pc)
{
	long word;

	memcpy(&word, (const void *)(uintptr_t)pc, sizeof word);
	return word;
}

uint64_t tracee_program_counter(const struct trace *trace)
{
	struct user_regs_struct regs = { 0 };

	ptrace(PTRACE_GETREGS, trace->pid, NULL, &regs);
	return regs.rip;
}

void tracee_set_program_counter(const struct trace *trace, uint64_t pc)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, trace->pid, NULL, &regs) < 0)
		return;
	regs.rip = pc;
	ptrace(PTRACE_SETREGS, trace->pid, NULL, &regs);
}

static long with_breakpoint(long word)
{
	return (word & ~0xffL) | BREAKPOINT;
}

long tracee_call(const struct trace *trace)
{
	struct user_regs_struct regs = { .orig_rax = (unsigned long long)-1 };

	ptrace(PTRACE_GETREGS, trace->pid, NULL, &regs);
	return (long)regs.orig_rax;
}

uint64_t tracee_argument(const struct trace *trace, unsigned n)
{
	struct user_regs_struct regs = { 0 };

	ptrace(PTRACE_GETREGS, trace->pid, NULL, &regs);
	return n == 0 ? regs.rdi : n == 1 ? regs.rsi : regs.rdx;
}

void tracee_skip_call(const struct trace *trace)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, trace->pid, NULL, &regs) < 0)
		return;
	regs.orig_rax = (unsigned long long)-1;
	ptrace(PTRACE_SETREGS, trace->pid, NULL, &regs);
}

void tracee_set_result(const struct trace *trace, long result)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, trace->pid, NULL, &regs) < 0)
		return;
	regs.rax = (unsigned long long)result;
	ptrace(PTRACE_SETREGS, trace->pid, NULL, &regs);
}

#else
#define UNABLE "breakpoints are known for x86-64 only"

bool tracee_is_breakpoint(uint64_t pc)
{
	(void)pc;
	return false;
}

bool tracee_is_system_call(uint64_t pc)
{
	(void)pc;
	return false;
}

static long code_at(uint64_t pc)
{
	return (long)pc;
}

uint64_t tracee_program_counter(const struct trace *trace)
{
	return (uint64_t)trace->pid;
}

void tracee_set_program_counter(const struct trace *trace, uint64_t pc)
{
	(void)trace;
	(void)pc;
}

static long with_breakpoint(long word)
{
	return word;
}

long tracee_call(const struct trace *trace)
{
	(void)trace;
	return -1;
}

uint64_t tracee_argument(const struct trace *trace, unsigned n)
{
	(void)trace;
	return n;
}

void tracee_skip_call(const struct trace *trace)
{
	(void)trace;
}

void tracee_set_result(const struct trace *trace, long result)
{
	(void)trace;
	(void)result;
}
#endif

static bool is_task(uint64_t pc)
{
	return pc >= (uintptr_t)__start_traced_tasks && pc < (uintptr_t)__stop_traced_tasks;
}

bool tracee_is_engine(uint64_t pc)
{
	return pc >= (uintptr_t)&__executable_start && pc < (uintptr_t)&etext &&
	       !is_task(pc);
}

const char *tracee_unable(void)
{
	return UNABLE;
}

/* ---- requests and news ---- */

void tracee_request(enum __ptrace_request what, pid_t pid, uint64_t address, long data)
{
	if (ptrace(what, pid, (void *)(uintptr_t)address, data) < 0 && errno != ESRCH)
		crash_fail(__FILE__, __LINE__, "ptrace %d: %s", (int)what,
			   strerror(errno));
}

void tracee_resume(struct trace *trace, enum __ptrace_request how)
{
	trace->request = how;
	trace->asleep = trace->stopped = false;
	tracee_request(how, trace->pid, 0, 0);
}

bool tracee_has_news(struct trace *trace, bool wait)
{
	pid_t pid;

	do
		pid = waitpid(trace->pid, &trace->status, __WALL | (wait ? 0 : WNOHANG));
	while (pid < 0 && errno == EINTR);
	CHECK(pid >= 0);
	if (pid == 0)
		return false;
	trace->stopped = WIFSTOPPED(trace->status);
	trace->ended = !trace->stopped;
	return true;
}

bool tracee_is_stranger(const struct trace *trace)
{
	int signal = WSTOPSIG(trace->status);

	return WIFSTOPPED(trace->status) && trace->status >> 16 == 0 &&
	       signal != SIGTRAP && signal != CALL_TRAP;
}

/* Twice: a process that is woken is not shown asleep any more. News may come meanwhile. */
static bool looks_asleep(struct trace *trace)
{
	if (crash_state(trace->pid) != 'S' || crash_state(trace->pid) != 'S')
		return false;
	tracee_has_news(trace, false);
	return true;
}

/* False: it sleeps. */
static bool await_any(struct trace *trace, bool may_sleep)
{
	int64_t end = crash_now() + HANG_NS;

	for (unsigned looks = 0; !tracee_has_news(trace, !may_sleep); looks++) {
		CHECK(crash_now() < end);
		if (looks < LOOKS)
			sched_yield();
		else if (looks_asleep(trace))
			return trace->stopped || trace->ended;
		else
			crash_sleep(MS / 50);
	}
	return true;
}

enum tracee_news tracee_await_news(struct trace *trace, bool may_sleep)
{
	for (;;) {
		if (!await_any(trace, may_sleep))
			return TRACEE_ASLEEP;
		if (trace->ended)
			return TRACEE_ENDED;
		if (!tracee_is_stranger(trace))
			return TRACEE_STOPPED;
		trace->stopped = false;
		tracee_request(trace->request, trace->pid, 0, WSTOPSIG(trace->status));
	}
}

bool tracee_is_at_call(const struct trace *trace)
{
	return WSTOPSIG(trace->status) == CALL_TRAP;
}

bool tracee_is_forking(const struct trace *trace)
{
	long call = tracee_call(trace);

#ifdef SYS_fork
	if (call == SYS_fork || call == SYS_vfork)
		return true;
#endif
	return call == SYS_clone || call == SYS_clone3;
}

/* ---- breakpoints ---- */

void tracee_set_breakpoint(struct trace *trace, uint64_t pc)
{
	tracee_request(PTRACE_POKETEXT, trace->pid, pc, with_breakpoint(code_at(pc)));
	trace->breakpoint = pc;
}

void tracee_clear_breakpoint(struct trace *trace)
{
	if (trace->breakpoint)
		tracee_request(PTRACE_POKETEXT, trace->pid, trace->breakpoint,
			code_at(trace->breakpoint));
	trace->breakpoint = 0;
}

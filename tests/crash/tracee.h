/* SPDX-License-Identifier: MIT */
/* One traced process as the kernel and this machine show it: for trace.c alone. */
#ifndef AC_TRACEE_H
#define AC_TRACEE_H

#include <sys/ptrace.h>

#include "trace.h"

enum tracee_news { TRACEE_STOPPED, TRACEE_ASLEEP, TRACEE_ENDED };

/* Why nothing can be traced on this kind of machine, or NULL. */
const char *tracee_unable(void);

/* What stands in the code, as it was written. */
bool tracee_is_breakpoint(uint64_t pc);
bool tracee_is_system_call(uint64_t pc);
bool tracee_is_engine(uint64_t pc);

uint64_t tracee_program_counter(const struct trace *trace);
void tracee_set_program_counter(const struct trace *trace, uint64_t pc);
void tracee_set_breakpoint(struct trace *trace, uint64_t pc);
void tracee_clear_breakpoint(struct trace *trace);

/* One that was killed a moment ago is no error: the news will say so. */
void tracee_request(enum __ptrace_request what, pid_t pid, uint64_t address, long data);
void tracee_resume(struct trace *trace, enum __ptrace_request how);

/* Something to tell of it, in status, stopped and ended? */
bool tracee_has_news(struct trace *trace, bool wait);
/* The stop is for a signal that is not the tracer's own. */
bool tracee_is_stranger(const struct trace *trace);
/* Such signals reach it, and it goes on. Asleep is news only if it may be. */
enum tracee_news tracee_await_news(struct trace *trace, bool may_sleep);
/* It stopped where a system call begins or ends. */
bool tracee_is_at_call(const struct trace *trace);
/* Its number, and the nth of its first three arguments. */
long tracee_call(const struct trace *trace);
uint64_t tracee_argument(const struct trace *trace, unsigned n);
/* Where it begins: it is not made. Where it ends: what it returns. */
void tracee_skip_call(const struct trace *trace);
void tracee_set_result(const struct trace *trace, long result);
/* It makes a process. */
bool tracee_is_forking(const struct trace *trace);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * One process, or thread, led by ptrace: stepped once from a beginning to an end, to
 * learn the path that it takes; then others like it, each from the same beginning to one place
 * on that path and no further.
 *
 * A path repeats only if nobody else acts meanwhile. So a script says what the others
 * do, and they do it at the path's own points: when the process has fallen asleep in the kernel,
 * and where its code has a trap (TRACE_MARK).
 *
 * The thread that begins is the one that calls all the others here.
 */
#ifndef AC_TRACE_H
#define AC_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum trace_kind {
	TRACE_AT,	/* before this instruction */
	TRACE_ENTERED,	/* in the kernel, the call not begun */
	TRACE_ASLEEP,	/* in the kernel, blocked */
};

struct trace_step {
	uint64_t pc;
	uint32_t visit;	/* of this pc, from 1 */
	uint32_t set;	/* steps in a row that leave the same behind have the same number */
	uint8_t kind;
	bool engine;	/* the code of the program, but for tasks: not libc's */
	bool critical;
};

/* Of a step that was made. */
struct trace_change {
	bool changed;	/* what others see */
	bool critical;	/* the place where it has come to */
};

struct trace_path {
	struct trace_step *steps;
	unsigned count, room;
	uint32_t set;
	/* By pc: visits so far. */
	struct trace_place *places;
};

struct trace {
	pid_t pid;
	/* It sleeps, or is at a mark, for the nth time: true if something was done, false:
	 * that is the end. NULL: it is woken by others. */
	bool (*act)(unsigned n);
	unsigned acts;
	unsigned calls;	/* system calls that it has begun, since it is stepped */
	bool in_call;	/* it is stopped inside a system call, */
	uint64_t call;	/* which is there */
	bool stopped, asleep, ended;
	bool only_steps; /* no breakpoints */
	uint64_t breakpoint; /* the one that is set */
	int request, status;
};

/* Functions that tasks run: no part of the engine. */
#define TRACE_TASK __attribute__((section("traced_tasks"), noinline))
/* In a task of a traced process: the script's next act. */
#if defined(__x86_64__)
#define TRACE_MARK() __asm__ volatile("int3")
#else
#define TRACE_MARK() ((void)0)
#endif

/* Skips the case where nothing can be traced. */
void trace_need(void);

/* Beginnings. Asleep in the kernel: it is interrupted, and about to go on sleeping. */
void trace_seize(struct trace *trace, pid_t pid);
/* It has asked for it (trace_me), and is stopped. */
void trace_adopt(struct trace *trace, pid_t pid);
void trace_me(void);
/* The next process that parent forks, at its first instruction; poll is called until
 * that has happened. */
void trace_born(struct trace *trace, pid_t parent, void (*poll)(void));

/* The next that a stopped one forks; that one is let go. */
void trace_child(struct trace *trace, struct trace *parent);

/* To the end; look is called after each step. */
void trace_learn(struct trace *trace, struct trace_path *path,
		 struct trace_change (*look)(void *arg), void *arg);
/* How often it came by. */
uint32_t trace_visits(const struct trace_path *path, uint64_t pc);
void trace_forget(struct trace_path *path);
/* To step k. False: it came to its end before. */
bool trace_reach(struct trace *trace, const struct trace_path *path, unsigned k);
/* From there to its end. */
void trace_finish(struct trace *trace);

/* Ways to end. */
void trace_kill(struct trace *trace);
/* For one that was seized and sleeps. */
void trace_let_go(struct trace *trace);

#endif

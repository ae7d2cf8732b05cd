/* SPDX-License-Identifier: MIT */
/*
 * A task that is stopped while it runs, by its time limit or a cancel: its
 * word is condemned, then its worker killed; its waiter is answered at once,
 * and the slot is set aside until the process is gone. Stands for
 * ac__slots_condemn, ac__slots_fail and ac__slots_end_seat in src/slots.c,
 * end_over_limit in src/overdue.c, ac__task_cancel and collect_piece in
 * src/task.c, ac__workers_kill (src/workers_kill.c), reap and start_missing in
 * src/engine.c, the swap in ac__done_push (src/ring.c), and for
 * complete and has_to_leave in src/worker.c. The done list is one step with
 * DONE here and sleeping is left out: both are task.pml's.
 *
 * A kill is a byte in the socket of one process: it hits that process, at any
 * later time, whatever it does by then. (So does an order to its parent, which
 * starts the seat's next process only after it has reaped this one.) A process that ended, by a kill, by
 * itself or of something else, is noticed at any later time.
 *
 * Asserted: a kill costs no task but the one it was meant for; nobody writes
 * to a slot's task but its holder in that generation; each task is answered
 * once. At the end all are, and all slots are free. -DNAME seeds a fault.
 */

#ifndef W
#define W 2
#endif
#ifndef S
#define S 2		/* slots */
#endif
#ifndef T
#define T 3		/* tasks */
#endif
#ifndef C
#define C 1		/* stops */
#endif
#ifndef D
#define D 1		/* deaths of something else */
#endif
#ifndef RETRIES
#define RETRIES 0
#endif

#define FREE	0
#define READY	1
#define TAKEN	2
#define DONE	3
#define CONDEMNED 4

/* Shared: words, each changed in one d_step. */
byte state[S], gen[S], seat[S];
byte payload[S];	/* whose result lies there: a generation + 1 */

/* The kernel. */
bit byte_sent[W];	/* in the socket of the process that sits there */
bit ended[W], start[W];

/* The owner's table. */
byte expected[S];		/* the slot's generation */
byte job[S];		/* task + 1; 0: free, or answered already */
bit published[S];
byte submitted;

/* Ghosts. */
bit answered[T];
byte doomed[W];		/* what the byte is meant for: slot + 1 */
byte doomed_gen[W];
byte has[W], has_gen[W];	/* what the process runs: slot + 1 */
byte stops, deaths, retries;

#define IS(i, s, g)	(state[i] == s && gen[i] == g)
#if S == 1
#define ANY_SLOT(x)	(x(0))
#else
#define ANY_SLOT(x)	(x(0) || x(1))
#endif
#define IS_OUT(i)	published[i]

#define HOLD	has[_pid] = i + 1; has_gen[_pid] = g

active [W] proctype worker()
{
	byte i, g;

	do
	:: {
		skip;
end_idle:	if
		:: d_step { state[0] == READY -> i = 0; g = gen[0];
			state[0] = TAKEN; seat[0] = _pid; HOLD }
#if S > 1
		:: d_step { state[1] == READY -> i = 1; g = gen[1];
			state[1] = TAKEN; seat[1] = _pid; HOLD }
#endif
		fi;
		/* It writes its result: the slot must be its own. */
		d_step { assert(gen[i] == g && seat[i] == _pid && published[i]);
			payload[i] = g + 1 };
#ifdef COMPLETE_BLINDLY
		d_step { state[i] = DONE; has[_pid] = 0 };
		goto end_idle;
#else
		if
		:: d_step { IS(i, TAKEN, g) && seat[i] == _pid -> state[i] = DONE; has[_pid] = 0 }
			goto end_idle
		:: !(IS(i, TAKEN, g) && seat[i] == _pid)
		fi;
#ifdef STAYS
		has[_pid] = 0;
		goto end_idle;
#endif
#endif
		d_step { has[_pid] = 0; ended[_pid] = 1 };
		false
	} unless { d_step { ended[_pid] -> i = 0; g = 0; has[_pid] = 0 } };
end_dead:	d_step { start[_pid] -> start[_pid] = 0; ended[_pid] = 0 }
	od
}

/* Within a d_step, up to reap. */
inline answer(slot)
{
	if
	:: job[slot] ->
		assert(!answered[job[slot] - 1]);
		answered[job[slot] - 1] = 1;
		job[slot] = 0
	:: else
	fi
}

inline free_slot(slot)
{
	published[slot] = 0;
	expected[slot]++;
	job[slot] = 0
}

inline publish(slot)
{
	assert(job[slot]);
	/* The word is left as it is until now. */
	gen[slot] = expected[slot]; seat[slot] = 0; payload[slot] = 0;
	state[slot] = READY;
	published[slot] = 1
}

inline submit(slot)
{
	submitted++;
	job[slot] = submitted;
	publish(slot)
}

/* Reads the seat, condemns, kills: three steps, the lock held. */
#define STOP(slot) \
	:: d_step { stops < C && published[slot] && job[slot] && \
		IS(slot, TAKEN, expected[slot]) -> x = seat[slot]; stops++ } \
		condemn(slot)

inline condemn(slot)
{
#ifdef KILL_FIRST
	d_step { doomed[x] = slot + 1; doomed_gen[x] = expected[slot]; byte_sent[x] = 1 };
#endif
	if
	:: d_step { IS(slot, TAKEN, expected[slot]) && seat[slot] == x ->
#ifndef KILL_UNCONDEMNED
		state[slot] = CONDEMNED;
#endif
		doomed[x] = slot + 1; doomed_gen[x] = expected[slot];
#ifdef JOB_KEPT
		answered[job[slot] - 1] = 1
#else
		answer(slot)
#endif
#ifdef FREE_AT_ONCE
		; free_slot(slot)
#endif
		}
		byte_sent[x] = 1
	:: !(IS(slot, TAKEN, expected[slot]) && seat[slot] == x)
	fi;
	x = 0
}

inline collect(slot)
{
	answer(slot);
	free_slot(slot)
}

#ifdef RETRY_CONDEMNED
#define JOB_OF(slot)	true
#else
#define JOB_OF(slot)	job[slot]
#endif

/* A dead worker held it. */
inline end_lost(slot, s)
{
	if
	:: published[slot] && seat[slot] == s && gen[slot] == expected[slot] && state[slot] != READY ->
		if
		:: state[slot] != DONE && JOB_OF(slot) && retries < RETRIES ->
			retries++;
			expected[slot]++;
			publish(slot)
		:: else -> collect(slot)
		fi
	:: else
	fi
}

/* Words of a dead worker change no more; the seat is free only then. */
inline reap(s)
{
	d_step { end_lost(0, s)
#if S > 1
		; end_lost(1, s)
#endif
	};
	d_step {
#ifndef KILL_BY_SEAT
		byte_sent[s] = 0;
#endif
		doomed[s] = 0; start[s] = 1
	}
}

/* The byte hits whatever the process does by then. */
#define HIT(s) \
	:: d_step { byte_sent[s] && !ended[s] -> \
		assert(!has[s] || doomed[s] == has[s] && doomed_gen[s] == has_gen[s]); \
		byte_sent[s] = 0; ended[s] = 1 }

active proctype kernel()
{
end:	do
	HIT(0)
#if W > 1
	HIT(1)
#endif
	od
}

#define COLLECT(slot) \
	:: d_step { published[slot] && IS(slot, DONE, expected[slot]) -> \
		assert(payload[slot] == gen[slot] + 1); collect(slot) }

#define SUBMIT(slot) \
	:: d_step { submitted < T && !published[slot] -> submit(slot) }

#define ATTEND(s) \
	:: d_step { deaths < D && !ended[s] -> ended[s] = 1; deaths++ } \
	:: ended[s] && !start[s] -> reap(s)

active proctype owner()
{
	byte x;

	do
	SUBMIT(0)
	COLLECT(0)
	STOP(0)
#if S > 1
	SUBMIT(1)
	COLLECT(1)
	STOP(1)
#endif
	ATTEND(0)
#if W > 1
	ATTEND(1)
#endif
	:: submitted == T && !ANY_SLOT(IS_OUT) -> break
	od;
	assert(answered[0] && answered[1] && answered[T - 1])
}

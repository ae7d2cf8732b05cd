/* SPDX-License-Identifier: MIT */
/*
 * The life of a task and the bells, with a death possible between any two
 * atomic steps of a worker. Stands for src/ring.c as a whole, find_task,
 * await_task and sleep_until_rung of src/worker.c, the sleeping owner of
 * src/engine.c and src/sleep.c, and the six steps of a death (reap in
 * src/engine.c) but for blocks.
 * README.md says what is left out, which steps are
 * merged and why that is sound. -DNAME seeds a fault; run.sh has the list.
 */

#ifndef W
#define W 2		/* seats, at most 3 */
#endif
#ifndef S
#define S 2		/* task words, at most 3 */
#endif
#ifndef T
#define T 3		/* tasks submitted */
#endif
#ifndef R
#define R 4		/* entries of the ready ring */
#endif
#ifndef D
#define D 1		/* deaths */
#endif
#ifndef V
#define V W		/* seats that may die: the first V */
#endif
#ifndef C
#define C 1		/* cancels */
#endif
#ifndef GENS
#define GENS 8		/* generations before they come round: here, never */
#endif

#define FREE	0
#define READY	1
#define TAKEN	2
#define DONE	3

#define AWAKE	0
#define ASLEEP	1
#define RUNG	2

#define NOBODY	W

/* Shared memory. A word is three arrays, always changed in one d_step. */
byte state[S], gen[S], seat[S];
byte next[S];		/* done list: slot + 1, 0 ends it */
byte list;
byte ring_slot[R], ring_gen[R];
byte head, tail;
byte spinner;		/* seat + 1, 0 for none */
byte idle;		/* bitmap of seats */
byte bell[W];
byte owner_bell;
bit closing;

/* The kernel. */
bit waiting[W];		/* in futex_wait */
bit bell_pipe;
bit killed[W];
bit start[W];		/* a replacement is forked into the seat */

/* The owner's private table, and ghosts for the assertions. */
byte expected[S];		/* generation; the slot's task is unanswered while out */
bit out[S];
byte submitted, answered, cancelled, deaths;
bit gone[W];		/* left, or dead and not replaced */
byte holds[W];		/* slot + 1 that a worker believes to hold */

#define IS(i, s, g)	(state[i] == s && gen[i] == g)

/* Spin has no "for all" in a guard, so these are written out. */
#if S == 1
#define ANY_SLOT(x)	(x(0))
#elif S == 2
#define ANY_SLOT(x)	(x(0) || x(1))
#else
#define ANY_SLOT(x)	(x(0) || x(1) || x(2))
#endif
#if W == 1
#define ANY_SEAT(x)	(x(0))
#elif W == 2
#define ANY_SEAT(x)	(x(0) || x(1))
#else
#define ANY_SEAT(x)	(x(0) || x(1) || x(2))
#endif
#define SLOT_READY(i)	(state[i] == READY)
#define SLOT_FREE(i)	(!out[i])
#define SLOT_OUT(i)	(out[i])
#define SEAT_FREE(s)	(!gone[s] && !holds[s])
#define SEAT_HERE(s)	(!gone[s])
#define MORTAL(s)	(s < V && deaths < D && !gone[s])

#ifdef NO_GENERATION
#define CLAIMABLE(i, g)	(state[i] == READY)
#else
#define CLAIMABLE(i, g)	IS(i, READY, g)
#endif

/* Nobody touches the word or the link of a task that has been collected. */
#define STILL_MINE	(IS(i, DONE, g) && seat[i] == _pid && out[i])

/* Some seat whose bit is set; NOBODY when there is none. */
inline pick_sleeper(s)
{
	if
	:: idle & 1 -> s = 0
	:: idle & 2 -> s = 1
	:: idle & 4 -> s = 2
	:: idle == 0 -> s = NOBODY
	fi
}

/* Is a READY task between head and tail? */
#define IN_RING(k)	(head + k < tail && \
	IS(ring_slot[(head + k) % R], READY, ring_gen[(head + k) % R]))
#if R == 2
#define LOOK	(IN_RING(0) || IN_RING(1))
#else
#define LOOK	(IN_RING(0) || IN_RING(1) || IN_RING(2) || IN_RING(3))
#endif

/*
 * FINE takes accesses to memory one by one, without it some are merged of
 * which README.md argues that nobody can notice.
 */
#ifdef FINE
#define THEN	}; d_step { /* one step ends, another begins */
#define FORGET
#else
#define THEN
#define FORGET	ring_slot[h % R] = 0; ring_gen[h % R] = 0;
#endif

inline move_head()
{
	if
	:: head == h -> FORGET head = h + 1
	:: else
	fi;
	h = 0
}

inline claim_bit(s)
{
	d_step {
		pick_sleeper(s);
		THEN
		if
		:: s != NOBODY -> idle = idle & ~(1 << s)
		:: else
		fi
	}
}

inline complete()
{
	d_step {
		assert(IS(i, TAKEN, g) && seat[i] == _pid && out[i]);
		state[i] = DONE; holds[_pid] = 0; fresh = 0
	}
}

inline push_done()
{
#ifdef FINE
	d_step { assert(STILL_MINE); next[i] = list };
	do
	:: d_step { list == next[i] -> assert(STILL_MINE); list = i + 1 }
		break
	:: d_step { list != next[i] -> assert(STILL_MINE); next[i] = list }
	od
#else
	d_step { assert(STILL_MINE); next[i] = list; list = i + 1 }
#endif
}

active [W] proctype worker()
{
	byte h, i, g;		/* the take, and the task held */
	byte s = NOBODY;	/* the seat being rung */
	bit spin;
	bit fresh = 1;		/* was idle: may have consumed a ring meant for others */

	do
	:: {
		skip;
take:		if
		:: d_step { head != tail -> h = head;
			THEN
			i = ring_slot[h % R]; g = ring_gen[h % R] }
		:: head == tail -> goto nothing
		fi;
#ifdef HEAD_FIRST
		d_step { if :: head == h -> head = h + 1 :: else fi };
#endif
		if
		:: d_step { CLAIMABLE(i, g) ->
			state[i] = TAKEN; gen[i] = g; seat[i] = _pid;
			assert(out[i] && g == expected[i] && !holds[_pid]);
			holds[_pid] = i + 1 }
		:: d_step { !CLAIMABLE(i, g) -> i = 0; g = 0;
			THEN
			move_head() }
			goto take
		fi;

#ifdef HANDOFF_SPINNER_ONLY
#define HANDS_ON	spin
#else
#define HANDS_ON	fresh
#endif
		if
		:: d_step { !spin && !HANDS_ON -> move_head() }
			goto work
		:: d_step { !spin && HANDS_ON -> move_head() }
		:: d_step { spin -> move_head() }
			d_step { spin = 0; spinner = 0 }
		fi;
#ifndef NO_HANDOFF
		if
		:: LOOK ->
			do
			:: spinner != 0 -> break
			:: spinner == 0 -> claim_bit(s);
				if
				:: s == NOBODY -> break
				:: d_step { s < W && bell[s] == ASLEEP -> bell[s] = RUNG }
					d_step { waiting[s] = 0; s = NOBODY }
					break
				:: d_step { s < W && bell[s] != ASLEEP -> s = NOBODY }
				fi
			od
		:: !LOOK
		fi;
#endif
work:		/* A short task, or one that outlasts whatever others may
		 * still take: work must not wait behind it while a seat sleeps. */
		if
		:: complete()
		:: true -> (!ANY_SLOT(SLOT_READY) || !ANY_SEAT(SEAT_FREE));
			complete()
		fi;
		push_done();
		if
		:: d_step { owner_bell == ASLEEP -> owner_bell = RUNG; i = 0; g = 0 }
			bell_pipe = 1
		:: d_step { owner_bell != ASLEEP -> i = 0; g = 0 }
		fi;
		goto take;

nothing:	if
		:: d_step { spin -> spin = 0; spinner = 0 }
		:: !spin && closing ->
#ifdef LEAVE_EARLY
			goto leave
#else
			if
			:: head == tail -> goto leave
			:: head != tail -> goto take
			fi
#endif
		:: d_step { !spin && !closing && spinner == 0 ->
			spinner = _pid + 1; spin = 1; fresh = 1 }
			goto take
		:: !spin && !closing	/* a worker spins, or this one was idle before */
		fi;

		bell[_pid] = ASLEEP;
		d_step { idle = idle | (1 << _pid); fresh = 1 };
#ifndef NO_RECHECK
		if
		:: LOOK || closing -> goto awake
		:: !LOOK && !closing
		fi;
#endif
		if
		:: bell[_pid] != ASLEEP
		:: d_step { bell[_pid] == ASLEEP -> waiting[_pid] = 1 }
			!waiting[_pid]
		fi;
awake:		bell[_pid] = AWAKE;
		idle = idle & ~(1 << _pid);
		goto take;

leave:		gone[_pid] = 1;
		goto left
	} unless { d_step { killed[_pid] ->
		h = 0; i = 0; g = 0; s = NOBODY; spin = 0; fresh = 1 } };

end_dead:	d_step { start[_pid] -> start[_pid] = 0; killed[_pid] = 0 }
	od;
left:	skip
}

/* Within a d_step: slot x has its one and only answer. */
inline answer(x)
{
	assert(out[x] && gen[x] == expected[x]);
	out[x] = 0;
	state[x] = FREE; seat[x] = 0; next[x] = 0;
	expected[x] = (expected[x] + 1) % GENS;
	gen[x] = expected[x];
	answered++
}

/* One exchange, then a walk over what nobody else can reach any more. */
inline empty_list()
{
	d_step {
		do
		:: list != 0 ->
			x = list - 1;
			assert(state[x] == DONE);
			list = next[x];
			answer(x)
		:: else -> break
		od;
		x = 0
	}
}

/* The words of a dead seat change no more, so one step for all of them. */
inline scan_seat(d)
{
	d_step {
		do
		:: x < S && state[x] == DONE && seat[x] == d -> answer(x); x++
		:: x < S && state[x] == TAKEN && seat[x] == d ->
			assert(holds[d] == x + 1);
			holds[d] = 0;
			answer(x); x++
		:: x < S && (state[x] < TAKEN || seat[x] != d) -> x++
		:: x == S -> break
		od;
		assert(holds[d] == 0);
		x = 0
	}
}

inline free_seat(d)
{
	idle = idle & ~(1 << d);
	d_step { if :: spinner == d + 1 -> spinner = 0 :: else fi };
	bell[d] = AWAKE
}

/* A ringer may have died between its swap and its wake: RUNG may sleep too. */
inline wake_seat(s)
{
	d_step {
		if
		:: bell[s] == ASLEEP -> bell[s] = RUNG; waiting[s] = 0
#ifndef NO_WAKE_RUNG
		:: bell[s] == RUNG -> waiting[s] = 0
#endif
		:: else
		fi
	}
}

inline wake_all()
{
	wake_seat(0)
#if W > 1
	; wake_seat(1)
#endif
#if W > 2
	; wake_seat(2)
#endif
}

/* Replace, unless nothing is left to do, or it fails and others still live. */
inline replace(d)
{
	if
	:: d_step { answered < T -> gone[d] = 0; start[d] = 1 }
	:: d_step { answered == T -> gone[d] = 1 }
#if W > 1
	:: d_step { answered < T && !gone[(d + 1) % W] -> gone[d] = 1 }
#endif
	fi
}

inline reap(d)
{
#ifdef FREE_SEAT_FIRST
	free_seat(d);
	replace(d);
#endif
#ifdef SCAN_BEFORE_EMPTYING
	scan_seat(d);
	empty_list()
#else
	empty_list();
	scan_seat(d)
#endif
#ifndef FREE_SEAT_FIRST
	; free_seat(d)
#endif
#ifdef RERING_IF_READY
	; if
	:: ANY_SLOT(SLOT_READY) -> wake_all()
	:: else
	fi
#else
#ifndef NO_RERING
	; wake_all()
#endif
#endif
#ifndef FREE_SEAT_FIRST
	; replace(d)
#endif
}

#define KILL(s)	d_step { MORTAL(s) -> \
	killed[s] = 1; start[s] = 0; waiting[s] = 0; deaths++ }

/* The ring may be full of entries whose tasks are long gone: step over them. */
#define ROOM	(tail - head < R || !IS(ring_slot[head % R], READY, ring_gen[head % R]))

inline publish()
{
	d_step {
		if
		:: tail - head == R -> h = head; move_head()
		:: else
		fi;
		do
		:: out[x] -> x++
		:: else -> break
		od;
		assert(state[x] == FREE);
		out[x] = 1; submitted++;
		state[x] = READY;
		ring_slot[tail % R] = x; ring_gen[tail % R] = expected[x];
		x = 0;
		THEN
		tail++
	};
	do
	:: spinner != 0 -> break
	:: spinner == 0 -> claim_bit(s);
		if
		:: s == NOBODY -> break
		:: d_step { s < W && bell[s] == ASLEEP -> bell[s] = RUNG;
			THEN
			waiting[s] = 0; s = NOBODY }
			break
		:: d_step { s < W && bell[s] != ASLEEP -> s = NOBODY }
		fi
	od
}

#ifdef CLOSE_EARLY
#define MAY_CLOSE	(submitted == T)
#else
#define MAY_CLOSE	(answered == T)
#endif

/*
 * The threads of the owner, one process because of their mutex. It may sleep
 * whenever an answer is outstanding. What other threads do while one sleeps
 * has nothing to do with the owner's bell, so it is done by the awake owner:
 * else a cancel or a close that may still come would hide a lost wake-up.
 */
active proctype owner()
{
	byte s = NOBODY, x, h;

	do
	:: submitted < T && ANY_SLOT(SLOT_FREE) && ROOM -> publish()
	:: d_step { cancelled < C && state[0] == READY -> cancelled++; answer(0) }
#if S > 1
	:: d_step { cancelled < C && state[1] == READY -> cancelled++; answer(1) }
#endif
#if S > 2
	:: d_step { cancelled < C && state[2] == READY -> cancelled++; answer(2) }
#endif
	:: MAY_CLOSE && !closing -> closing = 1; wake_all()
	:: list != 0 -> empty_list()
	:: KILL(0) reap(0)
#if W > 1
	:: KILL(1) reap(1)
#endif
#if W > 2
	:: KILL(2) reap(2)
#endif
	:: list == 0 && answered < submitted ->
		owner_bell = ASLEEP;
#ifndef NO_OWNER_RECHECK
		if
		:: list != 0
		:: else -> (bell_pipe || ANY_SEAT(MORTAL))
		fi;
#else
		(bell_pipe || ANY_SEAT(MORTAL));
#endif
		owner_bell = AWAKE;
		bell_pipe = 0
	:: answered == T && closing && !ANY_SEAT(SEAT_HERE) -> break
	od;
	assert(submitted == T && list == 0 && !ANY_SLOT(SLOT_READY) && !ANY_SLOT(SLOT_OUT))
}

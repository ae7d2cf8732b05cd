/* SPDX-License-Identifier: MIT */
/*
 * Collecting handed on: the threads of an owner that wait at the same time,
 * the helper, and workers that end tasks and ring. Stands for waiting
 * (src/wait.c; in src/engine.c and src/sleep.c all but event loops, copies and
 * the audit), for the helper of src/helper.c, and for the
 * bell's part of ac__done_push (src/ring.c), with a worker's death at any of
 * its steps. Workers never sleep here: that is task.pml. The audit is left out,
 * so nothing may need it. What waits for a turn is one queue, and the window
 * is S slots. -DNAME seeds a fault, run.sh has the list.
 *
 * Deadlock is what is looked for: a thread that sleeps on, a task that stays
 * queued beside an idle worker, a callback never called. Asserted: never two
 * collect, and what is on the done list is DONE.
 *
 * What a thread U0, U1, U2 does:
 *	CALL	submit and wait without letting the lock go	ac_pool_call
 *	WAIT	submit, then wait				ac_task_wait
 *	FIRE	submit only
 *	LONG	the same; the task outlasts all others
 *	BACK	submit with a callback
 *	LIMIT	submit what never ends by itself but has a time limit
 *	PATIENT	wait for a task that outlasts all other threads
 *	JOIN	wait until all that was submitted is over	ac_pool_join
 */

#define NOTHING	0
#define CALL	1
#define WAIT	2
#define FIRE	3
#define LONG	4
#define BACK	5
#define LIMIT	6
#define JOIN	7
#define PATIENT	8

#ifndef U0
#define U0 CALL
#endif
#ifndef U1
#define U1 CALL
#endif
#ifndef U2
#define U2 NOTHING
#endif
#if U2 == NOTHING
#define N 2		/* threads beside the helper, and tasks: one each */
#else
#define N 3
#endif
#ifndef W
#define W 1		/* workers */
#endif
#ifndef S
#define S 3		/* slots: what is beyond waits in the owner's memory */
#endif
#ifndef D
#define D 0		/* deaths, of any worker */
#endif
#ifndef NAPS
#define NAPS 1		/* waits that may end before what they wait for */
#endif
#ifndef STARTS
#define STARTS 0	/* times the lock is given up to start a worker */
#endif

#define NEVER	0	/* of a task */
#define QUEUED	1
#define READY	2
#define TAKEN	3
#define DONE	4
#define ENDED	5

#define AWAKE	0
#define ASLEEP	1
#define RUNG	2

#define ALL	255	/* below: every result is reason to ring */
#define NONE	254	/* none is */
#ifndef FEW
#define FEW	W	/* refill_below: fewer than W - 1 would be too late */
#endif

/* Shared with the workers. */
byte state[N];
bit listed[N];		/* the done list */
bit behind[N];		/* taken, and the head not moved yet */
byte holder[N];
byte ring;		/* entries between head and tail */
byte bell, ring_below;
bit bell_pipe;

/* The kernel. */
bit death;		/* the tag of a death is ready, until it is reaped */
bit killed[W], start[W];
bit passed;		/* the time limit has */

/* The owner's, under the lock. */
bit locked;
bit collecting, until;	/* until: the collecting thread wakes at the limit */
byte collector;
byte sleepers, sleeper[N + 1];	/* the last to come is the first */
bit woken[N + 1];
byte out;		/* slots in use */
byte first_callback, callbacks;
bit limited;		/* a task with a limit is out */

/* Ghosts. */
bit gone[N];
byte naps, deaths, starts;

#define HELPER_ID	N
#define KIND(u)		(u == 0 -> U0 : (u == 1 -> U1 : U2))
#if N == 2
#define ALL_OF(x)	(x(0) && x(1))
#define ANY_OF(x)	(x(0) || x(1))
#else
#define ALL_OF(x)	(x(0) && x(1) && x(2))
#define ANY_OF(x)	(x(0) || x(1) || x(2))
#endif
#define IS_GONE(u)	gone[u]
#define IS_THROUGH(u)	(gone[u] || KIND(u) == PATIENT)
/* What nobody waits for may stay DONE, as long as it lets others run. */
#define IS_ENDED(t)	(state[t] == ENDED || KIND(t) == JOIN || \
	state[t] == DONE && KIND(t) != BACK)
#define IS_PAST(t)	(state[t] == ENDED || state[t] == NEVER)
#define IS_SHORT_PAST(t) (IS_ENDED(t) || KIND(t) == LONG || KIND(t) == PATIENT)
#define IS_QUEUED(t)	(state[t] == QUEUED)
#define IS_LISTED(t)	listed[t]
#define QUEUE		ANY_OF(IS_QUEUED)
#define LISTED		ANY_OF(IS_LISTED)
#define QUIET		(ALL_OF(IS_GONE) && ALL_OF(IS_ENDED) && callbacks == 0)
#ifdef HELPER
#define MAY_END_LONG	(ALL_OF(IS_THROUGH) && ALL_OF(IS_SHORT_PAST) && callbacks == 0)
#else
#define MAY_END_LONG	ALL_OF(IS_THROUGH)
#endif

/* is_over(arg) of thread p */
#define OVER(p)	(p == HELPER_ID && first_callback > 0 || \
	p < N && KIND(p) == JOIN && ALL_OF(IS_PAST) && callbacks == 0 || \
	p < N && KIND(p) != JOIN && state[p] == ENDED)

#define LOCK	d_step { !locked -> locked = 1 }
#define UNLOCK	locked = 0

/* ring_below of src/engine.c */
#define HELPER_BELOW	(callbacks -> ALL : (QUEUE -> FEW : NONE))

/* Within a d_step. */
inline end(t)
{
	state[t] = ENDED;
	out--;
	if
	:: KIND(t) == BACK -> first_callback++
	:: else
	fi
}

/* ac__slots_collect */
inline collect()
{
	d_step {
		do
		:: x < N && listed[x] ->
			assert(state[x] == DONE);
			listed[x] = 0;
			end(x); x++
		:: x < N && !listed[x] -> x++
		:: x == N -> break
		od;
		x = 0
	}
}

/* end_overdue of src/engine.c */
inline check_limits()
{
	d_step {
		do
		:: limited && passed && x < N && KIND(x) == LIMIT -> limited = 0; end(x)
		:: !(limited && passed && x < N && KIND(x) == LIMIT) && x < N -> x++
		:: x == N -> break
		od;
		x = 0
	}
}

inline publish(t)
{
	out++;
	if
	:: KIND(t) == LIMIT -> state[t] = TAKEN; holder[t] = 255; limited = 1
	:: else -> state[t] = READY; ring++
	fi
}

/* ac__slots_refill */
inline refill()
{
	do
	:: d_step { out < S && QUEUE ->
		do
		:: state[x] == QUEUED -> break
		:: else -> x++
		od;
		publish(x);
		x = 0 }
	:: d_step { out == S || !QUEUE } -> break
	od
}

/* ac__sleep_wake_finished */
inline wake_finished()
{
	d_step {
#ifndef NO_WAKE_SLEEPERS
		do
		:: x < sleepers && OVER(sleeper[x]) -> woken[sleeper[x]] = 1; x++
		:: x < sleepers && !OVER(sleeper[x]) -> x++
		:: x >= sleepers -> break
		od;
		x = 0;
#endif
#ifndef NO_WAKE_COLLECTOR
		if
		:: collecting && OVER(collector) -> bell_pipe = 1
		:: else
		fi
#else
		skip
#endif
	}
}

/* ac__engine_advance */
inline advance()
{
	collect();
	check_limits();
	refill();
	wake_finished()
}

/* Within a d_step. */
inline hand_on()
{
#ifndef NO_HAND_ON
	if
#ifdef HAND_ON_IF_COLLECTED
	:: collected && !collecting && sleepers > 0 -> woken[sleeper[0]] = 1
#else
	:: !collecting && sleepers > 0 -> woken[sleeper[0]] = 1
#endif
	:: else
	fi
#else
	skip
#endif
}

/* Where the user's function starts a replacement the lock is released. The code does it in
 * ac__engine_advance; here it is in next_time, too, just before the thread sleeps. */
inline start_worker()
{
	if
	:: starts < STARTS -> d_step { starts++; UNLOCK }; LOCK
	:: true
	fi
}

/* next_time: what is left of it here is whether there is a limit to wake for */
inline next_time()
{
	check_limits();
	start_worker();
	wake_finished()
}

/* ac__sleep_arm: quiet says that sleeping is right */
inline arm_bell(below)
{
	quiet = 1;
	if
	:: below == NONE
	:: below != NONE ->
		ring_below = below;
		bell = ASLEEP;
#ifndef NO_OWNER_RECHECK
		if
		:: LISTED ->
			if
			:: ring <= below -> quiet = 0
			:: ring > below
			fi
		:: !LISTED
		fi
#endif
	fi
}

/* ac__engine_changed */
inline changed()
{
	if
	:: collecting ->
#ifdef SLEEPERS_FORGOTTEN
		b = (collector != HELPER_ID -> ALL : HELPER_BELOW);
#else
#ifdef COLLECTOR_FORGOTTEN
		b = (sleepers -> ALL : HELPER_BELOW);
#else
		b = (sleepers || collector != HELPER_ID -> ALL : HELPER_BELOW);
#endif
#endif
		arm_bell(b);
		if
		:: !quiet || first_callback -> bell_pipe = 1
		:: quiet && !first_callback ->
			next_time();
#ifndef NO_SOONER
			if
			:: limited && !until -> bell_pipe = 1
			:: else
			fi
#endif
		fi
	:: !collecting
	fi;
	b = 0; quiet = 0
}

/* Within a d_step. */
inline remove_sleeper(p)
{
	do
	:: sleeper[x] == p -> break
	:: else -> x++
	od;
	do
	:: x < N -> sleeper[x] = sleeper[x + 1]; x++
	:: else -> break
	od;
	sleeper[N] = 0;
	sleepers--;
	x = 0
}

inline add_sleeper(p)
{
	x = N;
	do
	:: x > 0 -> sleeper[x] = sleeper[x - 1]; x--
	:: else -> break
	od;
	sleeper[0] = p;
	sleepers++
}

inline sleep_privately(p)
{
	d_step { woken[p] = 0; add_sleeper(p) };
#ifndef NO_CHANGED
	changed();
#endif
	UNLOCK;
	if
	:: woken[p] || nap
	:: p == HELPER_ID && QUIET -> goto done
	fi;
	LOCK;
	d_step { remove_sleeper(p) }
}

#define HELD_BY_DEAD(t)	((state[t] == TAKEN || state[t] == DONE) && \
	holder[t] < W && killed[holder[t]])

inline reap_dead()
{
	if
	:: tag_death ->
		collect();
		d_step {
			death = 0;
			/* The words of dead workers: DONE and not pushed, or TAKEN. */
			do
			:: x < N && HELD_BY_DEAD(x) ->
				ring = ring - behind[x]; behind[x] = 0;
				end(x); x++
			:: x < N && !HELD_BY_DEAD(x) -> x++
			:: x == N -> break
			od;
			x = 0;
			do
			:: x < W && killed[x] -> start[x] = 1; x++
			:: x < W && !killed[x] -> x++
			:: x == W -> break
			od;
			x = 0
		};
		start_worker()
	:: !tag_death
	fi;
	d_step { tag_death = 0 }
}

inline sleep_collecting(p)
{
	d_step {
		assert(!collecting);
		collecting = 1; collector = p; until = limited;
		b = (p == HELPER_ID && sleepers == 0 -> HELPER_BELOW : ALL)
	};
	arm_bell(b);
#ifdef DRAIN_ARMED
	bell_pipe = 0;
#endif
	if
	:: quiet ->
		UNLOCK;
		if
		:: d_step { bell_pipe || death || until && passed || nap ->
			tag_bell = bell_pipe; tag_death = death }
		:: p == HELPER_ID && QUIET -> goto done
		fi;
		LOCK
	:: !quiet
	fi;
	bell = AWAKE;
	d_step { collecting = 0; collector = 0; until = 0; b = 0; quiet = 0
#ifdef HAND_ON_IF_COLLECTED
		; collected = 1
#endif
	};
	if
	:: d_step { tag_bell -> bell_pipe = 0; tag_bell = 0 }
	:: !tag_bell
	fi;
	reap_dead()
}

/* wait_for of src/wait.c */
inline wait(p)
{
	do
	:: {
		advance();
		if
		:: OVER(p) || nap -> d_step { hand_on(); nap = 0 }; break
		:: !OVER(p) && !nap
		fi;
		/* ac__engine_spin */
		if
		:: !looked -> d_step { looked = 1; UNLOCK }; LOCK
		:: else ->
			if
			:: naps < NAPS && p != HELPER_ID -> d_step { naps++; nap = 1 }
			:: true
			fi;
			if
			:: collecting -> sleep_privately(p)
			:: !collecting ->
				next_time();
				if
#ifndef NO_LOOK_AGAIN
				:: collecting || OVER(p)
				:: !collecting && !OVER(p) -> sleep_collecting(p)
#else
				:: sleep_collecting(p)
#endif
				fi
			fi
		fi
	}
	od;
	skip
}

#ifdef HAND_ON_IF_COLLECTED
#define MINE	byte x, b; bit quiet, tag_bell, tag_death, nap, looked, collected
#else
#define MINE	byte x, b; bit quiet, tag_bell, tag_death, nap, looked
#endif

active [N] proctype user()
{
	MINE;

	LOCK;
	if
	:: KIND(_pid) != JOIN ->
		/* ac__task_admit */
		if
		:: out == S || QUEUE -> advance()
		:: out < S && !QUEUE
		fi;
		d_step {
			if
			:: out == S || QUEUE -> state[_pid] = QUEUED
			:: else -> publish(_pid)
			fi;
			if
			:: KIND(_pid) == BACK -> callbacks++
			:: else
			fi
		};
		/* ac__task_detach */
		if
		:: KIND(_pid) == BACK || KIND(_pid) == LIMIT ||
			KIND(_pid) != CALL && QUEUE -> changed()
		:: else
		fi;
		if
		:: KIND(_pid) == WAIT -> UNLOCK; LOCK
		:: KIND(_pid) != WAIT
		fi
	:: KIND(_pid) == JOIN
	fi;
	if
	:: KIND(_pid) == CALL || KIND(_pid) == WAIT || KIND(_pid) == JOIN ||
		KIND(_pid) == PATIENT -> wait(_pid)
	:: else
	fi;
	d_step { gone[_pid] = 1; UNLOCK };
done:	skip
}

#ifdef HELPER
active proctype helper()
{
	MINE;

	LOCK;
	do
	:: {
		looked = 1;
		wait(HELPER_ID);
		do
		:: d_step { first_callback > 0 -> first_callback--; UNLOCK };
			/* the callback runs */
			LOCK;
			callbacks--
		:: first_callback == 0 -> break
		od;
		wake_finished()
	}
	od;
done:	skip
}

/* Everything ends though nobody waits for it. */
active proctype promise()
{
	QUIET
}
#define FIRST_WORKER	(N + 2)
#else
#define FIRST_WORKER	N
#endif
#define ME	(_pid - FIRST_WORKER)

#define TAKE	state[t] = TAKEN; holder[t] = ME; behind[t] = 1

active [W] proctype worker()
{
	byte t, n;

	do
	:: {
		skip;
end_idle:	if
		:: d_step { state[0] == READY -> t = 0; TAKE }
		:: d_step { state[1] == READY -> t = 1; TAKE }
#if N > 2
		:: d_step { state[2] == READY -> t = 2; TAKE }
#endif
		fi;
		d_step { ring--; behind[t] = 0 };
		if
		:: KIND(t) == LONG || KIND(t) == PATIENT -> MAY_END_LONG
		:: KIND(t) != LONG && KIND(t) != PATIENT
		fi;
		state[t] = DONE;
		d_step { listed[t] = 1; t = 0 };
		if
		:: bell == ASLEEP ->
			n = ring;
			if
			:: n <= ring_below ->
				if
				:: d_step { bell == ASLEEP -> bell = RUNG; n = 0 }
					bell_pipe = 1
				:: d_step { bell != ASLEEP -> n = 0 }
				fi
			:: d_step { n > ring_below -> n = 0 }
			fi
		:: bell != ASLEEP
		fi;
		goto end_idle
	} unless { d_step { killed[ME] -> t = 0; n = 0 } };
end_dead:	d_step { start[ME] -> start[ME] = 0; killed[ME] = 0 }
	od
}

#if D > 0
active proctype killer()
{
	do
	:: deaths < D ->
		if
		:: d_step { !killed[0] -> killed[0] = 1; death = 1; deaths++ }
#if W > 1
		:: d_step { !killed[1] -> killed[1] = 1; death = 1; deaths++ }
#endif
		:: true -> break
		fi
	:: deaths == D -> break
	od
}
#endif

#if U0 == LIMIT || U1 == LIMIT || U2 == LIMIT
active proctype clock()
{
	limited -> passed = 1
}
#endif

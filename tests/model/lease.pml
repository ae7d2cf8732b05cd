/* SPDX-License-Identifier: MIT */
/*
 * The life of one block: a worker makes it, gives it back or hands it to the
 * owner as its task's result, others read it under leases, it becomes free
 * when all have let go, and is taken again. Any of them may die at any step.
 * Stands for give, pass, lease, unlease and reclaim in src/block.c, for
 * hand_over_result in src/call.c, and for steps 2 and 3 of a death in
 * src/engine.c. Free lists are hints and left out: a process that takes a block scans.
 *
 * A reader begins to lease while the block is held (that is for the caller to see
 * to); everything may change from there on. The store of a lease's entry has
 * a buffer, as in bell.pml; the rest are swaps, which drain it.
 *
 * Asserted: nobody frees what a living seat has leased, nobody gets a lease
 * on another generation than that it asked for, a result that is DONE is
 * there. At the end the block is free. -DNAME seeds a fault.
 */

#ifndef R
#define R 2		/* readers: seats 0 to R - 1; the maker is seat R */
#endif
#ifndef D
#define D 1		/* deaths */
#endif
#ifndef TURNS
#define TURNS 2		/* times that the block is taken */
#endif

#define FREE	0
#define HELD	1
#define SHARED	2
#define GONE	3

#define MAKER	1	/* holders */
#define TASK	2
#define OWNER	3

#define TAKEN	1	/* the task's word */
#define DONE	2
#define COLLECTED	3
#define CONDEMNED 4

/* The word; changed in one d_step. */
byte state = HELD, holder = MAKER, gen;
byte lease[R];		/* generation + 1 */
byte buffered[R];	/* the same, still on its way to memory */
byte task = TAKEN;

bit killed[R + 1];
bit gone[R + 1];	/* left, or reaped */
byte deaths, turns = 1;
byte reading[R + 1];	/* ghost: generation + 1 */

#define IS(s, h, g)	(state == s && holder == h && gen == g)
#define HELD_BY(h)	((state == HELD || state == SHARED) && holder == h)
#define LEASED_BY(r, g)	(lease[r] == g + 1)
#define READS(r)	(reading[r] == gen + 1)
#define MORTAL(s)	(deaths < D && !gone[s] && !killed[s])
#if R == 1
#define ANY_READER(x)	(x(0))
#else
#define ANY_READER(x)	(x(0) || x(1))
#endif
#if R == 1
#define ALL_GONE	(gone[0] && gone[1])
#else
#define ALL_GONE	(gone[0] && gone[1] && gone[2])
#endif

/* Within a d_step. */
inline set_free()
{
	assert(!ANY_READER(READS));
	state = FREE; holder = 0; gen++
}

/* free_if_unleased: the entries are read one after the other */
inline free_if_unleased(g)
{
	i = 0;
	do
	:: d_step { i < R && !LEASED_BY(i, g) -> i++ }
	:: d_step { i < R && LEASED_BY(i, g) -> i = R + 1 }
	:: d_step { i == R && IS(GONE, 0, g) -> set_free(); i = R + 1 }
	:: d_step { i == R && !IS(GONE, 0, g) -> i = R + 1 }
	:: d_step { i == R + 1 -> i = 0 }
		break
	od;
	skip
}

/* ac__block_give: what is SHARED only its holder changes, so one step sees and swaps it */
inline give(h)
{
	do
	:: d_step { state == HELD && holder == h -> seen = gen };
		if
		:: d_step { IS(HELD, h, seen) -> set_free() }
			break
		:: !IS(HELD, h, seen)
		fi
	:: d_step { state == SHARED && holder == h ->
#ifdef FREE_SHARED
		set_free() }
		break
#else
		state = GONE; holder = 0; seen = gen };
		free_if_unleased(seen);
		break
#endif
	:: !HELD_BY(h) -> break
	od;
	seen = 0
}

/* end_lease */
inline end_lease(r)
{
	d_step { buffered[r] == 0 -> lease[r] = 0 };
	if
	:: d_step { state == GONE -> seen = gen }
		free_if_unleased(seen)
	:: state != GONE
	fi;
	seen = 0
}

active [R] proctype reader()
{
	byte g, seen, i, h;

	{
		if
		:: d_step { state == HELD || state == SHARED -> g = gen }
		:: true -> goto leave
		fi;
#ifndef SHARED_FIRST
#ifdef PLAIN_ENTRY
		buffered[_pid] = g + 1;
#else
		lease[_pid] = g + 1;
#endif
#endif
look:		if
#ifdef NO_GENERATION
		:: state == SHARED -> goto mine
		:: d_step { state == HELD -> h = holder }
			if
			:: d_step { state == HELD && holder == h -> state = SHARED }
				goto mine
			:: !(state == HELD && holder == h) -> goto look
			fi
		:: state == FREE || state == GONE -> goto stale
#else
		:: state == SHARED && gen == g -> goto mine
		:: d_step { state == HELD && gen == g -> h = holder }
			if
			:: d_step { IS(HELD, h, g) && buffered[_pid] == 0 -> state = SHARED }
				goto mine
			:: !IS(HELD, h, g) -> goto look
			fi
#ifdef LEASE_GONE
		:: state == GONE && gen == g -> goto mine
		:: state == FREE || gen != g -> goto stale
#else
		:: state == FREE || state == GONE || gen != g -> goto stale
#endif
#endif
		fi;
mine:		skip;
#ifdef SHARED_FIRST
		lease[_pid] = g + 1;
#endif
		d_step { assert(gen == g && state != FREE); reading[_pid] = g + 1 };
		reading[_pid] = 0;
#ifdef UNLEASE_BLINDLY
		lease[_pid] = 0;
#else
		end_lease(_pid);
#endif
		goto leave;
stale:		skip;
#ifdef CLEAR_ONLY
		d_step { buffered[_pid] == 0 -> lease[_pid] = 0 };
#else
		end_lease(_pid);
#endif
leave:		gone[_pid] = 1
	} unless { d_step { killed[_pid] -> g = 0; seen = 0; i = 0; h = 0 } }
}

active proctype maker()
{
	byte seen, i;

	{
		if
		:: true -> give(MAKER)
		:: true ->
#ifdef DONE_BEFORE_PASS
			task = DONE;
#endif
			/* ac__block_pass; a lease may make it SHARED meanwhile */
			do
			:: d_step { state == HELD && holder == MAKER -> seen = HELD }
			:: d_step { state == SHARED && holder == MAKER -> seen = SHARED }
			:: d_step { seen && state == seen && holder == MAKER ->
				holder = TASK; seen = 0 }
				break
			od;
#ifndef DONE_BEFORE_PASS
			if
			:: d_step { task == TAKEN -> task = DONE }
			:: task == CONDEMNED
			fi
#endif
		fi;
		gone[R] = 1
	} unless { d_step { killed[R] -> seen = 0; i = 0 } }
}

#ifdef PLAIN_ENTRY
active [R] proctype buffer()
{
end:	do
	:: d_step { buffered[_pid - R - 1] -> lease[_pid - R - 1] = buffered[_pid - R - 1];
		buffered[_pid - R - 1] = 0 }
	od
}
#endif

inline sweep()
{
#ifndef NO_SWEEP
	if
	:: d_step { state == GONE -> seen = gen }
		free_if_unleased(seen); seen = 0
	:: state != GONE
	fi
#else
	skip
#endif
}

inline end_leases(s)
{
#ifndef NO_END_OF_LEASES
	if
	:: s < R -> buffered[s] = 0; end_lease(s)
	:: s == R
	fi
#else
	skip
#endif
}

/* Steps 2 and 3 of a death. */
inline reap(s)
{
	if
	:: s == R && task == DONE -> deliver()
	:: s == R && (task == TAKEN || task == CONDEMNED) ->
#ifndef NO_RECLAIM_OF_TASK
		give(TASK);
#endif
		task = COLLECTED
	:: s < R || task == COLLECTED
	fi;
	end_leases(s);
	if
	:: s == R -> give(MAKER)
	:: s < R
	fi;
	sweep();
	gone[s] = 1
}

/* take_result of src/task.c: the result is copied, or becomes the owner's and is given later. */
inline deliver()
{
	assert(HELD_BY(TASK));
	task = COLLECTED;
	give(TASK)
}

#define KILL(s)	d_step { MORTAL(s) -> killed[s] = 1; deaths++; reading[s] = 0 }

active proctype owner()
{
	byte seen, i;

	do
	:: task == DONE -> deliver()
	:: d_step { task == TAKEN && !gone[R] -> task = CONDEMNED }
	:: KILL(0); reap(0)
#if R > 1
	:: KILL(1); reap(1)
#endif
	:: KILL(R); reap(R)
	/* A worker that found its task condemned left; its end is seen like any other. */
	:: task == CONDEMNED && gone[R] -> reap(R)
	:: d_step { state == FREE && turns < TURNS -> state = HELD; holder = OWNER; turns++ }
	:: HELD_BY(OWNER) -> give(OWNER)
	:: ALL_GONE && !HELD_BY(OWNER) && task != DONE && task != CONDEMNED -> break
	od;
	assert(state == FREE)
}

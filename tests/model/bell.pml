/* SPDX-License-Identifier: MIT */
/*
 * Sleeping against waking with store buffers. Spin runs one access after the
 * other; a processor lets a store wait in its buffer while later loads go
 * ahead (total store order), and that is how wake-ups are lost. Each process
 * here has a buffer of two stores, which memory receives whenever it likes.
 *
 * OWNER	a worker pushes a result, the owner goes to sleep
 * SEAT		the owner publishes a task, a worker goes to sleep
 * LEAVE	the owner publishes a task and sees a spinner, which leaves the
 *		role with another task and sees nothing more; a third one sleeps
 *
 * Stands for B1 to B4 of src/bell.h, and R2, R4 and R5 of src/ring.h.
 *
 * -DPLAIN_ASLEEP, -DPLAIN_ENTRY, -DPLAIN_ROLE and -DPLAIN_BIT make that one
 * store an ordinary one; without them it drains the buffer (seq_cst).
 */

#define ITEMS	2

#define AWAKE	0
#define ASLEEP	1
#define RUNG	2

#define BELL	0		/* cells of memory */
#define WORK	1		/* results pushed, or entries of the ring */
#define BIT	2		/* the idle bitmap, of one seat */
#define ROLE	3		/* 1: a worker spins */

#ifdef LEAVE
byte mem[4] = { 0, 0, 0, 1 };
#else
byte mem[4];
#endif
byte cell[4], value[4];		/* two processes of two entries each */
byte used[2];
bit woken;			/* the pipe, or the futex's wake */

#define DRAINED	(used[_pid] == 0)

inline store(c, v)
{
	d_step { used[_pid] < 2 ->
		cell[2 * _pid + used[_pid]] = c;
		value[2 * _pid + used[_pid]] = v;
		used[_pid]++ }
}

inline load(c, v)
{
	d_step {
		if
		:: used[_pid] == 2 && cell[2 * _pid + 1] == c -> v = value[2 * _pid + 1]
		:: used[_pid] > 0 && cell[2 * _pid] == c &&
			!(used[_pid] == 2 && cell[2 * _pid + 1] == c) -> v = value[2 * _pid]
		:: else -> v = mem[c]
		fi
	}
}

/* A read-modify-write empties the buffer first, as a locked instruction does. */
#define RMW(c, v)	d_step { DRAINED -> mem[c] = v }
#define CAS(c, old, v)	d_step { DRAINED && mem[c] == old -> mem[c] = v }
#define CAS_FAILS(c, old)	(DRAINED && mem[c] != old)

/* What each mark makes ordinary. */
#ifdef PLAIN_ASLEEP
#define ASLEEP_SEEN	true
#else
#define ASLEEP_SEEN	DRAINED
#endif
#ifdef PLAIN_ENTRY
#define ENTRY_SEEN	true
#else
#define ENTRY_SEEN	DRAINED
#endif
#ifdef PLAIN_ROLE
#define ROLE_SEEN	true
#else
#define ROLE_SEEN	DRAINED
#endif
#ifdef PLAIN_BIT
#define SET_BIT(v)	store(BIT, v)
#else
#define SET_BIT(v)	RMW(BIT, v)
#endif

/* Processes 0 and 1 are the sleeper and the ringer, 2 and 3 their buffers. */
#ifdef OWNER
active proctype sleeper()
{
	byte got, v;

	do
	:: got == ITEMS -> break
	:: got < ITEMS -> load(WORK, v);
		if
		:: v != 0 -> d_step { DRAINED -> got = got + mem[WORK]; mem[WORK] = 0 };
			v = 0
		:: else ->
			store(BELL, ASLEEP);
			ASLEEP_SEEN;
			load(WORK, v);
			if
			:: v == 0 -> DRAINED && woken	/* poll */
			:: else
			fi;
			store(BELL, AWAKE);
			d_step { DRAINED -> woken = 0 }	/* read the pipe */
		fi
	od
}

active proctype ringer()
{
	byte n, v;

	do
	:: n == ITEMS -> break
	:: n < ITEMS -> n++;
		d_step { DRAINED -> mem[WORK] = mem[WORK] + 1 };
		load(BELL, v);
		if
		:: v == ASLEEP ->
			if
			:: CAS(BELL, ASLEEP, RUNG) woken = 1
			:: CAS_FAILS(BELL, ASLEEP)
			fi
		:: else
		fi
	od
}
#endif

#if defined(SEAT) || defined(LEAVE)
active proctype sleeper()
{
	byte got, v;

#ifdef LEAVE
	/* The spinner has a task: it leaves the role, then looks for more. */
	store(ROLE, 0);
	ROLE_SEEN;
	load(WORK, v);
	if
	:: v > 0 -> woken = 1
	:: else
	fi
#else
	do
	:: got == ITEMS -> break
	:: got < ITEMS -> load(WORK, v);
		if
		:: v > got -> got++
		:: else ->
			store(BELL, ASLEEP);
			ASLEEP_SEEN;
			SET_BIT(1);
			load(WORK, v);
			if
			:: v > got
			:: v == got ->
				if
				:: d_step { DRAINED && mem[BELL] == ASLEEP -> woken = 0 }
					woken			/* futex_wait */
				:: CAS_FAILS(BELL, ASLEEP)
				fi
			fi;
			store(BELL, AWAKE);
			SET_BIT(0)
		fi
	od
#endif
}

active proctype ringer()
{
	byte n, v;

#ifdef LEAVE
	store(WORK, 1);
	ENTRY_SEEN;
	load(ROLE, v);
	if
	:: v == 0 -> woken = 1
	:: else
	fi
#else
	do
	:: n == ITEMS -> break
	:: n < ITEMS -> n++;
		store(WORK, n);
		ENTRY_SEEN;
		load(BIT, v);
		if
		:: v == 1 -> RMW(BIT, 0);
			if
			:: CAS(BELL, ASLEEP, RUNG) woken = 1
			:: CAS_FAILS(BELL, ASLEEP)
			fi
		:: else
		fi
	od
#endif
}
#endif

/* Memory takes the oldest store of a buffer. */
active [2] proctype buffer()
{
end:	do
	:: d_step { used[_pid - 2] > 0 ->
		mem[cell[2 * (_pid - 2)]] = value[2 * (_pid - 2)];
		cell[2 * (_pid - 2)] = cell[2 * (_pid - 2) + 1];
		value[2 * (_pid - 2)] = value[2 * (_pid - 2) + 1];
		cell[2 * (_pid - 2) + 1] = 0;
		value[2 * (_pid - 2) + 1] = 0;
		used[_pid - 2]-- }
	od
}

#ifdef LEAVE
/* Asleep from the start, its bit set; the role is held from the start too. */
active proctype third()
{
	woken
}
#endif

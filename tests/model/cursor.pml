/* SPDX-License-Identifier: MIT */
/*
 * Divided work: a worker claims steps of a task's cursor, the owner takes back
 * what nobody has begun by moving the cursor's end, and both may meet a death
 * or a failure. Stands for claim_items, run_items and run_chunk in src/call.c,
 * ac__slots_take_back in src/slots.c, ac__cut_take in src/cut.c, put_back and
 * collect_piece in src/map.c; with -DUNITS for calls pushed with units:
 * ac_call_next_unit, ac_stream_take_back (src/stream.c), rewrite_task and
 * collect_piece (src/task.c). Words and wake-ups are task.pml's: here a piece is given to a
 * worker that has none.
 *
 * Asserted: no item is begun twice (but for a retry), none is reported as done
 * that did not run, each is answered exactly once, and all are at the end. With
 * -DUNITS each call keeps one unit at least.
 * -DNAME seeds a fault.
 */

#ifndef N
#define N 4		/* items, or units of the first call */
#endif
#define W 2		/* workers, each with one piece at most */
#ifndef D
#define D 1		/* deaths */
#endif
#ifndef F
#define F 1		/* items, or calls, that fail */
#endif
#ifndef B
#define B 2		/* times that the owner takes back */
#endif
#ifndef RETRIES
#define RETRIES 0
#endif

#define NONE	0
#define TAKEN	1
#define DONE	2
#define FAILED	3

/* Shared: of each worker the task that it holds. */
byte word[W];
byte next[W], end[W];	/* the cursor: one word, changed in one d_step */
byte current[W];	/* items that have ended */

bit killed[W], start[W];

/* The owner's table. */
byte first[W], count[W], mine_end[W];
bit todo[N];		/* never cut, or put back */

/* Ghosts. */
bit begun[N], ran[N], answered[N];
byte deaths, failures, backs, retries;

#define ME	_pid
#define AT(i)	(first[ME] + i)

/* Claims n from c on; n is 0 when nothing is left. */
inline claim(step)
{
	do
	:: d_step { c = next[ME]; e = end[ME] };
		if
		:: c >= e -> n = 0; break
		:: c < e ->
			d_step { n = (step < e - c -> step : e - c) };
			if
#ifdef CLAIM_BLINDLY
			:: d_step { next[ME] = c + n; end[ME] = e; e = 0 }
				break
#else
			:: d_step { next[ME] == c && end[ME] == e -> next[ME] = c + n; e = 0 }
				break
			:: next[ME] != c || end[ME] != e
#endif
			fi
		fi
	od;
	skip
}

active [W] proctype worker()
{
	byte c, e, n;
	bit some;

	do
	:: {
		skip;
end_idle:	word[ME] == TAKEN;
		do
		/* Soon to be recycled, it leaves the rest of a chunk; a call may not
		 * care for all of its units. */
		:: some -> break
		:: true ->
			/* Its pace says how many. */
			if
			:: true -> claim(1)
			:: true -> claim(2)
			fi;
			if
			:: n == 0 -> break
			:: n > 0
			fi;
			do
			:: n > 0 ->
				d_step {
					assert(!begun[AT(c)]);
					begun[AT(c)] = 1; some = 1
				};
				if
				:: d_step { failures < F -> failures++; c = 0; e = 0; n = 0; some = 0 }
					word[ME] = FAILED;
					goto end_idle
				:: true
				fi;
#ifdef CURRENT_FIRST
				current[ME] = c + 1;
				ran[AT(c)] = 1;
#else
				ran[AT(c)] = 1;
				current[ME] = c + 1;
#endif
				d_step { c++; n-- }
			:: n == 0 -> break
			od
		od;
		skip;
		d_step { c = 0; e = 0; n = 0; some = 0; word[ME] = DONE };
		goto end_idle
	} unless { d_step { killed[ME] -> c = 0; e = 0; n = 0; some = 0 } };
end_dead:	d_step { start[ME] -> start[ME] = 0; killed[ME] = 0 }
	od
}

/* Within a d_step, all of these. */
inline answer(which)
{
	assert(!answered[which]);
	answered[which] = 1
}

inline put_back(from, to)
{
	i = from;
	do
	:: i < to -> assert(!todo[i] && !answered[i]); todo[i] = 1; i++
	:: else -> break
	od;
	i = 0
}

/* A range of what is to be cut: one item, or as many as lie together. */
inline cut(w, most)
{
	i = 0;
	do
	:: todo[i] -> break
	:: else -> i++
	od;
	first[w] = i; count[w] = 0;
	do
	:: i < N && count[w] < most && todo[i] -> todo[i] = 0; count[w]++; i++
	:: else -> break
	od;
	mine_end[w] = count[w];
	next[w] = 0; end[w] = count[w]; current[w] = 0;
	word[w] = TAKEN;
	i = 0
}

#ifdef LEAST_FORGOTTEN
#define LEAST	0
#else
#ifdef UNITS
#define LEAST	1
#else
#define LEAST	0
#endif
#endif

inline take_back(w)
{
	backs++;
	do
	:: d_step { c = next[w]; e = end[w]; x = (c > LEAST -> c : LEAST) };
		if
		:: x >= e -> break
		:: else ->
			if
#ifdef TAKE_BACK_BLINDLY
			:: d_step { next[w] = c; end[w] = x;
#else
			:: next[w] != c || end[w] != e
			:: d_step { next[w] == c && end[w] == e -> end[w] = x;
#endif
				put_back(first[w] + x, first[w] + e);
#ifdef UNITS
				assert(x > 0);
#endif
				mine_end[w] = x }
				break
			fi
		fi
	od;
	skip;
	d_step { c = 0; e = 0; x = 0 }
}

#ifdef END_FORGOTTEN
#define END(w)	count[w]
#else
#define END(w)	mine_end[w]
#endif
#ifdef COLLECT_FROM_CURSOR
#define PROGRESS(w)	next[w]
#else
#define PROGRESS(w)	current[w]
#endif

/* One call: as a whole done, failed, or tried again. */
inline collect_call(w)
{
	if
	:: word[w] == TAKEN && retries < RETRIES ->
		retries++;
#ifdef RETRY_ALL
		mine_end[w] = count[w];
#endif
		i = first[w];
		do
		:: i < first[w] + mine_end[w] -> begun[i] = 0; ran[i] = 0; i++
		:: else -> break
		od;
		i = 0;
		current[w] = 0; next[w] = 0; end[w] = mine_end[w]; word[w] = TAKEN
	:: else ->
		i = 0;
		do
		:: i < END(w) -> answer(first[w] + i); i++
		:: else -> break
		od;
		i = 0;
		word[w] = NONE
	fi
}

/* Items before current are done; if something went wrong it was with that one. */
inline collect_chunk(w)
{
	i = 0;
	x = (PROGRESS(w) < END(w) -> PROGRESS(w) : END(w));
	do
	:: i < x -> assert(ran[first[w] + i]); answer(first[w] + i); i++
	:: else -> break
	od;
	if
	:: (killed[w] && word[w] == TAKEN || word[w] == FAILED) && x < END(w) ->
		if
		:: word[w] == TAKEN && retries < RETRIES -> retries++;
			begun[first[w] + x] = 0; ran[first[w] + x] = 0; todo[first[w] + x] = 1
		:: else -> answer(first[w] + x)
		fi;
		x++
	:: else
	fi;
	put_back(first[w] + x, first[w] + END(w));
	x = 0;
	word[w] = NONE
}

#ifdef UNITS
#define COLLECT(w)	collect_call(w)
#else
#define COLLECT(w)	collect_chunk(w)
#endif

#define ENDED(w)	(word[w] == DONE || word[w] == FAILED)
#define ALL(a)		(a[0] && a[1] && a[2] && (N < 4 || a[N - 1]))
#define ANY(a)		(a[0] || a[1] || a[2] || N == 4 && a[N - 1])

/* A death may stay unnoticed for a while, in which the owner takes back. */
#define ATTEND(w) \
	:: d_step { !killed[w] && word[w] == NONE && ANY(todo) -> cut(w, N) } \
	:: d_step { !killed[w] && word[w] == NONE && ANY(todo) -> cut(w, 1) } \
	:: word[w] != NONE && backs < B -> take_back(w) \
	:: d_step { !killed[w] && ENDED(w) -> COLLECT(w) } \
	:: d_step { !killed[w] && deaths < D && word[w] != NONE -> killed[w] = 1; deaths++ } \
	:: d_step { killed[w] && !start[w] -> COLLECT(w); start[w] = 1 }

active proctype owner()
{
	byte c, e, x, i;

	d_step { put_back(0, N) };
	do
	ATTEND(0)
	ATTEND(1)
	:: ALL(answered) && word[0] == NONE && word[1] == NONE -> break
	od;
	assert(!ANY(todo))
}

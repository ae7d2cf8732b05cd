#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Checks the models with spin and prints TAP. First each protocol as it is: all
# interleavings within the bounds, nothing may be found. Then with one thing
# broken at a time: each must be found, or the model proves nothing.
# "run.sh full" takes larger bounds and finer steps (a quarter of an hour, up to 4 GB a search).
# JOBS=n runs n searches at a time, else as many as there are processors.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
cc=${CC:-cc}
full=$1

for tool in spin "${cc%% *}"; do
	if ! command -v "$tool" >/dev/null 2>&1; then
		echo "1..0 # SKIP $tool is not installed"
		exit 0
	fi
done

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'kill $lanes 2>/dev/null; exit 1' HUP INT TERM
lanes=

# ---- what is run: one line each in the plan ----

# holds <model> <text> <marks>: the whole state space, and nothing found. In the
# quick plan compiling takes about as long as searching.
holds()
{
	echo "holds|$1|$2|$3||${optimise}" >>"$work/plan"
}

# found <model> <mark> <other marks> <what pan says> [for the compiler]
found()
{
	echo "found|$1|fault $2|-D$2 $3|$4|${5:--O0}" >>"$work/plan"
}

optimise=-O1
lost='invalid end state'
wrong='assertion violated'

# A death that is still to come would wake a lost sleeper, so each bound on
# deaths needs the smaller ones beside it.
small="-DT=2 -DC=0"
living="$small -DD=0"
dying="$small -DD=1 -DV=1"
two='-DU0=CALL -DU1=CALL'
long='-DW=2 -DU0=CALL -DU1=LONG -DU2=FIRE -DS=2'

plan_quick()
{
	holds task '2 workers, 2 tasks, 1 cancel' '-DT=2 -DC=1 -DD=0'
	holds task '2 workers, 2 tasks, 1 death' "$dying"
	optimise=-O0
	for deaths in 0 1; do
		holds task "1 worker, 3 tasks, 1 cancel, closed early, deaths: $deaths" \
		    "-DW=1 -DCLOSE_EARLY -DD=$deaths"
	done
	found task NO_RECHECK "$living" "$lost"
	found task NO_OWNER_RECHECK "$living" "$lost"
	found task NO_HANDOFF "$living" "$lost"
	found task HANDOFF_SPINNER_ONLY "$living" "$lost"
	found task LEAVE_EARLY "-DCLOSE_EARLY $living" "$lost"
	found task NO_GENERATION '-DC=1 -DD=0' "$wrong"
	found task HEAD_FIRST "$dying" "$lost"
	found task SCAN_BEFORE_EMPTYING "$dying" "$wrong"
	found task FREE_SEAT_FIRST "$dying" "$wrong"
	found task NO_RERING "$dying" "$lost"
	found task NO_WAKE_RUNG "$dying" "$lost"
	# In this order it is found soonest.
	found task RERING_IF_READY '-DC=0 -DD=1 -DV=1' "$lost" '-O1 -DP_RAND=1 -DT_RAND=1'

	holds bell 'owner sleeps' -DOWNER
	holds bell 'worker sleeps' -DSEAT
	holds bell 'spinner leaves' -DLEAVE
	found bell PLAIN_ASLEEP -DOWNER "$lost"
	found bell PLAIN_ENTRY -DSEAT "$lost"
	found bell PLAIN_BIT '-DSEAT -DPLAIN_ASLEEP' "$lost"
	found bell PLAIN_ENTRY -DLEAVE "$lost"
	found bell PLAIN_ROLE -DLEAVE "$lost"

	holds collect '2 calls, one may leave early, 2 starts' "$two -DSTARTS=2"
	holds collect '2 calls, 1 death' "$two -DD=1 -DNAPS=0"
	holds collect 'a call, a patient one, 2 workers' "-DW=2 -DU0=CALL -DU1=PATIENT"
	holds collect 'a call beside a long task, a queue' "$long"
	holds collect 'helper: callback, queue' '-DHELPER -DU0=FIRE -DU1=BACK -DS=1'
	holds collect 'helper: callback, join' '-DHELPER -DU0=BACK -DU1=JOIN'
	holds collect 'helper: wait, time limit' '-DHELPER -DU0=WAIT -DU1=LIMIT'
	holds collect 'helper: queue beside a long task' \
	    '-DW=2 -DHELPER -DU0=FIRE -DU1=FIRE -DU2=LONG -DS=2'
	found collect NO_HAND_ON "$two" "$lost"
	found collect HAND_ON_IF_COLLECTED "$two -DU2=CALL -DNAPS=0" "$lost"
	found collect NO_LOOK_AGAIN "$two -DNAPS=0 -DSTARTS=1" "$lost"
	found collect NO_OWNER_RECHECK "$two" "$lost"
	found collect DRAIN_ARMED "$two" "$lost"
	found collect NO_WAKE_SLEEPERS '-DW=2 -DU0=CALL -DU1=PATIENT -DNAPS=0' "$lost"
	found collect NO_WAKE_COLLECTOR '-DHELPER -DU0=BACK -DU1=JOIN -DNAPS=0' "$lost"
	found collect NO_CHANGED '-DHELPER -DU0=WAIT -DU1=FIRE -DNAPS=0' "$lost"
	found collect SLEEPERS_FORGOTTEN '-DHELPER -DU0=WAIT -DU1=FIRE -DNAPS=0' "$lost"
	found collect COLLECTOR_FORGOTTEN "$long -DNAPS=0 -DFEW=0" "$lost"
	found collect NO_SOONER '-DHELPER -DU0=WAIT -DU1=LIMIT -DNAPS=0' "$lost"
	found collect FEW=0 '-DW=2 -DHELPER -DU0=FIRE -DU1=FIRE -DU2=LONG -DS=2 -DNAPS=0' "$lost"

	holds lease '2 readers, no death' -DD=0
	holds lease '1 reader, 1 death' '-DR=1 -DD=1'
	holds lease '1 reader, 2 deaths' '-DR=1 -DD=2'
	for fault in SHARED_FIRST PLAIN_ENTRY FREE_SHARED CLEAR_ONLY UNLEASE_BLINDLY \
	    LEASE_GONE NO_GENERATION DONE_BEFORE_PASS; do
		found lease $fault -DD=0 "$wrong"
	done
	for fault in NO_SWEEP NO_END_OF_LEASES NO_RECLAIM_OF_TASK; do
		found lease $fault '-DR=1 -DD=1' "$wrong"
	done

	holds quarantine '2 workers, 3 tasks, 1 stop, 1 death' ''
	holds quarantine '2 workers, 3 tasks, 1 stop, 1 death, 1 retry' -DRETRIES=1
	for fault in KILL_FIRST KILL_UNCONDEMNED COMPLETE_BLINDLY STAYS JOB_KEPT FREE_AT_ONCE \
	    KILL_BY_SEAT; do
		found quarantine $fault '' "$wrong"
	done
	found quarantine RETRY_CONDEMNED -DRETRIES=1 "$wrong"

	few='-DN=3 -DB=1 -DF=0'
	holds cursor '3 items, 1 death' '-DN=3 -DB=0 -DF=0'
	holds cursor '3 items, taken back once, 1 failure' '-DN=3 -DB=1 -DD=0'
	for fault in CLAIM_BLINDLY TAKE_BACK_BLINDLY CURRENT_FIRST END_FORGOTTEN \
	    COLLECT_FROM_CURSOR; do
		found cursor $fault "$few" "$wrong"
	done
	found cursor LEAST_FORGOTTEN "$few -DUNITS" "$wrong"
	found cursor RETRY_ALL "$few -DUNITS -DRETRIES=1" "$wrong"
}

plan_full()
{
	optimise=-O2
	holds task '2 workers, 2 tasks, closed early' "$living -DCLOSE_EARLY"
	holds task '2 workers, 3 tasks, 1 cancel' '-DC=1 -DD=0'
	holds task '2 workers, 3 tasks, 1 death' '-DC=0 -DD=1 -DV=1'
	holds task '2 workers, 2 tasks, 1 cancel, 1 death' '-DT=2 -DC=1 -DD=1 -DV=1'
	holds task '2 workers, 2 tasks, closed early, 1 death' "$dying -DCLOSE_EARLY"
	holds task '2 workers, 3 tasks, 1 cancel, 1 death' '-DC=1 -DD=1 -DV=1'
	holds task '2 workers, 2 tasks, 2 deaths' "$small -DD=2"
	holds task '2 workers, 3 tasks, closed early' '-DC=0 -DD=0 -DCLOSE_EARLY'
	holds task '1 worker, 3 tasks, 1 cancel, closed early, 2 deaths' '-DW=1 -DCLOSE_EARLY -DD=2'
	holds task '3 workers, 2 tasks, 1 slot' '-DW=3 -DS=1 -DT=2 -DC=0 -DD=0'
	holds task '3 workers, 2 tasks, 1 slot, 1 death' '-DW=3 -DS=1 -DT=2 -DC=0 -DD=1 -DV=2'
	holds task 'generations of 1 bit, 3 tasks, 1 cancel' '-DGENS=2 -DC=1 -DD=0'
	holds task 'fine steps, 2 tasks' "$living -DFINE"
	holds task 'fine steps, 2 tasks, 1 death' "$dying -DFINE"
	holds task 'fine steps, ring of 2, 3 tasks, 1 cancel' '-DFINE -DR=2 -DC=1 -DD=0'
	holds task 'fine steps, ring of 2, 3 tasks, 1 death' '-DFINE -DR=2 -DC=0 -DD=1 -DV=1'

	holds collect '3 calls, one may leave early' "$two -DU2=CALL"
	holds collect '3 calls, 1 death' "$two -DU2=CALL -DD=1 -DNAPS=0"
	holds collect '2 calls, one may leave early, 1 death, 1 start' "$two -DD=1 -DSTARTS=1"
	holds collect 'helper: callback, time limit, call' '-DHELPER -DU0=BACK -DU1=LIMIT -DU2=CALL'
	holds collect 'helper: queue, wait, 1 slot' '-DHELPER -DU0=FIRE -DU1=FIRE -DU2=WAIT -DS=1'
	holds collect 'helper: queue, wait, long task' \
	    '-DW=2 -DHELPER -DU0=WAIT -DU1=FIRE -DU2=LONG -DS=2'

	holds lease '2 readers, 1 death' '-DR=2 -DD=1'
	holds lease '2 readers, 2 deaths' '-DR=2 -DD=2'
	holds quarantine '2 workers, 4 tasks, 2 stops, 2 deaths, 1 retry' \
	    '-DT=4 -DC=2 -DD=2 -DRETRIES=1'
	holds cursor '3 items, taken back once, 1 death' "$few"
	holds cursor '3 units, taken back once, 1 death, 1 retry' "$few -DUNITS -DRETRIES=1"
	holds cursor '3 items, taken back twice, 1 failure, 1 death, 1 retry' '-DN=3 -DRETRIES=1'
	holds cursor '3 units, taken back twice, 1 failure, 1 death, 1 retry' \
	    '-DN=3 -DUNITS -DRETRIES=1'
	holds cursor '4 items, taken back once, 1 death' '-DB=1 -DF=0'
}

# ---- running it ----

# search <model> <marks> <optimise> <bits of hash>: leaves what was found in ./out
search()
{
	# shellcheck disable=SC2086 # marks are words; so is $cc
	spin $2 -a "$here/$1.pml" >out 2>&1 &&
	    $cc $3 -w -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c >>out 2>&1 &&
	    ./pan -m200000 "-w$4" >>out 2>&1
}

# run <number> <plan's line>: leaves its line of TAP in <number>.tap
run()
{
	mkdir "$1" && cd "$1" || exit 1
	echo "$2" >line
	IFS='|' read -r kind model text marks says optimise <line
	if [ "$kind" = holds ]; then
		search "$model" "$marks" "$optimise" 22
		states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
		text="exhausted: $text (${states:-no} states)"
		grep -q 'errors: 0$' out && ! grep -q 'not completed\|too small' out
	else
		search "$model" "$marks" "$optimise" 18
		text="$text is found ($marks)"
		grep -q "^pan:1: $says" out
	fi
	r=$?
	{
		[ $r -eq 0 ] || printf 'not '
		echo "ok $1 - $model.pml $text"
		[ $r -eq 0 ] || sed 's/^/# /' out
	} >../tap
	cd .. && mv tap "$1.tap" && rm -r "$1"
}

# lane <which> <of how many>: every so many'th line of the plan
lane()
{
	mkdir "$work/lane$1" && cd "$work/lane$1" || exit 1
	n=0
	while read -r line; do
		n=$((n + 1))
		[ $((n % $2)) -ne "$1" ] || (run $n "$line")
	done <"$work/plan"
}

plan_quick
[ "$full" != full ] || plan_full
count=$(wc -l <"$work/plan")
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
i=0
while [ $i -lt "$jobs" ]; do
	lane $i "$jobs" &
	lanes="$lanes $!"
	i=$((i + 1))
done
# shellcheck disable=SC2086 # they are numbers
wait $lanes

failures=0
n=0
while [ $n -lt "$count" ]; do
	n=$((n + 1))
	if ! cat "$work"/lane*/$n.tap 2>/dev/null; then
		echo "not ok $n - was not run"
		failures=$((failures + 1))
	elif grep -q '^not ok' "$work"/lane*/$n.tap; then
		failures=$((failures + 1))
	fi
done
echo "1..$count"
[ "$failures" -eq 0 ]

#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Checks the models with spin and prints TAP. First the protocol as it is: all
# interleavings within the bounds, nothing may be found. Then with one thing
# broken at a time: each must be found, or the model proves nothing.
# "run.sh full" takes larger bounds and finer steps (minutes, up to 2 GB).

here=$(cd "$(dirname "$0")" && pwd) || exit 1
cc=${CC:-cc}

for tool in spin "${cc%% *}"; do
	if ! command -v "$tool" >/dev/null 2>&1; then
		echo "1..0 # SKIP $tool is not installed"
		exit 0
	fi
done

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 1

count=0
failures=0

# report <0 or other> <text>
report()
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		sed 's/^/# /' out
		failures=$((failures + 1))
	fi
}

# search <model> <marks> <optimise>: leaves what was found in ./out
search()
{
	rm -f pan pan.* ./*.trail
	# shellcheck disable=SC2086 # marks are words; so is $cc
	spin $2 -a "$here/$1.pml" >out 2>&1 &&
	    $cc $3 -w -DSAFETY -DCOLLAPSE -DMEMLIM=2000 -o pan pan.c >>out 2>&1 &&
	    ./pan -m100000 -w24 >>out 2>&1
}

# holds <model> <text> <marks>: the whole state space, and nothing found
holds()
{
	search "$1" "$3" -O2
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
	grep -q 'errors: 0$' out && ! grep -q 'not completed\|too small' out
	report $? "$1.pml exhausted: $2 (${states:-no} states)"
}

# found <model> <text> <marks> <what pan says> [optimise]: most are found so
# soon that compiling takes longer
found()
{
	search "$1" "$3" "${5:--O0}"
	grep -q "^pan:1: $4" out
	report $? "$1.pml: $2 is found"
}

lost='invalid end state'
wrong='assertion violated'

# A death that is still to come would wake a lost sleeper, so each bound on
# deaths needs the smaller ones beside it.
small="-DT=2 -DC=0"
holds task '2 workers, 3 tasks, 1 cancel, no death' '-DC=1 -DD=0'
holds task '2 workers, 3 tasks, 1 death' '-DC=0 -DD=1 -DV=1'
holds task '2 workers, 2 tasks, 1 cancel, 1 death' '-DT=2 -DC=1 -DD=1 -DV=1'
holds task '2 workers, 2 tasks, closed early' "$small -DCLOSE_EARLY -DD=0"
holds task '2 workers, 2 tasks, closed early, 1 death' "$small -DCLOSE_EARLY -DD=1 -DV=1"
for deaths in 0 1 2; do
	holds task "1 worker, 3 tasks, 1 cancel, closed early, deaths: $deaths" \
	    "-DW=1 -DCLOSE_EARLY -DD=$deaths"
done

living="$small -DD=0"
dying="$small -DD=1 -DV=1"
found task 'fault NO_RECHECK' "-DNO_RECHECK $living" "$lost"
found task 'fault NO_OWNER_RECHECK' "-DNO_OWNER_RECHECK $living" "$lost"
found task 'fault NO_HANDOFF' "-DNO_HANDOFF $living" "$lost"
found task 'fault HANDOFF_SPINNER_ONLY' "-DHANDOFF_SPINNER_ONLY $living" "$lost"
found task 'fault LEAVE_EARLY' "-DLEAVE_EARLY -DCLOSE_EARLY $living" "$lost"
found task 'fault NO_GENERATION' '-DNO_GENERATION -DC=1 -DD=0' "$wrong"
found task 'fault HEAD_FIRST' "-DHEAD_FIRST $dying" "$lost"
found task 'fault SCAN_BEFORE_EMPTYING' "-DSCAN_BEFORE_EMPTYING $dying" "$wrong"
found task 'fault FREE_SEAT_FIRST' "-DFREE_SEAT_FIRST $dying" "$wrong"
found task 'fault NO_RERING' "-DNO_RERING $dying" "$lost"
found task 'fault NO_WAKE_RUNG' "-DNO_WAKE_RUNG $dying" "$lost"
found task 'fault RERING_IF_READY' '-DRERING_IF_READY -DC=1 -DD=1 -DV=1' "$lost" -O2

holds bell 'owner sleeps' -DOWNER
holds bell 'worker sleeps' -DSEAT
holds bell 'spinner leaves' -DLEAVE
found bell 'plain store of ASLEEP by the owner' '-DOWNER -DPLAIN_ASLEEP' "$lost"
found bell 'plain store of the tail, a worker sleeps' '-DSEAT -DPLAIN_TAIL' "$lost"
found bell 'plain store of the idle bit' '-DSEAT -DPLAIN_BIT -DPLAIN_ASLEEP' "$lost"
found bell 'plain store of the tail, the spinner leaves' '-DLEAVE -DPLAIN_TAIL' "$lost"
found bell 'plain store of the role' '-DLEAVE -DPLAIN_ROLE' "$lost"

if [ "$1" = full ]; then
	holds task '2 workers, 3 tasks, 1 cancel, 1 death' '-DC=1 -DD=1 -DV=1'
	holds task '2 workers, 2 tasks, 2 deaths' "$small -DD=2"
	holds task '2 workers, 3 tasks, closed early' '-DC=0 -DD=0 -DCLOSE_EARLY'
	holds task 'generations of 1 bit, 3 tasks, 1 cancel' '-DGENS=2 -DC=1 -DD=0'
	holds task 'fine steps, 2 tasks' "$small -DFINE -DD=0"
	holds task 'fine steps, 2 tasks, 1 death' "$small -DFINE -DD=1 -DV=1"
	holds task 'fine steps, ring of 2, 3 tasks, 1 cancel' '-DFINE -DR=2 -DC=1 -DD=0'
	holds task 'fine steps, ring of 2, 3 tasks, 1 death' '-DFINE -DR=2 -DC=0 -DD=1 -DV=1'
fi

echo "1..$count"
[ "$failures" -eq 0 ]

#!/bin/sh
# SPDX-License-Identifier: MIT
#
# fuzz.sh BUILD SECONDS: build the fuzzer with clang, and let it look for so long. What it
# finds beyond the corpus is left in BUILD/found, crashes in BUILD.
# fuzz.sh BUILD merge DIR...: put into the corpus what covers more, smallest first.
set -eu
# shellcheck disable=SC2086 # the compiler is several words

build=$1
what=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
shift 2

mkdir -p "$build/found"
[ -f "$root/src/template.c" ]
cc="${FUZZ_CC:-clang} -std=gnu11 -g -O1 -fno-omit-frame-pointer -DAC_FAULTS=1
	-fsanitize=address,undefined -fno-sanitize-recover=undefined
	-I$root/include -I$root/src"
# Not the world: it is called from within loads, and what it covers is no news.
$cc -c "$here/world.c" -o "$build/world.o"
$cc -c "$here/spoil.c" -o "$build/spoil.o"
# shellcheck disable=SC2046 # words on purpose
$cc -fsanitize=fuzzer -fsanitize-coverage=trace-loads \
	"$root"/src/*.c "$here/fuzz_owner.c" "$build/world.o" "$build/spoil.o" \
	$(cat "$here/wraps") -pthread -o "$build/fuzz_owner"

cd "$build"
if [ "$what" = merge ]; then
	exec ./fuzz_owner -merge=1 -max_len=800 "$here/corpus" "$@"
fi
exec ./fuzz_owner -max_total_time="$what" -max_len=800 -timeout=20 -rss_limit_mb=3000 \
	-print_final_stats=1 "$@" found "$here/corpus"

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# install.sh BUILD SOURCE CC...: install to an empty root, then use the library
# from there, and only from there, as an outside program does. Prints TAP.
set -u

build=$1
source=$2
shift 2
cc=("$@")
here=$source/tests/install
count=0

root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
work=$root/work
mkdir "$work"

result() { # result CODE NAME
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
	fi
}

skip() { # skip NAME WHY
	count=$((count + 1))
	echo "ok $count - $1 # SKIP $2"
}

# Output becomes comment lines, so that none is taken for a result.
check() { # check NAME COMMAND...
	local name=$1
	shift
	"$@" >"$work/log" 2>&1
	local code=$?
	[ $code = 0 ] || sed 's/^/# /' "$work/log"
	result $code "$name"
}

# ---- install ----

install_there() {
	DESTDIR=$root meson install -C "$build" --no-rebuild
}

check "install" install_there
pc=$(find "$root" -name allcores.pc)
header=$(find "$root" -name allcores.h)
shared=$(find "$root" -name liballcores.so)
manual=$(find "$root" -name 'allcores.3*')
[ -n "$pc" ] && [ -n "$header" ] && [ -n "$shared" ] && [ -n "$manual" ]
result $? "library, header, pkg-config file and man page are there"

export PKG_CONFIG_LIBDIR=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$root
unset PKG_CONFIG_PATH LIBRARY_PATH CPATH
export LD_LIBRARY_PATH=${shared%/*}
warnings=(-Wall -Wextra -pedantic -Werror)

# ---- what is exported ----

nm -D --defined-only "$shared" | awk '$2 == "T" || $2 == "D" || $2 == "B" || $2 == "R" { sub("@.*", "", $3); print $3 }' |
	sort >"$work/exported"
sed -n 's/^AC_API [^(]*[ *]\(ac_[a-z_]*\)(.*/\1/p' "$header" | sort -u >"$work/public"

nothing_else() {
	[ -s "$work/exported" ] && [ -z "$(comm -23 "$work/exported" "$work/public" | tee /dev/stderr)" ]
}
everything() {
	[ -z "$(comm -13 "$work/exported" "$work/public" | tee /dev/stderr)" ]
}
versioned() {
	! nm -D --defined-only "$shared" | grep ' T ' | grep -v '@@ALLCORES_0$'
}
soname() {
	readelf -d "$shared" | grep -F 'SONAME' | grep -F '[liballcores.so.0]'
}
no_other_libraries() { # but libc's own
	! readelf -d "$shared" | grep -F NEEDED | grep -v -e libc.so -e libpthread -e ld-linux
}
stamped() {
	[ "$(pkg-config --modversion allcores)" = \
		"$(awk '/#define AC_VERSION_/ { v = v s $3; s = "." } END { print v }' "$header")" ]
}

engine=false
grep -qx ac_pool_map "$work/exported" && engine=true

check "only names of the header are exported" nothing_else
if $engine; then
	check "every function of the header is exported" everything
else
	skip "every function of the header is exported" "there is no pool yet"
fi
check "exports carry a version" versioned
check "the SONAME is liballcores.so.0" soname
check "the library needs libc only" no_other_libraries
check "pkg-config and header agree on the version" stamped

# ---- outside programs ----

compile_and_run() {
	rm -f "$work/program"
	"$@" -o "$work/program" && timeout -k 5 30 "$work/program"
}

try() { # try NAME COMPILER...
	local name=$1
	shift
	check "$name" compile_and_run "$@"
}

flags() {
	pkg-config --cflags --libs allcores
}
static_flags() {
	echo "$(pkg-config --cflags allcores) -Wl,-Bstatic" \
		"$(pkg-config --libs --static allcores) -Wl,-Bdynamic"
}

use() { # use PROGRAM: all ways to build it
	local file=$here/$1.c
	try "$1, shared" "${cc[@]}" -std=c99 "${warnings[@]}" "$file" $(flags)
	try "$1, static" "${cc[@]}" -std=c99 "${warnings[@]}" "$file" $(static_flags)
	if command -v g++ >/dev/null; then
		try "$1, C++" g++ -std=c++11 "${warnings[@]}" -x c++ "$file" -x none $(flags)
	else
		skip "$1, C++" "no g++ here"
	fi
}

use outside
if $engine; then
	use outside_map
else
	skip "outside_map" "there is no pool yet"
fi

# ---- what the documents promise ----

if $engine && [ -e "$source/README.md" ]; then
	# The first block of C is a whole program.
	awk '/^```c$/ { on = 1; next } /^```/ && on { exit } on' "$source/README.md" >"$work/readme.c"
	try "the README's first program" "${cc[@]}" -Wall -Wextra "$work/readme.c" $(flags) -lm
else
	skip "the README's first program" "no README or no pool yet"
fi

awk '/^\.Bd -literal/ { on = 1; next } /^\.Ed/ && on { exit } on' "$manual" |
	sed 's/\\e/\\/g' >"$work/manual.c"
if $engine; then
	try "the man page's program" "${cc[@]}" "${warnings[@]}" "$work/manual.c" $(flags)
else
	check "the man page's program compiles" "${cc[@]}" "${warnings[@]}" \
		$(pkg-config --cflags allcores) -c "$work/manual.c" -o "$work/manual.o"
fi
if command -v mandoc >/dev/null; then
	check "the man page has no mistakes" mandoc -T lint -W warning "$manual"
else
	skip "the man page has no mistakes" "no mandoc here"
fi

echo "1..$count"

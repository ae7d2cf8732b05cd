#!/bin/bash
# SPDX-License-Identifier: MIT
#
# pythons.sh SOURCE: which interpreters tools/pythons finds, where some are of versions that
# this machine need not have. Prints TAP.
set -u

list=$1/tools/pythons
count=0
real=$(python3 -c 'import sys; print(sys.executable)') || exit 1

root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
mkdir "$root/home" "$root/bin"
export PATH=$root/bin:/usr/bin:/bin HOME=$root/home
unset PYENV_ROOT

fake() { # fake NAME MINOR FREE_THREADED: says that it is of that version, and has headers
	cat >"$root/bin/$1" <<END
#!/bin/sh
exec '$real' -c 'import os.path, sys, sysconfig
sys.version_info, sys.executable = (3, $2, 1), "$root/bin/$1"
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = $3
os.path.exists = lambda path: True
exec(sys.argv[1])' "\$2"
END
	chmod +x "$root/bin/$1"
}

check() { # check NAME WANTED GOT
	count=$((count + 1))
	if [[ $3 == $2 ]]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1"
		echo "# $3"
	fi
}

fake python3.97t 97 1
fake python3.98 98 0
fake python3.99 99 0
fake python3.99t 99 1
fake python3.7 7 0
fake python3.96-config 96 0

check "versions to come are found" "*$root/bin/python3.98,$root/bin/python3.99*" "$("$list")"
for asked in python3 python3.99t; do
	for no in 97t 99t 7 96; do
		check "not python3.$no, when $asked is asked for" no \
			"$("$list" $asked | grep -q "/python3.$no\>" && echo yes || echo no)"
	done
done
check "in words" "CPython *3.98.1, 3.99.1*" "$("$list" --versions 2>"$root/said")"
check "it says what is left out, and why" \
	"*/python3.97t is left out: it is free-threaded, which is not supported*" "$(cat "$root/said")"
check "the same for an old one" "*/python3.7 is left out: it is older than 3.11*" \
	"$(cat "$root/said")"
echo "1..$count"

#!/bin/bash
# SPDX-License-Identifier: MIT
#
# wheel.sh SOURCE: the Python package as a stranger installs it, into a clean virtual
# environment with what the system has and without a network. Then: the wheel is
# self-contained, and its types are what the stubs say. Prints TAP.
set -u

source=$1
python=/usr/bin/python3
count=0

skip_all() {
	echo "1..1"
	echo "ok 1 - the wheel # SKIP $1"
	exit 0
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
	skip_all "the system has no python3 from 3.11 on"
"$python" -c 'import mesonpy, ensurepip, venv' 2>/dev/null ||
	skip_all "no python3-mesonpy or python3-venv for $python"
"$python" -c 'import os, sysconfig
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
	skip_all "no headers for $python"

root=$(mktemp -d) || exit 1
trap 'rm -rf "$root"' EXIT
unset PYTHONPATH
# The build runs scripts from there, and a script imports what lies beside it: in a shared
# temporary directory somebody's re.py comes before the standard library's.
export TMPDIR=$root

check() { # check NAME COMMAND...
	local name=$1
	shift
	count=$((count + 1))
	if "$@" >"$root/log" 2>&1; then
		echo "ok $count - $name"
	else
		sed 's/^/# /' "$root/log"
		echo "not ok $count - $name"
	fi
}

# A copy: the build backend writes into the tree.
copy_tree() {
	mkdir "$root/tree" && cd "$root/tree" &&
		cp -r "$source"/{include,src,python,docs,meson.build,meson_options.txt,pyproject.toml,README.md,LICENSE} . &&
		rm -f python/allcores/*.so
}

try_it() {
	cd / && "$root/venv/bin/python" -c '
import allcores, sys
assert allcores.__file__.startswith(sys.argv[1]), allcores.__file__
assert allcores.engine == "allcores", allcores.engine_reason
with allcores.Pool(2) as pool:
    assert pool.map(abs, range(-1000, 0)) == list(range(1000, 0, -1))
' "$root/venv"
}

extension() {
	ls "$root"/venv/lib/python3*/site-packages/allcores/_core*.so
}

is_alone() { # no library of ours is asked for, and none is offered
	ldd "$(extension)" && ! ldd "$(extension)" | grep -i allcores &&
		[ "$(nm -D --defined-only "$(extension)" | awk '{ print $3 }')" = PyInit__core ]
}

only_the_package() {
	! find "$root/venv" -name 'allcores.h' -o -name 'liballcores*' -o -name 'allcores.pc' | grep .
}

check "copy of the tree" copy_tree
check "virtual environment" "$python" -m venv --system-site-packages "$root/venv"
check "pip install --no-build-isolation" \
	env PIP_NO_INDEX=1 "$root/venv/bin/pip" install --no-build-isolation "$root/tree"
check "a pool from there" try_it
check "python -m allcores --info" "$root/venv/bin/python" -m allcores --info
check "the extension stands alone" is_alone
check "nothing of the C library is installed" only_the_package
if "$python" -c 'import mypy' 2>/dev/null; then
	# The sources by name: mypy prefers the stubs beside them. The stubs are checked by
	# python/tests/typed.
	check "types" env MYPYPATH="$source/python" "$python" -m mypy --strict \
		--cache-dir "$root/mypy" "$source"/python/allcores/*.py
	cd "$root/venv" || exit 1
	site=$(dirname "$(dirname "$(extension)")")
	check_stubs() { # check_stubs MODULE OPTION...: its stub, and those of its submodules
		check "stubs: $1" env PYTHONPATH="$site" "$python" -m mypy.stubtest "$@" \
			--allowlist "$root/allowed" --ignore-unused-allowlist
	}
	# All submodules, what typeshed calls functions, and names that differ between versions.
	printf '%s\n' 'allcores\.[a-z_]\w*\..*' 'allcores\.(Joinable|Simple|)Queue' \
		'allcores\.__all__' >"$root/allowed"
	check_stubs allcores
	# A decorator of classes (disjoint_base) that older mypys do not know; names of types; what
	# named tuples have. How results and iterators are made, and that our classes are ABCs.
	printf '%s\n' 'allcores\._core\.(Task|Row|Outgoing|Reducers)' \
		'allcores\._core\.(Outcome|WorkerStat)\.(n_\w+|__match_args__)' \
		'allcores\.pool\.(Pool|ApplyResult|AsyncResult|MapResult)' \
		'allcores\.pool\.\w+(Result|Iterator)\.__(init|new|next)__' >"$root/allowed"
	check_stubs allcores._core
	check_stubs allcores.pool --ignore-missing-stub
	check_stubs allcores.context --ignore-missing-stub
else
	count=$((count + 1))
	echo "ok $count - types # SKIP no mypy"
fi
echo "1..$count"

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run CPython's own pool tests on allcores.Pool and print TAP.

    PYTHONPATH=python python3 python/tests/compat/run.py fork|spawn|forkserver [TEXT]

They come from the interpreter that runs this, unchanged but for their imports; TEXT
chooses tests by name. What is left out, and why: LEFT_OUT in pool_tests.py.
"""
import importlib.util
import os
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT = "120"  # seconds for a test; some of CPython's take ten


def main():
    method, *text = sys.argv[1:]
    if importlib.util.find_spec("test._test_multiprocessing") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        print(f"1..1\nok 1 - CPython's pool tests, {method} # SKIP this interpreter has no "
              f"test._test_multiprocessing (Debian: libpython{version}-testsuite)")
        return 0
    os.environ["ALLCORES_COMPAT_METHOD"] = method
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.abspath(p) for p in path if p])
    sys.path.insert(0, TESTS)
    import tap

    sys.argv[1:] = ["-t", LIMIT, "-k", "".join(text), "compat.pool_tests"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # some tests write where they are
        code = tap.main()
        os.chdir("/")
    return code


if __name__ == "__main__":
    sys.exit(main())

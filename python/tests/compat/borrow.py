# SPDX-License-Identifier: MIT
"""CPython's test modules with `multiprocessing` replaced by `allcores`.

What is changed is what a user would change: the imports, also those in the programs that
the tests write. No line is added or lost, since some tests look into their own source.
"""
import importlib.util
import re

from test.support import script_helper

IMPORTS = (
    (re.compile(r"^(\s*)import multiprocessing(\s*(#.*)?)$", re.M),
     r"\1import allcores as multiprocessing\2"),
    (re.compile(r"^(\s*)import multiprocessing as ", re.M), r"\1import allcores as "),
    (re.compile(r"^(\s*)import multiprocessing\.([\w.]+)", re.M),
     r"\1import allcores.\2, allcores as multiprocessing"),
    (re.compile(r"^(\s*)from multiprocessing(\.[\w.]+)? import ", re.M),
     r"\1from allcores\2 import "),
)
# The fork server is to know our copy beforehand, as it would know the original.
PRELOAD = ("'test.test_multiprocessing_forkserver'", "'compat.cpython'")


def rewrite(source):
    for pattern, replacement in IMPORTS:
        source = pattern.sub(replacement, source)
    return source.replace(*PRELOAD)


def borrow(name, namespace):
    """Run the module's source, rewritten, in namespace."""
    spec = importlib.util.find_spec(name)
    namespace["__file__"] = spec.origin  # programs that lie beside it
    exec(compile(rewrite(spec.loader.get_source(name)), spec.origin, "exec"), namespace)


# The interpreters that the tests start shall find our package: without -I and -E.
script_helper.interpreter_requires_environment = lambda: True

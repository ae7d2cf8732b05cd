# SPDX-License-Identifier: MIT
"""The tests that use a pool of processes, for the start method in the environment."""
import inspect
import os
import re
import unittest

import allcores
import allcores.pool
from compat import cpython, cpython_main

METHOD = os.environ.get("ALLCORES_COMPAT_METHOD", "fork")

# A test belongs here if its name or its source says "pool", its class's name counts as its
# own. Those of type "manager" and "threads" test other pools: the one that a manager opens
# inside its server, and ThreadPool, both the standard library's, which we only re-export.
POOL = re.compile("pool", re.I)
OTHERS = ("WithManager", "WithThreads")

# What is left out, and why.
LEFT_OUT = {
    "TestSyncManagerTypes.test_pool": "the pool is the standard library's, inside a manager",
}

cpython.install_tests_in_module_dict(globals(), METHOD)


class Borrowed(unittest.TestCase):
    """The tests below would pass with the standard library's pool, too: it is ours."""

    def test_pool_is_ours(self):
        self.assertIs(cpython.multiprocessing, allcores)
        for make in (cpython.multiprocessing.Pool, cpython.ProcessesMixin.Pool,
                     WithProcessesTestPool.Pool):
            with make(1) as pool:
                self.assertIsInstance(pool, allcores.pool.Pool)
                self.assertEqual(pool.apply(pool_of_worker), repr(allcores.pool.Pool))

    def test_written_programs_are_rewritten(self):
        for source in (cpython_main.test_source, cpython_main.test_source_main_skipped_in_children):
            self.assertIn("from allcores import Pool", source)


def pool_of_worker():
    return repr(cpython.multiprocessing.pool.Pool)


def is_wanted(test):
    name = f"{type(test).__name__}.{test._testMethodName}"
    if name.startswith(OTHERS) or name in LEFT_OUT:
        return False
    method = inspect.unwrap(getattr(type(test), test._testMethodName))
    return bool(POOL.search(name) or POOL.search(inspect.getsource(method)))


def load_tests(loader, standard_tests, _pattern):
    tests = [test for suite in standard_tests for test in suite if is_wanted(test)]
    for case in vars(cpython_main).values():
        if isinstance(case, type) and getattr(case, "start_method", None) == METHOD:
            tests.append(loader.loadTestsFromTestCase(case))
    return unittest.TestSuite(tests)

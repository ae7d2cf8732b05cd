#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The package as a module: what it re-exports, contexts, engine, command line."""
import contextlib
import functools
import importlib
import importlib.util
import multiprocessing
import multiprocessing.pool
import os
import pkgutil
import re
import subprocess
import sys
import unittest
from unittest import mock

import allcores
import tasks
from support import METHODS, PATIENCE, STDLIB, Case, engine_only, run_script, stop

OURS = {"pool", "context"}  # submodules of our own, with the names of the standard library's
# What a pool by fork imports, in its owner and in its workers, beyond multiprocessing.util.
# This is a part of the time to the first result. An import that most programs never need
# belongs into the function that needs it.
POOL_IMPORTS = {"__future__", "faulthandler", "fcntl", "multiprocessing.popen_fork", "allcores"} | {
    "allcores." + name for name in (
        "_chunk_sizes", "_core", "_descriptors", "_driver", "_forked_workers", "_imap",
        "_interruptible", "_jobs", "_oom_killer", "_results", "_stdlib_modules", "_stdlib_pool",
        "_stdlib_private", "_submitting", "_unfinished", "_worker", "_worker_processes",
        "_worker_stacks", "context", "errors", "pool")}
# What this package has in place of the standard library's.
OWN_NAMES = {"Pool", "get_context"}
POSIX = {name for _, name, _ in pkgutil.iter_modules(multiprocessing.__path__)
         if "win32" not in name}


def run(*args, **env):
    """(exit code, stdout, stderr) of the interpreter with args."""
    done = subprocess.run([sys.executable, *args], env=dict(os.environ, **env), text=True,
                          capture_output=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


IN_PLACE = """
import importlib, pkgutil, sys
import multiprocessing as theirs
for _, name, _ in pkgutil.iter_modules(theirs.__path__):
    if "win32" not in name:
        importlib.import_module("multiprocessing." + name)
import allcores
sys.modules["multiprocessing"] = allcores
"""


class ReExports(unittest.TestCase):
    """`import allcores as multiprocessing` gives the whole module."""

    def test_every_public_name(self):
        for name in multiprocessing.__all__:
            self.assertTrue(hasattr(allcores, name), name)
            self.assertIn(name, allcores.__all__)
        for name in allcores.__all__:
            self.assertTrue(hasattr(allcores, name), name)

    def test_star_import(self):
        names = {}
        exec("from allcores import *", names)
        self.assertLessEqual(set(multiprocessing.__all__), set(names))

    def test_errors_and_processes_are_the_standard_librarys(self):
        for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError",
                     "Process", "current_process", "parent_process", "active_children"):
            self.assertEqual(getattr(allcores, name), getattr(multiprocessing, name), name)

    @engine_only
    def test_all_others_are_the_standard_librarys_own_objects(self):
        """Looked up when they are asked for: other packages put functions of theirs there, before
        and after this one is imported."""
        for name in sorted(set(multiprocessing.__all__) - OWN_NAMES):
            with self.subTest(name):
                self.assertIs(getattr(allcores, name), getattr(multiprocessing, name))
                with mock.patch.object(multiprocessing, name, object()) as replaced:
                    self.assertIs(getattr(allcores, name), replaced)
                    names = {}
                    exec(f"from allcores import {name}", names)
                    self.assertIs(names[name], replaced)
                self.assertIs(getattr(allcores, name), getattr(multiprocessing, name))

    def test_freeze_support_of_a_frozen_program(self):
        """PyInstaller puts its own function in place, in a hook that runs before the program or
        after an import of it."""
        for first in "multiprocessing", "allcores":
            code, out, err = run("-c", f"""
import {first}
import multiprocessing
multiprocessing.freeze_support = lambda: print("frozen")
import allcores
allcores.freeze_support()
from allcores import freeze_support
freeze_support()
""")
            self.assertEqual((code, out, err), (0, "frozen\n" * 2, ""))

    def test_names_that_multiprocessing_does_not_list(self):
        """Its levels for the log, and what others add later."""
        self.assertIs(allcores.SUBDEBUG, multiprocessing.SUBDEBUG)
        with mock.patch.object(multiprocessing, "added", object(), create=True) as added:
            self.assertIs(allcores.added, added)
        self.assertFalse(hasattr(allcores, "added"))

    def test_names_are_listed(self):
        """Those too that are looked up later."""
        self.assertLessEqual(set(multiprocessing.__all__), set(dir(allcores)))

    def test_submodules_are_the_same_objects(self):
        for name in sorted(POSIX - OURS):
            ours = importlib.import_module(f"allcores.{name}")
            self.assertIs(ours, importlib.import_module(f"multiprocessing.{name}"))
            self.assertIs(getattr(allcores, name), ours)
            self.assertIs(sys.modules[f"allcores.{name}"], ours)

    def test_submodules_in_a_fresh_interpreter(self):
        """Each as an attribute and as an import, in each order."""
        for order in ("import allcores, multiprocessing", "import multiprocessing, allcores"):
            script = f"{order}\n" + "\n".join(
                f"import allcores.{name}\nfrom allcores import {name} as a\n"
                f"import multiprocessing.{name}\n"
                f"assert a is allcores.{name}, {name!r}\n"
                f"assert {name!r} in {OURS!r} or a is multiprocessing.{name}, {name!r}\n"
                for name in sorted(POSIX))
            self.assertEqual(run("-c", script), (0, "", ""))
        code, _, err = run("-c", "import allcores\nallcores.managers.BaseManager\n"
                                 "allcores.shared_memory.SharedMemory\nallcores.pool.ThreadPool")
        self.assertEqual(code, 0, err)

    def test_submodules_that_are_in_no_directory(self):
        """As all modules of a frozen program: it has a finder of its own."""
        code, out, err = run("-c", """
import importlib.abc, importlib.machinery, sys

class Frozen(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name == "multiprocessing.frozen":
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Frozen())
import allcores.frozen
import multiprocessing.frozen
print(allcores.frozen is multiprocessing.frozen)
""")
        self.assertEqual((code, out, err), (0, "True\n", ""))

    def test_unknown_names(self):
        with self.assertRaises(AttributeError):
            allcores.nonsense
        with self.assertRaises(ModuleNotFoundError):
            importlib.import_module("allcores.nonsense")

    def test_own_submodules_have_the_standard_librarys_names(self):
        for name in OURS:
            ours = importlib.import_module(f"allcores.{name}")
            theirs = importlib.import_module(f"multiprocessing.{name}")
            for public in dir(theirs):
                if not public.startswith("_"):
                    self.assertTrue(hasattr(ours, public), f"{name}.{public}")

    def test_thread_pools(self):
        for make in (allcores.pool.ThreadPool, allcores.dummy.Pool):
            with make(2) as pool:
                self.assertEqual(pool.map(tasks.square, range(5)), [0, 1, 4, 9, 16])
                self.assertEqual(pool.apply(os.getpid), os.getpid())

    def test_the_standard_librarys_pool_is_untouched(self):
        self.assertEqual(multiprocessing.pool.Pool.__module__, "multiprocessing.pool")
        with multiprocessing.Pool(1) as pool:
            self.assertIs(type(pool), multiprocessing.pool.Pool)
            self.assertEqual(pool.map(tasks.square, range(3)), [0, 1, 4])
        pool.join()

    def test_managers_queues_and_values(self):
        with allcores.Manager() as manager:
            shared = manager.dict(a=1)
            with allcores.Pool(1) as pool:
                self.assertEqual(pool.apply(tasks.describe, (shared,))[0][0]["a"], 1)
            pool.join()
        queue, value = allcores.Queue(), allcores.Value("i", 5)
        queue.put(value.value)
        self.assertEqual(queue.get(timeout=PATIENCE), 5)
        queue.close()
        queue.join_thread()


class Contexts(Case, unittest.TestCase):
    """Start methods are shared with the standard library."""

    def test_get_context(self):
        for method in METHODS:
            context = allcores.get_context(method)
            self.assertEqual(context.get_start_method(), method)
            self.assertIs(context.get_context(), context)
            self.assertIs(allcores.get_context(method), context)
            self.assertIsInstance(context, type(multiprocessing.get_context(method)))
            for name in ("Process", "Queue", "Lock", "Event", "Value", "Manager", "Pipe"):
                self.assertTrue(hasattr(context, name), name)
            pool = context.Pool(1)
            try:
                self.assertIsInstance(pool, allcores.pool.Pool)
            finally:
                stop(pool)

    def test_unknown_method(self):
        for call in (allcores.get_context, allcores.get_context("fork").get_context,
                     functools.partial(allcores.set_start_method, force=True)):
            with self.assertRaises(ValueError):
                call("nonsense")

    def test_default_context(self):
        self.assertEqual(allcores.get_context().get_start_method(),
                         multiprocessing.get_context().get_start_method())
        self.assertEqual(allcores.get_all_start_methods(),
                         multiprocessing.get_all_start_methods())

    def test_start_method_is_shared(self):
        for setter, getter in (("allcores", "multiprocessing"), ("multiprocessing", "allcores")):
            for method in METHODS:
                code, out, err = run("-c", f"""
import allcores, multiprocessing
{setter}.set_start_method({method!r})
assert {setter}.get_start_method() == {getter}.get_start_method() == {method!r}
assert {getter}.get_context().get_start_method() == {method!r}
try:
    {getter}.set_start_method("fork")
except RuntimeError as error:
    print(error)
{getter}.set_start_method("spawn", force=True)
assert {setter}.get_start_method() == "spawn"
{setter}.set_start_method(None, force=True)
assert {getter}.get_start_method(allow_none=True) is None
""")
                self.assertEqual((code, out, err), (0, "context has already been set\n", ""))

    def test_default_is_the_standard_librarys(self):
        """It differs between versions of Python; a pool that is given no context uses it."""
        code, out, err = run("-c", """
import allcores, allcores.pool, multiprocessing
assert multiprocessing.get_start_method(allow_none=True) is None
assert allcores.get_start_method(allow_none=True) is None
default = allcores.get_start_method()
assert default == multiprocessing.get_start_method()
assert default == allcores.get_all_start_methods()[0]
for Pool in (allcores.Pool, allcores.get_context().Pool, allcores.pool.Pool):
    with Pool(1) as pool:
        assert pool._ctx.get_start_method() == default
        assert type(pool._pool[0])._start_method in (default, None), pool._pool
        assert pool.map(abs, [-1]) == [1]
    pool.join()
print(allcores.get_all_start_methods() == multiprocessing.get_all_start_methods())
""")
        self.assertEqual((code, out, err), (0, "True\n", ""))

    def test_methods_are_asked_of_the_standard_library(self):
        """Also when it is replaced or patched, as some programs and tests do."""
        code, out, err = run("-c", """
import multiprocessing.context as theirs
import allcores
theirs._default_context.get_all_start_methods = lambda: ["one", "two"]
print(allcores.context._default_context.get_all_start_methods())
del theirs._concrete_contexts["spawn"]
try:
    allcores.get_context("spawn")
except ValueError as error:
    print(error)
""")
        self.assertEqual((code, out, err),
                         (0, "['one', 'two']\ncannot find context for 'spawn'\n", ""))


    def test_contexts_that_others_registered(self):
        """As joblib's loky is: by its own name, as the default, and no more when it has gone."""
        code, out, err = run("-c", """
import multiprocessing
import allcores
from multiprocessing import context as theirs

class OwnProcess(theirs.SpawnProcess):
    _start_method = "own"

class OwnContext(theirs.BaseContext):
    _name = "own"
    Process = OwnProcess

own = OwnContext()
allcores.context._concrete_contexts["own"] = own
for ask in allcores.get_context, allcores.get_context("fork").get_context:
    assert ask("own") is own
assert own.get_context("fork").get_start_method() == "fork"
assert type(allcores.get_context("fork")) is allcores.context.ForkContext
allcores.set_start_method("own")
assert multiprocessing.get_start_method() == allcores.get_start_method() == "own"
assert allcores.get_context() is own
allcores.set_start_method("fork", force=True)
assert allcores.get_context() is allcores.get_context("fork") is not own
theirs._concrete_contexts["spawn"] = own
assert allcores.get_context("spawn") is own
del theirs._concrete_contexts["own"]
try:
    allcores.get_context("own")
except ValueError as error:
    print(error)
""")
        self.assertEqual((code, out, err), (0, "cannot find context for 'own'\n", ""))


    @engine_only
    def test_in_the_place_of_multiprocessing(self):
        """A program that wants other packages to use this one puts it there. The submodules are
        the standard library's, so they are imported before."""
        for method in METHODS:
            code, out, err = run_script(self, f"""
{IN_PLACE}
import multiprocessing
from multiprocessing import synchronize, get_context, Queue, Process, util
from multiprocessing.pool import ThreadPool

def square(x):
    return x * x

if __name__ == "__main__":
    assert multiprocessing is allcores
    assert multiprocessing.get_start_method() == theirs.get_start_method()
    multiprocessing.set_start_method({method!r}, force=True)
    assert get_context().get_start_method() == theirs.get_start_method() == {method!r}
    with multiprocessing.Pool(2) as pool:
        print(*pool.map(square, range(3)), *pool.imap(square, [3]),
              pool.apply_async(square, (4,), callback=str).get(), type(pool).__module__)
    process = Process(target=square, args=(1,))
    process.start()
    process.join()
    print(process.exitcode)
""")
            self.assertEqual((code, out, err), (0, "0 1 4 9 16 allcores.pool\n0\n", ""))


class Processors(unittest.TestCase):
    """allcores.cpus and cpu_count."""

    def test_cpus(self):
        usable = len(os.sched_getaffinity(0))
        self.assertIn(allcores.cpus(), range(1, usable + 1))
        self.assertEqual(allcores.cpus(leave=0), allcores.cpus())
        self.assertEqual(allcores.cpus(leave=10**6), 1)
        self.assertEqual(allcores.cpus(leave=1), max(allcores.cpus() - 1, 1))

    def test_cpus_of_one(self):
        one = {min(os.sched_getaffinity(0))}
        before = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, one)
        self.assertEqual(allcores.cpus(), 1)

    def test_cpu_count(self):
        self.assertEqual(allcores.cpu_count(), multiprocessing.cpu_count())


class Engine(unittest.TestCase):
    """Which pool is in use, and why."""

    def test_named(self):
        wanted = os.environ.get("ALLCORES_ENGINE") or "allcores"
        self.assertEqual(allcores.engine, wanted)
        self.assertEqual(STDLIB, wanted == "stdlib")

    def test_standard_librarys(self):
        code, out, err = run("-c", """
import multiprocessing, multiprocessing.pool
import allcores, allcores.pool
assert allcores.engine == "stdlib", allcores.engine
assert allcores.pool is multiprocessing.pool
assert allcores.Pool == multiprocessing.Pool
assert allcores.get_context == multiprocessing.get_context
assert set(multiprocessing.__all__) <= set(allcores.__all__)
assert issubclass(allcores.WorkerDied, allcores.ProcessError)
assert issubclass(allcores.StartError, allcores.ProcessError)
assert issubclass(allcores.TaskCancelled, allcores.ProcessError)
assert allcores.cpus() >= 1
assert allcores.cpus(leave=10**6) == 1
with allcores.Pool(1) as pool:
    assert type(pool) is multiprocessing.pool.Pool
    print(pool.map(abs, [-1]))
pool.join()
""", ALLCORES_ENGINE="stdlib")
        self.assertEqual((code, out, err), (0, "[1]\n", ""))

    def test_unknown_engine_is_refused(self):
        code, _, err = run("-c", "import allcores", ALLCORES_ENGINE="nonsense")
        self.assertEqual(code, 1)
        self.assertIn("nonsense", err)

    def test_info(self):
        code, out, err = run("-m", "allcores", "--info")
        self.assertEqual((code, err), (0, ""))
        self.assertIn(allcores.__version__, out)
        self.assertIn(allcores.engine, out)
        self.assertRegex(out, rf"\b{allcores.cpus()}\b")
        self.assertIn(".".join(map(str, sys.version_info[:2])), out)
        self.assertGreater(len(out.splitlines()), 3)

    def test_info_of_the_standard_librarys(self):
        code, out, err = run("-m", "allcores", "--info", ALLCORES_ENGINE="stdlib")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("stdlib", out)
        self.assertIn("ALLCORES_ENGINE", out)

    def test_info_says_what_is_not_supported(self):
        _, out, _ = run("-m", "allcores", "--info")
        for name in ("free threading", "subinterpreters"):
            self.assertRegex(out, rf"(?m)^{name} +not supported")

    def test_command_line_refuses_nonsense(self):
        code, _, err = run("-m", "allcores", "--nonsense")
        self.assertEqual(code, 2)
        self.assertIn("usage", err)

    def test_import_starts_nothing(self):
        code, out, err = run("-c", """
import os, allcores
print(len(os.listdir("/proc/self/task")), allcores.active_children())
""")
        self.assertEqual((code, out, err), (0, "1 []\n", ""))

    def test_version(self):
        self.assertTrue(re.match(r"\d+\.\d+\.\d+", allcores.__version__))


@engine_only
class Imports(Case, unittest.TestCase):
    """What is imported, and when: it takes time."""

    POOLS_LIFE = """
import sys
import multiprocessing.util
before = set(sys.modules)
import allcores
ready = set(sys.modules)

def new_modules(_item=None):
    return sorted(set(sys.modules) - before)

with allcores.get_context("fork").Pool(2) as pool:
    pool.apply(abs, (-1,))
    pool.apply_async(abs, (-1,)).get()
    pool.apply_async(abs, (-1,), callback=abs).get()
    pool.map(abs, range(9))
    pool.map(abs, range(9), 2)
    pool.starmap(pow, [(2, 3)] * 9)
    pool.map_async(abs, range(9), callback=len).get()
    list(pool.imap(abs, range(9)))
    list(pool.imap_unordered(abs, iter(range(9)), 2))
    in_worker = pool.apply(new_modules) + pool.map(new_modules, [None])[0]
    pool.close()
    pool.join()
"""

    def test_of_a_pools_owner_and_workers(self):
        for shown in "new_modules()", "in_worker":
            with self.subTest(shown):
                code, out, err = run("-c", f"{self.POOLS_LIFE}print(*{shown})")
                self.assertEqual((code, err), (0, ""))
                self.assertEqual(set(out.split()) - POOL_IMPORTS, set())

    def test_all_of_them_are_there_before_the_first_pool(self):
        """As with import multiprocessing.pool: a program's first pool is no slower than others."""
        code, out, err = run("-c", f"{self.POOLS_LIFE}print(set(sys.modules) - ready)")
        self.assertEqual((code, out, err), (0, "set()\n", ""))

    def test_a_worker_that_was_not_forked_imports_no_pool(self):
        """It is ready sooner. What it imports later is our pool all the same."""
        for method in sorted(set(METHODS) - {"fork"}):
            with self.subTest(method):
                self.assertEqual(run_script(self, f"""
import sys
import allcores

def look(_):
    before = "allcores.pool" in sys.modules
    import multiprocessing.pool
    return before, allcores.pool.Pool.__module__, "allcores.pool" in sys.modules

if __name__ == "__main__":
    with allcores.get_context({method!r}).Pool(1) as pool:
        print(*pool.apply(look, (0,)))
"""), (0, "False allcores.pool True\n", ""))


@engine_only
class Interpreters(unittest.TestCase):
    """The engine serves the main interpreter, and needs the GIL. Elsewhere the standard library's
    pool is used, or the import fails where the program insists on the engine."""

    script = """
import sys
sys.path[:] = {path!r}
import os
os.environ["ALLCORES_ENGINE"] = ""
import allcores
print(allcores.engine, allcores.engine_reason, sep=": ")
assert allcores.Pool == allcores._multiprocessing.Pool
for name in [name for name in sys.modules if name.partition(".")[0] == "allcores"]:
    del sys.modules[name]
os.environ["ALLCORES_ENGINE"] = "allcores"
try:
    import allcores
except ImportError as error:
    print(error, flush=True)
"""
    why = "module allcores._core does not support loading in subinterpreters"

    def check_subinterpreter(self, make):
        if importlib.util.find_spec("_interpreters"):
            name = "_interpreters"  # 3.13
        elif importlib.util.find_spec("_xxsubinterpreters"):
            name = "_xxsubinterpreters"
        else:
            self.skipTest("this Python cannot make subinterpreters")
        script = self.script.format(path=sys.path)
        code, out, err = run("-c", f"""
import {name} as interpreters
made = interpreters.{make}
failed = interpreters.run_string(made, {script!r})
assert not failed, failed
interpreters.destroy(made)
""")
        self.assertEqual((code, out, err), (
            0, f"stdlib: the extension cannot be imported: {self.why}\n{self.why}\n", ""))

    def test_subinterpreter(self):
        """With a GIL of its own from 3.12 on."""
        self.check_subinterpreter("create()")

    def test_subinterpreter_as_embedding_programs_make_it(self):
        """It takes modules that say nothing of subinterpreters, and even those that say no."""
        self.check_subinterpreter("create('legacy')" if sys.version_info >= (3, 13) else
                                  "create(isolated=False)")

    def test_gil_kept_off(self):
        """As an interpreter without a GIL answers under -X gil=0."""
        code, out, err = run("-c", "import sys\nsys._is_gil_enabled = lambda: False\n"
                             + self.script.format(path=sys.path))
        why = "it needs the GIL, which -X gil=0 or PYTHON_GIL=0 keeps off"
        self.assertEqual((code, out, err), (
            0, f"stdlib: the extension cannot be imported: {why}\n{why}\n", ""))

    def test_gil(self):
        if not hasattr(sys, "_is_gil_enabled"):
            self.skipTest("this Python always has the GIL")
        self.assertTrue(sys._is_gil_enabled())


@engine_only
class Errors(unittest.TestCase):
    """The exceptions that a pool adds."""

    def test_family(self):
        for name in ("WorkerDied", "StartError", "TaskCancelled"):
            self.assertTrue(issubclass(getattr(allcores, name), multiprocessing.ProcessError))

    def test_signal_is_named_by_the_exit_code(self):
        for code, name in ((-9, "SIGKILL"), (-11, "SIGSEGV"), (3, None), (0, None)):
            self.assertEqual(allcores.WorkerDied(1, code).signal, name)


class Joblib(Case, unittest.TestCase):
    """joblib subclasses multiprocessing.pool.Pool, and goes on working beside us."""

    def test_multiprocessing_backend(self):
        try:
            import joblib
        except ImportError:
            self.skipTest("joblib is not here")
        with contextlib.closing(allcores.Pool(1)) as pool:
            found = joblib.Parallel(n_jobs=2, backend="multiprocessing")(
                joblib.delayed(tasks.square)(i) for i in range(20))
            self.assertEqual(found, [i * i for i in range(20)])
            self.assertEqual(pool.apply(tasks.square, (3,)), 9)
        pool.join()

    @engine_only
    def test_loky_backend(self):
        """Its context is registered in the standard library, and found there by its name, also with
        this package in multiprocessing's place."""
        if not importlib.util.find_spec("joblib"):
            self.skipTest("joblib is not here")
        for place in "", IN_PLACE:
            self.assertEqual(run_script(self, f"""
{place}
import joblib
import tasks
import allcores

if __name__ == "__main__":
    with joblib.parallel_config(backend="loky", n_jobs=2):
        print(joblib.Parallel()(joblib.delayed(tasks.square)(i) for i in range(5)))
    print(allcores.get_context("loky").get_start_method())
"""), (0, "[0, 1, 4, 9, 16]\nloky\n", ""))


if __name__ == "__main__":
    unittest.main()

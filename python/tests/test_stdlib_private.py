#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the package relies on in the standard library, though it is private there.

It stands in allcores/_stdlib_private.py and nowhere else, and this Python has it.
"""
import ast
import importlib
import inspect
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock
import weakref
from multiprocessing import context, forkserver, popen_fork, process, reduction, util

import allcores
from allcores import _stdlib_private as private
from support import engine_only

PACKAGE = pathlib.Path(allcores.__file__).parent
# Modules of multiprocessing whose private names are no names of ours. (A pool of ours has private
# names of the standard library's pool.)
WATCHED = ("context", "forkserver", "popen_fork", "popen_forkserver", "popen_spawn_posix", "process",
           "reduction", "resource_sharer", "resource_tracker", "spawn", "util")
UNDOCUMENTED = {"get_spawning_popen", "set_spawning_popen", "ExceptionWithTraceback",
                "MaybeEncodingError"}


def is_private(name):
    return name in UNDOCUMENTED or name.startswith("_") and not name.startswith("__")


# _stdlib_pool.py and _task_queue.py are about what programs do with private names of the standard library's pool.
EXCEPTIONS = {"_stdlib_private.py", "_stdlib_pool.py", "_task_queue.py"}


def sources():
    return [path for path in sorted(PACKAGE.glob("*.py")) if path.name not in EXCEPTIONS]


def names_defined(tree):
    """The names that a module, its classes and objects get: what is assigned or defined."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def private_names_of_stdlib():
    modules = [importlib.import_module(f"multiprocessing.{name}") for name in WATCHED]
    return {name for module in modules for name in names_defined(parse(pathlib.Path(module.__file__)))
            if is_private(name)}


class Search(ast.NodeVisitor):
    """Collects the uses of private names that are not the package's own."""

    def __init__(self, ours, theirs):
        self.ours = ours  # names that the package defines
        self.theirs = theirs  # private names of the standard library's modules
        self.foreign = set()  # names of this module that stand for the standard library's objects
        self.own = {"self", "cls"}  # and of the package's modules
        self.found = []

    def note(self, node, name):
        self.found.append((node.lineno, name))

    def visit_Import(self, node):
        for alias in node.names:
            self.foreign.add((alias.asname or alias.name).partition(".")[0])
            for part in alias.name.split("."):
                if is_private(part):
                    self.note(node, part)

    def visit_ImportFrom(self, node):
        if node.level:
            self.own.update(alias.asname or alias.name for alias in node.names)
        if node.level or node.module == "__future__":
            return
        for part in [*node.module.split("."), *(alias.name for alias in node.names)]:
            if is_private(part):
                self.note(node, part)
        self.foreign.update(alias.asname or alias.name for alias in node.names)

    def visit_Attribute(self, node):
        self.check(node, node.value, node.attr)
        self.generic_visit(node)

    def visit_Call(self, node):
        function = getattr(node.func, "id", "")
        if function in ("getattr", "hasattr", "setattr", "delattr") and len(node.args) > 1:
            name = getattr(node.args[1], "value", None)
            if isinstance(name, str):
                self.check(node, node.args[0], name)
        self.generic_visit(node)

    def check(self, node, owner, name):
        if not is_private(name):
            return
        owner_name = owner.id if isinstance(owner, ast.Name) else ""
        if (owner_name in self.foreign or name not in self.ours
                or name in self.theirs and owner_name not in self.own):
            self.note(node, name)


def search(tree, ours, theirs):
    found = Search(ours, theirs)
    found.visit(tree)
    return found.found


class OnePlace(unittest.TestCase):
    def setUp(self):
        trees = {path: parse(path) for path in sources()}
        self.ours = {name for tree in trees.values() for name in names_defined(tree)}
        self.ours.update(names_defined(parse(PACKAGE / "_core.pyi")))
        self.theirs = private_names_of_stdlib()
        self.trees = trees

    def test_no_other_module_uses_a_private_name(self):
        for path, tree in self.trees.items():
            with self.subTest(path.name):
                self.assertEqual(search(tree, self.ours, self.theirs), [])

    def test_the_search_finds_each_kind(self):
        for line, name in (
                ("import _signal", "_signal"),
                ("from multiprocessing.process import _children", "_children"),
                ("from multiprocessing.context import get_spawning_popen", "get_spawning_popen"),
                ("from multiprocessing import process as p\np._children.clear()", "_children"),
                ("import multiprocessing\nmultiprocessing._anything()", "_anything"),
                ("worker._popen.wait()", "_popen"),
                ("getattr(worker, '_identity', ())", "_identity"),
                ("del worker._target", "_target"),
                ("class Process:\n def f(self): return self._no_name_of_ours", "_no_name_of_ours")):
            with self.subTest(line):
                found = search(ast.parse(line), self.ours, self.theirs)
                self.assertEqual([found_name for _, found_name in found], [name])
        self.assertEqual(search(ast.parse("self._core.stat(); other.__dict__"), self.ours,
                                self.theirs), [])


class Contexts(unittest.TestCase):
    def test_default_context(self):
        self.assertIs(private.default_context(), context._default_context)
        self.assertEqual(private.default_context().get_start_method(),
                         multiprocessing.get_start_method())
        self.assertEqual(multiprocessing.get_start_method.__self__, private.default_context())

    def test_start_method(self):
        for method in context._default_context.get_all_start_methods():
            made = context._default_context.get_context(method).Process()
            self.assertEqual(private.start_method_of(made), method)
        default = private.start_method_of(context.Process())
        self.assertEqual(default, context._default_context.get_start_method())

    def test_pickled_for_start(self):
        self.assertFalse(private.is_pickled_for_start())
        context.set_spawning_popen(self)
        self.addCleanup(context.set_spawning_popen, None)
        self.assertTrue(private.is_pickled_for_start())


class HelperProcesses(unittest.TestCase):
    """is_helper_process, by whether a child has imported allcores.pool."""

    PROGRAM = """
import multiprocessing, sys
import allcores
from allcores import _stdlib_private as private

def tell(when):
    print(when, private.is_helper_process(), flush=True)

class Told:
    def __setstate__(self, state):
        tell("unpickled")

    def __getstate__(self):
        return 1

if __name__ == "__main__":
    tell("main")
    child = multiprocessing.get_context("spawn").Process(target=tell, args=("child",))
    child.extra = Told()
    child.start()
    child.join()
"""

    def test_spawn(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "program.py")
            path.write_text(self.PROGRAM)
            done = subprocess.run([sys.executable, path], capture_output=True, text=True,
                                  timeout=60)
        self.assertEqual(done.stdout.split("\n")[:2], ["main False", "unpickled True"], done.stderr)

    def test_forkserver(self):
        """What it preloads is imported in it."""
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "preloaded.py").write_text(
                "from allcores import _stdlib_private\n"
                "print('preloaded', _stdlib_private.is_helper_process(), flush=True)")
            script = ("from multiprocessing import forkserver as f\n"
                      "f.set_forkserver_preload(['preloaded']); f.ensure_running()\n"
                      "from multiprocessing import context\n"
                      "p = context.ForkServerProcess(target=abs, args=(1,)); p.start(); p.join()")
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                                  timeout=60, env=dict(os.environ, PYTHONPATH=os.pathsep.join(
                                      [folder, str(PACKAGE.parent)])))
        self.assertEqual(done.stdout, "preloaded True\n", done.stderr)


class Processes(unittest.TestCase):
    def new_process(self):
        return context.ForkProcess(target=abs, args=(1,))

    def test_numbers(self):
        first = self.new_process()
        self.assertEqual(private.number_of(self.new_process()), private.number_of(first) + 1)
        private.set_next_number(private.number_of(first) + 1000)
        later = self.new_process()
        self.assertEqual(private.number_of(later), private.number_of(first) + 1000)
        self.assertTrue(later.name.endswith(f"-{private.number_of(later)}"), later.name)

    def test_parent(self):
        other = self.new_process()
        private.set_parent(other, os.getppid())
        with self.assertRaises(AssertionError):
            other.join()

    def test_target(self):
        self.assertIs(private.target_of(self.new_process()), abs)

    def test_a_start(self):
        """note_started leaves what Process.start leaves, and takes as much away."""
        child = self.new_process()
        self.assertIsNone(private.popen_of(child))
        before = set(child.__dict__)
        child.start()
        self.addCleanup(child.join)
        theirs = before ^ set(child.__dict__)
        noted = self.new_process()
        popen = object()
        private.note_started(noted, type(noted), popen)
        self.addCleanup(private.disown, [noted])
        self.assertEqual((before ^ set(noted.__dict__)) | {"_sentinel"}, theirs)
        self.assertIs(private.popen_of(noted), popen)
        self.assertLessEqual({noted, child}, process._children)

    def test_children(self):
        child = self.new_process()
        child.start()
        self.assertIs(private.child_popen_of(child), private.popen_of(child))
        self.assertIsInstance(private.popen_of(child), popen_fork.Popen)
        self.assertIsNone(private.popen_of(child).returncode)
        private.disown([child])
        self.assertNotIn(child, process._children)
        child.join()
        self.assertEqual(private.popen_of(child).returncode, 0)
        self.assertEqual(private.popen_of(child).pid, child.pid)
        child.close()
        self.assertIsNone(private.popen_of(child))

    def test_forkserver_processes_are_nobodys_children(self):
        child = context.ForkServerProcess(target=abs, args=(1,))
        child.start()
        self.assertIsNone(private.child_popen_of(child))
        child.join()

    def test_lazy_sentinel(self):
        class Lazy(private.LazySentinel, context.ForkProcess):
            pass

        class Popen:
            sentinel = 123

            def close(self):
                pass

            def poll(self):
                return 0

        made = context.ForkProcess()
        private.note_started(made, Lazy, Popen())
        self.addCleanup(private.disown, [made])
        self.assertEqual(made.sentinel, 123)
        made.close()


class Forks(unittest.TestCase):
    def test_what_counts_as_the_standard_librarys_fork(self):
        class Own(context.ForkProcess):
            pass

        class Starts(context.ForkProcess):
            def start(self):
                super().start()

        self.assertTrue(private.forks_plainly(context.ForkProcess))
        self.assertTrue(private.forks_plainly(Own))
        self.assertFalse(private.forks_plainly(Starts))
        for owner, name in ((context.ForkProcess, "_Popen"), (popen_fork.Popen, "_launch"),
                            (os, "fork")):
            with self.subTest(name), unittest.mock.patch.object(owner, name, lambda *args: None):
                self.assertFalse(private.forks_plainly(context.ForkProcess))

    def test_std_streams(self):
        script = ("import sys; from allcores import _stdlib_private as p; import os\n"
                  "sys.stdout.write('written '); p.flush_std_streams(); os._exit(0)")
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.stdout, "written ", done.stderr)

    def test_run_in_child_is_the_standard_librarys_child(self):
        """The same as Process.start: exit code, atexit functions, finalizers, output."""
        script = """
import atexit, os, sys
from multiprocessing import context, util
from allcores import _stdlib_private as private

def work():
    atexit.register(print, "child's atexit")
    util.Finalize(None, print, args=("child's finalizer",), exitpriority=1)
    print("work")
    sys.exit(3)

atexit.register(print, "parent's atexit")
process = context.ForkProcess(target=work)
if sys.argv[1] == "ours":
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os._exit(private.run_in_child(process, None))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    process.start()
    process.join()
    print(process.exitcode)
"""
        ours, theirs = (subprocess.run([sys.executable, "-c", script, how], capture_output=True,
                                       text=True, timeout=60) for how in ("ours", "theirs"))
        self.assertEqual((ours.stdout, ours.stderr), (theirs.stdout, theirs.stderr))
        self.assertIn("work\n", ours.stdout)
        self.assertIn("child's finalizer\n", ours.stdout)

    def test_resource_tracker(self):
        from multiprocessing import resource_tracker

        private.keep_resource_tracker(True)
        intent = getattr(resource_tracker, "_fork_intent", None)
        if intent is None:
            # Then nothing in the module knows of forks.
            self.assertNotIn("register_at_fork", inspect.getsource(resource_tracker))
        else:
            self.assertTrue(intent.preserve_fd)
            private.keep_resource_tracker(False)
            self.assertFalse(intent.preserve_fd)


class Descriptors(unittest.TestCase):
    """In a program of its own, since it replaces what it has no way to put back."""

    def check(self, text):
        code = "import os, sys\nfrom multiprocessing import reduction\n" \
               "from allcores import _stdlib_private as private\n" + inspect.cleandoc(text)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_before_sharing(self):
        self.check("""
            told = []
            DupFd = reduction.DupFd  # as programs import it
            private.before_sharing(lambda: told.append(1))
            assert "multiprocessing.resource_sharer" not in sys.modules
            assert not told
            for _ in range(2):
                DupFd(0)
                assert told == [1], told
            assert reduction.HAVE_SEND_HANDLE is True
            private.before_sharing(lambda: told.append(2))  # resource_sharer is there
            assert told == [1, 2], told
            """)

    def test_replace_shared(self):
        self.check("""
            from multiprocessing.resource_sharer import DupFd  # before it is replaced
            private.replace_shared(lambda fd: "ours" if fd == 1 else None)
            assert reduction.DupFd(1) == DupFd(1) == DupFd(fd=1) == "ours"
            shared = reduction.DupFd(0)
            assert type(shared) is DupFd
            again = reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(shared))
            assert type(again) is DupFd and again._id == shared._id
            """)

    def test_share_descriptor(self):
        self.check("""
            import threading
            reader, writer = os.pipe()
            fetched = threading.Event()
            shared = private.share_descriptor(writer, fetched.set)
            os.close(writer)
            again = reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(shared))
            assert not fetched.is_set()
            number = again.detach()
            assert fetched.wait(60)
            os.write(number, b"text")
            os.close(number)
            assert os.read(reader, 9) == b"text"
            assert os.read(reader, 9) == b""
            """)


class ForkServers(unittest.TestCase):
    def test_preload(self):
        before = forkserver._forkserver._preload_modules
        self.addCleanup(forkserver.set_forkserver_preload, before)
        forkserver.set_forkserver_preload(["__main__", "json"])
        for _ in range(2):
            private.preload_in_forkserver("allcores._worker")
        self.assertEqual(forkserver._forkserver._preload_modules,
                         ["__main__", "json", "allcores._worker"])

    def test_pid(self):
        forkserver.ensure_running()
        pid = private.forkserver_pid()
        words = b""
        while b"multiprocessing.forkserver" not in words:  # it executes a moment later
            self.assertIsNotNone(private.forkserver_pid())
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


class Pools(unittest.TestCase):
    def test_tasks(self):
        self.assertEqual(list(private.cut_into_tasks(abs, range(5), 2)),
                         [(abs, (0, 1)), (abs, (2, 3)), (abs, (4,))])


class Failures(unittest.TestCase):
    def test_with_traceback(self):
        try:
            raise KeyError(1)
        except KeyError as caught:
            error = caught
        wrapped = private.with_traceback(error, error.__traceback__)
        self.assertIs(wrapped.exc, error)
        rebuilt = reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(wrapped))
        self.assertIsInstance(rebuilt, KeyError)
        self.assertIn("raise KeyError(1)", str(rebuilt.__cause__))

    def test_maybe_encoding_error(self):
        error = private.maybe_encoding_error("why", "what")
        self.assertIsInstance(error, allcores.pool.MaybeEncodingError)
        self.assertEqual((error.exc, error.value), ("'why'", "'what'"))


class Others(unittest.TestCase):
    def test_plain_signal(self):
        self.assertIs(private.plain_signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGINT))
        mask = private.plain_signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.assertEqual(mask, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        self.assertTrue(callable(private.plain_signal.signal))

    @engine_only
    def test_locks_of_imports(self):
        """ext/undisturbed.c reads them: weak references to locks that have an owner."""
        import _frozen_importlib

        lock = _frozen_importlib._get_module_lock("no_such_module")
        reference = _frozen_importlib._module_locks["no_such_module"]
        self.assertIsInstance(reference, weakref.ref)
        self.assertIs(reference(), lock)
        lock.acquire()
        self.assertEqual(lock.owner, threading.get_ident())
        lock.release()
        self.assertNotEqual(lock.owner, threading.get_ident())

    def test_names_that_have_no_underscore(self):
        for name in ("debug", "sub_warning", "Finalize", "is_exiting", "register_after_fork"):
            self.assertIn(name, util.__all__)
        self.assertLessEqual({"DupFd", "ForkingPickler"}, set(reduction.__all__))


if __name__ == "__main__":
    unittest.main()

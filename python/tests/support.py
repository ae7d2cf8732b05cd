# SPDX-License-Identifier: MIT
"""What the tests of the package share: pools, waiting, scripts, three start methods."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import allcores
import sessions
import tasks

METHODS = ("fork", "spawn", "forkserver")
PATIENCE = 20.0  # seconds within which anything must have happened
STDLIB = allcores.engine == "stdlib"

if STDLIB and os.environ.get("ALLCORES_ENGINE") != "stdlib":
    raise ImportError(f"the engine is not there, and was not left out: {allcores.engine_reason}")

engine_only = unittest.skipIf(STDLIB, "a defect of the standard library's pool")


def for_each_method(namespace, *bases):
    """Make a test case of every base for fork, spawn and forkserver.

    The bases are no TestCases themselves, so that they don't run.
    """
    for base in bases:
        for method in METHODS:
            name = f"{base.__name__}_{method}"
            body = {"method": method, "__module__": namespace["__name__"], "__doc__": base.__doc__}
            namespace[name] = type(name, (base, unittest.TestCase), body)


class Case:
    """A folder for each test, a pool of two for each class that uses self.pool."""

    method = None
    _pool = None

    @classmethod
    def tearDownClass(cls):
        if cls._pool is not None:
            stop(cls._pool)
            cls._pool = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="allcores-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.notes = os.path.join(self.folder, "notes")

    @property
    def context(self):
        return allcores.get_context(self.method)

    @property
    def pool(self):
        """The class's pool, for tests that leave it as it was."""
        if type(self)._pool is None:
            type(self)._pool = self.context.Pool(2)
        return self._pool

    def new_pool(self, *args, **kwds):
        """A pool of the test's own, terminated after it."""
        pool = self.context.Pool(*args, **kwds)
        self.addCleanup(stop, pool)
        return pool

    def path(self, name):
        return os.path.join(self.folder, name)

    def wait_until(self, condition, what="it", seconds=PATIENCE):
        """Poll until condition() is true; fail after the given seconds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.fail(f"{what} has not happened within {seconds:g} s")
            time.sleep(0.005)

    def wait_gone(self, pids):
        self.wait_until(lambda: not any(map(alive, pids)), f"the end of {list(pids)}")

    def read_notes(self):
        return tasks.read_notes(self.notes)


def stop(pool):
    pool.terminate()
    pool.join()


def alive(pid):
    """Whether the process runs; one that waits for its parent to reap it does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(pool):
    return [worker.pid for worker in pool._pool]


class Script:
    """A program of its own, in a session of its own, which is killed at the end.

    It finds the tests' modules, and is written to a file, as spawn demands.
    """

    def __init__(self, case, text, *args, name="script.py", stdin=subprocess.DEVNULL, **env):
        path = case.path(name)
        with open(path, "w") as file:
            file.write(text)
        folder = os.path.dirname(os.path.abspath(__file__))
        env = dict(os.environ, **env)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, env.get("PYTHONPATH")]))
        self.case = case
        self.process = subprocess.Popen(
            [sys.executable, path, *map(str, args)], env=env, text=True, start_new_session=True,
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        case.addCleanup(self.kill)
        self.pid = self.process.pid

    def first_line(self):
        """Of its output; not a byte more, which a buffer would keep from finish."""
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(self.process.stdout.fileno(), 1)):
            line += byte
        return line.decode()

    def finish(self, seconds=PATIENCE):
        """(exit code, stdout, stderr), and nothing is left; raises subprocess.TimeoutExpired."""
        out, err = self.process.communicate(timeout=seconds)
        self.check_gone(err)
        return self.process.returncode, out, err

    def check_gone(self, said=""):
        """It has ended, and all that it started: workers, those that replaced them, and the
        servers of spawn and forkserver, which end a moment later."""
        left = sessions.left(self.pid, PATIENCE)
        self.case.assertEqual(left, [], f"{sessions.describe(left)} {said}")

    def kill(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.out, self.err = self.process.communicate()


def run_script(case, text, *args, **env):
    return Script(case, text, *args, **env).finish()

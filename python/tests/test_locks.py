#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Locks that another thread of the owner holds while workers end and are replaced.

A forked process has a copy of each lock, and of no thread but the one that forked it: a lock that
was held at the fork is held for ever in it. Here each kind of lock is taken by a thread after
Pool(), and kept; meanwhile workers die and are recycled, and each of their successors takes that
lock. By fork none of them may hang, since they come from the template, whose locks are free.

ALLCORES_REPLACEMENTS=N in the environment: so many workers are replaced in all.
"""
import os
import unittest
from unittest import mock

from programs import Program
from support import PATIENCE, Case, Script, engine_only

KINDS = ("import", "logging", "handler", "stdout", "file", "user", "malloc")
REPLACEMENTS = int(os.environ.get("ALLCORES_REPLACEMENTS", 640))
EACH = max(REPLACEMENTS // (len(KINDS) + 1), 1)


class Buffered(Program):
    """A program by fork, whose stdout and stderr are buffered as usual."""

    method = "fork"

    def setUp(self):
        super().setUp()
        patch = mock.patch.dict(os.environ, PYTHONUNBUFFERED="")
        patch.start()
        self.addCleanup(patch.stop)


@engine_only
class Held(Buffered, unittest.TestCase):
    """Of each kind, alone and all at once."""

    limit = 30.0 + EACH / 2

    def check(self, *kinds):
        """Each worker that took part has used the lock, or died after it."""
        script = self.start(f"""
import holders
kinds = {kinds!r}
uses = holders.prepare(kinds, folder)
pool = context.Pool(2, maxtasksperchild=1)
other = context.Pool(1)
tell(pool)
holders.hold(kinds)
holders.replace_many(pool, uses, {EACH}, notes)
tasks.note(notes, "closing")
pool.close()
pool.join()
other.terminate()
other.join()
tasks.note(notes, "over")
os._exit(0)
""")
        self.wait_until(lambda: self.read_notes()[-1:] == ["over"] or
                        script.process.poll() is not None, f"the end after {self.read_notes()}",
                        self.limit - 10)
        self.assertEqual(self.read_notes(), [f"{EACH} workers replaced", "closing", "over"])
        self.finish(script, 0)

    def test_import(self):
        """Of a module that is being imported, which tasks import, too."""
        self.check("import")

    def test_logging(self):
        """The one of the module logging, for all loggers."""
        self.check("logging")

    def test_handler(self):
        """The one of a logging handler."""
        self.check("handler")

    def test_stdout(self):
        """The one of sys.stdout's buffer: a pipe is full, and a thread waits for its reader."""
        self.check("stdout")

    def test_file(self):
        """The one of another file's buffer."""
        self.check("file")

    def test_user(self):
        """A lock of the user's own that tasks take."""
        self.check("user")

    def test_malloc(self):
        """Those of the allocator, by eight threads."""
        self.check("malloc")

    def test_all(self):
        self.check(*KINDS)


@engine_only
class Idle(Buffered, unittest.TestCase):
    """Workers that are killed from outside, idle, while locks are held."""

    def test_each_kind(self):
        script = self.start(f"""
import families, holders
kinds = {KINDS!r}
uses = holders.prepare(kinds, folder)
pool = context.Pool(2)
tell(pool)
holders.hold(kinds)
for number in range(10):
    families.replace(pool, number % 2)
    for use in uses:
        assert pool.apply_async(use).get(20) == "used", use
tasks.note(notes, "over")
os._exit(0)
""")
        self.wait_until(lambda: self.read_notes() or script.process.poll() is not None, "the end",
                        2 * PATIENCE)
        out, err = self.finish(script, 0)
        self.assertEqual((self.read_notes(), err), (["over"], ""))


@engine_only
class ImportLock(Program, unittest.TestCase):
    """A module is being imported in another thread while a worker dies: its replacement's task
    imports that module, too."""

    method = "fork"

    def test_import_that_ends_in_time(self):
        script = self.start("""
import importlib
sys.path.insert(0, folder)
with open(folder + "/slow_module.py", "w") as file:
    file.write("import time\\ntime.sleep(1)\\nanswer = 42\\n")
def use():
    import slow_module
    return slow_module.answer
pool = context.Pool(1)
tell(pool)
thread = threading.Thread(target=importlib.import_module, args=("slow_module",))
thread.start()
time.sleep(0.2)
try:
    pool.apply_async(tasks.die, ("kill",)).get(10)
except allcores.WorkerDied as error:
    print(type(error).__name__)
thread.join()
print(pool.apply_async(use).get(10))
pool.terminate()
""")
        self.assertEqual(self.finish(script, 0), ("WorkerDied\n42\n", ""))


@engine_only
class Input(Case, unittest.TestCase):
    """Pool() in a thread, while the main thread waits in input(), which holds locks of stdin."""

    method = "fork"

    text = """
import os, sys, threading, time
import allcores, tasks
notes, terminal = sys.argv[1], sys.argv[2] == "terminal"

def work():
    time.sleep(0.2)  # by now the main thread waits
    for _ in range(2):
        pool = allcores.get_context("fork").Pool(2, maxtasksperchild=1)
        assert pool.map(tasks.square, range(6), 1) == [i * i for i in range(6)]
        assert pool.apply(tasks.read_input, (1,)) == (1, "")
        pool.close()
        pool.join()
    with allcores.get_context("fork").Pool(1) as pool:
        pool.apply(tasks.nothing)
    tasks.note(notes, "worked")
    if terminal:
        os.write(master, b"a line\\n")

if terminal:
    import pty
    master, slave = pty.openpty()
    for number in range(2):
        os.dup2(slave, number)
thread = threading.Thread(target=work)
thread.start()
tasks.note(notes, input())
thread.join()
"""

    def check(self, kind):
        reading, writing = os.pipe()
        script = Script(self, self.text, self.notes, kind, stdin=reading)
        os.close(reading)
        try:
            self.wait_until(lambda: self.read_notes() or script.process.poll() is not None,
                            "what the thread does")
            if kind == "pipe":
                os.write(writing, b"a line\n")
        finally:
            os.close(writing)
        code, _, err = script.finish()
        self.assertEqual((code, err, self.read_notes()), (0, "", ["worked", "a line"]))

    def test_from_a_pipe(self):
        self.check("pipe")

    def test_from_a_terminal(self):
        """There the C library's own lock of stdin is held."""
        self.check("terminal")


@engine_only
class Output(Buffered, unittest.TestCase):
    """What the owner has printed and not yet written is written once."""

    def test_buffers_are_written_before_the_fork(self):
        script = self.start("""
pool = context.Pool(1)
tell(pool)
sys.stdout.write("before ")
sys.stderr.write("error ")
with context.Pool(2, maxtasksperchild=1) as other:
    sys.stdout.write("after ")
    other.map(tasks.square, range(6), 1)
    other.close()
    other.join()
pool.terminate()
""")
        self.assertEqual(self.finish(script, 0), ("before after ", "error "))

    def test_workers_print_each_line_once(self):
        script = self.start("""
def say(number):
    print("line", number)  # in pieces, but for a buffer
pool = context.Pool(2, maxtasksperchild=1)
tell(pool)
pool.map(say, range(10), 1)
pool.close()
pool.join()
""")
        out, err = self.finish(script, 0)
        self.assertEqual(sorted(out.splitlines()), sorted(f"line {i}" for i in range(10)))
        self.assertEqual(err, "")


if __name__ == "__main__":
    unittest.main()

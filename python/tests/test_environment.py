#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs that have done something to their process which a pool must bear: SIGCHLD, standard
streams, descriptors. And initializers whose errors are hard to tell.
"""
import unittest

import allcores
import lifecycle
import tasks
from programs import AT_ONCE, Program
from support import PATIENCE, Case, engine_only, for_each_method

HEAD = """
import io, families, lifecycle
def squares(pool):
    return pool.map(tasks.square, range(8), 1) == [i * i for i in range(8)]
"""


class Told(Program):
    """A program, and the lines that it prints after its workers' pids."""

    def tell(self, body):
        out, err = self.finish(self.start(body, HEAD), 0)
        self.assertEqual(err, "")
        return out.splitlines()


@engine_only
class Children(Told):
    """Others reap the owner's children, or have the kernel do it: nobody waits for what can't be
    known any more."""

    ways = {
        "ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "handler": "signal.signal(signal.SIGCHLD, reap_all)",
        "thread": "threading.Thread(target=reap_for_ever, daemon=True).start()",
    }

    reapers = """
def reap_all(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
def reap_for_ever():
    while True:
        reap_all()
        time.sleep(0.001)
"""

    def check(self, body, *expected):
        for name, way in self.ways.items():
            with self.subTest(name):
                lines = self.tell(self.reapers + way + body)
                self.assertEqual(lines[:-1], list(expected))
                self.assertLess(float(lines[-1]), AT_ONCE)  # ten seconds for each worker, once

    def test_close_and_join(self):
        self.check("""
pool = context.Pool(3)
tell(pool)
print(squares(pool))
start = time.monotonic()
pool.close()
pool.join()
print([worker.is_alive() for worker in pool._pool])
print(time.monotonic() - start)
""", "True", "[False, False, False]")

    def test_terminate(self):
        self.check("""
pool = context.Pool(2)
tell(pool)
pool.map_async(tasks.nap, [100] * 4, 1)
while pool._core.stat()["running"] < 2:  # a thread of the pool submits the map
    time.sleep(0.001)
print(pool.apply_async(tasks.square, (3,)).ready())
start = time.monotonic()
pool.terminate()
pool.join()
print(time.monotonic() - start)
""", "False")

    def test_deaths(self):
        """Each is told, and the worker replaced."""
        self.check("""
pool = context.Pool(2)
tell(pool)
start = time.monotonic()
for how in "kill", "os._exit":
    try:
        pool.apply(tasks.die, (how,))
    except allcores.WorkerDied:
        print("died")
    print(squares(pool))
pool.close()
pool.join()
print(time.monotonic() - start)
""", "died", "True", "died", "True")

    def test_recycled(self):
        self.check("""
pool = context.Pool(2, maxtasksperchild=1)
tell(pool)
start = time.monotonic()
print(squares(pool))
pool.close()
pool.join()
print(time.monotonic() - start)
""", "True")

    def test_processes_beside(self):
        """A program that waits for its own children gets these."""
        lines = self.tell("""
pool = context.Pool(2, maxtasksperchild=1)
tell(pool)
ends = []
def work():
    for _ in range(10):
        ends.append(squares(pool))
thread = threading.Thread(target=work)
thread.start()
codes = []
for number in range(20):
    child = os.fork()
    if child == 0:
        os._exit(number)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
print(codes == list(range(20)), set(ends))
pool.close()
pool.join()
""")
        self.assertEqual(lines, ["True {True}"])


@engine_only
class ChildrenByFork(Told, unittest.TestCase):
    """What the owner hears of the ends of its workers, which are not its children."""

    method = "fork"

    def test_no_signal_for_each_worker(self):
        lines = self.tell("""
came = []
signal.signal(signal.SIGCHLD, lambda *_: came.append(True))
pool = context.Pool(2, maxtasksperchild=1)
tell(pool)
squares(pool)
families.replace(pool)
print(came)
""")
        self.assertEqual(lines, ["[]"])

    def test_exit_codes_are_known_all_the_same(self):
        """The template tells them, whoever reaps the owner's children."""
        for way in Children.ways.values():
            lines = self.tell(Children.reapers + way + """
pool = context.Pool(1)
tell(pool)
for how in "kill", "os._exit", "segv":
    try:
        pool.apply(tasks.die, (how,))
    except allcores.WorkerDied as error:
        print(error.exitcode)
print(squares(pool))
worker = pool._pool[0]  # now it is the last replacement
pool.close()
pool.join()
print(worker.exitcode)
""")
            self.assertEqual(lines, ["-9", "7", "-11", "True", "0"])


@engine_only
class Streams(Told, unittest.TestCase):
    """sys.stdout and sys.stderr are not what they were: the pool works, perhaps without line
    buffering. Of forked workers, which inherit them."""

    method = "fork"

    classes = """
class Plain:
    "What programs put there that show output in a window."
    def write(self, text):
        return len(text)
    def flush(self):
        pass
class Silent:
    "Has nothing but write."
    def write(self, text):
        return len(text)
def raises(error):
    class Raising(Plain):
        def reconfigure(self, **kwds):
            raise error
    return Raising()
class Hostile(Plain):
    def __getattr__(self, name):
        raise RuntimeError(name)
class Property(Plain):
    @property
    def reconfigure(self):
        raise ValueError("not now")
detached = io.TextIOWrapper(io.BytesIO())
detached.detach()
closed = io.StringIO()
closed.close()
"""

    def check(self, stream):
        """For one of the two and for both."""
        for names in ("stdout",), ("stderr",), ("stdout", "stderr"):
            with self.subTest(names):
                change = "".join(f"sys.{name} = {stream}\n" for name in names)
                lines = self.tell(self.classes + """
out = sys.stdout
def say(number):
    print(number)
    return number
print(flush=True)
""" + change + """
pool = context.Pool(2, maxtasksperchild=2)
results = [pool.map(tasks.square, range(8), 1), pool.apply(tasks.same, (3,))]
pool.close()
pool.join()
with context.Pool(1) as other:
    results.append(other.apply(tasks.same, (4,)))
print(results, [worker.exitcode for worker in pool._pool], file=out, flush=True)
sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
""")
                squares = [i * i for i in range(8)]
                self.assertEqual(lines, [f"{[squares, 3, 4]} [0, 0]"])

    def test_none(self):
        self.check("None")

    def test_closed(self):
        self.check("closed")

    def test_detached(self):
        self.check("detached")

    def test_replaced(self):
        self.check("Plain()")

    def test_without_flush(self):
        self.check("Silent()")

    def test_reconfigure_raises(self):
        for error in ("ValueError('no')", "io.UnsupportedOperation('no')", "OSError(5, 'no')",
                      "TypeError('no')", "RuntimeError('no')"):
            self.check(f"raises({error})")

    def test_attributes_raise(self):
        self.check("Hostile()")
        self.check("Property()")

    def test_closed_by_its_descriptor(self):
        lines = self.tell("""
pool = context.Pool(1)
tell(pool)
out = os.fdopen(os.dup(1), "w")
os.close(1)
os.close(2)
with context.Pool(2, maxtasksperchild=1) as other:
    print(squares(other), file=out, flush=True)
os.dup2(out.fileno(), 1)
os.dup2(out.fileno(), 2)
""")
        self.assertEqual(lines, ["True"])

    def test_line_buffering_where_it_can_be(self):
        """What a task has printed is there when its result is."""
        lines = self.tell("""
sys.stderr = raises(ValueError("no"))
pool = context.Pool(1)
tell(pool)
pool.apply(print, ("from a worker",))
pool._pool[0].kill()
print("over")
sys.stderr = sys.__stderr__
""".replace("sys.stderr = raises", self.classes.strip() + "\nsys.stderr = raises"))
        self.assertEqual(lines, ["from a worker", "over"])


@engine_only
class Descriptors(Told, unittest.TestCase):
    """0, 1 and 2 are closed: what a C library writes to them must not meet anything of ours.
    See also test_defects.StandardDescriptors."""

    method = "fork"

    body = """
out = os.fdopen(os.dup2(1, 100), "w")
print(flush=True)
for number in range(3):
    os.close(number)
def taken(pid):
    return {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)
            if os.path.lexists(f"/proc/{pid}/fd/{number}")
            and os.readlink(f"/proc/{pid}/fd/{number}") != "/dev/null"}
def warn():
    for number in range(3):
        try:
            os.write(number, b"warning: something is odd\\n" * 4000)
        except OSError:
            pass
with context.Pool(2, maxtasksperchild=MOST) as pool:
    for _ in range(2):
        print(taken(os.getpid()), file=out)
        for pid in families.servers(pool):
            print(taken(pid), file=out)
        warn()
        print(squares(pool), file=out)
    pool.close()
    pool.join()
out.flush()
os._exit(0)
"""

    def check(self, most):
        lines = self.tell(self.body.replace("MOST", str(most)))
        self.assertEqual(set(lines), {"{}", "True"}, lines)
        self.assertEqual(lines.count("True"), 2)
        self.assertGreaterEqual(lines.count("{}"), 4)  # the owner and its template, twice

    def test_recycled_workers(self):
        self.check(1)

    def test_lasting_workers(self):
        self.check(None)


@engine_only
class Initializers(Case):
    """Whatever an initializer raises and however it is named, StartError gives the cause, with
    what can't be shown replaced."""

    words = {
        "NUL": ["ValueError", "the file", "is empty"],
        "NUL first": ["ValueError", "the file is empty"],
        "surrogate": ["ValueError", "no file", "here"],
        "surrogate alone": ["ValueError"],
        "at length": ["ValueError"],
        "mute": ["Mute"],
        "endless": ["Endless"],
        "no text": ["NoText"],
    }

    def check(self, initializer, initargs, *words):
        pool = self.new_pool(1, initializer, initargs)
        with self.assertRaises(allcores.StartError) as caught:
            pool.apply_async(tasks.square, (3,)).get(PATIENCE)
        text = str(caught.exception)
        for word in words:
            self.assertIn(word, text)
        self.assertNotIn("\0", text)
        text.encode()  # it can be printed

    def test_errors(self):
        for name, words in self.words.items():
            with self.subTest(name):
                self.check(lifecycle.fail_with, (name,), "fail_with", *words)

    def test_names(self):
        """Of initializers that work: no error."""
        for kind in "surrogate", "NUL", "number", "raises":
            with self.subTest(kind):
                pool = self.new_pool(1, lifecycle.OddlyNamed(kind), maxtasksperchild=2)
                found = [pool.apply_async(tasks.get_state).get(PATIENCE) for _ in range(4)]
                self.assertEqual(found, ["initialized"] * 4)

    def test_names_and_errors(self):
        for kind in "surrogate", "NUL", "number", "raises":
            with self.subTest(kind):
                self.check(lifecycle.OddlyNamed(kind, "NUL"), (), *self.words["NUL"])
                self.check(lifecycle.OddlyNamed(kind, "mute"), (), "Mute")

    def test_work_of_such_a_name(self):
        """A call of an oddly named function whose worker dies."""
        pool = self.new_pool(1)
        for kind in "surrogate", "NUL", "number", "raises":
            with self.subTest(kind), self.assertRaises(allcores.WorkerDied) as caught:
                pool.apply_async(lifecycle.OddlyNamedDeath(kind)).get(PATIENCE)
            str(caught.exception)


for_each_method(globals(), Children, Initializers)

if __name__ == "__main__":
    unittest.main()

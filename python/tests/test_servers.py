#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The standard library's forkserver and resource tracker: what a pool leaves to them, and a program
that the forkserver imports slowly.

Before it serves, the forkserver imports what it is told to, in CPython 3.14.1 and later (and late
3.13) also the main program. Whoever starts a process waits for that, in Pool() as in
Process.start().
"""
import inspect
import multiprocessing.forkserver
import multiprocessing.shared_memory
import signal
import time
import unittest

import tasks
from programs import Program
from support import Case, engine_only, for_each_method

PRELOADS_MAIN = "init_main_from_path" in inspect.getsource(multiprocessing.forkserver)


@engine_only
class OtherProcesses(Program, unittest.TestCase):
    """Processes that the program starts by the same forkserver are as they would be without us."""

    method = "forkserver"
    asks = """
def blocked():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(
        target=tasks.send_blocked_signals, args=(theirs,))
    process.start()
    found = ours.recv()
    process.join()
    return found
import multiprocessing, multiprocessing.forkserver
print(flush=True)
"""

    def check(self, body, wanted):
        out, err = self.finish(self.start(self.asks + body), 0)
        self.assertEqual((out, err), (wanted, ""))

    def test_ctrl_c_reaches_them(self):
        self.check("""
with context.Pool(1) as pool:
    pool.apply(abs, (-1,))
    print(blocked())
print(blocked())
""", "[]\n[]\n")

    def test_ctrl_c_reaches_them_when_the_forkserver_was_replaced(self):
        """By the pool, in a thread of the engine, for a worker."""
        self.check("""
with context.Pool(1) as pool:
    worker = pool.apply(os.getpid)
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    while True:
        try:
            assert pool.apply(os.getpid) != worker
            break
        except allcores.WorkerDied:
            pass
    assert multiprocessing.forkserver._forkserver._forkserver_pid != server
    print(blocked())
""", "[]\n")

    def test_signals_that_the_program_blocks(self):
        self.check("""
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
with context.Pool(1) as pool:
    pool.apply(abs, (-1,))
    print(*map(int, blocked()))
""", f"{int(signal.SIGINT)} {int(signal.SIGUSR1)}\n")

    def test_what_the_program_preloads(self):
        self.check("""
context.set_forkserver_preload(["wave"])
with context.Pool(1) as pool:
    print(pool.apply(tasks.is_imported, ("wave",)))
""", "True\n")


class Tracker(Case):
    """Workers use the owner's resource tracker. One of their own would remove what they share when
    they exit; in newer versions of CPython (see gh-146313) that is what a child gets that was forked
    by other means than Process.start."""

    def test_is_the_owners(self):
        ours = tasks.tracker()
        pool = self.new_pool(1, maxtasksperchild=1)
        self.assertEqual([pool.apply(tasks.tracker) for _ in range(3)], [ours] * 3)

    def test_shared_memory_outlives_its_worker(self):
        tasks.tracker()
        pool = self.new_pool(1, maxtasksperchild=1)
        name = pool.apply(tasks.make_shared_memory)
        pool.apply(abs, (-1,))
        pool.close()
        pool.join()
        time.sleep(0.3)  # a tracker would remove it now
        shared = multiprocessing.shared_memory.SharedMemory(name)
        self.assertEqual(bytes(shared.buf[:5]), b"found")
        shared.close()
        shared.unlink()


@engine_only
class Imports(Program, unittest.TestCase):
    """What happens while the forkserver imports, for which Pool() waits."""

    method = "forkserver"
    body = """
os.environ["NOTES"] = notes
os.environ["PYTHONPATH"] += os.pathsep + folder  # 3.11's forkserver does not get sys.path
context.set_forkserver_preload(["slow"])
print(flush=True)
"""

    def start_slow(self, body, seconds=100, end="pass"):
        """Started, and the forkserver is importing."""
        with open(self.path("slow.py"), "w") as file:
            file.write("import os, sys, time, tasks\n"
                       "tasks.note(os.environ['NOTES'], 'imports')\n"
                       f"time.sleep({seconds})\n"
                       f"tasks.note(os.environ['NOTES'], 'imported')\n{end}\n")
        script = self.start(self.body + body)
        self.wait_notes(1)
        return script

    def check_interrupted(self, script):
        """With the owner's traceback alone, and the forkserver does not go on."""
        self.interrupt(script)
        _, err = self.finish(script, -signal.SIGINT, 1, 130)
        self.assertEqual(err.count("Traceback (most recent call last)"), 1, err)
        self.assertIn("KeyboardInterrupt", err)

    def test_interrupted(self):
        self.check_interrupted(self.start_slow("context.Pool(2)"))

    @unittest.skipUnless(PRELOADS_MAIN, "this Python's forkserver does not import the program")
    def test_interrupted_in_the_main_program(self):
        script = self.start("""
os.environ["NOTES"], os.environ["SLOW"] = notes, "1"
print(flush=True)
context.Pool(2)
""")
        self.wait_notes(1)
        self.check_interrupted(script)

    def test_handler_raises_and_the_program_goes_on(self):
        script = self.start_slow("""
class Hit(Exception):
    pass
def handler(*_):
    raise Hit
signal.signal(signal.SIGALRM, handler)
def hit():
    while not tasks.read_notes(notes):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGALRM)
threading.Thread(target=hit).start()
try:
    context.Pool(2)
    print("never came")
except Hit:
    print(tasks.read_notes(notes))
with context.Pool(2) as pool:
    print(pool.map(tasks.square, range(3)))
""", seconds=3)
        self.assertEqual(self.finish(script, 0), ("['imports']\n[0, 1, 4]\n", ""))
        self.assertEqual(self.read_notes().count("imported"), 1)

    def test_import_ends_the_forkserver(self):
        """The error gives the cause, and nothing is imported a second time."""
        script = self.start_slow("""
try:
    context.Pool(2)
except allcores.StartError as error:
    print(str(error).partition(" before")[0])
""", seconds=0, end="sys.exit(3)")
        self.assertEqual(self.finish(script, 0), ("the forkserver exited with code 3\n", ""))
        self.assertEqual(self.read_notes().count("imports"), 1)

    def test_killed(self):
        """The forkserver, which is the standard library's, notices that when it serves."""
        script = self.start_slow("context.Pool(2)", seconds=3)
        self.kill(script)


for_each_method(globals(), Tracker)

if __name__ == "__main__":
    unittest.main()

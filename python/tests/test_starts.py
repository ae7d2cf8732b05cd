#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Workers that end before they are ready, processes that may not have children, and what the
owner's signal handlers notice of a start: nothing.

ALLCORES_STARTS=all in the environment: also what takes half a minute.
"""
import multiprocessing
import os
import signal
import threading
import time
import unittest

import allcores
import lifecycle
import tasks
from programs import Program
from support import PATIENCE, Case, engine_only, for_each_method

ALL = os.environ.get("ALLCORES_STARTS") == "all"


@engine_only
class BeforeReady(Case):
    """Killed from outside before the initializer begins: it is tried again. Ended in any other
    way: the pool is told, as ever."""

    def setUp(self):
        super().setUp()
        if self.method == "fork":
            self.skipTest("nothing is unpickled in a forked worker")
        self.hold, self.killed = self.path("hold"), 0
        tasks.touch(self.hold)

    def hold_pool(self, processes, **kwds):
        """A pool whose workers stay on their way to the initializer while the file is there."""
        pool = self.new_pool(processes, tasks.nothing, (lifecycle.Held(self.notes, self.hold),),
                             **kwds)
        results = [pool.apply_async(tasks.square, (number,)) for number in range(300)]
        return pool, results

    def check_results(self, pool, results):
        self.assertEqual([result.get(3 * PATIENCE) for result in results],
                         [number * number for number in range(300)])
        self.assertEqual(pool.map(tasks.same, range(50), 1), list(range(50)))

    def kill_next(self, count, *signals):
        """Those that come to the hold next, each by the next of the signals."""
        first = self.killed
        self.killed += count
        self.wait_until(lambda: len(self.read_notes()) >= self.killed, f"worker {self.killed}")
        for number, pid in enumerate(self.read_notes()[first:self.killed]):
            os.kill(int(pid), signals[number % len(signals)])

    def test_killed_at_once(self):
        """All, three times, by each of the signals that end a process from outside."""
        pool, results = self.hold_pool(4)
        for _ in range(3):
            self.kill_next(4, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
        self.wait_until(lambda: len(self.read_notes()) > self.killed, "another attempt")
        os.unlink(self.hold)
        self.check_results(pool, results)

    def test_killed_one_after_the_other(self):
        """More often than other failures are borne; nobody else is there."""
        for signum in signal.SIGKILL, signal.SIGTERM:
            pool, results = self.hold_pool(1)
            for _ in range(5):
                self.kill_next(1, signum)
            self.wait_until(lambda: len(self.read_notes()) > self.killed, "another attempt")
            self.killed += 1
            os.unlink(self.hold)
            self.check_results(pool, results)
            tasks.touch(self.hold)

    def test_interrupted(self):
        """Ctrl-C goes to all processes of the terminal. It is the owner's."""
        pool, results = self.hold_pool(2)
        self.kill_next(2, signal.SIGINT)
        os.unlink(self.hold)
        self.check_results(pool, results)
        self.assertEqual(len(self.read_notes()), 2)

    def test_killed_and_nobody_waits(self):
        pool = self.new_pool(2, tasks.nothing, (lifecycle.Held(self.notes, self.hold),))
        self.kill_next(2, signal.SIGTERM)
        os.unlink(self.hold)
        pool.close()
        pool.join()

    def test_terminated_while_it_tries_again(self):
        pool, results = self.hold_pool(2)
        self.kill_next(2, signal.SIGKILL)
        pool.terminate()
        pool.join()
        self.assertRaises(allcores.TaskCancelled, results[0].get, 0)

    @unittest.skipUnless(ALL, "ALLCORES_STARTS=all: it takes half a minute")
    def test_given_up_in_the_end(self):
        """When no worker has become ready for 30 s; until then calls wait."""
        pool, results = self.hold_pool(2)
        start, killed = time.monotonic(), 0
        while not results[0].ready() and time.monotonic() < start + 60:
            for pid in self.read_notes()[killed:]:
                os.kill(int(pid), signal.SIGKILL)
                killed += 1
            time.sleep(0.01)
        self.assertGreater(time.monotonic() - start, 25)
        self.assertRaises(allcores.StartError, results[0].get, 0)
        self.assertLess(killed, 300)  # more slowly each time

    test_given_up_in_the_end.limit = 90.0

    def check_told(self, how, *words):
        pool = self.new_pool(2, tasks.nothing, (lifecycle.Fatal(how),))
        with self.assertRaises(allcores.StartError) as caught:
            pool.apply_async(tasks.square, (3,)).get(PATIENCE)
        text = str(caught.exception)
        self.assertNotIn("not known", text)
        for word in words:
            self.assertIn(word, text)

    def test_crash(self):
        self.check_told("segv", "11")

    def test_abort(self):
        self.check_told("abort", "6")

    def test_exits(self):
        # A process of forkserver's that cannot be unpickled exits with 1, whatever the reason.
        self.check_told("sys.exit", "1" if self.method == "forkserver" else "3")
        self.check_told("os._exit", "7")

    def test_import_error(self):
        self.check_told("import error", "1")


@engine_only
class Daemons(Case):
    """A process that is a daemon may have workers by fork: they end with it, so that there are
    no orphans. By the other methods multiprocessing refuses."""

    def check(self, text):
        if self.method == "fork":
            self.assertEqual(text, "[0, 1, 4, 9]")
        else:
            self.assertRegex(text, "AssertionError: daemonic processes are not allowed")

    def test_process(self):
        for method in "fork", "spawn":
            with self.subTest(method):
                process = multiprocessing.get_context(method).Process(
                    target=lifecycle.open_a_pool, args=(self.method, self.notes), daemon=True)
                process.start()
                process.join(PATIENCE)
                self.assertEqual(process.exitcode, 0)
                self.check(self.read_notes()[-1])

    def test_worker_of_multiprocessing(self):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            self.check(pool.apply(lifecycle.open_a_pool, (self.method, self.notes)))

    def test_worker_of_ours(self):
        for method in "fork", "spawn":
            with allcores.get_context(method).Pool(1) as pool:
                result = pool.apply_async(lifecycle.open_a_pool, (self.method, self.notes))
                self.check(result.get(PATIENCE))


@engine_only
class DaemonsByFork(Case, unittest.TestCase):
    """What holds of them, too."""

    method = "fork"

    def test_no_orphans(self):
        """The daemon is killed."""
        process = multiprocessing.get_context("fork").Process(
            target=lifecycle.open_a_pool_and_wait, args=(self.notes,), daemon=True)
        process.start()
        self.wait_until(lambda: self.read_notes() or not process.is_alive())
        self.assertTrue(process.is_alive())
        workers = [int(pid) for pid in self.read_notes()[0].split()]
        process.kill()
        process.join()
        self.wait_gone(workers)

    def test_process_with_a_start_of_its_own(self):
        """Refuses as before."""
        code = lifecycle.open_own_start_pool
        process = multiprocessing.get_context("fork").Process(
            target=code, args=(self.notes,), daemon=True)
        process.start()
        process.join(PATIENCE)
        self.assertIn("daemonic processes are not allowed", self.read_notes()[-1])


@engine_only
class Handlers(Program):
    """The owner's signal handlers are left alone."""

    head = """
import families, signal, ctypes
def flags(signum):
    "Of the handler, as the kernel has them."
    action = (ctypes.c_long * 32)()
    ctypes.CDLL(None).sigaction(int(signum), None, action)
    return action[17] & 0xffffffff
def work(times=3):
    for _ in range(times):
        with context.Pool(2, maxtasksperchild=1) as pool:
            assert pool.map(tasks.square, range(6), 1) == [i * i for i in range(6)]
            try:
                pool.apply(tasks.die, ("kill",))
            except allcores.WorkerDied:
                pass
            pool.close()
            pool.join()
"""

    def tell(self, body):
        out, err = self.finish(self.start("print(flush=True)\n" + body, self.head), 0)
        self.assertEqual(err, "")
        return out.splitlines()

    def test_profiler(self):
        """A handler that looks at the frame gets one, whenever it runs."""
        lines = self.tell("""
frames = []
def profile(signum, frame):
    frames.append(frame and frame.f_code.co_name)
signal.signal(signal.SIGALRM, profile)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
work(6)
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(frames) > 20, None in frames)
""")
        self.assertEqual(lines, ["True False"])

    def test_interrupted_calls_go_on_as_the_user_chose(self):
        lines = self.tell("""
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, False)
before = flags(signal.SIGUSR1)
work()
SA_RESTART = 0x10000000
print(bool(before & SA_RESTART), flags(signal.SIGUSR1) == before)
""")
        self.assertEqual(lines, ["True True"])

    def test_other_threads_see_them_unchanged(self):
        lines = self.tell("""
def handler(*_):
    pass
for name in "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGPROF":
    signal.signal(getattr(signal, name), handler)
def look():
    return [signal.getsignal(signum) for signum in signal.valid_signals()]
def watch():
    while not over.is_set():
        seen.append(look() == before)
before, seen, over = look(), [], threading.Event()
thread = threading.Thread(target=watch)
sys.setswitchinterval(1e-5)
thread.start()
work()
over.set()
thread.join()
print(len(seen) > 100, all(seen), look() == before)
""")
        self.assertEqual(lines, ["True True True"])

    def test_none_is_set(self):
        """Where handlers can't be set a pool works all the same."""
        lines = self.tell("""
def refuse(*args):
    if os.getpid() == owner:
        raise ValueError("no handler can be set here")
    return original(*args)
owner, original, signal.signal = os.getpid(), signal.signal, refuse
work()
print("worked")
""")
        self.assertEqual(lines, ["worked"])

    def test_mask_is_as_it_was(self):
        lines = self.tell("""
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
with context.Pool(1, maxtasksperchild=1) as pool:
    for _ in range(3):
        print(set(pool.apply(tasks.signal_mask)) == before)
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before)
""")
        self.assertEqual(lines, ["True"] * 4)

    def test_wakeup_descriptor(self):
        """An event loop is woken once for a signal, and by nothing else."""
        lines = self.tell("""
reading, writing = os.pipe2(os.O_NONBLOCK)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.set_wakeup_fd(writing)
work()
signal.raise_signal(signal.SIGUSR1)
print(os.read(reading, 100) == bytes([signal.SIGUSR1]), signal.set_wakeup_fd(-1) == writing)
""")
        self.assertEqual(lines, ["True True"])


@engine_only
class Many(Program, unittest.TestCase):
    """Replacements by fork, of which many are due at once."""

    method = "fork"

    def test_all_workers_killed_at_once(self):
        """One start after the other: not one within the other, which would take the more of the stack
        the more workers there are."""
        script = self.start("""
pool = context.Pool(100)
tell(pool)
pids, last = families.pids(pool), pool._pool[-1]
depth, deepest, prepare = 0, 0, pool._workers.make_replacement
def measure(worker):
    global depth, deepest
    depth += 1
    deepest = max(depth, deepest)
    try:
        return prepare(worker)
    finally:
        depth -= 1
pool._workers.make_replacement = measure
os.kill(families.template(pool), signal.SIGSTOP)
template = families.template(pool)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
for pid in pids:
    families.wait(lambda: families.state(pid) == "Z", "a dead worker")
os.kill(template, signal.SIGCONT)
print(pool.map(tasks.square, range(3), 1))
families.wait(lambda: last not in pool._pool and pool._core.stat(), "the last replacement")
print(deepest, pool._workers.failure)
""", "import families\n")
        out, err = self.finish(script, 0)
        self.assertEqual((out.splitlines(), err), (["[0, 1, 4]", "1 None"], ""))


@engine_only
class Importing(Program):
    """A module opens a pool while it is imported, with a function of its own as initializer: no other
    thread can pickle that function before the import ends."""

    MODULE = """
import allcores, multiprocessing, sys
def initialize():
    pass
if multiprocessing.current_process().name == "MainProcess":
    with allcores.get_context(sys.argv[1]).Pool(2, initialize) as pool:
        found = pool.map(abs, [-1, -2, -3, -4], 1)
"""

    def test_pool_of_a_module(self):
        with open(f"{self.folder}/opener.py", "w") as file:
            file.write(self.MODULE)
        script = self.start("""
print(flush=True)
sys.path.insert(0, folder)
import opener
print(opener.found)
""")
        out, err = self.finish(script, 0)
        self.assertEqual((out, err), ("[1, 2, 3, 4]\n", ""))


@engine_only
class HandlersInThreads(Case, unittest.TestCase):
    """A pool that a thread opens and uses, while the main thread does something else."""

    method = "fork"

    def test_handlers_run_meanwhile(self):
        """In the main thread, which is at none of the pool's business."""
        came, over = [], threading.Event()
        before = signal.signal(signal.SIGUSR1, lambda *_: came.append(threading.get_ident()))
        self.addCleanup(signal.signal, signal.SIGUSR1, before)

        def work():
            for _ in range(3):
                with self.context.Pool(2, maxtasksperchild=1) as pool:
                    pool.map(tasks.same, range(6), 1)
            over.set()

        thread = threading.Thread(target=work)
        thread.start()
        sent = 0
        while not over.is_set():
            signal.raise_signal(signal.SIGUSR1)
            sent += 1
            time.sleep(0.001)
        thread.join()
        self.assertEqual(came, [threading.main_thread().ident] * sent)


for_each_method(globals(), BeforeReady, Daemons, Handlers, Importing)

if __name__ == "__main__":
    unittest.main()

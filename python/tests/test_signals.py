#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What signal handlers raise in the owner's main thread, at the worst of times: it comes out, and costs nothing.

Ctrl-C in each state of a program is in test_hangs.py.
"""
import multiprocessing.util
import os
import signal
import threading
import time
import unittest
from unittest import mock

import tasks
from allcores import _core
from support import PATIENCE, Case, engine_only, for_each_method, pids

LOGGER = multiprocessing.util.get_logger()


class Alarm(BaseException):
    pass


def raise_alarm(signum, frame):
    raise Alarm


@engine_only
class Starting(Case):
    """While workers are started."""

    def test_what_handlers_raise_comes_out(self):
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, raise_alarm))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        pool = self.new_pool(2, maxtasksperchild=1)
        came = 0
        for round in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.001 * round)
                while True:
                    pool.map(tasks.same, range(20), 1)
            except Alarm:
                came += 1
        self.assertEqual(came, 20)
        self.assertEqual(pool.map(tasks.same, range(20), 1), list(range(20)))


@engine_only
class LeftAlone(Case):
    """The program's handlers stay as they are, and run with the frame that they interrupt."""

    def test_profiler(self):
        """A handler that uses its frame, as sampling profilers do, many times a second."""
        frames = []
        def sample(signum, frame):
            frames.append(frame.f_code.co_name)

        self.addCleanup(signal.signal, signal.SIGPROF, signal.signal(signal.SIGPROF, sample))
        self.addCleanup(signal.setitimer, signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
        for _ in range(3):
            pool = self.new_pool(2, maxtasksperchild=1)
            self.assertEqual(pool.map(tasks.same, range(10), 1), list(range(10)))
            pool.close()
            pool.join()
        signal.setitimer(signal.ITIMER_PROF, 0)
        end = time.monotonic() + PATIENCE
        signal.setitimer(signal.ITIMER_PROF, 0.0005)
        while not frames and time.monotonic() < end:
            pass
        self.assertTrue(frames)

    def test_never_replaced(self):
        """Another thread looks all the time."""
        def handler(signum, frame):
            pass

        seen, stop = set(), threading.Event()
        def look():
            while not stop.is_set():
                seen.add(signal.getsignal(signal.SIGALRM))

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handler))
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        pool = self.new_pool(2, maxtasksperchild=1)
        pool.map(tasks.same, range(20), 1)
        stop.set()
        thread.join(PATIENCE)
        self.assertEqual(seen, {handler})

    def test_undisturbed(self):
        """What runs undisturbed runs to its end; then the handler runs, in the main thread."""
        came = []
        def handler(signum, frame):
            came.append(threading.get_ident())

        def raise_and_go_on():
            os.kill(os.getpid(), signal.SIGALRM)
            for _ in range(1000):
                self.assertEqual(came, [])
            return threading.get_ident()

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handler))
        self.assertNotEqual(_core.undisturbed(raise_and_go_on), threading.get_ident())
        self.wait_until(lambda: came)
        self.assertEqual(came, [threading.get_ident()])
        with self.assertRaises(ZeroDivisionError):
            _core.undisturbed(lambda: 1 / 0)


class ThreadedStarting(Case, unittest.TestCase):
    """SIGINT goes to another thread, where it is not blocked, and its handler runs in the main
    one all the same: while a worker is replaced."""

    method = "fork"

    @engine_only
    def test_ctrl_c_while_a_worker_is_replaced(self):
        waiting = threading.Event()
        thread = threading.Thread(target=waiting.wait, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(waiting.set)
        pool = self.new_pool(2, maxtasksperchild=1)
        prepare, armed, numbers = pool._workers.make_replacement, [], []

        def prepare_and_interrupt(worker):
            tag = prepare(worker)
            if armed:
                armed.clear()
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return tag

        pool._workers.make_replacement = prepare_and_interrupt
        interrupts = 0
        for _ in range(100):
            armed.append(True)
            try:
                pool.map(tasks.same, range(4), 1)
            except KeyboardInterrupt:
                interrupts += 1
            armed.clear()
            self.assertEqual(pool.map(tasks.same, range(4), 1), list(range(4)))
            numbers += pids(pool)
            if interrupts == 5:
                break
        pool.close()
        pool.join()
        self.assertEqual(interrupts, 5)
        self.wait_gone(numbers)


@engine_only
class Rebuilding(Case):
    """While the main thread unpickles a result."""

    def setUp(self):
        super().setUp()
        tasks.Interrupting.came = False

    def result(self, function=tasks.interrupting):
        pool = self.new_pool(1)
        result = pool.apply_async(function, (os.getpid(),))
        self.wait_until(lambda: pool._core.stat()["done"])
        return pool, result

    def test_in_get(self):
        _, result = self.result()
        with self.assertRaises(KeyboardInterrupt):
            result.get(PATIENCE)
        self.assertIsInstance(result.get(PATIENCE), tasks.Interrupting)

    def test_in_ready(self):
        _, result = self.result()
        with self.assertRaises(KeyboardInterrupt):
            result.ready()
        self.assertTrue(result.successful())

    def test_in_map(self):
        """It does not wait for the rest."""
        pool = self.new_pool(2)
        for chunksize in (None, 1):
            tasks.Interrupting.came = False
            start = time.monotonic()
            with self.assertRaises(KeyboardInterrupt):
                pool.map(tasks.interrupting, [os.getpid()] * 1000, chunksize)
            self.assertLess(time.monotonic() - start, PATIENCE / 2)
            pool = self.new_pool(2)

    def test_in_imap(self):
        pool = self.new_pool(1)
        found = pool.imap(tasks.interrupting, [os.getpid()] * 3)
        with self.assertRaises(KeyboardInterrupt):
            next(found)
        list(found)  # what had come with it may be lost, but it ends
        self.assertEqual(pool.apply(tasks.same, (3,)), 3)

    def test_of_a_failure_that_nobody_fetches(self):
        pool, result = self.result(tasks.fail_interrupting)
        with self.assertLogs(LOGGER, "ERROR") as logs, self.assertRaises(KeyboardInterrupt):
            del result
            self.wait_until(lambda: pool.apply_async(tasks.nothing) and False)
        self.assertIn("nobody fetched", logs.output[0])


class Threads(Case, unittest.TestCase):
    """While the owner starts a thread of its own, or hands in."""

    method = "fork"

    def interrupt(self, owner, name, after):
        """A Ctrl-C just before or after a call of it, once."""
        original, came = getattr(owner, name), []

        def interrupted(*args, **kwds):
            if came:
                return original(*args, **kwds)
            came.append(True)
            if after:
                original(*args, **kwds)
            raise KeyboardInterrupt

        patch = mock.patch.object(owner, name, interrupted)
        patch.start()
        self.addCleanup(patch.stop)

    def use(self, pool):
        self.assertEqual(pool.map_async(tasks.same, range(4)).get(PATIENCE), list(range(4)))
        self.assertEqual(pool.apply_async(tasks.same, (3,), callback=str).get(PATIENCE), 3)
        self.assertEqual(list(pool.imap(tasks.same, iter(range(4)))), list(range(4)))
        pool.close()
        pool.join()

    def check(self, owner_in, name, call):
        """The call raises it, and those that follow do not suffer."""
        for after in (False, True):
            pool = self.new_pool(2)
            self.interrupt(owner_in(pool), name, after)
            with self.assertRaises(KeyboardInterrupt):
                call(pool)
            self.use(pool)

    @engine_only
    def test_starting_the_callback_thread(self):
        self.check(lambda pool: threading.Thread, "start",
                   lambda pool: pool.map_async(tasks.same, range(4)))

    @engine_only
    def test_starting_the_reader(self):
        self.check(lambda pool: threading.Thread, "start",
                   lambda pool: pool.imap(tasks.same, iter(range(4))))

    @engine_only
    def test_entering(self):
        self.check(lambda pool: pool._submitting, "enter",
                   lambda pool: pool.map_async(tasks.same, range(4)))


for_each_method(globals(), Starting, LeftAlone, Rebuilding)

if __name__ == "__main__":
    unittest.main()

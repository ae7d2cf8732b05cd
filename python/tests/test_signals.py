#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What signal handlers raise in the owner's main thread, at the worst of times: it comes out, and costs nothing.

Ctrl-C in each state of a program is in test_hangs.py.
"""
import asyncio
import multiprocessing.popen_fork
import multiprocessing.util
import os
import signal
import threading
import time
import unittest
from unittest import mock

import tasks
from allcores import signals
from support import PATIENCE, Case, engine_only, for_each_method

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
class Held(unittest.TestCase):
    """Handlers that wait run once, and are as they were."""

    def hold_and_resume(self):
        held = signals.hold()
        try:
            signal.raise_signal(signal.SIGALRM)
        finally:
            signals.resume(held)

    def set(self, handler):
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handler))

    def test_runs_once(self):
        came = []
        reader, writer = os.pipe2(os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        self.addCleanup(signal.set_wakeup_fd, signal.set_wakeup_fd(writer))
        handler = came.append
        self.set(lambda signum, frame: handler(signum))
        self.hold_and_resume()
        self.assertEqual(came, [])
        for _ in range(2):
            signals.deliver()
        self.assertEqual(came, [signal.SIGALRM])
        self.assertEqual(os.read(reader, 10), bytes([signal.SIGALRM]))

    def test_nested(self):
        self.set(raise_alarm)
        held = signals.hold()
        self.assertEqual(signals.hold(), [])
        signals.resume(held)
        self.assertIs(signal.getsignal(signal.SIGALRM), raise_alarm)

    def test_child_has_them_back(self):
        self.set(raise_alarm)
        held = signals.hold()
        child = os.fork()
        if child == 0:
            os._exit(7 if signal.getsignal(signal.SIGALRM) is raise_alarm else 8)
        signals.resume(held)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7)

    def test_those_that_never_raise_are_left_alone(self):
        async def look():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGALRM, came.append, True)
            handler = signal.getsignal(signal.SIGALRM)
            held = signals.hold()
            same = signal.getsignal(signal.SIGALRM) is handler
            signals.resume(held)
            signal.raise_signal(signal.SIGALRM)
            while not came:
                await asyncio.sleep(0.001)
            loop.remove_signal_handler(signal.SIGALRM)
            return same

        came = []
        self.assertTrue(asyncio.run(look()))
        self.assertEqual(came, [True])


class ThreadedStarting(Case, unittest.TestCase):
    """SIGINT goes to another thread, where it is not blocked, and its handler runs in the main
    one all the same: just after the fork."""

    method = "fork"

    @engine_only
    def test_ctrl_c_after_a_fork(self):
        waiting = threading.Event()
        thread = threading.Thread(target=waiting.wait, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(waiting.set)
        started, armed = [], []
        launch = multiprocessing.popen_fork.Popen._launch

        def launch_and_interrupt(popen, process):
            launch(popen, process)
            started.append(popen.pid)
            if armed and threading.get_ident() == threading.main_thread().ident:
                armed.clear()
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)

        pool = self.new_pool(2, maxtasksperchild=1)
        interrupts = 0
        with mock.patch.object(multiprocessing.popen_fork.Popen, "_launch", launch_and_interrupt):
            for _ in range(100):
                armed.append(True)
                try:
                    pool.map(tasks.same, range(4), 1)
                except KeyboardInterrupt:
                    interrupts += 1
                armed.clear()
                self.assertEqual(pool.map(tasks.same, range(4), 1), list(range(4)))
                if interrupts == 5:
                    break
            pool.close()
            pool.join()
        self.assertEqual(interrupts, 5)
        self.wait_gone(started)
        self.assertEqual([pid for pid in started if os.path.exists(f"/proc/{pid}")], [])


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
    def test_starting_the_handler(self):
        self.check(lambda pool: threading.Thread, "start",
                   lambda pool: pool.map_async(tasks.same, range(4)))

    @engine_only
    def test_starting_the_reader(self):
        self.check(lambda pool: threading.Thread, "start",
                   lambda pool: pool.imap(tasks.same, iter(range(4))))

    @engine_only
    def test_entering(self):
        self.check(lambda pool: pool._intake, "enter",
                   lambda pool: pool.map_async(tasks.same, range(4)))


for_each_method(globals(), Starting, Rebuilding)

if __name__ == "__main__":
    unittest.main()

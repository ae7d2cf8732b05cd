#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One failure, told alike by every kind of call: starts that fail, workers that die under a chunk."""
import contextlib
import functools
import os
import signal
import unittest

import allcores
import tasks
from support import METHODS, PATIENCE, Case, engine_only, for_each_method, pids


def die_on_three(number):
    if number == 3:
        tasks.die("kill")
    return number


def calls(pool, function, items):
    """Each way to run function on the items, as a call that raises what failed."""
    rows = [(item,) for item in items]
    return {
        "apply": lambda: pool.apply(function, rows[0]),
        "apply_async": lambda: pool.apply_async(function, rows[0]).get(PATIENCE),
        "apply_async, callback": lambda: pool.apply_async(
            function, rows[0], callback=str).get(PATIENCE),
        "map": lambda: pool.map(function, items),
        "map, chunksize=1": lambda: pool.map(function, items, 1),
        "map, chunksize=2": lambda: pool.map(function, items, 2),
        "starmap": lambda: pool.starmap(function, rows),
        "starmap, chunksize": lambda: pool.starmap(function, rows, 2),
        "map_async": lambda: pool.map_async(function, items).get(PATIENCE),
        "map_async, chunksize": lambda: pool.map_async(function, items, 2).get(PATIENCE),
        "map_async, callback": lambda: pool.map_async(
            function, items, callback=str).get(PATIENCE),
        "starmap_async": lambda: pool.starmap_async(function, rows).get(PATIENCE),
        "imap": lambda: next(pool.imap(function, items)),
        "imap of an iterator": lambda: next(pool.imap(function, iter(items))),
        "imap, chunksize": lambda: next(pool.imap(function, items, 2)),
        "imap_unordered": lambda: next(pool.imap_unordered(function, items)),
        "imap_unordered, chunksize": lambda: next(pool.imap_unordered(function, items, 2)),
    }


class Stopping:
    """Processes that cannot be started while a file is there."""

    path = ""

    def start(self):
        if os.path.exists(self.path):
            raise tasks.Trouble("cannot be started")
        super().start()

    @classmethod
    def context(cls, method, path):
        cls.path = path
        base = type(allcores.get_context(method))
        return type("Context", (base,), {"Process": PROCESSES[method]})()


def stopping(method):
    """A class of Stopping processes: its name is one of this module, by which it is pickled."""
    base = type(allcores.get_context(method)).Process
    name = f"Stopping_{method}"
    return type(name, (Stopping, base), {"__module__": __name__, "__qualname__": name})


PROCESSES = {method: stopping(method) for method in METHODS}
globals().update({cls.__name__: cls for cls in PROCESSES.values()})


@engine_only
class FailedStarts(Case):
    """Why no worker starts is in each error."""

    def check(self, make):
        """In pools of their own, and then in one that has failed already."""
        failed, texts = make(), {}
        self.assertRaises(allcores.StartError, failed.apply, abs, (1,))
        for how, call in calls(failed, abs, range(5)).items():
            for pool, when in ((make(), "first"), (failed, "later")):
                call = calls(pool, abs, range(5))[how]
                with self.subTest(f"{how}, {when}"):
                    with self.assertRaises(allcores.StartError) as caught:
                        call()
                    texts[how, when] = str(caught.exception)
        for (how, when), text in texts.items():
            with self.subTest(f"{how}, {when}"):
                self.assertEqual(text, texts["apply", when])
                self.assertIn("without luck", text)

    def test_initializer_that_raises(self):
        self.check(lambda: self.new_pool(1, tasks.fail_start, (self.notes,)))

    test_initializer_that_raises.limit = 120.0

    def test_process_that_cannot_be_started_any_more(self):
        """The exception that its start raised is the cause of each."""
        stop = self.path("stop")
        context = Stopping.context(self.method, stop)

        def make():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stop)
            pool = context.Pool(1)
            self.addCleanup(pool.join)
            self.addCleanup(pool.terminate)
            pool.apply(tasks.nothing)
            tasks.touch(stop)
            os.kill(pids(pool)[0], signal.SIGKILL)
            return pool
        failed = make()
        self.assertRaises(allcores.StartError, failed.apply, tasks.nap, (PATIENCE,))
        for how in calls(failed, tasks.nap, [PATIENCE] * 5):
            for pool, when in ((failed, "later"), (make(), "first")):
                with self.subTest(f"{how}, {when}"):
                    with self.assertRaises(allcores.ProcessError) as caught:
                        while True:  # the worker may take a call before it is killed
                            try:
                                calls(pool, tasks.nothing, [0] * 5)[how]()
                            except allcores.WorkerDied:
                                pass
                    self.assertIsInstance(caught.exception, allcores.StartError)
                    self.assertIsInstance(caught.exception.__cause__, tasks.Trouble)

    test_process_that_cannot_be_started_any_more.limit = 120.0

    def test_callbacks(self):
        told = []
        pool = self.new_pool(1, tasks.fail_start, (self.notes,))
        results = [pool.apply_async(abs, (1,), callback=self.fail, error_callback=told.append),
                   pool.map_async(abs, range(5), callback=self.fail, error_callback=told.append)]
        for result in results:
            self.assertRaises(allcores.StartError, result.get, PATIENCE)
        self.assertEqual([type(error) for error in told], [allcores.StartError] * 2)
        for error in told:
            self.assertIn("without luck", str(error))


@engine_only
class LostChunks(Case):
    """A worker dies under a chunk of an imap: the chunk is lost, all others arrive."""

    def drain(self, found):
        """(values, errors) of an iterator, to its end."""
        values, errors = [], []
        while True:
            try:
                values.append(found.next(PATIENCE))
            except StopIteration:
                break
            except allcores.WorkerDied as error:
                errors.append(error)
        self.assertRaises(StopIteration, next, found)
        self.assertRaises(StopIteration, found.next, PATIENCE)
        return values, errors

    def test_the_rest_arrives(self):
        for name in ("imap", "imap_unordered"):
            for make in (list, iter, tuple):
                for chunksize, lost in ((1, {3}), (2, {2, 3}), (3, {3, 4, 5}), (4, {0, 1, 2, 3})):
                    with self.subTest(f"{name}, {make.__name__}, chunksize={chunksize}"):
                        found = getattr(self.pool, name)(die_on_three, make(range(10)), chunksize)
                        values, errors = self.drain(found)
                        self.assertEqual(sorted(values), sorted(set(range(10)) - lost))
                        if name == "imap":
                            self.assertEqual(values, sorted(values))
                        self.assertEqual(len(errors), 1)

    def test_place_of_the_error(self):
        found = self.pool.imap(die_on_three, range(10), 2)
        self.assertEqual([next(found), next(found)], [0, 1])
        self.assertRaises(allcores.WorkerDied, next, found)
        self.assertEqual(list(found), list(range(4, 10)))

    def test_every_chunk(self):
        found = self.pool.imap(die_on_three, [3] * 6, 2)
        values, errors = self.drain(found)
        self.assertEqual((values, len(errors)), ([], 3))

    def test_last_chunk_is_short(self):
        found = self.pool.imap(die_on_three, [0, 1, 2, 4, 5, 6, 3], 3)
        values, errors = self.drain(found)
        self.assertEqual((values, len(errors)), ([0, 1, 2, 4, 5, 6], 1))


class NextOfChunks(Case):
    """next(timeout) of an imap with chunks, which the standard library does not have."""

    @engine_only
    def test_timeout(self):
        for name in ("imap", "imap_unordered"):
            go = self.path("go" + name)
            found = getattr(self.pool, name)(functools.partial(tasks.wait_for), [go] * 5, 2)
            for timeout in (0.05, 0):
                self.assertRaises(allcores.TimeoutError, found.next, timeout)
            tasks.touch(go)
            self.assertEqual([found.next(timeout=PATIENCE) for _ in range(5)], [None] * 5)
            for _ in range(2):
                self.assertRaises(StopIteration, found.next, 0)

    @engine_only
    def test_timeout_loses_nothing(self):
        found, values = self.pool.imap(tasks.nap, [0.02] * 20, 3), []
        while True:
            try:
                values.append(found.next(0.001))
            except allcores.TimeoutError:
                pass
            except StopIteration:
                break
        self.assertEqual(values, [0.02] * 20)

    @engine_only
    def test_timeout_and_then_iteration(self):
        found = self.pool.imap(tasks.same, range(10), 4)
        self.assertEqual([found.next(PATIENCE), next(found)], [0, 1])
        self.assertEqual(list(found), list(range(2, 10)))

    def test_as_a_generator(self):
        """close() of it, and what a for loop needs."""
        for name in ("imap", "imap_unordered"):
            found = getattr(self.pool, name)(tasks.same, range(10), 4)
            self.assertIs(iter(found), found)
            next(found)
            found.close()
            self.assertRaises(StopIteration, next, found)
        self.assertEqual(self.pool.map(abs, [-1]), [1])


for_each_method(globals(), FailedStarts, LostChunks, NextOfChunks)

if __name__ == "__main__":
    unittest.main()

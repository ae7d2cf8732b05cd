#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A forked child of the owner: every public method of the pool, its results and iterators raises
RuntimeError there at once, whatever the owner is doing, and harms nobody."""
import contextlib
import functools
import gc
import os
import select
import signal
import threading
import unittest

import tasks
from support import PATIENCE, Case, engine_only, for_each_method, pids, run_script

AT_ONCE = 5.0  # seconds: a hang, on a busy machine


def in_fork(calls):
    """What each of the named calls gave or raised in a forked child, in order; the rest is missing
    if one of them hung."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for name, call in calls:
                try:
                    text = f"returned {call()!r}"
                except RuntimeError as error:
                    text = "RuntimeError" if "process" in str(error) else repr(error)
                except BaseException as error:
                    text = repr(error)
                os.write(writer, f"{name}: {text}\n".encode())
            os.write(writer, f"threads: {len(os.listdir('/proc/self/task'))}\n".encode())
        finally:
            os._exit(0)
    os.close(writer)
    text = b""
    try:
        while select.select([reader], [], [], AT_ONCE)[0] and (more := os.read(reader, 10_000)):
            text += more
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.close(reader)
        os.waitpid(pid, 0)
    return text.decode().splitlines()


def methods_of(pool):
    """Every public method of a pool, as a call."""
    return {
        "apply": lambda: pool.apply(abs, (1,)),
        "apply_async": lambda: pool.apply_async(abs, (1,)),
        "apply_async, callback": lambda: pool.apply_async(abs, (1,), callback=str),
        "map": lambda: pool.map(abs, [1]),
        "map, chunksize": lambda: pool.map(abs, [1], 1),
        "map of nothing": lambda: pool.map(abs, []),
        "map of an iterator": lambda: pool.map(abs, iter([1])),
        "starmap": lambda: pool.starmap(abs, [(1,)]),
        "map_async": lambda: pool.map_async(abs, [1]),
        "map_async, chunksize": lambda: pool.map_async(abs, [1], 1),
        "map_async of nothing": lambda: pool.map_async(abs, []),
        "starmap_async": lambda: pool.starmap_async(abs, [(1,)]),
        "imap": lambda: pool.imap(abs, [1]),
        "imap, chunksize": lambda: pool.imap(abs, [1], 2),
        "imap of an iterator": lambda: pool.imap(abs, iter([1])),
        "imap_unordered": lambda: pool.imap_unordered(abs, [1]),
        "dump": lambda: pool.dump(),
        "with": pool.__enter__,
        "close": pool.close,
        "join": pool.join,
        "terminate": pool.terminate,
        "close again": pool.close,
        "join after terminate": pool.join,
    }


def methods_of_result(name, result):
    return {f"{name}.get": result.get, f"{name}.get(0)": lambda: result.get(0),
            f"{name}.wait": result.wait, f"{name}.wait(0)": lambda: result.wait(0),
            f"{name}.ready": result.ready, f"{name}.successful": result.successful}


def methods_of_iterator(name, found):
    return {f"next({name})": lambda: next(found), f"{name}.next(0)": lambda: found.next(0),
            f"{name}.next()": lambda: found.next(), f"list({name})": lambda: list(found)}


@engine_only
class WhateverTheOwnerDoes(Case):
    """Forked while one thing is under way."""

    def setUp(self):
        super().setUp()
        self.go = self.path("go")
        self.addCleanup(tasks.touch, self.go)
        self.wait = functools.partial(tasks.note_and_wait, self.notes, self.go)
        self.own = self.new_pool(2)

    def check(self, calls, repeats=2):
        """In a child each of them raises RuntimeError, and no thread is started."""
        for _ in range(repeats):
            found = in_fork(calls.items())
            expected = [f"{name}: RuntimeError" for name in calls] + ["threads: 1"]
            self.assertEqual(found, expected)

    def check_pool(self, **calls):
        """While a call of the owner has begun."""
        self.wait_until(self.read_notes, "a call in a worker")
        self.check({**methods_of(self.own), **calls})
        self.assertEqual(self.own._state, "RUN")

    def finish(self):
        tasks.touch(self.go)
        workers = pids(self.own)
        self.assertEqual(self.own.map(abs, range(-3, 0), 1), [3, 2, 1])
        self.assertEqual(pids(self.own), workers)
        self.own.close()
        self.own.join()

    def in_thread(self, call):
        """Run call() in a thread; its value is in the list that is returned, after finish()."""
        found = []
        thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
        thread.start()
        return found, thread

    def test_nothing(self):
        self.check(methods_of(self.own))
        self.finish()

    def test_closed(self):
        result = self.own.map_async(self.wait, range(4), 1)
        self.own.close()
        self.wait_until(self.read_notes)
        self.check({name: call for name, call in methods_of(self.own).items()})
        tasks.touch(self.go)
        self.own.join()
        self.assertEqual(result.get(0), list(range(4)))

    def test_map(self):
        for chunksize in (None, 1):
            found, thread = self.in_thread(
                lambda: self.own.map(self.wait, range(6), chunksize))
            self.check_pool()
            tasks.touch(self.go)
            thread.join(PATIENCE)
            self.assertEqual(found, [list(range(6))])
            tasks.forget(self.go)
            tasks.forget(self.notes)
        self.finish()

    def test_apply(self):
        found, thread = self.in_thread(lambda: self.own.apply(self.wait, (5,)))
        self.check_pool()
        self.finish()
        thread.join(PATIENCE)
        self.assertEqual(found, [5])

    def test_results(self):
        """All kinds of them, and their methods."""
        pool, told = self.own, []
        results = {"call": pool.apply_async(self.wait, (1,)),
                   "call with callback": pool.apply_async(self.wait, (2,), callback=told.append),
                   "map": pool.map_async(self.wait, range(6)),
                   "map with chunksize": pool.map_async(self.wait, range(6), 2),
                   "starmap": pool.starmap_async(self.wait, [(3,)], callback=told.append)}
        calls = {}
        for name, result in results.items():
            calls.update(methods_of_result(name, result))
        self.check_pool(**calls)
        self.finish()
        self.assertEqual([result.get(PATIENCE) for result in results.values()],
                         [1, 2, list(range(6)), list(range(6)), [3]])
        self.assertEqual(sorted(map(str, told)), ["2", "[3]"])

    def test_iterators(self):
        pool = self.own
        iterators = {"a": pool.imap(self.wait, list(range(6))),
                     "b": pool.imap(self.wait, iter(range(6))),
                     "c": pool.imap(self.wait, range(6), 2),
                     "d": pool.imap_unordered(self.wait, range(6)),
                     "e": pool.imap_unordered(self.wait, iter(range(6)), 2)}
        calls = {}
        for name, found in iterators.items():
            calls.update(methods_of_iterator(name, found))
        self.check_pool(**calls)
        self.finish()
        for found in iterators.values():
            self.assertEqual(sorted(found), list(range(6)))

    def test_iterator_whose_results_have_arrived(self):
        found = self.own.imap(tasks.same, range(6))
        self.assertEqual(next(found), 0)
        self.check(methods_of_iterator("imap", found))
        self.assertEqual(list(found), list(range(1, 6)))
        self.finish()

    def test_callback(self):
        """Forked by a callback, and while another thread runs one."""
        inside, enough, told = threading.Event(), threading.Event(), []

        def callback(value):
            told.append(in_fork(methods_of(self.own).items()))
            inside.set()
            enough.wait(PATIENCE)
        result = self.own.apply_async(abs, (-1,), callback=callback)
        self.assertTrue(inside.wait(PATIENCE))
        self.check(methods_of(self.own))
        enough.set()
        self.assertEqual(result.get(PATIENCE), 1)
        self.assertEqual([line for line in told[0] if not line.endswith(": RuntimeError")],
                         ["threads: 1"])
        self.finish()

    def test_join(self):
        result = self.own.map_async(self.wait, range(4), 1)
        self.wait_until(self.read_notes)
        self.own.close()
        _, thread = self.in_thread(self.own.join)
        self.check(methods_of(self.own))
        tasks.touch(self.go)
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertEqual(result.get(0), list(range(4)))

    def test_dropped_in_the_child(self):
        """Results, iterators and the pool itself, as a child that ends properly drops them."""
        result = self.own.map_async(self.wait, range(4), 1)
        found = self.own.imap(self.wait, iter(range(4)))
        self.wait_until(self.read_notes)

        def drop():
            nonlocal result, found
            pool, self.own = self.own, None
            del pool, result, found
            gc.collect()
        self.assertEqual(in_fork([("drop", drop)]), ["drop: returned None", "threads: 1"])
        tasks.touch(self.go)
        self.assertEqual((result.get(PATIENCE), list(found)), (list(range(4)),) * 2)
        self.finish()

    def test_many_forks_in_a_busy_owner(self):
        """At any place where its threads are, with whatever locks they hold."""
        stop = threading.Event()

        def work():
            while not stop.is_set():
                assert self.own.map(abs, range(-20, 0)) == list(range(20, 0, -1))
                assert list(self.own.imap(abs, iter(range(50)))) == list(range(50))
                self.own.apply_async(abs, (1,), callback=str).get(PATIENCE)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            self.check(methods_of(self.own), 25)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        self.finish()


@engine_only
class BlockLeft(Case):
    """A child that leaves the with block of a pool, as one that is forked in it does."""

    def test_harms_nobody(self):
        pool = self.new_pool(2)
        result = pool.map_async(tasks.nap, [0.1] * 6, 1)
        for error in (None, SystemExit, KeyError):
            found = in_fork([("end", lambda: pool.__exit__(error, error and error(), None))])
            self.assertIn(found[0], ("end: RuntimeError", "end: returned None"))
            self.assertEqual(found[1:], ["threads: 1"])
        self.assertEqual(result.get(PATIENCE), [0.1] * 6)


@engine_only
class ProperEnd(Case):
    """A child that ends as programs end, with the pool in its globals."""

    def test_sys_exit_of_a_child(self):
        for end in ("sys.exit()", "pass"):
            with self.subTest(end):
                self.assertEqual(run_script(self, f"""
import os, sys, time
import allcores, tasks

if __name__ == "__main__":
    pool = allcores.get_context({self.method!r}).Pool(2)
    result = pool.map_async(tasks.nap, [0.1] * 6, 1)
    found = pool.imap(tasks.nap, iter([0.1] * 6))
    pid = os.fork()
    if pid == 0:
        {end}
    else:
        assert os.waitpid(pid, 0)[1] == 0
        print(result.get({PATIENCE}) == [0.1] * 6, list(found) == [0.1] * 6, flush=True)
        pool.close()
        pool.join()
"""), (0, "True True\n", ""))


for_each_method(globals(), WhateverTheOwnerDoes, BlockLeft, ProperEnd)

if __name__ == "__main__":
    unittest.main()

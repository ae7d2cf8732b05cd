#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Forks of the user's, in the owner and in a task: they disturb nobody, and get no pool."""
import contextlib
import functools
import multiprocessing
import os
import select
import signal
import threading
import time
import unittest

import allcores
import tasks
from support import PATIENCE, Case, alive, engine_only, for_each_method, pids, stop


@contextlib.contextmanager
def held_elsewhere(lock):
    """In its block another thread has the lock."""
    held, enough = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            enough.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def in_fork(function):
    """What function() gave or raised, as text, in a forked child of this process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                text = repr(function())
            except BaseException as error:
                text = repr(error)
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
            return f"no answer within {PATIENCE:g} s"
        return os.read(reader, 10_000).decode()
    finally:
        os.close(reader)
        os.waitpid(pid, 0)


@engine_only
class ForkedUsers(Case):
    """A pool belongs to the process that opened it."""

    def setUp(self):
        super().setUp()
        self.pool.apply_async(tasks.nothing, callback=str).get(PATIENCE)

    def test_failure_in_a_forked_child(self):
        """Of a call that had failed before, while other threads had the locks."""
        pool = self.new_pool(1)
        workers = pool._workers
        for lock in (workers._ends_lock, workers.stacks._lock):
            result = pool.apply_async(tasks.die, ("kill",))
            self.wait_until(lambda: not pool._cache, "the failure")
            with held_elsewhere(lock):
                told = in_fork(lambda: result.get(PATIENCE))
                self.assertRegex(told, "WorkerDied|belongs to the process")
            with self.assertRaises(allcores.WorkerDied) as caught:
                result.get(PATIENCE)
            self.assertEqual(caught.exception.signal, "SIGKILL")  # the child has not asked before

    def test_calls_in_a_forked_child(self):
        for call in (lambda: self.pool.apply(tasks.square, (3,)),
                     lambda: self.pool.apply_async(tasks.square, (3,)).get(),
                     lambda: self.pool.map(tasks.square, [3]),
                     lambda: self.pool.map(tasks.square, [3], 1),
                     lambda: self.pool.map_async(tasks.square, [3]).get(),
                     lambda: self.pool.apply_async(tasks.square, (3,), callback=print).get(),
                     lambda: list(self.pool.imap(tasks.square, [3]))):
            self.assertIn("RuntimeError", in_fork(call))
            self.assertEqual(self.pool.apply(tasks.square, (3,)), 9)

    def test_forked_while_the_callback_thread_is_at_work(self):
        """Nobody gives back the child's copy of its lock."""
        with held_elsewhere(self.pool._callbacks._lock):
            for call in (lambda: self.pool.map_async(tasks.square, [3]),
                         lambda: self.pool.apply_async(tasks.square, (3,), callback=print)):
                self.assertIn("RuntimeError", in_fork(call))

    def test_result_of_the_parent_in_a_forked_child(self):
        go = self.path("go")
        results = [self.pool.apply_async(tasks.wait_for, (go, 5)),
                   self.pool.map_async(tasks.wait_for, [go])]
        for result in results:
            self.assertIn("RuntimeError", in_fork(result.get))
        tasks.touch(go)
        self.assertEqual([r.get(PATIENCE) for r in results], [5, [None]])

    def test_process_objects_in_a_forked_child(self):
        """They can be shown there, although nobody has asked for the pids before."""
        pool = self.new_pool(2)
        shown = in_fork(lambda: [repr(worker) for worker in pool._pool])
        self.assertEqual(shown.count("PoolWorker"), 2, shown)
        self.assertEqual(in_fork(lambda: {worker.exitcode for worker in pool._pool}), "{None}")

    def test_child_that_ends_the_pool(self):
        pool = self.new_pool(2)
        numbers = pids(pool)
        in_fork(lambda: stop(pool))
        in_fork(lambda: (pool.close(), pool.join()))
        self.assertTrue(all(map(alive, numbers)))
        self.assertEqual(pool.map(tasks.same, range(20), 1), list(range(20)))
        self.assertEqual(pids(pool), numbers)

    def test_child_that_ends_as_a_process_does(self):
        pool = self.new_pool(2)
        numbers = pids(pool)
        child = multiprocessing.get_context("fork").Process(target=tasks.nothing)
        child.start()
        child.join(PATIENCE)
        self.assertEqual(child.exitcode, 0)
        self.assertTrue(all(map(alive, numbers)))
        self.assertEqual(pool.map(tasks.same, range(20), 1), list(range(20)))

    def test_child_opens_its_own(self):
        if self.method == "forkserver":
            self.skipTest("the standard library's server knows only the process it came from")

        def work():
            pool = self.context.Pool(1)
            try:
                return pool.apply(tasks.square, (3,))
            finally:
                stop(pool)
        self.assertEqual(in_fork(work), "9")

    def test_fork_inside_of_a_task(self):
        for function in (tasks.fork_and_exit, tasks.fork_and_return):
            self.assertEqual(self.pool.apply_async(function, (self.notes,)).get(PATIENCE),
                             "parent")
            self.wait_until(self.read_notes, "the child's note")
            child = int(self.read_notes()[0])
            self.wait_gone([child])
            self.assertEqual(self.pool.map(tasks.same, range(20), 1), list(range(20)))
            tasks.forget(self.notes)

    def test_fork_inside_of_a_chunk(self):
        found = self.pool.map_async(tasks.fork_and_return, [self.notes] * 3, 3).get(PATIENCE)
        self.assertEqual((found, len(self.read_notes())), (["parent"] * 3, 3))

    def test_exit_code_of_a_tasks_child(self):
        function = functools.partial(tasks.fork_and_exit_with, 3)
        self.assertEqual(self.pool.apply(function, (0,)), 3)
        self.assertEqual(self.pool.map(function, [1, 2], 2), [3, 3])

    def test_join_does_not_wait_for_a_tasks_child(self):
        """Which holds what multiprocessing's join looks at."""
        pool = self.new_pool(2)
        pool.starmap(tasks.leave_a_process, [(self.notes, 60)] * 2, 1)
        for child in self.read_notes():
            self.addCleanup(os.kill, int(child), signal.SIGKILL)
        start = time.monotonic()
        pool.close()
        pool.join()
        self.assertLess(time.monotonic() - start, 8)  # ten seconds for each, once


@engine_only
class InheritedPool(Case, unittest.TestCase):
    """The classic mistake: a task that uses the pool that it inherited by fork."""

    method = "fork"

    def test_task_that_uses_its_pool(self):
        pool = self.new_pool(1)
        tasks.state = pool
        self.addCleanup(setattr, tasks, "state", None)
        other = self.new_pool(1)
        result = other.apply_async(tasks.use_state_as_pool)
        self.assertRaisesRegex(RuntimeError, "pool", result.get, PATIENCE)
        self.assertEqual(pool.apply(tasks.square, (3,)), 9)


for_each_method(globals(), ForkedUsers)

if __name__ == "__main__":
    unittest.main()

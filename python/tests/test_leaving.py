#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How workers leave at the end of `with Pool()` and at terminate(): as gently as it can be done at
once. Who has a SIGTERM handler gets SIGTERM, busy or not; who is idle leaves in the normal way;
the rest is killed. Two seconds are the most that anybody gets, who has begun to leave.
"""
import os
import signal
import tempfile
import threading
import time
import unittest

import allcores
import lifecycle
import tasks
from programs import AT_ONCE
from support import PATIENCE, Case, alive, engine_only, for_each_method, pids, run_script


class Leaving(Case):
    """Pools of two, the ends of whose workers are noted."""

    def open(self, initializer, *initargs):
        """Both workers are ready."""
        pool = self.new_pool(2, initializer, initargs)
        folder = tempfile.mkdtemp(dir=self.folder)
        pool.starmap_async(tasks.meet, [(folder, 2)] * 2, 1).get(PATIENCE)
        return pool

    def occupy(self, pool, count):
        """So many workers are at a task that does not end. Return their pids and results."""
        notes = tempfile.mktemp(dir=self.folder)
        never = self.path("never")
        results = [pool.apply_async(tasks.note_and_wait, (notes, never)) for _ in range(count)]
        self.wait_until(lambda: len(tasks.read_notes(notes)) == count, "busy workers")
        return [int(line.split()[0]) for line in tasks.read_notes(notes)], results

    def end(self, pool):
        """Leave its block, in bounded time. Return the workers that it had."""
        workers = list(pool._pool)
        numbers = pids(pool)
        start = time.monotonic()
        pool.__exit__(None, None, None)
        self.assertLess(time.monotonic() - start, AT_ONCE)
        pool.join()
        self.assertLess(time.monotonic() - start, AT_ONCE)
        self.assertFalse(any(map(alive, numbers)))
        return workers

    def said(self, word):
        """The pids of those who noted that word."""
        notes = [line.split() for line in self.read_notes()]
        return sorted(int(note[1]) for note in notes if note[0] == word)


@engine_only
class Gently(Leaving):
    """What a worker still has to do is done."""

    def test_idle_workers_leave_in_the_normal_way(self):
        pool = self.open(lifecycle.note_ends, self.notes)
        numbers = pids(pool)
        for worker in self.end(pool):
            self.assertEqual(worker.exitcode, 0)
        self.assertEqual(self.said("Finalize"), sorted(numbers))

    def test_same_as_close_and_join(self):
        """Whatever hooks run there (atexit's, from Python 3.14 on) run here."""
        seen = []
        for end in "close", "terminate":
            self.notes = self.path(end)
            pool = self.open(lifecycle.note_ends, self.notes)
            getattr(pool, end)()
            pool.join()
            seen.append([len(self.said(word)) for word in ("Finalize", "atexit")])
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0][0], 2)

    def test_idle_beside_busy_ones(self):
        """Who is idle leaves in the normal way, though the other one is killed."""
        pool = self.open(lifecycle.note_ends, self.notes)
        busy, results = self.occupy(pool, 1)
        numbers = pids(pool)
        ends = {worker.pid: worker.exitcode for worker in self.end(pool)}
        self.assertEqual(self.said("Finalize"), sorted(set(numbers) - set(busy)))
        self.assertEqual(ends[busy[0]], -signal.SIGKILL)
        self.assertRaises(allcores.TaskCancelled, results[0].get, 0)

    def test_sigterm_for_who_has_a_handler(self):
        """As coverage has it, when it is asked to: idle workers and busy ones."""
        for count in 0, 1, 2:
            with self.subTest(busy=count):
                self.notes = self.path(f"notes{count}")
                pool = self.open(lifecycle.note_sigterm, self.notes)
                busy, _ = self.occupy(pool, count)
                numbers = pids(pool)
                ends = {worker.pid: worker.exitcode for worker in self.end(pool)}
                self.assertEqual(self.said("SIGTERM"), sorted(numbers))
                self.assertLessEqual(set(ends.values()), {0, -signal.SIGTERM})
                self.assertEqual({ends[pid] for pid in busy} - {-signal.SIGTERM}, set())

    def test_handler_that_a_task_has_set(self):
        pool = self.new_pool(1)
        pool.apply(lifecycle.note_sigterm, (self.notes,))
        numbers = pids(pool)
        self.end(pool)
        self.assertEqual(self.said("SIGTERM"), numbers)

    def test_at_the_end_of_the_program(self):
        """Nobody has ended the pool."""
        code, _, err = run_script(self, """
import sys, allcores, lifecycle, tasks
if __name__ == "__main__":
    pool = allcores.get_context(sys.argv[1]).Pool(2, lifecycle.note_ends, (sys.argv[2],))
    pool.starmap(tasks.meet, [(sys.argv[3], 2)] * 2, 1)
    print(*[worker.pid for worker in pool._pool])
""", self.method, self.notes, self.folder)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(len(self.said("Finalize")), 2)

    def test_never_needed(self):
        """Workers that have not worked: there is nothing to be lost, and nobody is waited for."""
        pool = self.new_pool(8)
        numbers = pids(pool)
        self.end(pool)
        self.wait_gone(numbers)


@engine_only
class AtOnce(Leaving):
    """Whoever does not leave is killed, and the whole does not take long: end() checks."""

    def test_busy_ones(self):
        pool = self.open(tasks.nothing)
        self.occupy(pool, 2)
        for worker in self.end(pool):
            self.assertEqual(worker.exitcode, -signal.SIGKILL)

    def test_stopped_ones(self):
        pool = self.open(tasks.nothing)
        for pid in pids(pool):
            os.kill(pid, signal.SIGSTOP)
        for worker in self.end(pool):
            self.assertEqual(worker.exitcode, -signal.SIGKILL)

    def test_handler_that_does_not_return(self):
        """It has begun to leave: two seconds."""
        for count in 0, 1:
            with self.subTest(busy=count):
                self.notes = self.path(f"notes{count}")
                pool = self.new_pool(1, lifecycle.hang_at_sigterm, (self.notes,))
                pool.apply(tasks.nothing)
                self.occupy(pool, count)
                worker, = self.end(pool)
                self.assertEqual(worker.exitcode, -signal.SIGKILL)
                self.assertEqual(len(self.said("SIGTERM")), 1)

    def test_finalizer_that_does_not_return(self):
        pool = self.new_pool(1, lifecycle.hang_at_end, (self.notes,))
        pool.apply(tasks.nothing)
        worker, = self.end(pool)
        self.assertEqual(worker.exitcode, -signal.SIGKILL)
        self.assertEqual(len(self.said("leaves")), 1)

    def test_who_was_leaving_already(self):
        """After close, when terminate comes."""
        pool = self.new_pool(1, lifecycle.hang_at_end, (self.notes,))
        pool.apply(tasks.nothing)
        pool.close()
        joining = threading.Thread(target=pool.join)
        joining.start()
        self.wait_until(lambda: self.said("leaves"), "a worker that leaves")
        self.end(pool)
        joining.join(PATIENCE)
        self.assertFalse(joining.is_alive())

    def test_signal_that_is_ignored(self):
        """That is no handler."""
        pool = self.new_pool(1, signal.signal, (signal.SIGTERM, signal.SIG_IGN))
        pool.apply(tasks.nothing)
        self.occupy(pool, 1)
        worker, = self.end(pool)
        self.assertEqual(worker.exitcode, -signal.SIGKILL)

    def test_handler_of_c(self):
        """A task that never comes back to Python, in which no handler of Python's runs."""
        pool = self.new_pool(1, lifecycle.note_sigterm, (self.notes,))
        pool.apply(tasks.nothing)
        result = pool.apply_async(lifecycle.stay_in_c, (self.path("busy"),))
        self.wait_until(lambda: tasks.read_notes(self.path("busy")), "a busy worker")
        worker, = self.end(pool)
        self.assertEqual(worker.exitcode, -signal.SIGKILL)
        self.assertRaises(allcores.TaskCancelled, result.get, 0)


for_each_method(globals(), Gently, AtOnce)

if __name__ == "__main__":
    unittest.main()

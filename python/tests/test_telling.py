#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is told of a worker's death, of failures that nobody fetches, of workers at work."""
import contextlib
import errno
import functools
import gc
import io
import multiprocessing.util
import os
import pickle
import resource
import signal
import unittest

import allcores
import tasks
from allcores import _core
from support import PATIENCE, Case, engine_only, for_each_method, pids, run_script

LOGGER = multiprocessing.util.get_logger()


@engine_only
class Deaths(Case):
    """The cause, in the exception's attributes and words."""

    def death(self, call, *args):
        with self.assertRaises(allcores.WorkerDied) as caught:
            call(*args)
        return caught.exception

    def test_how_long_and_how_much_memory(self):
        # More than we have had: what we had it has from us, when it is spawned.
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 + 64
        error = self.death(self.pool.apply, tasks.grow_and_die, (megabytes, 0.2, signal.SIGKILL))
        self.assertGreater(error.ran, 0.15)
        self.assertLess(error.ran, PATIENCE)
        self.assertIn(f"after {error.ran:.2f} s", str(error))
        if self.method == "forkserver":  # not our child: the kernel tells its parent alone
            self.assertIsNone(error.peak_rss)
        else:
            self.assertGreater(error.peak_rss, megabytes << 20)
            self.assertLess(error.peak_rss, 1 << 30)
            self.assertIn(f"{error.peak_rss / 1e6:.0f} MB", str(error))

    def test_memory_of_the_owner_is_not_the_workers(self):
        """Linux hands the figure on from who starts a new program."""
        ballast = bytearray(64 << 20)
        ballast[::4096] = bytes(len(ballast[::4096]))
        error = self.death(self.new_pool(1).apply, tasks.die_of, (signal.SIGKILL,))
        if self.method == "spawn":
            self.assertIsNone(error.peak_rss)
        elif self.method == "fork":
            self.assertGreater(error.peak_rss, len(ballast))

    def test_named_fields(self):
        """What the extension knows of a dead worker, and of one at work, has names."""
        pool, seen = self.new_pool(1), []
        make_exception = pool._workers.make_exception

        def note(outcome, function):
            seen.append(outcome)
            return make_exception(outcome, function)

        pool._workers.make_exception = note
        with self.assertRaises(allcores.WorkerDied) as caught:
            pool.apply(tasks.die, ("kill",))
        self.assertEqual((seen[0].name, seen[0].pid, seen[0].worker),
                         ("AC_EDIED", caught.exception.pid, 0))
        self.assertIn((seen[0].signal, seen[0].exit_code), ((signal.SIGKILL, -1), (0, -1)))
        pool.apply(tasks.nothing)
        stat, = pool._core.workers(1)
        self.assertIn(stat.state, (_core.WORKER_IDLE, _core.WORKER_BUSY))
        self.assertEqual(stat.pid, pids(pool)[0])

    def test_last_stack(self):
        for signum in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
            error = self.death(self.pool.apply, tasks.die_of, (signum,))
            self.assertEqual(error.exitcode, -signum)
            self.assertIn(" in die_of", error.stack)
            self.assertNotIn("_worker.py", error.stack)
            self.assertIn(error.stack, str(error))
            self.assertNotIn(error.stack, repr(error))

    def test_no_stack_of_who_is_killed(self):
        error = self.death(self.pool.apply, tasks.die_of, (signal.SIGKILL,))
        self.assertIsNone(error.stack)
        # Nor is that of an earlier one told of again.
        self.assertIsNotNone(self.death(self.pool.apply, tasks.die_of, (signal.SIGSEGV,)).stack)
        for _ in range(4):
            self.assertIsNone(self.death(self.pool.apply, os._exit, (3,)).stack)

    def test_stack_of_the_last_worker_of_a_closed_pool(self):
        pool = self.new_pool(1)
        result = pool.apply_async(tasks.die_of, (signal.SIGSEGV,))
        pool.close()
        pool.join()
        self.assertIn(" in die_of", self.death(result.get, PATIENCE).stack)

    def test_users_own_faulthandler(self):
        """It goes where the initializer said."""
        path = self.path("stack")
        pool = self.new_pool(1, tasks.enable_own_faulthandler, (path,))
        self.assertIsNone(self.death(pool.apply, tasks.die_of, (signal.SIGSEGV,)).stack)
        with open(path) as file:
            self.assertIn(" in die_of", file.read())

    def test_items_of_a_map(self):
        function = functools.partial(tasks.die_of_segv_on, 7)
        error = self.death(self.pool.map, function, range(10), 5)
        self.assertEqual(error.items, range(5, 10))
        self.assertIn("(items 5 to 9)", str(error))
        error = self.death(self.pool.map_async(function, range(9), 2).get, PATIENCE)
        self.assertEqual(error.items, range(6, 8))
        error = self.death(self.pool.map, function, range(7, 8))
        self.assertEqual(error.items, range(1))
        self.assertIn("(item 0)", str(error))

    def test_items_of_an_imap(self):
        function = functools.partial(tasks.die_of_segv_on, 7)
        error = self.death(list, self.pool.imap(function, range(10)))
        self.assertEqual(error.items, range(7, 8))
        error = self.death(list, self.pool.imap_unordered(function, range(10), 4))
        self.assertEqual(error.items, range(4, 8))
        # The last chunk, of an input whose length is known and of one whose is not.
        for items in (range(9), iter(range(9))):
            error = self.death(list, self.pool.imap(function, items, 7))
            self.assertEqual(error.items, range(7, 9))

    def test_functions_without_a_name(self):
        """By its type: not by its repr, which may fail, or be as long as its data."""
        self.assertEqual(self.pool.apply(tasks.Shy(), (1,)), (1,))
        function = functools.partial(tasks.ShyAndDeadly(), 1)
        error = self.death(self.pool.map, function, range(2), 1)
        self.assertIn("while it ran partial(tasks.ShyAndDeadly object)", str(error))

    def test_pickled(self):
        error = self.death(self.pool.map, functools.partial(tasks.die_of_segv_on, 0), range(3), 3)
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual(vars(again), vars(error))
        self.assertEqual(str(again), str(error))
        self.assertEqual(str(pickle.loads(pickle.dumps(allcores.WorkerDied(3, 4)))),
                         str(allcores.WorkerDied(3, 4)))


@engine_only
class Unfetched(Case):
    """Failures that nobody asks for are logged; those that somebody has seen are not."""

    @contextlib.contextmanager
    def told(self, *texts):
        """Each text is told of once, at the latest when the pool has ended; no more than these."""
        with self.assertLogs(LOGGER, "ERROR") as logs:
            LOGGER.error("nothing but this")  # assertLogs wants something
            pool = self.context.Pool(2)
            try:
                yield pool
                pool.close()
                pool.join()
            finally:
                pool.terminate()
            del pool
            gc.collect()
        told = [record.getMessage() + "".join(map(str, record.exc_info or ()))
                for record in logs.records[1:]]
        self.assertEqual(len(told), len(texts), told)
        for text in texts:
            self.assertEqual(sum(text in line for line in told), 1, told)

    def test_dropped_at_once(self):
        with self.told("'no luck', 1", "'no luck', 2", "tasks.die_of") as pool:
            for number in (1, 2):
                pool.apply_async(tasks.fail, (number,))
            pool.apply_async(tasks.die_of, (signal.SIGKILL,))
            pool.apply_async(tasks.same, (3,))

    def test_dropped_when_it_has_ended(self):
        with self.told("'no luck', 1") as pool:
            results = [pool.apply_async(tasks.fail, (1,)), pool.apply_async(tasks.same, (1,))]
            while results:
                results.pop().wait(PATIENCE)

    def test_while_the_pool_goes_on(self):
        """Others that are handed in find what has ended meanwhile."""
        with self.told() as pool:
            with self.assertLogs(LOGGER, "ERROR") as logs:
                LOGGER.error("nothing but this")
                pool.apply_async(tasks.fail, (1,))
                self.wait_until(lambda: pool.apply(tasks.same, (2,)) and len(logs.records) == 2)

    def test_fetched(self):
        with self.told() as pool:
            result = pool.apply_async(tasks.fail, (1,))
            self.assertRaises(tasks.Trouble, result.get, PATIENCE)
            result = pool.apply_async(tasks.fail, (1,))
            result.wait(PATIENCE)
            self.assertFalse(result.successful())
            self.assertRaises(tasks.Trouble, pool.apply, tasks.fail, (1,))
            self.assertRaises(tasks.Trouble, pool.map, tasks.fail, (1,))
            self.assertRaises(tasks.Trouble, pool.map, tasks.fail, (1,), 1)
            self.assertRaises(tasks.Trouble, pool.map_async(tasks.fail, (1,)).get, PATIENCE)
            del result

    def test_callbacks(self):
        """An error_callback has seen it, a callback has not."""
        seen = []
        with self.told("'no luck', 3", "'no luck', 4", "'no luck', 5") as pool:
            pool.apply_async(tasks.fail, (1,), error_callback=seen.append)
            pool.map_async(tasks.fail, (2,), error_callback=seen.append)
            pool.apply_async(tasks.fail, (3,), callback=seen.append)
            pool.map_async(tasks.fail, (4,), callback=seen.append)
            pool.map_async(tasks.fail, (5,))
        self.assertEqual(sorted(error.number for error in seen), [1, 2])

    def test_cancelled(self):
        """What a terminated pool has not done is no failure of a call."""
        with self.told() as pool:
            pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
            pool.starmap_async(tasks.note_and_wait, [(self.notes, self.path("never"))])
            self.wait_until(self.read_notes)
            pool.terminate()

    def test_dropped_while_a_worker_is_replaced(self):
        """Which may happen in a look at what was dropped before."""
        pool = self.new_pool(2)
        hook = "make_replacement" if self.method == "fork" else "start_worker"
        start, starts = getattr(pool._workers, hook), []

        def start_and_drop(*args):
            starts.append(args)
            for _ in range(300):
                pool.apply_async(tasks.same, (1,))
            if len(starts) % 4:
                raise OSError(errno.EAGAIN, "not this time")
            return start(*args)

        setattr(pool._workers, hook, start_and_drop)
        with self.assertLogs(LOGGER, "ERROR"):  # of the calls that were killed
            LOGGER.error("perhaps none")
            for _ in range(10):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids(pool)[0], signal.SIGKILL)
                for _ in range(3000):
                    pool.apply_async(tasks.same, (1,))
            setattr(pool._workers, hook, start)
            pool.close()
            pool.join()
        counts = pool._core.stat()
        self.assertEqual(counts["submitted"], counts["done"] + counts["failed"])
        self.assertEqual(counts["submitted"], 300 * len(starts) + 30000)
        self.assertEqual(pool._core.dropped, 0)

    def test_many_dropped_are_not_kept(self):
        """Their results are let go of while the pool goes on."""
        with self.told() as pool:
            for _ in range(3000):
                pool.apply_async(tasks.same, (bytes(1000),))
            self.wait_until(lambda: pool._core.stat()["done"] == 3000)
            for _ in range(2000):
                pool.apply(tasks.nothing)
            self.assertLess(pool._core.dropped, 10)


@engine_only
class UnfetchedPrograms(Case, unittest.TestCase):
    """The whole of what a program prints."""

    def test_message(self):
        code, out, err = run_script(self, """
import allcores, tasks
if __name__ == "__main__":
    with allcores.Pool(2) as pool:
        pool.apply_async(tasks.fail, (5,))
        pool.close()
        pool.join()
""")
        self.assertEqual((code, out), (0, ""))
        self.assertIn("a call of tasks.fail failed, and nobody fetched its exception", err)
        self.assertEqual(err.count("tasks.Trouble: ('no luck', 5)"), 2)  # there, and here
        self.assertIn("RemoteTraceback", err)

    def test_forked_child(self):
        """It is told by the process whose pool it is, and by no other."""
        code, _, err = run_script(self, """
import allcores, os, tasks, time
pool = allcores.get_context("fork").Pool(2)
result = pool.apply_async(tasks.fail, (5,))
later = pool.map_async(tasks.fail, (6,))
later.wait()
result.wait()
child = os.fork()
if child == 0:
    del result, later
    os._exit(0)
os.waitpid(child, 0)
del result, later
pool.terminate()
""")
        self.assertEqual(code, 0)
        self.assertEqual(err.count("nobody fetched"), 2, err)


@engine_only
class Dump(Case):
    """Pool.dump: one line for each worker, and the stack of those at work."""

    def dump(self, pool):
        file = io.StringIO()
        pool.dump(file)
        return file.getvalue()

    def hold_one(self, pool):
        """A worker that is at it until path is there: (its pid, path)."""
        path = self.path("go")
        result = pool.apply_async(tasks.nap_deep, (self.notes, path))
        self.wait_until(self.read_notes)
        self.addCleanup(result.wait, PATIENCE)
        self.addCleanup(tasks.touch, path)
        return int(self.read_notes()[-1].split()[0]), path

    def test_worker_at_work(self):
        pool = self.new_pool(2)
        pool.map(tasks.same, range(10), 1)
        pid, _ = self.hold_one(pool)
        self.wait_until(lambda: ": idle\n" in self.dump(pool), "the other one's start")
        for _ in range(2):
            text = self.dump(pool)
            self.assertIn("state=RUN", text)
            self.assertRegex(text, rf"pid {pid}: at work for \d+\.\d s, call 11: tasks.nap_deep")
            self.assertIn(" in nap_deep", text)
            self.assertNotIn("_worker.py", text)
            self.assertIn("11 calls submitted: 0 waiting, 1 running, 10 done", text)

    def test_function_of_c(self):
        pool = self.new_pool(1)
        pool.apply_async(tasks.time.sleep, (60,))
        self.wait_until(lambda: pool._core.stat()["running"])
        self.wait_until(lambda: "call 1: time.sleep" in self.dump(pool))
        self.assertIn("not written in Python", self.dump(pool))

    def test_stopped_worker(self):
        pool = self.new_pool(2)
        pid, _ = self.hold_one(pool)
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        self.wait_until(lambda: "the process is stopped" in self.dump(pool))

    def test_slow_initializer(self):
        path = self.path("go")
        pool = self.new_pool(1, tasks.start_slowly, (self.notes, path))
        self.addCleanup(tasks.touch, path)
        self.wait_until(self.read_notes)
        text = self.dump(pool)
        self.assertIn(f"pid {pids(pool)[0]}: starting: the initializer, tasks.start_slowly", text)
        self.assertIn(" in start_slowly", text)

    def test_dead_and_gone(self):
        pool = self.context.Pool(2)
        pool.terminate()
        self.assertIn("state=TERMINATE", self.dump(pool))
        pool.join()
        self.assertEqual(self.dump(pool).count("no process"), 2)

    def test_standard_error(self):
        with contextlib.redirect_stderr(io.StringIO()) as file:
            self.pool.dump()
        self.assertIn("worker 0", file.getvalue())

    def test_work_goes_on(self):
        """Workers that are asked again and again lose nothing."""
        pool = self.new_pool(2)
        result = pool.map_async(tasks.square, range(3000), 1)
        while not result.ready():
            self.dump(pool)
        self.assertEqual(result.get(PATIENCE), [x * x for x in range(3000)])
        self.assertEqual(pool._core.stat()["deaths"], 0)


for_each_method(globals(), Deaths, Unfetched, Dump)

if __name__ == "__main__":
    unittest.main()

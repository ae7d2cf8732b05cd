#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What programs depend on in a pool's workers, contexts and end, and reach into.

As in test_contract.py, all of it must pass with the standard library's pool.
"""
import atexit
import functools
import gc
import logging
import multiprocessing
import multiprocessing.pool
import multiprocessing.process
import os
import pickle
import signal
import sys
import threading
import time
import unittest
import warnings

import allcores
import allcores.pool
import tasks
from support import PATIENCE, Case, alive, engine_only, for_each_method, pids, run_script, stop


class Workers(Case):
    """Daemonic processes of the context, there when the constructor returns."""

    names = {"fork": "ForkPoolWorker", "spawn": "SpawnPoolWorker",
             "forkserver": "ForkServerPoolWorker"}

    def ask_all(self, pool, function, count=2):
        """What function() gives in each of the workers."""
        pool.map(functools.partial(tasks.meet, self.folder), [count] * count, 1)
        found = {}
        self.wait_until(lambda: len(found.update([pool.apply(function)]) or found) == count)
        return found

    def test_all_started_by_the_constructor(self):
        pool = self.new_pool(3)
        self.assertEqual(len(set(pids(pool))), 3)
        self.assertTrue(all(worker.is_alive() for worker in pool._pool))
        active = [process.pid for process in multiprocessing.active_children()]
        self.assertLessEqual(set(pids(pool)), set(active))

    def test_names_and_identities(self):
        pool = self.new_pool(2)
        met = pool.map(functools.partial(tasks.meet, self.folder), [2, 2], 1)
        self.assertEqual(sorted(met), sorted(pids(pool)))
        name, identity, daemon, pid = pool.apply(tasks.whoami)
        worker = {w.pid: w for w in pool._pool}[pid]
        self.assertEqual((name, identity), (worker.name, worker._identity))
        self.assertEqual(name, f"{self.names[self.method]}-{identity[-1]}")
        self.assertTrue(daemon)
        self.assertTrue(worker.daemon)

    def test_numbers_go_on_with_replacements(self):
        pool = self.new_pool(1, maxtasksperchild=1)
        numbers = [pool.apply(tasks.whoami)[1][-1] for _ in range(4)]
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + 4)))

    def test_workers_are_of_the_contexts_process(self):
        for worker in self.pool._pool:
            self.assertIsInstance(worker, self.context.Process)

    def test_daemons_have_no_children(self):
        with self.assertRaisesRegex(AssertionError, "daemonic"):
            self.pool.apply(tasks.start_a_process)

    def test_replaced_after_maxtasksperchild_chunks(self):
        pool = self.new_pool(1, maxtasksperchild=2)
        found = pool.map(tasks.pid, range(8), chunksize=2)
        self.assertEqual([found.count(pid) for pid in dict.fromkeys(found)], [4, 4])
        found = [pool.apply(tasks.pid) for _ in range(4)]
        self.assertEqual([found.count(pid) for pid in dict.fromkeys(found)], [2, 2])
        found = list(pool.imap(tasks.pid, range(4)))
        self.assertEqual([found.count(pid) for pid in dict.fromkeys(found)], [2, 2])
        found = list(pool.imap(tasks.pid, range(12), chunksize=3))
        self.assertEqual([found.count(pid) for pid in dict.fromkeys(found)], [6, 6])

    def test_maxtasksperchild_with_many_items(self):
        for number in (1, 2):
            pool = self.new_pool(2, maxtasksperchild=number)
            results = [pool.apply_async(tasks.square, (i,)) for i in range(20)]
            self.assertEqual(list(pool.imap_unordered(tasks.same, [1] * 20, 3)), [1] * 20)
            pool.close()
            pool.join()
            self.assertEqual([r.get(0) for r in results], [i * i for i in range(20)])

    @engine_only
    def test_replaced_workers_have_not_died(self):
        pool = self.new_pool(2, maxtasksperchild=2)
        for _ in range(3):
            pool.map(abs, range(20), 1)
        self.assertEqual(pool._core.stat()["deaths"], 0)

    def test_initializer_runs_in_every_worker(self):
        pool = self.new_pool(2, tasks.set_state, (1, "b"))
        met = pool.map(functools.partial(tasks.meet, self.folder), [2, 2], 1)
        self.assertEqual(len(set(met)), 2)
        self.assertEqual(set(pool.map(tasks.get_state, range(50), 1)), {(1, "b")})

    def test_initializer_runs_in_replacements(self):
        pool = self.new_pool(initializer=tasks.note_start, initargs=(self.notes,), processes=1,
                             maxtasksperchild=1)
        found = [str(pool.apply(tasks.pid)) for _ in range(3)]
        self.assertEqual(len(set(found)), 3)
        self.assertEqual(self.read_notes()[:3], found)

    def test_log_level_comes_along(self):
        logger = allcores.get_logger()
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 3)
        pool = self.new_pool(1)
        self.assertEqual(pool.apply(tasks.log_level), logging.CRITICAL + 3)

    def test_signals_are_held_back_in_no_worker(self):
        """Neither in the first ones nor in those that a helper has started."""
        mask = tasks.signal_mask()
        pool = self.new_pool(1, maxtasksperchild=1)
        self.assertEqual([pool.apply(tasks.signal_mask) for _ in range(3)], [mask] * 3)

    def test_context_argument(self):
        pool = allcores.pool.Pool(1, context=self.context)
        self.addCleanup(stop, pool)
        self.assertTrue(pool.apply(tasks.whoami)[0].startswith(self.names[self.method]))

    def test_set_start_method_is_obeyed(self):
        before = multiprocessing.get_start_method(allow_none=True)
        self.addCleanup(multiprocessing.set_start_method, before, force=True)
        multiprocessing.set_start_method(self.method, force=True)
        pool = allcores.Pool(1)
        self.addCleanup(stop, pool)
        self.assertTrue(pool.apply(tasks.whoami)[0].startswith(self.names[self.method]))


class Closing(Case):
    """close, terminate, join, the with-block, and dropping a pool."""

    def calls(self, pool):
        return (lambda: pool.apply(tasks.nothing), lambda: pool.apply_async(tasks.nothing),
                lambda: pool.map(tasks.same, [1]), lambda: pool.map_async(tasks.same, []),
                lambda: pool.starmap(tasks.same, [(1,)]), lambda: pool.imap(tasks.same, [1]),
                lambda: pool.imap_unordered(tasks.same, [1], 2))

    def test_close_runs_what_was_asked_before(self):
        pool, told = self.new_pool(2), []
        results = [pool.apply_async(tasks.square, (i,), callback=told.append) for i in range(100)]
        mapped = pool.map_async(tasks.square, range(100))
        lazy = pool.imap(tasks.square, range(100))
        pool.close()
        for call in self.calls(pool):
            self.assertRaises(ValueError, call)
        pool.close()
        pool.join()
        self.assertEqual(sorted(told), [i * i for i in range(100)])
        self.assertTrue(all(r.ready() for r in results))
        self.assertEqual([r.get(0) for r in results], mapped.get(0))
        self.assertEqual(list(lazy), mapped.get(0))
        pool.join()
        pool.terminate()

    def test_join_needs_close_or_terminate(self):
        self.assertRaises(ValueError, self.pool.join)
        self.assertEqual(self.pool.apply(tasks.square, (2,)), 4)

    @engine_only
    def test_join_with_a_stopped_worker(self):
        """It is killed after ten seconds; the other one, whose finalizer takes longer, is not."""
        pool = self.new_pool(2, tasks.add_slow_finalizer, (self.notes, 11))
        self.wait_until(lambda: len(self.read_notes()) == 2)
        stopped, other = pids(pool)
        os.kill(stopped, signal.SIGSTOP)
        pool.close()
        pool.join()
        self.wait_gone([stopped, other])
        self.assertEqual(self.read_notes()[2:], [str(other)])

    @engine_only
    def test_join_when_a_job_could_not_tell(self):
        """A signal handler's exception has ended it between leaving and telling."""
        pool = self.new_pool(1)
        job = object()
        pool._submitting.enter(job)
        pool.close()
        joining = threading.Thread(target=pool.join, daemon=True)
        joining.start()
        joining.join(0.2)
        self.assertTrue(joining.is_alive())
        pool._submitting.forget(job)
        joining.join(PATIENCE)
        self.assertFalse(joining.is_alive())

    def test_workers_end(self):
        for end in ("close", "terminate"):
            pool = self.new_pool(2)
            workers = list(pool._pool)
            numbers = pids(pool)
            getattr(pool, end)()
            pool.join()
            self.assertFalse(any(map(alive, numbers)))
            self.assertFalse(any(worker.is_alive() for worker in workers))

    def test_terminate_does_not_wait_for_tasks(self):
        pool = self.new_pool(2)
        numbers = pids(pool)
        for _ in range(50):
            pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
        pool.map_async(tasks.square, range(1000), chunksize=1)
        self.wait_until(lambda: len(self.read_notes()) == 2, "two running tasks")
        pool.terminate()
        for call in self.calls(pool):
            self.assertRaises(ValueError, call)
        pool.terminate()
        pool.close()
        pool.join()
        self.assertEqual(len(self.read_notes()), 2)
        self.assertFalse(any(map(alive, numbers)))

    def test_with_block_terminates(self):
        with self.new_pool(1) as pool:
            pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
            numbers = pids(pool)
        pool.join()
        self.assertFalse(any(map(alive, numbers)))
        self.assertRaises(ValueError, pool.apply, tasks.nothing)
        with self.assertRaises(ValueError):
            pool.__enter__()

    def test_with_block_lets_errors_through(self):
        with self.assertRaises(tasks.Trouble):
            with self.new_pool(1) as pool:
                pool.map(tasks.fail, [1])

    def test_workers_finalizers_run_at_close(self):
        pool = self.new_pool(2, tasks.add_finalizer, (self.notes,))
        pool.map(tasks.same, range(4))
        numbers = pids(pool)
        pool.close()
        pool.join()
        self.assertEqual(sorted(self.read_notes()), sorted(map(str, numbers)))

    def test_workers_atexit_functions_run_at_close(self):
        """Where the standard library's own processes run them; the owner's never run there."""
        atexit.register(tasks.note_start, self.notes)
        self.addCleanup(atexit.unregister, tasks.note_start)
        pool = self.new_pool(2, tasks.add_atexit, (self.notes,))
        pool.map(tasks.same, range(4))
        numbers = pids(pool)
        pool.close()
        pool.join()
        runs = self.method == "spawn" or sys.version_info >= (3, 13)
        self.assertEqual(sorted(self.read_notes()), sorted(map(str, numbers)) if runs else [])

    def test_cannot_be_pickled(self):
        with self.assertRaises(NotImplementedError):
            pickle.dumps(self.pool)
        with self.assertRaises(NotImplementedError):
            self.pool.apply(tasks.same, (self.pool,))

    def test_dropping_a_running_pool_warns_and_ends_it(self):
        pool = self.context.Pool(2)
        self.assertEqual(pool.map(tasks.same, [1, 2]), [1, 2])
        numbers = pids(pool)
        with self.assertWarnsRegex(ResourceWarning, "unclosed running multiprocessing pool"):
            del pool
            gc.collect()
        self.wait_gone(numbers)

    def test_dropping_a_closed_pool_is_quiet(self):
        pool = self.context.Pool(1)
        pool.close()
        pool.join()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del pool
            gc.collect()

    def test_repr(self):
        pool = self.new_pool(2)
        self.assertRegex(repr(pool), r"pool\.Pool state=RUN pool_size=2")
        pool.close()
        self.assertIn("state=CLOSE", repr(pool))


class AfterFork(Case, unittest.TestCase):
    """Hooks of multiprocessing.util run in forked workers."""

    method = "fork"

    def test_hooks_run_once_in_each_worker(self):
        hook = tasks.Hook()
        pool = self.new_pool(2, tasks.set_state, (hook,))
        self.assertEqual(pool.apply(count_of_hook), 1)
        self.assertEqual(hook.seen, 0)


def count_of_hook():
    return tasks.state[0].seen


class CustomContexts(Case):
    """Subclassed contexts and processes, as the recipes for nested pools have them."""

    def check(self, pool):
        self.addCleanup(stop, pool)
        self.assertFalse(pool.apply(tasks.whoami)[2])
        result = pool.map_async(functools.partial(tasks.nested_map, self.method), [5, 10], 1)
        self.assertEqual(result.get(PATIENCE), [30, 285])
        pool.close()
        pool.join()

    def test_context_without_daemons(self):
        context = tasks.NO_DAEMON[self.method]()
        pool = allcores.pool.Pool(2, context=context)
        self.assertIsInstance(pool._pool[0], context.Process)
        self.check(pool)

    def test_pool_of_a_subclassed_context(self):
        pool = tasks.NO_DAEMON[self.method]().Pool(2)
        self.assertIsInstance(pool, allcores.pool.Pool)
        self.check(pool)

    def test_subclassed_pool(self):
        before = multiprocessing.get_start_method(allow_none=True)
        self.addCleanup(multiprocessing.set_start_method, before, force=True)
        multiprocessing.set_start_method(self.method, force=True)
        self.check(tasks.NestablePool(2))

    def test_pool_with_a_process_of_its_own(self):
        self.check(tasks.OldNestablePool(2, context=self.context))


class Private(Case):
    """What programs reach into: progress, process numbers, the pool's size."""

    def test_pool_is_a_list_of_processes(self):
        self.assertIsInstance(self.pool._pool, list)
        self.assertEqual(len(self.pool._pool), 2)
        self.assertTrue(all(isinstance(w, multiprocessing.process.BaseProcess)
                            for w in self.pool._pool))
        self.assertTrue(all(alive(w.pid) and w.exitcode is None for w in self.pool._pool))
        self.assertIn(self.pool.apply(tasks.pid), pids(self.pool))

    def test_pool_follows_replacements(self):
        pool = self.new_pool(1, maxtasksperchild=1)
        for _ in range(3):
            before = pids(pool)
            pool.apply(tasks.nothing)
            self.wait_until(lambda: len(pool._pool) == 1 and pids(pool) != before, "a replacement")

    def test_processes(self):
        self.assertEqual(self.pool._processes, 2)

    def test_state(self):
        self.assertEqual((allcores.pool.RUN, allcores.pool.CLOSE, allcores.pool.TERMINATE),
                         ("RUN", "CLOSE", "TERMINATE"))
        pool = self.new_pool(1)
        self.assertEqual(pool._state, "RUN")
        pool.close()
        self.assertEqual(pool._state, "CLOSE")
        pool.terminate()
        self.assertEqual(pool._state, "TERMINATE")

    def test_cache_holds_what_is_unfinished(self):
        pool, go = self.new_pool(2), self.path("go")
        self.assertEqual(len(pool._cache), 0)
        results = [pool.apply_async(tasks.wait_for, (go,)) for _ in range(3)]
        results.append(pool.map_async(tasks.wait_for, [go] * 10))
        found = pool.imap(tasks.wait_for, [go] * 5)
        self.assertEqual(len(pool._cache), 5)
        tasks.touch(go)
        self.assertEqual(list(found), [None] * 5)
        for result in results:
            result.get(PATIENCE)
        self.wait_until(lambda: not pool._cache, "an empty cache")

    @engine_only
    def test_cache_while_other_threads_hand_in(self):
        pool = self.new_pool(1)
        enough = threading.Event()

        def hand_in():
            while not enough.is_set():
                pool.map_async(tasks.same, [1]).wait(PATIENCE)

        threads = [threading.Thread(target=hand_in) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                self.assertLessEqual(len(pool._cache), 2 * len(threads))
        finally:
            enough.set()
            for thread in threads:
                thread.join()

    def test_chunks_left_of_a_map(self):
        go = [self.path(f"go{i}") for i in range(10)]
        result = self.pool.map_async(tasks.wait_for, go, chunksize=1)
        self.assertIsInstance(result, allcores.pool.MapResult)
        self.assertEqual((result._chunksize, result._number_left), (1, 10))
        for path in go[:4]:
            tasks.touch(path)
        self.wait_until(lambda: result._number_left == 6, "the fourth chunk")
        for path in go[4:]:
            tasks.touch(path)
        result.get(PATIENCE)
        self.assertEqual(result._number_left, 0)

    def test_chunks_of_three(self):
        result = self.pool.map_async(tasks.square, range(10), chunksize=3)
        self.assertEqual(result._chunksize, 3)
        self.assertLessEqual(result._number_left, 4)
        self.assertEqual(len(result.get(PATIENCE)), 10)
        self.assertEqual(result._number_left, 0)

    def test_default_chunks_still_make_a_progress_bar(self):
        go = self.path("go")
        result = self.pool.map_async(tasks.wait_for, [go] * 100)
        self.assertGreaterEqual(result._chunksize, 1)
        self.assertGreaterEqual(result._number_left * result._chunksize, 100)
        tasks.touch(go)
        result.get(PATIENCE)
        self.assertEqual(result._number_left, 0)

    def test_repopulate(self):
        pool = self.new_pool(2)
        before = pids(pool)
        pool._repopulate_pool()
        self.assertEqual(pids(pool), before)
        self.assertEqual(pool.map(tasks.same, [1, 2]), [1, 2])

    def test_names_in_the_module(self):
        for name in ("Pool", "ThreadPool", "ApplyResult", "AsyncResult", "MapResult",
                     "IMapIterator", "IMapUnorderedIterator", "MaybeEncodingError",
                     "RemoteTraceback"):
            self.assertTrue(hasattr(allcores.pool, name), name)
        self.assertIs(allcores.pool.MaybeEncodingError, multiprocessing.pool.MaybeEncodingError)
        self.assertIs(allcores.pool.RemoteTraceback, multiprocessing.pool.RemoteTraceback)
        self.assertIsInstance(self.pool, allcores.pool.Pool)
        self.assertIsInstance(self.pool.imap(tasks.same, [1]), allcores.pool.IMapIterator)


class Programs(Case):
    """Whole programs: functions of the main module, logging, the end of the interpreter."""

    head = """
import sys, time, logging
import allcores as multiprocessing
def square(x):
    return x * x
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
"""

    def run_main(self, body, *args):
        text = self.head + "".join(f"    {line}\n" for line in body.strip().splitlines())
        return run_script(self, text, self.method, *args)

    def test_functions_of_the_main_module(self):
        code, out, err = self.run_main("""
with multiprocessing.Pool(2) as pool:
    print(pool.map(square, range(5)), pool.apply(square, (7,)))
""")
        self.assertEqual((code, out, err), (0, "[0, 1, 4, 9, 16] 49\n", ""))

    def test_logging_to_stderr(self):
        code, out, err = self.run_main("""
multiprocessing.log_to_stderr(logging.INFO)
pool = multiprocessing.Pool(1)
print(pool.apply(square, (7,)))
pool.close()
pool.join()
""")
        self.assertEqual((code, out), (0, "49\n"))
        self.assertRegex(err, r"\[INFO/\w+PoolWorker-1\] child process calling self.run\(\)")
        self.assertRegex(err, r"\[INFO/\w+PoolWorker-1\] process exiting with exitcode 0")

    def test_end_of_the_program_ends_the_pool(self):
        code, out, err = self.run_main("""
pool = multiprocessing.Pool(2)
result = pool.map_async(time.sleep, [100] * 10)
pool.apply_async(square, (3,))
print(*[worker.pid for worker in pool._pool])
""")
        self.assertEqual((code, err), (0, ""))
        self.wait_gone(map(int, out.split()))

    def test_end_of_the_program_with_a_closed_pool(self):
        code, out, err = self.run_main("""
pool = multiprocessing.Pool(2)
result = pool.map_async(square, range(100))
pool.close()
pool.join()
print(sum(result.get()))
""")
        self.assertEqual((code, out, err), (0, "328350\n", ""))

    def test_open_files_are_written_out(self):
        """The functions that ran do not keep their module."""
        path = self.path("out")
        for call in "pool.map(square, [1])", "pool.map(square, [1], 1)", "pool.apply(square, [1])":
            code, _, err = self.run_main(f"""
out = open({path!r}, "w")
pool = multiprocessing.Pool(1)
{call}
pool.close()
pool.join()
out.write("the results")
""")
            self.assertEqual((code, err), (0, ""))
            with open(path) as file:
                self.assertEqual(file.read(), "the results", call)

    def test_files_opened_at_exit_are_left_alone(self):
        """Their descriptors' numbers are new, whatever a pool that was never closed had."""
        path = self.path("precious")
        with open(path, "w") as file:
            file.write("precious" * 100)
        code, _, err = self.run_main(f"""
import atexit
opened = []
atexit.register(lambda: opened.extend(open({path!r}, "r+") for _ in range(20)))
pool = multiprocessing.Pool(2)
pool.map(square, [1, 2])
""")
        self.assertEqual((code, err), (0, ""))
        with open(path) as file:
            self.assertEqual(file.read(), "precious" * 100)

    def test_uncaught_error_with_a_running_pool(self):
        code, out, err = self.run_main("""
pool = multiprocessing.Pool(2)
print(*[worker.pid for worker in pool._pool], flush=True)
pool.map_async(time.sleep, [100] * 10)
int("x")
""")
        self.assertEqual(code, 1)
        self.assertIn("ValueError: invalid literal", err)
        self.wait_gone(map(int, out.split()))


for_each_method(globals(), Workers, Closing, CustomContexts, Private, Programs)

if __name__ == "__main__":
    unittest.main()

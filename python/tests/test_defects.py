#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Defects of the standard library's pool that ours must not have.

Errors on the way, callbacks that raise, results when the pool is terminated, threads of the
user's, and what a pool leaves behind. Dying workers: test_deaths.py; imap's input: test_imap.py;
forks of the user's: test_forks.py.
"""
import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
import unittest
import warnings
import weakref

import allcores
import allcores._worker_processes
import allcores.pool
import tasks
from allcores import _core
from support import PATIENCE, Case, engine_only, for_each_method, pids, run_script


@engine_only
class OnTheWay(Case):
    """What cannot be pickled, rebuilt or imported fails its own task and no other."""

    def check(self, function, argument, *words):
        """The call fails in each form, in bounded time; no worker ends."""
        before = pids(self.pool)
        for name, call in (
                ("apply", lambda: self.pool.apply_async(function, (argument,)).get(PATIENCE)),
                ("map", lambda: self.pool.map_async(function, [argument] * 3).get(PATIENCE)),
                ("chunks", lambda: self.pool.map_async(function, [argument] * 3, 2).get(PATIENCE)),
                ("imap", lambda: self.pool.imap(function, [argument]).next(PATIENCE)),
                ("unordered",
                 lambda: next(self.pool.imap_unordered(function, [argument] * 3, 2)))):
            with self.subTest(name):
                with self.assertRaises(Exception) as caught:
                    call()
                self.assertNotIsInstance(
                    caught.exception, (allcores.TimeoutError, allcores.WorkerDied))
                for word in words:
                    self.assertIn(word, f"{caught.exception!r} {caught.exception.__cause__}")
                self.assertEqual(self.pool.map(tasks.same, [1, 2, 3], 1), [1, 2, 3])
        self.assertEqual(pids(self.pool), before)

    def test_argument_that_cannot_be_rebuilt(self):
        self.check(tasks.same, tasks.Brittle("unpickle"), "cannot be rebuilt")

    def test_result_that_cannot_be_rebuilt(self):
        self.check(tasks.brittle, "unpickle", "cannot be rebuilt")

    def test_exception_that_cannot_be_rebuilt(self):
        self.check(tasks.fail_two_arguments, 1, "TwoArguments")

    def test_exception_that_cannot_be_pickled(self):
        self.check(tasks.fail_unpicklable, 1, "Unpicklable")

    def test_result_that_cannot_be_rebuilt_is_a_failure(self):
        told = []
        result = self.pool.apply_async(tasks.brittle, ("unpickle",), callback=self.fail,
                                       error_callback=told.append)
        result.wait(PATIENCE)
        self.assertTrue(result.ready())
        self.assertFalse(result.successful())
        self.assertEqual(len(told), 1)
        with self.assertRaises(Exception) as caught:
            result.get(0)
        self.assertIs(caught.exception, told[0])

    def test_ready_and_successful_decode_if_need_be(self):
        result = self.pool.apply_async(tasks.brittle, ("unpickle",))
        self.wait_until(result.ready)
        self.assertFalse(result.successful())

    def test_function_that_the_worker_cannot_find(self):
        self.pool.apply(tasks.nothing)
        ghost = types.ModuleType("ghost")
        exec("def appear(x=None):\n    return x\n", ghost.__dict__)
        sys.modules["ghost"] = ghost
        self.addCleanup(sys.modules.pop, "ghost")
        self.check(ghost.appear, 1, "ghost")

    def test_function_that_the_workers_module_lacks(self):
        self.pool.apply(tasks.nothing)
        exec("def latecomer(x=None):\n    return x\n", tasks.__dict__)
        self.addCleanup(delattr, tasks, "latecomer")
        self.check(tasks.latecomer, 1, "latecomer")

    def test_apply_async_never_raises_a_pickling_error(self):
        for function, argument in ((tasks.same, tasks.Brittle("pickle")), (lambda x: x, 1)):
            told = []
            result = self.pool.apply_async(function, (argument,), callback=self.fail,
                                           error_callback=told.append)
            with self.assertRaises(Exception) as caught:
                result.get(PATIENCE)
            self.assertEqual(told, [caught.exception])
            result = self.pool.apply_async(function, (argument,))
            self.assertRaises(type(told[0]), result.get, PATIENCE)

    def test_argument_that_exits_when_it_is_pickled(self):
        """In the handler's thread, which goes on."""
        pool = self.new_pool(2)
        items = [tasks.ExitsWhenPickled(number == 900) for number in range(1000)]
        with self.assertRaises(SystemExit):
            pool.map_async(tasks.nothing, items, 1).get(PATIENCE)
        self.assertEqual(pool.map_async(tasks.same, range(3)).get(PATIENCE), [0, 1, 2])
        pool.close()
        pool.join()

    def test_map_async_tells_a_pickling_error(self):
        told = []
        result = self.pool.map_async(tasks.same, [1, tasks.Brittle("pickle")], 1,
                                     callback=self.fail, error_callback=told.append)
        self.assertRaisesRegex(RuntimeError, "cannot be pickled", result.get, PATIENCE)
        self.assertEqual(len(told), 1)


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))


@engine_only
class Callbacks(Case):
    """They may raise, take long, end the pool: nobody else is hurt."""

    def setUp(self):
        super().setUp()
        self.records = Records()
        logger = allcores.get_logger()
        logger.addHandler(self.records)
        self.addCleanup(logger.removeHandler, self.records)

    def raises(self, _):
        raise tasks.Trouble("in the callback")

    def test_raising_ones_are_logged(self):
        results = [self.pool.apply_async(tasks.square, (3,), callback=self.raises),
                   self.pool.map_async(tasks.square, [3], callback=self.raises)]
        failing = [self.pool.apply_async(tasks.fail, (3,), error_callback=self.raises),
                   self.pool.map_async(tasks.fail, [3], error_callback=self.raises)]
        self.assertEqual([r.get(PATIENCE) for r in results], [9, [9]])
        for result in failing:
            with self.assertRaisesRegex(tasks.Trouble, "no luck"):
                result.get(PATIENCE)
        told = "\n".join(self.records.texts)
        self.assertEqual(told.count("tasks.Trouble: ('in the callback', 0)"), 4, told)

    def test_raising_ones_hurt_nobody(self):
        told = []
        for i in range(50):
            self.pool.apply_async(tasks.square, (i,), callback=self.raises)
            self.pool.apply_async(tasks.square, (i,), callback=told.append)
        self.wait_until(lambda: len(told) == 50, "fifty callbacks")
        self.assertEqual(self.pool.apply(tasks.square, (3,)), 9)

    def test_exit_in_a_callback(self):
        pool = self.new_pool(1)
        for error in (SystemExit(3), KeyboardInterrupt()):
            def callback(_):
                raise error
            result = pool.apply_async(tasks.square, (3,), callback=callback)
            self.assertEqual(result.get(PATIENCE), 9)
            result = pool.apply_async(tasks.square, (4,), callback=lambda _: None)
            self.assertEqual(result.get(PATIENCE), 16)

    def test_join_returns_after_the_last(self):
        pool, told = self.new_pool(2), []

        def slow(value):
            time.sleep(0.01)
            told.append(value)
        for i in range(30):
            pool.apply_async(tasks.same, (i,), callback=slow)
        pool.map_async(tasks.same, [30], callback=slow)
        pool.apply_async(tasks.fail, (31,), error_callback=slow)
        pool.close()
        pool.join()
        self.assertEqual(len(told), 32)

    def test_ready_only_when_decoded_and_told(self):
        told = []
        result = self.pool.apply_async(tasks.slow_to_rebuild, (0.3,), callback=told.append)
        self.wait_until(result.ready)
        self.assertEqual(len(told), 1)
        self.assertIs(result.get(0), told[0])

    def test_one_that_terminates_the_pool(self):
        pool = self.new_pool(2)
        numbers, ended = pids(pool), threading.Event()

        def callback(_):
            pool.terminate()
            ended.set()
        waiting = pool.apply_async(tasks.wait_for, (self.path("never"),))
        pool.apply_async(tasks.square, (3,), callback=callback)
        self.assertTrue(ended.wait(PATIENCE))
        pool.join()
        self.wait_gone(numbers)
        self.assertRaises(allcores.TaskCancelled, waiting.get, PATIENCE)

    def test_one_that_closes_and_submits(self):
        pool, told = self.new_pool(2), []

        def callback(_):
            pool.close()
            try:
                pool.apply_async(tasks.nothing)
            except ValueError as error:
                told.append(error)
        pool.apply_async(tasks.square, (3,), callback=callback).get(PATIENCE)
        pool.join()
        self.assertEqual(len(told), 1)

    def test_one_that_asks_the_pool(self):
        asked = []

        def callback(value):
            asked.append(self.pool.apply(tasks.square, (value,)))
            asked.append(self.pool.map(tasks.square, [value]))
        self.pool.apply_async(tasks.same, (3,), callback=callback).get(PATIENCE)
        self.assertEqual(asked, [9, [9]])

    def test_slow_one_holds_up_no_results(self):
        go = threading.Event()
        self.addCleanup(go.set)
        held = self.pool.apply_async(tasks.same, (1,), callback=lambda _: go.wait(PATIENCE))
        self.assertEqual(self.pool.apply_async(tasks.square, (3,)).get(PATIENCE), 9)
        self.assertEqual(self.pool.map(tasks.same, range(50), 1), list(range(50)))
        self.assertFalse(held.ready())


@engine_only
class Terminated(Case):
    """Whoever waits for a terminated pool's results is told."""

    def setUp(self):
        super().setUp()
        self.own = self.new_pool(2)
        never = self.path("never")
        for _ in range(2):
            self.own.apply_async(tasks.note_and_wait, (self.notes, never))
        self.wait_until(lambda: len(self.read_notes()) == 2, "two running tasks")

    def end(self):
        self.own.terminate()
        self.own.join()

    def test_results_asked_for_afterwards(self):
        results = [self.own.apply_async(tasks.square, (3,)),
                   self.own.map_async(tasks.square, range(10)),
                   self.own.map_async(tasks.square, range(1000), 1),
                   self.own.starmap_async(tasks.product, [(1, 2)]),
                   self.own.apply_async(tasks.square, (3,), callback=self.fail)]
        self.end()
        for result in results:
            self.assertRaises(allcores.TaskCancelled, result.get, PATIENCE)
            self.assertTrue(result.ready())
            self.assertFalse(result.successful())
            self.assertIsNone(result.wait())
        self.assertTrue(issubclass(allcores.TaskCancelled, allcores.ProcessError))

    def test_iterators_asked_for_afterwards(self):
        found = [self.own.imap(tasks.square, range(10)),
                 self.own.imap(tasks.square, (i for i in range(10_000))),
                 self.own.imap_unordered(tasks.square, range(10), 3)]
        self.end()
        for iterator in found:
            with self.assertRaises(allcores.TaskCancelled):
                for _ in iterator:
                    pass

    def test_threads_that_wait_already(self):
        raised = []

        def wait(call):
            try:
                call()
            except BaseException as error:
                raised.append(error)
        result = self.own.apply_async(tasks.square, (3,))
        mapped = self.own.map_async(tasks.square, range(10))
        found = self.own.imap(tasks.square, range(10))
        threads = [threading.Thread(target=wait, args=(call,)) for call in (
            result.get, result.get, mapped.get, found.next,
            lambda: self.own.apply(tasks.square, (3,)),
            lambda: self.own.map(tasks.square, range(10)),
            lambda: self.own.map(tasks.square, range(10), 1),
            lambda: list(self.own.imap_unordered(tasks.square, range(10))))]
        for thread in threads:
            thread.start()
        self.wait_until(lambda: len(self.own._cache) >= len(threads), "all calls", seconds=5)
        self.end()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual([type(e) for e in raised], [allcores.TaskCancelled] * len(threads))

    def test_finished_results_stay(self):
        pool = self.new_pool(2)
        results = [pool.apply_async(tasks.square, (i,)) for i in range(20)]
        mapped = pool.map_async(tasks.blob, [100_000] * 3)
        for result in [*results, mapped]:
            result.wait(PATIENCE)
        pool.terminate()
        pool.join()
        self.assertEqual([r.get(0) for r in results], [i * i for i in range(20)])
        self.assertEqual(mapped.get(0), [b"x" * 100_000] * 3)

    def test_from_another_thread(self):
        thread = threading.Thread(target=self.end)
        thread.start()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertRaises(ValueError, self.own.apply, tasks.nothing)

    def test_while_another_thread_joins(self):
        self.own.close()
        thread = threading.Thread(target=self.own.join)
        thread.start()
        time.sleep(0.1)
        self.assertTrue(thread.is_alive())
        self.own.terminate()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())

    def test_at_once_from_several_threads(self):
        threads = [threading.Thread(target=self.end) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertFalse(any(thread.is_alive() for thread in threads))


@engine_only
class Threads(Case):
    """One pool, many threads."""

    def run_all(self, functions):
        self.assertIsNotNone(self.pool)  # made here: threads would make one each
        failures = []

        def run(function):
            try:
                function()
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=run, args=(f,)) for f in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE)
        self.assertFalse(any(thread.is_alive() for thread in threads), "a thread hangs")
        self.assertEqual(failures, [])

    def test_one_result_for_all(self):
        go = self.path("go")
        result, values = self.pool.apply_async(tasks.wait_for, (go, [5])), []
        timer = threading.Timer(0.1, tasks.touch, (go,))
        timer.start()
        self.run_all([lambda: values.append(result.get(PATIENCE))] * 8)
        timer.join()
        self.assertEqual(values, [[5]] * 8)
        self.assertEqual(len(set(map(id, values))), 1)

    def test_some_with_timeouts(self):
        go = self.path("go")
        result = self.pool.apply_async(tasks.wait_for, (go, 5))

        def impatient():
            self.assertRaises(allcores.TimeoutError, result.get, 0.05)

        def patient():
            self.assertEqual(result.get(PATIENCE), 5)

        def end():
            time.sleep(0.2)
            tasks.touch(go)
        self.run_all([impatient, patient, impatient, patient, end])

    def test_each_with_its_own(self):
        def calls():
            for i in range(100):
                self.assertEqual(self.pool.apply(tasks.square, (i,)), i * i)

        def maps():
            for i in range(20):
                self.assertEqual(self.pool.map(tasks.same, range(i)), list(range(i)))

        def iterators():
            for i in range(20):
                self.assertEqual(list(self.pool.imap(tasks.same, range(i))), list(range(i)))

        def results():
            many = [self.pool.apply_async(tasks.same, (i,), callback=str) for i in range(200)]
            self.assertEqual([r.get(PATIENCE) for r in many], list(range(200)))
        self.run_all([calls, maps, iterators, results] * 2)

    def test_opened_in_a_thread_that_has_ended(self):
        opened = []
        thread = threading.Thread(target=lambda: opened.append(self.new_pool(2)))
        thread.start()
        thread.join()
        pool = opened[0]
        numbers = pids(pool)
        time.sleep(0.2)
        self.assertEqual(pool.map(tasks.same, range(20), 1), list(range(20)))
        self.assertEqual(pids(pool), numbers)


@engine_only
class Refused(Case):
    """The pool refuses a call in the midst of many that are submitted together."""

    def refuse_third_feed(self, job):
        """Its calls are submitted, and it raises all the same: as for the last of them."""
        feeds, submit = itertools.count(1), job.feed

        class Stream:
            """The one that feed uses."""

            def __init__(self, stream):
                self.stream = stream

            def feed(self, *args):
                result = self.stream.feed(*args)
                if next(feeds) == 3:
                    raise MemoryError
                return result

        job.feed = lambda stream: submit(Stream(stream))

    def test_map(self):
        for chunksize in (1, 3, None):
            job = self.pool._map_job(tasks.same, range(5000), False, chunksize)
            self.refuse_third_feed(job)
            result = allcores.pool.MapResult(self.pool, job, tasks.same, None, None)
            job.result = result
            self.pool._callbacks.map(job)
            with self.assertRaises(MemoryError):
                result.get(PATIENCE)
            self.assertEqual(self.pool.map(tasks.same, range(10)), list(range(10)))


    def test_map_that_is_added_when_the_stream_has_ended(self):
        """Terminate came between the check of the pool's state and this."""
        pool = self.new_pool(1)
        pool.map_async(tasks.same, [1]).get(PATIENCE)
        driver = pool._callbacks._driver

        def add_late(job):
            driver.stream.end()
            driver._added.append(job)

        driver.add = add_late
        with self.assertRaises(allcores.TaskCancelled):
            pool.map_async(tasks.same, [1]).get(PATIENCE)
        self.assertEqual(len(pool._cache), 0)


@engine_only
class NothingLeft(Case):
    """A pool can be dropped; a closed one leaves no descriptor, thread or process."""

    def test_collected_when_dropped(self):
        pool = self.context.Pool(2)
        results = [pool.apply_async(tasks.square, (3,)), pool.map_async(tasks.square, [3]),
                   pool.apply_async(tasks.square, (3,), callback=str)]
        self.assertEqual([r.get(PATIENCE) for r in results], [9, [9], 9])
        self.assertEqual(list(pool.imap(tasks.square, [3])), [9])
        reference, numbers = weakref.ref(pool), pids(pool)
        with self.assertWarns(ResourceWarning):
            del pool, results
            gc.collect()
        self.assertIsNone(reference())
        self.wait_gone(numbers)

    def test_collected_after_the_end(self):
        for end in ("close", "terminate"):
            pool = self.context.Pool(2)
            results = [pool.apply_async(tasks.square, (3,)), pool.imap(tasks.square, [3])]
            getattr(pool, end)()
            pool.join()
            reference = weakref.ref(pool)
            del pool, results
            gc.collect()
            self.assertIsNone(reference())

    def test_dropped_with_work_that_nobody_waits_for(self):
        pool = self.context.Pool(1)
        numbers = pids(pool)
        pool.apply_async(tasks.note_and_wait, (self.notes, self.path("go")))
        self.wait_until(self.read_notes, "a running task")
        del pool
        gc.collect()
        tasks.touch(self.path("go"))
        self.wait_gone(numbers)

    def test_dropped_with_work_in_hand(self):
        """What was handed in is done, whether the pool was closed or not."""
        for close in (True, False):
            pool = self.context.Pool(1)
            numbers = pids(pool)
            for number in range(4):
                pool.apply_async(tasks.nap_and_note, (0.05, self.notes, number))
            if close:
                pool.close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                del pool
                gc.collect()
            self.wait_until(lambda: len(self.read_notes()) == 4, "the end of all")
            self.wait_gone(numbers)
            tasks.forget(self.notes)

    def test_ended_while_another_thread_starts_a_worker(self):
        """By the collector, in a thread that has the lock for which that one waits."""
        if self.method == "fork":
            self.skipTest("the engine forks workers, and waits for no lock of Python's")
        pool = self.context.Pool(1)
        pool.map(tasks.same, range(3))
        with allcores._worker_processes.reaping_lock:
            os.kill(pids(pool)[0], signal.SIGKILL)
            pool.apply_async(tasks.same, (1,))  # nobody waits for it: that is a thread's work
            self.wait_until(lambda: pool._core.workers(1)[0].state == _core.WORKER_STARTING,
                            "an attempt to start")
            start = time.monotonic()
            pool._state = "TERMINATE"
            allcores.pool._terminate_pool(pool._core, pool._workers, pool._submitting, pool._callbacks)
            pool._terminate.cancel()
            del pool
            gc.collect()
        self.assertLess(time.monotonic() - start, 8)  # it was for ever

    def test_results_do_not_keep_arguments(self):
        function = tasks.Counter(5)
        reference = weakref.ref(function)
        result = self.pool.apply_async(function, (1,))
        mapped = self.pool.map_async(function, [1])
        self.assertEqual((result.get(PATIENCE), mapped.get(PATIENCE)), (6, [6]))
        del function, result, mapped
        gc.collect()
        self.wait_until(lambda: gc.collect() >= 0 and reference() is None, "the end of it")

    def test_results_of_maps_need_no_collector(self):
        """Large lists would wait for it."""
        gc.disable()
        self.addCleanup(gc.enable)
        for callback in (None, str):
            item = tasks.Counter(5)
            result = self.pool.map_async(tasks.pid, [item], callback=callback)
            self.assertEqual(len(result.get(PATIENCE)), 1)
            references = weakref.ref(result), weakref.ref(item)
            del item
            self.wait_until(lambda: references[1]() is None, "the end of the item")
            del result
            self.wait_until(lambda: references[0]() is None, "the end of the result")

    def test_failed_ones_need_no_collector(self):
        """An exception refers to the frames in which it was raised."""
        gc.disable()
        self.addCleanup(gc.enable)
        for chunksize in (1, 2, None):
            item = tasks.Counter(5)
            reference = weakref.ref(item)
            with contextlib.suppress(tasks.Trouble):  # assertRaises would clear the frames
                self.pool.map(tasks.fail, [item], chunksize)
            del item
            self.wait_until(lambda: reference() is None, "the end of the item")  # noqa: B023
        for chunksize in (1, 2):
            found = self.pool.imap(tasks.fail, [1, 2], chunksize)
            reference = weakref.ref(found)
            with contextlib.suppress(tasks.Trouble):
                next(found)
            del found
            self.wait_until(lambda: reference() is None, "the end of it")  # noqa: B023

    def use(self):
        pool = self.context.Pool(2)
        pool.map(tasks.same, range(10))
        pool.apply_async(tasks.same, (1,), callback=str).get(PATIENCE)
        list(pool.imap(tasks.same, iter(range(10))))
        pool.close()
        pool.join()

    def test_descriptors_threads_and_processes(self):
        self.use()
        gc.collect()
        before = self.holdings()
        for _ in range(5):
            self.use()
        gc.collect()
        self.wait_until(lambda: self.holdings() <= before, f"{self.holdings()} back at {before}",
                        seconds=5)

    def holdings(self):
        return (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")),
                len(multiprocessing.active_children()))


@engine_only
class StandardDescriptors(Case):
    """0, 1 and 2 are closed: nothing that the package opens takes these numbers."""

    def run_closed(self, body):
        """Run body in a program that was started with them closed; what it prints to log."""
        code, _, err = run_script(self, f"""
import fcntl, os, sys
import allcores, tasks
if __name__ == "__main__" and len(sys.argv) == 2:
    for number in range(3):
        os.close(number)
    os.execv(sys.executable, [sys.executable, *sys.argv, "closed"])
elif __name__ == "__main__":
    with open({self.path("log")!r}, "w") as file:
        log = os.fdopen(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3), "w")
    context = allcores.get_context(sys.argv[1])
""" + "".join(f"    {line}\n" for line in body.strip().splitlines()), self.method)
        self.assertEqual((code, err), (0, ""))
        with open(self.path("log")) as file:
            lines = file.read().splitlines()
        self.assertTrue(lines)
        return lines

    def check(self, lines):
        for line in lines:
            self.assertNotRegex(line, "stacks|pipe:|script|/log")

    def test_in_the_owner(self):
        self.check(self.run_closed("""
with context.Pool(2, maxtasksperchild=3) as pool:
    pool.map(tasks.square, range(20), 1)
    print("open:", *tasks.standard_descriptors(), file=log)
"""))

    def test_in_the_owner_when_they_are_closed_later(self):
        self.check(self.run_closed("""
for number in range(3):
    os.open(os.devnull, os.O_RDWR)
with context.Pool(2, maxtasksperchild=1) as pool:
    for number in range(3):
        os.close(number)
    pool.map(tasks.square, range(20), 1)
    print("open:", *tasks.standard_descriptors(), file=log)
"""))

    def test_in_a_worker(self):
        """Nothing that could be written to."""
        self.check(self.run_closed("""
with context.Pool(2, maxtasksperchild=3) as pool:
    for links in pool.map(tasks.writable_standard_descriptors, range(20), 1):
        print("open:", *links, file=log)
"""))


for_each_method(globals(), OnTheWay, Callbacks, Terminated, Threads, NothingLeft, Refused,
                StandardDescriptors)

if __name__ == "__main__":
    unittest.main()

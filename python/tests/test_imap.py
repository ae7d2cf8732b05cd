#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""imap beyond the contract: its input is read a bounded distance ahead.

The bound is lifted when nobody is left to iterate: by join(), or when the iterator is
dropped. Input that blocks, raises or never ends disturbs nobody.
"""
import functools
import gc
import itertools
import sys
import threading
import time
import unittest
import unittest.mock

import allcores
import tasks
from support import PATIENCE, Case, alive, engine_only, for_each_method, pids, run_script


class Input:
    """A generator that tells how many items were read, and whether it came to its end."""

    def __init__(self, items):
        self.items = items
        self.read = 0
        self.ended = threading.Event()

    def __iter__(self):
        for item in self.items:
            self.read += 1
            yield item
        self.ended.set()


COLLECTED_BY_JOIN = """
import gc, sys, threading
import allcores

def collect_and_start(thread):
    gc.collect()
    start(thread)

if __name__ == "__main__":
    gc.disable()
    pool = allcores.get_context(sys.argv[1]).Pool(2)
    cycle = [pool.imap(abs, range(5000))]
    cycle.append(cycle)
    pool.close()
    del cycle
    start, threading.Thread.start = threading.Thread.start, collect_and_start
    pool.join()
    print("joined")
"""


class SlowToPickle:
    """Its pickling waits for an event."""

    def __init__(self, go):
        self.go = go

    def __reduce__(self):
        self.go.wait(PATIENCE)
        self.go.set()
        return str, ()


class Imap(Case):
    """What the classes share."""

    def settled(self, source):
        """How many items were read when reading has come to rest."""
        before, since, end = source.read, time.monotonic(), time.monotonic() + PATIENCE
        while time.monotonic() - since < 0.5:
            time.sleep(0.05)
            if source.read != before:
                before, since = source.read, time.monotonic()
            self.assertLess(time.monotonic(), end, f"still reading, {source.read} items so far")
        return before


@engine_only
class Bounded(Imap):
    """What is read ahead of the reader, and what lifts the bound."""

    def test_endless_input_and_nobody_reads(self):
        for name in ("imap", "imap_unordered"):
            for chunksize in (1, 3):
                pool, source = self.new_pool(2), Input(itertools.count())
                found = getattr(pool, name)(tasks.same, source, chunksize)
                first = self.settled(source)
                self.assertLess(first, 100_000)
                values = list(itertools.islice(found, first))
                if name == "imap":
                    self.assertEqual(values, list(range(first)))
                self.wait_until(lambda: source.read > first, "more reading")
                pool.terminate()
                pool.join()

    def test_big_arguments_and_results(self):
        megabyte = 1 << 20
        for function, items in ((tasks.length, itertools.repeat(b"x" * megabyte)),
                                (tasks.blob, itertools.repeat(megabyte))):
            pool, source = self.new_pool(2), Input(items)
            found = pool.imap(function, source)
            self.assertLess(self.settled(source), 200)
            for _ in range(100):
                next(found)
            self.assertLess(self.settled(source), 300)
            pool.terminate()
            pool.join()

    def test_slow_reader(self):
        pool, source = self.new_pool(2), Input(itertools.count())
        found, ahead = pool.imap(tasks.same, source), []
        for i in range(50):
            self.assertEqual(next(found), i)
            time.sleep(0.01)
            ahead.append(source.read - i)
        self.assertLess(max(ahead), 100_000)
        self.assertLess(self.settled(source), 100_000)

    def test_join_lifts_the_bound(self):
        for name in ("imap", "imap_unordered"):
            for chunksize in (1, 7):
                pool, source = self.new_pool(2), Input(range(20_000))
                found = getattr(pool, name)(tasks.same, source, chunksize)
                pool.close()
                pool.join()
                self.assertTrue(source.ended.is_set())
                self.assertEqual(sum(found), sum(range(20_000)))

    def test_join_lifts_the_bound_of_a_half_read_one(self):
        for items in (range(20_000), (i for i in range(20_000))):
            pool = self.new_pool(2)
            found = pool.imap(tasks.same, items)
            self.assertEqual([next(found) for _ in range(10)], list(range(10)))
            pool.close()
            pool.join()
            self.assertEqual(list(found), list(range(10, 20_000)))

    def test_join_with_a_list(self):
        pool = self.new_pool(2)
        found = pool.imap(tasks.same, list(range(20_000)))
        pool.close()
        pool.join()
        self.assertEqual(sum(found), sum(range(20_000)))

    def test_dropped_iterator_runs_to_its_end(self):
        for name in ("imap", "imap_unordered"):
            for chunksize in (1, 4):
                for make in (iter, list):
                    source = Input(range(3000))
                    function = functools.partial(tasks.fail_on, (), self.notes)
                    items = source if make is iter else list(source)
                    getattr(self.pool, name)(function, items, chunksize)
                    gc.collect()
                    self.wait_until(lambda: len(self.read_notes()) == 3000, "all items")
                    self.assertTrue(source.ended.is_set())
                    tasks.forget(self.notes)

    def test_dropped_half_read_runs_to_its_end(self):
        for chunksize in (1, 4):
            source = Input(range(3000))
            function = functools.partial(tasks.fail_on, (), self.notes)
            found = self.pool.imap(function, source, chunksize)
            self.assertEqual([next(found) for _ in range(5)], list(range(5)))
            del found
            gc.collect()
            self.wait_until(lambda: len(self.read_notes()) == 3000, "all items")
            tasks.forget(self.notes)

    def test_dropped_one_keeps_no_results(self):
        source = Input(itertools.repeat(1 << 20, 1000))
        before = tasks.memory()
        self.pool.imap(tasks.blob, source)
        self.assertTrue(source.ended.wait(PATIENCE))
        self.assertLess(tasks.memory() - before, 500 << 20)

    def test_endless_dropped_one_does_not_stop_the_pool(self):
        pool = self.new_pool(2)
        pool.imap(tasks.same, itertools.count())
        gc.collect()
        self.assertEqual(pool.map(tasks.same, range(100), 1), list(range(100)))
        numbers = pids(pool)
        pool.terminate()
        pool.join()
        self.assertFalse(any(map(alive, numbers)))


@engine_only
class Blocking(Imap):
    """An input that blocks, raises what is no Exception, or asks the pool itself."""

    def blocked(self):
        """An input that gives two items, then blocks until the test has ended."""
        go = threading.Event()
        self.addCleanup(go.set)

        def items():
            yield 1
            yield 2
            go.wait(2 * PATIENCE)
        return items()

    def test_others_go_on(self):
        found = self.pool.imap(tasks.same, self.blocked())
        self.assertEqual(self.pool.apply_async(tasks.square, (3,)).get(PATIENCE), 9)
        self.assertEqual(self.pool.map_async(tasks.same, range(50), 1).get(PATIENCE),
                         list(range(50)))
        self.assertEqual(list(self.pool.imap(tasks.same, range(50))), list(range(50)))
        told = threading.Event()
        self.pool.apply_async(tasks.same, (1,), callback=lambda _: told.set())
        self.assertTrue(told.wait(PATIENCE))
        self.assertEqual([found.next(PATIENCE), found.next(PATIENCE)], [1, 2])
        with self.assertRaises(allcores.TimeoutError):
            found.next(0.1)

    def test_terminate(self):
        pool = self.new_pool(2)
        found = pool.imap(tasks.same, self.blocked())
        self.assertEqual([found.next(PATIENCE), found.next(PATIENCE)], [1, 2])
        numbers = pids(pool)
        pool.terminate()
        pool.join()
        self.assertFalse(any(map(alive, numbers)))
        self.assertRaises(allcores.TaskCancelled, found.next, PATIENCE)

    def test_terminate_while_a_dropping_thread_holds_the_pool_s_lock(self):
        """A garbage collection may drop an iterator in any line, also where its thread holds the
        lock of Submitting."""
        pool = self.new_pool(1)
        found = pool.imap(tasks.same, iter(Input(itertools.count())))
        found.next(PATIENCE)
        stopping = threading.Thread(target=found._imap.stop, daemon=True)
        dropping = threading.Thread(target=found._imap.discard_results, daemon=True)
        with pool._submitting._lock:
            stopping.start()
            self.wait_until(lambda: found._imap._stopped)
            dropping.start()
            dropping.join(PATIENCE)
            self.assertFalse(dropping.is_alive())
        stopping.join(PATIENCE)
        self.assertFalse(stopping.is_alive())

    def test_terminate_while_it_is_made(self):
        """Nobody would tell this one any more that the pool is terminated."""
        pool, go = self.new_pool(2), threading.Event()
        self.addCleanup(go.set)
        enter = pool._submitting.enter

        def terminate_first(job):
            pool.terminate()
            enter(job)

        pool._submitting.enter = terminate_first
        with self.assertRaises(ValueError):
            pool.imap(tasks.same, iter(go.wait, True))
        joined = threading.Thread(target=pool.join, daemon=True)
        joined.start()
        joined.join(PATIENCE)
        self.assertFalse(joined.is_alive())

    def test_dropped(self):
        for _ in range(3):
            self.pool.imap(tasks.same, self.blocked())
        gc.collect()
        self.assertEqual(self.pool.apply_async(tasks.square, (3,)).get(PATIENCE), 9)

    def test_no_exception_but_an_exit(self):
        for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
            with self.subTest(repr(error)):
                found = self.pool.imap(tasks.same, tasks.then_raise([1, 2], error))
                self.assertEqual([found.next(PATIENCE), found.next(PATIENCE)], [1, 2])
                with self.assertRaises(BaseException) as caught:
                    found.next(PATIENCE)
                # Not StopIteration either: the reader would take what it has for all.
                self.assertNotIsInstance(caught.exception, (allcores.TimeoutError, StopIteration))
                self.assertEqual(self.pool.apply_async(tasks.square, (3,)).get(PATIENCE), 9)

    def test_close_and_join_after_a_failed_input(self):
        pool = self.new_pool(2)
        found = pool.imap(tasks.same, tasks.then_raise(range(5000), tasks.Trouble("end", 7)))
        pool.close()
        pool.join()
        self.assertEqual([next(found) for _ in range(5000)], list(range(5000)))
        self.assertRaises(tasks.Trouble, next, found)
        self.assertRaises(StopIteration, next, found)

    def test_input_that_asks_the_pool(self):
        def items():
            for i in range(5):
                yield self.pool.apply_async(tasks.square, (i,)).get(PATIENCE)
        self.assertEqual(list(self.pool.imap(tasks.square, items())), [i**4 for i in range(5)])

    def test_imap_of_an_imap(self):
        inner = self.pool.imap(tasks.square, range(3000))
        self.assertEqual(sum(self.pool.imap(tasks.same, inner)),
                         sum(i * i for i in range(3000)))


@engine_only
class Readers(Imap):
    """Who reads, and how."""

    def test_several_threads(self):
        for name in ("imap", "imap_unordered"):
            found, values = getattr(self.pool, name)(tasks.same, range(5000)), []
            threads = [threading.Thread(target=lambda: values.extend(found)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            self.assertEqual(sorted(values), list(range(5000)))

    def test_several_threads_share_chunks(self):
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        for name in ("imap", "imap_unordered") * 3:
            found, values = getattr(self.pool, name)(tasks.same, range(10_000), 5), []
            threads = [threading.Thread(target=lambda: values.extend(found)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            self.assertEqual(sorted(values), list(range(10_000)))

    def test_while_another_thread_pickles_an_item(self):
        """It does not wait for the user's code, beyond its time limit."""
        go = threading.Event()
        self.addCleanup(go.set)
        found = self.pool.imap(type, [*range(200), SlowToPickle(go), *range(200)])
        reader = threading.Thread(target=lambda: [next(found) for _ in range(150)])
        reader.start()
        self.wait_until(lambda: "reader" in found._imap._readers, "a thread that is pickling")
        with self.assertRaises(allcores.TimeoutError):
            while not go.is_set():
                found.next(0.1)
        self.assertFalse(go.is_set())
        go.set()
        reader.join(PATIENCE)
        self.assertFalse(reader.is_alive())

    def test_results_that_a_signal_handler_took_along(self):
        """A Ctrl-C in next may lose results that have just arrived. The rest comes."""
        for name in ("imap", "imap_unordered"):
            for items in (range(5000), iter(range(5000))):
                found = getattr(self.pool, name)(tasks.same, items)
                job, values = found._imap, []

                def cut_short(timeout):
                    job.stream.take(timeout)  # noqa: B023
                    raise KeyboardInterrupt

                for _ in range(3):
                    job.driver.step = cut_short
                    with self.assertRaises(KeyboardInterrupt):
                        while True:
                            values.append(next(found))
                    del job.driver.step
                    values.append(found.next(PATIENCE))
                with self.assertRaises(StopIteration):
                    while True:
                        values.append(found.next(PATIENCE))
                self.assertEqual(len(values), len(set(values)))
                self.assertIn(4999, values)
                if name == "imap":
                    self.assertEqual(values, sorted(values))

    def test_result_that_another_thread_notes_just_before_the_wait(self):
        """It is there, and nothing else will come."""
        go = threading.Event()
        self.addCleanup(go.set)

        def items():
            yield from range(3)
            go.wait(PATIENCE)

        found = self.pool.imap_unordered(tasks.same, items())
        job = found._imap

        class Waiting(set):
            """The other thread runs when this one is entered."""

            def add(self, thread):
                other = threading.Thread(target=job.driver.step, args=(PATIENCE,))
                other.start()
                other.join()
                set.add(self, thread)

        job.waiting, start = Waiting(), time.monotonic()
        self.assertEqual(sorted(found.next(PATIENCE) for _ in range(3)), [0, 1, 2])
        self.assertLess(time.monotonic() - start, PATIENCE / 2)

    def test_interrupted_while_it_reads(self):
        """What was submitted before arrives, and then no end as if all had been read."""
        for name in ("imap", "imap_unordered"):
            items = [*range(200), tasks.ExitsWhenPickled(True), *range(200)]
            found, values = getattr(self.pool, name)(tasks.same, items), []
            with self.assertRaises(SystemExit):
                while True:
                    values.append(found.next(PATIENCE))
            with self.assertRaises(allcores.TaskCancelled):
                while True:
                    values.append(found.next(PATIENCE))
            self.assertLessEqual(set(values), set(range(200)))

    def test_refused_while_it_reads(self):
        """The refusal comes after the values of all calls that were submitted before."""
        for name in ("imap", "imap_unordered"):
            found, values = getattr(self.pool, name)(tasks.same, range(2000)), []
            job = found._imap
            stream = job.stream

            def feed(*args):
                stream.feed(*args)  # noqa: B023
                raise MemoryError

            job.stream = unittest.mock.Mock(wraps=stream, feed=feed, weight=1)
            type(job.stream).under_way = property(lambda _: stream.under_way)  # noqa: B023
            with self.assertRaises(MemoryError):
                while True:
                    values.append(found.next(PATIENCE))
            self.assertGreater(len(values), 64)
            self.assertEqual(sorted(values), list(range(len(values))))
            self.assertEqual(list(found), [])

    def test_next_with_timeouts_loses_nothing(self):
        found, values = self.pool.imap(tasks.nap, [0.02] * 20), []
        while True:
            try:
                values.append(found.next(0.001))
            except allcores.TimeoutError:
                pass
            except StopIteration:
                break
        self.assertEqual(values, [0.02] * 20)

    def test_collected_while_join_starts_a_thread_for_it(self):
        """By the collector, in the thread that starts that one."""
        code, out, err = run_script(self, COLLECTED_BY_JOIN, self.method)
        self.assertEqual((code, out, err), (0, "joined\n", ""))

    def test_close_and_join_after_half(self):
        pool = self.new_pool(2)
        found = pool.imap(tasks.same, Input(range(5000)))
        self.assertEqual([next(found) for _ in range(2500)], list(range(2500)))
        pool.close()
        del found
        pool.join()

    def test_terminate_after_half(self):
        """Never an end as if all had been read, wherever the reading thread is."""
        for _ in range(5):
            pool = self.new_pool(2)
            found = pool.imap(tasks.same, Input(itertools.count()))
            self.assertEqual(next(found), 0)
            pool.terminate()
            pool.join()
            with self.assertRaises(allcores.TaskCancelled):
                for _ in found:
                    pass

    def test_errors_in_a_long_input(self):
        function = functools.partial(tasks.fail_on, set(range(0, 2000, 100)), self.notes)
        found, values, errors = self.pool.imap(function, Input(range(2000))), [], []
        while True:
            try:
                values.append(next(found))
            except StopIteration:
                break
            except tasks.Trouble as error:
                errors.append(error.number)
        self.assertEqual(errors, list(range(0, 2000, 100)))
        self.assertEqual(values, [i for i in range(2000) if i % 100])


for_each_method(globals(), Bounded, Blocking, Readers)

if __name__ == "__main__":
    unittest.main()

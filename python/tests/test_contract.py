#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What programs depend on in multiprocessing.Pool: calls and results.

All of it must pass with the standard library's pool as well
(ALLCORES_ENGINE=stdlib), which shows that the tests are right.
"""
import functools
import inspect
import multiprocessing
import multiprocessing.pool
import os
import pickle
import threading
import time
import types
import unittest

import allcores
import allcores.pool
import tasks
from support import PATIENCE, STDLIB, Case, for_each_method, pids


class Arguments(Case):
    """What the constructor takes, and what it refuses."""

    def test_processes_below_one(self):
        for number in (0, -1):
            with self.assertRaises(ValueError):
                self.context.Pool(number)

    def test_maxtasksperchild(self):
        for number in (0, -1, 0.5, "12"):
            with self.assertRaises(ValueError):
                self.context.Pool(1, maxtasksperchild=number)

    def test_initializer_must_be_callable(self):
        with self.assertRaises(TypeError):
            self.context.Pool(1, initializer=1)

    def test_names_and_order_of_arguments(self):
        theirs = inspect.signature(multiprocessing.pool.Pool.__init__)
        ours = inspect.signature(allcores.pool.Pool.__init__)
        self.assert_extends(ours, theirs)
        self.assert_extends(inspect.signature(self.context.Pool),
                            inspect.signature(multiprocessing.Pool))

    def test_names_and_order_of_methods_arguments(self):
        for name in ("apply", "apply_async", "map", "map_async", "starmap", "starmap_async",
                     "imap", "imap_unordered", "close", "terminate", "join"):
            with self.subTest(name):
                self.assert_extends(inspect.signature(getattr(allcores.pool.Pool, name)),
                                    inspect.signature(getattr(multiprocessing.pool.Pool, name)))

    def assert_extends(self, ours, theirs):
        """The same parameters first, with the same defaults; more may follow."""
        def plain(signature):
            return [(p.name, p.default) for p in signature.parameters.values()]
        count = len(theirs.parameters)
        self.assertEqual(plain(ours)[:count], plain(theirs))
        for parameter in list(ours.parameters.values())[count:]:
            self.assertIsNot(parameter.default, inspect.Parameter.empty)


class DefaultSize(Case, unittest.TestCase):
    """None means as many processes as there are processors to use."""

    method = "fork"

    def test_none(self):
        if STDLIB:
            count = getattr(os, "process_cpu_count", os.cpu_count)()
        else:
            count = allcores.cpus()
        self.assertEqual(self.new_pool()._processes, count)
        self.assertEqual(len(self.new_pool(processes=None)._pool), count)


class Apply(Case):
    """apply and apply_async."""

    def test_arguments(self):
        self.assertEqual(self.pool.apply(tasks.describe, (1, "b"), {"c": 3}), ((1, "b"), {"c": 3}))
        self.assertEqual(self.pool.apply(tasks.describe, [1]), ((1,), {}))
        self.assertEqual(self.pool.apply(tasks.describe), ((), {}))
        self.assertEqual(self.pool.apply(func=tasks.describe, args=(1,), kwds={"a": 2}),
                         ((1,), {"a": 2}))

    def test_runs_elsewhere(self):
        self.assertNotEqual(self.pool.apply(tasks.pid), os.getpid())

    def test_any_picklable_callable(self):
        counter = tasks.Counter(10)
        for function, result in ((abs, 3), (counter, 7), (counter.add, 7),
                                 (tasks.Counter.name, "Counter-3"), (tasks.Counter.double, -6),
                                 (functools.partial(tasks.product, 2), -6), (str, "-3"),
                                 ([5, 6, 7, 8].__getitem__, 6)):
            self.assertEqual(self.pool.apply(function, (-3,)), result)

    def test_values(self):
        for value in (None, 0, "é", b"", [1, [2]], {"a": (1, 2)}, 1.5, 2**100, Ellipsis, int):
            self.assertEqual(self.pool.apply(tasks.same, (value,)), value)

    def test_returned_exception_is_a_value(self):
        value = self.pool.apply(tasks.Trouble, ("text", 5))
        self.assertIsInstance(value, tasks.Trouble)
        self.assertEqual((value.args, value.number), (("text", 5), 5))

    def test_big_argument_and_result(self):
        size = 5_000_000
        self.assertEqual(self.pool.apply(tasks.length, (b"x" * size,)), size)
        self.assertEqual(self.pool.apply(tasks.blob, (size,)), b"x" * size)

    def test_many(self):
        results = [self.pool.apply_async(tasks.square, (i,)) for i in range(2000)]
        self.assertEqual([r.get(PATIENCE) for r in results], [i * i for i in range(2000)])

    def test_apply_async_returns_a_result(self):
        result = self.pool.apply_async(tasks.product, (3,), {"b": 4})
        self.assertIsInstance(result, allcores.pool.AsyncResult)
        self.assertEqual(result.get(PATIENCE), 12)

    def test_results_from_several_threads(self):
        values = {}

        def ask(number):
            values[number] = [self.pool.apply(tasks.square, (i,)) for i in range(number, 100, 4)]
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(values, {n: [i * i for i in range(n, 100, 4)] for n in range(4)})


class Results(Case):
    """AsyncResult."""

    def test_before_it_is_ready(self):
        go = self.path("go")
        result = self.pool.apply_async(tasks.wait_for, (go, 5))
        self.assertFalse(result.ready())
        with self.assertRaises(ValueError):
            result.successful()
        self.assertIsNone(result.wait(0.05))
        for timeout in (0.05, 0):
            with self.assertRaises(multiprocessing.TimeoutError):
                result.get(timeout)
        with self.assertRaises(allcores.TimeoutError):
            result.get(timeout=0)
        tasks.touch(go)
        self.assertEqual(result.get(), 5)

    def test_success(self):
        result = self.pool.apply_async(tasks.square, (7,))
        self.assertIsNone(result.wait(PATIENCE))
        self.assertTrue(result.ready())
        self.assertTrue(result.successful())
        self.assertEqual((result.get(), result.get(timeout=0)), (49, 49))

    def test_failure(self):
        result = self.pool.apply_async(tasks.fail, (7,))
        result.wait(timeout=PATIENCE)
        self.assertTrue(result.ready())
        self.assertFalse(result.successful())
        for _ in range(2):
            with self.assertRaises(tasks.Trouble):
                result.get()

    def test_get_gives_the_same_object(self):
        result = self.pool.apply_async(tasks.same, ([1],))
        self.assertIs(result.get(PATIENCE), result.get())

    def test_subscript(self):
        self.assertIsInstance(allcores.pool.AsyncResult[int], types.GenericAlias)


class RemoteErrors(Case):
    """What was raised in the worker is raised here, with its traceback as the cause."""

    def assert_remote(self, error, number):
        self.assertIs(type(error), tasks.Trouble)
        self.assertEqual((error.args, error.number), (("no luck", number), number))
        self.assertIsInstance(error.__cause__, multiprocessing.pool.RemoteTraceback)
        self.assertIn("tasks.py", str(error.__cause__))
        self.assertIn('raise Trouble("no luck", x)', str(error.__cause__))

    def test_apply(self):
        with self.assertRaises(tasks.Trouble) as caught:
            self.pool.apply(tasks.fail, (5,))
        self.assert_remote(caught.exception, 5)

    def test_map(self):
        with self.assertRaises(tasks.Trouble) as caught:
            self.pool.map(tasks.fail, [6])
        self.assert_remote(caught.exception, 6)

    def test_imap(self):
        for imap in (self.pool.imap, self.pool.imap_unordered):
            for chunksize in (1, 2):
                with self.assertRaises(tasks.Trouble) as caught:
                    next(imap(tasks.fail, [7], chunksize))
                self.assert_remote(caught.exception, 7)

    def test_result_that_cannot_be_pickled(self):
        for call in (lambda: self.pool.apply(tasks.brittle, ("pickle",)),
                     lambda: self.pool.map(tasks.brittle, ["pickle"]),
                     lambda: next(self.pool.imap(tasks.brittle, ["pickle"]))):
            with self.assertRaises(multiprocessing.pool.MaybeEncodingError) as caught:
                call()
            self.assertIn("cannot be pickled", caught.exception.exc)
            self.assertIn("Brittle", caught.exception.value)
            self.assertIn("cannot be pickled", str(caught.exception))

    def test_exception_that_cannot_be_pickled(self):
        with self.assertRaises(multiprocessing.pool.MaybeEncodingError) as caught:
            self.pool.apply(tasks.fail_unpicklable)
        self.assertIn("cannot be pickled", caught.exception.exc)

    def test_argument_that_cannot_be_pickled(self):
        result = self.pool.apply_async(tasks.same, (tasks.Brittle("pickle"),))
        with self.assertRaisesRegex(RuntimeError, "cannot be pickled"):
            result.get(PATIENCE)
        self.assertFalse(result.successful())
        with self.assertRaisesRegex(RuntimeError, "cannot be pickled"):
            self.pool.map(tasks.same, [1, tasks.Brittle("pickle"), 2], 1)

    def test_function_that_cannot_be_pickled(self):
        for call in (lambda: self.pool.apply_async(lambda: 1).get(PATIENCE),
                     lambda: self.pool.map_async(lambda x: 1, [1, 2]).get(PATIENCE),
                     lambda: next(self.pool.imap(lambda x: 1, [1, 2]))):
            with self.assertRaises((pickle.PicklingError, AttributeError)):
                call()

    def test_unpicklable_item_of_imap_is_that_item_alone(self):
        found = self.pool.imap(tasks.same, [1, tasks.Brittle("pickle"), 2])
        self.assertEqual(next(found), 1)
        with self.assertRaisesRegex(RuntimeError, "cannot be pickled"):
            next(found)
        self.assertEqual(list(found), [2])

    def test_unpicklable_is_told_to_the_error_callback(self):
        told = []
        result = self.pool.apply_async(tasks.same, (tasks.Brittle("pickle"),),
                                       callback=told.append, error_callback=told.append)
        result.wait(PATIENCE)
        self.assertEqual([type(e) for e in told], [RuntimeError])


class Callbacks(Case):
    """One after the other, in a thread of the pool, before the result is ready."""

    def test_value(self):
        told = []
        result = self.pool.apply_async(tasks.same, ([1],), callback=told.append,
                                       error_callback=self.fail)
        self.assertIs(result.get(PATIENCE), told[0])
        self.assertEqual(told, [[1]])

    def test_error(self):
        told = []
        result = self.pool.apply_async(tasks.fail, (1,), callback=self.fail,
                                       error_callback=told.append)
        with self.assertRaises(tasks.Trouble) as caught:
            result.get(PATIENCE)
        self.assertIs(told[0], caught.exception)
        self.assertEqual(len(told), 1)

    def test_ready_when_the_callback_has_returned(self):
        ended = []

        def callback(value):
            time.sleep(0.3)
            ended.append(value)
        result = self.pool.apply_async(tasks.same, (5,), callback=callback)
        self.wait_until(result.ready)
        self.assertEqual(ended, [5])

    def test_one_after_the_other_in_one_thread(self):
        inside, threads, overlaps = [], set(), []

        def callback(_):
            overlaps.append(len(inside))
            inside.append(1)
            threads.add(threading.get_ident())
            time.sleep(0.002)
            inside.pop()
        results = [self.pool.apply_async(tasks.square, (i,), callback=callback) for i in range(20)]
        results += [self.pool.map_async(tasks.square, [i], callback=callback) for i in range(20)]
        for result in results:
            result.get(PATIENCE)
        self.assertEqual(overlaps, [0] * 40)
        self.assertEqual(len(threads), 1)
        self.assertNotIn(threading.get_ident(), threads)

    def test_callback_may_submit(self):
        more = []

        def callback(value):
            more.append(self.pool.apply_async(tasks.square, (value,)))
        self.pool.apply_async(tasks.square, (3,), callback=callback).get(PATIENCE)
        self.assertEqual([r.get(PATIENCE) for r in more], [81])

    def test_map_tells_the_whole_list_once(self):
        told = []
        for call, items in ((self.pool.map_async, range(10)),
                            (self.pool.starmap_async, zip(range(10)))):
            told.clear()
            result = call(tasks.square, items, chunksize=3, callback=told.append)
            self.assertEqual(result.get(PATIENCE), [i * i for i in range(10)])
            self.assertEqual(told, [result.get()])

    def test_map_tells_one_error_once(self):
        told = []
        result = self.pool.map_async(tasks.fail, range(10), chunksize=1, callback=self.fail,
                                     error_callback=told.append)
        with self.assertRaises(tasks.Trouble) as caught:
            result.get(PATIENCE)
        self.assertEqual(len(told), 1)
        self.assertIs(told[0], caught.exception)


class Map(Case):
    """map, map_async, starmap, starmap_async."""

    def test_order(self):
        for chunksize in (None, 1, 7, 1000):
            self.assertEqual(self.pool.map(tasks.square, range(100), chunksize),
                             [i * i for i in range(100)])

    def test_any_iterable(self):
        self.assertEqual(self.pool.map(tasks.same, (i for i in range(5))), [0, 1, 2, 3, 4])
        self.assertEqual(self.pool.map(tasks.same, "abc"), ["a", "b", "c"])
        self.assertEqual(self.pool.map(tasks.same, {"a": 1, "b": 2}), ["a", "b"])
        self.assertEqual(self.pool.map(func=tasks.same, iterable={5}, chunksize=1), [5])
        self.assertEqual(self.pool.map(tasks.same, iter([None, None])), [None, None])

    def test_iterable_is_read_by_the_caller(self):
        readers = []

        def items():
            readers.append(threading.get_ident())
            yield 1
        result = self.pool.map_async(tasks.same, items())
        self.assertEqual(readers, [threading.get_ident()])
        self.assertEqual(result.get(PATIENCE), [1])

    def test_bad_iterable_raises_here(self):
        def items():
            yield 1
            raise tasks.Trouble("in the input")
        for call in (self.pool.map, self.pool.map_async):
            with self.assertRaises(tasks.Trouble):
                call(tasks.same, items())
            with self.assertRaises(TypeError):
                call(tasks.same, None)

    def test_empty(self):
        for call in (self.pool.map, self.pool.starmap):
            self.assertEqual(call(tasks.same, []), [])
            self.assertEqual(call(tasks.same, iter(())), [])
        for chunksize in (None, 1, 5):
            result = self.pool.map_async(tasks.same, [], chunksize, callback=self.fail,
                                         error_callback=self.fail)
            self.assertTrue(result.ready())
            self.assertTrue(result.successful())
            self.assertEqual(result.get(0), [])

    def test_starmap(self):
        pairs = [(i, i + 1) for i in range(30)]
        expected = [a * b for a, b in pairs]
        for items in (pairs, iter(pairs), [list(p) for p in pairs]):
            self.assertEqual(self.pool.starmap(tasks.product, items, 4), expected)
        self.assertEqual(self.pool.starmap(tasks.product, pairs), expected)
        self.assertEqual(self.pool.starmap_async(tasks.product, pairs).get(PATIENCE), expected)

    def test_starmap_of_what_is_no_tuple(self):
        with self.assertRaises(TypeError):
            self.pool.starmap(tasks.same, [1])

    def test_both_workers_take_part(self):
        met = self.pool.map(functools.partial(tasks.meet, self.folder), [2, 2], 1)
        self.assertEqual(sorted(met), sorted(pids(self.pool)))

    def test_rest_of_a_failing_chunk_is_not_run(self):
        function = functools.partial(tasks.fail_on, {0, 3}, self.notes)
        with self.assertRaises(tasks.Trouble):
            self.pool.map(function, range(6), chunksize=2)
        self.assertEqual(sorted(self.read_notes()), ["0", "2", "3", "4", "5"])

    def test_exception_that_is_false(self):
        for chunksize in (None, 1, 2):
            with self.assertRaises(tasks.Falsy):
                self.pool.map(tasks.fail_falsy, range(4), chunksize)

    def test_first_failure_to_arrive_is_raised_when_all_is_done(self):
        function = functools.partial(tasks.fail_late, self.notes, self.path("go"))
        with self.assertRaises(tasks.Trouble) as caught:
            self.pool.map(function, [0, 1], chunksize=1)
        self.assertEqual(caught.exception.number, 1)
        self.assertEqual(self.read_notes(), ["1", "0"])

    def test_failure_waits_for_every_chunk(self):
        go = self.path("go")
        result = self.pool.starmap_async(tasks.wait_for, [(go, 1), ()], chunksize=1)
        result.wait(0.3)
        self.assertFalse(result.ready())
        tasks.touch(go)
        with self.assertRaises(TypeError):
            result.get(PATIENCE)

    def test_maps_at_the_same_time(self):
        results = [self.pool.map_async(tasks.square, range(i, i + 50)) for i in range(20)]
        for i, result in enumerate(results):
            self.assertEqual(result.get(PATIENCE), [j * j for j in range(i, i + 50)])


class Imap(Case):
    """imap and imap_unordered."""

    def test_order(self):
        for chunksize in (1, 7, 1000):
            self.assertEqual(list(self.pool.imap(tasks.square, range(100), chunksize)),
                             [i * i for i in range(100)])
            self.assertEqual(
                sorted(self.pool.imap_unordered(tasks.square, range(100), chunksize)),
                [i * i for i in range(100)])
        self.assertEqual(list(self.pool.imap(func=tasks.same, iterable="ab", chunksize=1)),
                         ["a", "b"])

    def test_empty(self):
        for imap in (self.pool.imap, self.pool.imap_unordered):
            for chunksize in (1, 3):
                self.assertEqual(list(imap(tasks.same, [], chunksize)), [])

    def test_chunksize_below_one(self):
        for imap in (self.pool.imap, self.pool.imap_unordered):
            for chunksize in (0, -1):
                with self.assertRaises(ValueError):
                    imap(tasks.same, [1], chunksize)

    def test_unordered_gives_what_is_done(self):
        go = self.path("go")
        found = self.pool.imap_unordered(functools.partial(tasks.wait_for), [go, self.folder])
        self.assertIsNone(found.next(PATIENCE))
        with self.assertRaises(multiprocessing.TimeoutError):
            found.next(timeout=0.05)
        tasks.touch(go)
        self.assertIsNone(found.next(PATIENCE))
        self.assertRaises(StopIteration, next, found)

    def test_next_with_timeout(self):
        go = self.path("go")
        found = self.pool.imap(tasks.wait_for, [go])
        self.assertIs(iter(found), found)
        for timeout in (0.05, 0):
            with self.assertRaises(multiprocessing.TimeoutError):
                found.next(timeout)
        tasks.touch(go)
        self.assertIsNone(found.next(timeout=PATIENCE))
        for _ in range(2):
            self.assertRaises(StopIteration, found.next)
            self.assertRaises(StopIteration, next, found)

    def test_goes_on_after_an_items_error(self):
        function = functools.partial(tasks.fail_on, {0, 2}, self.notes)
        for imap in (self.pool.imap, self.pool.imap_unordered):
            found, values, errors = imap(function, range(5)), [], []
            while True:
                try:
                    values.append(next(found))
                except StopIteration:
                    break
                except tasks.Trouble as error:
                    errors.append(error.number)
            self.assertEqual((sorted(values), sorted(errors)), ([1, 3, 4], [0, 2]))

    def test_place_of_an_items_error(self):
        found = self.pool.imap(functools.partial(tasks.fail_on, {1}, self.notes), range(3))
        self.assertEqual(next(found), 0)
        self.assertRaises(tasks.Trouble, next, found)
        self.assertEqual(list(found), [2])

    def test_chunks_come_as_items(self):
        for imap in (self.pool.imap, self.pool.imap_unordered):
            self.assertEqual(sorted(imap(tasks.same, range(5), 2)), [0, 1, 2, 3, 4])

    def test_chunks_end_with_the_first_error(self):
        function = functools.partial(tasks.fail_on, {3}, self.notes)
        found = self.pool.imap(function, range(6), chunksize=2)
        self.assertEqual([next(found), next(found)], [0, 1])
        self.assertRaises(tasks.Trouble, next, found)
        self.assertRaises(StopIteration, next, found)
        self.wait_until(lambda: len(self.read_notes()) == 6, "the rest of the chunks")

    def test_rest_of_a_failing_chunk_is_not_run(self):
        function = functools.partial(tasks.fail_on, {0}, self.notes)
        found = self.pool.imap(function, range(4), chunksize=3)
        self.assertRaises(tasks.Trouble, next, found)
        self.wait_until(lambda: "3" in self.read_notes())
        self.assertEqual(sorted(self.read_notes()), ["0", "3"])

    def test_input_is_read_in_another_thread(self):
        readers = []

        def items():
            readers.append(threading.get_ident())
            yield 1
        for imap in (self.pool.imap, self.pool.imap_unordered):
            for chunksize in (1, 2):
                self.assertEqual(list(imap(tasks.same, items(), chunksize)), [1])
        self.assertNotIn(threading.get_ident(), readers)

    def test_input_is_read_and_run_though_nobody_iterates(self):
        ended = threading.Event()

        def items():
            yield from range(20)
            ended.set()
        for chunksize in (1, 4):
            ended.clear()
            found = self.pool.imap(functools.partial(tasks.fail_on, (), self.notes), items(),
                                   chunksize)
            self.assertTrue(ended.wait(PATIENCE))
            self.wait_until(lambda: len(self.read_notes()) == 20, "all items")
            self.assertEqual(list(found), list(range(20)))
            tasks.forget(self.notes)

    def test_call_returns_while_the_input_blocks(self):
        go = threading.Event()

        def items():
            yield 1
            go.wait(PATIENCE)
            yield 2
        found = self.pool.imap(tasks.same, items())
        self.assertEqual(found.next(PATIENCE), 1)
        go.set()
        self.assertEqual(list(found), [2])

    def test_error_in_the_input_arrives_at_its_place(self):
        def items():
            yield 0
            yield 1
            raise tasks.Trouble("in the input", 2)
        for imap in (self.pool.imap, self.pool.imap_unordered):
            for chunksize in (1, 2):
                found = imap(tasks.same, items(), chunksize)
                values = []
                with self.assertRaises(tasks.Trouble) as caught:
                    for value in found:
                        values.append(value)
                self.assertEqual(caught.exception.number, 2)
                self.assertIsNone(caught.exception.__cause__)
                if imap == self.pool.imap or chunksize > 1:
                    self.assertRaises(StopIteration, next, found)
                if imap == self.pool.imap:
                    self.assertEqual(values, [0, 1])

    def test_what_is_no_iterable(self):
        for chunksize in (1, 2):
            found = self.pool.imap(tasks.same, None, chunksize)
            self.assertRaises(TypeError, next, found)

    def test_several_at_once(self):
        many = [self.pool.imap(tasks.square, range(i, i + 20)) for i in range(5)]
        for _ in range(20):
            for i, found in enumerate(many):
                next(found)
        for found in many:
            self.assertRaises(StopIteration, next, found)


for_each_method(globals(), Arguments, Apply, Results, RemoteErrors, Callbacks, Map, Imap)

if __name__ == "__main__":
    unittest.main()

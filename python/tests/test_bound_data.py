#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Functions that carry data: partials, bound methods, callable instances.

A map pickles them once, and each call gets a fresh copy, as each chunk does in the standard
library.
"""
import functools
import gc
import threading
import unittest
import weakref

import allcores
import models
import tasks
from support import PATIENCE, Case, engine_only, for_each_method, pids

BIG = 20_000_000


def maps(pool, function, items, chunksize):
    """Each kind of map, as a call that gives a list in the input's order."""
    rows = [(item,) for item in items]
    return {
        "map": lambda: pool.map(function, items, chunksize),
        "map_async": lambda: pool.map_async(function, items, chunksize).get(PATIENCE),
        "map_async, callback": lambda: pool.map_async(
            function, items, chunksize, callback=len).get(PATIENCE),
        "starmap": lambda: pool.starmap(function, rows, chunksize),
        "starmap_async": lambda: pool.starmap_async(function, rows, chunksize).get(PATIENCE),
    }


def imaps(pool, function, items, chunksize):
    return {
        "imap": lambda: list(pool.imap(function, items, chunksize)),
        "imap_unordered": lambda: sorted(pool.imap_unordered(function, items, chunksize),
                                         key=lambda row: row[1]),
    }


class FreshCopies(Case):
    """What a call changes in its function, no other call sees."""

    def test_chunks(self):
        for name, function in models.forms().items():
            for chunksize in (1, 3):
                calls = {**maps(self.pool, function, range(7), chunksize),
                         **imaps(self.pool, function, range(7), chunksize)}
                for how, call in calls.items():
                    with self.subTest(f"{how} of a {name}, chunksize={chunksize}"):
                        self.assertEqual(call(), [(i % chunksize + 1, i) for i in range(7)])

    def test_measured_chunks(self):
        """Of any size, but each begins with a fresh copy."""
        for name, function in models.forms().items():
            for how, call in maps(self.pool, function, range(500), None).items():
                with self.subTest(f"{how} of a {name}"):
                    counts, items = zip(*call())
                    self.assertEqual(items, tuple(range(500)))
                    self.assertEqual(counts[0], 1)
                    for before, after in zip(counts, counts[1:]):
                        self.assertIn(after, (1, before + 1))

    def test_single_calls(self):
        for name, function in models.forms().items():
            with self.subTest(name):
                for _ in range(3):
                    self.assertEqual(self.pool.apply(function, (5,)), (1, 5))
                    self.assertEqual(self.pool.apply_async(function, (5,)).get(PATIENCE), (1, 5))
                    self.assertEqual(self.pool.apply_async(
                        function, (5,), callback=len).get(PATIENCE), (1, 5))

    def test_the_owners_object_is_not_changed(self):
        model = models.Model()
        for how, call in maps(self.pool, model.count, range(5), 1).items():
            with self.subTest(how):
                call()
                self.assertEqual(model.seen, [])

    def test_changed_between_maps(self):
        """Each map sees what the object is when it begins."""
        model = models.Model({0: "a"})
        for value in "abc":
            model.data[0] = value
            for chunksize in (None, 1, 2):
                for how, call in maps(self.pool, model.get, [0, 0], chunksize).items():
                    with self.subTest(how):
                        self.assertEqual(call(), [value] * 2)
            self.assertEqual(list(self.pool.imap(model.get, [0, 0])), [value] * 2)
            self.assertEqual(self.pool.apply(model.get, (0,)), value)
            # Bound methods are made anew at each use, partials are not.
            self.assertEqual(self.pool.map(functools.partial(models.look_up, model.data), [0]),
                             [value])

    def test_same_partial_with_changed_data(self):
        table = {0: "a"}
        function = functools.partial(models.look_up, table)
        for value in "abc":
            table[0] = value
            self.assertEqual(self.pool.map(function, [0]), [value])
            self.assertEqual(self.pool.map_async(function, [0], 1).get(PATIENCE), [value])
            self.assertEqual(self.pool.apply(function, (0,)), value)

    def test_function_that_is_an_item_too(self):
        model = models.Model(b"12345")
        for chunksize in (None, 1):
            found = self.pool.map(functools.partial(models.length_of, model.data),
                                  [model, model.data], chunksize)
            self.assertEqual([size for size, _ in found], [5, 5])
            self.assertEqual((found[0][1].data, found[1][1]), (b"12345", b"12345"))


@engine_only
class Pickled(Case):
    """How often the function is pickled, and what happens when that fails."""

    def test_once_for_each_map(self):
        model = models.Model()
        for function in (model.count, model, functools.partial(models.Model.count, model)):
            for chunksize in (None, 1, 3):
                for how, call in maps(self.pool, function, range(200), chunksize).items():
                    with self.subTest(f"{how}, chunksize={chunksize}"):
                        models.pickled = 0
                        call()
                        self.assertEqual(models.pickled, 1)

    def test_not_more_than_once_for_each_call(self):
        model = models.Model()
        for call in (lambda: self.pool.apply(model.count, (1,)),
                     lambda: self.pool.apply_async(model.count, (1,), callback=len).get(PATIENCE),
                     lambda: list(self.pool.imap(model.count, [1])),
                     lambda: list(self.pool.imap_unordered(model.count, [1, 2], 2))):
            models.pickled = 0
            call()
            self.assertEqual(models.pickled, 1)

    def test_cannot_be_pickled_or_rebuilt(self):
        before = pids(self.pool)
        for stage in ("pickled", "rebuilt"):
            function = models.Brittle(stage).count
            for chunksize in (None, 1, 2):
                for how, call in maps(self.pool, function, range(20), chunksize).items():
                    with self.subTest(f"{how}, {stage}, chunksize={chunksize}"):
                        self.assertRaisesRegex(RuntimeError, "cannot be " + stage, call)
        self.assertEqual(self.pool.map(abs, range(5)), list(range(5)))
        self.assertEqual(pids(self.pool), before)

    def test_released_after_the_map(self):
        model = models.Model(b"x" * 1000)
        reference = weakref.ref(model)
        for chunksize in (None, 1):
            for call in maps(self.pool, model.count, range(20), chunksize).values():
                call()
        del model, call
        self.wait_until(lambda: (gc.collect(), reference())[1] is None, "the end of the model")


class Big(Case):
    """20 MB of them."""

    def test_bytes(self):
        data = bytes(BIG)
        for name, function in (("partial", functools.partial(models.length_of, data)),
                               ("bound method", models.Model(data).length)):
            for chunksize in (None, 1):
                for how, call in maps(self.pool, function, range(10), chunksize).items():
                    with self.subTest(f"{how} of a {name}, chunksize={chunksize}"):
                        self.assertEqual(call(), [(BIG, i) for i in range(10)])
            self.assertEqual(list(self.pool.imap(function, range(3))),
                             [(BIG, i) for i in range(3)])
            self.assertEqual(self.pool.apply(function, (1,)), (BIG, 1))

    def test_table(self):
        table = {i: str(i) for i in range(100_000)}
        for function in (functools.partial(models.look_up, table), models.Model(table).get):
            self.assertEqual(self.pool.map(function, range(300)), [str(i) for i in range(300)])

    def test_several_at_once(self):
        sizes = [1_000_000 + i for i in range(8)]
        results = [self.pool.map_async(functools.partial(models.length_of, bytes(size)), range(20))
                   for size in sizes]
        for size, result in zip(sizes, results):
            self.assertEqual(result.get(PATIENCE), [(size, i) for i in range(20)])

    def test_from_several_threads(self):
        found = {}

        def ask(size):
            found[size] = self.pool.map(functools.partial(models.length_of, bytes(size)), range(20))
        threads = [threading.Thread(target=ask, args=(size,)) for size in (100, 10**5, 10**6, 10**7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        for size, values in found.items():
            self.assertEqual(values, [(size, i) for i in range(20)])
        self.assertEqual(len(found), 4)

    def test_replaced_workers(self):
        """Each has to read the function's data again."""
        function = functools.partial(models.length_of, bytes(1_000_000))
        pool = self.new_pool(2, maxtasksperchild=1)
        for chunksize in (None, 1):
            self.assertEqual(pool.map(function, range(8), chunksize),
                             [(1_000_000, i) for i in range(8)])

    def test_close_and_join_while_it_is_under_way(self):
        for chunksize in (None, 1):
            pool = self.new_pool(2)
            function = functools.partial(models.nap_and_length, bytes(1_000_000), 0.01)
            result = pool.map_async(function, range(20), chunksize)
            del function
            pool.close()
            pool.join()
            self.assertEqual(result.get(0), [(1_000_000, i) for i in range(20)])


@engine_only
class Accidents(Case):
    """Died workers and terminated pools: nothing of the data is lost or left."""

    def test_died_worker(self):
        pool, model = self.new_pool(2), models.Model(bytes(BIG))
        function = functools.partial(model.die_once, self.path("died"))
        for chunksize in (None, 1):
            with self.assertRaises(allcores.WorkerDied):
                pool.map(function, range(20), chunksize)
            self.assertEqual(pool.map(function, range(20), chunksize),
                             [(BIG, i) for i in range(20)])
            tasks.forget(self.path("died"))

    def test_terminated(self):
        function = functools.partial(models.nap_and_length, bytes(BIG), 0.05)
        for chunksize in (None, 1):
            pool = self.new_pool(2)
            result = pool.map_async(function, range(200), chunksize)
            self.assertRaises(allcores.TimeoutError, result.get, 0.2)
            pool.terminate()
            pool.join()
            self.assertRaises(allcores.TaskCancelled, result.get, PATIENCE)

    def test_memory_of_workers_and_owner_is_bounded(self):
        pool = self.new_pool(1)
        function = functools.partial(models.length_of, bytes(BIG))
        pool.map(function, range(5), 1)
        before = tasks.memory() + pool.apply(tasks.memory)
        for _ in range(10):
            pool.map(function, range(5), 1)
            list(pool.imap(function, range(2)))
        grown = tasks.memory() + pool.apply(tasks.memory) - before
        self.assertLess(grown, 10 * BIG)


for_each_method(globals(), FreshCopies, Pickled, Big, Accidents)

if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Inputs of maps that are no plain lists, and arguments at the edge of what is allowed."""
import array
import collections
import contextlib
import itertools
import logging
import multiprocessing
import sys
import threading
import types
import unittest

import allcores
import tasks
from support import PATIENCE, Case, engine_only, for_each_method

NAN = float("nan")


class Decoded(list):
    """Holds what is raw, gives what is decoded."""

    def __iter__(self):
        return (100 * x for x in super().__iter__())


class DecodedTuple(tuple):
    def __iter__(self):
        return (100 * x for x in super().__iter__())


class Row(tuple):
    """Fields by name or number, as database drivers have them."""

    def __getitem__(self, key):
        if not isinstance(key, (int, str)):
            raise TypeError("fields have names or numbers")
        return super().__getitem__(key if isinstance(key, int) else ("a", "b", "c").index(key))


class Sliced(list):
    """Slices mean something else."""

    def __getitem__(self, key):
        return ["no"] if isinstance(key, slice) else super().__getitem__(key)


class Shifted(list):
    """Its first item has the number 1."""

    def __getitem__(self, key):
        return super().__getitem__(key - 1)


class OldSequence:
    """Iterates by __getitem__ alone."""

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError(index)
        return index + 1


class SizedSequence(OldSequence):
    def __len__(self):
        return 3


class Boastful(list):
    """Says that it has more items than it gives."""

    def __len__(self):
        return super().__len__() + 5


class Broken(list):
    def __iter__(self):
        raise tasks.Trouble("no iterator today")


class BrokenLength(list):
    def __len__(self):
        raise tasks.Trouble("no length today")


class False_(list):
    """Is false although it has items."""

    def __bool__(self):
        return False


class ArrayLike(list):
    """Refuses to be true or false, as numpy's arrays do."""

    def __bool__(self):
        raise ValueError("the truth value is ambiguous")

    def __eq__(self, other):
        return ArrayLike(x == other for x in self)


Named = collections.namedtuple("Named", "a b c")


class Subclass(int):
    pass


def maps(pool, function, chunksize):
    """Each method that takes an input, as a call that gives a list in the input's order."""
    calls = {
        "map": lambda items: pool.map(function, items, chunksize),
        "map_async": lambda items: pool.map_async(function, items, chunksize).get(PATIENCE),
    }
    if chunksize:
        calls["imap"] = lambda items: list(pool.imap(function, items, chunksize))
        calls["imap_unordered"] = lambda items: sorted(
            pool.imap_unordered(function, items, chunksize))
    return calls


class Inputs(Case):
    """Only iterating says what is in an input."""

    def check(self, make, expected):
        for chunksize in (None, 1, 2, 100):
            for how, call in maps(self.pool, tasks.same, chunksize).items():
                with self.subTest(f"{how}, chunksize={chunksize}"):
                    self.assertEqual(call(make()), expected)
        rows = [(item,) for item in expected]
        for chunksize in (None, 1, 2):
            self.assertEqual(self.pool.starmap(tasks.same, rows, chunksize), expected)

    def test_subclasses(self):
        self.check(lambda: Decoded([1, 2, 3]), [100, 200, 300])
        self.check(lambda: DecodedTuple([1, 2, 3]), [100, 200, 300])
        self.check(lambda: Row((1, 2, 3)), [1, 2, 3])
        self.check(lambda: Sliced([1, 2, 3]), [1, 2, 3])
        self.check(lambda: Shifted([1, 2, 3]), [1, 2, 3])
        self.check(lambda: Named(1, 2, 3), [1, 2, 3])

    def test_starmap_of_a_subclass(self):
        class Pairs(list):
            def __iter__(self):
                return iter([(1, 2), (3, 4)])

        for chunksize in (None, 1, 2):
            pairs = Pairs([(0, 0), (0, 0)])
            self.assertEqual(self.pool.starmap(tasks.product, pairs, chunksize), [2, 12])
            self.assertEqual(
                self.pool.starmap_async(tasks.product, pairs, chunksize).get(PATIENCE), [2, 12])

    def test_starmap_of_odd_rows(self):
        for chunksize in (None, 1, 2):
            self.assertEqual(
                self.pool.starmap(tasks.product, [(1, 2), [3, 4], {5: 0, 6: 0}, b"ab",
                                                  DecodedTuple((1, 2)), Row((1, 2))], chunksize),
                [2, 12, 30, 97 * 98, 20_000, 2])

    def test_views_and_others(self):
        items = {1: "a", 2: "b", 3: "c"}
        self.check(items.keys, [1, 2, 3])
        self.check(items.values, ["a", "b", "c"])
        self.check(items.items, [(1, "a"), (2, "b"), (3, "c")])
        self.check(lambda: types.MappingProxyType(items), [1, 2, 3])
        self.check(lambda: collections.OrderedDict(items), [1, 2, 3])
        self.check(lambda: collections.deque([1, 2, 3]), [1, 2, 3])
        self.check(lambda: collections.UserList([1, 2, 3]), [1, 2, 3])
        self.check(lambda: array.array("i", [1, 2, 3]), [1, 2, 3])
        self.check(lambda: memoryview(b"abc"), [97, 98, 99])
        self.check(lambda: b"abc", [97, 98, 99])
        self.check(lambda: bytearray(b"abc"), [97, 98, 99])
        self.check(lambda: "abc", ["a", "b", "c"])
        self.check(lambda: frozenset([1]), [1])
        self.check(lambda: range(3, 0, -1)[::-1], [1, 2, 3])

    def test_iterators(self):
        for make in (lambda: iter([1, 2, 3]), lambda: (i for i in (1, 2, 3)),
                     lambda: map(int, "123"), lambda: itertools.islice(itertools.count(1), 3),
                     lambda: itertools.chain([1], [2, 3]), lambda: filter(None, [0, 1, 2, 3]),
                     lambda: reversed([3, 2, 1])):
            self.check(make, [1, 2, 3])
        self.check(lambda: enumerate("ab"), [(0, "a"), (1, "b")])
        self.check(lambda: zip("ab", (1, 2)), [("a", 1), ("b", 2)])

    def test_sequences_of_the_old_kind(self):
        self.check(OldSequence, [1, 2, 3])
        self.check(SizedSequence, [1, 2, 3])

    def test_truth_of_an_input(self):
        self.check(lambda: False_([1, 2, 3]), [1, 2, 3])
        self.check(lambda: ArrayLike([1, 2, 3]), [1, 2, 3])

    @engine_only  # the standard library's waits for the items that never come
    def test_length_that_is_too_big(self):
        self.check(lambda: Boastful([1, 2, 3]), [1, 2, 3])

    @engine_only  # the standard library's hangs
    def test_broken_iterators(self):
        for make in (lambda: Broken([1, 2, 3]), lambda: Broken([1])):
            for chunksize in (None, 1, 2):
                for how, call in maps(self.pool, tasks.same, chunksize).items():
                    with self.subTest(f"{how}, chunksize={chunksize}"):
                        self.assertRaises(tasks.Trouble, call, make())
        self.assertEqual(self.pool.map(abs, [-1]), [1])

    def test_broken_length(self):
        """Nobody need ask for it; if somebody does, what it raises is raised."""
        for chunksize in (None, 1, 2):
            for how, call in maps(self.pool, tasks.same, chunksize).items():
                with self.subTest(f"{how}, chunksize={chunksize}"):
                    try:
                        self.assertEqual(call(BrokenLength([1, 2, 3])), [1, 2, 3])
                    except tasks.Trouble:
                        pass
        self.assertEqual(self.pool.map(abs, [-1]), [1])

    def test_exact_types_are_not_changed(self):
        items = [3, 1, 2]
        self.assertEqual(self.pool.map(tasks.same, items), [3, 1, 2])
        self.assertEqual(items, [3, 1, 2])

    @engine_only  # the standard library's waits for ever
    def test_list_that_shrinks_on_the_way(self):
        """The results of what was there, or an error: nobody waits for ever, nothing is made up."""
        for chunksize in (None, 1, 100):
            items = list(range(3000))
            result = self.pool.map_async(tasks.same, items, chunksize)
            items.clear()
            try:
                self.assertEqual(result.get(PATIENCE), list(range(3000)))
            except multiprocessing.TimeoutError:
                raise
            except Exception:
                pass
        self.assertEqual(self.pool.map(abs, [-1]), [1])


class Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))


class ChunkSizes(Case):
    """Chunk sizes that are no positive ints."""

    def test_truths_and_subclasses(self):
        for chunksize in (True, Subclass(1), Subclass(2), 10**6):
            for how, call in maps(self.pool, tasks.square, chunksize).items():
                with self.subTest(f"{how}, chunksize={chunksize!r}"):
                    self.assertEqual(call(range(5)), [0, 1, 4, 9, 16])

    @engine_only  # the standard library's hangs for some of them
    def test_refused(self):
        """With an error that is raised once, by the call or by its result; never twice."""
        records, logger = Records(), allcores.get_logger()
        logger.addHandler(records)
        self.addCleanup(logger.removeHandler, records)
        for chunksize in (0, -1, -10**30, False, 1.0, 2.5, NAN, float("inf"), "1", b"1", [1], 1j):
            for call in (self.map, self.map_async, self.imap, self.imap_unordered):
                if chunksize == 1.0 and call in (self.imap, self.imap_unordered):
                    continue  # it equals 1, which is all that the standard library asks
                with self.subTest(f"{call.__name__}, chunksize={chunksize!r}"):
                    self.assertRaises((TypeError, ValueError), call, range(5), chunksize)
        self.pool.map(abs, [1])
        self.assertEqual(records.texts, [])
        self.assertEqual(len(self.pool._cache), 0)

    def map(self, items, chunksize):
        return self.pool.map(tasks.square, items, chunksize)

    def map_async(self, items, chunksize):
        return self.pool.map_async(tasks.square, items, chunksize).get(PATIENCE)

    def imap(self, items, chunksize):
        return list(self.pool.imap(tasks.square, items, chunksize))

    def imap_unordered(self, items, chunksize):
        return list(self.pool.imap_unordered(tasks.square, items, chunksize))

    @engine_only
    def test_huge(self):
        """The results, or an error that says that it is too much."""
        for chunksize in (2**31, 2**32, sys.maxsize, sys.maxsize + 1, 2**64, 10**30):
            for how, call in maps(self.pool, tasks.square, chunksize).items():
                with self.subTest(f"{how}, chunksize={chunksize!r}"):
                    try:
                        self.assertEqual(call(range(5)), [0, 1, 4, 9, 16])
                    except (ValueError, OverflowError):
                        pass


class Limits(Case):
    """Time limits that are no numbers, or odd ones."""

    def refused(self, call, *args):
        """It comes back at once, with an error: TimeoutError where the limit counts as over."""
        ended, found = threading.Event(), []

        def run():
            try:
                found.append(call(*args))
            except Exception as error:
                found.append(error)
            ended.set()
        threading.Thread(target=run, daemon=True).start()
        self.assertTrue(ended.wait(PATIENCE), "it waits for ever")
        return found[0]

    def test_not_a_number(self):
        go = self.path("go")
        self.addCleanup(tasks.touch, go)
        results = [self.pool.apply_async(tasks.wait_for, (go, 5)),
                   self.pool.apply_async(tasks.wait_for, (go, 5), callback=str),
                   self.pool.map_async(tasks.wait_for, [go]),
                   self.pool.map_async(tasks.wait_for, [go], 1)]
        errors = (multiprocessing.TimeoutError, ValueError)
        for result in results:
            with self.subTest(repr(result)):
                self.assertIsInstance(self.refused(result.get, NAN), errors)
                found = self.refused(result.wait, NAN)
                self.assertTrue(found is None or isinstance(found, ValueError), found)
        iterators = [self.pool.imap(tasks.wait_for, [go]),
                     self.pool.imap_unordered(tasks.wait_for, [go])]
        for found in iterators:
            self.assertIsInstance(self.refused(found.next, NAN), errors)
        tasks.touch(go)
        self.assertEqual([r.get(PATIENCE) for r in results], [5, 5, [None], [None]])
        self.assertEqual([list(found) for found in iterators], [[None], [None]])

    def test_not_a_number_and_ready(self):
        """A value, or an error about the limit."""
        results = [self.pool.apply_async(abs, (-1,)), self.pool.map_async(abs, [-1])]
        for result in results:
            result.wait(PATIENCE)
            found = self.refused(result.get, NAN)
            self.assertTrue(found in (1, [1]) or isinstance(found, ValueError), found)

    def test_not_a_number_of_a_process(self):
        found = self.refused(self.pool._pool[0].join, NAN)
        self.assertTrue(found is None or isinstance(found, (ValueError, AssertionError)), found)

    def test_odd_limits(self):
        for limit in (float("inf"), 10**30, 1e300, sys.maxsize, -1, -float("inf"), True):
            go = self.path(f"go{limit}")
            self.addCleanup(tasks.touch, go)
            for make in (lambda: self.pool.apply_async(tasks.wait_for, (go, 5)),
                         lambda: self.pool.map_async(tasks.wait_for, [go])):
                result = make()
                with self.subTest(f"{limit}, {type(result).__name__}"):
                    if limit < 0:
                        self.assertRaises(multiprocessing.TimeoutError, result.get, limit)
                    else:
                        tasks.touch(go)
                        with contextlib.suppress(OverflowError, ValueError):
                            self.assertIn(result.get(limit), (5, [None]))
            tasks.touch(go)

    def test_what_is_no_limit(self):
        go = self.path("go")
        self.addCleanup(tasks.touch, go)
        result = self.pool.apply_async(tasks.wait_for, (go, 5))
        for limit in ("1", [1], 1j):
            self.assertIsInstance(self.refused(result.get, limit), TypeError)


class NoArguments(Case):
    """args and kwds that are None, or of odd types: as `function(*args, **kwds)` has them."""

    def call(self, args, kwds):
        for call in (lambda: self.pool.apply(tasks.describe, args, kwds),
                     lambda: self.pool.apply_async(tasks.describe, args, kwds).get(PATIENCE),
                     lambda: self.pool.apply_async(tasks.describe, args, kwds,
                                                   callback=str).get(PATIENCE)):
            yield call

    def test_none(self):
        for args, kwds in (((), None), ((1,), None), (None, {}), (5, {}), ((), 5), ((), [(1, 2)]),
                           ((), {1: 2})):
            for call in self.call(args, kwds):
                with self.subTest(f"{args}, {kwds}"):
                    self.assertRaises(TypeError, call)
        self.assertEqual(self.pool.apply(abs, (-1,)), 1)

    def test_odd_types(self):
        for args, kwds, expected in (
                ([1, 2], {}, ((1, 2), {})), ("ab", {}, (("a", "b"), {})), (range(2), {}, ((0, 1), {})),
                ({1: 2}, {}, ((1,), {})),
                (Row((1, 2)), {}, ((1, 2), {})), (DecodedTuple((1,)), {}, ((100,), {})),
                ((), collections.OrderedDict(a=1), ((), {"a": 1})),
                ((), collections.ChainMap({"a": 1}), ((), {"a": 1}))):
            for call in self.call(args, kwds):
                with self.subTest(f"{args!r}, {kwds!r}"):
                    self.assertEqual(call(), expected)


@engine_only
class Pace(Case, unittest.TestCase):
    """What a failed map leaves for the next one of its function."""

    method = "fork"

    def test_first_call_after_a_failed_map(self):
        pool = self.new_pool(1)
        function = tasks.count_or_fail
        self.assertRaises(tasks.Trouble, pool.map, function, [None] * 100)
        # Items of one call share this list in the worker, as they travel together.
        self.assertEqual(pool.map(function, [[]] * 100)[:2], [1, 1])


for_each_method(globals(), Inputs, ChunkSizes, Limits, NoArguments)

if __name__ == "__main__":
    unittest.main()

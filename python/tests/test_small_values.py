#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Small values travel without pickle (ext/small.c): what arrives is what pickle would have brought,
and bytes that another process has spoilt are refused."""
import enum
import math
import operator
import os
import pickle
import random
import struct
import sys
import unittest
from collections import namedtuple
from multiprocessing.reduction import ForkingPickler
from unittest import mock

import allcores
import tasks
from allcores._core import decode_small, encode_small
from support import Case, engine_only, for_each_method

SEED = int(os.environ.get("ALLCORES_TEST_SEED") or random.randrange(1 << 32))
ROUNDS = 3000
Pair = namedtuple("Pair", "a b")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


def bits(value):
    """Equal for values of the same types and the same bits, also for NaN and -0.0."""
    if isinstance(value, (tuple, list)):
        return type(value), [bits(item) for item in value]
    return type(value), struct.pack("d", value) if isinstance(value, float) else value


def nested(depth):
    return () if depth == 1 else (nested(depth - 1),)


class Maker:
    """Random small values."""

    def __init__(self, source):
        self.source = source

    def integer(self):
        return self.source.choice((1, -1)) * self.source.getrandbits(self.source.randrange(1, 64))

    def real(self):
        return struct.unpack("d", self.source.randbytes(8))[0]

    def text(self):
        alphabet = self.source.choice(("ab\0", "aé", "aж", "a\U0001f40d"))
        return "".join(self.source.choices(alphabet, k=self.source.choice((0, 1, 7, 63))))

    def data(self):
        return self.source.randbytes(self.source.choice((0, 1, 255)))

    def constant(self):
        return self.source.choice((None, True, False, 0, 0.0, -0.0, math.inf, "", (), b""))

    def value(self, depth=3):
        kind = self.source.choice((self.integer, self.real, self.text, self.data, self.constant,
                                   None, None))
        if kind:
            return kind()
        return tuple(self.value(depth - 1) for _ in range(depth and self.source.randrange(5)))

    def outermost(self):
        if self.source.randrange(2):
            return self.value()
        return [self.value() for _ in range(self.source.choice((0, 1, 9, 100)))]


class Bytes(unittest.TestCase):
    def check_small(self, value):
        data = encode_small(value)
        self.assertIsNotNone(data, repr(value)[:80])
        self.assertEqual(bits(decode_small(data)), bits(pickle.loads(pickle.dumps(value))))
        return data

    def test_what_is_small(self):
        for value in (None, True, False, 0, 1, -1, 2**63 - 1, -2**63, 0.0, -0.0, 1e300, math.inf,
                      -math.inf, math.nan, "", "a", "a" * 255, "é" * 127, "\0", "\U0010ffff", b"",
                      b"\xff" * 255, (), (1,), tuple(range(5000)), nested(5), [], [1], [(), ()],
                      [nested(4)], list(range(5000)), [(i, str(i)) for i in range(5000)]):
            with self.subTest(repr(value)[:80]):
                self.check_small(value)

    def test_what_is_not(self):
        endless = []
        endless.append((endless,))
        for value in (2**63, -2**63 - 1, 10**100, Colour.RED, Pair(1, 2), Text("a"), "a" * 256,
                      "é" * 128, "\ud800", b"a" * 256, bytearray(), 1j, ..., {}, set(), len, object(),
                      nested(6), [nested(5)], [[]], ([],), [([],)], endless, tuple(endless),
                      [1, 2, {}], (1, (2, (3, object()))), ["a" * 255] * 100_000, [()] * 2_000_000,
                      (((("a" * 255,) * 300,) * 300,) * 300,)):
            with self.subTest(repr(type(value))):
                self.assertIsNone(encode_small(value))

    def test_nothing_is_kept(self):
        """Neither references to what was refused, nor a copy within the user's string."""
        refused, text = object(), "ж" * 100
        counts, size = sys.getrefcount(refused), sys.getsizeof(text)
        encode_small([1, (2, refused)])
        encode_small(text)
        self.assertEqual((sys.getrefcount(refused), sys.getsizeof(text)), (counts, size))

    def test_random_values(self):
        make = Maker(random.Random(SEED))
        with self.subTest(seed=SEED):
            for _ in range(ROUNDS):
                self.check_small(make.outermost())

    def test_truncated(self):
        data = self.check_small([1, 2.5, "abc", "é", b"xyz", None, (True, (False, ()))])
        for cut in range(len(data)):
            self.assertRaises(ValueError, decode_small, data[:cut])
        self.assertRaises(ValueError, decode_small, data + b"\0")

    def test_counts_that_lie(self):
        for value, size in ([], 4), ((), 4), ([(1,)], 4), ("abc", 1), (b"abc", 1):
            data = encode_small(value)
            for count in b"\xff" * size, b"\x7f" * size, bytes([data[1] + 1]) + data[2:1 + size]:
                self.assertRaises(ValueError, decode_small, data[:1] + count + data[1 + size:])

    def test_a_list_within(self):
        inner = encode_small([])
        outer = encode_small(((),))
        self.assertEqual(len(encode_small(())), len(inner))
        self.assertRaises(ValueError, decode_small, outer[:-len(inner)] + inner)

    def test_nested_without_end(self):
        one_item = encode_small((1,))[:5]
        self.assertRaises(ValueError, decode_small, one_item * 100_000)

    def test_spoilt(self):
        """Any bytes give a value, or ValueError."""
        source = random.Random(SEED)
        make = Maker(source)
        with self.subTest(seed=SEED):
            for _ in range(ROUNDS):
                data = bytearray(encode_small(make.outermost()))
                for _ in range(source.choice((1, 1, 5, 50))):
                    data[source.randrange(len(data))] = source.choice(
                        (source.randrange(256), source.randrange(10), 255))
                try:
                    bits(decode_small(bytes(data)))
                except ValueError:
                    pass


class Pools(Case):
    def test_values_there_and_back(self):
        make = Maker(random.Random(SEED))
        values = [make.value() for _ in range(500)]
        wanted = bits(values)
        with self.subTest(seed=SEED):
            for chunksize in None, 1, 100:
                self.assertEqual(bits(self.pool.map(tasks.same, values, chunksize)), wanted)
            self.assertEqual(bits(self.pool.map(tasks.same, tuple(values))), wanted)
            self.assertEqual(bits(list(self.pool.imap(tasks.same, values))), wanted)
            self.assertEqual(bits(self.pool.apply(tasks.same, (values,))), wanted)
            self.assertEqual(self.pool.starmap(operator.add, [(i, 1) for i in range(100)]),
                             list(range(1, 101)))

    def test_some_among_others(self):
        values = [1, "a", {}, (2, []), 2**70, Pair(1, 2), Colour.RED, Text("b"), "\ud800", None] * 20
        for chunksize in None, 1, 7:
            self.assertEqual(bits(self.pool.map(tasks.same, values, chunksize)), bits(values))

    def test_one_object_in_two_places(self):
        """What can be changed is still one object where it was one."""
        same = []
        self.assertIs(self.pool.apply(operator.is_, (same, same)), True)
        for there in (self.pool.apply(tasks.same, ([same, same],)),
                      self.pool.map(tasks.same, [(same, same)])[0],
                      self.pool.map(tasks.same, [1, same, same], 3)[1:]):
            self.assertIs(there[0], there[1])
        loop = []
        loop.append(loop)
        there = self.pool.apply(tasks.same, (loop,))
        self.assertIs(there[0], there)

    def test_a_long_string_many_times(self):
        """Written once, as pickle does it: 1 GB otherwise."""
        there = self.pool.apply(tasks.same, (["x" * 10_000] * 100_000,))
        self.assertEqual(len(there), 100_000)
        self.assertIs(there[0], there[-1])

    @engine_only
    def test_a_programs_own_dumps(self):
        """It sees small values, too."""
        seen, plainly = [], ForkingPickler.dumps

        def dumps(value, protocol=None):
            seen.append(value)
            return plainly(value, protocol)

        with mock.patch.object(ForkingPickler, "dumps", dumps):
            self.assertEqual(self.pool.map(tasks.same, [1, (2, "a")], 1), [1, (2, "a")])
        self.assertEqual(seen[-2:], [1, (2, "a")])  # before them the function

    def test_a_failure_within_items(self):
        with self.assertRaises(TypeError):
            self.pool.map(math.sqrt, [1, 2, "a", 3] * 100)
        self.assertEqual(self.pool.map(math.sqrt, [4, 9]), [2.0, 3.0])


for_each_method(globals(), Pools)

if __name__ == "__main__":
    unittest.main()

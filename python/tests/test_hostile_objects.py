#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Objects of the user's that raise when they are shown, compared or pickled: no such call in our
own code ends a worker, or keeps a caller waiting."""
import functools
import unittest
from multiprocessing.pool import MaybeEncodingError

import allcores
import hostile
import tasks
from support import PATIENCE, Case, engine_only, for_each_method, pids


@engine_only
class Hostile(Case):
    """Each call ends, and its worker goes on."""

    def calls(self, function, argument):
        pool, rows = self.pool, [(argument,)]
        return {
            "apply": lambda: pool.apply_async(function, (argument,)).get(PATIENCE),
            "callback": lambda: pool.apply_async(
                function, (argument,), callback=type, error_callback=type).get(PATIENCE),
            "map": lambda: pool.map(function, [argument])[0],
            "map_async": lambda: pool.map_async(function, [argument], 2).get(PATIENCE)[0],
            "starmap": lambda: pool.starmap_async(function, rows).get(PATIENCE)[0],
            "imap": lambda: pool.imap(function, [argument]).next(PATIENCE),
            "unordered": lambda: next(pool.imap_unordered(function, [argument], 2)),
        }

    def check(self, expected, function, argument=None):
        """Each call raises what is expected; the workers are the same afterwards."""
        before = pids(self.pool)
        for how, call in self.calls(function, argument).items():
            with self.subTest(f"{how} of {function.__name__}, {argument}"):
                with self.assertRaises(expected) as caught:
                    call()
                self.assertNotIsInstance(caught.exception, allcores.WorkerDied)
                if type(caught.exception) is MaybeEncodingError:
                    str(caught.exception), repr(caught.exception)
                self.assertEqual(pids(self.pool), before)
        self.assertEqual(self.pool.map(abs, [-1]), [1])

    def test_results(self):
        for how in hostile.HOWS:
            self.check(MaybeEncodingError, hostile.give, how)

    def test_other_results(self):
        for name in ("Pretender", "NotAText"):
            self.check(MaybeEncodingError, hostile.give_other, name)

    def test_exceptions(self):
        for how in hostile.HOWS:
            self.check(MaybeEncodingError, hostile.raise_, how)

    def test_exceptions_whose_pickling_raises_another(self):
        for how in hostile.HOWS:
            self.check(MaybeEncodingError, hostile.raise_reducing, how)

    def test_classes_without_a_name(self):
        self.check(MaybeEncodingError, hostile.raise_nameless)

    def test_knots(self):
        self.check((MaybeEncodingError, ValueError), hostile.knot)
        self.check((MaybeEncodingError, RecursionError), hostile.deep_knot)

    def test_exceptions_that_cannot_be_shown(self):
        for call in self.calls(hostile.raise_without_text, None).values():
            with self.assertRaises(hostile.PlainErrorWithoutText) as caught:
                call()
            self.assertEqual(caught.exception.args, ("args are there",))
            self.assertIn("raise_without_text", str(caught.exception.__cause__))

    def test_what_tracebacks_show(self):
        for how in hostile.HOWS:
            self.check(ValueError, hostile.raise_with_hostile_cause, how)
            self.check(ValueError, hostile.raise_with_hostile_local, how)
        # Notes are pickled with their exception, as by the standard library.
        self.check(MaybeEncodingError, hostile.raise_with_hostile_notes)

    def test_long_texts_are_cut(self):
        """Nobody reads 50 MB, and they would cross to the owner."""
        with self.assertRaises(MaybeEncodingError) as caught:
            self.pool.apply(hostile.give, ("long",))
        self.assertLess(len(str(caught.exception)), 60_000_000)

    def test_functions(self):
        """A callable object that fails whoever asks it for a name, a truth, a hash."""
        before = pids(self.pool)
        for function, error in ((hostile.Callable_(), None), (hostile.FailingCallable(), ValueError),
                                (functools.partial(hostile.FailingCallable()), ValueError),
                                (functools.partial(hostile.Callable_()), None)):
            for how, call in self.calls(function, 5).items():
                with self.subTest(f"{how} of {type(function).__name__}"):
                    if error:
                        self.assertRaises(error, call)
                    else:
                        self.assertEqual(call(), 5)
        self.assertEqual(pids(self.pool), before)

    def test_values(self):
        """As arguments and as results: nobody compares, counts or shows them."""
        value, before = hostile.HostileValue(), pids(self.pool)
        for how, call in self.calls(tasks.same, value).items():
            with self.subTest(how):
                self.assertIs(type(call()), hostile.HostileValue)
        found = self.pool.starmap(tasks.describe, [(value, value)] * 20, 3)
        self.assertEqual(len(found), 20)
        self.assertEqual(pids(self.pool), before)

    def test_dropped_failures_are_logged_without_harm(self):
        """They are shown in the owner, by the logger."""
        for function in (hostile.raise_, hostile.raise_without_text, hostile.knot):
            with self.assertLogs(allcores.get_logger(), "ERROR"):
                self.pool.apply_async(function, ("AttributeError",)).wait(PATIENCE)
                self.wait_until(lambda: len(self.pool._cache) == 0)
                for _ in range(5):  # each looks for failures that nobody fetched
                    self.pool.apply(abs, (-1,))
        self.assertEqual(self.pool.map(abs, [-1]), [1])

    def test_initializer(self):
        """One that raises what cannot be shown: the pool says that it failed."""
        for function in (hostile.raise_, hostile.raise_nameless, hostile.raise_without_text):
            pool = self.new_pool(1, function, ("AttributeError",))
            with self.assertRaises(allcores.StartError) as caught:
                pool.apply_async(abs, (1,)).get(PATIENCE)
            self.assertTrue(str(caught.exception))


for_each_method(globals(), Hostile)

if __name__ == "__main__":
    unittest.main()

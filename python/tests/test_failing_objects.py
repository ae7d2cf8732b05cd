#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Users' objects whose special methods raise, leave or recurse: the call fails, the worker goes on.

What the called function itself raises is another matter: its SystemExit ends the worker (test_deaths).
"""
import contextlib
import functools
import logging
import multiprocessing.util
import os
import pickle
import unittest

import allcores
import allcores.pool
import failing_objects as failing
import tasks
from allcores import errors
from support import PATIENCE, Case, engine_only, for_each_method

LOGGER = multiprocessing.util.get_logger()
LONG = 10_000  # characters: no message is that long


@engine_only
class InWorkers(Case):
    """One worker, which runs all of it."""

    def setUp(self):
        super().setUp()
        self.one = self.new_pool(1)
        self.pid = self.one.apply(os.getpid)

    def failure(self, function, args=(), kwds={}):
        """The exception of a call."""
        result = self.one.apply_async(function, args, kwds)
        result.wait(PATIENCE)
        try:
            result.get(0)
        except BaseException as error:
            return error
        return None

    def check_worker(self):
        self.assertEqual(self.one.apply_async(os.getpid).get(PATIENCE), self.pid)

    def calls(self, function, argument):
        """Each kind of call of this function, with this argument."""
        pool, rows = self.one, [(argument,)]
        return {
            "apply_async": lambda: pool.apply_async(function, (argument,)).get(PATIENCE),
            "callback": lambda: pool.apply_async(
                function, (argument,), callback=type, error_callback=type).get(PATIENCE),
            "map": lambda: pool.map(function, [argument])[0],
            "map_async": lambda: pool.map_async(function, [argument], 2).get(PATIENCE)[0],
            "starmap_async": lambda: pool.starmap_async(function, rows).get(PATIENCE)[0],
            "imap": lambda: pool.imap(function, [argument]).next(PATIENCE),
            "imap_unordered": lambda: pool.imap_unordered(function, [argument], 2).next(PATIENCE),
        }

    def check_calls(self, expected, function, argument):
        """Each kind of call raises what is expected, and the worker goes on."""
        for how, call in self.calls(function, argument).items():
            with self.subTest(f"{how} of {argument}"), self.assertRaises(expected) as caught:
                call()
            self.assertNotIsInstance(caught.exception, allcores.WorkerDied)
        self.check_worker()

    def check_text(self, error):
        self.assertLess(len(str(error)), LONG)

    def test_values(self):
        for name in failing.VALUES:
            with self.subTest(name):
                error = self.failure(failing.make_value, (name,))
                self.assertIs(type(error), allcores.pool.MaybeEncodingError)
                self.assertIn("Error sending result: ", str(error))
                self.check_text(error)
                self.check_worker()

    def test_texts_say_what_they_can(self):
        number, = (name for name, cls in failing.VALUES.items() if cls is failing.ReprLeaves)
        error = self.failure(failing.make_value, (number,))
        self.assertEqual(error.value, "<ReprLeaves object, whose repr raised SystemExit>")
        self.assertIn("cannot pickle '_thread.lock' object", error.exc)
        number, = (name for name, cls in failing.VALUES.items() if cls is failing.ReprIsLong)
        error = self.failure(failing.make_value, (number,))
        self.assertIn("long long", error.value)
        self.assertTrue(error.value.endswith("... (10000000 characters)"), error.value[-100:])
        number, = (name for name, cls in failing.VALUES.items() if cls is failing.ReprIsHostile)
        self.assertEqual(self.failure(failing.make_value, (number,)).value, "hostile")

    def test_exceptions(self):
        for name in failing.EXCEPTIONS:
            with self.subTest(name):
                error = self.failure(failing.raise_error, (name,))
                self.assertIsInstance(error, Exception)
                self.check_worker()

    def test_each_kind_of_call(self):
        for name in failing.VALUES:
            self.check_calls(allcores.pool.MaybeEncodingError, failing.make_value, name)
        for name in failing.EXCEPTIONS:
            self.check_calls(Exception, failing.raise_error, name)

    def test_what_tracebacks_show(self):
        for name in failing.TEXTLESS:
            self.check_calls(ValueError, failing.raise_from, name)
            self.check_calls(ValueError, failing.raise_beside, name)

    def test_exceptions_that_cannot_be_shown(self):
        for call in self.calls(failing.raise_without_text, None).values():
            with self.assertRaises(failing.PlainErrorWithoutText) as caught:
                call()
            self.assertEqual(caught.exception.args, ("args are there",))
            self.assertIn("raise_without_text", str(caught.exception.__cause__))

    def test_exceptions_that_can_be_sent_are(self):
        """Whatever else is wrong with them."""
        for name in ("ErrorNotesRaise", "knot_of_causes", "missing_attribute"):
            with self.subTest(name):
                error = self.failure(failing.raise_error, (name,))
                kind = type(failing.EXCEPTIONS[name]())
                self.assertIn(type(error), (kind, allcores.pool.MaybeEncodingError))
        error = self.failure(failing.raise_error, ("RecursionError",))
        self.assertIsInstance(error, RecursionError)
        self.assertIn("in recurse", str(error.__cause__))

    def test_arguments(self):
        error = self.failure(tasks.same, (failing.UnpickledLeaves(),))
        self.assertIs(type(error), pickle.UnpicklingError)
        self.assertIn("SystemExit(3)", str(error))
        self.assertIn("in leave", str(error.__cause__))
        self.assertIsInstance(self.failure(tasks.same, (failing.UnpickledRecurses(),)),
                              RecursionError)
        self.check_worker()

    def test_arguments_that_are_iterated_over(self):
        with self.assertRaises(pickle.UnpicklingError):
            self.one.starmap(tasks.same, [failing.IterationLeaves()])
        error = self.failure(tasks.same, (1,), failing.MappingLeaves())
        self.assertIsInstance(error, pickle.UnpicklingError)
        self.check_worker()

    def test_functions(self):
        for name in failing.CALLABLES:
            with self.subTest(name):
                function = failing.make_callable(name)
                self.assertEqual(self.one.apply_async(function, (5,)).get(PATIENCE), 5)
                partial = functools.partial(function)
                self.assertEqual(self.one.apply_async(partial, (5,)).get(PATIENCE), 5)
        self.check_worker()

    def test_functions_that_nobody_may_ask(self):
        """For a name, a truth, a hash."""
        for make in (lambda function: function, functools.partial):
            for call in self.calls(make(failing.HostileCallable()), 5).values():
                self.assertEqual(call(), 5)
            self.check_calls(ValueError, make(failing.FailingHostileCallable()), 5)

    def test_values_that_nobody_may_ask(self):
        """As arguments and as results: nobody compares, counts or shows them."""
        value = failing.HostileValue()
        for how, call in self.calls(tasks.same, value).items():
            with self.subTest(how):
                self.assertIs(type(call()), failing.HostileValue)
        found = self.one.starmap(tasks.describe, [(value, value)] * 20, 3)
        self.assertEqual(len(found), 20)
        self.check_worker()

    def test_function_that_leaves_when_it_is_unpickled(self):
        self.assertIsInstance(self.failure(failing.UnpickledFunction(), (1,)),
                              pickle.UnpicklingError)
        self.check_worker()

    def test_recursion_limit_of_a_task(self):
        """A task that leaves the worker hardly any stack, even for the pickle of an exception."""
        self.one.apply(failing.lower_recursion_limit)
        self.assertIsInstance(self.failure(failing.raise_error, ("knot",)), Exception)
        self.check_worker()

    def test_results_that_leave_when_they_are_unpickled(self):
        """In the owner: in the thread that runs callbacks, which goes on, too."""
        self.assertIsInstance(self.failure(failing.make_unpickled_leaves), SystemExit)
        failures = []
        for _ in range(2):
            self.one.apply_async(failing.make_unpickled_leaves, callback=failures.append,
                                 error_callback=failures.append).wait(PATIENCE)
        self.assertEqual([type(failure) for failure in failures], [SystemExit] * 2)
        self.check_worker()

    def test_the_thread_of_callbacks_goes_on(self):
        failures = []
        for name in failing.EXCEPTIONS:
            self.one.apply_async(failing.raise_error, (name,), error_callback=failures.append)
            self.one.map_async(failing.raise_error, [name], error_callback=failures.append)
        with self.assertLogs(LOGGER, "ERROR") as logs:
            self.one.apply_async(tasks.same, (1,), callback=failing.FailingCallback()).wait(PATIENCE)
        self.assertIn("callback <FailingCallback object, whose repr raised SystemExit> raised",
                      logs.output[0])
        self.assertEqual(self.one.apply_async(tasks.same, (1,), callback=failures.append)
                         .get(PATIENCE), 1)
        self.assertEqual(len(failures), 2 * len(failing.EXCEPTIONS) + 1)
        self.check_worker()

    def test_dropped_failures(self):
        """They are logged, by the owner."""
        for name in ("ErrorReprRaises", "ErrorStrLeaves", "knot"):
            with self.subTest(name), self.assertLogs(LOGGER, "ERROR"):
                self.one.apply_async(failing.raise_error, (name,)).wait(PATIENCE)
                self.wait_until(lambda: len(self.one._cache) == 0)
                for _ in range(5):  # each looks for failures that nobody fetched
                    self.one.apply(tasks.nothing)
        self.check_worker()

    def test_finalizers_that_leave(self):
        self.assertEqual(self.one.apply_async(failing.make_finalized, ()).get(PATIENCE), None)
        self.check_worker()

    def test_streams_that_leave(self):
        """A program's own sys.stdout, in forked workers."""
        if self.method != "fork":
            self.skipTest("other workers have their own")
        with contextlib.redirect_stdout(failing.StreamLeaves()), self.context.Pool(1) as pool:
            self.assertEqual(pool.apply_async(tasks.same, (1,)).get(PATIENCE), 1)

    def test_initializers(self):
        for name in ("ErrorReprLeaves", "ErrorReprRecurses", "ErrorStrLeaves", "ErrorStrIsHostile",
                     "ErrorTextRaisesItsLike", "knot", "ErrorOfHostileMeta", "long_message"):
            with self.subTest(name), self.assertRaises(allcores.StartError) as caught:
                with self.context.Pool(1, failing.raise_error, (name,)) as pool:
                    pool.apply(tasks.nothing)
            self.assertIn("initializer failing_objects.raise_error raised ", str(caught.exception))

    def test_initializer_with_a_failing_name(self):
        for name in failing.CALLABLES:
            with self.subTest(name), self.context.Pool(
                    1, failing.make_callable(name), (1,)) as pool:
                self.assertEqual(pool.apply_async(tasks.same, (1,)).get(PATIENCE), 1)


@engine_only
class InTheOwner(unittest.TestCase):
    def test_unfetched_failures(self):
        """Each is logged, whatever its text does."""
        for name, maker in failing.EXCEPTIONS.items():
            if name == "RecursionError":
                continue
            with self.subTest(name), self.assertLogs(LOGGER, "ERROR") as logs:
                errors.report_unfetched(maker(), failing.CallableNamesLeave())
                self.assertIn("failed, and nobody fetched its exception",
                              logs.records[0].getMessage())

    def test_handlers_that_let_errors_through(self):
        class Plain(logging.Handler):
            def emit(self, record):
                self.format(record)
                texts.append(record.getMessage())

            def format(self, record):
                if record.exc_info:
                    str(record.exc_info[1])

        texts, handler = [], Plain()
        LOGGER.addHandler(handler)
        self.addCleanup(LOGGER.removeHandler, handler)
        errors.report_unfetched(failing.ErrorReprLeaves(), failing.Callable())
        self.assertEqual(texts, ["a call of failing_objects.Callable object failed, and nobody fetched "
                                 "its exception: ErrorReprLeaves: (its text can't be made: "
                                 "SystemExit)"])

    def test_deaths(self):
        for name in failing.CALLABLES:
            with self.subTest(name):
                text = errors.describe(failing.make_callable(name))
                self.assertIn(text.partition("(")[0], str(allcores.WorkerDied(task=text)))
                self.assertLess(len(text), LONG)
        for odd in (failing.ClassRaises(), failing.AllAttributesRaise(), failing.OfHostileMeta()):
            self.assertIn(" object", errors.describe(odd))
            self.assertIn(" object", errors.safe_repr(odd))

    def test_partial_of_itself(self):
        partial = functools.partial(abs)
        partial.__setstate__((partial, (), {}, {}))
        self.assertIn("partial", errors.describe(partial))

    def test_ctrl_c_comes_through(self):
        class Interrupted:
            def __repr__(self):
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            errors.safe_repr(Interrupted())


for_each_method(globals(), InWorkers)

if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Functions and classes whose names mean something else now.

They travel by name. Whoever rebinds one (a notebook's cell that runs again, mock.patch, a tracing
wrapper) gets what the standard library's pool gives: an error for an object that is no longer what
its name means, and the new meaning in a worker that has rebound it.
"""
import contextlib
import functools
import gc
import importlib
import math
import pickle
import sys
import types
import unittest
import weakref
from unittest import mock

import rebindable
from support import PATIENCE, STDLIB, Case, engine_only, for_each_method, run_script


@contextlib.contextmanager
def changed(function, **names):
    """In its block the function has other attributes. mock.patch would delete them afterwards."""
    before = {name: getattr(function, name) for name in names}
    for name, value in names.items():
        setattr(function, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(function, name, value)


def calls(pool):
    """Each way to call function(x) in a worker, by name: a function that returns a list."""
    def apply_async(function, x):
        return [pool.apply_async(function, (x,)).get(PATIENCE)]

    def apply_with_callback(function, x):
        return [pool.apply_async(function, (x,), callback=str).get(PATIENCE)]

    return {
        "apply": lambda function, x: [pool.apply(function, (x,))],
        "apply_async": apply_async,
        "apply_async, callback": apply_with_callback,
        "map": lambda function, x: pool.map(function, [x]),
        "map, chunksize": lambda function, x: pool.map(function, [x], 1),
        "starmap": lambda function, x: pool.starmap(function, [(x,)]),
        "map_async": lambda function, x: pool.map_async(function, [x]).get(PATIENCE),
        "map_async, chunksize": lambda function, x: pool.map_async(function, [x], 2).get(PATIENCE),
        "starmap_async": lambda function, x: pool.starmap_async(function, [(x,)]).get(PATIENCE),
        "imap": lambda function, x: list(pool.imap(function, [x])),
        "imap, chunksize": lambda function, x: list(pool.imap(function, [x], 2)),
        "imap_unordered": lambda function, x: list(pool.imap_unordered(function, [x])),
    }


class InTheOwner(Case):
    """The name is rebound in the program that calls."""

    def check(self, function, holder, name, new):
        """function works while holder.name means it, and never while it means new."""
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                before = call(function, 1)
                with mock.patch.object(holder, name, new):
                    self.assertRaises((pickle.PicklingError, AttributeError), call, function, 1)
                self.assertEqual(call(function, 1), before)

    def test_function(self):
        self.check(rebindable.name_me, rebindable, "name_me", rebindable.other)

    def test_class(self):
        self.check(rebindable.Named, rebindable, "Named", rebindable.Deeper)

    def test_builtin(self):
        self.check(math.floor, math, "floor", rebindable.other)

    def test_nested_names(self):
        """The last of them, and one on the way to it."""
        deep = rebindable.Named.Inner.deep
        self.check(deep, rebindable.Named.Inner, "deep", rebindable.other)
        self.check(deep, rebindable.Named, "Inner", rebindable.Deeper)
        self.check(deep, rebindable, "Named", rebindable.Deeper)

    def test_nested_class(self):
        self.check(rebindable.Named.Inner, rebindable.Named, "Inner", rebindable.Deeper)

    def test_not_a_function_any_more(self):
        self.check(rebindable.name_me, rebindable, "name_me", 5)
        self.check(rebindable.Named.Inner.deep, rebindable, "Named", None)

    def test_wrapper_with_the_name_of_what_it_wraps(self):
        """As tracing libraries make it. The wrapper goes by the name, the original does not."""
        original = rebindable.name_me
        wrapper = functools.wraps(original)(lambda x: ("traced", x))
        self.check(original, rebindable, "name_me", wrapper)
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                with self.assertRaises(pickle.PicklingError):
                    call(wrapper, 1)
                with mock.patch.object(rebindable, "name_me", wrapper):
                    # The worker was started before, and its name means the original.
                    self.assertEqual(call(wrapper, 1), [("first", 1)])

    def test_new_function_runs_by_its_own_name(self):
        for how, call in calls(self.pool).items():
            with self.subTest(how), mock.patch.object(rebindable, "name_me", rebindable.other):
                self.assertEqual(call(rebindable.name_me, 1), [("second", 1)])

    def test_magic_mock_is_refused(self):
        for how, call in calls(self.pool).items():
            with self.subTest(how), mock.patch.object(rebindable, "name_me"):
                with self.assertRaises((pickle.PicklingError, TypeError, AttributeError)):
                    call(rebindable.name_me, 1)
                self.assertEqual(call(rebindable.other, 1), [("second", 1)])

    def test_deleted_name(self):
        function = rebindable.name_me
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertEqual(call(function, 1), [("first", 1)])
                del rebindable.name_me
                try:
                    self.assertRaises((pickle.PicklingError, AttributeError), call, function, 1)
                finally:
                    rebindable.name_me = function
                self.assertEqual(call(function, 1), [("first", 1)])

    def test_changed_names_of_the_function_itself(self):
        """__qualname__ and __module__ are what it is pickled by."""
        function = rebindable.name_me
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertEqual(call(function, 1), [("first", 1)])
                with changed(function, __qualname__="nonsense"):
                    self.assertRaises((pickle.PicklingError, AttributeError), call, function, 1)
                with changed(function, __module__="math"):
                    self.assertRaises((pickle.PicklingError, AttributeError), call, function, 1)
                with changed(function, __qualname__="other"):
                    self.assertRaises((pickle.PicklingError, AttributeError), call, function, 1)
                    with mock.patch.object(rebindable, "other", function):
                        # It goes by the name "other", which means another one in the worker.
                        self.assertEqual(call(function, 1), [("second", 1)])
                self.assertEqual(call(function, 1), [("first", 1)])

    def test_another_module_of_the_name(self):
        function = rebindable.name_me
        module = types.ModuleType("rebindable")
        module.name_me = rebindable.other
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertEqual(call(function, 1), [("first", 1)])
                with mock.patch.dict(sys.modules, rebindable=module):
                    self.assertRaises(pickle.PicklingError, call, function, 1)
                self.assertEqual(call(function, 1), [("first", 1)])

    def test_reloaded_module(self):
        function = rebindable.name_me
        self.assertEqual(self.pool.map(function, [1]), [("first", 1)])
        saved = dict(vars(rebindable))
        try:
            importlib.reload(rebindable)
            for how, call in calls(self.pool).items():
                with self.subTest(how):
                    self.assertRaises(pickle.PicklingError, call, function, 1)
                    self.assertEqual(call(rebindable.name_me, 1), [("first", 1)])
        finally:
            vars(rebindable).update(saved)

    def test_module_that_is_gone(self):
        module = types.ModuleType("ghost")
        exec("def appear(x=None):\n    return x\n", module.__dict__)
        with mock.patch.dict(sys.modules, ghost=module):
            self.assertEqual(pickle.loads(pickle.dumps(module.appear)), module.appear)
            if not STDLIB:  # which hangs on a call that a worker cannot read
                for call in calls(self.pool).values():
                    self.assertRaises(ImportError, call, module.appear, 1)
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertRaises(pickle.PicklingError, call, module.appear, 1)

    def test_inside_of_an_argument(self):
        """And as the function of a partial."""
        function = rebindable.name_me
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertEqual(call(functools.partial(function), 1), [("first", 1)])
                self.assertEqual(call(rebindable.other, function), [("second", function)])
                with mock.patch.object(rebindable, "name_me", rebindable.other):
                    for bad in ((functools.partial(function), 1), (rebindable.other, function)):
                        self.assertRaises(pickle.PicklingError, call, *bad)

    @engine_only  # the standard library pickles in one thread, which would wait for itself
    def test_another_call_while_the_name_is_looked_up(self):
        function = rebindable.LookedUp.looked_up

        def call_another():
            answers.append(self.pool.apply(rebindable.other, (2,)))

        for how, call in calls(self.pool).items():
            answers = []
            with self.subTest(how), mock.patch.object(rebindable.Looked, "looks", [call_another]):
                self.assertEqual(call(function, 1), [("first", 1)])
                self.assertEqual(answers, [("second", 2)])

    @engine_only  # a worker of the standard library's ends when it cannot find a function
    def test_names_with_odd_characters(self):
        for name in ("nul\0name", "\xe4", "\u4e00"):
            with self.subTest(name), changed(rebindable.name_me, __qualname__=name), \
                    mock.patch.object(rebindable, name, rebindable.name_me, create=True):
                # The worker was started before, and has no such name.
                self.assertRaises(AttributeError, self.pool.apply, rebindable.name_me, (1,))

    def test_between_the_items_of_an_imap(self):
        for imap in (self.pool.imap, self.pool.imap_unordered):
            function = rebindable.name_me

            def items():
                yield 0
                yield 1
                rebindable.name_me = rebindable.other
                yield 2
                yield 3
            try:
                found, values, errors = imap(function, items()), [], 0
                while True:
                    try:
                        values.append(next(found))
                    except pickle.PicklingError:
                        errors += 1
                    except StopIteration:
                        break
            finally:
                rebindable.name_me = function
            self.assertEqual((sorted(values), errors), ([("first", 0), ("first", 1)], 2))

    def test_rebound_many_times(self):
        original, wrapped = rebindable.name_me, [rebindable.name_me]
        self.addCleanup(setattr, rebindable, "name_me", original)
        for _ in range(20):
            new = functools.wraps(original)(lambda x, inner=wrapped[-1]: inner(x))
            rebindable.name_me = new
            wrapped.append(new)
            self.assertEqual(self.pool.map(new, [1]), [("first", 1)])
            for old in wrapped[:-1]:
                self.assertRaises(pickle.PicklingError, self.pool.map, old, [1])
        rebindable.name_me = original
        self.assertEqual(self.pool.map(original, [1]), [("first", 1)])

    @engine_only  # the standard library's hangs on a call that a worker cannot read
    def test_nothing_is_kept_alive(self):
        for how, call in calls(self.pool).items():
            for kind, text in (("function", "def gone(x=None):\n    return x\n"),
                               ("class", "class gone:\n    def __init__(self, x): pass\n")):
                with self.subTest(f"{how} of a {kind}"):
                    exec(text, rebindable.__dict__)
                    reference = weakref.ref(rebindable.gone)
                    try:
                        call(rebindable.gone, 1)
                    except AttributeError:  # the workers do not have it
                        pass
                    del rebindable.gone
                    self.wait_until(lambda: (gc.collect(), reference())[1] is None,
                                    "the end of the function")


class InTheWorker(Case):
    """A task rebinds a name: later calls get the new meaning, as each looks it up."""

    def check(self, path, new, expected):
        """After rebind(path, new) in the worker, calls of what path means here give expected."""
        function = rebindable.find(path)
        pool = self.new_pool(1)
        for how, call in calls(pool).items():
            with self.subTest(how):
                before = call(function, 1)
                pool.apply(rebindable.rebind, (path, new))
                if isinstance(expected, type):
                    self.assertRaises(expected, call, function, 1)
                else:
                    self.assertEqual(call(function, 1), [expected])
                pool.apply(rebindable.restore, (path,))
                self.assertEqual(call(function, 1), before)

    def test_function(self):
        self.check("name_me", "other", ("second", 1))

    def test_nested_function(self):
        self.check("Named.Inner.deep", "other", ("second", 1))

    def test_class(self):
        self.check("Named", "Deeper", rebindable.Deeper(1))

    @engine_only
    def test_deleted(self):
        self.check("name_me", None, AttributeError)

    def test_class_on_the_way(self):
        pool = self.new_pool(1)
        deep = rebindable.Named.Inner.deep
        self.assertEqual(pool.map(deep, [1]), [("first", 1)])
        pool.apply(rebindable.rebind, ("Named.Inner", "Deeper"))
        self.assertEqual(pool.map(deep, [1]), [("second", 1)])
        if not STDLIB:
            pool.apply(rebindable.rebind, ("Named", None))
            self.assertRaises(AttributeError, pool.map, deep, [1])

    def test_bound_methods(self):
        for function in (rebindable.Named.Inner().method, rebindable.Named.Inner.of_class):
            pool = self.new_pool(1)
            self.assertEqual(pool.map(function, [1]), [("first", 1)])
            pool.apply(rebindable.rebind, ("Named.Inner", "Deeper"))
            self.assertEqual(pool.map(function, [1]), [("second", 1)])

    def test_builtin(self):
        pool = self.new_pool(1)
        self.assertEqual(pool.map(math.floor, [1.5]), [1])
        pool.apply(rebindable.rebind_builtin)
        self.assertEqual(pool.map(math.floor, [1.5]), [("second", 1.5)])
        self.assertEqual(pool.apply(math.floor, (1.5,)), ("second", 1.5))

    def test_another_module_of_the_name(self):
        pool = self.new_pool(1)
        for call in calls(pool).values():
            self.assertEqual(call(rebindable.name_me, 1), [("first", 1)])
        pool.apply(rebindable.replace_module)
        for how, call in calls(pool).items():
            with self.subTest(how):
                self.assertEqual(call(rebindable.name_me, 1), [("second", 1)])

    def test_reloaded_module(self):
        pool = self.new_pool(1)
        for _ in range(2):
            self.assertEqual(pool.map(rebindable.is_current, [1]), [(True, 1)])
            pool.apply(rebindable.reload_module)
        self.assertEqual(pool.apply(rebindable.is_current, (1,)), (True, 1))

    def test_in_the_middle_of_a_map(self):
        """Of another function."""
        pool = self.new_pool(1)
        pool.starmap(rebindable.rebind, [("name_me", "other"), ("other", "name_me")], 1)
        self.assertEqual(pool.map(rebindable.name_me, [1]), [("second", 1)])


@engine_only
class MemoryOfTheWorker(Case, unittest.TestCase):
    """The worker's cache keeps nothing alive, either."""

    method = "fork"

    def test_rebound_function(self):
        self.assertEqual(run_script(self, """
import gc, weakref
import allcores

def f(x=None):
    return x

def watch():
    global reference
    reference = weakref.ref(f)

def drop():
    global f
    f = abs
    gc.collect()
    return reference() is None

if __name__ == "__main__":
    with allcores.get_context("fork").Pool(1) as pool:
        pool.map(f, [1, 2])
        pool.apply(f, (3,))
        pool.apply(watch)
        print(pool.apply(drop), pool.map(f, [-1]))
"""), (0, "True [1]\n", ""))


class Notebook(Case):
    """A cell that runs again: the main module's function has another body now."""

    def test_function_defined_again(self):
        code, out, err = run_script(self, f"""
import pickle
import allcores

def f(x):
    return "first", x

first = f
if __name__ == "__main__":
    method = {self.method!r}
    with allcores.get_context(method).Pool(1) as pool:
        print(pool.map(first, [1]), pool.apply(first, (1,)), list(pool.imap(first, [1])))

    def f(x):
        return "second", x

    with allcores.get_context(method).Pool(1) as pool:
        for call in (lambda: pool.map(first, [1]), lambda: pool.apply(first, (1,)),
                     lambda: list(pool.imap(first, [1])),
                     lambda: pool.map_async(first, [1]).get()):
            try:
                print(call())
            except pickle.PicklingError as error:
                print("not the same object" in str(error))
        meant = "second" if method == "fork" else "first"
        assert pool.map(f, [1]) == [(meant, 1)]
    pool.join()
""")
        first = "('first', 1)"
        self.assertEqual((code, out, err),
                         (0, f"[{first}] {first} [{first}]\n" + "True\n" * 4, ""))


for_each_method(globals(), InTheOwner, InTheWorker, Notebook)

if __name__ == "__main__":
    unittest.main()

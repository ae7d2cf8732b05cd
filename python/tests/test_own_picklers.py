#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Programs with picklers of their own: context.reducer, a replaced ForkingPickler.dumps or loads,
types that are registered. They are used for calls and for results, from the moment they are set."""
import copyreg
import pickle
import threading
import unittest
from multiprocessing import reduction
from unittest import mock

import tasks
from picklers import Handle, OwnPickler, Registered, install, return_lambda, tag_loads, tagged_dumps
from support import PATIENCE, Case, engine_only, for_each_method, run_script, stop


def calls(pool):
    """Each way to call function(x): a function that returns a list."""
    def apply_async(function, x, **kwds):
        return [pool.apply_async(function, (x,), **kwds).get(PATIENCE)]

    return {
        "apply": lambda function, x: [pool.apply(function, (x,))],
        "apply_async": apply_async,
        "apply_async, callback": lambda function, x: apply_async(function, x, callback=str),
        "map": lambda function, x: pool.map(function, [x]),
        "map, chunksize": lambda function, x: pool.map(function, [x], 1),
        "starmap": lambda function, x: pool.starmap(function, [(x,)]),
        "map_async": lambda function, x: pool.map_async(function, [x]).get(PATIENCE),
        "imap": lambda function, x: list(pool.imap(function, [x])),
        "imap, chunksize": lambda function, x: list(pool.imap(function, [x], 2)),
        "imap_unordered": lambda function, x: list(pool.imap_unordered(function, [x])),
    }


class Dumps(Case):
    """ForkingPickler.dumps = dill.dumps, and the like."""

    def check(self, pool):
        for how, call in calls(pool).items():
            with self.subTest(how):
                self.assertEqual(call(lambda x: x + 1, 1), [2])
                self.assertEqual(call(abs, -1), [1])

    def replaced(self, **names):
        return mock.patch.multiple(reduction.ForkingPickler, **names)

    def test_before_the_pool(self):
        with self.replaced(dumps=OwnPickler.dumps):
            self.check(self.new_pool(1))

    def test_after_the_pool(self):
        """And back again."""
        self.pool.map(abs, [1])
        with self.replaced(dumps=lambda obj, protocol=None: OwnPickler.dumps(obj, protocol)):
            self.check(self.pool)
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertRaises((pickle.PicklingError, AttributeError), call, lambda x: x, 1)
                self.assertEqual(call(abs, -1), [1])

    def test_bytes_of_another_type(self):
        """It may give bytes, a bytearray, or a memoryview."""
        for make in (bytes, bytearray, memoryview):
            with self.replaced(dumps=lambda obj, protocol=None, make=make:
                               make(OwnPickler.dumps(obj, protocol).tobytes())):
                self.check(self.pool)

    def test_each_object_goes_through_it(self):
        """A function that is known by name, too: programs count, trace or refuse."""
        seen = []

        def dumps(obj, protocol=None):
            seen.append(obj)
            return pickle.dumps(obj, protocol)
        with self.replaced(dumps=dumps):
            for how, call in calls(self.pool).items():
                with self.subTest(how):
                    seen.clear()
                    self.assertEqual(call(abs, -1), [1])
                    self.assertTrue(seen)

    @engine_only  # the standard library's thread ends with it
    def test_dumps_that_raises(self):
        def dumps(obj, protocol=None):
            raise tasks.Trouble("no pickles today")
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                with self.replaced(dumps=dumps):
                    self.assertRaises(tasks.Trouble, call, abs, -1)
                self.assertEqual(call(abs, -1), [1])

    def test_inherited_by_forked_workers(self):
        """Results that only the replaced one can pickle."""
        if self.method != "fork":
            self.skipTest("workers do not inherit it")
        with self.replaced(dumps=OwnPickler.dumps):
            pool = self.new_pool(1)
            for how, call in calls(pool).items():
                with self.subTest(how):
                    self.assertEqual(call(return_lambda, 1)[0](2), 3)

    def test_set_in_the_worker(self):
        """By an initializer, as spawn needs it; or by a task."""
        pools = [self.new_pool(1, install), self.new_pool(1)]
        pools[1].apply(install)
        for pool in pools:
            for how, call in calls(pool).items():
                with self.subTest(how):
                    self.assertEqual(call(return_lambda, 1)[0](2), 3)

    def test_with_its_own_loads(self):
        """A format that pickle does not read."""
        if self.method != "fork":
            self.skipTest("workers do not inherit it")
        with self.replaced(dumps=tagged_dumps, loads=tag_loads):
            pool = self.new_pool(1)
            for how, call in calls(pool).items():
                with self.subTest(how):
                    self.assertEqual(call(tasks.same, [1, {"a": 2}]), [[1, {"a": 2}]])
                    self.assertRaises(tasks.Trouble, call, tasks.fail, 1)
            self.assertEqual(pool.map(tasks.square, range(100)), [i * i for i in range(100)])
            stop(pool)  # while it is in place

    def test_many_threads_while_it_changes(self):
        """Each call goes by the one or the other."""
        errors = []

        def ask():
            try:
                for i in range(100):
                    assert self.pool.apply(tasks.same, (i,)) == i
            except BaseException as error:
                errors.append(error)
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with self.replaced(dumps=OwnPickler.dumps):
                self.assertEqual(self.pool.map(lambda x: x, [1]), [1])
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])


class Registrations(Case):
    """ForkingPickler.register and copyreg.pickle."""

    def check(self, pool):
        for how, call in calls(pool).items():
            with self.subTest(how):
                found = call(tasks.same, Registered(5))[0]
                self.assertEqual((type(found), found.x), (Handle, 5))

    def test_forking_pickler(self):
        before = dict(reduction.ForkingPickler._extra_reducers)

        def restore():
            reduction.ForkingPickler._extra_reducers.clear()
            reduction.ForkingPickler._extra_reducers.update(before)
        self.addCleanup(restore)
        self.pool.map(abs, [1])  # after the pool and its first call
        reduction.ForkingPickler.register(Registered, lambda thing: (Handle, (thing.x,)))
        self.check(self.pool)
        self.check(self.new_pool(1))
        restore()
        for how, call in calls(self.pool).items():
            with self.subTest(how):
                self.assertEqual(type(call(tasks.same, Registered(5))[0]), Registered)

    def test_copyreg(self):
        self.pool.map(abs, [1])
        copyreg.pickle(Registered, lambda thing: (Handle, (thing.x,)))
        self.addCleanup(copyreg.dispatch_table.pop, Registered, None)
        self.check(self.pool)
        copyreg.dispatch_table.pop(Registered)
        self.assertEqual(type(self.pool.map(tasks.same, [Registered(5)])[0]), Registered)


@engine_only  # it imports the standard library's pool at once, which has its pickler then
class Reducers(Case):
    """context.reducer, set before the first pool."""

    def test_reducer(self):
        """By each name that it has."""
        if self.method == "forkserver":
            self.skipTest("the standard library's forkserver does not start with such a reducer")
        for setter in ("context = multiprocessing.get_context({method!r})",
                       "context = multiprocessing.get_context()",
                       "context = standard.get_context()"):
            with self.subTest(setter):
                code, out, err = run_script(self, f"""
import multiprocessing as standard
import picklers
import allcores as multiprocessing
{setter.format(method=self.method)}
context.reducer = picklers.OwnReducer()

if __name__ == "__main__":
    with multiprocessing.get_context({self.method!r}).Pool(2) as pool:
        print(pool.map(lambda x: x + 1, range(3)),
              pool.map_async(lambda x: x + 1, range(3)).get({PATIENCE}),
              list(pool.imap(lambda x: x + 1, range(3))),
              pool.apply(lambda x: x + 1, (1,)),
              pool.apply_async(lambda x: x + 1, (1,), callback=abs).get({PATIENCE}),
              pool.apply(picklers.return_lambda, (1,))(2))
""")
                self.assertEqual((code, out), (0, "[1, 2, 3] [1, 2, 3] [1, 2, 3] 2 2 3\n"), err)
                self.assertEqual(err, "")


for_each_method(globals(), Dumps, Registrations, Reducers)

if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What programs reach into in the standard library's pool: its classes, its queue of tasks, its
table of results, methods that they add. All of it passes with the standard library's, too."""
import functools
import itertools
import multiprocessing
import multiprocessing.pool
import pickle
import threading
import unittest
from unittest import mock

import allcores
import allcores.pool
import tasks
from support import PATIENCE, Case, engine_only, for_each_method, run_script, stop

MODULES = (allcores.pool, multiprocessing.pool)


class Instances(Case):
    """isinstance and except, by the names of either module."""

    def check(self, thing, *names):
        for module in MODULES:
            for name in names:
                with self.subTest(f"{type(thing).__name__} as {module.__name__}.{name}"):
                    self.assertIsInstance(thing, getattr(module, name))

    def test_pools(self):
        self.check(self.pool, "Pool")
        self.assertNotIsInstance(self.pool, multiprocessing.pool.ThreadPool)
        for other in (5, "", None, object(), allcores.pool, allcores.pool.Pool):
            for module in MODULES:
                self.assertNotIsInstance(other, module.Pool)
                self.assertNotIsInstance(other, module.AsyncResult)

    def test_pools_of_a_subclass(self):
        class Own(allcores.pool.Pool):
            def __init__(self, *args, **kwds):
                super().__init__(*args, **kwds)
                self.extra = 5

        pool = Own(1, context=self.context)
        self.addCleanup(stop, pool)
        self.check(pool, "Pool")
        self.assertIsInstance(pool, Own)
        self.assertIs(type(pool), Own)
        self.assertNotIsInstance(self.pool, Own)
        self.assertEqual((pool.extra, pool.map(abs, [-1])), (5, [1]))

    def test_thread_pools(self):
        with allcores.pool.ThreadPool(1) as pool:
            self.check(pool, "Pool", "ThreadPool")
            self.check(pool.apply_async(abs, (1,)), "AsyncResult", "ApplyResult")
            self.check(pool.map_async(abs, [1]), "AsyncResult", "ApplyResult", "MapResult")
            self.check(pool.imap(abs, [1]), "IMapIterator")
            self.check(pool.imap_unordered(abs, [1]), "IMapIterator", "IMapUnorderedIterator")
        pool.join()

    def test_pools_of_the_standard_library(self):
        pool = multiprocessing.get_context(self.method).Pool(1)
        self.addCleanup(stop, pool)
        self.check(pool, "Pool")
        self.check(pool.apply_async(abs, (1,)), "AsyncResult", "ApplyResult")

    def test_results(self):
        for result in (self.pool.apply_async(abs, (1,)),
                       self.pool.apply_async(abs, (1,), callback=str)):
            self.check(result, "AsyncResult", "ApplyResult")
            self.assertNotIsInstance(result, multiprocessing.pool.MapResult)
            result.get(PATIENCE)
        for result in (self.pool.map_async(abs, [1]), self.pool.map_async(abs, [1], 1),
                       self.pool.starmap_async(abs, [(1,)]), self.pool.map_async(abs, [])):
            self.check(result, "AsyncResult", "ApplyResult", "MapResult")
            result.get(PATIENCE)
            self.assertNotIsInstance(result, multiprocessing.pool.IMapIterator)

    def test_iterators(self):
        found = self.pool.imap(abs, [1])
        self.check(found, "IMapIterator")
        self.assertNotIsInstance(found, multiprocessing.pool.IMapUnorderedIterator)
        self.assertNotIsInstance(found, multiprocessing.pool.AsyncResult)
        list(found)
        found = self.pool.imap_unordered(abs, [1])
        self.check(found, "IMapIterator", "IMapUnorderedIterator")
        list(found)

    def test_errors(self):
        for name in ("MaybeEncodingError", "RemoteTraceback", "ExceptionWithTraceback",
                     "ThreadPool", "mapstar", "starmapstar", "job_counter"):
            self.assertIs(getattr(allcores.pool, name), getattr(multiprocessing.pool, name))

    def test_unpickled_names(self):
        for name, thing in (("Pool", self.pool), ("AsyncResult", self.pool.apply_async(abs, (1,))),
                            ("ApplyResult", self.pool.apply_async(abs, (1,))),
                            ("MapResult", self.pool.map_async(abs, [1])),
                            ("IMapIterator", self.pool.imap(abs, [1])),
                            ("IMapUnorderedIterator", self.pool.imap_unordered(abs, [1]))):
            for module in ("allcores.pool", "multiprocessing.pool"):
                with self.subTest(f"{module}.{name}"):
                    cls = pickle.loads(f"c{module}\n{name}\n.".encode())
                    self.assertIsInstance(thing, cls)
                    self.assertIs(pickle.loads(pickle.dumps(cls)), cls)
                    self.assertIs(pickle.loads(pickle.dumps(type(thing))), type(thing))

    def test_checked_in_a_worker(self):
        """Of a class that travelled there."""
        for module in MODULES:
            self.assertIs(self.pool.apply(tasks.same, (module.Pool,)), module.Pool)


@engine_only
class Later(Case, unittest.TestCase):
    """multiprocessing.pool is somebody else's to import: it takes its time."""

    method = "fork"

    def test_not_imported_by_us(self):
        self.assertEqual(run_script(self, """
import sys
import allcores, allcores.pool
theirs = "multiprocessing.pool"
if __name__ == "__main__":
    with allcores.get_context("fork").Pool(1) as pool:
        result, found = pool.apply_async(abs, (-1,)), pool.imap(abs, [-1])
        many, chunks = pool.map_async(abs, [1]), pool.imap_unordered(abs, [1], 2)
        assert isinstance(pool, allcores.pool.Pool)
        assert isinstance(result, allcores.pool.AsyncResult)
        assert isinstance(result, allcores.pool.ApplyResult)
        assert not isinstance(result, allcores.pool.Pool)
        assert not isinstance(5, allcores.pool.Pool)
        pool.__class__, result.__class__, found.__class__
        repr(pool), repr(result), hasattr(pool, "shape")
        print(result.get(), list(found), many.get(), list(chunks), theirs in sys.modules)
        import multiprocessing.pool
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert isinstance(result, multiprocessing.pool.AsyncResult)
        assert isinstance(many, multiprocessing.pool.MapResult)
        assert isinstance(found, multiprocessing.pool.IMapIterator)
        assert pool.map(abs, [-1]) == [1]
"""), (0, "1 [1] [1] [1] False\n", ""))

    def test_half_imported(self):
        """Another thread is importing it just now, and its classes are not there yet."""
        with mock.patch.dict("sys.modules", {"multiprocessing.pool": type(unittest)("empty")}):
            self.assertIsInstance(self.pool, allcores.pool.Pool)
            self.assertIsInstance(self.pool.apply_async(abs, (1,)), allcores.pool.AsyncResult)
            self.assertNotIsInstance(self.pool, int)
            self.assertFalse(hasattr(self.pool, "nonsense"))
        self.assertIsInstance(self.pool, multiprocessing.pool.Pool)


class Patched(Case):
    """Methods that programs add to the standard library's Pool, or to ours."""

    def added(self, module, **methods):
        for name, method in methods.items():
            patch = mock.patch.object(module.Pool, name, method, create=True)
            patch.start()
            self.addCleanup(patch.stop)

    def test_methods(self):
        for number, module in enumerate(MODULES):
            self.added(module, **{
                f"twice{number}": lambda pool, x, times=2: times * pool.apply(abs, (x,)),
                f"alone{number}": staticmethod(lambda x: x),
                f"of_class{number}": classmethod(lambda cls, x: (cls.__name__, x)),
                f"size{number}": property(lambda pool: pool._processes),
                f"constant{number}": 5})

            def get(name, number=number):
                return getattr(self.pool, f"{name}{number}")
            self.assertEqual(get("twice")(-3), 6)
            self.assertEqual(get("twice")(-3, times=1), 3)
            self.assertEqual(get("alone")(1), 1)
            self.assertEqual(get("of_class")(1), ("Pool", 1))
            self.assertEqual((get("size"), get("constant")), (2, 5))

    def test_method_of_a_subclass_that_calls_it(self):
        self.added(multiprocessing.pool, added_later=lambda pool, x: pool.apply(abs, (x,)))

        class Own(allcores.pool.Pool):
            def call(self, x):
                return self.added_later(x)

        pool = Own(1, context=self.context)
        self.addCleanup(stop, pool)
        self.assertEqual(pool.call(-1), 1)

    def test_unknown_names(self):
        for name in ("nonsense", "_nonsense", "__nonsense__", "shape", "__len__", "__array__"):
            self.assertFalse(hasattr(self.pool, name), name)
        with self.assertRaisesRegex(AttributeError, "'Pool' object has no attribute 'nonsense'"):
            self.pool.nonsense

    def test_removed_again(self):
        with mock.patch.object(multiprocessing.pool.Pool, "brief", lambda pool: 1, create=True):
            self.assertEqual(self.pool.brief(), 1)
        self.assertFalse(hasattr(self.pool, "brief"))


def istarmap(module):
    """The recipe for a lazy starmap, as it is passed on (for Python 3.8 and later)."""
    def istarmap(self, func, iterable, chunksize=1):
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        batches = module.Pool._get_tasks(func, iterable, chunksize)
        result = module.IMapIterator(self)
        self._taskqueue.put((self._guarded_task_generation(
            result._job, module.starmapstar, batches), result._set_length))
        return (item for chunk in result for item in chunk)
    return istarmap


def raising(error):
    yield 1, 2
    raise error


class TaskQueue(Case):
    """_taskqueue, _cache and the classes of results, as such recipes use them."""

    def test_istarmap(self):
        for module in MODULES:
            call = functools.partial(istarmap(module), self.pool)
            for chunksize in (1, 2, 1000):
                self.assertEqual(list(call(max, [(1, 2), (5, 4)], chunksize)), [2, 5])
                self.assertEqual(list(call(pow, zip(range(50), itertools.repeat(2)), chunksize)),
                                 [i * i for i in range(50)])
                self.assertEqual(list(call(max, [], chunksize)), [])
            self.assertRaises(ValueError, call, max, [], 0)

    def test_istarmap_as_a_method(self):
        for target in MODULES:
            for module in MODULES:
                with mock.patch.object(target.Pool, "istarmap", istarmap(module), create=True):
                    self.assertEqual(list(self.pool.istarmap(max, [(1, 2), (5, 4)])), [2, 5])

    def test_istarmap_that_fails(self):
        for module in MODULES:
            call = functools.partial(istarmap(module), self.pool)
            found = call(tasks.product, [(1, 2), (3,), (5, 6)])
            self.assertEqual(next(found), 2)
            self.assertRaises(TypeError, next, found)
            with self.assertRaises(tasks.Trouble):
                list(call(tasks.product, raising(tasks.Trouble("in the input"))))
            with self.assertRaises((pickle.PicklingError, AttributeError)):
                list(call(lambda a, b: a, [(1, 2)]))
            self.assertEqual(self.pool.apply(abs, (-1,)), 1)

    def test_single_calls(self):
        for module in MODULES:
            told = []
            result = module.ApplyResult(self.pool, told.append, self.fail)
            self.pool._taskqueue.put(([(result._job, 0, tasks.product, (3,), {"b": 4})], None))
            self.assertEqual(result.get(PATIENCE), 12)
            self.assertTrue(result.ready() and result.successful())
            self.assertEqual(told, [12])

    def test_single_call_that_fails(self):
        for module in MODULES:
            told = []
            result = module.ApplyResult(self.pool, self.fail, told.append)
            self.pool._taskqueue.put(([(result._job, None, tasks.fail, (3,), {})], None))
            self.assertRaises(tasks.Trouble, result.get, PATIENCE)
            self.assertEqual([type(error) for error in told], [tasks.Trouble])

    def test_maps(self):
        for module in MODULES:
            for chunksize in (1, 3):
                told = []
                result = module.MapResult(self.pool, chunksize, 10, told.append, self.fail)
                batches = module.Pool._get_tasks(tasks.square, range(10), chunksize)
                self.pool._taskqueue.put((self.pool._guarded_task_generation(
                    result._job, module.mapstar, batches), None))
                self.assertEqual(result.get(PATIENCE), [i * i for i in range(10)])
                self.assertEqual(told, [[i * i for i in range(10)]])

    def test_iterators(self):
        for module in MODULES:
            for kind in (module.IMapIterator, module.IMapUnorderedIterator):
                result = kind(self.pool)
                self.assertIs(iter(result), result)
                self.assertRaises(multiprocessing.TimeoutError, result.next, 0.01)
                self.pool._taskqueue.put((self.pool._guarded_task_generation(
                    result._job, tasks.square, range(50)), result._set_length))
                values = [result.next(PATIENCE) for _ in range(50)]
                self.assertEqual(sorted(values), [i * i for i in range(50)])
                self.assertRaises(StopIteration, result.next, PATIENCE)

    def test_job_numbers(self):
        for module in MODULES:
            numbers = [module.ApplyResult(self.pool, None, None)._job for _ in range(3)]
            self.assertEqual(len(set(numbers)), 3)
            for number in numbers:
                del self.pool._cache[number]
        jobs = [self.pool.apply_async(abs, (1,))._job, self.pool.map_async(abs, [1])._job,
                self.pool.imap(abs, [1])._job, self.pool.imap_unordered(abs, [1])._job]
        self.assertEqual(len(set(jobs) - set(numbers)), 4)

    def test_cache(self):
        """The table of what is under way: results that have ended leave it by themselves."""
        cache = self.pool._cache
        self.wait_until(lambda: len(cache) == 0, "an empty cache")
        for module in MODULES:
            result = module.ApplyResult(self.pool, None, None)
            self.assertIs(cache[result._job], result)
            self.assertIn(result._job, cache)
            self.assertEqual((len(cache), list(cache)), (1, [result._job]))
            self.pool._taskqueue.put(([(result._job, 0, abs, (-1,), {})], None))
            self.assertEqual(result.get(PATIENCE), 1)
            self.wait_until(lambda: len(cache) == 0, "an empty cache")
            self.assertNotIn(result._job, cache)

    def test_own_result(self):
        """_cache[job] = result: _set(index, (success, value)) is called in a thread of the pool."""
        class Own:
            def __init__(self):
                self.told, self.threads = [], set()

            def _set(self, index, outcome):
                self.told.append((index, outcome))
                self.threads.add(threading.get_ident())

        own, job = Own(), 10**9
        self.pool._cache[job] = own
        self.assertIs(self.pool._cache[job], own)
        self.pool._taskqueue.put(([(job, i, abs, (-i,), {}) for i in range(5)], None))
        self.pool._taskqueue.put(([(job, 5, tasks.fail, (1,), {})], None))
        self.wait_until(lambda: len(own.told) == 6, "all results")
        values = sorted(own.told)
        self.assertEqual(values[:5], [(i, (True, i)) for i in range(5)])
        self.assertEqual((values[5][0], values[5][1][0]), (5, False))
        self.assertIsInstance(values[5][1][1], tasks.Trouble)
        self.assertNotIn(threading.get_ident(), own.threads)
        self.assertEqual(len(own.threads), 1)
        del self.pool._cache[job]
        self.assertNotIn(job, self.pool._cache)
        with self.assertRaises(KeyError):
            self.pool._cache[job]
        with self.assertRaises(KeyError):
            del self.pool._cache[job]

    def test_result_that_nobody_waits_for(self):
        """It was deleted, or never entered: what arrives for it is dropped."""
        result = allcores.pool.ApplyResult(self.pool, self.fail, self.fail)
        del self.pool._cache[result._job]
        self.pool._taskqueue.put(([(result._job, 0, tasks.note, (self.notes, 1), {})], None))
        self.pool._taskqueue.put(([(10**8, 0, tasks.note, (self.notes, 2), {})], None))
        self.wait_until(lambda: len(self.read_notes()) == 2, "both calls")
        self.assertEqual(self.pool.map(abs, [-1]), [1])
        self.assertFalse(result.ready())

    def test_close_and_join_wait_for_them(self):
        for module in MODULES:
            pool, go = self.new_pool(1), self.path(module.__name__)
            result = module.ApplyResult(pool, None, None)
            pool._taskqueue.put(([(result._job, 0, tasks.wait_for, (go, 5), {})], None))
            pool.close()
            tasks.touch(go)
            pool.join()
            self.assertEqual(result.get(0), 5)

    def test_helpers(self):
        for module in MODULES:
            batches = module.Pool._get_tasks(abs, range(5), 2)
            self.assertEqual(list(batches), [(abs, (0, 1)), (abs, (2, 3)), (abs, (4,))])
            self.assertEqual(list(self.pool._get_tasks(abs, "abc", 5)), [(abs, tuple("abc"))])
        rows = list(self.pool._guarded_task_generation(7, abs, iter([1, 2])))
        self.assertEqual(rows, [(7, 0, abs, (1,), {}), (7, 1, abs, (2,), {})])


@engine_only
class TaskQueueDeaths(Case):
    """What came through the queue fails as other calls do."""

    def test_died_worker(self):
        for module in MODULES:
            pool = self.new_pool(1)
            result = module.ApplyResult(pool, None, None)
            pool._taskqueue.put(([(result._job, 0, tasks.die, ("kill",), {})], None))
            self.assertRaises(allcores.WorkerDied, result.get, PATIENCE)
            self.assertEqual(pool.apply(abs, (-1,)), 1)

    def test_terminate(self):
        for module in MODULES:
            pool = self.new_pool(1)
            result = module.ApplyResult(pool, None, None)
            pool._taskqueue.put(([(result._job, 0, tasks.wait_for, (self.path("go"),), {})], None))
            pool.terminate()
            pool.join()
            self.assertRaises(allcores.TaskCancelled, result.get, PATIENCE)

    def join_within_patience(self, pool):
        pool.close()
        joined = threading.Thread(target=pool.join, daemon=True)
        joined.start()
        joined.join(PATIENCE)
        self.assertFalse(joined.is_alive())

    def test_no_thread_can_be_started(self):
        pool = self.new_pool(1)
        pool.apply_async(abs, (-1,), callback=str).get(PATIENCE)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no thread")):
            self.assertRaises(RuntimeError, pool._taskqueue.put, ([], None))
        self.join_within_patience(pool)

    def test_the_thread_of_callbacks_fails_while_tasks_are_read(self):
        pool, go = self.new_pool(1), threading.Event()
        self.addCleanup(go.set)
        pool._taskqueue.put((iter(lambda: go.wait(PATIENCE), True), None))
        driver = pool._callbacks._driver
        driver.step = mock.Mock(side_effect=MemoryError)
        driver.stream.wake()
        self.wait_until(lambda: pool._callbacks._driver is None, "the end of it")
        go.set()
        self.join_within_patience(pool)


for_each_method(globals(), Instances, Patched, TaskQueue, TaskQueueDeaths)

if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Results that hold a socket or a descriptor, fetched when their worker has left: what the owner
needs of it is taken as soon as the result has arrived."""
import time
import unittest

import allcores
import openers
import tasks
from support import PATIENCE, Case, engine_only, for_each_method, pids


class Descriptors(Case):
    """Of a pool that was closed and joined before anybody asked."""

    def closed(self, **kwds):
        """A pool for calls; it is closed and joined by end()."""
        return self.new_pool(2, **kwds)

    def end(self, pool):
        pool.close()
        pool.join()

    def test_at_once(self):
        for function in openers.OPENERS:
            self.assertEqual(openers.read(self.pool.apply(function, ("text",))), "text")
            self.assertEqual([openers.read(x) for x in self.pool.map(function, "abc")], list("abc"))
            self.assertEqual([openers.read(x) for x in self.pool.imap(function, "abc")],
                             list("abc"))

    def check_after_join(self, **kwds):
        for function in openers.OPENERS:
            with self.subTest(function.__name__):
                pool, told = self.new_pool(2, **kwds), []
                calls = [pool.apply_async(function, (str(i),)) for i in range(6)]
                calls += [pool.apply_async(function, (str(i),), callback=told.append)
                          for i in range(6)]
                maps = [pool.map_async(function, "abc"), pool.map_async(function, "abc", 1),
                        pool.map_async(function, "abc", 2)]
                self.end(pool)
                self.assertEqual([openers.read(call.get(0)) for call in calls],
                                 [str(i) for i in range(6)] * 2)
                self.assertEqual(len(told), 6)
                for result in maps:
                    self.assertEqual([openers.read(x) for x in result.get(0)], list("abc"))

    def test_after_join(self):
        self.check_after_join()

    @engine_only  # the standard library's workers leave without waiting
    def test_after_join_of_recycled_workers(self):
        self.check_after_join(maxtasksperchild=1)

    @engine_only
    def test_iterators_after_join(self):
        for kwds in ({}, {"maxtasksperchild": 1}):
            for function in openers.OPENERS:
                pool = self.new_pool(2, **kwds)
                iterators = [pool.imap(function, "abc"), pool.imap(function, "abc", 2),
                             pool.imap_unordered(function, iter("abc"))]
                self.end(pool)
                for found in iterators:
                    self.assertEqual(sorted(openers.read(x) for x in found), list("abc"))

    @engine_only
    def test_recycled_worker_without_join(self):
        """It leaves after its call, long before anybody asks."""
        pool = self.new_pool(1, maxtasksperchild=1)
        before = pids(pool)
        results = [pool.apply_async(openers.open_socket, (text,)) for text in "abc"]
        self.assertEqual(pool.apply(tasks.nothing), None)
        self.wait_until(lambda: pids(pool) and not set(pids(pool)) & set(before))
        self.assertEqual([openers.read(r.get(PATIENCE)) for r in results], list("abc"))

    def test_several_in_one_result(self):
        pool = self.new_pool(1)
        result = pool.apply_async(openers.open_several, ("text",))
        self.end(pool)
        first, second, third = result.get(0)
        self.assertEqual([openers.read(x) for x in (first, second["pipe"], third)], ["text"] * 3)

    @engine_only
    def test_in_an_exception(self):
        for kwds in ({}, {"maxtasksperchild": 1}):
            pool = self.new_pool(1, **kwds)
            result = pool.apply_async(openers.raise_with_socket, ("text",))
            self.end(pool)
            with self.assertRaises(openers.OpenError) as caught:
                result.get(0)
            self.assertEqual(openers.read(caught.exception.opened), "text")

    @engine_only
    def test_after_the_end_of_the_context_manager(self):
        """terminate: a value or an error, never a wait."""
        with self.context.Pool(1) as pool:
            result = pool.apply_async(openers.open_socket, ("text",))
            self.wait_until(lambda: len(pool._cache) == 0, "the call's end")
        pool.join()
        try:
            self.assertEqual(openers.read(result.get(PATIENCE)), "text")
        except allcores.TimeoutError:
            raise
        except Exception as error:
            self.assertTrue(str(error))

    @engine_only
    def test_worker_that_is_killed(self):
        """The socket, or an error that has the cause."""
        pool = self.new_pool(1)
        for _ in range(3):
            result = pool.apply_async(openers.open_and_die, ("text",))
            result.wait(PATIENCE)
            time.sleep(0.3)
            try:
                self.assertEqual(openers.read(result.get(PATIENCE)), "text")
            except allcores.TimeoutError:
                raise
            except Exception as error:
                self.assertNotIsInstance(error, FileNotFoundError)
                self.assertTrue(str(error))
        self.assertEqual(pool.apply(abs, (-1,)), 1)

    @engine_only
    def test_result_that_is_dropped(self):
        """A leaving worker waits for nobody."""
        pool = self.new_pool(1, maxtasksperchild=1)
        for _ in range(3):
            pool.apply_async(openers.open_socket, ("text",))
        self.assertEqual(pool.apply_async(abs, (-1,)).get(PATIENCE), 1)
        self.end(pool)

    @engine_only
    def test_pool_is_not_slowed_down_by_others(self):
        """Workers whose results hold no descriptor wait for nothing when they leave."""
        pool = self.new_pool(1, maxtasksperchild=1)
        self.assertEqual(pool.map(tasks.square, range(30), 1), [i * i for i in range(30)])
        result = pool.apply_async(openers.open_socket, ("text",))
        self.assertEqual(pool.map(tasks.square, range(30), 1), [i * i for i in range(30)])
        self.assertEqual(openers.read(result.get(PATIENCE)), "text")


for_each_method(globals(), Descriptors)

if __name__ == "__main__":
    unittest.main()

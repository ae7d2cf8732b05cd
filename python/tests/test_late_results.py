#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Results that hold a socket or a descriptor, fetched when their worker has left: what the owner
needs of it is taken as soon as the result has arrived."""
import gc
import multiprocessing
import os
import resource
import signal
import socket
import tempfile
import time
import unittest
import unittest.mock

import allcores
import lifecycle
import openers
import tasks
from support import PATIENCE, STDLIB, Case, engine_only, for_each_method, pids, run_script, stop

if not STDLIB:
    from allcores import _descriptors, _sent_descriptors


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

    @engine_only
    def test_workers_killed_before_anybody_asks(self):
        """What was sent is not lost with them."""
        pool = self.new_pool(2)
        results = [pool.apply_async(openers.open_several, ("text",)) for _ in range(10)]
        self.wait_until(lambda: len(pool._cache) == 0, "the calls' end")
        before = pids(pool)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        self.wait_gone(before)
        for result in results:
            first, second, third = result.get(PATIENCE)
            self.assertEqual([openers.read(x) for x in (first, second["pipe"], third)],
                             ["text"] * 3)

    @engine_only
    def test_pool_that_is_gone(self):
        pool = self.context.Pool(1)
        result = pool.apply_async(openers.open_socket, ("text",))
        self.end(pool)
        del pool
        gc.collect()
        self.assertEqual(openers.read(result.get(0)), "text")

    def test_many_in_one_result(self):
        for count in (100, 253, 254, 300):
            found = self.pool.apply(openers.open_many, (count,))
            self.assertEqual([openers.read(x) for x in found], list(map(str, range(count))))

    @engine_only
    def test_hundred_after_join(self):
        pool = self.new_pool(1)
        result = pool.apply_async(openers.open_many, (100,))
        self.end(pool)
        self.assertEqual([openers.read(x) for x in result.get(0)], list(map(str, range(100))))

    def test_the_same_twice(self):
        first, again, copy, number = self.pool.apply(openers.open_twice, ("text",))
        self.assertIs(first, again)
        self.assertEqual(openers.read(first), "text")
        self.assertEqual((openers.read(copy), openers.read(number)), ("", ""))

    @engine_only
    def test_closed_once_it_was_pickled(self):
        for function in (openers.Closing, openers.raise_closing):
            pool = self.new_pool(1)
            result = pool.apply_async(function, ("text",))
            self.end(pool)
            try:
                found = result.get(0)
            except openers.OpenError as error:
                found = error.opened
            self.assertEqual(openers.read(found), "text")

    @engine_only
    def test_worker_that_forks(self):
        """The child returns from the function: it sends nothing."""
        pool = self.new_pool(1)
        for _ in range(3):
            self.assertEqual(openers.read(pool.apply(openers.open_and_fork, ("text",))), "text")
        self.assertTrue(pool._workers.channel.is_empty())

    def test_what_a_task_sends_by_itself(self):
        ours, theirs = multiprocessing.Pipe()
        with ours:
            with theirs:
                result = self.pool.apply_async(openers.send_one_by_itself, (theirs,))
                self.assertTrue(ours.poll(PATIENCE))
                self.assertEqual(openers.read(ours.recv()), "sent by the task")
                self.assertEqual(openers.read(result.get(PATIENCE)), "the result")

    @engine_only
    def test_process_class_with_a_start_of_its_own(self):
        if self.method != "fork":
            self.skipTest("it forks")
        with unittest.mock.patch.dict(os.environ, NOTES=self.notes):
            pool = allcores.pool.Pool(1, context=lifecycle.OwnStartContext())
            self.addCleanup(stop, pool)
            result = pool.apply_async(openers.open_socket, ("text",))
            self.end(pool)
        self.assertEqual(openers.read(result.get(0)), "text")

    @engine_only
    def test_owner_without_standard_descriptors(self):
        """None of those that it receives takes their numbers."""
        code, _, err = run_script(self, f"""
import os, sys
import allcores, openers
if __name__ == "__main__":
    for number in range(3):
        os.close(number)
    pool = allcores.get_context({self.method!r}).Pool(1)
    first, second = [pool.apply_async(openers.open_many, (3,)) for _ in range(2)]
    pool.close()
    pool.join()
    found = second.get(0) + first.get(0)
    assert all(each.fileno() > 2 for each in found), found
    assert [openers.read(each) for each in found] == ["0", "1", "2"] * 2
    os._exit(7)
""")
        self.assertEqual((code, err), (7, ""))

    @engine_only
    def test_pool_in_another_process(self):
        ours, theirs = multiprocessing.Pipe()
        with ours:
            process = self.context.Process(target=openers.run_fetch, args=(self.method, theirs))
            process.start()
            theirs.close()
            self.assertTrue(ours.poll(PATIENCE))
            self.assertEqual(ours.recv(), "inner")
            process.join()

    @engine_only
    def test_pool_in_a_worker(self):
        if self.method != "fork":
            self.skipTest("daemons have no children")
        text, opened = self.pool.apply(openers.fetch_from_inner_pool, (self.method,))
        self.assertEqual((text, openers.read(opened)), ("inner", "outer"))

    @engine_only
    def test_forked_child(self):
        """It takes nothing from its parent."""
        pool = self.new_pool(1)
        result = pool.apply_async(openers.open_socket, ("text",))
        self.wait_until(lambda: len(pool._cache) == 0, "the call's end")
        if (pid := os.fork()) == 0:
            try:
                result.get(PATIENCE)
            except RuntimeError:
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(openers.read(result.get(PATIENCE)), "text")


@engine_only
class Unsent(Case):
    """Descriptors that cannot be sent: the standard library's way."""

    def test_full_socket(self):
        """More results wait than the socket takes."""
        count = 600
        patch = unittest.mock.patch("socket.SO_SNDBUF", socket.SO_RCVBUF)  # as small as it was
        with patch:
            pool = self.new_pool(2)
        results = [pool.apply_async(openers.open_socket, (str(i),)) for i in range(count)]
        self.wait_until(lambda: len(pool._cache) == 0, "the calls' end")
        for i in reversed(range(count)):
            self.assertEqual(openers.read(results[i].get(PATIENCE)), str(i))

    def no_channel(self):
        """For pools that are opened from now on."""
        ends = _descriptors.SocketEnd(), _descriptors.SocketEnd()
        patch = unittest.mock.patch("allcores._descriptors._make_pair", lambda: ends)
        patch.start()
        self.addCleanup(patch.stop)

    def test_without_a_socket(self):
        self.no_channel()
        pool = self.new_pool(1)
        for function in openers.OPENERS:
            self.assertEqual(openers.read(pool.apply(function, ("text",))), "text")
        with self.assertRaises(openers.OpenError) as caught:
            pool.apply(openers.raise_with_socket, ("text",))
        self.assertEqual(openers.read(caught.exception.opened), "text")

    def test_leaving_worker_waits_for_the_owner(self):
        self.no_channel()
        pool = self.new_pool(1, maxtasksperchild=1)
        for _ in range(3):
            result = pool.apply_async(openers.open_socket, ("text",))
            self.assertEqual(openers.read(result.get(PATIENCE)), "text")

    def test_but_not_for_ever(self):
        self.no_channel()
        pool = self.new_pool(1)
        result = pool.apply_async(openers.open_socket, ("text",))
        pool.close()
        pool.join()
        with self.assertRaisesRegex(allcores.ProcessError, "worker has ended") as caught:
            result.get(0)
        self.assertIsInstance(caught.exception.__cause__, FileNotFoundError)

    def test_killed_worker(self):
        self.no_channel()
        pool = self.new_pool(1)
        result = pool.apply_async(openers.open_socket, ("text",))
        self.wait_until(lambda: len(pool._cache) == 0, "the call's end")
        before = pids(pool)
        os.kill(before[0], signal.SIGKILL)
        self.wait_gone(before)
        with self.assertRaisesRegex(allcores.ProcessError, "worker has ended"):
            result.get(PATIENCE)


@engine_only
class Leaks(Case):
    """Owner and workers have as many descriptors as before."""

    def check(self, use, pool, worker=True):
        def counts():
            gc.collect()
            return (openers.count_descriptors(),
                    pool.apply(openers.count_descriptors) if worker else 0)

        def is_as_before():
            # The owner opens four once: for the pool's thread, and for the template's reserve.
            return all(now - then < 5 for now, then in zip(counts(), before))
        use()  # what is opened once
        before = counts()
        for _ in range(5):
            use()
        self.wait_until(is_as_before, f"{counts()} back at {before}", 5)

    def test_fetched(self):
        def use():
            for function in (openers.open_socket, openers.open_pipe):
                openers.read(self.new.apply(function, ("text",)))
                for found in self.new.imap(function, "abc"):
                    openers.read(found)
        self.new = self.new_pool(1)
        self.check(use, self.new)

    def test_dropped(self):
        def use():
            for _ in range(100):
                pool.apply_async(openers.open_socket, ("text",))
            pool.apply(abs, (1,))
        pool = self.new_pool(1)
        self.check(use, pool)
        # Each call looks at two that were dropped.
        self.wait_until(lambda: pool.apply(abs, (1,)) and pool._workers.channel.is_empty(),
                        "that nothing is left in the socket")

    def test_dropped_iterators(self):
        def use():
            for method in pool.imap, pool.imap_unordered:
                iterator = method(openers.open_socket, "abcdefgh")
                openers.read(next(iterator))
                del iterator
                self.wait_until(lambda: pool._core.stat()["running"] == 0, "the calls' end")
        pool = self.new_pool(1)
        self.check(use, pool)

    def test_not_pickled(self):
        def use():
            for function in (openers.open_in_vain, openers.raise_in_vain):
                with self.assertRaises(allcores.pool.MaybeEncodingError):
                    pool.apply(function, ("text",))
        pool = self.new_pool(1)
        self.check(use, pool)
        self.assertTrue(pool._workers.channel.is_empty())

    def test_pools(self):
        def use():
            pool = self.context.Pool(2)
            results = [pool.apply_async(openers.open_socket, ("text",)) for _ in range(4)]
            pool.close()
            pool.join()
            for result in results:
                openers.read(result.get(0))
        self.check(use, None, worker=False)

    def test_pools_whose_results_are_dropped(self):
        def use():
            for end in ("close", "terminate"):
                pool = self.context.Pool(2)
                results = [pool.apply_async(openers.open_socket, ("text",)) for _ in range(4)]
                self.wait_until(lambda: len(pool._cache) == 0, "the calls' end")
                getattr(pool, end)()
                pool.join()
                del pool, results
        self.check(use, None, worker=False)

    def test_owner_that_may_have_no_more(self):
        """The result is an error; the others are not lost."""
        pool = self.new_pool(1)
        results = [pool.apply_async(openers.open_many, (20,)) for _ in range(3)]
        self.wait_until(lambda: len(pool._cache) == 0, "the calls' end")
        first = results[0].get(PATIENCE)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, limits[1]))
        taken = []
        try:
            with self.assertRaises(OSError):
                while True:
                    taken.append(os.dup(0))
            for _ in range(10):
                os.close(taken.pop())
            with self.assertRaisesRegex(OSError, "ulimit -n"):
                results[1].get(PATIENCE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for number in taken:
                os.close(number)
        for found in (first, results[2].get(PATIENCE)):
            self.assertEqual([openers.read(x) for x in found], list(map(str, range(20))))


@engine_only
class Channels(unittest.TestCase):
    def test_closed_as_soon_as_nobody_needs_it(self):
        pool = allcores.get_context("fork").Pool(1)
        channel = pool._workers.channel
        results = [pool.apply_async(openers.open_socket, ("text",)) for _ in range(2)]
        self.assertEqual(openers.read(results[1].get(PATIENCE)), "text")
        stop(pool)
        self.assertGreater(channel.receiver.fd, 2)  # there may be a result
        pool = allcores.get_context("fork").Pool(1)
        self.assertEqual(openers.read(pool.apply(openers.open_socket, ("text",))), "text")
        stop(pool)
        self.assertEqual((pool._workers.channel.receiver.fd, pool._workers.channel.sender.fd),
                         (-1, -1))

    def test_what_nobody_has_asked_for(self):
        """It is closed even if a process that was forked has the socket."""
        channel = _descriptors.DescriptorChannel()
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        outgoing = _sent_descriptors.Outgoing(channel.sender)
        outgoing.fds.append(writer)
        self.assertTrue(outgoing.send())
        del outgoing
        with channel.receiver.open(), open(reader, "rb") as pipe:
            self.assertFalse(channel.is_empty())
            self.assertIsNone(pipe.read())  # somebody may write
            channel.close()
            self.assertEqual(pipe.read(), b"")

    def test_another_file_under_the_number(self):
        channel = _descriptors.DescriptorChannel()
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), channel.sender.fd)
            number = channel.sender.fd
            with self.assertRaises(OSError):
                channel.sender.open()
            channel.close()
            self.assertTrue(os.path.sameopenfile(number, file.fileno()))
            os.close(number)


for_each_method(globals(), Descriptors, Unsent, Leaks)

if __name__ == "__main__":
    unittest.main()

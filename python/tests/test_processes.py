#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The Process objects of a pool's workers mean what they mean in multiprocessing, whoever has
forked the process, and they go on meaning it when the worker has ended."""
import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.process
import os
import re
import signal
import time
import unittest
from unittest import mock

import allcores
import allcores.pool
import lifecycle
import tasks
from allcores import _core, _worker_processes
from support import PATIENCE, Case, alive, engine_only, for_each_method, pids, run_script, stop

# What a worker that was idle may have as its exit code when its pool was terminated.
ENDED = {0, -signal.SIGTERM, -signal.SIGKILL}


class Living(Case):
    """A worker that lives, in the class's pool."""

    def test_pids(self):
        """Those of living processes, of workers that nobody has needed yet, too."""
        pool = self.new_pool(5)
        numbers = pids(pool)
        self.assertEqual(len(set(numbers)), 5)
        self.assertTrue(all(map(alive, numbers)))
        self.assertEqual([worker.ident for worker in pool._pool], numbers)
        met = pool.map_async(functools.partial(tasks.meet, self.folder), [5] * 5, 1)
        self.assertEqual(sorted(met.get(PATIENCE)), sorted(numbers))
        self.assertEqual(pids(pool), numbers)

    def test_state(self):
        for worker in self.pool._pool:
            self.assertTrue(worker.is_alive())
            self.assertIsNone(worker.exitcode)
            self.assertTrue(worker.daemon)
            self.assertIsNone(worker.join(0.01))
            self.assertTrue(worker.is_alive())

    def test_sentinel(self):
        sentinels = [worker.sentinel for worker in self.pool._pool]
        self.assertEqual(len(set(sentinels)), 2)
        self.assertEqual(multiprocessing.connection.wait(sentinels, 0.01), [])

    def test_repr(self):
        for worker in self.pool._pool:
            text = repr(worker)
            for part in (worker.name, f"pid={worker.pid}", f"parent={os.getpid()}", "started",
                         "daemon"):
                self.assertIn(part, text)

    def test_cannot_be_started_or_closed(self):
        for worker in self.pool._pool:
            self.assertRaises((AssertionError, ValueError), worker.start)
            self.assertRaises(ValueError, worker.close)
        self.assertEqual(self.pool.map(tasks.same, [1, 2]), [1, 2])

    def test_numbers_are_drawn_in_order(self):
        """Programs use the number as that of a device: none is given to two processes."""
        first = multiprocessing.Process()._identity
        pool = self.new_pool(3, maxtasksperchild=1)
        numbers = [worker._identity for worker in pool._pool]
        for _ in range(5):
            numbers.append(pool.apply_async(tasks.whoami).get(PATIENCE)[1])
        pool.close()
        pool.join()
        last = multiprocessing.Process()._identity
        self.assertTrue(all(first < number < last for number in numbers), numbers)
        self.assertEqual(len(set(numbers[:3])), 3)
        self.assertEqual(len(set(numbers[3:])), 5)

    def test_worker_and_owner_agree(self):
        """On name, number and pid; of replacements, too."""
        pool = self.new_pool(1, maxtasksperchild=2)
        seen = set()
        for _ in range(3):
            worker, = pool._pool
            name, identity, daemon, pid = pool.apply(tasks.whoami)
            self.assertEqual((name, identity, daemon, pid),
                             (worker.name, worker._identity, True, worker.pid))
            seen.add(identity)
            pool.apply(tasks.nothing)
            self.wait_until(lambda: pids(pool) != [pid], "a replacement")
        self.assertEqual(len(seen), 3)

    def test_worker_knows_its_parent(self):
        name = multiprocessing.current_process().name
        self.assertEqual(self.pool.apply(lifecycle.parents_identity), (name, os.getpid(), True))

    def test_active_children(self):
        """Lists the workers and forgets them."""
        pool = self.new_pool(2)
        workers = set(pool._pool)
        self.assertLessEqual(workers, set(multiprocessing.active_children()))
        pool.close()
        pool.join()
        self.assertFalse(workers & set(multiprocessing.active_children()))
        self.assertFalse(workers & set(multiprocessing.process._children))

    def test_active_children_of_replacements(self):
        pool = self.new_pool(1, maxtasksperchild=1)
        for _ in range(10):
            pool.apply(tasks.nothing)
        self.wait_until(lambda: sum(process.name.count("PoolWorker") for process in
                                    multiprocessing.active_children())
                        <= 1 + (2 if type(self)._pool else 0), "an end of those that were replaced")


@engine_only
class Ended(Case):
    """A worker that has ended, in each way, and the Process object that the program has kept."""

    def check(self, worker, pid, *codes):
        """It says how its process ended, as often as it is asked."""
        worker.join(PATIENCE)
        self.assertIn(worker.exitcode, codes)
        self.assertFalse(worker.is_alive())
        self.assertEqual(worker.pid, pid)
        self.assertEqual(multiprocessing.connection.wait([worker.sentinel], 1), [worker.sentinel])
        self.assertFalse(alive(pid))
        self.assertIn("stopped", repr(worker))
        worker.join()
        worker.terminate()  # nobody gets these signals
        worker.kill()
        self.assertIn(worker.exitcode, codes)

    def close(self, worker):
        """Of a worker that the pool has replaced, or does not need any more."""
        worker.close()
        self.assertRaises(ValueError, worker.is_alive)
        self.assertIn("closed", repr(worker))

    def check_pool(self, pool):
        self.assertEqual(pool.map_async(tasks.square, range(20), 1).get(PATIENCE),
                         [i * i for i in range(20)])
        self.wait_until(lambda: all(map(alive, pids(pool))) and len(pool._pool) == 2,
                        "living workers")

    def test_after_close(self):
        pool = self.new_pool(2)
        pool.map(tasks.same, [1, 2])
        workers = [(worker, worker.pid) for worker in pool._pool]
        pool.close()
        pool.join()
        for worker, pid in workers:
            self.check(worker, pid, 0)
            self.close(worker)

    def test_after_terminate(self):
        pool = self.new_pool(2)
        pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
        self.wait_until(self.read_notes)
        busy = int(self.read_notes()[0].split()[0])
        workers = [(worker, worker.pid) for worker in pool._pool]
        pool.terminate()
        pool.join()
        for worker, pid in workers:
            self.check(worker, pid, *(ENDED - {0} if pid == busy else ENDED))
            self.close(worker)

    def test_by_itself(self):
        """Whatever code or signal it ends with is told exactly."""
        pool = self.new_pool(2)
        for how, expected in tasks.DEATHS.items():
            with self.subTest(how):
                self.wait_until(lambda: not any(worker.exitcode for worker in pool._pool),
                                "a replacement")
                before = {worker.pid: worker for worker in pool._pool}
                with self.assertRaises(allcores.WorkerDied) as caught:
                    pool.apply(tasks.die, (how,))
                pid = caught.exception.pid
                self.check(before[pid], pid, expected[0] if expected else 1)
        self.check_pool(pool)

    def test_recycled(self):
        pool = self.new_pool(1, maxtasksperchild=1)
        worker, = pool._pool
        pid = worker.pid
        self.assertEqual(pool.apply(tasks.pid), pid)
        self.check(worker, pid, 0)

    def end_idle(self, end, code):
        """One worker's end by its own methods; the pool goes on with another one."""
        pool = self.new_pool(2)
        self.check_pool(pool)
        worker = pool._pool[0]
        pid = worker.pid
        end(worker)
        self.check(worker, pid, code)
        self.wait_until(lambda: worker not in pool._pool, "a replacement")
        self.close(worker)
        self.check_pool(pool)
        pool.close()
        pool.join()

    def test_by_terminate(self):
        self.end_idle(lambda worker: worker.terminate(), -signal.SIGTERM)

    def test_by_kill(self):
        self.end_idle(lambda worker: worker.kill(), -signal.SIGKILL)

    def test_by_a_signal_from_outside(self):
        self.end_idle(lambda worker: os.kill(worker.pid, signal.SIGUSR1), -signal.SIGUSR1)

    def test_join_waits_for_the_end(self):
        pool = self.new_pool(2)
        result = pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
        self.wait_until(self.read_notes)
        busy = int(self.read_notes()[0].split()[0])
        worker = next(worker for worker in pool._pool if worker.pid == busy)
        worker.kill()
        worker.join(PATIENCE)
        self.assertEqual(worker.exitcode, -signal.SIGKILL)
        self.assertRaises(allcores.WorkerDied, result.get, PATIENCE)

    def test_sentinel_wakes_who_waits(self):
        pool = self.new_pool(2)
        self.check_pool(pool)
        sentinels = {worker.sentinel: worker for worker in pool._pool}
        os.kill(pids(pool)[0], signal.SIGKILL)
        ready, = multiprocessing.connection.wait(sentinels, PATIENCE)
        sentinels[ready].join(PATIENCE)  # it may be about to end
        self.assertEqual(sentinels[ready].exitcode, -signal.SIGKILL)

    def test_recycled_while_the_pool_closes(self):
        """The end of a worker that leaves then is told, too: again and again, since it depends on
        who is faster."""
        codes = []
        for _ in range(60 if self.method == "fork" else 2):
            pool = self.new_pool(2, maxtasksperchild=2)
            pool.map(tasks.same, range(8), 1)
            pool.apply(tasks.nothing)
            pool.close()
            pool.join()
            codes += [worker.exitcode for worker in pool._pool]
        self.assertEqual(set(codes), {0})

    def test_asked_by_several_threads(self):
        """Each gets the same exit code, whoever looks first."""
        if self.method == "forkserver":
            self.skipTest("of two threads of the standard library's one reads the end, one none")
        import concurrent.futures  # here, since no other test needs it

        pool = self.new_pool(2)
        self.check_pool(pool)
        for _ in range(5):
            worker = pool._pool[0]
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                joins = [threads.submit(worker.join, PATIENCE) for _ in range(4)]
                worker.kill()
            self.assertEqual([join.result() for join in joins], [None] * 4)
            self.assertEqual(worker.exitcode, -signal.SIGKILL)
            self.wait_until(lambda: worker not in pool._pool, "a replacement")

    @engine_only
    def test_known_end_stays_known(self):
        """The engine remembers the last end in a seat. A thread that wakes too late to be told how
        its process ended leaves what another one has noted."""
        if self.method != "fork":
            self.skipTest("the worker is another process's child, or this one's")
        pool = self.new_pool(1)
        worker = pool._pool[0]
        popen, core = worker._popen, pool._core

        class Late:
            """The engine, as a thread finds it that another one overtakes."""

            def worker_join(self, *args):
                worker.kill()
                popen._core = core
                popen.wait()
                return _core.Outcome((0, "OK", "", 0, -1, 0, 0, 0, 0))

            def worker_kill(self, *args):
                return core.worker_kill(*args)

        popen._core = Late()
        self.assertEqual(worker._popen.wait(), -signal.SIGKILL)
        self.assertEqual(worker.exitcode, -signal.SIGKILL)
        self.assertIsNotNone(worker.pid)

    def test_signals_reach_no_stranger(self):
        """A pid that another process has by now is not the worker's any more."""
        if self.method == "forkserver":
            self.skipTest("the standard library's server reaps at once, whoever asks later")
        try:
            with open("/proc/sys/kernel/ns_last_pid", "r+") as file:
                file.write(file.read())
        except OSError as error:
            self.skipTest(f"pids can't be chosen here: {error}")
        pool = self.new_pool(2)
        self.check_pool(pool)
        worker, pid = pool._pool[0], pids(pool)[0]
        os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: worker not in pool._pool, "a replacement")
        self.check_pool(pool)
        stranger = self.fork_as(pid)
        worker.terminate()
        worker.kill()
        time.sleep(0.05)
        if stranger:
            self.assertTrue(alive(stranger))
        self.assertEqual(worker.exitcode, -signal.SIGKILL)

    def fork_as(self, pid):
        """A child with this pid; None: it is not free, since the worker has not been reaped."""
        for _ in range(20):
            if os.path.exists(f"/proc/{pid}"):
                return None
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(pid - 1))
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            self.addCleanup(os.waitpid, child, 0)
            self.addCleanup(os.kill, child, signal.SIGKILL)
            if child == pid:
                return child
        self.skipTest(f"pid {pid} could not be had")

    def test_finalizers_of_recycled_workers(self):
        """They leave in the normal way."""
        pool = self.new_pool(1, tasks.add_finalizer, (self.notes,), maxtasksperchild=1)
        numbers = [pool.apply(tasks.pid) for _ in range(4)]
        pool.close()
        pool.join()
        self.assertLessEqual(set(map(str, numbers)), set(self.read_notes()))
        self.assertEqual(len(set(self.read_notes())), len(self.read_notes()))


class Noting(Case):
    """Workers whose methods note that they are called."""

    def setUp(self):
        super().setUp()
        patch = mock.patch.dict(os.environ, NOTES=self.notes)
        patch.start()
        self.addCleanup(patch.stop)

    def check(self, pool, *methods):
        """These ran in each worker, replacements too, once and in this order."""
        self.addCleanup(stop, pool)
        seen = {}
        for _ in range(3):
            name, _, _, pid = pool.apply(tasks.whoami)
            seen[str(pid)] = name
        pool.close()
        pool.join()
        self.assertEqual(len(seen), 3)
        notes = [line.split() for line in self.read_notes()]
        for pid, name in seen.items():
            self.assertEqual([[note[0], note[2]] for note in notes if note[1] == pid],
                             [[method, name] for method in methods])


class OwnClasses(Noting):
    """Processes of the user's class."""

    def test_run_and_bootstrap_of_a_contexts_process(self):
        context = lifecycle.NOTING[self.method]()
        pool = allcores.pool.Pool(1, maxtasksperchild=1, context=context)
        self.assertIsInstance(pool._pool[0], lifecycle.NotingProcess)
        self.check(pool, "_bootstrap", "run")

    def test_run_and_bootstrap_of_a_pools_process(self):
        class Pool(allcores.pool.Pool):
            @staticmethod
            def Process(context, *args, **kwds):
                return lifecycle.NOTING[self.method].Process(*args, **kwds)

        self.check(Pool(1, maxtasksperchild=1, context=self.context), "_bootstrap", "run")


@engine_only
class OwnMethods(Noting, unittest.TestCase):
    """What others put in place of multiprocessing's own methods, and of os.fork."""

    method = "fork"

    def test_bootstrap_that_was_replaced(self):
        """As coverage does it, for the processes of all programs."""
        original = multiprocessing.process.BaseProcess._bootstrap

        def bootstrap(process, *args, **kwds):
            tasks.note(self.notes, "bootstrap", os.getpid(), process.name)
            try:
                return original(process, *args, **kwds)
            finally:
                tasks.note(self.notes, "end", os.getpid(), process.name)

        with mock.patch.object(multiprocessing.process.BaseProcess, "_bootstrap", bootstrap):
            pool = self.context.Pool(1, maxtasksperchild=1)
            self.check(pool, "bootstrap", "end")

    def test_after_fork_that_was_replaced(self):
        original = multiprocessing.process.BaseProcess._after_fork

        def after_fork():
            tasks.note(self.notes, "after fork", os.getpid(), "")
            original()

        with mock.patch.object(multiprocessing.process.BaseProcess, "_after_fork",
                               staticmethod(after_fork)):
            pool = self.new_pool(1)
            pid = pool.apply(tasks.pid)
        self.assertEqual(self.read_notes(), [f"after fork {pid} "])

    def test_start_of_the_users_own(self):
        """Then that is what starts the process, in the owner."""
        pool = allcores.pool.Pool(1, context=lifecycle.OwnStartContext(), maxtasksperchild=1)
        self.addCleanup(stop, pool)
        self.assertIsInstance(pool._pool[0], lifecycle.OwnStart)
        found = {pool.apply(tasks.pid) for _ in range(3)}
        self.assertEqual(len(found), 3)
        self.assertGreaterEqual(self.read_notes().count(f"start {os.getpid()}"), 3)

    def test_popen_that_was_replaced(self):
        """As debuggers do it."""
        from multiprocessing import popen_fork

        original, calls = popen_fork.Popen._launch, []

        def launch(popen, process):
            calls.append(process.name)
            original(popen, process)

        with mock.patch.object(popen_fork.Popen, "_launch", launch):
            pool = self.new_pool(2)
            self.assertEqual(pool.map(tasks.square, range(4)), [0, 1, 4, 9])
        self.assertEqual(len(calls), 2)

    def test_fork_that_was_replaced(self):
        """As gevent does it."""
        original, calls = os.fork, []

        def fork():
            calls.append(True)
            return original()

        with mock.patch.object(os, "fork", fork):
            pool = self.new_pool(2)
            self.assertEqual(pool.map(tasks.square, range(4)), [0, 1, 4, 9])
        self.assertEqual(len(calls), 2)


class Programs(Case):
    """In a program of its own, since numbers begin anew and logging is the whole process's."""

    def test_numbers_begin_at_one(self):
        code, out, err = run_script(self, """
import sys, allcores
if __name__ == "__main__":
    with allcores.get_context(sys.argv[1]).Pool(3) as pool:
        print(*[worker._identity for worker in pool._pool])
        print(allcores.Process()._identity)
""", self.method)
        self.assertEqual((code, out, err), (0, "(1,) (2,) (3,)\n(4,)\n", ""))

    def test_logging(self):
        """What a worker logs of its life, the first one and its replacement."""
        code, out, err = run_script(self, """
import logging, sys, allcores
if __name__ == "__main__":
    allcores.log_to_stderr(logging.INFO)
    pool = allcores.get_context(sys.argv[1]).Pool(1, maxtasksperchild=1)
    for _ in range(2):
        pool.apply(abs, (-1,))
    pool.close()
    pool.join()
""", self.method)
        self.assertEqual((code, out), (0, ""))
        for number in (1, 2):
            found = re.findall(rf"\[INFO/\w+PoolWorker-{number}\] (.*)", err)
            self.assertEqual(found.count("child process calling self.run()"), 1, err)
            self.assertEqual(found.count("process exiting with exitcode 0"), 1, err)


class Watch:
    """Notes under which locks hooks run, in this process."""

    def __init__(self):
        self.owner = os.getpid()
        self.locks = ()
        self.found = []

    def note(self, hook, *locks):
        if os.getpid() == self.owner:
            held = [lock for lock in (*self.locks, *locks) if lock._is_owned()]
            self.found.append((hook, held))


watches = []


class WatchedProcess(multiprocessing.context.ForkProcess):
    """Its hooks tell the last of the watches."""

    def check(self, hook, *locks):
        if watches:
            watches[-1].note(hook, *locks)

    def __init__(self, *args, **kwds):
        self.check("__init__", _worker_processes.reaping_lock)
        super().__init__(*args, **kwds)

    @property
    def name(self):
        self.check("name")
        return super().name

    @name.setter
    def name(self, name):
        multiprocessing.process.BaseProcess.name.fset(self, name)

    @property
    def exitcode(self):
        self.check("exitcode")
        return super().exitcode

    def join(self, timeout=None):
        self.check("join")
        super().join(timeout)

    def __del__(self):
        self.check("__del__")


class WatchedStart(WatchedProcess):
    """By Process.start, and not by the engine's template."""

    def start(self):
        self.check("start")
        super().start()


@engine_only
class HooksOfSubclasses(unittest.TestCase):
    """They run under no lock of the pool's; under the one of all starts only where that is written."""

    def watch(self, cls):
        pool_class = type("Watched", (allcores.pool.Pool,), {
            "Process": staticmethod(lambda ctx, *args, **kwds: cls(*args, **kwds))})
        watches.append(Watch())
        self.addCleanup(watches.clear)
        pool = pool_class(2, context=multiprocessing.get_context("fork"), maxtasksperchild=1)
        self.addCleanup(stop, pool)
        watches[-1].locks = pool._workers._ends_lock, pool._workers.stacks._lock
        with mock.patch.object(_worker_processes, "ENDS_MOST", 3):
            for _ in range(10):
                pool.apply(tasks.nothing)
            with self.assertRaises(allcores.WorkerDied):
                pool.apply(tasks.die, ("kill",))
            pool.close()
            pool.join()
        return watches[-1].found

    def check(self, cls, *hooks):
        found = self.watch(cls).copy()
        self.assertEqual([(hook, held) for hook, held in found if held], [])
        self.assertLessEqual({"__init__", "name", "exitcode", "join", "__del__", *hooks},
                             {hook for hook, _ in found})

    def test_forked(self):
        self.check(WatchedProcess)

    def test_started(self):
        self.check(WatchedStart, "start")


for_each_method(globals(), Living, Ended, OwnClasses, Programs)

if __name__ == "__main__":
    unittest.main()

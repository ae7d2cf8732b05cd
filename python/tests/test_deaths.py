#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Workers that die: their task fails with WorkerDied, everything else goes on."""
import functools
import os
import pickle
import random
import signal
import unittest

import allcores
import tasks
from support import PATIENCE, Case, Script, alive, engine_only, for_each_method, pids


def each_death(test):
    """Run test(self, how, file for notes, items) for each way to die."""
    @functools.wraps(test)
    def run(self):
        for how in tasks.DEATHS:
            with self.subTest(how):
                notes = self.path(how)
                test(self, how, notes, [(how, notes, number) for number in range(6)])
                self.check_crew()
    return run


@engine_only
class InTask(Case):
    """Each way in which a task can end its worker, through each call."""

    def check(self, error, how, name):
        """It says who died, of what, and what it ran."""
        self.assertIsInstance(error, allcores.WorkerDied)
        self.assertIsInstance(error, allcores.ProcessError)
        self.assertIsInstance(error.pid, int)
        self.assertIn(name, str(error))
        self.assertIn(str(error.pid), str(error))
        if tasks.DEATHS[how] is not None:
            self.assertEqual((error.exitcode, error.signal), tasks.DEATHS[how])
        if error.signal:
            self.assertIn(error.signal, str(error))

    def check_crew(self):
        """The pool is complete again, and works."""
        self.wait_until(lambda: len(self.pool._pool) == 2 and all(map(alive, pids(self.pool))),
                        "two living workers")
        folder = os.path.join(self.folder, f"meet{random.random()}")
        os.mkdir(folder)
        met = self.pool.map_async(functools.partial(tasks.meet, folder), [2, 2], 1).get(PATIENCE)
        self.assertEqual(sorted(met), sorted(pids(self.pool)))

    def check_all_ran(self, notes):
        self.assertEqual(sorted(tasks.read_notes(notes)), list("012345"))

    @each_death
    def test_apply(self, how, notes, _items):
        others = [self.pool.apply_async(tasks.square, (i,)) for i in range(20)]
        with self.assertRaises(allcores.WorkerDied) as caught:
            self.pool.apply(tasks.die_noted, (notes, how))
        self.check(caught.exception, how, "die_noted")
        self.assertEqual(tasks.read_notes(notes), [str(caught.exception.pid)])
        self.assertEqual([r.get(PATIENCE) for r in others], [i * i for i in range(20)])

    @each_death
    def test_apply_async(self, how, notes, _items):
        told = []
        result = self.pool.apply_async(tasks.die_noted, (notes, how), callback=self.fail,
                                       error_callback=told.append)
        with self.assertRaises(allcores.WorkerDied) as caught:
            result.get(PATIENCE)
        self.assertFalse(result.successful())
        self.assertEqual(told, [caught.exception])
        self.check(told[0], how, "die_noted")

    @each_death
    def test_map(self, how, notes, items):
        with self.assertRaises(allcores.WorkerDied) as caught:
            self.pool.map(tasks.die_on_three, items, 1)
        self.check(caught.exception, how, "die_on_three")
        self.check_all_ran(notes)

    @each_death
    def test_map_with_default_chunks(self, how, notes, items):
        with self.assertRaises(allcores.WorkerDied) as caught:
            self.pool.map(tasks.die_on_three, items)
        self.check(caught.exception, how, "die_on_three")
        self.assertIn("3", tasks.read_notes(notes))

    @each_death
    def test_map_async(self, how, notes, items):
        told = []
        result = self.pool.map_async(tasks.die_on_three, items, 1, callback=self.fail,
                                     error_callback=told.append)
        with self.assertRaises(allcores.WorkerDied) as caught:
            result.get(PATIENCE)
        self.assertEqual(told, [caught.exception])
        self.check(told[0], how, "die_on_three")
        self.check_all_ran(notes)

    @each_death
    def test_starmap(self, how, notes, items):
        with self.assertRaises(allcores.WorkerDied) as caught:
            self.pool.starmap(tasks.die_on_three_star, items, 1)
        self.check(caught.exception, how, "die_on_three_star")
        self.check_all_ran(notes)

    def collect(self, found):
        values, errors = [], []
        while True:
            try:
                values.append(found.next(PATIENCE))
            except StopIteration:
                return values, errors
            except allcores.WorkerDied as error:
                errors.append(error)
                values.append(None)

    @each_death
    def test_imap(self, how, notes, items):
        values, errors = self.collect(self.pool.imap(tasks.die_on_three, items))
        self.assertEqual(values, [0, 1, 4, None, 16, 25])
        self.check(errors[0], how, "die_on_three")
        self.check_all_ran(notes)

    @each_death
    def test_imap_unordered(self, how, notes, items):
        values, errors = self.collect(self.pool.imap_unordered(tasks.die_on_three, items))
        self.assertCountEqual(values, [0, 1, 4, None, 16, 25])
        self.check(errors[0], how, "die_on_three")
        self.check_all_ran(notes)

    @each_death
    def test_imap_with_chunks(self, how, notes, items):
        found = self.pool.imap(tasks.die_on_three, items, 2)
        self.assertEqual([next(found), next(found)], [0, 1])
        with self.assertRaises(allcores.WorkerDied) as caught:
            next(found)
        self.check(caught.exception, how, "die_on_three")
        self.assertEqual(list(found), [16, 25])  # the chunk is lost, the rest arrives

    def test_killed_while_reading_and_while_writing(self):
        for function, argument in ((tasks.same, tasks.Deadly("read")), (tasks.deadly, "write")):
            others = [self.pool.apply_async(tasks.square, (i,)) for i in range(20)]
            for call in (lambda: self.pool.apply_async(function, (argument,)),
                         lambda: self.pool.map_async(function, [argument] * 2, 1),
                         lambda: self.pool.map_async(function, [argument] * 2)):
                with self.assertRaises(allcores.WorkerDied) as caught:
                    call().get(PATIENCE)
                self.check(caught.exception, "kill", function.__name__)
            self.assertEqual([r.get(PATIENCE) for r in others], [i * i for i in range(20)])
            found = self.pool.imap(function, [argument])
            self.assertRaises(allcores.WorkerDied, found.next, PATIENCE)
            self.check_crew()

    def test_any_other_base_exception_hurts_nobody(self):
        with self.assertRaises(BaseException) as caught:
            self.pool.apply_async(tasks.leaves_base_exception).get(PATIENCE)
        self.assertNotIsInstance(caught.exception, allcores.TimeoutError)
        self.check_crew()

    def test_error_can_be_pickled(self):
        with self.assertRaises(allcores.WorkerDied) as caught:
            self.pool.apply(tasks.die, ("kill",))
        error = caught.exception
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(copy), copy.pid, copy.exitcode, copy.signal, str(copy)),
                         (type(error), error.pid, error.exitcode, error.signal, str(error)))


@engine_only
class FromOutside(Case):
    """SIGKILL from elsewhere: in a task, at rest, in an initializer, and in numbers."""

    def kill(self, *numbers):
        for pid in numbers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # replaced a moment ago

    def meet_all(self, pool, count, name):
        """The pids of all workers, each of which has been at work."""
        folder = self.path(name)
        os.mkdir(folder)
        met = pool.map_async(functools.partial(tasks.meet, folder), [count] * count, 1)
        return sorted(met.get(PATIENCE))

    def test_running(self):
        pool = self.new_pool(2)
        result = pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
        self.wait_until(self.read_notes)
        pid = int(self.read_notes()[0].split()[0])
        self.kill(pid)
        with self.assertRaises(allcores.WorkerDied) as caught:
            result.get(PATIENCE)
        error = caught.exception
        self.assertEqual((error.pid, error.exitcode, error.signal), (pid, -9, "SIGKILL"))
        self.assertIn("note_and_wait", str(error))
        self.assertEqual(pool.map(tasks.same, range(50), 1), list(range(50)))

    def test_idle(self):
        pool = self.new_pool(2)
        pool.apply(tasks.nothing)
        before = pids(pool)
        self.kill(before[0])
        self.wait_until(lambda: before[0] not in pids(pool), "a replacement")
        self.assertIn(before[1], pids(pool))
        self.assertEqual(pool.map(tasks.same, range(50), 1), list(range(50)))

    def test_all_idle_at_once(self):
        pool = self.new_pool(3)
        for number in range(3):
            self.kill(*self.meet_all(pool, 3, f"meet{number}"))
            self.assertEqual(pool.map_async(tasks.same, range(50), 1).get(PATIENCE),
                             list(range(50)))

    def test_all_running_at_once(self):
        pool = self.new_pool(2)
        held = [pool.apply_async(tasks.note_and_wait, (self.notes, self.path("never")))
                for _ in range(2)]
        others = [pool.apply_async(tasks.square, (i,)) for i in range(50)]
        self.wait_until(lambda: len(self.read_notes()) == 2, "two running tasks")
        self.kill(*pids(pool))
        for result in held:
            self.assertRaises(allcores.WorkerDied, result.get, PATIENCE)
        self.assertEqual([r.get(PATIENCE) for r in others], [i * i for i in range(50)])

    def test_while_the_caller_waits_in_map(self):
        pool = self.new_pool(2)
        items = [self.path("once")] * 30
        with self.assertRaises(allcores.WorkerDied):
            pool.starmap(tasks.die_once, zip(items, range(30)))
        self.assertEqual(pool.starmap(tasks.die_once, zip(items, range(30))), list(range(30)))

    def test_again_and_again_under_load(self):
        pool, kills, results = self.new_pool(2), 8, []
        for _ in range(kills):
            results += [pool.apply_async(tasks.pid) for _ in range(100)]
            self.kill(results[-100].get(PATIENCE))
        pool.close()
        pool.join()
        died = 0
        for result in results:
            try:
                self.assertIsInstance(result.get(0), int)
            except allcores.WorkerDied:
                died += 1
        self.assertLessEqual(died, kills)

    def test_with_maxtasksperchild(self):
        pool = self.new_pool(2, maxtasksperchild=2)
        results = [pool.apply_async(tasks.die_once, (self.path(f"once{i % 3}"), i))
                   for i in range(30)]
        died = 0
        for number, result in enumerate(results):
            try:
                self.assertEqual(result.get(PATIENCE), number)
            except allcores.WorkerDied:
                died += 1
        self.assertEqual(died, 3)

    def test_after_close(self):
        pool = self.new_pool(1)
        results = [pool.apply_async(tasks.die_once, (self.path("once"), i)) for i in range(5)]
        pool.close()
        pool.join()
        self.assertRaises(allcores.WorkerDied, results[0].get, 0)
        self.assertEqual([r.get(0) for r in results[1:]], [1, 2, 3, 4])

    def test_all_idle_before_close(self):
        pool = self.new_pool(2)
        numbers = pids(pool)
        self.kill(*numbers)
        pool.close()
        pool.join()
        self.wait_gone(numbers)

    def test_stopped_worker_holds_up_its_own_task_only(self):
        pool = self.new_pool(2)
        held = pool.apply_async(tasks.note_and_wait, (self.notes, self.path("go"), 5))
        self.wait_until(self.read_notes)
        pid = int(self.read_notes()[0].split()[0])
        os.kill(pid, signal.SIGSTOP)
        tasks.touch(self.path("go"))
        self.assertEqual(pool.map_async(tasks.same, range(50), 1).get(PATIENCE), list(range(50)))
        self.assertFalse(held.ready())
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(held.get(PATIENCE), 5)

    def test_terminate_with_a_stopped_worker(self):
        pool = self.new_pool(2)
        numbers = pids(pool)
        os.kill(numbers[0], signal.SIGSTOP)
        pool.terminate()
        pool.join()
        self.wait_gone(numbers)

    def test_pool_in_a_pool_tells_its_parent(self):
        pool = allcores.pool.Pool(1, context=tasks.NO_DAEMON[self.method]())
        self.addCleanup(pool.join)
        self.addCleanup(pool.terminate)
        with self.assertRaises(allcores.WorkerDied) as caught:
            pool.apply_async(tasks.nested_death, (self.method,)).get(PATIENCE)
        self.assertEqual(caught.exception.signal, "SIGKILL")
        self.assertEqual(pool.apply(tasks.pid), pids(pool)[0])


@engine_only
class Initializers(Case):
    """An initializer that fails is told at the first call, and not tried for ever."""

    def check_told(self, pool, *words):
        with self.assertRaises(allcores.StartError) as caught:
            pool.apply_async(tasks.square, (3,)).get(PATIENCE)
        self.assertIsInstance(caught.exception, allcores.ProcessError)
        for word in words:
            self.assertIn(word, str(caught.exception))
        for call in (lambda: pool.map(tasks.square, [1, 2]),
                     lambda: next(pool.imap(tasks.square, [1, 2]))):
            self.assertRaises(allcores.StartError, call)

    def check_no_respawning(self, pool):
        """The number of attempts stays where it is, and small."""
        attempts = len(self.read_notes())
        pool.terminate()
        pool.join()
        self.assertLessEqual(attempts, 10 * pool._processes)
        self.assertLessEqual(len(self.read_notes()), attempts + pool._processes)

    def test_raises(self):
        pool = self.new_pool(2, tasks.fail_start, (self.notes,))
        self.check_told(pool, "fail_start", "initializer without luck")
        self.check_no_respawning(pool)

    def test_raises_at_length(self):
        """In words that are cut, perhaps within a character."""
        pool = self.new_pool(1, tasks.fail_start_at_length)
        self.check_told(pool, "Trouble: ('не удалось открыть файл")

    def test_raises_and_nobody_calls(self):
        pool = self.new_pool(2, tasks.fail_start, (self.notes,))
        pool.close()
        pool.join()
        self.assertLessEqual(len(self.read_notes()), 20)

    def test_exits(self):
        pool = self.new_pool(2, tasks.die_at_start, (self.notes, "sys.exit"))
        self.check_told(pool)
        self.check_no_respawning(pool)

    def test_is_killed_each_time(self):
        pool = self.new_pool(2, tasks.die_at_start, (self.notes, "kill"))
        self.check_told(pool)
        self.check_no_respawning(pool)

    def test_raises_once(self):
        """The first is enough: it is an error of the program, and not tried again."""
        pool = self.new_pool(1, tasks.fail_first_start, (self.path("once"),))
        self.check_told(pool, "only once")

    def test_raises_in_a_replacement(self):
        """What the first worker has done stays; nobody is left for what comes after it."""
        pool = self.new_pool(1, tasks.fail_second_start, (self.folder,), maxtasksperchild=1)
        first = pool.apply_async(tasks.square, (3,))
        self.assertEqual(first.get(PATIENCE), 9)
        self.check_told(pool, "the second has no luck")
        self.assertEqual(first.get(0), 9)

    def test_cannot_be_unpickled(self):
        pool = self.new_pool(1, tasks.set_state, (tasks.Brittle("unpickle"),))
        if self.method == "fork":  # nothing is pickled
            self.assertEqual(pool.apply(tasks.square, (3,)), 9)
        else:
            self.check_told(pool)

    def kill_attempt(self, number):
        """SIGKILL for the number-th that is in its initializer."""
        self.wait_until(lambda: len(self.read_notes()) >= number, f"attempt {number}")
        os.kill(int(self.read_notes()[number - 1]), signal.SIGKILL)

    def test_killed_in_the_initializer(self):
        """Once: another attempt is made, and does the work."""
        pool = self.new_pool(1, tasks.hang_at_first_start, (self.notes,))
        result = pool.apply_async(tasks.square, (3,))
        self.kill_attempt(1)
        self.assertEqual(result.get(PATIENCE), 9)
        self.assertEqual(pool.map(tasks.same, range(50), 1), list(range(50)))
        self.assertEqual(self.read_notes()[1:], [str(number) for number in pids(pool)])

    def test_killed_in_each_initializer(self):
        """Three in a row, and nobody else is there: all calls fail."""
        how = "not known" if self.method == "forkserver" else "signal 9"
        pool = self.new_pool(1, tasks.hang_at_start, (self.notes,))
        result = pool.apply_async(tasks.square, (3,))
        for number in (1, 2, 3):
            self.assertFalse(result.ready())
            self.kill_attempt(number)
        self.assertRaisesRegex(allcores.StartError, how, result.get, PATIENCE)
        self.check_told(pool, "no worker becomes ready", how)
        self.check_no_respawning(pool)
        self.assertEqual(len(self.read_notes()), 3)

    def test_never_returns(self):
        """Nobody is given up before his ten minutes are over; terminate need not wait for them."""
        pool = self.new_pool(2, tasks.hang_at_start, (self.notes,))
        numbers = pids(pool)
        result = pool.apply_async(tasks.square, (3,))
        with self.assertRaises(allcores.TimeoutError):
            result.get(0.5)
        self.assertEqual(pids(pool), numbers)
        pool.terminate()
        pool.join()
        self.wait_gone(numbers)
        self.assertRaises(allcores.TaskCancelled, result.get, 0)


@engine_only
class OwnersThreads(Case, unittest.TestCase):
    """Forked while another thread of the owner is at something."""

    def test_replaced_while_standard_input_is_read(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        script = Script(self, """
import allcores, os, signal, sys, tasks, threading
def work(initializer):
    pool = allcores.get_context("fork").Pool(1, initializer)
    for number in (1, 2):
        print(pool.apply_async(tasks.read_input, (number,)).get(10), flush=True)
        os.kill(pool._pool[0].pid, signal.SIGKILL)
    pool.terminate()
def later():
    work(None)
    work(tasks.nothing)
    os._exit(0)
threading.Thread(target=later).start()
sys.stdin.readline()
""", stdin=reading)
        code, out, err = script.finish()
        self.assertEqual((code, out, err), (0, "(1, '')\n(2, '')\n" * 2, ""))


@engine_only
class CannotTakeTheirSeats(Case):
    """Workers that fail on the way to their seats."""

    PROGRAM = """
import sys
import allcores
from allcores import _core

def refuse(*args):
    raise OSError(5, "no lifeline\\x00 for \\udcff this\\nprocess")

if __name__ == "__main__":
    try:
        with allcores.get_context(sys.argv[1]).Pool(2) as pool:
            pool.apply(abs, (1,))
    except allcores.StartError as error:
        print(error)
else:
    _core.Worker = refuse
"""

    def test_the_error_gives_the_cause(self):
        if self.method == "fork":
            self.skipTest("a forked worker has its seat already")
        code, out, err = Script(self, self.PROGRAM, self.method).finish()
        self.assertEqual(code, 0, err)
        self.assertIn("exited with code 1: OSError: [Errno 5] no lifeline\\x00 for \\udcff this process",
                      out)
        self.assertNotIn("not known", out)


for_each_method(globals(), InTask, FromOutside, Initializers, CannotTakeTheirSeats)

if __name__ == "__main__":
    unittest.main()

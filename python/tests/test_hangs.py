#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ways to hang that take a whole program: its end, its killing, Ctrl-C, its forks.

Each is a script in a session of its own, ended after a bounded time, of whose processes
nothing may be left. Deaths of workers: test_deaths.py; input: test_imap.py; limits:
test_limits.py.
"""
import os
import signal
import subprocess
import time
import unittest

from programs import Program
from support import alive, engine_only, for_each_method


@engine_only
class OwnerEnds(Program):
    """However the owner ends, its workers end."""

    busy = """
pool = context.Pool(2)
tell(pool)
result = pool.starmap_async(tasks.note_and_wait, [(notes, never)] * 10, 1)
"""

    def test_killed_while_workers_are_busy(self):
        script = self.start(self.busy + "result.get()")
        self.wait_notes(2)
        self.kill(script)

    def test_killed_while_workers_compute(self):
        script = self.start("""
pool = context.Pool(2)
tell(pool)
pool.map(tasks.spin_noted, [notes] * 4, 1)
""")
        self.wait_notes(2)
        self.kill(script)

    def test_killed_while_idle(self):
        script = self.start("""
pool = context.Pool(2)
pool.map(tasks.square, range(10))
tell(pool)
time.sleep(100)
""")
        self.kill(script)

    def test_killed_while_it_joins(self):
        script = self.start(self.busy + "pool.close()\npool.join()")
        self.wait_notes(2)
        self.kill(script)

    def test_killed_while_initializers_run(self):
        script = self.start("""
pool = context.Pool(2, tasks.hang_at_start, (notes,))
tell(pool)
pool.apply(tasks.square, (3,))
""")
        self.wait_notes(2)
        self.kill(script)

    def test_killed_while_workers_import_the_program(self):
        if self.method == "fork":
            self.skipTest("a forked worker imports nothing")
        script = self.start("""
os.environ["NOTES"], os.environ["SLOW"] = notes, "1"
context.set_forkserver_preload([])  # else the forkserver imports it: see test_servers.py
pool = context.Pool(2)
tell(pool)
pool.apply(tasks.square, (3,))
""")
        self.wait_notes(2)
        self.kill(script)

    def test_killed_while_a_worker_is_stopped(self):
        script = self.start(self.busy + "result.get()")
        self.wait_notes(2)
        os.kill(self.workers[0], signal.SIGSTOP)
        self.kill(script)

    def test_terminated_by_a_signal(self):
        script = self.start(self.busy + "result.get()")
        self.wait_notes(2)
        self.send(script, signal.SIGTERM)
        self.finish(script, -signal.SIGTERM)

    def test_exit_with_work_pending(self):
        self.finish(self.start(self.busy), 0)

    def test_exit_with_an_imap_half_read(self):
        self.finish(self.start("""
import itertools
pool = context.Pool(2)
tell(pool)
found = pool.imap(tasks.square, itertools.count())
assert [next(found), next(found)] == [0, 1]
"""), 0)

    def test_exit_with_an_input_that_blocks(self):
        self.finish(self.start("""
pool = context.Pool(2)
tell(pool)
def items():
    yield 1
    threading.Event().wait()
found = pool.imap(tasks.square, items())
assert next(found) == 1
"""), 0)

    def test_exit_with_a_thread_that_waits(self):
        # What it raises is not printed: CPython aborts when two threads print at its end.
        self.finish(self.start(self.busy + """
def wait():
    try:
        result.get()
    except allcores.TaskCancelled:
        pass
threading.Thread(target=wait, daemon=True).start()
"""), 0)

    def test_exit_with_a_callback_running(self):
        self.finish(self.start("""
pool = context.Pool(2)
tell(pool)
begun = threading.Event()
def callback(_):
    begun.set()
    threading.Event().wait()
result = pool.apply_async(tasks.square, (3,), callback=callback)
begun.wait()
"""), 0)

    def test_exit_at_once_with_os_exit(self):
        self.finish(self.start(self.busy + "os._exit(5)"), 5)

    def test_exit_right_after_the_start(self):
        self.finish(self.start("pool = context.Pool(2)\ntell(pool)"), 0)

    def test_uncaught_exception(self):
        _, err = self.finish(self.start(self.busy + "1 / 0"), 1)
        self.assertIn("ZeroDivisionError", err)

    def test_stopped_and_continued(self):
        script = self.start("""
pool = context.Pool(2)
tell(pool)
result = pool.starmap_async(tasks.note_and_wait, [(notes, folder + "/go", i) for i in range(4)], 1)
print(result.get(60))
""")
        self.wait_notes(2)
        os.kill(script.pid, signal.SIGSTOP)
        time.sleep(0.3)
        self.assertTrue(all(map(alive, self.workers)))
        os.kill(script.pid, signal.SIGCONT)
        with open(self.path("go"), "w"):
            pass
        out, _ = self.finish(script, 0)
        self.assertEqual(out, "[0, 1, 2, 3]\n")


@engine_only
class Interrupted(Program):
    """Ctrl-C, which goes to the whole group, in each state."""

    def check(self, body, count=2):
        """Ended by KeyboardInterrupt, with the owner's traceback alone."""
        script = self.start(body)
        self.wait_notes(count)
        self.interrupt(script)
        _, err = self.finish(script, -signal.SIGINT, 1, 130)
        self.assertEqual(err.count("Traceback (most recent call last)"), 1, err)
        self.assertIn("KeyboardInterrupt", err)
        self.assertNotIn("PoolWorker", err)

    def test_in_apply(self):
        self.check("""
pool = context.Pool(2)
tell(pool)
pool.apply_async(tasks.note_and_wait, (notes, never))
pool.apply(tasks.note_and_wait, (notes, never))
""")

    def test_in_get(self):
        self.check("""
pool = context.Pool(2)
tell(pool)
result = pool.starmap_async(tasks.note_and_wait, [(notes, never)] * 10, 1)
result.get()
""")

    def test_in_get_with_timeout(self):
        self.check("""
pool = context.Pool(1)
tell(pool)
pool.apply_async(tasks.note_and_wait, (notes, never)).get(100)
""", 1)

    def test_in_map(self):
        for chunksize in (None, 1):
            self.check(f"""
pool = context.Pool(2)
tell(pool)
pool.starmap(tasks.note_and_wait, [(notes, never)] * 10, {chunksize})
""")
            os.unlink(self.notes)

    def test_in_imap(self):
        self.check("""
import functools
pool = context.Pool(2)
tell(pool)
for _ in pool.imap(functools.partial(tasks.note_and_wait, notes), [never] * 10):
    pass
""")

    def test_in_a_with_block(self):
        self.check("""
with context.Pool(2) as pool:
    tell(pool)
    pool.starmap(tasks.note_and_wait, [(notes, never)] * 10, 1)
""")

    def test_in_join(self):
        self.check("""
pool = context.Pool(2)
tell(pool)
pool.starmap_async(tasks.note_and_wait, [(notes, never)] * 10, 1)
pool.close()
pool.join()
""")

    def test_in_the_initializer(self):
        self.check("""
pool = context.Pool(1, tasks.hang_at_start, (notes,))
tell(pool)
pool.apply(tasks.square, (3,))
""", 1)

    def test_while_a_callback_runs(self):
        self.check("""
pool = context.Pool(2)
tell(pool)
def callback(_):
    tasks.note(notes, "callback")
    threading.Event().wait()
pool.apply_async(tasks.square, (3,), callback=callback).get()
""", 1)

    def test_with_an_input_that_blocks(self):
        self.check("""
pool = context.Pool(2)
tell(pool)
def items():
    yield 1
    tasks.note(notes, "blocks")
    threading.Event().wait()
for _ in pool.imap(tasks.square, items()):
    pass
""", 1)

    def test_while_workers_import_the_program(self):
        """They are killed before they could say anything."""
        if self.method == "fork":
            self.skipTest("a forked worker imports nothing")
        self.check("""
os.environ["NOTES"], os.environ["SLOW"] = notes, "1"
context.set_forkserver_preload([])  # else the forkserver imports it: see test_servers.py
with context.Pool(2) as pool:
    tell(pool)
    pool.apply(tasks.square, (3,))
""")

    def test_in_the_last_lines_of_opening(self):
        """The workers run already, and end; they are not replaced."""
        script = self.start("""
import allcores.pool
class Interrupted:
    def __init__(self):
        signal.raise_signal(signal.SIGINT)
allcores.pool.Submitting = Interrupted
print(flush=True)
try:
    context.Pool(2)
except KeyboardInterrupt:
    print(context.active_children())
""")
        out, err = self.finish(script, 0)
        self.assertEqual((out, err), ("[]\n", ""))

    def test_at_the_interpreters_exit(self):
        """It ends what ran there; the pool's own end still comes, in whatever order."""
        script = self.start("""
import atexit
def goodbye():
    tasks.note(notes, "goodbye")
    time.sleep(100)
pool = context.Pool(2)
tell(pool)
result = pool.starmap_async(tasks.note_and_wait, [(notes, never)] * 10, 1)
atexit.register(goodbye)
""")
        self.wait_notes(3)
        self.interrupt(script)
        _, err = self.finish(script, 0)
        self.assertEqual(err.count("Traceback (most recent call last)"), 1, err)
        self.assertNotIn("PoolWorker", err)

    def test_while_idle(self):
        self.check("""
pool = context.Pool(2)
pool.map(tasks.square, range(10))
tell(pool)
tasks.note(notes, "idle")
time.sleep(100)
""", 1)

    def test_caught_and_the_pool_goes_on(self):
        script = self.start("""
pool = context.Pool(2)
tell(pool)
held = [pool.apply_async(tasks.note_and_wait, (notes, folder + "/go", i)) for i in range(2)]
try:
    held[0].get()
except KeyboardInterrupt:
    tasks.touch(folder + "/go")
print([result.get(60) for result in held], pool.map(tasks.square, range(4)), flush=True)
pool.close()
pool.join()
""")
        self.wait_notes(2)
        self.interrupt(script)
        out, err = self.finish(script, 0)
        self.assertEqual((out, err), ("[0, 1] [0, 1, 4, 9]\n", ""))

    def test_twice(self):
        script = self.start("""
try:
    pool = context.Pool(2)
    tell(pool)
    pool.starmap(tasks.note_and_wait, [(notes, never)] * 10, 1)
finally:
    pool.close()
    tasks.note(notes, "closing")
    pool.join()
""")
        self.wait_notes(2)
        self.interrupt(script)
        self.wait_notes(3)
        self.interrupt(script)
        _, err = self.finish(script, -signal.SIGINT, 1, 130, within=5)
        # The owner's alone: the second came while the first was on its way out.
        self.assertEqual(err.count("Traceback (most recent call last)"), 2, err)
        self.assertEqual(err.count("During handling of the above exception"), 1, err)
        self.assertEqual(err.count("\nKeyboardInterrupt"), 2, err)
        self.assertNotIn("PoolWorker", err)


@engine_only
class WhileReplacing(Program, unittest.TestCase):
    """A Ctrl-C that comes while the main thread waits for a worker to be started."""

    method = "fork"

    def test_comes_out_of_the_wait(self):
        script = self.start("""
def interrupted(*args, **kwds):
    pool._workers._make = make
    os.kill(os.getpid(), signal.SIGINT)
    return make(*args, **kwds)
print(flush=True)
try:
    pool = context.Pool(1, maxtasksperchild=1)
    make, pool._workers._make = pool._workers._make, interrupted
    stream = pool._core.stream()
    stream.push_call(None, abs, (-1,), {})
    while pool._workers._make is interrupted:
        stream.take(0)
        pool._core.workers(1)
    stream.close()
    time.sleep(1)
    print("never came")
except KeyboardInterrupt:
    print("came")
print(pool.apply(abs, (-2,)))
pool.terminate()
""")
        out, err = self.finish(script, 0)
        self.assertEqual((out, err), ("came\n2\n", ""))


@engine_only
class AtEachPlace(Program, unittest.TestCase):
    """Ctrl-C wherever the owner's main thread looks for it: see interrupts.py."""

    method = "fork"
    limit = 120.0

    def check(self, body, count=1):
        script = self.start("""
from interrupts import check
def interrupted(at, call):
    try:
        with at:
            call()
    except KeyboardInterrupt:
        return
    assert not at.came, "the interrupt was lost"
def make():
    pool = context.Pool(2)
    pool.apply_async(tasks.square, (3,), callback=str).get()
    return pool
def use(pool):
    assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
    assert pool.map_async(tasks.square, range(4)).get(10) == [0, 1, 4, 9]
    assert list(pool.imap(tasks.square, iter(range(4)))) == [0, 1, 4, 9]
    assert pool.apply_async(tasks.square, (3,), callback=str).get(10) == 9
def end(pool):
    pool.close()
    pool.join()
print(flush=True)
""" + body)
        out, err = script.finish(self.limit - 10)[1:]
        self.assertEqual(err, "", out)
        self.assertRegex(out, r"\A(\w+ \d\d+\n){%d}\Z" % count)

    def test_opening(self):
        self.check("""
def opening(at):
    opened = []
    interrupted(at, lambda: opened.append(context.Pool(2)))
    for pool in opened:
        pool.terminate()
        pool.join()
check(opening)
""")

    def test_ending(self):
        """Asked again it ends at once; and nobody need ask, as the interpreter's end does."""
        self.check("""
def terminating(at):
    pool = make()
    pool.map_async(tasks.nap, [100] * 4)
    interrupted(at, pool.terminate)
    pool.terminate()
    pool.join()
def leaving(at):
    pool = make()
    interrupted(at, lambda: pool.__exit__(None, None, None))
def joining(at):
    pool = make()
    interrupted(at, lambda: end(pool))
    end(pool)
check(terminating)
check(leaving)
check(joining)
""", 3)

    def test_working(self):
        """Whoever catches it goes on: results are right, and close and join come to an end."""
        self.check("""
def mapping(at):
    pool = make()
    interrupted(at, lambda: pool.map(tasks.square, range(4)))
    use(pool)
    end(pool)
def mapping_by_one(at):
    pool = make()
    interrupted(at, lambda: pool.map(tasks.square, range(4), 1))
    use(pool)
    end(pool)
def asking(at):
    pool = context.Pool(2)  # the handler's thread is not there yet
    interrupted(at, lambda: (pool.map_async(tasks.square, range(4)).get(),
                             pool.apply_async(tasks.square, (3,), callback=str).get(),
                             pool.apply(tasks.square, (3,))))
    use(pool)
    end(pool)
def iterating(at):
    pool, found = make(), []
    def run():
        found.append(pool.imap(tasks.square, iter(range(4))))
        found.append(list(found[0]))
    interrupted(at, run)
    use(pool)
    found.clear()
    end(pool)
for scenario in (mapping, mapping_by_one, asking, iterating):
    check(scenario)
""", 4)


class AtEachPlaceBySpawn(AtEachPlace):
    """Workers are started in another way (StartedWorkers._start), which forkserver's are, too."""

    method = "spawn"

    def test_working(self):
        self.skipTest("what is handed in and fetched meets the same code as by fork")


@engine_only
class WhileStarting(Program, unittest.TestCase):
    """Ctrl-C meets no worker that is still importing, which would print its own traceback."""

    method = "spawn"

    def test_held_back_in_each_worker(self):
        script = self.start("""
os.environ["NOTES"] = notes
with context.Pool(2) as pool:
    tell(pool)
    while len(tasks.read_notes(notes)) < 2:
        time.sleep(0.01)
""")
        self.finish(script, 0)
        self.assertEqual(self.read_notes(), ["held back"] * 2)


@engine_only
class BeforeSleeping(Program, unittest.TestCase):
    """A signal that comes when a call is about to sleep does not interrupt that sleep.

    No test can hit that moment. Here another thread gets the signal, which is the same to
    the sleeper: what is to be done has been noted, and nothing wakes it.
    """

    method = "fork"

    def test_each_call(self):
        script = self.start("""
class Hit(Exception):
    pass
def handler(*_):
    raise Hit
def take_signals():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    threading.Event().wait()
pool = context.Pool(2)
tell(pool)
held = [pool.apply_async(tasks.wait_for, (never,)) for _ in range(2)]
mapped = pool.map_async(tasks.square, [1])
called = pool.apply_async(tasks.square, (1,), callback=print)
calls = {"get": held[0].get, "get(timeout)": lambda: held[0].get(1000), "wait": held[0].wait,
         "map_async": mapped.get, "callback": called.get,
         "apply": lambda: pool.apply(tasks.square, (1,)),
         "map": lambda: pool.map(tasks.square, [1, 2, 3]),
         "chunks": lambda: pool.map(tasks.square, [1, 2, 3], 1),
         "imap": lambda: next(pool.imap(tasks.square, [1])),
         "join": lambda: (pool.close(), pool.join())}
signal.signal(signal.SIGALRM, handler)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
threading.Thread(target=take_signals, daemon=True).start()
for name, call in calls.items():
    print(name, flush=True)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGALRM)).start()
    try:
        call()
    except Hit:
        pass
pool.terminate()
""")
        try:
            out, err = self.finish(script, 0)
        except subprocess.TimeoutExpired:
            script.kill()
            self.fail(f"slept over in the last of {script.out.split()}")
        self.assertEqual(out.split()[-1], "join", err)


@engine_only
class Beside(Program):
    """What the owner does beside its pool does not disturb it."""

    def test_parents_thread_that_opened_it_has_ended(self):
        script = self.start("""
opened = []
thread = threading.Thread(target=lambda: opened.append(context.Pool(2)))
thread.start()
thread.join()
pool = opened[0]
tell(pool)
time.sleep(0.3)
print(pool.map(tasks.square, range(4)), all(worker.is_alive() for worker in pool._pool))
""")
        out, _ = self.finish(script, 0)
        self.assertEqual(out, "[0, 1, 4, 9] True\n")

    def test_fork_by_the_user_while_it_works(self):
        script = self.start("""
pool = context.Pool(2)
tell(pool)
for _ in range(20):
    result = pool.map_async(tasks.square, range(100), 1)
    child = os.fork()
    if child == 0:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert result.get(30) == [i * i for i in range(100)]
print(all(worker.is_alive() for worker in pool._pool))
""")
        out, err = self.finish(script, 0)
        self.assertEqual(out, "True\n", err)

    def test_pool_in_a_pool_on_full_processors(self):
        script = self.start("""
pool = allcores.pool.Pool(os.cpu_count() or 1, context=tasks.NO_DAEMON[method]())
tell(pool)
print(pool.starmap(tasks.nested_map, [(method, 10)] * 4, 1))
pool.close()
pool.join()
""")
        out, _ = self.finish(script, 0)
        self.assertEqual(out, "[285, 285, 285, 285]\n")


for_each_method(globals(), OwnerEnds, Interrupted, Beside)

if __name__ == "__main__":
    unittest.main()

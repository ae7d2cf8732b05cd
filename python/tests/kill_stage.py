# SPDX-License-Identifier: MIT
"""The owner of a pool of which one worker is killed at each place on its way (test_kills).

It runs in a process of its own, which is told by lines on its standard input what to do, and
answers each with a line of JSON: so the tests' process, who traces the worker, has no part in the
pool. A script is what it does to a pool of two: a generator, which goes on whenever the traced
worker has fallen asleep.
"""
import faulthandler
import gc
import json
import mmap
import os
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import resource_tracker

import allcores
import tasks
import tracer

PATIENCE = 20.0  # seconds within which anything must have happened
ITEMS = 64
LARGE = 100_000
FOLDER = os.environ["ALLCORES_TEST_FOLDER"]

# A script has done something, or there is nothing to do but to wait.
ACTED, WAIT = True, False


# ---- what workers run ----

def _map_notes():
    """How often item i was begun, and ended: bytes i and ITEMS + i."""
    fd = os.open(os.path.join(FOLDER, "items"), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 2 * ITEMS)
    notes = mmap.mmap(fd, 2 * ITEMS)
    os.close(fd)
    return notes


notes = _map_notes()


def noted(function):
    """What notes.begun and ended count; its first argument is the item's number."""
    def run(item, *args):
        notes[item] += 1
        try:
            return function(item, *args)
        finally:
            notes[ITEMS + item] += 1
    run.__qualname__ = run.__name__ = function.__name__
    return run


@noted
def square(item):
    return item * item


@noted
def blob(item, size):
    return bytes([item + 1]) * size


@noted
def total(item, data):
    return item, len(data), sum(data)


@noted
def fail(item):
    raise tasks.Trouble("as it should", item)


@noted
def wait_if_first(item):
    """Item 0 sleeps until there is a byte in the pipe."""
    if item == 0:
        with open(os.path.join(FOLDER, "gate"), "rb", buffering=0) as gate:
            gate.read(1)
    return item * item


def is_noted(items, ended):
    return all(notes[item + ITEMS * ended] for item in items)


# ---- what they are expected to give ----

class Outcome:
    """Of one call or item: what came, in which thread soever."""

    def __init__(self, items, get, expected):
        self.items, self.get, self.expected = items, get, expected

    def settle(self):
        """True: it has what it should; False: its worker died; else it fails the test."""
        try:
            value = self.get()
        except allcores.WorkerDied as error:
            self.error = error
            return False
        except tasks.Trouble as error:
            value = error.args
        if value != self.expected:
            raise AssertionError(f"items {self.items}: {value!r:.200} and not "
                                 f"{self.expected!r:.200}")
        return True


class Caller(threading.Thread):
    """Makes a call that waits."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.call, self.value, self.error = (function, args), None, None
        self.start()

    def run(self):
        function, args = self.call
        try:
            self.value = function(*args)
        except BaseException as error:
            self.error = error

    def get(self):
        self.join(PATIENCE)
        if self.is_alive():
            raise TimeoutError("the caller still waits")
        if self.error:
            raise self.error
        return self.value


def take_each(iterator):
    """All of an imap, with the errors of single items in their places."""
    found = []
    while True:
        try:
            found.append(iterator.next(PATIENCE))
        except StopIteration:
            return found
        except allcores.WorkerDied as error:
            found.append(error)


def pick(caller, number):
    value = caller.get()[number]
    if isinstance(value, Exception):
        raise value
    return value


# ---- scripts ----

class Script:
    """options: of the pool. warm: the victim has run something before. born: it is traced from
    its birth on. alone: the other worker is stopped all the time. steady: what is in the
    victim's hand is the same in each run. quiet: the owner hands in all at once, and takes the
    results at the end."""

    options = {}
    warm = alone = steady = quiet = True
    born = False

    def __init__(self, pool):
        self.pool = pool
        self.outcomes = []
        self.closed = False

    def call(self, function, item, *args, expected, **more):
        result = self.pool.apply_async(function, (item, *args), **more)
        self.outcomes.append(Outcome([item], lambda: result.get(PATIENCE), expected))

    def acts(self):
        raise NotImplementedError

    def release(self):
        """Nothing waits for the next act any more."""

    def may_fail_unrun(self, failed):
        """Items of a call that failed of which some never were begun."""
        return failed

    def end(self):
        """Nothing is to be left of it."""


class Cold(Script):
    """A first call: a forked worker starts its interpreter."""

    warm = False

    def acts(self):
        self.call(square, 3, expected=9)
        yield ACTED


class Small(Script):
    """Calls with small results, one after the other without a sleep between."""

    def acts(self):
        for item in range(2):
            self.call(square, item, expected=item * item)
        yield ACTED


class Callbacks(Script):
    """The results are wanted by a thread of the pool."""

    quiet = False

    def acts(self):
        self.told = []
        for item in range(2):
            self.call(square, item, expected=item * item, callback=self.told.append,
                      error_callback=self.told.append)
        yield ACTED
        while len(self.told) < 2:
            yield WAIT


class Page(Script):
    """A result of 4 KB."""

    size = 4096

    def acts(self):
        self.call(blob, 1, self.size, expected=b"\2" * self.size)
        yield ACTED


class Block(Page):
    """A result of 100 KB."""

    size = LARGE


class Raises(Script):
    """An exception, whose pickle is tried by the worker."""

    def acts(self):
        self.call(fail, 5, expected=("as it should", 5))
        yield ACTED


class Argument(Script):
    """An argument of 100 KB."""

    def acts(self):
        self.call(total, 2, b"\3" * LARGE, expected=(2, LARGE, 3 * LARGE))
        yield ACTED


class Map(Script):
    """A map with a chunk size."""

    quiet = False
    count, size = 12, 4
    function = staticmethod(square)

    def begin(self, *args):
        items = list(range(self.count))
        self.caller = Caller(self.pool.map, self.function, items, *args)
        self.outcomes.append(Outcome(items, self.caller.get, [item * item for item in items]))

    def acts(self):
        self.begin(self.size)
        yield ACTED
        while self.caller.is_alive():
            yield WAIT

    def may_fail_unrun(self, failed):
        """The rest of one chunk."""
        unrun = [item for item in failed if not notes[item]]
        held = {item // self.size for item in unrun}
        return failed if len(held) <= 1 else []


class MeasuredMap(Map):
    """A map without a chunk size: how it is cut depends on the time."""

    steady = False

    def acts(self):
        self.begin()
        yield ACTED
        while self.caller.is_alive():
            yield WAIT

    def may_fail_unrun(self, failed):
        """Chunks are ranges, so that what was not run is one, too."""
        unrun = [item for item in failed if not notes[item]]
        is_range = not unrun or unrun[-1] - unrun[0] == len(unrun) - 1
        return failed if is_range else []


class Divided(MeasuredMap):
    """The victim's item takes long, and what else is in its chunk is taken back."""

    alone = steady = False
    function = staticmethod(wait_if_first)

    def __init__(self, pool):
        super().__init__(pool)
        path = os.path.join(FOLDER, "gate")
        if not os.path.exists(path):
            os.mkfifo(path)
        self.gate = os.open(path, os.O_RDWR)
        # Its items are short, it learns: chunks of several from the first one on.
        self.pool.map(self.function, range(1, 33))

    def acts(self):
        self.begin()
        yield ACTED
        while not notes[0]:
            yield WAIT
        os.kill(self.other, signal.SIGCONT)
        # All of them: those, too, that were in a chunk with item 0.
        wait_until(lambda: is_noted(range(1, self.count), ended=True), "the taking back")
        os.write(self.gate, b"x")
        yield ACTED
        while self.caller.is_alive():
            yield WAIT

    def release(self):
        os.write(self.gate, b"x")

    def end(self):
        os.close(self.gate)


class Imap(Script):
    """Single items of an iterator: one that is lost is lost alone."""

    quiet = False
    count = 6

    def acts(self):
        self.caller = Caller(take_each, self.pool.imap(square, range(self.count)))
        for item in range(self.count):
            self.outcomes.append(Outcome([item], lambda item=item: pick(self.caller, item),
                                         item * item))
        yield ACTED
        while self.caller.is_alive():
            yield WAIT


class Recycled(Script):
    """It leaves after its second call; another does the third."""

    options = {"maxtasksperchild": 2}
    warm = False

    def acts(self):
        for item in range(3):
            self.call(square, item, expected=item * item)
        yield ACTED


class Leaving(Script):
    """The pool is closed."""

    def acts(self):
        self.call(square, 3, expected=9)
        yield ACTED
        self.pool.close()
        self.closed = True
        self.joiner = Caller(self.pool.join)  # workers are told when somebody waits for that
        yield ACTED
        while tracer.is_alive(self.victim):
            yield WAIT

    def end(self):
        if self.closed:
            self.joiner.get()


class Starting(Cold):
    """From its birth on."""

    born = True


SCRIPTS = {script.__name__: script for script in (
    Cold, Small, Callbacks, Page, Block, Raises, Argument, Map, MeasuredMap, Divided, Imap,
    Recycled, Leaving, Starting)}


# ---- waiting and looking ----

def wait_until(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} has not happened within {seconds:g} s")
        time.sleep(0.001)


def children():
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                found += file.read().split()
        except FileNotFoundError:
            pass  # it has ended meanwhile
    return sorted(map(int, found))


SHARED = "names in /dev/shm"


def holdings():
    """What a pool takes, and is to leave."""
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "children": children(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        SHARED: sorted(os.listdir("/dev/shm")),
    }


def left(before):
    """What is not as it was: {name: (before, now)}.

    Other programs make and remove names in /dev/shm, too: one that is gone was theirs.
    """
    now = holdings()
    return {name: (before[name], now[name]) for name in now
            if (set(now[name]) - set(before[name]) if name == SHARED
                else now[name] != before[name])}


def meet(pool):
    """Both workers, each at work."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        met = Caller(pool.starmap, tasks.meet, [(folder, 2)] * 2, 1).get()
    if sorted(met) != sorted(process.pid for process in pool._pool):
        raise AssertionError(f"{met} met, of {pool._pool}")


# ---- what it is told to do ----

class Stage:
    def __init__(self, method):
        self.context = allcores.get_context(method)
        if method != "fork":
            resource_tracker.ensure_running()
        with self.context.Pool(1) as pool:  # what comes with the first pool, and stays
            pool.apply(tasks.nothing)
        pool.join()

    def open(self, name):
        """About the pool: the pids of the victim and the other, who is stopped; and the script."""
        self.before = holdings()
        made = SCRIPTS[name]
        self.pool = self.context.Pool(2, **made.options)
        victim, other = self.pids()
        for pid in (other,) if made.born else (victim, other):
            wait_until(lambda: tracer.is_ready(pid), f"a rest of {pid}")
        os.kill(other, signal.SIGSTOP)
        if made.warm:
            self.pool.apply(total, (0, b""))
        self.script = made(self.pool)
        self.script.victim, self.script.other = victim, other
        if not made.born:
            wait_until(lambda: tracer.is_ready(victim), f"a rest of {victim}")
        notes[:] = bytes(2 * ITEMS)
        self.acts = self.script.acts()
        return {"victim": victim, "other": other, "alone": made.alone, "steady": made.steady,
                "quiet": made.quiet}

    def pids(self):
        return [process.pid for process in self.pool._pool]

    def act(self):
        """True: done; False: there is nothing to do now; None: that was all."""
        return next(self.acts, None)

    def stat(self):
        return self.pool._core.stat()

    def is_closed(self):
        return self.script.closed

    def wait_replaced(self, victim):
        """The owner hears of the death before it is asked for results. With nothing handed in
        yet nobody listens."""
        if not self.script.outcomes:
            self.act()
        wait_until(lambda: victim not in self.pids(), "a replacement")

    def finish(self, killed):
        """All is checked, and everything gone: {items whose call failed}"""
        os.kill(self.script.other, signal.SIGCONT)
        self.script.release()
        if not self.script.outcomes:
            self.act()
        lost = self._check_outcomes(killed)
        if not self.script.closed:
            self._check_pool(killed)
        self._close()
        return {"lost": lost, "begun": [i for i in range(ITEMS) if notes[i]]}

    def _check_outcomes(self, killed):
        failed = [outcome for outcome in self.script.outcomes if not outcome.settle()]
        if len(failed) > bool(killed):
            raise AssertionError(f"{len(failed)} calls failed")
        for outcome in failed:
            error = outcome.error
            if (error.pid, error.signal) != (killed, "SIGKILL"):
                raise AssertionError(f"{killed} was killed, and it says {error}")
        lost = [item for outcome in failed for item in outcome.items]
        may_be_unrun = self.script.may_fail_unrun(lost)
        for item in (item for outcome in self.script.outcomes for item in outcome.items):
            if notes[item] != 1 and not (notes[item] == 0 and item in may_be_unrun):
                raise AssertionError(f"item {item} was begun {notes[item]} times; "
                                     f"lost: {lost}")
            if item not in lost and not notes[ITEMS + item]:
                raise AssertionError(f"item {item} was delivered and has not ended")
        return lost

    def _check_pool(self, killed):
        wait_until(lambda: len(self.pids()) == 2 and all(map(tracer.is_alive, self.pids())) and
                   killed not in self.pids(), "two living workers")
        if not self.script.options:  # recycled by this, they would be others
            meet(self.pool)
        if self.pool.map(abs, range(-40, 0), 1) != list(range(40, 0, -1)):
            raise AssertionError("the pool gives wrong results")
        stat = self.pool._core.stat()
        ended = stat["done"] + stat["failed"] + stat["cancelled"]
        if stat["submitted"] != ended or stat["cancelled"]:
            raise AssertionError(f"the counts are wrong: {stat}")
        # One that was recycled counts, too, if Python was quicker to ask how it ended.
        if not self.script.options and stat["deaths"] != bool(killed):
            raise AssertionError(f"{stat['deaths']} deaths are counted")

    def _close(self):
        self.pool.close()
        closer = Caller(self.pool.join)
        closer.get()
        self.script.end()
        self.pool = self.script = self.acts = closer = None
        gc.collect()
        try:
            wait_until(lambda: not left(self.before), "the end of all that is the pool's", 5)
        except TimeoutError as error:
            raise AssertionError(f"left, before and now: {left(self.before)}") from error


def commands():
    """Lines of standard input. Not by sys.stdin: a worker that is forked while a thread waits
    there would find its lock held, for ever."""
    text = b""
    while more := os.read(0, 4096):
        *lines, text = (text + more).split(b"\n")
        yield from map(json.loads, lines)


def main():
    faulthandler.register(signal.SIGXCPU, all_threads=True)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stage = Stage(sys.argv[1])
    print(json.dumps({"value": "ready"}), file=answers, flush=True)
    for name, *args in commands():
        try:
            answer = {"value": getattr(stage, name)(*args)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)

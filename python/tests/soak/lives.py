# SPDX-License-Identifier: MIT
"""The pools of the long random run: each from its opening to its end, with what was done to it.

That says which outcomes are possible: a worker that nobody killed may not have died.
"""
import collections
import gc
import itertools
import os
import signal
import threading
import time

import allcores
import tasks

BOUND = 60.0  # seconds that no wait may last
ENDS = ("close", "terminate", "with", "drop", "drop in a cycle", "close and drop")
# Workers that are killed before they are ready make a pool give up at the third in a row.
YOUNG_KILLS = 2

counts = collections.Counter()  # of the round: calls, deaths... A hint, threads may lose some.


class Wrong(Exception):
    """What must not be."""


def check(condition, *words):
    if not condition:
        raise Wrong(" ".join(map(str, words)))


def wait_until(condition, *words, seconds=BOUND):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, *words)
        time.sleep(0.002)


class Told:
    """The callbacks of one call: exactly one of them is to run, once."""

    def __init__(self):
        self.count = 0
        self.value = self.error = None

    def on_value(self, value):
        self.count += 1
        self.value = value

    def on_error(self, error):
        self.count += 1
        self.error = error


class Life:
    """One pool. Its flags are set before the deed and never taken back."""

    serial = itertools.count()

    def __init__(self, rng, method):
        self.number = next(self.serial)
        self.workers = rng.randint(1, 6)
        self.token = rng.randrange(1000) if rng.random() < 0.5 else None
        self.recycle = rng.choice((None, None, None, 1, rng.randint(2, 100)))
        self.ending = self.terminated = False
        self.killed = set()  # pids, from outside
        self.seen = set()  # pids of workers that have answered
        self.young_kills = 0
        self.late = collections.deque()  # functions that look at a result, some time later
        self.told = []  # (Told, whether its call was taken)
        self.reading = 0  # iterators that somebody still holds
        self.reading_lock = threading.Lock()
        settings = {"maxtasksperchild": self.recycle}
        if self.token is not None:
            settings.update(initializer=tasks.set_state, initargs=(self.token,))
        if rng.random() < 0.5:
            self.pool = allcores.get_context(method).Pool(self.workers, **settings)
        else:
            context = allcores.get_context(method)
            self.pool = allcores.pool.Pool(self.workers, context=context, **settings)
        counts["pools"] += 1

    def __str__(self):
        return (f"pool {self.number} ({self.workers} workers, recycle {self.recycle}, "
                f"token {self.token}, ending {self.ending}, terminated {self.terminated}, "
                f"killed {len(self.killed)})")

    # ---- what is possible ----

    def check_value(self, order, value):
        check(tasks.is_right(order, value, self.token), self, brief(order), "returned",
              repr(value)[:80])
        self.seen.add(value[1])
        counts["values"] += 1

    def check_error(self, orders, error, also=None):
        """One of these orders, or what was done to the pool, ends with this error."""
        counts[type(error).__name__] += 1
        if isinstance(error, allcores.TaskCancelled):
            possible = self.terminated
        elif isinstance(error, ValueError) and error.args == ("Pool not running",):
            possible = self.ending
        else:
            killed = (isinstance(error, allcores.WorkerDied) and error.pid in self.killed
                      and error.signal == "SIGKILL")
            possible = killed or (also is not None and error is also) or any(
                tasks.is_own_end(order, error) for order in orders)
        if not possible:
            some = [brief(o) for o in orders if o[0] not in ("now", "take", "state")][:20]
            raise Wrong(f"{self}: {len(orders)} orders {some} ended with {error!r}") from error

    def check_told(self, told, value, error):
        """The result is ready and was asked for: its callback has returned."""
        check(told.count == (not isinstance(error, allcores.TaskCancelled)), self,
              "callbacks run:", told.count, "error:", repr(error))
        if told.count:
            check(told.value is value and told.error is error, self, "told something else")

    # ---- its end ----

    def end(self, rng):
        """In one of the ways there are."""
        how = rng.choice(ENDS)
        counts[how] += 1
        self.ending = True
        pool, self.pool = self.pool, None
        if how == "with":
            self.terminated = True
            with pool:
                pass
        elif how == "terminate":
            self.terminated = True
            pool.terminate()
        elif how in ("close", "close and drop"):
            pool.close()
        counts["deaths"] += pool._core.stat()["deaths"]  # so far
        if "drop" in how:
            if how.endswith("cycle"):
                ring = [pool]
                ring.append(ring)
            return
        pool.join()
        self.check_books(pool)
        self.look_at_late()
        self.check_all_told()

    def check_books(self, pool):
        stat = pool._core.stat()
        over = stat["done"] + stat["failed"] + stat["cancelled"]
        check(stat["submitted"] == over and stat["waiting"] == stat["running"] == 0, self, stat)
        if not self.reading:  # nor will there be; what was cut stays until it is collected
            wait_until(lambda: len(pool._cache) == 0 or not gc.collect() and not pool._cache,
                       self, "_cache is not empty", seconds=BOUND / 2)

    def look_at_late(self):
        while True:
            try:
                look = self.late.popleft()
            except IndexError:
                return
            look()

    def check_all_told(self):
        for told, taken in list(self.told):
            if not taken:
                check(told.count == 0, self, "a call that was refused calls back")
            elif self.terminated:
                check(told.count <= 1, self, "callbacks run:", told.count)
            else:
                wait_until(lambda: told.count, self, "a callback has not run")
                check(told.count == 1, self, "callbacks run:", told.count)


def brief(order):
    kind, number, amount, blob = order
    return f"{kind} {number} {amount} {len(blob)}"


class Lives:
    """The pools that are open now, each in its place, and those that were."""

    def __init__(self, rng, method, count):
        self.lock = threading.Lock()
        self.open = [Life(rng, method) for _ in range(count)]
        self.gone = []

    def choose(self, rng):
        return rng.choice(self.open)

    def replace(self, rng, life):
        """Put life (or None) in the place of another: that one."""
        with self.lock:
            place = rng.randrange(len(self.open))
            old = self.open.pop(place)
            if life:
                self.open.insert(place, life)
            self.gone.append(old)
        return old

    def check_gone(self, begin):
        """Nobody uses them any more: what they owe has come or comes now."""
        for life in self.gone:
            begin(f"late results of {life}")
            life.look_at_late()
            life.check_all_told()


# ---- whoever disturbs ----

class Killer:
    """Kills workers, stops them and lets them go on, from outside."""

    def __init__(self, rng, lives):
        self.rng = rng
        self.lives = lives
        self.stopped = []  # (when to go on, pidfd)

    def run(self, is_over):
        try:
            while not is_over():
                self.strike(self.lives.choose(self.rng))
                self.resume(time.monotonic())
                time.sleep(self.rng.random() * 0.2)
        finally:
            self.resume(float("inf"))

    def resume(self, now):
        for due, pidfd in list(self.stopped):
            if due <= now:
                self.stopped.remove((due, pidfd))
                send(pidfd, signal.SIGCONT)
                os.close(pidfd)

    def strike(self, life):
        pool = life.pool
        process = pool and pool._pool and self.rng.choice(pool._pool)
        del pool
        pidfd = process and process.pid and open_pidfd(process)
        if not pidfd:
            return
        if self.rng.random() < 0.4:
            counts["stopped"] += 1
            send(pidfd, signal.SIGSTOP)
            self.stopped.append((time.monotonic() + self.rng.random() ** 6, pidfd))
            return
        young = process.pid not in life.seen
        if not young or life.young_kills < YOUNG_KILLS:
            life.young_kills += young
            life.killed.add(process.pid)
            counts["killed"] += 1
            send(pidfd, signal.SIGKILL)
        os.close(pidfd)


def open_pidfd(process):
    """None if it has ended. One that was not reaped before it was opened is the right one."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    popen = process._popen
    if popen is not None and popen.returncode is None:
        return pidfd
    os.close(pidfd)
    return None


def send(pidfd, number):
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass

# SPDX-License-Identifier: MIT
"""A thread of the owner that uses pools at random, and checks all that comes back."""
import functools
import gc
import random
import time

import allcores
import tasks
from lives import Life, Told, Wrong, check, counts

LARGE = 300_000
LATE_MOST = 100


class InputTrouble(Exception):
    """Raised by the input of an imap."""


def then_raise(items, error):
    yield from items
    if error is not None:
        raise error


def outcome_of(function, *args):
    """(value, None) or (None, exception)."""
    try:
        return function(*args), None
    except Exception as error:
        return None, error


class Hand:
    """What it does next is its own random numbers' choice."""

    def __init__(self, seed, name, method, lives):
        self.rng = random.Random(f"{seed} {name}")
        self.method = method
        self.lives = lives
        self.number = 0
        self.name = name
        self.doing, self.since = "nothing", time.monotonic()
        # What costs the start of a process: deaths, recycled workers.
        self.deadly, self.starts = (0.03, 20) if method == "fork" else (0.01, 3)

    def run(self, is_over):
        acts = (self.apply, self.call, self.call, self.call_back, self.map, self.map_async,
                self.map_async, self.imap, self.imap, self.look)
        while not is_over():
            life = self.lives.choose(self.rng)
            pool = life.pool  # whatever becomes of life.pool meanwhile
            act = self.rng.choice(acts)
            if pool is not None:
                self.begin(f"{act.__name__} {life}")
                act(life, pool)
                counts["calls"] += 1
            del pool
            if self.rng.random() < 0.05:
                self.replace()
            elif self.rng.random() < 0.01:
                self.begin("gc")
                gc.collect()
            elif self.rng.random() < 0.005:
                self.fail_to_start()
        self.begin("nothing")

    def begin(self, what):
        self.doing, self.since = what, time.monotonic()

    # ---- orders ----

    def order(self, deadly=1.0, light=False):
        """light: one of many, so mostly quick and small."""
        rng = self.rng
        self.number += 1
        number = self.number
        chance = rng.random()
        if chance < self.deadly * deadly:
            if rng.random() < 0.2:
                return "leave", number, 3, b""
            return "die", number, rng.choice(tasks.DEATHS), b""
        if chance > (0.995 if light else 0.9):
            return rng.choice(list(tasks.BAD)), number, 1, b""
        size = 1 + int(LARGE * rng.random() ** (40 if light else 8))
        kind = "now" if light and rng.random() < 0.9 else rng.choice(list(tasks.FINE))
        if light and kind.startswith("fork"):
            kind = "now"
        if kind in ("burn", "nap"):
            size = int(20_000 * rng.random() ** 4) + 1  # microseconds, and bytes of result
        blob = tasks.fill(number + 1, size) if kind == "take" else b""
        return kind, number, size, blob

    def orders(self, life):
        """Where each costs the start of a process: few."""
        most = min(2000, self.starts * life.workers * (life.recycle or 2000))
        count = int(most * self.rng.choice((0.01, 0.1, 1)) * self.rng.random())
        deadly = self.rng.choice((0, 0, 2 / (count + 1)))
        return [self.order(deadly, light=True) for _ in range(count)]

    # ---- single calls ----

    def function_and_args(self, order):
        """The same call in one of its forms."""
        form = self.rng.randrange(5)
        if form == 0:
            return tasks.do_star, order, {}
        if form == 1:
            return functools.partial(tasks.do_star, order[0]), order[1:], {}
        if form == 2:
            return tasks.Clerk().do, (order,), {}
        if form == 3:
            return tasks.do, (), {"order": order}
        return tasks.do, (order,), {}

    def apply(self, life, pool):
        order = self.order()
        value, error = outcome_of(pool.apply, *self.function_and_args(order))
        self.check_call(life, order, value, error)

    def check_call(self, life, order, value, error, told=None):
        self.since = time.monotonic()
        if error is None:
            life.check_value(order, value)
        else:
            life.check_error([order], error)
        if told:
            life.check_told(told, value, error)

    def call(self, life, pool):
        """apply_async, several at once."""
        for _ in range(self.burst(life)):
            order = self.order(light=True)
            result, error = outcome_of(pool.apply_async, *self.function_and_args(order))
            if error:
                life.check_error([], error)
                return
            self.end_call(life, order, result, None)

    def call_back(self, life, pool):
        for _ in range(self.burst(life)):
            order, told = self.order(light=True), Told()
            function, args, kwds = self.function_and_args(order)
            result, error = outcome_of(
                pool.apply_async, function, args, kwds, told.on_value, told.on_error)
            life.told.append((told, error is None))
            if error:
                life.check_error([], error)
                return
            self.end_call(life, order, result, told)

    def burst(self, life):
        return min(self.rng.choice((1, 3, 30)), self.starts * (life.recycle or 2))

    def end_call(self, life, order, result, told):
        def look():
            self.check_call(life, order, *outcome_of(result.get), told)
        self.end_result(life, result, look)

    def end_result(self, life, result, look):
        """Ask now, later or never."""
        how = self.rng.random()
        if how < 0.2:
            counts["dropped"] += 1
        elif how < 0.7 and len(life.late) < LATE_MOST:
            life.late.append(look)
        else:
            self.wait(result)
            look()

    def wait(self, result):
        """In one of the ways there are; not longer than asked for."""
        seconds = self.rng.random() ** 6
        began = time.monotonic()
        if self.rng.random() < 0.5:
            result.wait(seconds)
            if not result.ready():
                check(time.monotonic() - began >= seconds, "wait returns too early")
        else:
            try:
                result.get(seconds)
            except allcores.TimeoutError:
                check(time.monotonic() - began >= seconds, "get returns too early")
            except Exception:
                check(result.ready() and not result.successful(), "an error, but no failure")
        if self.rng.random() < 0.5:
            result.wait()
            check(result.ready(), "waited for and not ready")

    # ---- maps ----

    def choose_map(self, life):
        """Names of the method and its function, the orders, the chunk size."""
        orders = self.orders(life)
        chunksize = self.rng.choice((None, None, 1, 7, 100))
        name = self.rng.choice(("map", "starmap"))
        function = tasks.do_star if name == "starmap" else tasks.do
        items = self.rng.choice((list, tuple, iter))(orders)
        return name, function, items, chunksize, orders

    def map(self, life, pool):
        name, function, items, chunksize, orders = self.choose_map(life)
        self.check_map(
            life, orders, *outcome_of(getattr(pool, name), function, items, chunksize))

    def check_map(self, life, orders, values, error, told=None):
        """All, or one failure."""
        self.since = time.monotonic()
        if error is None:
            check(len(values) == len(orders), life, "a map's length:", len(values), len(orders))
            for order, value in zip(orders, values):
                life.check_value(order, value)
        else:
            life.check_error(orders, error)
        if told:
            life.check_told(told, values, error)

    def map_async(self, life, pool):
        name, function, items, chunksize, orders = self.choose_map(life)
        told, callbacks = None, ()
        if orders and self.rng.random() < 0.5:  # that of an empty map is never called
            told = Told()
            callbacks = told.on_value, told.on_error
        result, error = outcome_of(
            getattr(pool, name + "_async"), function, items, chunksize, *callbacks)
        if told:
            life.told.append((told, error is None))
        if error:
            life.check_error([], error)
            return

        def look():
            self.check_map(life, orders, *outcome_of(result.get), told)
        self.end_result(life, result, look)

    # ---- iterators ----

    def imap(self, life, pool):
        with life.reading_lock:
            life.reading += 1
        try:
            self.read(life, pool)
        finally:
            with life.reading_lock:
                life.reading -= 1

    def read(self, life, pool):
        orders = self.orders(life)
        trouble = InputTrouble() if self.rng.random() < 0.2 else None
        items = orders if trouble is None and self.rng.random() < 0.5 else \
            then_raise(orders, trouble)
        chunksize = self.rng.choice((1, 1, 5, 50))
        name = self.rng.choice(("imap", "imap_unordered"))
        found, error = outcome_of(getattr(pool, name), tasks.do, items, chunksize)
        if error:
            life.check_error([], error)
            return
        del pool
        most = self.rng.choice((len(orders) + 1, len(orders) + 1, len(orders) // 2, 1))
        rows = self.read_some(found, most)
        del found
        if name == "imap":
            self.check_ordered(life, orders, chunksize, trouble, rows, most)
        else:
            self.check_unordered(life, orders, chunksize, trouble, rows, most)

    def read_some(self, found, most):
        """Outcomes, at most so many; with chunks the first error but a WorkerDied ends the iterator."""
        rows = []
        while len(rows) < most:
            value, error = outcome_of(next, found)
            self.since = time.monotonic()
            if isinstance(error, StopIteration):
                break
            rows.append((value, error))
            if isinstance(error, allcores.TaskCancelled):
                break
        return rows

    def check_ordered(self, life, orders, chunksize, trouble, rows, most):
        at = 0
        for value, error in rows:
            if error is None:
                check(at < len(orders), life, "imap: more than there is")
                life.check_value(orders[at], value)
            else:
                late = chunksize > 1 or at == len(orders)
                life.check_error(
                    orders[at : at + chunksize], error, trouble if late else None)
            at += 1 if error is None else min(chunksize, len(orders) - at)
        self.check_length(life, orders, chunksize, trouble, rows, most)

    def check_unordered(self, life, orders, chunksize, trouble, rows, most):
        missing = {order[1]: order for order in orders}
        failures = []
        for value, error in rows:
            if error is None:
                check(value[0] in missing, life, "imap_unordered: twice", value[0])
                life.check_value(missing.pop(value[0]), value)
            else:
                failures.append(error)
        for error in failures:
            life.check_error(list(missing.values()), error, trouble)
        if chunksize == 1:
            check(len(failures) <= len(missing) + (trouble is not None), life,
                  "imap_unordered: more failures than items")
        self.check_length(life, orders, chunksize, trouble, rows, most)

    def check_length(self, life, orders, chunksize, trouble, rows, most):
        """Read to its end, there is an outcome for each item, and one for the input's error."""
        errors = [error for _, error in rows if error is not None]
        if any(isinstance(error, allcores.TaskCancelled) for error in errors):
            return
        if chunksize > 1 and errors:
            ends = [error for error in errors if not isinstance(error, allcores.WorkerDied)]
            check(ends in ([], [rows[-1][1]]), life, "an iterator that goes on after its end")
            return
        expected = min(most, len(orders) + (trouble is not None))
        check(len(rows) == expected, life, "results:", len(rows), "expected:", expected)
        if len(rows) > len(orders):
            check(trouble in errors, life, "the input's error is missing")

    # ---- other ----

    def look(self, life, pool):
        """At the pool, while others use it; at results of some time ago."""
        stat = pool._core.stat()
        parts = [stat[name] for name in ("waiting", "running", "done", "failed", "cancelled")]
        check(stat["submitted"] == sum(parts), life, stat)
        check(len(pool._cache) >= 0 and f"pool_size={life.workers}" in repr(pool), repr(pool))
        for _ in range(min(10, len(life.late))):
            try:
                look = life.late.popleft()
            except IndexError:
                return
            look()

    def replace(self):
        """Another pool in the place of one, which is then ended while others still use it."""
        self.begin("opening")
        old = self.lives.replace(self.rng, Life(self.rng, self.method))
        self.begin(f"ending {old}")
        old.end(self.rng)

    def fail_to_start(self):
        self.begin("an initializer that raises")
        counts["failed starts"] += 1
        with allcores.get_context(self.method).Pool(
                2, tasks.fail_start, (3,)) as pool:
            try:
                pool.apply(tasks.do, (("now", 1, 1, b""),))
            except allcores.StartError as error:
                check("SystemExit: 3" in str(error), repr(error))
                return
        raise Wrong("an initializer that raises was not told")

# SPDX-License-Identifier: MIT
"""Turns about tasks: how many a second, how long one takes, how fast large ones travel.

A turn is a function of a contestant's class and some parameters. It returns figures by
name, and raises when a result is wrong.
"""
import time
from collections.abc import Callable
from typing import Any

import jobs

WORKERS = 2

CALLS: dict[str, Callable[[Any, list], list]] = {
    "map": lambda pool, items: pool.map(jobs.noop, items),
    "map 1": lambda pool, items: pool.map(jobs.noop, items, 1),
    "map range": lambda pool, items: pool.map(jobs.noop, range(len(items))),
    "map 100": lambda pool, items: pool.map(jobs.noop, items, 100),
    "starmap": lambda pool, items: pool.starmap(jobs.noop_first, items),
    "imap": lambda pool, items: pool.imap(jobs.noop, items),
    "imap 100": lambda pool, items: pool.imap(jobs.noop, items, 100),
    "imap_unordered": lambda pool, items: pool.imap_unordered(jobs.noop, items),
    "imap_unordered 100": lambda pool, items: pool.imap_unordered(jobs.noop, items, 100),
    "apply_async": lambda pool, items: pool.submit_all(jobs.noop, items),
    "callbacks": lambda pool, items: pool.submit_all_callback(jobs.noop, items),
}
UNORDERED = ("imap_unordered", "imap_unordered 100", "callbacks")


def expect(there, wanted, what: str) -> None:
    if there != wanted:
        raise AssertionError(f"wrong result: {what}")


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def timed(function, *args) -> tuple[float, Any]:
    """(seconds, what it returned)"""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def rate(contestant, call: str, long: bool = False, share: float = 1, seconds: float = 0.4):
    """No-op tasks a second, in batches; the first batch does not count."""
    pool = contestant(WORKERS, "fork")
    wanted = list(range(int((contestant.bulk if long else contestant.few) * share)))
    items: list = [(i, i) for i in wanted] if call == "starmap" else wanted
    CALLS[call](pool, items)
    spent, batches = 0.0, 0
    while spent < seconds:
        took, results = timed(CALLS[call], pool, items)
        expect(sorted(results) if call in UNORDERED else results, wanted, call)
        spent += took
        batches += 1
    pool.close()
    return {"rate": batches * len(items) / spent}


def _apply_times(pool, count: int) -> list[float]:
    """Of one apply after the other, µs; the first tenth does not count."""
    times = []
    for i in range(count + count // 10):
        took, result = timed(pool.apply, jobs.noop, i)
        expect(result, i, "apply")
        times.append(took * 1e6)
    return times[count // 10:]


def latency(contestant, count: int = 2000):
    """One apply after the other, µs."""
    pool = contestant(WORKERS, "fork")
    times = _apply_times(pool, count)
    pool.close()
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def latency_after(contestant, items: int, count: int = 1000):
    """The same in a pool that has done a large map of strings, µs."""
    pool = contestant(WORKERS, "fork")
    words = [str(i) for i in range(items)]
    expect(pool.map(jobs.noop, words), words, "map")
    times = _apply_times(pool, count)
    pool.close()
    return {"p50": percentile(times, 0.5)}


def small_map(contestant, items: int, count: int = 500):
    """One map of a few no-ops after the other, µs."""
    pool = contestant(WORKERS, "fork")
    things = list(range(items))
    for i in range(count // 10):
        pool.map(jobs.noop, things)
    times = []
    for i in range(count):
        took, results = timed(pool.map, jobs.noop, things)
        expect(results, things, "map")
        times.append(took * 1e6)
    pool.close()
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def raising(contestant, count: int = 500):
    """One apply that raises after the other, µs."""
    pool = contestant(WORKERS, "fork")
    times = []
    for i in range(count):
        start = time.perf_counter()
        try:
            pool.apply(jobs.fail, i)
        except ValueError as error:
            times.append((time.perf_counter() - start) * 1e6)
            expect(error.args, (i,), "exception")
    expect(len(times), count, "exceptions")
    pool.close()
    return {"p50": percentile(times, 0.5)}


def _payload(kind: str, way: str, size: int):
    """(function, makes its argument, checks its result)"""
    if kind == "numpy":
        def make():
            return jobs.fresh_array(size)

        def whole(result):
            return result.nbytes == size and result[0] == 1 == result[-1]
    else:
        def make():
            return jobs.fresh_bytes(size)

        def whole(result):
            return len(result) == size and result[0] == 120 == result[-1]
    if way == "in":
        return (jobs.array_length if kind == "numpy" else jobs.length), make, size.__eq__
    if way == "out":
        return (jobs.fresh_array if kind == "numpy" else jobs.fresh_bytes), lambda: size, whole
    return jobs.noop, make, whole


def payload(contestant, kind: str, way: str, size: int, seconds: float = 0.4):
    """MB/s of a large argument, result or both; a new object each time, one call at a time."""
    function, make, whole = _payload(kind, way, size)
    pool = contestant(WORKERS, "fork")
    moved = size * (2 if way == "in and out" else 1)
    spent, calls = 0.0, -2    # the first two don't count: each worker's first
    while calls < 1 or spent < seconds:
        argument = make()
        took, result = timed(pool.apply, function, argument)
        if not whole(result):
            raise AssertionError(f"wrong result: {kind} {way}")
        del result, argument
        calls += 1
        if calls > 0:
            spent += took
    pool.close()
    return {"speed": calls * moved / spent / 1e6}


def payload_map(contestant, size: int, items: int):
    """MB/s of a map with default chunks over buffers, there and back."""
    pool = contestant(WORKERS, "fork")
    buffers = [bytes([65 + i % 64]) * size for i in range(items)]
    pool.map(jobs.noop, buffers)
    spent, rounds = 0.0, 0
    while spent < 0.4:
        took, results = timed(pool.map, jobs.noop, buffers)
        expect(results, buffers, "map of buffers")
        spent += took
        rounds += 1
    pool.close()
    return {"speed": 2 * size * items * rounds / spent / 1e6}


def naps(contestant, workers: int):
    """The 50 sleeps in a pool whose workers are ready, seconds."""
    calls = jobs.naps()
    pool = contestant(workers, "fork")
    expect(pool.map(jobs.noop, list(range(4 * workers))), list(range(4 * workers)), "map")
    time.sleep(0.2)
    took, results = timed(pool.starmap, jobs.nap_and_add, calls)
    expect(results, [a + b for a, b, _ in calls], "sleeps")
    pool.close()
    return {"map": took}


def work(contestant, program: str, workers: int):
    """A whole computation with opening and closing the pool, seconds."""
    start = time.perf_counter()
    pool = contestant(workers, "fork")
    if program == "sieve":
        results = pool.map(jobs.sieve, jobs.sieve_limits())
    else:
        tasks = [pool.submit(jobs.do_the_maths, *part) for part in jobs.maths_ranges(workers)]
        results = [task() for task in tasks]
    pool.close()
    took = time.perf_counter() - start
    expect(results[0], _first_result(program, workers), program)
    return {"s": took}


def _first_result(program: str, workers: int):
    if program == "sieve":
        return jobs.sieve(jobs.sieve_limits()[0])
    return jobs.do_the_maths(*jobs.maths_ranges(workers)[0])


def loop(_contestant, program: str, workers: int):
    """The same as a plain loop on one core, seconds."""
    start = time.perf_counter()
    if program == "sieve":
        for limit in jobs.sieve_limits():
            jobs.sieve(limit)
    else:
        for part in jobs.maths_ranges(workers):
            jobs.do_the_maths(*part)
    return {"s": time.perf_counter() - start}


def loops_at_once(_contestant, program: str, workers: int):
    """The same shared out beforehand to bare forks: what the machine makes of it, seconds."""
    import os

    start = time.perf_counter()
    children = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            if program == "sieve":
                for limit in jobs.sieve_limits()[number::workers]:
                    jobs.sieve(limit)
            else:
                jobs.do_the_maths(*jobs.maths_ranges(workers)[number])
            os._exit(0)
        children.append(pid)
    for pid in children:
        expect(os.waitpid(pid, 0)[1], 0, "fork")
    return {"s": time.perf_counter() - start}

# SPDX-License-Identifier: MIT
"""What the workers do. A module of its own with few imports: spawned workers import it."""
import os
import time

NAPS = 50
NAP_SCALE = 1 / 20


def noop(item):
    return item


def noop_first(item, _other):
    return item


def fail(item):
    raise ValueError(item)


def length(data) -> int:
    return len(data)


def fresh_bytes(size: int) -> bytes:
    return b"x" * size


def fresh_array(size: int):
    """A new array of so many bytes, its pages touched."""
    import numpy

    return numpy.ones(size // 8)


def array_length(array) -> int:
    return array.nbytes


def nap_and_add(a: int, b: int, seconds: float) -> int:
    time.sleep(seconds)
    return a + b


def naps() -> list[tuple[int, int, float]]:
    """Arguments of 50 calls that sleep 1 to 3 s, scaled down; the same in every run."""
    import random   # heavy, and spawned workers import this module

    source = random.Random(42)
    return [(i, 2 * i, source.uniform(1, 3) * NAP_SCALE) for i in range(NAPS)]


def short_naps() -> list[tuple[int, int, float]]:
    """Arguments of 50 calls that sleep 10 to 20 ms, evenly spread, in a scattered order."""
    return [(i, 2 * i, (10 + i * 37 % NAPS / 5) / 1000) for i in range(NAPS)]


def nap_and_tell_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def come_and_wait(come: int, gate: int) -> bytes:
    """Tell the owner through one inherited pipe, then wait for a byte from another."""
    os.write(come, b".")
    return os.read(gate, 1)


def tell_pid_and_wait(pipe: int) -> None:
    """Write the worker's pid into an inherited pipe, then sleep longer than anybody waits."""
    if pipe >= 0:
        os.write(pipe, b"%d\n" % os.getpid())
        time.sleep(600)


def sieve(limit: int) -> int:
    """How many primes are below the limit, the way people write it first."""
    flags = [True] * limit
    for n in range(2, int(limit ** 0.5) + 1):
        if flags[n]:
            for m in range(n * n, limit, n):
                flags[m] = False
    return flags.count(True) - 2


def do_the_maths(first: int, end: int) -> float:
    """Waste time on a range of numbers."""
    total = 0.0
    for n in range(first, end):
        total += n ** 0.5 * (n % 7)
    return total


def sieve_limits() -> list[int]:
    """100 jobs, about 2 s on one core."""
    return [250_000 - i * 100 for i in range(100)]


def maths_ranges(parts: int) -> list[tuple[int, int]]:
    """About 2 s on one core, cut in so many ranges."""
    end = 24_000_000
    marks = [end * i // parts for i in range(parts + 1)]
    return list(zip(marks, marks[1:]))

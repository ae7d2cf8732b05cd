# SPDX-License-Identifier: MIT
"""Calls with several arguments that sleep, in pools of different sizes.

They sleep as programs do that wait for a disk or a network: sleeping needs no processor, so
here a pool may well be larger than the machine.
"""
import random
import time

import allcores as multiprocessing
from example import Work, arguments, expect

SIZES = 1, 2, 4, 6, 8, 10, 12, 14, 18, 50


def add_slowly(a, b, nap):
    time.sleep(nap)
    return a + b


def main():
    calls, shortest, longest = arguments(
        __doc__, calls=(50, "how many calls"),
        shortest=(10, "shortest sleep in ms (originally 1000)"),
        longest=(30, "longest sleep in ms (originally 3000)"))
    random.seed(50)
    items = [(i, 2 * i, random.uniform(shortest, longest) / 1000) for i in range(calls)]

    work = Work()
    expected = [work.do(add_slowly, *item) for item in items]
    print(f"{calls} calls one after the other: {work.total:.3f} s, "
          f"the longest {work.longest:.3f} s")

    for size in SIZES:
        start = time.monotonic()
        with multiprocessing.Pool(size) as pool:
            sums = pool.starmap(add_slowly, items)
        took = time.monotonic() - start
        expect(sums == expected, f"the pool of {size} and the loop disagree")
        work.report(f"pool of {size:2}", took, size)
    expect(expected == [3 * i for i in range(calls)], "the sums themselves")


if __name__ == "__main__":
    main()

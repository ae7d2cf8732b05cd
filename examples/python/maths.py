# SPDX-License-Identifier: MIT
"""Arithmetic, cut in one range for each processor.

One long loop becomes as many calls as there are processors. apply_async hands them in and doesn't
wait; close says that no more will come, and join waits for all of them.
"""
import math
import time

import allcores as multiprocessing
from example import Work, arguments, expect, processors


def waste_time(first, end):
    total = 0.0
    for number in range(first, end):
        total += math.sqrt(number)
    return total


def main():
    numbers, = arguments(__doc__, numbers=(20000000, "how many numbers to waste time on"))
    count = multiprocessing.cpu_count()
    ranges = [(numbers * i // count, numbers * (i + 1) // count) for i in range(count)]

    work = Work()
    expected = [work.do(waste_time, *bounds) for bounds in ranges]

    start = time.monotonic()
    pool = multiprocessing.Pool()
    results = [pool.apply_async(func=waste_time, args=bounds) for bounds in ranges]
    pool.close()
    pool.join()
    work.report("maths", time.monotonic() - start, processors())

    sums = [result.get() for result in results]
    expect(sums == expected, "the pool and the loop disagree")
    estimate = 2 / 3 * numbers ** 1.5  # the integral of the square root
    expect(abs(sum(sums) - estimate) <= math.sqrt(numbers), "the sum itself")
    print(f"the sum of {numbers} square roots is {sum(sums):.6g}")


if __name__ == "__main__":
    main()

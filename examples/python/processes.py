# SPDX-License-Identifier: MIT
"""Sums of long lists, one process for each.

Single processes without a pool. Started and joined one after the other nothing runs at the
same time; started first and joined afterwards they run side by side.
"""
import time

import allcores as multiprocessing
from example import Work, arguments, expect, processors

SIZES = 11, 23, 53, 34


def sum_list(size):
    numbers = list(range(size))
    total = sum(numbers)
    print(f"the sum of {size} numbers is {total}", flush=True)
    # In a process of its own this makes the exit code: 0, or 1 and the message.
    expect(total == size * (size - 1) // 2, f"the sum of {size} numbers is not {total}")


def join(process):
    process.join()
    expect(process.exitcode == 0, f"{process.name} ended with {process.exitcode}")


def main():
    unit, = arguments(__doc__, unit=(
        50000, "the lists have 11, 23, 53, 34 times as many numbers (originally 1000000)"))
    sizes = [size * unit for size in SIZES]

    work = Work()
    for size in sizes:
        work.do(sum_list, size)

    # One after the other: isolated from this process, but no faster than a loop.
    start = time.monotonic()
    for size in sizes:
        process = multiprocessing.Process(target=sum_list, args=(size,))
        process.start()
        join(process)
    work.report("one after the other", time.monotonic() - start, 1)

    start = time.monotonic()
    processes = [multiprocessing.Process(target=sum_list, args=(size,)) for size in sizes]
    for process in processes:
        process.start()
    for process in processes:
        join(process)
    work.report("side by side", time.monotonic() - start, processors(len(sizes)))


if __name__ == "__main__":
    main()

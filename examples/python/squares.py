# SPDX-License-Identifier: MIT
"""Squares after a sleep, printed by the workers.

The squares of 1 to 4, first in a loop, then in a pool of 8. What workers print comes out where
the program's own output does.
"""
import functools
import time

import allcores as multiprocessing
from example import Work, arguments, expect


def print_square(nap, number):
    time.sleep(nap)
    name = multiprocessing.current_process().name
    # Without flush, print keeps text back while the output is a file or a pipe.
    print(f"{name}: the square of {number} is {number * number}", flush=True)
    return number * number


def main():
    ms, = arguments(__doc__, ms=(200, "the sleep before each square (originally 2000)"))
    square = functools.partial(print_square, ms / 1000)  # the first argument is given
    numbers = [1, 2, 3, 4]

    work = Work()
    for number in numbers:
        work.do(square, number)

    start = time.monotonic()
    with multiprocessing.Pool(8) as pool:
        squares = pool.map(square, numbers)
    work.report("pool of 8", time.monotonic() - start, 4)

    expect(squares == [1, 4, 9, 16], f"the squares are {squares}")


if __name__ == "__main__":
    main()

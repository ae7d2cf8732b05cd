# SPDX-License-Identifier: MIT
"""Four calls that take 2 s each, in a pool of 8: squares.py MODULE, which replaces an import."""
import sys
import time

multiprocessing = __import__(sys.argv[1])


def square(number):
    time.sleep(2)
    print(number * number, flush=True)


if __name__ == "__main__":
    with multiprocessing.Pool(8) as pool:
        pool.map(square, [1, 2, 3, 4])

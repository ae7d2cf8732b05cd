# SPDX-License-Identifier: MIT
"""Sieve of Eratosthenes in a pool.

The first program to read: a loop over independent jobs, done on every core by Pool.map. The
jobs count the primes below a hundred different limits.
"""
import time

import allcores as multiprocessing
from example import Work, arguments, expect, processors


def primes_below(limit):
    is_prime = bytearray([False, False] + [True] * (limit - 2))  # a byte for each number
    for n in range(2, int(limit ** 0.5) + 1):
        if is_prime[n]:
            for multiple in range(n * n, limit, n):
                is_prime[multiple] = False
    return sum(is_prime)


def main():
    jobs, limit, workers = arguments(
        __doc__, jobs=(100, "how many limits"), limit=(200000, "the smallest limit"),
        workers=(multiprocessing.cpus(), "size of the pool"))
    limits = [limit + i for i in range(jobs)]

    # The same jobs as a plain loop: what the pool must find, and how long it may take.
    work = Work()
    expected = [work.do(primes_below, limit) for limit in limits]

    start = time.monotonic()
    with multiprocessing.Pool(workers) as pool:
        counts = pool.map(primes_below, limits)
    took = time.monotonic() - start

    expect(counts == expected, "the pool and the loop disagree")
    expect(primes_below(10000) == 1229, "the sieve itself")
    print(f"{jobs} sieves, {counts[0]} primes below {limits[0]}")
    # More workers than processors can't be faster: the floor counts processors.
    work.report("sieve", took, processors(workers))


if __name__ == "__main__":
    main()

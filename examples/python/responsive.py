# SPDX-License-Identifier: MIT
"""A pool of all processors but two.

They are left to everybody else, so that the machine stays responsive: meanwhile this process
wakes up ten times a second, and tells how late it was at worst.
"""
import time

import allcores as multiprocessing
from example import Work, arguments, expect, processors
from sieve import primes_below


def main():
    jobs, limit, leave = arguments(
        __doc__, jobs=(100, "how many sieves"), limit=(200000, "count the primes below this"),
        leave=(2, "how many processors to leave alone"))
    limits = [limit] * jobs

    work = Work()
    expected = [work.do(primes_below, limit) for limit in limits]

    start = time.monotonic()
    workers = multiprocessing.cpus(leave=leave)  # one at least
    late = 0.0
    with multiprocessing.Pool(workers) as pool:
        result = pool.map_async(primes_below, limits)
        while not result.ready():
            before = time.monotonic()
            result.wait(timeout=0.1)
            late = max(late, time.monotonic() - before - 0.1)
        counts = result.get()
    took = time.monotonic() - start

    expect(workers == max(1, processors() - leave), f"the pool had {workers} workers")
    expect(counts == expected, "the pool and the loop disagree")
    print(f"{workers} of {processors()} processors used; this process was {late * 1e3:.1f} ms "
          "late at worst")
    work.report("responsive", took, workers)


if __name__ == "__main__":
    main()

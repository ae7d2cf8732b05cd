# SPDX-License-Identifier: MIT
"""Named arguments, and results that are kept and read later.

Jobs start in the order in which they were handed in: each worker's own record shows it.
"""
import os
import time

import allcores as multiprocessing
from example import Work, arguments, expect, processors
from sieve import primes_below


def count_primes(start, below):
    """How many primes there are, and who began to count them when."""
    began = time.monotonic()
    return primes_below(below) - primes_below(start), os.getpid(), began


def count_in_pool(workers, jobs):
    pool = multiprocessing.Pool(workers)
    results = [pool.apply_async(count_primes, kwds=job) for job in jobs]
    pool.close()
    answers = [result.get() for result in results]
    pool.join()
    return answers


def check_order(answers):
    """No worker may have begun a job before one that was handed in earlier."""
    last = {}
    for number, (_, worker, began) in enumerate(answers):
        expect(began >= last.get(worker, 0), f"job {number} began before an earlier one")
        last[worker] = began


def main():
    count, limit = arguments(__doc__, jobs=(100, "how many jobs"),
                             limit=(150000, "count the primes below this"))
    jobs = [{"below": limit + i, "start": limit // 10} for i in range(count)]

    work = Work()
    expected = [work.do(count_primes, **job)[0] for job in jobs]

    # With one worker the order of the starts is the order of all jobs.
    for workers in 1, processors():
        start = time.monotonic()
        answers = count_in_pool(workers, jobs)
        took = time.monotonic() - start
        expect([answer[0] for answer in answers] == expected,
               f"the pool of {workers} and the loop disagree")
        check_order(answers)
        work.report(f"pool of {workers}", took, workers)
    print(f"{count} jobs started in the order in which they were handed in")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Python's part of the demonstration: the jobs of sieve.py or sleeps.py, done in one way.

The counterpart of demo.c: in a loop, in bare forks or in a pool, with a record of who ran what
when. Prints JSON, an event as [worker, task, items, start, end] in nanoseconds.
"""
import argparse
import json
import os
import sys
import time

import allcores as multiprocessing
from sieve import primes_below
from sleeps import add_slowly


def make_job(name, percent):
    """A list of calls: a function and its arguments."""
    if name == "sieve":
        return [(primes_below, 2500 * percent - i) for i in range(100)]
    # From 25 to 75 ms, the same in C and Python: evenly spread, in a scattered order.
    return [(add_slowly, i, 2 * i, percent * (25 + i * 37 % 50) / 100000) for i in range(50)]


def record(function, *args):
    """What the function returns, and who ran it when."""
    start = time.monotonic_ns()
    result = function(*args)
    return result, os.getpid(), start, time.monotonic_ns()


def run_loop(job, _):
    return [record(*call) for call in job]


def run_forks(job, workers):
    """What this machine really gives: bare processes, every one with its share of the jobs
    settled beforehand, and no results."""
    children = []
    for n in range(workers):
        pid = os.fork()
        if pid == 0:
            for function, *args in job[n::workers]:
                function(*args)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    return []


def run_pool(job, workers):
    with multiprocessing.Pool(workers) as pool:
        return pool.starmap(record, job)


def main():
    ways = {"loop": run_loop, "forks": run_forks, "pool": run_pool}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=["sieve", "sleeps"])
    parser.add_argument("way", choices=list(ways))
    parser.add_argument("workers", type=int, nargs="?", default=multiprocessing.cpus())
    parser.add_argument("percent", type=int, nargs="?", default=100,
                        help="how long the jobs are (%(default)s)")
    args = parser.parse_args()

    job = make_job(args.job, args.percent)
    start, cpu = time.monotonic_ns(), time.process_time_ns()
    records = ways[args.way](job, args.workers)
    took, cpu = time.monotonic_ns() - start, time.process_time_ns() - cpu
    print(json.dumps({
        "engine": multiprocessing.engine,
        "took_ns": took,
        "cpu_ns": cpu,
        "results": [result for result, _, _, _ in records],
        "events": [[pid, task, 1, begun - start, ended - start]
                   for task, (_, pid, begun, ended) in enumerate(records, 1)],
    }))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

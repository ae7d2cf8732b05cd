# SPDX-License-Identifier: MIT
"""Asynchronous calls and what can become of them.

Waiting with a limit, callbacks, a function that fails and says why, a worker that is killed.
Whatever happens to one call, the others go on.
"""
import os
import signal
import time

import allcores as multiprocessing
from example import arguments, expect


def nap(seconds):
    time.sleep(seconds)
    return seconds


def divide(a, b):
    return a // b


def die():
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out


def report(what, start, floor):
    print(f"  {what}: {(time.monotonic() - start) * 1e3:.1f} ms, floor {floor * 1e3:.1f} ms")


def wait_with_limit(pool, seconds):
    """Running out of patience doesn't disturb the call: one may wait again."""
    start = time.monotonic()
    result = pool.apply_async(nap, (seconds,))
    try:
        result.get(timeout=seconds / 4)
        expect(False, "a short wait was long enough")
    except multiprocessing.TimeoutError:
        print("a short wait: TimeoutError")
    report("given up", start, seconds / 4)
    expect(result.get() == seconds, "the call returned something else")
    report("waited again", start, seconds)


def call_back(pool):
    """Callbacks come one after the other: what only they use needs no lock."""
    quotients, errors = [], []
    results = [pool.apply_async(divide, (100, i), callback=quotients.append,
                                error_callback=errors.append) for i in range(10)]
    for result in results:
        result.wait()  # for the callback, too
    expect(sum(quotients) == 281 and len(quotients) == 9, f"the quotients are {quotients}")
    expect([type(error) for error in errors] == [ZeroDivisionError], f"the errors are {errors}")
    print(f"callbacks: {len(quotients)} with a result, {len(errors)} with an error")


def fail(pool):
    """What a function raises is raised again where its result is asked for."""
    try:
        pool.apply(divide, (7, 0))
        expect(False, "7 was divided by 0")
    except ZeroDivisionError as error:
        print(f"a failure: {error!r}, and its cause is the worker's traceback")
        expect("return a // b" in str(error.__cause__), "the traceback is lost")


def lose_worker(pool, seconds):
    """Here the standard library's pool waits for ever."""
    if multiprocessing.engine == "stdlib":
        print("a killed worker: left out, since nobody would ever tell")
        return
    beside = pool.apply_async(nap, (seconds,))
    start = time.monotonic()
    try:
        pool.apply(die)
        expect(False, "a killed call returned")
    except multiprocessing.WorkerDied as error:
        print(f"a killed worker: {error}")
    print(f"  told after {(time.monotonic() - start) * 1e3:.1f} ms")
    expect(beside.get() == seconds, "the call beside it was disturbed")
    expect(pool.apply(divide, (6, 3)) == 2, "there is no new worker")


def main():
    ms, = arguments(__doc__, ms=(200, "how long the calls sleep"))
    with multiprocessing.Pool(2) as pool:
        wait_with_limit(pool, ms / 1000)
        call_back(pool)
        fail(pool)
        lose_worker(pool, ms / 1000)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Turns about whole programs, what pools use, and killed workers."""
import os
import signal
import subprocess
import sys
import time

import jobs

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.sysconf("SC_PAGE_SIZE")


def probe(contestant):
    """Is it here, and which version?"""
    try:
        return {"version": contestant.version()}
    except ImportError as error:
        return {"missing": str(error)}


def squares(contestant):
    """Four sleeps of 2 s in a pool of 8, as a program: seconds from its start to its end."""
    module = contestant.module.partition(".")[0]
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, os.path.join(HERE, "squares.py"), module],
                          stdout=subprocess.PIPE, check=True)
    took = time.perf_counter() - begin
    if sorted(done.stdout.split()) != [b"1", b"16", b"4", b"9"]:
        raise AssertionError(f"wrong output: {done.stdout!r}")
    return {"s": took}


def _resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE / 1e6


def read_ahead(contestant, seconds: float = 3):
    """imap over a source without end, ten milliseconds a result: items read ahead, MB grown."""
    made = 0

    def source():
        nonlocal made
        while True:
            made += 1
            yield made

    pool = contestant(2, "fork").pool
    results = pool.imap(jobs.noop, source())
    next(results)
    before, end, read = _resident_mb(), time.monotonic() + seconds, 1
    while time.monotonic() < end:
        read += 1
        if next(results) != read:
            raise AssertionError("wrong result: imap")
        time.sleep(0.01)
    figures = {"ahead": made - read, "growth": _resident_mb() - before}
    pool.terminate()
    pool.join()
    return figures


def death(contestant, where: str):
    """ms from a worker's SIGKILL to the exception of who waits for its task."""
    reader, writer = os.pipe()
    pool = contestant(2, "fork")
    pool.apply(jobs.noop, 0)
    if where == "map":
        wait = pool.submit_map(jobs.tell_pid_and_wait, [-1, -1, writer, -1])
    else:
        wait = pool.submit(jobs.tell_pid_and_wait, writer)
    pid = int(os.read(reader, 20))
    time.sleep(0.05)
    begin = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    try:
        wait(10)
    except TimeoutError as error:
        raise AssertionError("no error within 10 s") from error
    except Exception as error:
        if type(error).__module__ == "multiprocessing.context":    # its TimeoutError
            raise AssertionError("no error within 10 s") from error
        took = (time.perf_counter() - begin) * 1e3
    else:
        raise AssertionError("no error")
    try:
        usable = pool.apply(jobs.noop, 7) == 7
    except Exception:
        usable = False
    pool.close()
    return {"ms": took, "usable": int(usable)}


def _family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for child in file.read().split():
                found += _family(int(child))
    return found


def _wakeups(pids: list[int]) -> int:
    """How often their threads slept and woke, so far; but for our main thread, which counts."""
    count = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            if int(task) == os.getpid():
                continue
            with open(f"/proc/{pid}/task/{task}/status") as file:
                count += sum(int(line.split()[1]) for line in file
                             if line.startswith("voluntary_ctxt_switches"))
    return count


def _private_mb(pids: list[int]) -> float:
    """Their memory, what is shared counted once, MB."""
    kilobytes = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            kilobytes += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return kilobytes / 1e3


def idle(contestant, workers: int, seconds: float = 2):
    """A pool that has nothing to do: MB of all its processes, wake-ups a second."""
    pool = contestant(workers, "fork")
    pool.map(jobs.noop, list(range(20 * workers)), 1)
    time.sleep(1)
    family = _family(os.getpid())
    before = _wakeups(family)
    time.sleep(seconds)
    figures = {"wakeups": (_wakeups(family) - before) / seconds, "mb": _private_mb(family)}
    pool.close()
    return figures

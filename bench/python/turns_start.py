# SPDX-License-Identifier: MIT
"""Turns about how pools start and end, the first one of a program and those after it.

What a pool imports at its start is part of the start: so this file imports nothing but what
every interpreter has loaded before.
"""
import os
import time

import jobs


def _ballast(megabytes: int) -> bytearray:
    """Memory with every page touched."""
    return bytearray(b"x") * (megabytes << 20)


def _ms_between(*moments: float) -> list[float]:
    return [(end - begin) * 1e3 for begin, end in zip(moments, moments[1:])]


def _check(there, wanted) -> None:
    if there != wanted:
        raise AssertionError(f"wrong result: {there!r} in place of {wanted!r}")


def _first_and_again(life, again: int) -> dict[str, float]:
    """The figures of the first pool's life, and the medians of so many more."""
    first, *others = [life() for _ in range(1 + again)]
    figures = dict(first)
    for name in first if others else ():
        figures[f"{name} again"] = sorted(other[name] for other in others)[again // 2]
    return figures


def _let_all_work(pool, workers: int, tries: int = 100) -> None:
    """Return when each worker has done a task, whichever way it was started."""
    for _ in range(tries):
        if len(set(pool.map(jobs.nap_and_tell_pid, [0.01] * workers, 1))) == workers:
            return
    raise AssertionError("not all workers took a task")


def start(contestant, method: str | None, workers: int, megabytes: int = 0, again: int = 3,
          all_work: bool = False):
    """ms to the first result and to close, after one task or when all workers have done one;
    of the first pool also ms to the first result together with the import."""
    ballast = _ballast(megabytes)

    def life():
        begin = time.perf_counter()
        pool = contestant(workers, method)
        result = pool.apply(jobs.noop, 7)
        [first] = _ms_between(begin, time.perf_counter())
        _check(result, 7)
        if all_work:
            _let_all_work(pool, workers)
        begin = time.perf_counter()
        pool.close()
        [close] = _ms_between(begin, time.perf_counter())
        return {"first": first, "close": close}

    begin = time.perf_counter()
    contestant.load()
    [loaded] = _ms_between(begin, time.perf_counter())
    figures = _first_and_again(life, again)
    del ballast
    return {**figures, "loaded and first": loaded + figures["first"]}


def all_at_work(contestant, workers: int, again: int = 3):
    """ms until each worker has a task and none has ended; then to close, when all have."""
    def life():
        came, come = os.pipe()
        gate, opener = os.pipe()
        begin = time.perf_counter()
        pool = contestant(workers, "fork")
        waits = [pool.submit(jobs.come_and_wait, come, gate) for _ in range(workers)]
        for _ in range(workers):
            os.read(came, 1)
        everybody = time.perf_counter()
        os.write(opener, b"." * workers)
        results = [wait() for wait in waits]
        before = time.perf_counter()
        pool.close()
        [close] = _ms_between(before, time.perf_counter())
        _check(results, [b"."] * workers)
        for end in (came, come, gate, opener):
            os.close(end)
        return {"all": (everybody - begin) * 1e3, "close": close}

    contestant.load()
    return _first_and_again(life, again)


def bare_forks(_contestant, workers: int, megabytes: int = 0, again: int = 3):
    """The same with os.fork, children that only tell and wait, and their ends."""
    ballast = _ballast(megabytes)

    def life():
        came, come = os.pipe()
        gate, opener = os.pipe()

        def fork():
            pid = os.fork()
            if pid == 0:
                os.close(opener)
                jobs.come_and_wait(come, gate)
                os._exit(0)
            return pid

        begin = time.perf_counter()
        children = [fork()]
        os.read(came, 1)
        middle = time.perf_counter()
        children += [fork() for _ in range(workers - 1)]
        for _ in range(workers - 1):
            os.read(came, 1)
        everybody = time.perf_counter()
        os.close(opener)
        for pid in children:
            os.waitpid(pid, 0)
        close = time.perf_counter()
        for end in (came, come, gate):
            os.close(end)
        return {"first": (middle - begin) * 1e3, "all": (everybody - begin) * 1e3,
                "close": (close - everybody) * 1e3}

    figures = _first_and_again(life, again)
    del ballast
    return figures


def replacement(contestant, megabytes: int, threads: int, deaths: int = 5):
    """ms from a worker's SIGKILL until the one in its place has run a task; the median death.

    Each dies inside a task, since one that dies while it waits for a task takes a lock of the
    standard library's pool with it. That pool also forgets the task, so it can't be joined, and
    looks for dead workers ten times a second: they die at different moments of such a tenth.
    """
    import signal
    import threading

    ballast = _ballast(megabytes)
    reader, writer = os.pipe()
    pool = contestant(1, "fork")
    for _ in range(threads):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    times = []
    for number in range(deaths):
        pool.submit(jobs.tell_pid_and_wait, writer)
        pid = int(os.read(reader, 20))
        wait = pool.submit(jobs.noop, number)
        time.sleep(0.1 + 0.1 * number / deaths)
        begin = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        result = wait(30)
        times += _ms_between(begin, time.perf_counter())
        _check(result, number)
    pool.pool.terminate()
    pool.pool.join()
    del ballast
    return {"ms": sorted(times)[deaths // 2]}


def sleeps(contestant, workers: int):
    """50 short sleeps in the first pool of a program, ms from before it opens; and to its end."""
    calls = jobs.short_naps()
    contestant.load()
    begin = time.perf_counter()
    pool = contestant(workers, "fork")
    results = pool.starmap(jobs.nap_and_add, calls)
    middle = time.perf_counter()
    pool.close()
    done, close = _ms_between(begin, middle, time.perf_counter())
    _check(results, [a + b for a, b, _ in calls])
    return {"done": done, "closed": done + close}


def import_time(contestant):
    """ms of what a program imports; and together with the module of the pool."""
    begin = time.perf_counter()
    contestant.load()
    middle = time.perf_counter()
    __import__(contestant.module.removesuffix(".pool") + ".pool")
    end = time.perf_counter()
    return {"ms": (middle - begin) * 1e3, "pool ms": (end - begin) * 1e3}

# SPDX-License-Identifier: MIT
"""What allcores has beyond multiprocessing, in a typed program; it runs, too.

Type checkers must find a mistake in each line that ends with "error", and in no other.
"""

import io
import multiprocessing
import multiprocessing.context
import multiprocessing.pool
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, assert_type

import allcores
from allcores import BrokenPool, StartError, TaskCancelled, WorkerDied
from allcores.errors import WorkerDied as SameClass


def half(number: int) -> float:
    return number / 2


def exit_with(code: int) -> None:
    os._exit(code)


def dump_pool(pool: allcores.pool.Pool) -> None:
    text = io.StringIO()
    assert_type(pool.dump(text), None)
    assert_type(pool.dump(file=sys.stderr), None)
    pool.dump()
    assert "calls submitted" in text.getvalue()


def read_death(pool: allcores.pool.Pool) -> None:
    try:
        pool.apply(exit_with, (3,))
    except WorkerDied as death:
        assert isinstance(death, SameClass)
        assert_type(death.pid, int | None)
        assert_type(death.exitcode, int | None)
        assert_type(death.signal, str | None)
        assert_type(death.worker, str | None)
        assert_type(death.task, str | None)
        assert_type(death.items, range | None)
        assert_type(death.ran, float | None)
        assert_type(death.peak_rss, int | None)
        assert_type(death.stack, str | None)
        assert_type(death.oom, bool | None)


def failures() -> None:
    classes: list[type[multiprocessing.ProcessError]] = [
        WorkerDied,
        StartError,
        TaskCancelled,
        BrokenPool,
        allcores.errors.BrokenPool,
    ]
    assert len(set(classes)) == 4


def module() -> None:
    assert_type(allcores.cpus(), int)
    assert_type(allcores.cpus(leave=2), int)
    assert_type(allcores.__version__, str)
    engine: Literal["allcores", "stdlib"] = allcores.engine
    assert_type(engine, Literal["allcores", "stdlib"])
    assert_type(allcores.engine_reason, str)


def take_theirs(
    pool: multiprocessing.pool.Pool, context: multiprocessing.context.BaseContext
) -> list[float]:
    """A function of a library that knows only the standard library's classes."""
    assert_type(context.cpu_count(), int)
    return pool.map(half, [1])


def contexts() -> None:
    for name in "fork", "spawn":
        context: allcores.context.BaseContext = allcores.get_context(name)
        with context.Pool(1) as pool:
            assert_type(pool, allcores.pool.Pool)
            assert_type(take_theirs(pool, context), list[float])
    assert_type(allcores.get_context("fork"), allcores.context.ForkContext)
    same: multiprocessing.context.ForkContext = allcores.get_context("fork")
    assert same
    result: "multiprocessing.pool.AsyncResult[Any] | None" = None
    assert result is None


def mistakes() -> None:
    allcores.cpus("2")  # error
    print(allcores.engine.value)  # error
    allcores.Pool(2).dump(3)  # error
    allcores.Pool(2).dump(io.BytesIO())  # error
    print(allcores.pool.no_such_name)  # error
    print(allcores.context.no_such_name)  # error
    allcores.get_context("fork").no_such_method()  # error
    print(WorkerDied().code)  # error


def main() -> None:
    module()
    failures()
    contexts()
    with allcores.Pool(1) as pool:
        dump_pool(pool)
        read_death(pool)
        chunked = pool.imap(half, [1, 2], chunksize=2)
        if TYPE_CHECKING:
            assert_type(chunked.next(timeout=60), float)
        assert list(chunked) == [0.5, 1.0]


if __name__ == "__main__":
    main()

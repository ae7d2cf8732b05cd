# SPDX-License-Identifier: MIT
"""A typed program with each public call of multiprocessing.

check.py has it checked twice: as it is, and with multiprocessing in the place of allcores. Both must
be free of errors, and both must run.
"""

import allcores as multiprocessing
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, assert_type

import allcores.connection
import allcores.context
import allcores.dummy
import allcores.managers
import allcores.queues
import allcores.reduction
import allcores.resource_tracker
import allcores.shared_memory
import allcores.sharedctypes
import allcores.spawn
import allcores.synchronize
import allcores.util
from allcores import pool as pool_module
from allcores.context import (
    BaseContext,
    DefaultContext,
    ForkContext,
    ForkServerContext,
    SpawnContext,
)
from allcores.managers import DictProxy, ListProxy, SyncManager, ValueProxy
from allcores.pool import (
    CLOSE,
    INIT,
    RUN,
    TERMINATE,
    ApplyResult,
    AsyncResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    Pool,
    ThreadPool,
)
from allcores.process import BaseProcess

Item = TypeVar("Item")
Value = TypeVar("Value")


def half(number: int) -> float:
    return number / 2


def times(word: str, count: int) -> str:
    return word * count


def prepare(level: int) -> None:
    logging.getLogger().setLevel(level)


def print_float(value: float) -> None:
    """A callback."""


def print_error(error: BaseException) -> None:
    """An error callback."""


# ---- pools ----


def single_calls(pool: Pool) -> None:
    assert_type(pool.apply(half, (1,)), float)
    assert_type(pool.apply(times, ["ab"], {"count": 2}), str)
    assert_type(pool.apply(func=times, args=("ab", 2), kwds={}), str)
    result = pool.apply_async(half, (1,), {}, print_float, print_error)
    assert_type(result, "AsyncResult[float]")
    assert_type(result.get(), float)
    assert_type(result.get(timeout=60), float)
    assert_type(result.get(60.0), float)
    assert_type(result.wait(), None)
    assert_type(result.wait(timeout=0.5), None)
    assert_type(result.ready(), bool)
    assert_type(result.successful(), bool)
    by_keywords = pool.apply_async(
        func=times, args=("ab",), kwds={"count": 2}, callback=len, error_callback=None
    )
    annotated: "ApplyResult[str]" = by_keywords
    assert_type(annotated.get(), str)


def maps(pool: Pool) -> None:
    assert_type(pool.map(half, [1, 2]), list[float])
    assert_type(pool.map(half, range(4), 2), list[float])
    assert_type(pool.map(func=half, iterable={1, 2}, chunksize=None), list[float])
    assert_type(pool.starmap(times, [("a", 1), ("b", 2)]), list[str])
    assert_type(pool.starmap(times, iterable=[("a", 1)], chunksize=1), list[str])
    result = pool.map_async(half, [1, 2], 1, None, print_error)
    assert_type(result, "MapResult[float]")
    assert_type(result.get(timeout=60), list[float])
    as_base: "AsyncResult[list[float]]" = result
    assert_type(as_base.successful(), bool)
    starred = pool.starmap_async(
        func=times, iterable=[("a", 1)], chunksize=None, callback=None, error_callback=print_error
    )
    assert_type(starred.get(60), list[str])


def iterators(pool: Pool) -> None:
    ordered = pool.imap(half, iter([1, 2, 3, 4]))
    assert_type(ordered, "IMapIterator[float]")
    assert_type(ordered.next(), float)
    assert_type(ordered.next(timeout=60), float)
    assert_type(ordered.next(60), float)
    assert_type(next(ordered), float)
    assert_type(iter(ordered), "IMapIterator[float]")
    for value in pool.imap(half, range(4), chunksize=2):
        assert_type(value, float)
    assert_type(list(pool.imap(half, [1, 2], 2)), list[float])
    unordered: Iterator[float] = pool.imap_unordered(func=half, iterable=[1, 2], chunksize=1)
    assert_type(sorted(unordered), list[float])
    assert_type(pool.imap_unordered(half, [1]).next(timeout=60), float)


def generic_map(
    pool: Pool, function: Callable[[Item], Value], items: list[Item]
) -> list[Value]:
    return pool.map(function, items)


class CountingPool(Pool):
    """A subclass, as programs write it."""

    def __init__(self, processes: int | None = None) -> None:
        super().__init__(processes)
        self.calls = 0

    def map_counted(self, items: list[int]) -> list[float]:
        self.calls += 1
        return self.map(half, items)


def kinds_of_pools() -> None:
    with multiprocessing.Pool(2, prepare, (logging.INFO,), 100) as pool:
        single_calls(pool)
        maps(pool)
        iterators(pool)
        assert_type(generic_map(pool, half, [1]), list[float])
    plain: Pool = multiprocessing.Pool(
        processes=None, initializer=None, initargs=[], maxtasksperchild=None
    )
    assert_type(plain.close(), None)
    assert_type(plain.join(), None)
    assert_type(plain.terminate(), None)
    with Pool(1, context=multiprocessing.get_context("fork")) as pool:
        assert_type(pool, Pool)
    with CountingPool(1) as counting:
        assert_type(counting, CountingPool)
        assert_type(counting.map_counted([1]), list[float])
    with ThreadPool(processes=2, initializer=prepare, initargs=(logging.INFO,)) as threads:
        assert_type(threads, ThreadPool)
        as_pool: pool_module.Pool | ThreadPool = threads
        assert_type(as_pool.map(half, [1]), list[float])
    assert {INIT, RUN, CLOSE, TERMINATE}
    assert issubclass(IMapUnorderedIterator, Iterator)


# ---- contexts ----


def contexts() -> None:
    assert_type(multiprocessing.get_context(), DefaultContext)
    assert_type(multiprocessing.get_context(None), DefaultContext)
    assert_type(multiprocessing.get_context("fork"), ForkContext)
    assert_type(multiprocessing.get_context("spawn"), SpawnContext)
    assert_type(multiprocessing.get_context(method="forkserver"), ForkServerContext)
    for name in multiprocessing.get_all_start_methods():
        context: BaseContext = multiprocessing.get_context(name)
        assert_type(context, BaseContext)
        assert_type(context.cpu_count(), int)
        assert_type(context.get_context("fork"), ForkContext)
    fork = multiprocessing.get_context("fork")
    with fork.Pool(processes=1, initializer=prepare, initargs=(logging.INFO,)) as pool:
        single_calls(pool)
        assert_type(pool.map(half, [1]), list[float])
    process = fork.Process(target=prepare, args=(logging.INFO,), name="child", daemon=True)
    assert_type(process, allcores.context.ForkProcess)
    run_process(process)
    queue = fork.Queue(maxsize=3)
    queue.put(1)
    assert_type(fork.Manager, Callable[[], SyncManager])
    assert_type(fork.get_start_method(), str)
    assert_type(fork.current_process(), BaseProcess)


def start_methods() -> None:
    method = multiprocessing.get_start_method()
    assert_type(method, str)
    assert multiprocessing.get_start_method(allow_none=True) in (None, method)
    multiprocessing.set_start_method(method, force=True)
    assert_type(multiprocessing.get_all_start_methods(), list[str])
    multiprocessing.set_executable(allcores.spawn.get_executable() or "python3")
    multiprocessing.set_forkserver_preload(["logging"])


# ---- processes ----


class Child(multiprocessing.Process):
    """A subclass, as programs write it."""

    def __init__(self, number: int) -> None:
        super().__init__(name=f"child {number}")
        self.number = number

    def run(self) -> None:
        half(self.number)


def run_process(process: BaseProcess) -> None:
    process.start()
    process.join(timeout=60)
    assert_type(process.exitcode, int | None)
    assert_type(process.pid, int | None)
    assert_type(process.is_alive(), bool)
    assert_type(process.sentinel, int)
    process.close()


def processes() -> None:
    run_process(Child(1))
    run_process(multiprocessing.Process(None, prepare, "child", (logging.INFO,), {}, daemon=None))
    assert_type(multiprocessing.current_process(), BaseProcess)
    assert_type(multiprocessing.parent_process(), BaseProcess | None)
    assert_type(multiprocessing.active_children(), list[BaseProcess])
    assert_type(multiprocessing.cpu_count(), int)
    assert_type(multiprocessing.freeze_support(), None)
    assert_type(multiprocessing.get_logger(), logging.Logger)
    logger = multiprocessing.log_to_stderr(logging.WARNING)
    assert_type(logger, logging.Logger)
    multiprocessing.allow_connection_pickling()


def failures() -> None:
    names: list[type[multiprocessing.ProcessError]] = [
        multiprocessing.AuthenticationError,
        multiprocessing.BufferTooShort,
        multiprocessing.TimeoutError,
        allcores.context.TimeoutError,
    ]
    try:
        raise names[2]("late")
    except multiprocessing.TimeoutError as error:
        assert_type(error, multiprocessing.TimeoutError)


# ---- what processes share ----


def pipes_and_queues() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    writer.send("word")
    assert_type(reader.poll(60), bool)
    ready = allcores.connection.wait([reader], timeout=60)
    assert len(ready) == 1
    assert reader.recv() == "word"
    assert issubclass(allcores.connection.Listener, object)
    queue: "multiprocessing.Queue[int]" = multiprocessing.Queue(3)
    same: "allcores.queues.Queue[int]" = queue
    same.put(1, timeout=60)
    assert_type(queue.get(timeout=60), int)
    joinable: "multiprocessing.JoinableQueue[str]" = multiprocessing.JoinableQueue()
    joinable.put("word")
    assert_type(joinable.get(), str)
    joinable.task_done()
    simple: "multiprocessing.SimpleQueue[str]" = multiprocessing.SimpleQueue()
    simple.put("word")
    assert_type(simple.get(), str)


def locks() -> None:
    with multiprocessing.Lock(), multiprocessing.RLock():
        pass
    lock: allcores.synchronize.Lock = multiprocessing.Lock()
    assert_type(lock.acquire(block=True, timeout=60), bool)
    lock.release()
    assert_type(multiprocessing.Semaphore(2), allcores.synchronize.Semaphore)
    assert_type(multiprocessing.BoundedSemaphore(value=2), allcores.synchronize.BoundedSemaphore)
    event = multiprocessing.Event()
    event.set()
    assert_type(event.wait(60), bool)
    condition = multiprocessing.Condition(multiprocessing.RLock())
    with condition:
        condition.notify_all()
    barrier = multiprocessing.Barrier(1, action=None, timeout=60)
    assert_type(barrier.wait(), int)


def shared_values() -> None:
    with multiprocessing.Value("i", 0).get_lock():
        pass
    assert multiprocessing.Value(ctypes.c_double, 0.5, lock=False)
    numbers = multiprocessing.Array("i", [1, 2, 3])
    numbers[0] = 4
    assert len(multiprocessing.Array(ctypes.c_int, 3, lock=multiprocessing.RLock())) == 3
    assert_type(multiprocessing.RawValue(ctypes.c_int, 1), ctypes.c_int)
    assert_type(multiprocessing.RawArray(ctypes.c_int, 3), ctypes.Array[ctypes.c_int])
    assert allcores.sharedctypes.copy(multiprocessing.RawValue("i", 1)).value == 1
    memory = allcores.shared_memory.SharedMemory(create=True, size=8)
    assert_type(memory.name, str)
    memory.close()
    memory.unlink()
    assert_type(allcores.util.get_temp_dir(), str)
    assert_type(allcores.resource_tracker.getfd(), int | None)
    assert allcores.reduction.ForkingPickler is multiprocessing.reducer.ForkingPickler


def managed_values() -> None:
    with multiprocessing.Manager() as manager:
        assert isinstance(manager, allcores.managers.BaseManager)
        assert_type(manager, SyncManager)
        table: "DictProxy[str, int]" = manager.dict()
        table["a"] = 1
        items: "ListProxy[int]" = manager.list([1, 2])
        assert_type(items[0], int)
        value: "ValueProxy[int]" = manager.Value("i", 1)
        assert_type(value.get(), int)
    with allcores.dummy.Pool(1) as threads:
        assert list(threads.map(half, [1])) == [0.5]
    assert_type(allcores.dummy.active_children(), list[Any])
    assert threading.active_count()


def main() -> None:
    for part in (
        kinds_of_pools,
        contexts,
        start_methods,
        processes,
        failures,
        pipes_and_queues,
        locks,
        shared_values,
        managed_values,
    ):
        part()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Mistakes that type checkers must find: in each line that ends with "error", and in no other.

check.py has it checked like program.py: with allcores, and with multiprocessing in its place.
"""

import allcores as multiprocessing
from allcores.context import ForkContext, SpawnContext
from allcores.pool import AsyncResult, IMapIterator, MapResult, Pool, ThreadPool


def half(number: int) -> float:
    return number / 2


def take_text(text: str) -> None:
    """A callback."""


def calls(pool: Pool) -> None:
    text: str = pool.apply(half, (1,))  # error
    pool.apply(half(1))  # error
    pool.apply(half, 1)  # error
    pool.apply(half, (1,), [2])  # error
    pool.apply(half, (1,), timeout=1)  # error
    pool.apply_async(half, (1,), callback=take_text)  # error
    pool.apply_async(half, (1,), error_callback=take_text)  # error
    result: AsyncResult[str] = pool.apply_async(half, (1,))  # error
    take_text(pool.apply_async(half, (1,)).get())  # error
    pool.apply_async(half, (1,)).get("soon")  # error
    pool.apply_async(half, (1,)).cancel()  # error
    print(text, result)


def maps(pool: Pool) -> None:
    pool.map(half, ["a"])  # error
    pool.map(half, 3)  # error
    pool.map(half, [1], "2")  # error
    pool.map(half, [1], chunk_size=2)  # error
    words: list[str] = pool.map(half, [1])  # error
    pool.starmap(half, [1, 2])  # error
    pool.map_async(half, ["a"])  # error
    result: MapResult[str] = pool.map_async(half, [1])  # error
    take_text(pool.starmap_async(half, [(1,)]).get())  # error
    print(words, result)


def iterators(pool: Pool) -> None:
    pool.imap(half, ["a"])  # error
    pool.imap_unordered(half, 3)  # error
    take_text(pool.imap(half, [1]).next(timeout=1))  # error
    pool.imap(half, [1]).next("soon")  # error
    result: IMapIterator[str] = pool.imap_unordered(half, [1])  # error
    for word in pool.imap(half, [1]):
        take_text(word)  # error
    print(result)


def pools() -> None:
    multiprocessing.Pool("2")  # error
    multiprocessing.Pool(2, half(1))  # error
    multiprocessing.Pool(2, half, 1)  # error
    multiprocessing.Pool(workers=2)  # error
    multiprocessing.Pool(context=multiprocessing.get_context())  # error
    ThreadPool(2, maxtasksperchild=1)  # error
    Pool(2).join(timeout=1)  # error
    Pool(2).no_such_method()  # error


def contexts() -> None:
    fork: ForkContext = multiprocessing.get_context("spawn")  # error
    spawn: SpawnContext = multiprocessing.get_context()  # error
    multiprocessing.get_context(1)  # error
    multiprocessing.set_start_method()  # error
    fork.Pool(2).map(half, ["a"])  # error
    spawn.Process(target=1)  # error
    multiprocessing.Process(run=half)  # error
    multiprocessing.Lock().acquire("yes")  # error
    multiprocessing.Queue("3")  # error
    print(multiprocessing.no_such_name)  # error
    print(fork.no_such_name)  # error

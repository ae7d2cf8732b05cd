# SPDX-License-Identifier: MIT
"""Results of calls that return before their work is done."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Sequence
from multiprocessing import ProcessError, TimeoutError, util

from . import _core
from .chunks import GivenChunks, MeasuredChunks
from .errors import TaskCancelled, WorkerDied, describe, is_news
from .waiting import Gate

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    Callback = Callable[[Any], object] | None

# What says that the pool takes no more. Anything else that comes out of handing in may be
# the user's own: a signal handler that raises.
REFUSALS = (ProcessError, MemoryError)

# How many calls are handed in, and taken, at a time.
BATCH = 256

# How often a map whose workers run out of work looks for items to take back, in seconds.
STARVED = 0.001


class AsyncResult(_core.Task):
    """The result of one call: decoded in the thread that first asks for it."""

    __class_getitem__: Any = classmethod(types.GenericAlias)


def name_task(error: object, function: object, items: range | None = None) -> None:
    """Tell a WorkerDied what its worker ran, where the engine did not know."""
    if isinstance(error, WorkerDied) and error.task is None:
        error.task = describe(function)
        error.items = items


class SettledResult(AsyncResult):
    """A result that somebody else settles: ready once its callback has returned."""

    def __init__(
        self, pool: object, function: Any, callback: Callback, error_callback: Callback
    ) -> None:
        self._pool = pool  # alive as long as it has work
        self._function = function
        self._event = Gate()
        self._pid = os.getpid()
        self._callback = callback
        self._error_callback = error_callback
        self._success = False
        self._value: Any = None

    def ready(self) -> bool:
        """Whether the work has ended and its callback has returned."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, at most timeout seconds."""
        self._await(timeout)

    def _await(self, timeout: float | None) -> bool:
        if not self._event.is_set() and os.getpid() != self._pid:
            raise RuntimeError("this result belongs to the process that asked for it")
        return self._event.wait(timeout)

    def successful(self) -> bool:
        """Whether the work ended without an exception. ValueError before it has ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        self._unfetched = None
        return self._success

    def get(self, timeout: float | None = None) -> Any:
        """The value, or the exception, raised. TimeoutError after timeout seconds."""
        if not self._await(timeout):
            raise TimeoutError
        if self._success:
            return self._value
        self._unfetched = None
        raise self._value

    def _settle(self, success: bool, value: Any) -> None:
        self._success = success
        self._value = value
        callback = self._callback if success else self._error_callback
        self._callback = self._error_callback = None
        if not success and not callback and is_news(value):
            self._unfetched = (self._pid, value, self._function)
        if callback and not (not success and isinstance(value, TaskCancelled)):
            try:
                callback(value)
            except BaseException:  # whatever it is, it ends neither this thread nor others' waits
                util.get_logger().exception("callback %r raised", callback)
        self._pool = None
        self._event.set()


class CallResult(SettledResult):
    """One call that has callbacks."""

    def arrived(self, index: int, ok: bool, value: Any, elapsed_ns: int) -> None:
        """Its result, from the stream."""
        name_task(value, self._function)
        self._settle(ok, value)


class MapResult(SettledResult):
    """A map: cut into calls as workers have room for them, put together in order.

    Driven by one thread at a time: the one that waits for it (Pool.map) or the handler.
    """

    def __init__(
        self,
        pool: object,
        workers: int,
        function: Any,
        items: Sequence[Any],
        star: bool,
        chunks: GivenChunks | MeasuredChunks,
        chunksize: int,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> None:
        super().__init__(pool, function, callback, error_callback)
        self._workers = workers
        self._items = items
        self._star = star
        self.chunks = chunks
        self._chunksize = chunksize
        self._value: list[Any] = [None] * len(items)
        self._next = 0  # the first item not handed in
        self._back: list[range] = []  # items taken back
        self._calls: dict[int, range] = {}  # under way, by index in the stream
        self._unsettled = len(items)
        self._failure: BaseException | None = None
        self._searched = False  # nothing to take back until something arrives
        if not items:
            self._success = True
            self._pool = None
            self._event.set()

    @property
    def _number_left(self) -> int:
        return -(-self._unsettled // self._chunksize)

    # ---- handing in ----

    def _next_items(self) -> range | None:
        if self._back:
            items = self._back.pop()
            size = self.chunks.size(len(items))
            if size < len(items):
                self._back.append(items[size:])
                items = items[:size]
            return items
        if self._next == len(self._items):
            return None
        remaining = len(self._items) - self._next
        size = min(self.chunks.size(remaining), remaining)
        items = range(self._next, self._next + size)
        self._next += size
        return items

    def feed(self, push: Callable[[MapResult, Sequence[Any]], int]) -> bool:
        """Hand in what there is room for. False: all is handed in (for now)."""
        while len(self._calls) < self.chunks.window:
            items = self._next_items()
            if items is None:
                return False
            try:
                index = push(self, self._items[items.start : items.stop])
            except BaseException:
                self._back.append(items)
                raise
            self._calls[index] = items
        return True

    def push_to(self, stream: _core.Stream, items: Sequence[Any]) -> int:
        """One call, for these items: its index in the stream."""
        return stream.push(self._function, items, self._star, self.chunks.divisible)

    # ---- settling ----

    def arrived(self, index: int, ok: bool, value: Any, elapsed_ns: int) -> None:
        """A call's result, from the stream: a list of values, or an exception."""
        items = self._calls.pop(index, None)
        if items is None:  # Ctrl-C came between its push and its note
            return
        self._searched = False
        self._unsettled -= len(items)
        if ok:
            self._value[items.start : items.stop] = value
            self.chunks.learn(len(items), elapsed_ns)
        elif self._failure is None:
            name_task(value, self._function, items)
            self._failure = value

    def fail(self, error: BaseException) -> None:
        """It can't go on: what is not under way is given up."""
        if self._failure is None:
            self._failure = error
        self._unsettled -= len(self._items) - self._next + sum(map(len, self._back))
        self._next = len(self._items)
        self._back.clear()

    def give_up(self, error: BaseException) -> None:
        """The same, and what is under way will not come."""
        self.fail(error)
        self._calls.clear()
        self._unsettled = 0

    def is_complete(self) -> bool:
        """Whether each item's fate is known."""
        return self._unsettled == 0

    def is_finished(self) -> bool:
        """Whether it is ready."""
        return self._event.is_set()

    def calls_under_way(self) -> int:
        """Calls that have been handed in and have not ended."""
        return len(self._calls)

    def settle(self) -> None:
        """Once it is complete: run its callback, be ready."""
        if self._failure is None:
            self._settle(True, self._value)
        else:
            self._settle(False, self._failure)

    # ---- items that take longer than expected ----

    def is_starved(self) -> bool:
        """Whether workers run out of work while calls under way may have some to give."""
        return (
            self.chunks.divisible
            and not self._searched
            and not self._back
            and self._next == len(self._items)
            and 0 < len(self._calls) < self._workers
        )

    def took_back(self, index: int, kept: int) -> None:
        """All but the first kept items of a call were taken back."""
        items = self._calls.get(index)
        if items is None:
            return
        self._calls[index] = items[:kept]
        self._back.append(items[kept:])
        # Whatever they were thought to take, they take longer.
        self.chunks = MeasuredChunks(self._workers)

    def gave_nothing(self) -> None:
        """The search for items to take back found none."""
        self._searched = True

    # ---- by the thread that waits ----

    def run(self, core: _core.Pool) -> None:
        """Drive it to its end, in this thread."""
        stream = core.stream()
        try:
            while not self.is_complete():
                try:
                    self.feed(lambda _, items: self.push_to(stream, items))
                except REFUSALS as error:
                    self.fail(error)
                rows = stream.take(STARVED if self.is_starved() else None)
                for row in rows or ():
                    self.arrived(*row)
                if not rows and not take_back(stream, lambda index: self):
                    self.gave_nothing()
        finally:
            stream.close()
        self.settle()


def take_back(stream: _core.Stream, owner_of: Callable[[int], MapResult | None]) -> bool:
    """Take back what calls of the stream have not begun. Whether there was any."""
    any_found = False
    while (found := stream.take_back()) is not None:
        index, kept = found
        owner = owner_of(index)
        if owner is not None:
            owner.took_back(index, kept)
        any_found = True
    return any_found


def run_given(
    core: _core.Pool,
    function: Any,
    items: Sequence[Any],
    star: bool,
    size: int,
) -> list[Any]:
    """A map with a given chunk size, in the thread that waits for it, by the hundred calls."""
    stream = core.stream()
    values: list[Any] = [None] * len(items)
    failure: BaseException | None = None
    iterator = iter(items)
    chunk = 0 if size == 1 else size
    calls = -(-len(items) // size)
    more = True
    try:
        while stream.taken < calls:
            under_way = stream.pushed - stream.taken
            if more and under_way < BATCH:
                more = stream.feed(function, iterator, star, chunk, BATCH)
            for index, ok, value, _ in stream.take() or ():
                if not ok:
                    last = min((index + 1) * size, len(items))
                    name_task(value, function, range(index * size, last))
                    failure = value if failure is None else failure
                elif chunk:
                    values[index * size : (index + 1) * size] = value
                else:
                    values[index] = value
    finally:
        stream.close()
    if failure is not None:
        raise failure
    return values

# SPDX-License-Identifier: MIT
"""The results of apply_async and map_async; the loops that drive a map."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Sequence
from multiprocessing import ProcessError, TimeoutError, util

from . import _core
from .chunks import GivenChunks, MeasuredChunks
from .errors import TaskCancelled, WorkerDied, describe, is_worth_reporting
from .waiting import Gate

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    Callback = Callable[[Any], object] | None

# The exceptions by which the pool refuses a call. Any other exception of a submission may be the
# user's: a signal handler raised it.
REFUSALS = (ProcessError, MemoryError)

# How many calls are submitted at a time.
BATCH = 256

# Seconds between two searches for items to take back, while workers have no work.
STARVED = 0.001


class AsyncResult(_core.Task):
    """The result of one call. The thread that first asks for it decodes it."""

    __class_getitem__: Any = classmethod(types.GenericAlias)


def name_task(error: object, function: object, items: range | None = None) -> None:
    """Add to a WorkerDied which function and items the worker ran, if it does not say so yet."""
    if isinstance(error, WorkerDied) and error.task is None:
        error.task = describe(function)
        error.items = items


class StreamedResult(AsyncResult):
    """A result that comes through a stream: the thread that takes from the stream finishes it. It
    is ready once its callback has returned."""

    def __init__(
        self, pool: object, function: Any, callback: Callback, error_callback: Callback
    ) -> None:
        self._pool = pool  # keeps the pool alive as long as it has work
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
        """Return the value, or raise the exception. TimeoutError after timeout seconds."""
        if not self._await(timeout):
            raise TimeoutError
        if self._success:
            return self._value
        self._unfetched = None
        raise self._value

    def _set_result(self, success: bool, value: Any) -> None:
        """Set the value, or the exception; run the callback; be ready."""
        self._success = success
        self._value = value
        callback = self._callback if success else self._error_callback
        self._callback = self._error_callback = None
        if not success and not callback and is_worth_reporting(value):
            self._unfetched = (self._pid, value, self._function)
        if callback and not (not success and isinstance(value, TaskCancelled)):
            try:
                callback(value)
            except BaseException:  # even SystemExit must not end the thread that runs callbacks
                util.get_logger().exception("callback %r raised", callback)
        self._pool = None
        self._event.set()


class CallResult(StreamedResult):
    """One call that has callbacks."""

    def receive(self, index: int, ok: bool, value: Any, elapsed_ns: int) -> None:
        """Take the call's result, a row from the stream."""
        name_task(value, self._function)
        self._set_result(ok, value)


class MapResult(StreamedResult):
    """A map. Its items are cut into calls while it runs, and the values put together in order.

    One thread at a time drives it: the thread that called Pool.map, or the handler's.
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
        self._next = 0  # the first item that was not submitted yet
        self._taken_back: list[range] = []  # items to be submitted again
        self._calls: dict[int, range] = {}  # under way, by index in the stream
        self._outstanding = len(items)  # items without a value or a failure
        self._failure: BaseException | None = None
        # No call had items to take back: do not search again until a result arrives.
        self._found_nothing = False
        if not items:
            self._success = True
            self._pool = None
            self._event.set()

    @property
    def _number_left(self) -> int:
        return -(-self._outstanding // self._chunksize)

    # ---- submitting ----

    def _next_items(self) -> range | None:
        if self._taken_back:
            items = self._taken_back.pop()
            size = self.chunks.size(len(items))
            if size < len(items):
                self._taken_back.append(items[size:])
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
        """Submit calls until enough are under way. False: all items are submitted (for now)."""
        while len(self._calls) < self.chunks.window:
            items = self._next_items()
            if items is None:
                return False
            try:
                index = push(self, self._items[items.start : items.stop])
            except BaseException:
                self._taken_back.append(items)
                raise
            self._calls[index] = items
        return True

    def push_to(self, stream: _core.Stream, items: Sequence[Any]) -> int:
        """Push one call for these items. Return its index in the stream."""
        return stream.push(self._function, items, self._star, self.chunks.divisible)

    # ---- results ----

    def receive(self, index: int, ok: bool, value: Any, elapsed_ns: int) -> None:
        """Take a call's result, a row from the stream: a list of values, or an exception."""
        items = self._calls.pop(index, None)
        if items is None:  # a Ctrl-C came after the push, before _calls had the index
            return
        self._found_nothing = False
        self._outstanding -= len(items)
        if ok:
            self._value[items.start : items.stop] = value
            self.chunks.learn(len(items), elapsed_ns)
        elif self._failure is None:
            name_task(value, self._function, items)
            self._failure = value

    def fail_unsubmitted(self, error: BaseException) -> None:
        """No more calls can be submitted: fail the items that are not under way."""
        if self._failure is None:
            self._failure = error
        self._outstanding -= len(self._items) - self._next + sum(map(len, self._taken_back))
        self._next = len(self._items)
        self._taken_back.clear()

    def fail_all(self, error: BaseException) -> None:
        """Fail all items, also those under way: no more results will arrive."""
        self.fail_unsubmitted(error)
        self._calls.clear()
        self._outstanding = 0

    def is_complete(self) -> bool:
        """Whether every item has a value or has failed."""
        return self._outstanding == 0

    def is_finished(self) -> bool:
        """Whether the result is ready."""
        return self._event.is_set()

    def calls_under_way(self) -> int:
        """The number of calls that were submitted and whose results were not taken."""
        return len(self._calls)

    def finish(self) -> None:
        """After is_complete(): run the callback; be ready."""
        if self._failure is None:
            self._set_result(True, self._value)
        else:
            self._set_result(False, self._failure)

    # ---- items that take longer than expected ----

    def is_starved(self) -> bool:
        """Whether workers have no work, while calls may have items that can be taken back."""
        return (
            self.chunks.divisible
            and not self._found_nothing
            and not self._taken_back
            and self._next == len(self._items)
            and 0 < len(self._calls) < self._workers
        )

    def note_taken_back(self, index: int, kept: int) -> None:
        """All but the first kept items of a call were taken back: submit them again."""
        items = self._calls.get(index)
        if items is None:
            return
        self._calls[index] = items[:kept]
        self._taken_back.append(items[kept:])
        # Items take longer than was measured: measure again from the start.
        self.chunks = MeasuredChunks(self._workers)

    def note_nothing_taken_back(self) -> None:
        """No call had items that could be taken back."""
        self._found_nothing = True

    # ---- in the thread that waits for the map ----

    def run(self, core: _core.Pool) -> None:
        """Drive the map to its end, in this thread."""
        stream = core.stream()
        try:
            while not self.is_complete():
                try:
                    self.feed(lambda _, items: self.push_to(stream, items))
                except REFUSALS as error:
                    self.fail_unsubmitted(error)
                    continue  # perhaps nothing is under way whose result could be taken
                rows = stream.take(STARVED if self.is_starved() else None)
                for row in rows or ():
                    self.receive(*row)
                if not rows and not take_back(stream, lambda index: self):
                    self.note_nothing_taken_back()
        finally:
            stream.close()
        self.finish()


def take_back(stream: _core.Stream, owner_of: Callable[[int], MapResult | None]) -> bool:
    """Take back items that the stream's calls have not begun. Return whether there were any."""
    any_found = False
    while (found := stream.take_back()) is not None:
        index, kept = found
        owner = owner_of(index)
        if owner is not None:
            owner.note_taken_back(index, kept)
        any_found = True
    return any_found


def run_given(
    core: _core.Pool,
    function: Any,
    items: Sequence[Any],
    star: bool,
    size: int,
) -> list[Any]:
    """A map with a given chunk size, in the thread that waits for it. Calls are submitted by the
    hundred."""
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

# SPDX-License-Identifier: MIT
"""imap: results one by one. The input is read a bounded number of items ahead of them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import TimeoutError

from . import _core
from .errors import TaskCancelled
from .intake import Intake
from .results import name_task

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

# Types of inputs that never block: the thread that takes the results reads these itself.
NEVER_BLOCKING = (list, tuple, range, str, bytes, dict, set, frozenset)

AHEAD_LEAST = 64  # items read ahead of the results that were taken
AHEAD_MOST = 1024
AHEAD_SECONDS = 0.05  # the work to read ahead, at the rate at which results arrive
AHEAD_BYTES = 16 << 20  # of arguments and results
DISCARD_MOST = 256  # calls under way whose results nobody takes


class Source:
    """The input of one imap: one thread at a time reads it, a bounded number of items ahead."""

    def __init__(
        self,
        core: _core.Pool,
        intake: Intake,
        workers: int,
        function: Any,
        iterable: Iterable[Any],
        chunk: int,
    ) -> None:
        self.stream = core.stream()
        self.function = function
        self.used = 0  # results that the user has taken
        self.was_cut_off = False  # the pool was terminated before the input's end
        self._intake = intake
        self._chunk = chunk
        self._least = max(AHEAD_LEAST, 4 * workers)
        self._ahead = self._least
        self._unbounded = self._discards = self._ended = self._stopped = False
        self._reading = threading.Lock()
        self._lock = threading.RLock()  # reentrant: see Intake
        self._may_read = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._length: int | None = None  # of the input, where that is known
        try:
            intake.enter(self)
            self._begin(iterable)
        except BaseException:  # raised by a signal handler: the user will not get this object
            self._end()
            raise

    def _begin(self, iterable: Iterable[Any]) -> None:
        try:
            self._iterator = iter(iterable)
        except Exception as error:
            self._fail(error)
            self._end()
            return
        if isinstance(iterable, NEVER_BLOCKING):
            self._length = len(iterable)
            self.read()
        else:
            with self._lock:
                self._start_thread()

    def is_finished(self) -> bool:
        """Whether all items have been read and all results taken."""
        return self._ended and self.stream.taken == self.stream.pushed

    def calls_under_way(self) -> int:
        """The number of calls that were submitted and whose results were not taken."""
        return self.stream.pushed - self.stream.taken

    # ---- how far ahead ----

    def items_to_read(self) -> int:
        """How many more items may be read now."""
        if self._discards:
            return self._discard_limit()
        if self._unbounded:
            return AHEAD_MOST
        return self._ahead - (self.stream.pushed - self.used)

    def _items_that_fit(self) -> int:
        """How many items fit into the bytes that may be under way."""
        return max(AHEAD_BYTES // max(self.stream.weight, 1), 2)

    def _discard_limit(self) -> int:
        """How many calls may be under way whose results nobody takes."""
        return min(DISCARD_MOST, self._items_that_fit())

    def note_rate(self, results: int, seconds: float) -> None:
        """Choose how far to read ahead, from the number of results that arrived in seconds."""
        ahead = int(results / seconds * AHEAD_SECONDS) if seconds > 0 else AHEAD_MOST
        self._ahead = min(max(ahead, self._least), self._items_that_fit(), AHEAD_MOST)

    def read_on(self) -> None:
        """The user has taken results: read more items, or let the thread read them."""
        if self._ended or self.items_to_read() < self._ahead // 2:
            return
        if self._thread is None:
            self.read()
        else:
            with self._lock:
                self._may_read.notify()

    # ---- reading ----

    def read(self) -> None:
        """Read and submit as many items as may be read now."""
        with self._reading:
            if self._ended:
                return
            try:
                most = self.items_to_read()
                more = self.stream.feed(
                    self.function, self._iterator, False, self._chunk, most, AHEAD_BYTES
                )
            except BaseException as error:
                more = False
                # In the user's thread only inputs are read that raise nothing, so the exception
                # comes from a signal handler.
                if self._thread is None:
                    self._end()
                    raise
                self._fail(error)
            if not more:
                self._end()

    def _fail(self, error: BaseException) -> None:
        """The exception that the input raised becomes the result of one more call."""
        try:
            self.stream.push_failure(error)
        except Exception:  # the pool has been terminated
            self.was_cut_off = True

    def name_task(self, error: object, index: int) -> None:
        """Add to a WorkerDied which function and items the worker ran."""
        size = self._chunk or 1
        items = range(index * size, (index + 1) * size)
        if self._length is not None:
            items = items[: self._length - items.start]
        elif size > 1 and index == self.stream.pushed - 1:
            name_task(error, self.function)  # perhaps the last chunk: its length is not known
            return
        name_task(error, self.function, items)

    def _end(self) -> None:
        self._ended = True
        self.stream.end()
        self._intake.leave(self)

    # ---- when nobody takes results ----

    def read_to_end(self) -> None:
        """Read the whole input: the pool is being joined and waits for it."""
        with self._lock:
            self._unbounded = True
            self._may_read.notify()
            if not self._ended and self._thread is None:
                self._start_thread()

    def discard_results(self) -> None:
        """The user has dropped the iterator: read the whole input and discard the results."""
        if os.getpid() != self._pid:
            return  # a forked child, where a lock that was held at the fork stays held
        with self._lock:
            self._unbounded = self._discards = True
            self._may_read.notify()
            if self._stopped or sys.is_finalizing():
                return
            if not self.is_finished() and self._thread is None:
                try:
                    self._start_thread()
                except (RuntimeError, MemoryError):
                    pass  # Pool.join will read the input

    def stop(self) -> None:
        """The pool is terminated: read no more items."""
        with self._lock:
            self._stopped = True
            if not self._ended:
                self.was_cut_off = True
                self._end()
            self._may_read.notify()

    # ---- the thread that reads an input that may block ----

    def _start_thread(self) -> None:
        try:
            self._thread = threading.Thread(target=self._run, name="allcores-imap", daemon=True)
            _core.undisturbed(self._thread.start)
        except BaseException:  # the next call tries again
            self._thread = None
            raise

    def _run(self) -> None:
        with self._lock:  # the starting thread holds it until _thread is set
            if self._thread is not threading.current_thread():
                return  # a Ctrl-C came, and the starting thread gave this one up
        while True:
            if not self._ended:
                self.read()
            with self._lock:
                self._may_read.wait_for(
                    lambda: self._ended
                    or self._unbounded
                    or self.items_to_read() > self._ahead // 2
                )
                if self._ended and not self._discards:
                    self._thread = None
                    return
            if self._discards and not self._discard():
                return

    def _discard(self) -> bool:
        """Take results that nobody needs until few calls are under way. False: all are taken."""
        while self._ended or self.calls_under_way() > self._discard_limit():
            try:
                if self.stream.take(None, 16) is None:
                    return False
            except Exception:  # the pool has been terminated
                return False
        return True


class IMapUnorderedIterator:
    """Results in the order in which they arrive."""

    def __init__(self, pool: object, source: Source) -> None:
        self._pool = pool  # keeps the pool alive until the last result has arrived
        self._source = source
        self._ready: deque[tuple[bool, Any]] = deque()
        self._taking = threading.Lock()
        self._since = time.perf_counter()

    def __iter__(self) -> Iterator[Any]:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result, or raise its exception. TimeoutError after timeout seconds."""
        while not self._ready:
            self._take(timeout)
        ok, value = self._ready.popleft()
        source = self._source
        source.used += 1
        if not source.used & 15:
            source.read_on()
        if ok:
            return value
        raise value

    def __next__(self) -> Any:
        return self.next()

    def __del__(self) -> None:
        source = getattr(self, "_source", None)
        if source is not None:
            source.discard_results()

    def _take(self, timeout: float | None) -> None:
        with self._taking:
            if self._ready:
                return
            source = self._source
            source.read_on()
            rows = source.stream.take(timeout)
            if rows is None:
                self._pool = None
                if source.was_cut_off:
                    raise TaskCancelled("the pool was terminated before the input's end")
                raise StopIteration
            if not rows:
                raise TimeoutError
            now = time.perf_counter()
            source.note_rate(len(rows), now - self._since)
            self._since = now
            self._put(rows)

    def _put(self, rows: list[tuple[int, bool, Any, int]]) -> None:
        for index, ok, value, _ in rows:
            if not ok:
                self._source.name_task(value, index)
            self._ready.append((ok, value))


class IMapIterator(IMapUnorderedIterator):
    """Results in the order of the input."""

    def __init__(self, pool: object, source: Source) -> None:
        super().__init__(pool, source)
        self._index = 0
        self._early: dict[int, tuple[bool, Any]] = {}

    def _put(self, rows: list[tuple[int, bool, Any, int]]) -> None:
        for index, ok, value, _ in rows:
            if not ok:
                self._source.name_task(value, index)
            self._early[index] = (ok, value)
        while self._index in self._early:
            self._ready.append(self._early.pop(self._index))
            self._index += 1

# SPDX-License-Identifier: MIT
"""Results one by one, from an input that is read as they are used."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import TimeoutError

from . import _core, signals
from .errors import TaskCancelled
from .intake import Intake
from .results import name_task

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

# Inputs that never block: read by the thread that takes the results.
PROMPT = (list, tuple, range, str, bytes, dict, set, frozenset)

AHEAD_LEAST = 64  # items read ahead of what is used
AHEAD_MOST = 1024
AHEAD_SECONDS = 0.05  # that much work, at the rate at which results come
AHEAD_BYTES = 16 << 20  # of arguments and results
DISCARD = 256


class Source:
    """The input of one imap: read a bounded distance ahead, by one thread at a time."""

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
        self.used = 0  # results that the reader has had
        self.cut = False  # terminated before its end
        self._intake = intake
        self._chunk = chunk
        self._least = max(AHEAD_LEAST, 4 * workers)
        self._ahead = self._least
        self._lifted = self._dropped = self._ended = self._stopped = False
        self._reading = threading.Lock()
        self._lock = threading.RLock()  # see Intake
        self._room = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._length: int | None = None  # of the input, where that is known
        try:
            intake.enter(self)
            self._begin(iterable)
        except BaseException:  # a signal handler's: nobody will have this one
            self._end()
            raise

    def _begin(self, iterable: Iterable[Any]) -> None:
        try:
            self._iterator = iter(iterable)
        except Exception as error:
            self._fail(error)
            self._end()
            return
        if isinstance(iterable, PROMPT):
            self._length = len(iterable)
            self.read()
        else:
            with self._lock:
                self._start_thread()

    def is_finished(self) -> bool:
        """Whether all of it has been read and its results taken."""
        return self._ended and self.stream.taken == self.stream.pushed

    def calls_under_way(self) -> int:
        """Calls that have been handed in and have not ended."""
        return self.stream.pushed - self.stream.taken

    # ---- how far ahead ----

    def room(self) -> int:
        """How many more items may be read now."""
        if self._dropped:
            return self._discarded_at_once()
        if self._lifted:
            return AHEAD_MOST
        return self._ahead - (self.stream.pushed - self.used)

    def _fits(self) -> int:
        """How many items fit into the bytes that may be under way."""
        return max(AHEAD_BYTES // max(self.stream.weight, 1), 2)

    def _discarded_at_once(self) -> int:
        return min(DISCARD, self._fits())

    def note_rate(self, results: int, seconds: float) -> None:
        """So many results came in so much time: how far ahead is worth it."""
        ahead = int(results / seconds * AHEAD_SECONDS) if seconds > 0 else AHEAD_MOST
        self._ahead = min(max(ahead, self._least), self._fits(), AHEAD_MOST)

    def make_room(self) -> None:
        """The reader has used results."""
        if self._ended or self.room() < self._ahead // 2:
            return
        if self._thread is None:
            self.read()
        else:
            with self._lock:
                self._room.notify()

    # ---- reading ----

    def read(self) -> None:
        """Read what there is room for."""
        with self._reading:
            if self._ended:
                return
            try:
                room = self.room()
                more = self.stream.feed(
                    self.function, self._iterator, False, self._chunk, room, AHEAD_BYTES
                )
            except BaseException as error:
                more = False
                # The caller's own thread reads only what raises nothing: a signal handler did.
                if self._thread is None:
                    self._end()
                    raise
                self._fail(error)
            if not more:
                self._end()

    def _fail(self, error: BaseException) -> None:
        """The input's exception takes the place of an item."""
        try:
            self.stream.push_failure(error)
        except Exception:  # the pool has been terminated
            self.cut = True

    def name_task(self, error: object, index: int) -> None:
        """Tell a WorkerDied what its worker ran."""
        size = self._chunk or 1
        items = range(index * size, (index + 1) * size)
        if self._length is not None:
            items = items[: self._length - items.start]
        elif size > 1 and index == self.stream.pushed - 1:
            name_task(error, self.function)  # perhaps the last chunk, which may be shorter
            return
        name_task(error, self.function, items)

    def _end(self) -> None:
        self._ended = True
        self.stream.end()
        self._intake.leave(self)

    # ---- when nobody takes results ----

    def lift(self) -> None:
        """Read all: the pool is joined, and waits for it."""
        with self._lock:
            self._lifted = True
            self._room.notify()
            if not self._ended and self._thread is None:
                self._start_thread()

    def drop(self) -> None:
        """The reader is gone: run to the end, results are nobody's."""
        if os.getpid() != self._pid:
            return  # collected in a forked child, where nobody gives the lock back
        with self._lock:
            self._lifted = self._dropped = True
            self._room.notify()
            if self._stopped or sys.is_finalizing():
                return
            if not self.is_finished() and self._thread is None:
                try:
                    self._start_thread()
                except (RuntimeError, MemoryError):
                    pass  # then join reads it

    def stop(self) -> None:
        """The pool is terminated: read no more."""
        with self._lock:
            self._stopped = True
            if not self._ended:
                self.cut = True
                self._end()
            self._room.notify()

    # ---- the thread, where there is one ----

    def _start_thread(self) -> None:
        try:
            self._thread = threading.Thread(target=self._run, name="allcores-imap", daemon=True)
            signals.in_one_go(self._thread.start)
        except BaseException:  # whoever comes next tries again
            self._thread = None
            raise

    def _run(self) -> None:
        with self._lock:  # which the one who starts it has
            if self._thread is not threading.current_thread():
                return  # a Ctrl-C: it was given up
        while True:
            if not self._ended:
                self.read()
            with self._lock:
                self._room.wait_for(
                    lambda: self._ended or self._lifted or self.room() > self._ahead // 2
                )
                if self._ended and not self._dropped:
                    self._thread = None
                    return
            if self._dropped and not self._discard():
                return

    def _discard(self) -> bool:
        """Few at a time under way: nobody needs the results. False: that was all."""
        while self._ended or self.calls_under_way() > self._discarded_at_once():
            try:
                if self.stream.take(None, 16) is None:
                    return False
            except Exception:  # the pool has been terminated
                return False
        return True


class IMapUnorderedIterator:
    """Results as they come."""

    def __init__(self, pool: object, source: Source) -> None:
        self._pool = pool  # alive as long as there is something to come
        self._source = source
        self._ready: deque[tuple[bool, Any]] = deque()
        self._taking = threading.Lock()
        self._since = time.perf_counter()

    def __iter__(self) -> Iterator[Any]:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result, or its exception, raised. TimeoutError after timeout seconds."""
        while not self._ready:
            self._take(timeout)
        ok, value = self._ready.popleft()
        source = self._source
        source.used += 1
        if not source.used & 15:
            source.make_room()
        if ok:
            return value
        raise value

    def __next__(self) -> Any:
        return self.next()

    def __del__(self) -> None:
        source = getattr(self, "_source", None)
        if source is not None:
            source.drop()

    def _take(self, timeout: float | None) -> None:
        with self._taking:
            if self._ready:
                return
            source = self._source
            source.make_room()
            rows = source.stream.take(timeout)
            if rows is None:
                self._pool = None
                if source.cut:
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

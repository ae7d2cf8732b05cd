# SPDX-License-Identifier: MIT
"""The thread of a pool that runs callbacks, and drives maps for which no thread waits."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from . import _core
from .errors import TaskCancelled
from .intake import Intake
from .results import REFUSALS, STARVED, CallResult, MapResult, take_back
from .waiting import in_slices

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any


class Handler:
    """Takes results from one stream and hands each to the CallResult or MapResult it belongs to.

    The thread starts with the first call that needs it. It has no reference to the pool but through
    results, which keep their pool alive until they are ready.
    """

    def __init__(self, core: _core.Pool, intake: Intake) -> None:
        self._core = core
        self._intake = intake
        # Held from the push of a call until _owners has its index: no result comes in between.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._owners: dict[int, CallResult | MapResult] = {}
        self._maps: set[MapResult] = set()
        self._stream: _core.Stream | None = None
        self._thread: threading.Thread | None = None

    def _start_once(self) -> _core.Stream:
        """The stream; starts the thread if there is none."""
        if self._stream is None:
            stream = self._core.stream()
            try:
                self._thread = threading.Thread(
                    target=self._run, args=(stream,), name="allcores-handler", daemon=True
                )
                _core.undisturbed(self._thread.start)
                self._stream = stream
            except BaseException:  # keep no stream whose results no thread takes
                self._stream = self._thread = None
                stream.close()
                raise
        return self._stream

    # ---- from any thread ----

    def call(self, result: CallResult, function: Any, args: Any, kwds: Any) -> None:
        """Submit one call, whose result the thread will finish."""
        self._check_process()
        with self._lock:
            try:
                index = self._start_once().push_call(function, args, kwds)
            except TaskCancelled:  # the pool was closed after its state was checked
                raise ValueError("Pool not running") from None
            self._owners[index] = result

    def map(self, result: MapResult) -> None:
        """Drive a map to its end."""
        self._check_process()
        with self._lock:
            self._start_once()
            try:
                self._intake.enter(result)
                self._maps.add(result)
                self._feed(result)
            except BaseException as error:  # Ctrl-C: the user will not get this result
                result.fail_unsubmitted(error)
                if result not in self._maps:
                    self._intake.forget(result)
                    self._intake.leave(result)
                raise
            finally:
                self._finish_if_complete(result)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            # In a forked child. This raises the right exception; the lock may have been held at the
            # fork, and would never be released.
            self._core.stream()

    def end(self) -> None:
        """Say that nothing more will be submitted."""
        if self._stream:
            self._stream.end()

    def join(self) -> None:
        """Wait until the last callback has returned. In a callback: return at once."""
        if self._thread and self._thread is not threading.current_thread():
            in_slices(self._join_thread)

    def _join_thread(self, timeout: float | None) -> bool:
        assert self._thread
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ---- the thread ----

    def _push(self, result: MapResult, items: Sequence[Any]) -> int:
        assert self._stream
        index = result.push_to(self._stream, items)
        self._owners[index] = result
        return index

    def _feed(self, result: MapResult) -> None:
        try:
            result.feed(self._push)
        except REFUSALS as error:
            result.fail_unsubmitted(error)

    def _run(self, stream: _core.Stream) -> None:
        while True:
            try:
                rows = stream.take(STARVED if self._is_starved() else None)
            except BaseException as error:  # the pool takes no more work, or there is no memory
                self._fail_all(error)
                return
            if rows is None:
                return
            for row in rows:
                self._deliver(*row)
            if not rows:
                self._take_back(stream)
            # No references while the thread waits: an exception's traceback may refer to the pool.
            rows = row = None  # type: ignore[assignment]

    def _deliver(self, index: int, ok: bool, value: Any, elapsed_ns: int) -> None:
        with self._lock:
            owner = self._owners.pop(index, None)
            if isinstance(owner, MapResult):
                owner.receive(index, ok, value, elapsed_ns)
                self._feed_on(owner)
        if isinstance(owner, MapResult):
            self._finish_if_complete(owner)
        elif owner is not None:  # None: a Ctrl-C came after the push, before _owners had the index
            owner.receive(index, ok, value, elapsed_ns)

    def _feed_on(self, result: MapResult) -> None:
        try:
            self._feed(result)
        except BaseException as error:  # raised by pickling an item: this thread must go on
            result.fail_unsubmitted(error)

    def _fail_all(self, error: BaseException) -> None:
        """The stream has failed: fail all results, usually none. The next call opens a stream."""
        with self._lock:
            owners = set(self._owners.values()) | self._maps
            self._owners.clear()
            self._stream = None
            for owner in owners:
                if isinstance(owner, MapResult):
                    owner.fail_all(error)
        for owner in owners:
            if isinstance(owner, MapResult):
                self._finish_if_complete(owner)
            else:
                owner.receive(0, False, error, 0)

    def _finish_if_complete(self, result: MapResult) -> None:
        with self._lock:
            if not result.is_complete() or result not in self._maps:
                return
            self._maps.discard(result)
        result.finish()  # runs callbacks, so not under the lock
        self._intake.leave(result)

    def _is_starved(self) -> bool:
        with self._lock:
            return any(result.is_starved() for result in self._maps)

    def _take_back(self, stream: _core.Stream) -> None:
        with self._lock:
            maps = list(self._maps)
            try:
                found = take_back(stream, self._map_of)
            except BaseException:  # the pool has failed: stream.take() will raise the reason
                found = False
            for result in maps:
                if found:
                    self._feed_on(result)
                else:
                    result.note_nothing_taken_back()
        for result in maps:
            self._finish_if_complete(result)

    def _map_of(self, index: int) -> MapResult | None:
        owner = self._owners.get(index)  # None: see _deliver
        return owner if isinstance(owner, MapResult) else None

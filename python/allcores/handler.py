# SPDX-License-Identifier: MIT
"""The thread for what nobody waits for: callbacks, and maps that run on their own."""

from __future__ import annotations

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
    """Takes results from one stream and gives them to whom they belong.

    The thread starts with the first call that needs it. It holds on to results, which hold
    on to their pool until they are ready; to no pool otherwise.
    """

    def __init__(self, core: _core.Pool, intake: Intake) -> None:
        self._core = core
        self._intake = intake
        self._lock = threading.RLock()  # an index is known to belong to somebody
        self._owners: dict[int, CallResult | MapResult] = {}
        self._maps: set[MapResult] = set()
        self._stream: _core.Stream | None = None
        self._thread: threading.Thread | None = None

    def _started(self) -> _core.Stream:
        if self._stream is None:
            self._stream = self._core.stream()
            self._thread = threading.Thread(
                target=self._run, args=(self._stream,), name="allcores-handler", daemon=True
            )
            try:
                self._thread.start()
            except (RuntimeError, MemoryError):  # no stream that nobody serves
                self._stream.close()
                self._stream = self._thread = None
                raise
        return self._stream

    # ---- from any thread ----

    def call(self, result: CallResult, function: Any, args: Any, kwds: Any) -> None:
        """Hand in one call whose result is to be settled here."""
        with self._lock:
            try:
                index = self._started().push_call(function, args, kwds)
            except TaskCancelled:  # closed since it was looked at: nothing was begun
                raise ValueError("Pool not running") from None
            self._owners[index] = result

    def map(self, result: MapResult) -> None:
        """Drive a map from here on."""
        with self._lock:
            self._started()
            self._intake.enter(result)
            self._maps.add(result)
            try:
                self._feed(result)
            except BaseException as error:  # Ctrl-C: nobody will have this result
                result.fail(error)
                raise
            finally:
                self._settle_if_complete(result)

    def end(self) -> None:
        """Nothing more will be handed in."""
        if self._stream:
            self._stream.end()

    def join(self) -> None:
        """Until the last callback has returned; in a callback itself: at once."""
        if self._thread and self._thread is not threading.current_thread():
            in_slices(self._has_ended)

    def _has_ended(self, timeout: float | None) -> bool:
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
            result.fail(error)

    def _run(self, stream: _core.Stream) -> None:
        while True:
            try:
                rows = stream.take(STARVED if self._is_starved() else None)
            except Exception:  # the pool takes no more, and nothing is under way
                rows = None
            if rows is None:
                return
            for row in rows:
                self._give(*row)
            if not rows:
                self._take_back(stream)
            # Not kept while it waits: an exception's traceback may hold on to the pool.
            rows = row = None  # type: ignore[assignment]

    def _give(self, index: int, ok: bool, value: Any, elapsed_ns: int) -> None:
        with self._lock:
            owner = self._owners.pop(index, None)
            if isinstance(owner, MapResult):
                owner.arrived(index, ok, value, elapsed_ns)
                try:
                    self._feed(owner)
                except Exception as error:  # whatever it is, this thread goes on
                    owner.fail(error)
        if isinstance(owner, MapResult):
            self._settle_if_complete(owner)
        elif owner is not None:  # else Ctrl-C came between its push and its note
            owner.arrived(index, ok, value, elapsed_ns)

    def _settle_if_complete(self, result: MapResult) -> None:
        with self._lock:
            if not result.is_complete() or result not in self._maps:
                return
            self._maps.discard(result)
        result.settle()  # its callbacks: not under the lock
        self._intake.leave(result)

    def _is_starved(self) -> bool:
        with self._lock:
            return any(result.is_starved() for result in self._maps)

    def _take_back(self, stream: _core.Stream) -> None:
        with self._lock:
            if not take_back(stream, self._map_of):
                for result in self._maps:
                    result.gave_nothing()
            for result in self._maps:
                self._feed(result)

    def _map_of(self, index: int) -> MapResult:
        owner = self._owners[index]
        assert isinstance(owner, MapResult)  # only calls of maps are divisible
        return owner

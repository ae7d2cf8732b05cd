# SPDX-License-Identifier: MIT
"""The thread for what nobody waits for: callbacks, and maps that run on their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from . import _core, signals
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
        self._pid = os.getpid()
        self._owners: dict[int, CallResult | MapResult] = {}
        self._maps: set[MapResult] = set()
        self._stream: _core.Stream | None = None
        self._thread: threading.Thread | None = None

    def _started(self) -> _core.Stream:
        if self._stream is None:
            stream = self._core.stream()
            try:
                self._thread = threading.Thread(
                    target=self._run, args=(stream,), name="allcores-handler", daemon=True
                )
                signals.in_one_go(self._thread.start)
                self._stream = stream
            except BaseException:  # no stream that nobody serves
                self._stream = self._thread = None
                stream.close()
                raise
        return self._stream

    # ---- from any thread ----

    def call(self, result: CallResult, function: Any, args: Any, kwds: Any) -> None:
        """Hand in one call whose result is to be settled here."""
        self._check_process()
        with self._lock:
            try:
                index = self._started().push_call(function, args, kwds)
            except TaskCancelled:  # closed since it was looked at: nothing was begun
                raise ValueError("Pool not running") from None
            self._owners[index] = result

    def map(self, result: MapResult) -> None:
        """Drive a map from here on."""
        self._check_process()
        with self._lock:
            self._started()
            try:
                self._intake.enter(result)
                self._maps.add(result)
                self._feed(result)
            except BaseException as error:  # Ctrl-C: nobody will have this result
                result.fail(error)
                if result not in self._maps:
                    self._intake.forget(result)
                    self._intake.leave(result)
                raise
            finally:
                self._settle_if_complete(result)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            self._core.stream()  # says what is wrong; the lock may be held by nobody who is here

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
            except BaseException as error:  # the pool takes no more, or there is no memory
                self._abandon(error)
                return
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
                self._feed_on(owner)
        if isinstance(owner, MapResult):
            self._settle_if_complete(owner)
        elif owner is not None:  # else Ctrl-C came between its push and its note
            owner.arrived(index, ok, value, elapsed_ns)

    def _feed_on(self, result: MapResult) -> None:
        try:
            self._feed(result)
        except BaseException as error:  # whatever an item's pickling does, this thread goes on
            result.fail(error)

    def _abandon(self, error: BaseException) -> None:
        """Nothing more will come; usually nothing is under way. Who comes next starts anew."""
        with self._lock:
            owners = set(self._owners.values()) | self._maps
            self._owners.clear()
            self._stream = None
            for owner in owners:
                if isinstance(owner, MapResult):
                    owner.give_up(error)
        for owner in owners:
            if isinstance(owner, MapResult):
                self._settle_if_complete(owner)
            else:
                owner.arrived(0, False, error, 0)

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
            maps = list(self._maps)
            try:
                found = take_back(stream, self._map_of)
            except BaseException:  # the pool has failed: the stream says how
                found = False
            for result in maps:
                if found:
                    self._feed_on(result)
                else:
                    result.gave_nothing()
        for result in maps:
            self._settle_if_complete(result)

    def _map_of(self, index: int) -> MapResult | None:
        owner = self._owners.get(index)  # None: Ctrl-C came between its push and its note
        return owner if isinstance(owner, MapResult) else None

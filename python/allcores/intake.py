# SPDX-License-Identifier: MIT
"""Who still hands in work that a closed pool has promised to do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .waiting import SLICE


class Intake:
    """Who still hands in work that the pool has promised: it is shut only after the last."""

    def __init__(self) -> None:
        # `with` on the lock, not on the condition: a signal handler that raises can leave
        # the latter locked. Reentrant, since a collected iterator may come here at any time.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._feeders: set[object] = set()
        # C: unlike leave, it can't be cut short by a signal handler's exception.
        self.forget = self._feeders.discard
        self._shut: Callable[[], None] | None = None
        self._closed = False

    def enter(self, feeder: object) -> None:
        """feeder goes on handing in work, also after the pool is closed, until it leaves.
        ValueError where it is closed already."""
        with self._lock:
            if self._closed:
                raise ValueError("Pool not running")
            self._feeders.add(feeder)

    def leave(self, feeder: object) -> None:
        """It has handed in all; more than once does no harm."""
        with self._lock:
            self._feeders.discard(feeder)
            self._shut_if_empty()

    def clear(self) -> None:
        """The pool is terminated: nobody feeds any more, whatever became of those who did."""
        with self._lock:
            self._feeders.clear()
            self._shut_if_empty()

    def close(self, shut: Callable[[], None]) -> None:
        """Call shut once nobody feeds any more."""
        with self._lock:
            self._closed = True
            self._shut = shut
            self._shut_if_empty()

    def _shut_if_empty(self) -> None:
        if not self._feeders:
            self._condition.notify_all()
            if self._shut:
                shut, self._shut = self._shut, None
                shut()

    def feeders(self) -> list[object]:
        """Those that are at it now."""
        with self._lock:
            return list(self._feeders)

    def wait(self) -> None:
        """Until nobody feeds any more. In slices in any thread, since one who left may have been
        cut short before it told."""
        with self._lock:
            while not self._condition.wait_for(lambda: not self._feeders, SLICE):
                pass
            self._shut_if_empty()

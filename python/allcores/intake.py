# SPDX-License-Identifier: MIT
"""Who still hands in work that a closed pool has promised to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Intake:
    """Who still hands in work that the pool has promised: it is shut only after the last."""

    def __init__(self) -> None:
        # Reentrant, since a collected iterator may come here at any time.
        self._lock = threading.RLock()
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
        if self._shut and not self._feeders:
            shut, self._shut = self._shut, None
            shut()

    def feeders(self) -> list[object]:
        """Those that are at it now."""
        with self._lock:
            return list(self._feeders)

    def wait(self) -> None:
        """Until nobody feeds any more. By looking: whoever leaves may be cut short before he
        could tell."""
        pause = 0.0005
        while self._feeders:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        with self._lock:
            self._shut_if_empty()

# SPDX-License-Identifier: MIT
"""Who still hands in work that a closed pool has promised to do."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Intake:
    """Who still hands in work that the pool has promised: it is shut only after the last."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._feeders: set[object] = set()
        self._shut: Callable[[], None] | None = None

    def enter(self, feeder: object) -> None:
        """feeder goes on handing in work, also after the pool is closed, until it leaves."""
        with self._condition:
            self._feeders.add(feeder)

    def leave(self, feeder: object) -> None:
        """It has handed in all; more than once does no harm."""
        with self._condition:
            self._feeders.discard(feeder)
            self._shut_if_empty()

    def close(self, shut: Callable[[], None]) -> None:
        """Call shut once nobody feeds any more."""
        with self._condition:
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
        with self._condition:
            return list(self._feeders)

    def wait(self) -> None:
        """Until nobody feeds any more."""
        with self._condition:
            self._condition.wait_for(lambda: not self._feeders)

# SPDX-License-Identifier: MIT
"""Which feeders still submit work that a closed pool has promised to do.

A feeder is a map, or the source of an imap: it submits its calls bit by bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Intake:
    """The feeders of a pool. A closed pool is shut only when the last feeder has left."""

    def __init__(self) -> None:
        # Reentrant: the garbage collection of an iterator, at any line, may call leave().
        self._lock = threading.RLock()
        self._feeders: set[object] = set()
        # A method in C: no signal handler's exception can cut it short, as it can leave().
        self.forget = self._feeders.discard
        self._shut: Callable[[], None] | None = None
        self._closed = False

    def enter(self, feeder: object) -> None:
        """feeder submits work until it leaves, also after the pool was closed. ValueError: the pool
        is closed already."""
        with self._lock:
            if self._closed:
                raise ValueError("Pool not running")
            self._feeders.add(feeder)

    def leave(self, feeder: object) -> None:
        """The feeder has submitted everything. May be called more than once."""
        with self._lock:
            self._feeders.discard(feeder)
            self._shut_if_empty()

    def clear(self) -> None:
        """The pool is terminated: remove all feeders, in whatever state they are."""
        with self._lock:
            self._feeders.clear()
            self._shut_if_empty()

    def close(self, shut: Callable[[], None]) -> None:
        """Call shut as soon as there is no feeder."""
        with self._lock:
            self._closed = True
            self._shut = shut
            self._shut_if_empty()

    def _shut_if_empty(self) -> None:
        if self._shut and not self._feeders:
            shut, self._shut = self._shut, None
            shut()

    def feeders(self) -> list[object]:
        """The feeders that have not left."""
        with self._lock:
            return list(self._feeders)

    def wait(self) -> None:
        """Wait until there is no feeder. By polling: a signal handler's exception may cut leave()
        short before it could wake a waiting thread."""
        pause = 0.0005
        while self._feeders:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        with self._lock:
            self._shut_if_empty()

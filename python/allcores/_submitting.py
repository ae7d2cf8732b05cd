# SPDX-License-Identifier: MIT
"""Which jobs still submit work that a closed pool has promised to do.

A map or an imap submits its calls bit by bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Submitting:
    """The jobs of a pool that submit. A closed pool is shut only when the last of them has left."""

    def __init__(self) -> None:
        # Reentrant: the garbage collection of an iterator, at any line, may call leave().
        self._lock = threading.RLock()
        self._jobs: set[object] = set()
        # A method in C: no signal handler's exception can cut it short, as it can leave().
        self.forget = self._jobs.discard
        self._shut: Callable[[], None] | None = None
        self._closed = False

    def enter(self, job: object) -> None:
        """The job submits work until it leaves, also after the pool was closed. ValueError: the pool
        is closed already."""
        with self._lock:
            if self._closed:
                raise ValueError("Pool not running")
            self._jobs.add(job)

    def leave(self, job: object) -> None:
        """The job has submitted everything. May be called more than once."""
        with self._lock:
            self._jobs.discard(job)
            self._shut_if_empty()

    def clear(self) -> None:
        """The pool is terminated: remove all jobs, in whatever state they are, and let none in."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            self._shut_if_empty()

    def close(self, shut: Callable[[], None]) -> None:
        """Call shut as soon as there is no job."""
        with self._lock:
            self._closed = True
            self._shut = shut
            self._shut_if_empty()

    def _shut_if_empty(self) -> None:
        if self._shut and not self._jobs:
            shut, self._shut = self._shut, None
            shut()

    def jobs(self) -> list[object]:
        """The jobs that have not left."""
        with self._lock:
            return list(self._jobs)

    def wait(self) -> None:
        """Wait until there is no job. By polling: a signal handler's exception may cut leave()
        short before it could wake a waiting thread."""
        pause = 0.0005
        while self._jobs:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        with self._lock:
            self._shut_if_empty()

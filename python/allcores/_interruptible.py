# SPDX-License-Identifier: MIT
"""Waits that a signal always interrupts.

A signal that arrives just before a wait of the main thread begins does not interrupt the wait:
its Python handler would run only after it. So the main thread waits in slices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SLICE = 0.1


class Gate:
    """A threading.Event that cannot be cleared. Unlike in an Event, an exception that a signal
    handler raises in a wait leaves no lock held for which other threads wait."""

    def __init__(self) -> None:
        self._open = False
        self._shut = threading.Lock()
        self._shut.acquire()

    def is_set(self) -> bool:
        """Whether set() was called."""
        return self._open

    def set(self) -> None:
        """Wake all threads that wait, now and later."""
        was_open, self._open = self._open, True
        if not was_open:
            self._shut.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for set(), at most timeout seconds. Return whether it was called."""
        return self._open or in_slices(self._wait_open, timeout)

    def _wait_open(self, timeout: float | None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        # The lock wakes one thread, which releases it for the next one. A signal handler's
        # exception in between may leave it locked: so look at _open once a second.
        while not self._open:
            left = 1.0 if end is None else min(1.0, end - time.monotonic())
            if left <= 0 and end is not None:
                break
            if self._shut.acquire(timeout=max(left, 0.0)):
                self._shut.release()
        return self._open


def in_slices(wait: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """Call wait(seconds), in the main thread repeatedly, until it returns true or timeout seconds
    (None: no limit) have passed. Return what it returned last."""
    if threading.get_ident() != threading.main_thread().ident:
        return wait(timeout)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE if end is None else min(SLICE, end - time.monotonic())
        if wait(max(left, 0.0)):
            return True
        if end is not None and time.monotonic() >= end:
            return False

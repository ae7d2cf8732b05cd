# SPDX-License-Identifier: MIT
"""Waits that a signal always ends.

A signal that comes when a wait of the main thread has not quite begun interrupts nothing:
its Python handler would run only when the wait is over. So that thread waits in slices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SLICE = 0.1


class Gate:
    """Shut, and open for ever once it is set: threading.Event, but that what a signal handler
    raises in a wait can leave nothing locked for which others wait."""

    def __init__(self) -> None:
        self._open = False
        self._shut = threading.Lock()
        self._shut.acquire()

    def is_set(self) -> bool:
        """Whether it is open."""
        return self._open

    def set(self) -> None:
        """Open it."""
        was_open, self._open = self._open, True
        if not was_open:
            self._shut.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open, at most timeout seconds: whether it is."""
        return self._open or in_slices(self._pass, timeout)

    def _pass(self, timeout: float | None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        # One after the other; who is interrupted in between lets nobody pass, so look again.
        while not self._open:
            left = 1.0 if end is None else min(1.0, end - time.monotonic())
            if left <= 0 and end is not None:
                break
            if self._shut.acquire(timeout=max(left, 0.0)):
                self._shut.release()
        return self._open


def in_slices(wait: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """wait(seconds) says whether it has come; the same for timeout seconds (None: for ever)."""
    if threading.get_ident() != threading.main_thread().ident:
        return wait(timeout)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE if end is None else min(SLICE, end - time.monotonic())
        if wait(max(left, 0.0)):
            return True
        if end is not None and time.monotonic() >= end:
            return False

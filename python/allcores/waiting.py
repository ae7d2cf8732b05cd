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


def in_slices(wait: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """wait(seconds) says whether it has come; the same for timeout seconds (None: for ever)."""
    if threading.current_thread() is not threading.main_thread():
        return wait(timeout)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE if end is None else min(SLICE, end - time.monotonic())
        if wait(max(left, 0.0)):
            return True
        if end is not None and time.monotonic() >= end:
            return False

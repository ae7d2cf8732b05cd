# SPDX-License-Identifier: MIT
"""Postponing Python signal handlers.

What a Python handler raises appears in the main thread between any two steps, even if the signal
is blocked there and another thread received it. Some steps must not be separated.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

# Signals whose Python handlers may raise. SIGINT is postponed first and restored last.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGPROF",
                 "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]

# Signals that arrived while handlers were postponed. Whoever calls resume() then calls deliver()
# once for each.
postponed: list[int] = []

_handlers: dict[int, Any] = {}  # by signal: the postponed handler


def _postpone(signum: int, frame: object) -> None:
    postponed.append(signum)


def deliver() -> None:
    """Run the handler of the first postponed signal. The signal is not sent again, since the
    wakeup descriptor (signal.set_wakeup_fd) has been written already."""
    if postponed:
        signum = postponed.pop(0)
        handler = signal.getsignal(signum)
        if callable(handler):
            handler(signum, None)


def _may_raise(handler: Any) -> bool:
    # asyncio's handler does nothing, and setting it again would undo its siginterrupt().
    return callable(handler) and getattr(handler, "__name__", None) != "_sighandler_noop"


def hold() -> list[tuple[int, Any]]:
    """Postpone handlers until resume(), which takes the returned list. Only in the main thread, as
    no other thread runs handlers."""
    held: list[tuple[int, Any]] = []
    # Not current_thread(): that would register a thread of the engine as a Python thread, and a
    # child that this thread forks could not exit properly.
    if threading.get_ident() != threading.main_thread().ident:
        return held
    try:
        for signum in _SIGNALS:
            handler = signal.getsignal(signum)
            if handler is not _postpone and _may_raise(handler):
                _handlers[signum] = handler
                held.append((signum, handler))
                signal.signal(signum, _postpone)
    except BaseException:  # raised by a handler that was not postponed yet
        resume(held)
        raise
    return held


def resume(held: list[tuple[int, Any]]) -> None:
    """Restore the handlers. The caller then delivers the signals in the list postponed."""
    try:
        while held:
            signal.signal(*held[-1])
            held.pop()
    finally:
        if held:  # a handler that was just restored has raised: restore the others
            resume(held)


def without_handlers(call: Callable[[], object]) -> None:
    """Run call(), and signal handlers only after it, so that no handler can cut it short."""
    held = hold()
    postpones = bool(held)  # false in other threads, which deliver nothing
    try:
        call()
    finally:
        resume(held)
        while postpones and postponed:
            deliver()


def _resume_in_child() -> None:
    postponed.clear()
    for signum, handler in _handlers.items():
        if signal.getsignal(signum) is _postpone:
            signal.signal(signum, handler)


# Registered before the hook _after_fork in worker.py, since crew.py imports this module first.
os.register_at_fork(after_in_child=_resume_in_child)

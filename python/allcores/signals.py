# SPDX-License-Identifier: MIT
"""Signal handlers that wait until something is done.

What a Python handler raises comes out of the main thread between any two steps, also where the
signal is blocked there and another thread has received it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

# Those from which programs raise. SIGINT is the first, and so the last to be as it was.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGPROF",
                 "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]

came: list[int] = []  # while handlers waited: whoever resumes them delivers

_handlers: dict[int, Any] = {}  # that wait


def _note(signum: int, frame: object) -> None:
    came.append(signum)


def deliver() -> None:
    """Run the handler of the first that came. Not by another signal: a wakeup descriptor has been
    told of it already."""
    if came:
        signum = came.pop(0)
        handler = signal.getsignal(signum)
        if callable(handler):
            handler(signum, None)


def _may_raise(handler: Any) -> bool:
    # asyncio's does nothing; signal.signal would undo its siginterrupt.
    return callable(handler) and getattr(handler, "__name__", None) != "_sighandler_noop"


def hold() -> list[tuple[int, Any]]:
    """From now on handlers wait: what resume takes. In the main thread; elsewhere none runs."""
    held: list[tuple[int, Any]] = []
    # Not current_thread(), which enters a thread of the engine's as one of Python's: a child that it
    # forks could not end properly then.
    if threading.get_ident() != threading.main_thread().ident:
        return held
    try:
        for signum in _SIGNALS:
            handler = signal.getsignal(signum)
            if handler is not _note and _may_raise(handler):
                _handlers[signum] = handler
                held.append((signum, handler))
                signal.signal(signum, _note)
    except BaseException:  # one that had not been put off yet
        resume(held)
        raise
    return held


def resume(held: list[tuple[int, Any]]) -> None:
    """Handlers are as they were; which signals came stands in came."""
    try:
        while held:
            signal.signal(*held[-1])
            held.pop()
    finally:
        if held:  # a handler that was resumed has raised at once
            resume(held)


def in_one_go(call: Callable[[], object]) -> None:
    """call(), of which a handler can cut nothing short: it runs afterwards."""
    held = hold()
    here = bool(held)  # elsewhere none has waited
    try:
        call()
    finally:
        resume(held)
        while here and came:
            deliver()


def _resume_in_child() -> None:
    came.clear()
    for signum, handler in _handlers.items():
        if signal.getsignal(signum) is _note:
            signal.signal(signum, handler)


# Before the hook by which a forked worker begins: crew.py imports this module before worker.py.
os.register_at_fork(after_in_child=_resume_in_child)

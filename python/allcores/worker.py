# SPDX-License-Identifier: MIT
"""What runs in a worker process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from multiprocessing import util
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

from . import _core

# Never given up: closing it before the process has ended would tell the owner less.
_worker: _core.Worker | None = None


class Seat:
    """The descriptor through which a worker takes its seat, on its way to the process."""

    def __init__(self, fd: int) -> None:
        self._fd: Any = fd

    def __getstate__(self) -> Any:
        if get_spawning_popen() is None:
            raise RuntimeError("a seat is passed on only to a process that is being started")
        return DupFd(self._fd)

    def __setstate__(self, duplicate: Any) -> None:
        self._fd = duplicate.detach()

    def take(self) -> int:
        """The descriptor, in the process that is to sit down."""
        return int(self._fd)


def _leave_to_owner(signum: int, frame: object) -> None:
    """Ctrl-C goes to the whole foreground group: what it means is said by the owner.

    A handler, and not SIG_IGN, which the programs that a task starts would inherit.
    """


def _set_up() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave_to_owner)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # What a task prints is out before its result is: the worker may be ended then.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(line_buffering=True)


def main(
    seat: Seat, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Sit down, run the initializer, run calls until it is time to leave."""
    global _worker
    _set_up()
    try:
        _worker = _core.Worker(seat.take(), encode_failure)
    except ValueError:
        util.debug("the pool was closed before this worker had begun")
        return
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException as error:
            name = getattr(initializer, "__qualname__", repr(initializer))
            _worker.ready(1, f"initializer {name} raised {type(error).__name__}: {error}"[:180])
            raise
    _worker.ready()
    _worker.run()
    util.debug("worker leaves")


# Where a call failed, as the extension counts.
DECODE, RUN, ENCODE = range(3)


def encode_failure(stage: int, error: BaseException, value: object) -> bytes:
    """The pickle of the exception that the owner is to raise.

    It is tried here whether it can be rebuilt: the owner must not be the first to find out.
    """
    # Here, and not on top: a worker that never fails need not wait for it.
    from multiprocessing.pool import (  # type: ignore[attr-defined]
        ExceptionWithTraceback,
        MaybeEncodingError,
    )

    traceback = error.__traceback__
    if stage == ENCODE:
        error = MaybeEncodingError(error, value)
    wrapped = ExceptionWithTraceback(error, traceback)
    try:
        data = bytes(ForkingPickler.dumps(wrapped))
        if not isinstance(ForkingPickler.loads(data), BaseException):
            raise TypeError(f"{type(error).__name__} is rebuilt as something else")
        return data
    except Exception as problem:
        wrapped.exc = MaybeEncodingError(problem, error)
        return bytes(ForkingPickler.dumps(wrapped))

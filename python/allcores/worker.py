# SPDX-License-Identifier: MIT
"""What runs in a worker process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import util
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd, ForkingPickler

from . import _core, stacks
from .descriptors import above_standard
from .errors import describe

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any


class Seat:
    """What a worker is handed, on its way to the process: its number from 0, the descriptor
    through which it takes its seat, and the one (or -1) where its stacks are written."""

    def __init__(self, number: int, fd: int, stacks_fd: int) -> None:
        self.number = number
        self._fd = fd
        self.stacks_fd = stacks_fd
        self.worker: _core.Worker | None = None

    def __getstate__(self) -> Any:
        if get_spawning_popen() is None:
            raise RuntimeError("a seat is passed on only to a process that is being started")
        fds = [self._fd, self.stacks_fd]
        return self.number, [DupFd(fd) for fd in fds if fd >= 0]

    def __setstate__(self, state: Any) -> None:
        number, duplicates = state
        fd, *stacks_fd = [above_standard(duplicate.detach()) for duplicate in duplicates]
        self.__init__(number, fd, stacks_fd[0] if stacks_fd else -1)  # type: ignore[misc]

    def take(self) -> _core.Worker:
        """In the process that is to sit there: sit down, once."""
        if self.worker is None:
            self.worker = _core.Worker(self._fd, encode_failure, describe)
        # Never given up: closed before the process has ended it would tell the owner less.
        _taken.append(self.worker)
        return self.worker


_taken: list[_core.Worker] = []


def _leave_to_owner(signum: int, frame: object) -> None:
    """Ctrl-C goes to the whole foreground group: what it means is said by the owner.

    A handler, and not SIG_IGN, which the programs that a task starts would inherit.
    """


def _set_up() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave_to_owner)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if _stdin:
        try:
            sys.stdin = open(above_standard(os.open(os.devnull, os.O_RDONLY)), encoding="utf-8")
        except OSError:
            pass  # then it has none
    # What a task prints is out before its result is: the worker may be ended then.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(line_buffering=True)


class forking:
    """In its block this thread starts a worker, perhaps by a fork: if it is early, the child sits
    down before all else."""

    _now: forking | None = None

    def __init__(self, seat: Seat, early: bool) -> None:
        self.seat = seat
        self.early = early
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        forking._now = self

    def __exit__(self, *exc: object) -> None:
        forking._now = None

    @classmethod
    def take(cls) -> forking | None:
        """In a child: what it was forked for, if for a worker."""
        now, cls._now = cls._now, None
        return now if now and now._thread == threading.get_ident() else None


def _begin() -> None:
    """In a forked child, at once."""
    now = forking.take()
    if now is None:
        return
    _leave_stdin()
    if now.early:
        _sit_down_early(now.seat)


_stdin: list[object] = []


def _leave_stdin() -> None:
    """The owner's standard input is not for workers. multiprocessing closes it in the child: that
    would wait for ever for a lock which another thread, that was reading a line, had at the fork."""
    _stdin.append(sys.stdin)
    sys.stdin = None  # type: ignore[assignment]


def _sit_down_early(seat: Seat) -> None:
    """Sleep until there is work.

    Most of a forked worker's start are the pages that its interpreter writes to, each a
    fault: put off until the worker is needed, they don't hold up the others, and a pool that is
    larger than its work never pays for them.
    """
    try:
        worker = seat.take()
        worker.ready()
        if not worker.wait():
            os._exit(0)
    except ValueError:  # the pool was closed before this worker had begun
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


os.register_at_fork(after_in_child=_begin)


def main(
    seat: Seat, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Sit down, run the initializer, run calls until it is time to leave."""
    _set_up()
    stacks.write_to(seat.stacks_fd, seat.number)
    sat_down_early = seat.worker is not None
    try:
        worker = seat.take()
    except ValueError:
        util.debug("the pool was closed before this worker had begun")
        return
    if initializer is not None:
        worker.say(f"the initializer, {describe(initializer)}")
        try:
            initializer(*initargs)
        except BaseException as error:
            name = getattr(initializer, "__qualname__", repr(initializer))
            worker.ready(1, f"initializer {name} raised {type(error).__name__}: {error}"[:180])
            raise
    if not sat_down_early:
        worker.ready()
    worker.run()
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

    frames = error.__traceback__
    # Not for want of memory, of which the value's repr would take more.
    if stage == ENCODE and not isinstance(error, MemoryError):
        error = MaybeEncodingError(error, value)
    wrapped = ExceptionWithTraceback(error, frames)
    try:
        data = bytes(ForkingPickler.dumps(wrapped))
        if not isinstance(ForkingPickler.loads(data), BaseException):
            raise TypeError(f"{type(error).__name__} is rebuilt as something else")
        return data
    except Exception as problem:
        wrapped.exc = MaybeEncodingError(problem, error)
        return bytes(ForkingPickler.dumps(wrapped))

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
    """What a worker process needs to take its seat: the seat's number (from 0), the descriptor of
    the worker's socket, and the descriptor (or -1) to which its stacks are written. It travels to
    the process as an argument of main()."""

    def __init__(self, number: int, fd: int, stacks_fd: int) -> None:
        self.number = number
        self._fd = fd
        self.stacks_fd = stacks_fd
        self.worker: _core.Worker | None = None

    def __getstate__(self) -> Any:
        if get_spawning_popen() is None:
            raise RuntimeError("a seat can be pickled only for a process that is being started")
        fds = [self._fd, self.stacks_fd]
        return self.number, [DupFd(fd) for fd in fds if fd >= 0]

    def __setstate__(self, state: Any) -> None:
        number, duplicates = state
        fd, *stacks_fd = [above_standard(duplicate.detach()) for duplicate in duplicates]
        self.__init__(number, fd, stacks_fd[0] if stacks_fd else -1)  # type: ignore[misc]

    def take(self) -> _core.Worker:
        """Take the seat; in the worker process. A second call returns the same worker."""
        if self.worker is None:
            self.worker = _core.Worker(self._fd, encode_failure, describe)
        # Kept until the process exits: the owner would take an earlier close for the worker's
        # death, and not learn how the process ended.
        _never_closed.append(self.worker)
        return self.worker


_never_closed: list[_core.Worker] = []


def _ignore_interrupt(signum: int, frame: object) -> None:
    """The terminal sends Ctrl-C to the workers, too, but the owner decides what it means.

    This is a handler and not SIG_IGN, which programs that a task starts would inherit.
    """


def _set_up() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _ignore_interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if _owners_stdin:
        try:
            sys.stdin = open(above_standard(os.open(os.devnull, os.O_RDONLY)), encoding="utf-8")
        except OSError:
            pass  # sys.stdin stays None
    # What a task prints must be written before its result is sent: the owner may kill the worker
    # right after.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(line_buffering=True)


class forking:
    """A block in which this thread starts a worker, perhaps by a fork. A forked child finds here
    that it is a worker; with early it takes its seat before anything else."""

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
        """In a forked child: the block that forked it, if that started a worker. Ends the block."""
        now, cls._now = cls._now, None
        return now if now and now._thread == threading.get_ident() else None


def _after_fork() -> None:
    """Runs in every forked child first."""
    now = forking.take()
    if now is None:
        return
    _detach_stdin()
    if now.early:
        _take_seat_early(now.seat)


_owners_stdin: list[object] = []


def _detach_stdin() -> None:
    """Workers do not read the owner's standard input. multiprocessing would close sys.stdin in the
    child. That takes the file's lock, and hangs if another thread was reading a line at the fork:
    so keep the file open and hide it."""
    _owners_stdin.append(sys.stdin)
    sys.stdin = None  # type: ignore[assignment]


def _take_seat_early(seat: Seat) -> None:
    """Take the seat in a forked child and sleep until there is work.

    The start of a forked worker is mostly page faults, one for each page that its interpreter
    writes to. When they happen only once the worker is needed they do not delay the start of the
    other workers, and a pool that is larger than its work never pays for them.
    """
    try:
        worker = seat.take()
        worker.ready()
        if not worker.wait():
            os._exit(0)
    except ValueError:  # the pool was closed before this worker took its seat
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


os.register_at_fork(after_in_child=_after_fork)


def main(
    seat: Seat, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Take the seat, run the initializer, run calls until the worker is to exit."""
    _set_up()
    stacks.write_to(seat.stacks_fd, seat.number)
    took_seat_early = seat.worker is not None
    try:
        worker = seat.take()
    except ValueError:
        util.debug("the pool was closed before this worker took its seat")
        return
    if initializer is not None:
        worker.say(f"the initializer, {describe(initializer)}")
        try:
            initializer(*initargs)
        except BaseException as error:
            name = getattr(initializer, "__qualname__", repr(initializer))
            worker.ready(1, f"initializer {name} raised {type(error).__name__}: {error}"[:180])
            raise
    if not took_seat_early:
        worker.ready()
    worker.run()
    util.debug("worker exits")


# Where a call failed: enum stage in ext/worker.c.
DECODE, RUN, ENCODE = range(3)


def encode_failure(stage: int, error: BaseException, value: object) -> bytes:
    """The pickle of the exception that the owner is to raise.

    The worker unpickles it once to check that this works: otherwise the owner would be the first
    to find out that it does not.
    """
    # Imported here: it takes time, and most workers never need it.
    from multiprocessing.pool import (  # type: ignore[attr-defined]
        ExceptionWithTraceback,
        MaybeEncodingError,
    )

    frames = error.__traceback__
    # A MemoryError stays: MaybeEncodingError makes the repr of the value, which takes more memory.
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

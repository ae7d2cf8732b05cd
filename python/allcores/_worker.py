# SPDX-License-Identifier: MIT
"""What runs in a worker process."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from multiprocessing import util
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd, ForkingPickler
from pickle import UnpicklingError

from . import _core, _worker_stacks
from ._descriptors import SocketEnd, above_standard
from ._stdlib_private import (
    before_sharing,
    is_pickled_for_start,
    maybe_encoding_error,
    plain_signal,
    run_in_child,
    with_traceback,
)
from .errors import class_name, cut, describe, is_a, one_line, safe_repr

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, TextIO


class Seat:
    """What a worker process needs to take its seat. It travels to the process as an argument of
    main().

    number: the seat's, from 0. stacks_fd: the descriptor (or -1) to which the worker's stacks are
    written. sender: the socket for descriptors that results hold. stdin: what sys.stdin is to be, or
    None: it is right. _fd: the worker's socket; -1: the engine's template forked the process, which
    has its seat already.
    """

    def __init__(self) -> None:
        self.number = 0
        self.stdin: TextIO | None = None
        self._fd = self.stacks_fd = -1
        self.sender = SocketEnd()

    def assign(self, number: int, fd: int, stacks_fd: int, sender: SocketEnd) -> None:
        """The process is started for this seat, with these descriptors."""
        self.number = number
        self._fd = fd
        self.stacks_fd = stacks_fd
        self.sender = sender

    def __getstate__(self) -> Any:
        if not is_pickled_for_start():
            raise RuntimeError("a seat can be pickled only for a process that is being started")
        fds = [self._fd, self.stacks_fd, self.sender.fd]
        return self.number, self.sender.inode, [DupFd(fd) if fd >= 0 else None for fd in fds]

    def __setstate__(self, state: Any) -> None:
        number, inode, duplicates = state
        fd, stacks_fd, sending_fd = [_own(duplicate) for duplicate in duplicates]
        self.stdin = None
        self.assign(number, fd, stacks_fd, SocketEnd(sending_fd, inode))

    def take(self) -> _core.Worker:
        """Take the seat; in the worker process."""
        worker = _core.Worker(self._fd, encode_failure, describe)
        # Kept until the process exits: the owner would take an earlier close for the worker's
        # death, and not learn how the process ended.
        _never_closed.append(worker)
        return worker


def _own(duplicate: Any) -> int:
    """A descriptor of this process, which programs that it starts do not inherit; -1 for None."""
    if duplicate is None:
        return -1
    fd = above_standard(duplicate.detach())
    os.set_inheritable(fd, False)
    return fd


_never_closed: list[_core.Worker] = []


def _ignore_interrupt(signum: int, frame: object) -> None:
    """The terminal sends Ctrl-C to the workers, too, but the owner decides what it means.

    This is a handler and not SIG_IGN, which programs that a task starts would inherit.
    """


def _ignore_interrupts() -> None:
    if plain_signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        plain_signal.signal(signal.SIGINT, _ignore_interrupt)


def _set_up(seat: Seat) -> None:
    _ignore_interrupts()
    plain_signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if seat.stdin is not None:
        sys.stdin = seat.stdin
    # What a task prints must be written before its result is sent: the owner may kill the worker
    # right after.
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        try:
            stream.reconfigure(line_buffering=True)
        except KeyboardInterrupt:
            raise
        except BaseException:  # None, closed, or an object of the program's own
            pass


# ---- workers that the engine's template forked ----

_hidden: list[object] = []


def _hide_stdin() -> None:
    """Workers do not read the owner's standard input. multiprocessing would close sys.stdin in the
    child. That takes the file's lock, and hangs if another thread was reading a line at the fork:
    so keep the file open and hide it."""
    _hidden.append(sys.stdin)
    sys.stdin = None  # type: ignore[assignment]


def _open_parent_sentinel(owner: int) -> int | None:
    """For multiprocessing.parent_process(). The owner lives: else this process would not."""
    try:
        return above_standard(os.pidfd_open(owner))
    except (AttributeError, OSError):
        return None


def run_forked_worker(
    process: BaseProcess, seat: Seat, owner: int, mask: Iterable[int]
) -> int:
    """Run a worker that the engine's template forked, and return its exit code. All signals may be
    blocked so far; mask is that of the thread that made the pool."""
    signal.set_wakeup_fd(-1)  # the owner's
    _ignore_interrupts()
    plain_signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _hide_stdin()
    return run_in_child(process, _open_parent_sentinel(owner))


# ---- all workers ----


def main(
    seat: Seat, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Take the seat, run the initializer, run calls until the worker is to exit."""
    fd = _worker_stacks.write_to(seat.stacks_fd, seat.number)
    try:
        _set_up(seat)
        worker = seat.take()
    except ValueError:
        util.debug("the pool was closed before this worker took its seat")
        return
    except BaseException as error:
        # The owner may learn no more than the exit code otherwise.
        _worker_stacks.write_start_failure(fd, cut(one_line(error)))
        raise
    if initializer is not None:
        worker.say(f"the initializer, {describe(initializer)}")
        try:
            initializer(*initargs)
        except BaseException as error:
            worker.ready(1, initializer_failure(initializer, error))
            raise
    before_sharing(functools.partial(_send_descriptors, worker, this_thread(), seat.sender))
    worker.ready()
    worker.run()
    if f"{__package__}._sent_descriptors" in sys.modules:
        from ._sent_descriptors import await_fetches

        await_fetches()
    util.debug("worker exits")


def this_thread() -> tuple[int, int]:
    """It and no other, in this process or another."""
    return os.getpid(), threading.get_ident()


def _send_descriptors(worker: _core.Worker, thread: tuple[int, int], end: SocketEnd) -> None:
    """This process is about to share its first descriptor: send those that results hold."""
    from ._sent_descriptors import send_descriptors  # here, since few programs need it

    send_descriptors(worker, thread, end)


def initializer_failure(initializer: Callable[..., object], error: BaseException) -> str:
    """Why a worker can't start."""
    return cut(f"initializer {describe(initializer)} raised {one_line(error)}")


# ---- failures of calls ----
#
# Exceptions and values are the user's objects: whatever code of theirs runs here may raise
# anything, or recurse without end. That fails the call and not the worker. KeyboardInterrupt alone
# ends the worker: here it comes from a signal handler of the program's.


class _Text:
    """Has this repr."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _encoding_error(reason: BaseException, thing: object) -> Exception:
    """This object can't be sent to the owner."""
    return maybe_encoding_error(_Text(safe_repr(reason)), _Text(safe_repr(thing)))


def _to_be_raised(stage: int, error: BaseException, value: object) -> BaseException:
    # A MemoryError stays: the repr of the value takes more memory.
    if stage == _core.STAGE_ENCODE and not is_a(error, MemoryError):
        return _encoding_error(error, value)
    # Its like would end the owner. (What the function raises of this kind ends the worker.)
    if not is_a(error, Exception):
        return UnpicklingError(f"reading the call raised {safe_repr(error)}")
    return error


def _checked(wrapped: Any) -> bytes:
    """Its pickle. It is unpickled once here: otherwise the owner would be the first to find out
    that this does not work."""
    data = bytes(ForkingPickler.dumps(wrapped))
    if not is_a(ForkingPickler.loads(data), BaseException):
        raise TypeError(f"{class_name(wrapped.exc)} is rebuilt as something else")
    return data


def encode_failure(stage: int, error: BaseException, value: object) -> bytes:
    """The pickle of the exception that the owner is to raise. stage: where the call failed, one of
    _core.STAGE_...; value: what the function returned, if it did."""
    frames = _traceback_of(error)
    raised = _to_be_raised(stage, error, value)
    try:
        return _checked(with_traceback(raised, frames))
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        replacement = _encoding_error(problem, raised)
    _forget_outgoing()
    try:
        return _checked(with_traceback(replacement, frames))
    except KeyboardInterrupt:
        raise
    except BaseException:  # even the lines of the traceback are read by code of the program's
        return bytes(ForkingPickler.dumps(replacement))


def _forget_outgoing() -> None:
    """The descriptors of an exception that is not sent."""
    for worker in _never_closed:
        worker.outgoing = None


def _traceback_of(error: BaseException) -> TracebackType | None:
    frames: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return frames

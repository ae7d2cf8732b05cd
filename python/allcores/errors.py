# SPDX-License-Identifier: MIT
"""What can become of a call, beyond what its function raises."""

from __future__ import annotations

import errno
import functools
import os
import signal as _signal
import sys
from multiprocessing import ProcessError, util
from multiprocessing import TimeoutError as TimeoutError

__all__ = ["BrokenPool", "StartError", "TaskCancelled", "WorkerDied"]


_ADVICE = {
    errno.EMFILE: "each worker needs about four descriptors: see ulimit -n",
    errno.ENFILE: "the system has no descriptors left: see fs.file-max",
    errno.EAGAIN: "no process or thread can be started: see ulimit -u, and the container's "
    "pids limit",
    errno.EFBIG: "the memory of a pool is a file: see ulimit -f",
    errno.EROFS: "there is no memfd_create, and no directory in which a file could be made: "
    "$TMPDIR, /tmp, /var/tmp, /dev/shm",
}


def advise(error: BaseException) -> BaseException:
    """Say what to do about a pool that can't be opened."""
    if isinstance(error, OSError) and error.errno in _ADVICE:
        error.add_note(f"allcores.Pool: {_ADVICE[error.errno]}")
    return error


class WorkerDied(ProcessError):
    """The worker process ended while it held this call; the pool goes on.

    pid: the worker's process id; exitcode: as Process.exitcode (negative: the signal's
    number; None: not known); signal: the signal's name, or None; worker: the process's
    name; task: what it ran; items: which of a map's or imap's items it had been given, or None;
    ran: for how many seconds, when its end was noticed; peak_rss: the most bytes that the
    process ever had resident; stack: its last Python stack, which it leaves when the
    interpreter itself crashes (SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL). None each where it
    is not known. oom: whether the kernel's OOM killer killed it, as far as its counters tell:
    it has killed as many processes of this control group since the pool was opened as workers of
    the pool died by SIGKILL (True), none (False), or fewer, or nobody counts here (None).
    """

    def __init__(
        self,
        pid: int | None = None,
        exitcode: int | None = None,
        worker: str | None = None,
        task: str | None = None,
        oom: bool | None = False,
        ran: float | None = None,
        peak_rss: int | None = None,
        stack: str | None = None,
    ) -> None:
        super().__init__()  # all is told by attributes, which are pickled with it
        self.pid = pid
        self.exitcode = exitcode
        self.worker = worker
        self.task = task
        self.items: range | None = None
        self.oom = oom
        self.ran = ran
        self.peak_rss = peak_rss
        self.stack = stack

    @property
    def signal(self) -> str | None:
        """The name of the signal that killed it, such as "SIGKILL"."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return _signal.Signals(-self.exitcode).name
        except ValueError:
            return f"signal {-self.exitcode}"

    def _end(self) -> str:
        if self.exitcode is None:
            return "ended (how is not known)"
        if self.signal is None:
            return f"exited with code {self.exitcode}"
        if self.oom:
            return f"was killed by {self.signal} (the kernel's OOM killer: out of memory)"
        if self.oom is None:
            return (
                f"was killed by {self.signal} "
                "(perhaps the kernel's OOM killer: that can't be known here)"
            )
        return f"was killed by {self.signal}"

    def _work(self) -> str:
        text = f" while it ran {self.task}" if self.task else ""
        if self.items:
            first, last = self.items[0], self.items[-1]
            text += f" (item {first})" if first == last else f" (items {first} to {last})"
        if self.ran is not None:
            text += f", after {self.ran:.2f} s"
        if self.peak_rss is not None:
            text += f"; its memory was {self.peak_rss / 1e6:.0f} MB at most"
        return text

    def __str__(self) -> str:
        name = f"worker {self.worker or ''}".rstrip()
        text = f"{name} (pid {self.pid}) {self._end()}{self._work()}"
        if self.stack:
            text += f"\nIts last Python stack:\n{self.stack}"
        return text

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {str(self).partition(chr(10))[0]}>"


class StartError(ProcessError):
    """Workers cannot be started, or their initializer raised: the pool takes no work."""


class TaskCancelled(ProcessError):
    """The pool was terminated before this call had ended."""


class BrokenPool(ProcessError):
    """The pool's shared memory is damaged."""


def from_code(code: int, name: str, text: str) -> BaseException:
    """The exception for a code of the engine; name is its name, text says more."""
    match name:
        case "AC_ECLOSED":
            return ValueError("Pool not running")
        case "AC_EFORK":
            return RuntimeError(
                "this pool belongs to the process that opened it: a forked child opens its own"
            )
        case "AC_ESTART":
            return StartError(text)
        case "AC_ECANCELED":
            return TaskCancelled("the pool was terminated before this had ended")
        case "AC_ETIMEOUT":
            return TimeoutError(text)
        case "ENOMEM" | "AC_ETASK":  # the latter: no room for the exception itself
            return MemoryError(text or "no memory for this call's argument or result")
    if name.startswith("AC_"):
        return BrokenPool(text)
    return OSError(-code, os.strerror(-code))


def describe(function: object) -> str | None:
    """What a call runs, as its user would name it. Not the repr of an object, which may raise, or
    be as long as its data."""
    if function is None:
        return None
    try:
        if isinstance(function, functools.partial):
            return f"partial({describe(function.func)})"
        module: object = getattr(function, "__module__", None)
        return f"{module or '?'}.{function.__qualname__}"  # type: ignore[attr-defined]
    except Exception:  # nothing that has a name, or a strange __getattr__
        return f"{describe(type(function))} object"


def is_news(error: BaseException) -> bool:
    """Whether a failure should not go unheard: who cancelled it, or pressed Ctrl-C, knows."""
    return isinstance(error, Exception) and not isinstance(error, TaskCancelled)


def report_unfetched(error: BaseException, function: object) -> None:
    """Log the failure of a call whose result was dropped without a look at it."""
    if not is_news(error):
        return
    text = f"a call of {describe(function) or '?'} failed, and nobody fetched its exception"
    try:
        logger = util.get_logger()
    except ImportError:  # the interpreter shuts down, and what was raised may be no more to be read
        print(text if isinstance(error, ImportError) else f"{text}: {error!r}", file=sys.stderr)
        return
    logger.error("%s", text, exc_info=error)

# SPDX-License-Identifier: MIT
"""The exceptions of calls and pools, beyond those that the user's functions raise. All are
multiprocessing.ProcessErrors."""

from __future__ import annotations

import errno
import functools
import os
import signal as _signal
import sys
from multiprocessing import ProcessError, util
from multiprocessing import TimeoutError as TimeoutError

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

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
    """Add a note to the exception of a pool that could not be opened: what can be done."""
    if isinstance(error, OSError) and error.errno in _ADVICE:
        error.add_note(f"allcores.Pool: {_ADVICE[error.errno]}")
    return error


class WorkerDied(ProcessError):
    """The worker process died while it ran this call. Other calls go on, with a new worker.

        try:
            pool.apply(work)
        except allcores.WorkerDied as death:
            print(death.signal or death.exitcode, death.task, death.stack)

    It may be pickled. Each attribute is None if it is not known.
    pid: the worker's process id.
    exitcode: as Process.exitcode (negative: the number of the signal that killed it).
    signal: the name of that signal ("SIGKILL"), or None.
    worker: the name of the process.
    task: the name of the function that the worker ran.
    items: the items of a map or imap that the call consisted of: a range of their indices.
    ran: for how many seconds the call had run when the death was noticed.
    peak_rss: the largest memory of the process, in bytes (peak resident set).
    stack: the worker's last Python stack. A worker writes it when the interpreter itself crashes
        (SIGSEGV, SIGFPE, SIGABRT, SIGBUS, SIGILL).
    oom: whether the kernel's OOM killer killed the worker. True: since the pool was opened, the
        kernel has counted at least as many OOM kills in this control group as workers of the pool
        have died by SIGKILL. False: it has counted none. None: fewer than that, or there is no
        counter.
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
        super().__init__()  # no arguments: pickling copies the attributes
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

    def _end_text(self) -> str:
        if self.exitcode is None:
            return "ended (it is not known how)"
        if self.signal is None:
            return f"exited with code {self.exitcode}"
        if self.oom:
            return f"was killed by {self.signal} (the kernel's OOM killer: out of memory)"
        if self.oom is None:
            return (
                f"was killed by {self.signal} "
                "(perhaps by the kernel's OOM killer: that cannot be known here)"
            )
        return f"was killed by {self.signal}"

    def _work_text(self) -> str:
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
        text = f"{name} (pid {self.pid}) {self._end_text()}{self._work_text()}"
        if self.stack:
            text += f"\nIts last Python stack:\n{self.stack}"
        return text

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {str(self).partition(chr(10))[0]}>"


class StartError(ProcessError):
    """Workers cannot be started, or their initializer raised. The text says why. The pool accepts
    no more work: calls that were submitted raise this, too."""


class TaskCancelled(ProcessError):
    """The pool was terminated before this call had ended. The call may have been made, in part."""


class BrokenPool(ProcessError):
    """The pool's shared memory is damaged: a worker wrote where it must not. Open a new pool."""


FORKED = "this pool belongs to the process that opened it: a forked child opens its own"


def from_code(code: int, name: str, text: str) -> BaseException:
    """The exception for a code of the engine: its number, its name, and a text with details."""
    match name:
        case "AC_ECLOSED":
            return ValueError("Pool not running")
        case "AC_EFORK":
            return RuntimeError(FORKED)
        case "AC_ESTART":
            return StartError(text)
        case "AC_ECANCELED":
            return TaskCancelled("the pool was terminated before this had ended")
        case "AC_ETIMEOUT":
            return TimeoutError(text)
        case "ENOMEM" | "AC_ETASK":  # AC_ETASK: a worker had no memory for the call's exception
            return MemoryError(text or "no memory for this call's argument or result")
    if name.startswith("AC_"):
        return BrokenPool(text)
    return OSError(-code, os.strerror(-code))


def end_text(exitcode: int | None) -> str:
    """How a worker ended that had no call, as the engine says it."""
    if exitcode is None:
        return "its worker ended; how is not known"
    if exitcode >= 0:
        return f"its worker exited with code {exitcode}"
    return f"its worker was killed by signal {-exitcode} ({_signal.strsignal(-exitcode)})"


def showable(text: str) -> str:
    """The text, with what can't be written as UTF-8 or in a C string in its escaped form."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def cut(text: str) -> str:
    """The same, at most 180 bytes, as the engine takes it."""
    return showable(text).encode()[:180].decode(errors="ignore")


# Characters of a repr or of a message that are kept: an object's data may make megabytes of text.
TEXT_MOST = 1000


# How type itself answers. A metaclass may answer otherwise, and raise.
_of_type: Any = vars(type)


def class_name(thing: object) -> str:
    """The name of the object's class. Runs no code of the user's."""
    name: str = _of_type["__qualname__"].__get__(type(thing))
    return name


def _shorten(text: str) -> str:
    text = str.__str__(text)  # of a subclass, too
    if len(text) <= TEXT_MOST:
        return text
    return f"{text[:TEXT_MOST]}... ({len(text)} characters)"


def safe_repr(thing: object) -> str:
    """The object's repr, shortened. Whatever its class does there, this raises nothing but
    Ctrl-C."""
    try:
        return _shorten(repr(thing))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{class_name(thing)} object, whose repr raised {class_name(error)}>"


def one_line(error: BaseException) -> str:
    """The exception's class and message, as safe as safe_repr."""
    try:
        text = _shorten(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        text = f"(its text can't be made: {class_name(problem)})"
    return f"{class_name(error)}: {text}"


def describe(function: object) -> str | None:
    """The name of what a call runs, as its user would write it. Never an object's repr, which may
    be as long as the object's data. As safe as safe_repr."""
    return None if function is None else _describe(function, 3)


def _describe(function: Any, levels: int) -> str:
    try:
        if levels and isinstance(function, functools.partial):  # perhaps one of itself
            return f"partial({_describe(function.func, levels - 1)})"
        return _full_name(function)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an object without a name, or with a __getattr__ that raises
        return f"{_class_full_name(function)} object"


def _full_name(function: Any) -> str:
    module: object = getattr(function, "__module__", None)
    return showable(_shorten(f"{module or '?'}.{function.__qualname__}"))


def _class_full_name(thing: object) -> str:
    module = _of_type["__module__"].__get__(type(thing))
    return showable(_shorten(f"{module if type(module) is str else '?'}.{class_name(thing)}"))


def is_a(thing: object, *classes: type) -> bool:
    """isinstance, which also asks an object of the user's for its __class__: not so this one."""
    return issubclass(type(thing), classes)


def is_worth_reporting(error: BaseException) -> bool:
    """Whether a failure that nobody fetches is logged. A cancelled call or a Ctrl-C is not, as the
    user knows of it."""
    return is_a(error, Exception) and not is_a(error, TaskCancelled)


def report_unfetched(error: BaseException, function: object) -> None:
    """Log the failure of a call whose result was dropped before anybody asked for it."""
    if not is_worth_reporting(error):
        return
    text = f"a call of {describe(function) or '?'} failed, and nobody fetched its exception"
    try:
        logger = util.get_logger()
    except ImportError:
        # The interpreter is shutting down. An ImportError of the call is a result of that, too.
        print(text if is_a(error, ImportError) else f"{text}: {safe_repr(error)}", file=sys.stderr)
        return
    _log(logger, text, error)


def report_callback(callback: object, error: BaseException) -> None:
    """Log what a callback has raised."""
    _log(util.get_logger(), f"callback {safe_repr(callback)} raised", error)


def _log(logger: Any, text: str, error: BaseException) -> None:
    try:
        logger.error("%s", text, exc_info=error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # of the user's exception, as its text was made
        logger.error("%s: %s", text, one_line(error))

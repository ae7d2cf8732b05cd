# SPDX-License-Identifier: MIT
"""Workers that the engine forks, from its template: the start method fork.

The template is a copy of this process from the time of Pool(), with one thread. So no worker
inherits a lock that another thread of this process has taken since then. The Process objects are the
standard library's, with a WorkerPopen in place of its own: the workers are not children of this process.
"""

from __future__ import annotations

import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import popen_fork as _popen_fork  # noqa: F401: here, as for the first pool
from multiprocessing import util
from multiprocessing.process import BaseProcess

from . import _core
from ._descriptors import above_standard
from ._stdlib_private import (
    LazySentinel,
    flush_std_streams,
    forks_plainly,
    keep_resource_tracker,
    note_started,
    number_of,
    plain_signal,
    popen_of,
    set_next_number,
    set_parent,
    start_method_of,
)
from ._worker import run_forked_worker
from ._worker_processes import (
    UNKNOWN_EXIT,
    UnstartedWorker,
    WorkerProcesses,
    exitcode_of,
    has_ended,
)

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import TextIO


# ---- which processes ----


def can_fork(process: BaseProcess) -> bool:
    """Whether the template may fork processes of this kind."""
    if not isinstance(process, BaseProcess):
        return False
    return start_method_of(process) == "fork" and forks_plainly(type(process))


# ---- their Process objects ----


class WorkerPopen:
    """What the Process object of a worker asks about its process: as multiprocessing.popen_fork's
    Popen, but the engine is asked."""

    method = "fork"

    def __init__(self, core: _core.Pool, worker: int, tag: int) -> None:
        self._core: _core.Pool | None = core  # None: the process is known to have ended
        self._worker = worker
        self._tag = tag
        self._pid: int | None = None
        self._sentinel: int | None = None
        self.returncode: int | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; waits until it was forked. None: it never was, or is not known in a
        forked child, to which the process is none of its own."""
        if self._pid is None and self._core is not None:
            try:
                self._pid = self._core.worker_pid(self._worker, self._tag)
            except RuntimeError:
                return None
        return self._pid

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable once the process has ended."""
        if self._sentinel is None:
            if self._core is None:
                self._sentinel, writer = os.pipe()
                os.close(writer)
            else:
                self._sentinel = self._core.worker_fd(self._worker, self._tag)
            weakref.finalize(self, os.close, self._sentinel).atexit = False
        return self._sentinel

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, or None while the process runs."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the process, at most timeout seconds. Return as poll."""
        if self._core is None:
            return self.returncode
        try:
            end = self._core.worker_join(self._worker, self._tag, timeout)
        except RuntimeError:  # a forked child, to which the process is none of its own
            return None
        # Another thread may have asked, too, and in time: the engine remembers one end of a seat.
        if end is not None and self._core is not None:
            self._note_end(end)
        return self.returncode

    def _note_end(self, end: _core.Outcome) -> None:
        self._pid = end.pid or None
        exitcode = exitcode_of(end)
        self.returncode = UNKNOWN_EXIT if exitcode is None else exitcode
        self._core = None

    def _send_signal(self, signum: int) -> None:
        if self._core is not None:
            self._core.worker_kill(self._worker, self._tag, signum)

    def interrupt(self) -> None:
        """Send SIGINT."""
        self._send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Nothing: the sentinel is closed with this object."""


_started_classes: dict[type[BaseProcess], type[BaseProcess]] = {}


def _make_started(process: BaseProcess, popen: WorkerPopen) -> None:
    """The process was started by the engine."""
    cls = type(process)
    if cls not in _started_classes:
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _started_classes[cls] = type(cls.__name__, (LazySentinel, cls), names)
    note_started(process, _started_classes[cls], popen)


# ---- the workers of a pool ----


@contextmanager
def _null_input() -> Iterator[TextIO | None]:
    """An empty text file for the workers, opened once and not in each; None: there is no sys.stdin,
    or no file can be opened."""
    try:
        fd = above_standard(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        yield None
        return
    with open(fd, encoding="utf-8") as file:
        yield file if sys.stdin is not None else None


def _warn_of_threads() -> None:
    """As os.fork does since Python 3.12."""
    if sys.version_info < (3, 12):
        return
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        return
    if threads > 1:
        import warnings

        text = (
            f"This process (pid={os.getpid()}) is multi-threaded, "
            "use of fork() may lead to deadlocks in the child."
        )
        try:
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        except DeprecationWarning:
            pass  # filters make an error of it: os.fork, too, has forked then and goes on


def _has_handlers() -> bool:
    """Whether a signal that a worker receives would run a Python handler of the program's."""
    for signum in range(1, signal.NSIG):
        handler = plain_signal.getsignal(signum)
        if callable(handler) and handler is not signal.default_int_handler:
            return True
    return False


class ForkedWorkers(WorkerProcesses):
    """Workers that the engine's template forks."""

    def __init__(
        self,
        make: Callable[[], UnstartedWorker],
        first: UnstartedWorker,
        has_initializer: bool,
    ) -> None:
        super().__init__(make, first)
        self._has_initializer = has_initializer
        self._core: _core.Pool | None = None
        self._first_workers: list[UnstartedWorker] = []  # the first process of each worker
        self._mask: set[int] = set()
        self._stdin: TextIO | None = None  # the workers' sys.stdin

    def open(self, workers: int, recycle: int, result_type: type[_core.Task]) -> _core.Pool:
        """Open the engine's pool: forks the template once, which forks the workers."""
        self._first_workers = [self._first, *(self._make() for _ in range(workers - 1))]
        self.processes = [process for process, _ in self._first_workers]
        sys.audit("os.fork")
        flush_std_streams()
        self._mask = plain_signal.pthread_sigmask(signal.SIG_BLOCK, ())
        tags = [number_of(process) for process in self.processes]
        keep_resource_tracker(True)
        try:
            with _null_input() as self._stdin:
                core = _core.Pool(workers, recycle, self, result_type, tags, self._is_eager())
        finally:
            keep_resource_tracker(False)
        self._core = core
        self.channel.sender.close()  # the template has it
        for worker, process in enumerate(self.processes):
            _make_started(process, WorkerPopen(core, worker, tags[worker]))
        _warn_of_threads()
        return core

    def _is_eager(self) -> bool:
        """Whether workers have something to do before their first call: an initializer, or a
        handler of the program's, which runs only where the interpreter does."""
        return self._has_initializer or _has_handlers()

    def make_replacement(self, worker: int) -> int:
        """Make the Process object of a worker that replaces another, and return its tag. The
        extension calls it in a thread that runs no signal handlers."""
        # The engine knows how the last process of a seat has ended, not those before it.
        has_ended(self.processes[worker])
        self.record_end(worker)
        process, _ = self._make()
        assert self._core is not None
        _make_started(process, WorkerPopen(self._core, worker, number_of(process)))
        self.put_in_seat(worker, process)
        util.debug("added worker")
        if problem := self.describe_template():
            util.sub_warning(problem)
        self.reap_recorded()
        return number_of(process)

    def describe_template(self) -> str | None:
        """What is wrong with the template, or None."""
        threads = self._core.stat()["template_threads"] if self._core else 0
        if threads <= 1:
            return None
        return (
            f"the process from which workers are forked (the template) has {threads} threads: a "
            "library of this program starts threads in forked children (pthread_atfork). Workers may "
            "inherit locks that these hold"
        )

    def run_worker(self, worker: int, tag: int) -> int:
        """In the worker's process: do its work. Return its exit code."""
        keep_resource_tracker(False)  # the worker's own forks are its program's
        process, seat = self._process_of(worker, tag)
        seat.assign(worker, -1, self.stacks.fd, self.channel.sender)
        seat.stdin = self._stdin
        return run_forked_worker(process, seat, self._owner, self._mask)

    def _process_of(self, worker: int, tag: int) -> UnstartedWorker:
        first, _ = self._first_workers[worker]
        if number_of(first) == tag:
            return self._first_workers[worker]
        # A replacement. The Process object that the owner has made for it is not in this copy of
        # its memory: make the same one.
        set_next_number(tag)
        process, seat = self._make()
        set_parent(process, self._owner)
        return process, seat

    def ended_pid(self, process: BaseProcess) -> int:
        """The pid of a process that has ended; else 0, without waiting for its fork."""
        return super().ended_pid(process) if has_ended(process) else 0

    def stop(self, core: _core.Pool | None) -> None:
        """Terminate a pool that could not be opened, as far as it was."""
        core = core or self._core
        if core is not None:  # all were started, and perhaps not all noted
            for worker, (process, _) in enumerate(self._first_workers):
                if popen_of(process) is None:
                    _make_started(process, WorkerPopen(core, worker, number_of(process)))
        super().stop(core)

    def reap(self, timeout: float | None = None) -> None:
        """Join all processes, which have exited or are about to."""
        super().reap(timeout)
        self._core = None  # which refers to this object

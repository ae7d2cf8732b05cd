# SPDX-License-Identifier: MIT
"""The processes of a pool: started by the context's own Process, replaced, explained."""

from __future__ import annotations

import errno
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing import get_start_method, resource_tracker, util
from multiprocessing import process as _stdlib_process
from multiprocessing.process import BaseProcess

from . import errors, oom, stacks
from .worker import Seat, forking, main

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any


# Who asks how a process ended takes that answer away from others who ask at the same time
# (waitpid; the forkserver's pipe), and starting one asks all: so one thread at a time.
_asking = threading.RLock()
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


def _disown() -> None:
    """In a forked child: the workers are its parent's, and not for its exit to end."""
    global _asking
    _asking = threading.RLock()
    for crew in _crews:
        _stdlib_process._children.difference_update(crew.processes)  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_disown)


class Crew:
    """Starts the process for a seat; knows how those that ended did so.

    Called by the engine from any thread. It knows nothing of the pool, which may be
    dropped while it is in use.
    """

    def __init__(
        self,
        make: Callable[..., BaseProcess],
        context: Any,
        size: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self._make = make
        self._context = context
        self._initializer = initializer
        self._initargs = initargs
        # Workers have the mask of the thread that made the pool, whichever starts them.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        # Those that others sit in the place of, and what they have left.
        self._noting = threading.Lock()  # what is taken from the stacks is in here
        self._ended: deque[tuple[BaseProcess, str | None]] = deque(maxlen=size + 64)
        self.processes: list[BaseProcess] = []
        self.stacks = stacks.Stacks()
        self._kills = oom.read()
        self.failure: BaseException | None = None
        _crews.add(self)

    def start(self, worker: int, fd: int) -> int:
        """Bring up the process for seat number worker: its pid, 0 when it has none, or -errno."""
        try:
            with _asking:
                return self._start(worker, fd)
        except BaseException as error:
            self.failure = error
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EAGAIN
            return -code

    def _start(self, worker: int, fd: int) -> int:
        if worker < len(self.processes):
            self._note_end(worker)  # before its successor can write there
        seat = Seat(worker, fd, self.stacks.fd)
        process = self._make(
            self._context, target=main, args=(seat, self._initializer, self._initargs)
        )
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        method = getattr(type(process), "_start_method", None) or get_start_method()
        if method != "fork":
            # It would be started on the way, and unblock what is blocked here.
            resource_tracker.ensure_running()
        # A Ctrl-C must not meet a child that has not yet said what it does then.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, self._mask | {signal.SIGINT})
        try:
            plain = type(process).start is BaseProcess.start
            with forking(seat, early=plain and self._initializer is None):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        util.debug("added worker")
        if worker < len(self.processes):
            self.processes[worker] = process
        else:
            self.processes.append(process)
        for ended, _ in self._ended:
            if ended.exitcode is None:
                ended.join(0)
        return getattr(process, "pid", None) or 0

    def _note_end(self, worker: int) -> None:
        with self._noting:
            stack = stacks.of_crash(self.stacks.take(worker))
            self._ended.append((self.processes[worker], stack))

    def explain(
        self,
        status: int,
        name: str,
        text: str,
        signum: int,
        exitcode: int,
        pid: int,
        worker: int,
        ran_ns: int,
        peak_rss: int,
        function: object,
    ) -> BaseException:
        """The exception for what became of a call (see struct ac_outcome)."""
        if name != "AC_EDIED":
            error = errors.from_code(status, name, text)
            if isinstance(error, errors.StartError) and self.failure:
                error.__cause__ = self.failure
            return error
        process, stack = self._find(pid, worker)
        known: int | None = -signum if signum else exitcode
        if known == -1 and not signum:
            known = self._exitcode(process)
        return errors.WorkerDied(
            pid or None,
            known,
            process.name if process else None,
            errors.describe(function),
            self._was_oom() if known == -signal.SIGKILL else False,
            ran_ns / 1e9 if ran_ns else None,
            peak_rss or None,
            stack,
        )

    def _was_oom(self) -> bool | None:
        before, self._kills = self._kills, oom.read()
        return oom.verdict(before, self._kills)

    def is_current(self, worker: int, pid: int) -> bool:
        """Whether this process sits there, and has not been reaped."""
        with _asking:
            if worker >= len(self.processes):
                return False
            process = self.processes[worker]
            return process.pid == pid and process.exitcode is None

    def _find(self, pid: int, worker: int) -> tuple[BaseProcess | None, str | None]:
        """The process, and the stack that it left."""
        with self._noting:
            for process, stack in self._ended:
                if process.pid == pid:
                    return process, stack
            for process in self.processes:
                if process.pid == pid:
                    return process, stacks.of_crash(self.stacks.peek(worker))
        return None, None

    @staticmethod
    def _exitcode(process: BaseProcess | None) -> int | None:
        """Where it is not our child (forkserver) its parent tells, a moment later."""
        if process is None:
            return None
        with _asking:
            process.join(1.0)
            return process.exitcode

    def stop(self) -> None:
        """End what a pool that never came to be has started."""
        for process in self.processes:
            if process.exitcode is None:
                process.terminate()
        self.reap()

    def reap(self, timeout: float | None = None) -> None:
        """Join all processes, which have ended or are about to."""
        for process in [*(ended for ended, _ in self._ended), *self.processes]:
            with _asking:
                # A custom context's process may know no time limits.
                process.join() if timeout is None else process.join(timeout)
        for worker in range(len(self.processes)):
            self._note_end(worker)
        self.stacks.close()

# SPDX-License-Identifier: MIT
"""The processes of a pool: started by the context's own Process, replaced, explained."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing import get_start_method, resource_tracker, util
from multiprocessing import process as _stdlib_process
from multiprocessing.process import BaseProcess

from . import errors, oom, signals, stacks
from .descriptors import standard_reserved
from .waiting import SLICE
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


def _pid_of(process: BaseProcess) -> int:
    """0: a custom context's process may have none."""
    return getattr(process, "pid", None) or 0


def _tie(fd: int, pid: int) -> None:
    """Let the process end with us from now on, and not only once it has taken its seat:
    what it imports before may take long. It does the same when it comes (ac_worker_open): the
    flags are the open socket's, which it shares."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETOWN, pid)
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    except ProcessLookupError:
        pass  # it has ended already


# A result may be asked for long after its worker's death: of so many deaths is known more than
# the engine knows.
ENDS_MOST = 1000


def _exitcode_within(process: BaseProcess, timeout: float | None) -> int | None:
    """Its exit code as soon as it has ended. Process.join with a limit waits until all have that
    hold its sentinel: a child of its own may, and live on."""
    if timeout is None:
        process.join()
        return process.exitcode
    end = time.monotonic() + timeout
    pause = 0.0005
    while (exitcode := process.exitcode) is None and time.monotonic() < end:
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return exitcode


class End:
    """What is known of a process that is not in its seat any more."""

    def __init__(self, process: BaseProcess, stack: str | None) -> None:
        self.name = process.name
        self.stack = stack
        self._process: BaseProcess | None = process  # until it has been reaped
        self._exitcode: int | None = None

    def exitcode(self, timeout: float | None) -> int | None:
        """None: not within timeout seconds."""
        with _asking:
            process = self._process
            if process is not None:
                self._exitcode = _exitcode_within(process, timeout)
                if self._exitcode is not None:
                    # Once more: it may have ended since, and multiprocessing lets go of one that
                    # has been joined alone.
                    process.join()
                    self._process = None  # and its descriptors
        return self._exitcode


class Crew:
    """Starts the process for a seat; knows how those that ended did so.

    Called by the engine from any thread. It knows nothing of the pool, which may be
    dropped while it is in use.
    """

    def __init__(
        self,
        make: Callable[..., BaseProcess],
        context: Any,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self._make = make
        self._context = context
        self._initializer = initializer
        self._initargs = initargs
        # Workers have the mask of the thread that made the pool, whichever starts them.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        # What is taken from the stacks is in here. Reentrant: garbage may be collected at any time.
        self._noting = threading.RLock()
        self._noted: set[int] = set()  # seats whose process has ended and is in what follows
        self._ends: dict[int, End] = {}  # by pid, the oldest first
        self._unreaped: list[End] = []
        self.processes: list[BaseProcess] = []
        self._requests: dict[int, int] = {}  # for which the process in a seat was started
        self.stacks = stacks.Stacks()
        self._kills = oom.read()
        self._killed: set[int] = set()  # pids, by SIGKILL, as far as somebody asked
        self.failure: BaseException | None = None
        self._method: str | None = None  # by which processes are started
        self.over = False  # the pool was terminated: nobody is to be started any more
        self.postponed, self.deliver = signals.came, signals.deliver
        _crews.add(self)

    def start(self, worker: int, fd: int, request: int) -> int:
        """Bring up the process for seat number worker: its pid, 0 when it has none, or -errno.

        Signal handlers wait: an exception of theirs between a fork and the note of it would cost
        the process, or put two into one seat. A Ctrl-C just before or after comes out, and it is
        asked again, for the same request.
        """
        held = signals.hold()
        try:
            return self._start_once(worker, fd, request)
        except BaseException as error:
            self.failure = error
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EAGAIN
            return -code
        finally:
            signals.resume(held)

    def _start_once(self, worker: int, fd: int, request: int) -> int:
        # Whoever has the lock may be collecting a pool, whose end waits for this.
        while not _asking.acquire(timeout=SLICE):
            if self.over:
                return -errno.ECANCELED
        try:
            if self._requests.get(worker) != request:
                with standard_reserved():
                    self._start(worker, fd, request)
            return _pid_of(self.processes[worker])
        finally:
            _asking.release()

    def _start(self, worker: int, fd: int, request: int) -> None:
        if worker < len(self.processes):
            self._note_end(worker)  # before its successor can write there
        seat = Seat(worker, fd, self.stacks.fd)
        process = self._make(
            self._context, target=main, args=(seat, self._initializer, self._initargs)
        )
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        method = getattr(type(process), "_start_method", None) or get_start_method()
        self._method = method
        if method != "fork":
            # It would be started on the way, and unblock what is blocked here.
            resource_tracker.ensure_running()
        # A Ctrl-C must not meet a child that has not yet said what it does then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask | {signal.SIGINT})
            plain = type(process).start is BaseProcess.start
            with forking(seat, early=plain and self._initializer is None):
                process.start()
            self.processes[worker : worker + 1] = [process]
            self._noted.discard(worker)
            self._requests[worker] = request
            if method != "fork" and _pid_of(process):
                _tie(fd, _pid_of(process))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        util.debug("added worker")
        self._unreaped = [end for end in self._unreaped if end.exitcode(0) is None]

    def _note_end(self, worker: int) -> None:
        process = self.processes[worker]
        with self._noting:
            if worker in self._noted:  # an attempt to replace it has failed
                return
            self._noted.add(worker)
            end = End(process, stacks.of_crash(self.stacks.take(worker)))
            self._unreaped.append(end)
            pid = _pid_of(process)
            self._ends.pop(pid, None)
            self._ends[pid] = end
            if len(self._ends) > ENDS_MOST:
                del self._ends[next(iter(self._ends))]

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
        end = self._find(pid, worker)
        known: int | None = -signum if signum else exitcode
        if known == -1 and not signum:
            # Where it is not our child (forkserver) its parent tells, a moment later.
            known = end.exitcode(1.0) if end else None
        return errors.WorkerDied(
            pid or None,
            known,
            end.name if end else None,
            errors.describe(function),
            self._was_oom(pid) if known == -signal.SIGKILL else False,
            ran_ns / 1e9 if ran_ns else None,
            self._peak_of(peak_rss),
            end.stack if end else None,
        )

    def _peak_of(self, peak_rss: int) -> int | None:
        """Linux keeps the figure over exec: up to ours then, it says nothing of a spawned worker."""
        if peak_rss and self._method != "fork":
            from resource import RUSAGE_SELF, getrusage  # most programs never ask

            if peak_rss <= getrusage(RUSAGE_SELF).ru_maxrss * 1024:
                return None
        return peak_rss or None

    def _was_oom(self, pid: int) -> bool | None:
        self._killed.add(pid)
        return oom.verdict(self._kills, oom.read(), len(self._killed))

    def is_current(self, worker: int, pid: int) -> bool:
        """Whether this process sits there, and has not been reaped."""
        with _asking:
            if worker >= len(self.processes):
                return False
            process = self.processes[worker]
            return process.pid == pid and process.exitcode is None

    def _find(self, pid: int, worker: int) -> End | None:
        with self._noting:
            if worker < len(self.processes) and worker not in self._noted:
                process = self.processes[worker]
                if _pid_of(process) == pid:
                    return End(process, stacks.of_crash(self.stacks.peek(worker)))
            return self._ends.get(pid)

    def stop(self) -> None:
        """End what a pool that never came to be has started."""
        for process in self.processes:
            if process.exitcode is None:
                process.terminate()
        self.reap()

    def reap(self, timeout: float | None = None) -> None:
        """Join all processes, which have ended or are about to."""
        for worker in range(len(self.processes)):
            self._note_end(worker)
        for end in self._unreaped:
            end.exitcode(timeout)
        self.stacks.close()

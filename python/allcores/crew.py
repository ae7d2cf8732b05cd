# SPDX-License-Identifier: MIT
"""The worker processes of a pool: starts them by the context's own Process, reaps them, and knows
how they ended."""

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


# Held while a process is reaped or started. How a process ended can be read once only (waitpid,
# the pipe of the forkserver), so of two threads that ask at once one gets a wrong answer. And
# starting a process polls all others (multiprocessing's _cleanup).
_reaping = threading.RLock()
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


def _disown_workers() -> None:
    """Runs in a forked child. The workers are its parent's: the child must not terminate them
    when it exits, as multiprocessing does with a process's own children."""
    global _reaping
    _reaping = threading.RLock()
    for crew in _crews:
        _stdlib_process._children.difference_update(crew.processes)  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_disown_workers)


def _pid_of(process: BaseProcess) -> int:
    """The pid, or 0: the process object of a custom context may have none."""
    return getattr(process, "pid", None) or 0


def _kill_with_owner(fd: int, pid: int) -> None:
    """Have the kernel kill the process when this one ends, from now on. The worker sets the same
    when it takes its seat (ac_worker_open), but its imports before that may take long. The owner
    can do it for the worker, since both share the open socket, whose flags these are."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETOWN, pid)
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    except ProcessLookupError:
        pass  # the process has exited already


# Keep exit details for the last 1,000 dead workers: a result may be fetched long after its worker
# died. Of older deaths only the engine's own details are known.
ENDS_MOST = 1000


def _exitcode_within(process: BaseProcess, timeout: float | None) -> int | None:
    """Wait for the process and return its exit code; None: it did not exit within timeout seconds.
    Process.join with a limit would wait until every process has exited that inherited the
    sentinel: a child of the worker may have, and may live on."""
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
    """How a process ended that has left its seat, as far as it is known."""

    def __init__(self, process: BaseProcess, stack: str | None) -> None:
        self.name = process.name
        self.stack = stack
        self._process: BaseProcess | None = process  # until it has been reaped
        self._exitcode: int | None = None

    def reap(self, timeout: float | None) -> int | None:
        """Wait for the process, and return its exit code; None: not within timeout seconds."""
        with _reaping:
            process = self._process
            if process is not None:
                self._exitcode = _exitcode_within(process, timeout)
                if self._exitcode is not None:
                    # multiprocessing forgets a process only when it is joined.
                    process.join()
                    self._process = None  # closes its descriptors
        return self._exitcode


class Crew:
    """Starts the processes of a pool's workers, and knows how they ended.

    The engine calls it from any thread. It has no reference to the pool, so that the pool can be
    garbage-collected while the crew is in use.
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
        # Workers get the signal mask of the thread that made the pool, not of the one that starts
        # them.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        # Guards _recorded and _ends; a stack is taken from self.stacks only under it. Reentrant,
        # since a garbage collection in this thread may come here.
        self._ends_lock = threading.RLock()
        self._recorded: set[int] = set()  # seats whose process's end is in _ends
        self._ends: dict[int, End] = {}  # by pid, the oldest first
        self._unreaped: list[End] = []
        self.processes: list[BaseProcess] = []
        # By seat: the number of the request for which its process was started.
        self._requests: dict[int, int] = {}
        self.stacks = stacks.Stacks()
        self._kills_before = oom.read()
        self._killed: set[int] = set()  # pids of workers that died by SIGKILL and were explained
        self.failure: BaseException | None = None
        self._method: str | None = None  # the start method
        self.terminated = False  # the pool was terminated: start no more processes
        self.postponed, self.deliver = signals.postponed, signals.deliver
        _crews.add(self)

    def start(self, worker: int, fd: int, request: int) -> int:
        """Start the process for seat number worker. Return its pid, 0 if it has none, or -errno.

        Signal handlers are postponed: an exception between the fork and the lines that record the
        process would lose the process, or start two for one seat. A Ctrl-C just before or after
        that is raised from here; the extension then asks again with the same request number, for
        which no second process is started.
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
        # Not without a time limit: a garbage collection in the thread that holds the lock may be
        # terminating this very pool, and waits for this call to return.
        while not _reaping.acquire(timeout=SLICE):
            if self.terminated:
                return -errno.ECANCELED
        try:
            if self._requests.get(worker) != request:
                with standard_reserved():
                    self._start(worker, fd, request)
            return _pid_of(self.processes[worker])
        finally:
            _reaping.release()

    def _start(self, worker: int, fd: int, request: int) -> None:
        if worker < len(self.processes):
            self._record_end(worker)  # before the next process can overwrite the stack
        seat = Seat(worker, fd, self.stacks.fd)
        process = self._make(
            self._context, target=main, args=(seat, self._initializer, self._initargs)
        )
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        method = getattr(type(process), "_start_method", None) or get_start_method()
        self._method = method
        if method != "fork":
            # process.start() would start the tracker, which unblocks the signals blocked below.
            resource_tracker.ensure_running()
        # SIGINT is blocked in the child until the child has set its handler.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask | {signal.SIGINT})
            plain = type(process).start is BaseProcess.start
            with forking(seat, early=plain and self._initializer is None):
                process.start()
            self.processes[worker : worker + 1] = [process]
            self._recorded.discard(worker)
            self._requests[worker] = request
            if method != "fork" and _pid_of(process):
                _kill_with_owner(fd, _pid_of(process))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        util.debug("added worker")
        self._unreaped = [end for end in self._unreaped if end.reap(0) is None]

    def _record_end(self, worker: int) -> None:
        process = self.processes[worker]
        with self._ends_lock:
            if worker in self._recorded:  # a first attempt to replace it failed
                return
            self._recorded.add(worker)
            end = End(process, stacks.crash_stack(self.stacks.take(worker)))
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
        """The exception for a call that failed (the arguments: see struct ac_outcome)."""
        if name != "AC_EDIED":
            error = errors.from_code(status, name, text)
            if isinstance(error, errors.StartError) and self.failure:
                error.__cause__ = self.failure
            return error
        end = self._find_end(pid, worker)
        known: int | None = -signum if signum else exitcode
        if known == -1 and not signum:
            # A worker that is not our child (forkserver): its parent reports a moment later.
            known = end.reap(1.0) if end else None
        return errors.WorkerDied(
            pid or None,
            known,
            end.name if end else None,
            errors.describe(function),
            self._judge_oom(pid) if known == -signal.SIGKILL else False,
            ran_ns / 1e9 if ran_ns else None,
            self._peak_of(peak_rss),
            end.stack if end else None,
        )

    def _peak_of(self, peak_rss: int) -> int | None:
        """The worker's peak memory, or None. A process that was not forked from us begins with the
        peak of the process that executed it (Linux keeps the figure over exec): a figure below
        our own peak may be that one."""
        if peak_rss and self._method != "fork":
            from resource import RUSAGE_SELF, getrusage  # here: most programs never need it

            if peak_rss <= getrusage(RUSAGE_SELF).ru_maxrss * 1024:
                return None
        return peak_rss or None

    def _judge_oom(self, pid: int) -> bool | None:
        """Count this death by SIGKILL. Return whether the OOM killer caused it: see oom.verdict."""
        self._killed.add(pid)
        return oom.verdict(self._kills_before, oom.read(), len(self._killed))

    def is_current(self, worker: int, pid: int) -> bool:
        """Whether this process is in that seat, and has not been reaped."""
        with _reaping:
            if worker >= len(self.processes):
                return False
            process = self.processes[worker]
            return process.pid == pid and process.exitcode is None

    def _find_end(self, pid: int, worker: int) -> End | None:
        with self._ends_lock:
            if worker < len(self.processes) and worker not in self._recorded:
                process = self.processes[worker]
                if _pid_of(process) == pid:
                    return End(process, stacks.crash_stack(self.stacks.peek(worker)))
            return self._ends.get(pid)

    def stop(self) -> None:
        """Terminate the processes of a pool that could not be opened."""
        for process in self.processes:
            if process.exitcode is None:
                process.terminate()
        self.reap()

    def reap(self, timeout: float | None = None) -> None:
        """Join all processes, which have exited or are about to."""
        for worker in range(len(self.processes)):
            self._record_end(worker)
        for end in self._unreaped:
            end.reap(timeout)
        self.stacks.close()

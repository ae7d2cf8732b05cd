# SPDX-License-Identifier: MIT
"""What a pool's owner knows of its worker processes: their Process objects, and how they ended.

_forked_workers.py and _started_workers.py say how they come into being.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from . import _core, _oom_killer, _worker_stacks, errors
from ._stdlib_private import child_popen_of, disown
from ._worker import Seat, main

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any


# Held while a process is reaped or started by Process.start. How a process ended can be read once
# only (waitpid, the pipe of the forkserver), so of two threads that ask at once one gets a wrong
# answer. And starting a process polls all others. The order of locks: docs/python.md.
reaping_lock = threading.RLock()
_instances: weakref.WeakSet[WorkerProcesses] = weakref.WeakSet()


def _disown_workers() -> None:
    """Runs in a forked child. The workers are its parent's: the child must not terminate them
    when it exits, as multiprocessing does with a process's own children. Other threads of the
    parent may have held the locks."""
    global reaping_lock
    reaping_lock = threading.RLock()
    for workers in _instances:
        disown(workers.processes)
        workers.renew_locks()


os.register_at_fork(after_in_child=_disown_workers)


def pid_of(process: BaseProcess) -> int:
    """The pid, or 0: the process object of a custom context may have none, and its user may have
    closed it."""
    try:
        return getattr(process, "pid", None) or 0
    except ValueError:
        return 0


def has_ended(process: BaseProcess) -> bool:
    """Whether the process has ended. Its user may have closed the object then."""
    try:
        return process.exitcode is not None
    except ValueError:
        return True


def exitcode_of(outcome: _core.Outcome) -> int | None:
    """How a process ended, as Process.exitcode; None: that is not known."""
    if outcome.signal:
        return -outcome.signal
    return outcome.exit_code if outcome.exit_code >= 0 else None


# Keep exit details for the last 1,000 dead workers: a result may be fetched long after its worker
# died. Of older deaths only the engine's own details are known.
ENDS_MOST = 1000


# A worker's exit code where the process that knew it (the template, the forkserver) was killed, or
# where somebody else has reaped it.
UNKNOWN_EXIT = 255


def _note_reaped_by_others(process: BaseProcess) -> None:
    """Note the end of a child that somebody else has reaped: a handler of the program's, or, where
    SIGCHLD is ignored, the kernel. multiprocessing would take the child for alive."""
    popen = child_popen_of(process)
    if popen is None:
        return
    try:
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        if popen.returncode is None:
            popen.returncode = UNKNOWN_EXIT


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
        _note_reaped_by_others(process)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return exitcode


class ProcessEnd:
    """How a process ended that has left its seat, as far as it is known."""

    def __init__(self, process: BaseProcess, name: str, written: str) -> None:
        self.name = name
        self.stack = _worker_stacks.crash_stack(written)
        self.start_failure = _worker_stacks.start_failure(written)
        self._process: BaseProcess | None = process  # until it has been reaped
        self._exitcode: int | None = None

    def reap(self, timeout: float | None) -> int | None:
        """Wait for the process, and return its exit code; None: not within timeout seconds."""
        with reaping_lock:
            try:
                self._reap(timeout)
            except ValueError:  # its user has closed the Process object
                self._process = None
        return self._exitcode

    def _reap(self, timeout: float | None) -> None:
        process = self._process
        if process is None:
            return
        self._exitcode = _exitcode_within(process, timeout)
        if self._exitcode is not None:
            # multiprocessing forgets a process only when it is joined.
            process.join()
            self._process = None  # closes its descriptors


# A Process object that was not started yet, and the seat that its function will be given.
UnstartedWorker = tuple[BaseProcess, Seat]


def make_process(
    make: Callable[..., BaseProcess],
    context: Any,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> UnstartedWorker:
    """A Process object for one more worker. make(context, ...) makes it: Pool.Process."""
    seat = Seat()
    process = make(context, target=main, args=(seat, initializer, initargs))
    process.name = process.name.replace("Process", "PoolWorker")
    process.daemon = True
    return process, seat


class WorkerProcesses:
    """The worker processes of a pool, as the owner knows them.

    make: makes one more UnstartedWorker; first: what it has returned first.

    The engine calls it from any thread. It has no reference to the pool, so that the pool can be
    garbage-collected while its workers are in use.
    """

    def __init__(self, make: Callable[[], UnstartedWorker], first: UnstartedWorker) -> None:
        self._owner = os.getpid()
        self._make = make
        self._first = first
        # Guards processes, _recorded and _ends; a stack is taken from self.stacks only under it.
        # Neither the engine nor code of the user's is called under it: the engine may wait for a
        # thread that starts a worker, which comes here. So what may be the last reference to a
        # Process object is dropped behind it. Reentrant, since a garbage collection in this
        # thread may come here, too.
        self._ends_lock = threading.RLock()
        self._recorded: set[int] = set()  # seats whose process's end is in _ends
        self._ends: dict[int, ProcessEnd] = {}  # by pid, the oldest first
        self._unreaped: list[ProcessEnd] = []
        self.processes: list[BaseProcess] = []
        self.stacks = _worker_stacks.Stacks()
        self._kills_before = _oom_killer.read_kills()
        self._killed: set[int] = set()  # pids of workers that died by SIGKILL and were explained
        self.failure: BaseException | None = None
        self.terminated = False  # the pool was terminated: start no more processes
        _instances.add(self)

    def renew_locks(self) -> None:
        """In a forked child, which can still ask for the exceptions of calls that had failed."""
        self._ends_lock = threading.RLock()
        self.stacks.renew_lock()

    def open(self, workers: int, recycle: int, result_type: type[_core.Task]) -> _core.Pool:
        """Open the engine's pool: its workers are these."""
        raise NotImplementedError

    def put_in_seat(self, worker: int, process: BaseProcess) -> None:
        """This process is in that seat from now on."""
        with self._ends_lock:
            before = self.processes[worker : worker + 1]
            self.processes[worker : worker + 1] = [process]
            self._recorded.discard(worker)
        del before

    def record_end(self, worker: int) -> None:
        """The process in this seat, if there is one, has ended. Before the next one can overwrite
        its stack."""
        if worker >= len(self.processes):
            return
        process = self.processes[worker]
        name, pid = process.name, pid_of(process)
        forgotten = []
        with self._ends_lock:
            if worker in self._recorded:  # a first attempt to replace it failed
                return
            self._recorded.add(worker)
            end = ProcessEnd(process, name, self.stacks.take(worker))
            self._unreaped.append(end)
            forgotten.append(self._ends.pop(pid, None))
            self._ends[pid] = end
            if len(self._ends) > ENDS_MOST:
                forgotten.append(self._ends.pop(next(iter(self._ends))))
        del forgotten

    def reap_recorded(self) -> None:
        """Reap those that have ended, without waiting. If another thread is reaping, the next call
        does it: a garbage collection in that thread may wait for this one."""
        if reaping_lock.acquire(blocking=False):
            try:
                # Others may append to the list meanwhile.
                for end in [end for end in self._unreaped if end.reap(0) is not None]:
                    if end in self._unreaped:
                        self._unreaped.remove(end)
            finally:
                reaping_lock.release()

    def make_exception(self, outcome: _core.Outcome, function: object) -> BaseException:
        """The exception for a call that failed."""
        if outcome.name == "AC_EDIED":
            return self._make_worker_died(outcome, function)
        error = errors.from_code(outcome.status, outcome.name, outcome.text)
        if isinstance(error, errors.StartError) and self.failure:
            error.__cause__ = self.failure
        return error

    def _make_worker_died(self, outcome: _core.Outcome, function: object) -> errors.WorkerDied:
        end = self._find_end(outcome.pid, outcome.worker)
        exitcode = exitcode_of(outcome)
        if exitcode is None and end and os.getpid() == self._owner:
            # A worker that is not our child (forkserver): its parent reports a moment later. It
            # reports once: a forked child of ours must not take the report.
            exitcode = end.reap(1.0)
        return errors.WorkerDied(
            outcome.pid or None,
            exitcode,
            end.name if end else None,
            errors.describe(function),
            self._was_oom_killed(outcome.pid) if exitcode == -signal.SIGKILL else False,
            outcome.ran_ns / 1e9 if outcome.ran_ns else None,
            self._peak_of(outcome.peak_rss),
            end.stack if end else None,
        )

    def _peak_of(self, peak_rss: int) -> int | None:
        """The worker's peak memory, or None."""
        return peak_rss or None

    def _was_oom_killed(self, pid: int) -> bool | None:
        """Count this death by SIGKILL. Return whether the OOM killer caused it."""
        self._killed.add(pid)
        kills = _oom_killer.read_kills()
        return _oom_killer.was_killed(self._kills_before, kills, len(self._killed))

    def is_current(self, worker: int, pid: int) -> bool:
        """Whether this process is in that seat, and has not been reaped."""
        with reaping_lock:
            if worker >= len(self.processes):
                return False
            process = self.processes[worker]
            return not has_ended(process) and process.pid == pid

    def _find_end(self, pid: int, worker: int) -> ProcessEnd | None:
        with self._ends_lock:
            process = self.processes[worker] if worker < len(self.processes) else None
        if process is None:
            return self._ends.get(pid)
        name, ended_pid = process.name, self.ended_pid(process)
        with self._ends_lock:
            # Another thread may have replaced it meanwhile, and taken its stack.
            is_there = self.processes[worker] is process and worker not in self._recorded
            if ended_pid == pid and is_there:
                return ProcessEnd(process, name, self.stacks.peek(worker))
            return self._ends.get(pid)

    def describe_template(self) -> str | None:
        """What is wrong with the process from which workers are forked, or None."""
        return None

    def ended_pid(self, process: BaseProcess) -> int:
        """The pid of a process that may have ended."""
        return pid_of(process)

    def stop(self, core: _core.Pool | None) -> None:
        """Terminate a pool that could not be opened, as far as it was. core: the engine's; None:
        there is none."""
        self.terminated = True
        if core is not None:
            core.terminate()  # else the engine replaces workers that are terminated
            core.join(10)
            self.reap(10)

    def reap(self, timeout: float | None = None) -> None:
        """Join all processes, which have exited or are about to."""
        for worker in range(len(self.processes)):
            self.record_end(worker)
        for end in self._unreaped:
            end.reap(timeout)
        self.stacks.close()

# SPDX-License-Identifier: MIT
"""Workers that Process.start brings up: by spawn, by forkserver, and in custom contexts."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from multiprocessing import current_process, util
from multiprocessing.process import BaseProcess

from . import _core, _stdlib_servers, _worker_processes, errors
from ._descriptors import above_standard, standard_reserved
from ._interruptible import SLICE
from ._stdlib_private import poll_one_by_one, start_method_of
from ._worker import Seat
from ._worker_processes import UnstartedWorker, WorkerProcesses, exitcode_of, has_ended, pid_of


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


class StartedWorkers(WorkerProcesses):
    """Workers started by the context's own Process. The engine asks for each."""

    def __init__(self, make: Callable[[], UnstartedWorker], first: UnstartedWorker) -> None:
        super().__init__(make, first)
        self._not_started = [first]
        # Workers get the signal mask of the thread that made the pool, not of the one that starts
        # them.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._method = start_method_of(first[0])

    def open(self, workers: int, recycle: int, result_type: type[_core.Task]) -> _core.Pool:
        """Open the engine's pool, which starts all workers."""
        # Process.start refuses that. A daemon that was forked has its parent's forkserver, which it
        # must not ask for.
        if self._method != "fork" and current_process().daemon:
            raise AssertionError("daemonic processes are not allowed to have children")
        _stdlib_servers.start_and_wait(self._method, self._mask)
        return _core.Pool(workers, recycle, self, result_type, None, False)

    def start_worker(self, worker: int, fd: int) -> int:
        """Start the process for seat number worker. Return its pid, 0 if it has none, or -errno.
        The extension calls it in a thread that runs no signal handlers."""
        try:
            return self._start_alone(worker, fd, *self._next_worker())
        except BaseException as error:
            self.failure = error
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EAGAIN
            return -code

    def _next_worker(self) -> UnstartedWorker:
        try:
            return self._not_started.pop()
        except IndexError:
            return self._make()

    def _start_alone(self, worker: int, fd: int, process: BaseProcess, seat: Seat) -> int:
        # Not without a time limit: a garbage collection in the thread that holds the lock may be
        # terminating this very pool, and waits for this call to return.
        while not _worker_processes.reaping_lock.acquire(timeout=SLICE):
            if self.terminated:
                return -errno.ECANCELED
        try:
            with standard_reserved():
                self._start(worker, fd, process, seat)
            return pid_of(process)
        finally:
            _worker_processes.reaping_lock.release()

    def _start(self, worker: int, fd: int, process: BaseProcess, seat: Seat) -> None:
        self.record_end(worker)
        method = self._method = start_method_of(process)
        if method == "fork":
            # The engine closes fd in a child of a thread that it does not know: this one.
            fd = above_standard(os.dup(fd))
        seat.assign(worker, fd, self.stacks.fd, self.channel.sender)
        _stdlib_servers.ensure_running(method, self._mask)
        # SIGINT is blocked in the child until the child has set its handler.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask | {signal.SIGINT})
            process.start()
            poll_one_by_one(process)
            self.put_in_seat(worker, process)
            if method != "fork" and pid_of(process):
                _kill_with_owner(fd, pid_of(process))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if method == "fork":
                os.close(fd)
        util.debug("added worker")
        self.reap_recorded()

    def describe_failed_start(self, outcome: _core.Outcome) -> tuple[int | None, str, bool]:
        """How a process ended before it took its seat: its exit code (None: not known), the same in
        words, and whether the start counts as failed whatever the signal is. The extension calls
        it as it calls start_worker."""
        end = self._find_end(outcome.pid, outcome.worker)
        exitcode = exitcode_of(outcome)
        if exitcode is None and end:
            exitcode = self._ask_process(end)
        text = errors.end_text(exitcode)
        if end and end.start_failure:
            text = f"{text}: {end.start_failure}"
        is_oom = exitcode == -signal.SIGKILL and self._was_oom_killed(outcome.pid) is True
        return exitcode, errors.cut(text), is_oom

    def _ask_process(self, end: _worker_processes.ProcessEnd) -> int | None:
        """Its exit code, where a parent that is not this process (forkserver) reports it a moment
        later. Not for ever: see _start_alone."""
        while not _worker_processes.reaping_lock.acquire(timeout=SLICE):
            if self.terminated:
                return None
        try:
            return end.reap(SLICE if self.terminated else 1.0)
        finally:
            _worker_processes.reaping_lock.release()

    def _peak_of(self, peak_rss: int) -> int | None:
        """The worker's peak memory, or None. A process that was not forked from us begins with the
        peak of the process that executed it (Linux keeps the figure over exec): a figure below
        our own peak may be that one."""
        if peak_rss and self._method != "fork":
            from resource import RUSAGE_SELF, getrusage  # here: most programs never need it

            if peak_rss <= getrusage(RUSAGE_SELF).ru_maxrss * 1024:
                return None
        return peak_rss or None

    def stop(self, core: _core.Pool | None) -> None:
        """Terminate a pool that could not be opened, as far as it was."""
        super().stop(core)
        if core is None:
            for process in self.processes:
                if not has_ended(process):
                    process.terminate()
            self.reap()

# SPDX-License-Identifier: MIT
"""What can become of a call, beyond what its function raises."""

from __future__ import annotations

import os
import signal as _signal
from multiprocessing import ProcessError
from multiprocessing import TimeoutError as TimeoutError

__all__ = ["BrokenPool", "StartError", "TaskCancelled", "WorkerDied"]


class WorkerDied(ProcessError):
    """The worker process ended while it held this call; the pool goes on.

    pid: the worker's process id; exitcode: as Process.exitcode (negative: the signal's
    number; None: not known); signal: the signal's name, or None; worker: the process's
    name; task: what it ran; oom: whether the kernel's OOM killer killed it (None: that
    can't be known here).
    """

    def __init__(
        self,
        pid: int | None = None,
        exitcode: int | None = None,
        worker: str | None = None,
        task: str | None = None,
        oom: bool | None = False,
    ) -> None:
        super().__init__(pid, exitcode, worker, task, oom)
        self.pid = pid
        self.exitcode = exitcode
        self.worker = worker
        self.task = task
        self.oom = oom

    @property
    def signal(self) -> str | None:
        """The name of the signal that killed it, such as "SIGKILL"."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return _signal.Signals(-self.exitcode).name
        except ValueError:
            return f"signal {-self.exitcode}"

    def __str__(self) -> str:
        name = f"worker {self.worker or ''}".rstrip()
        if self.signal:
            end = f"was killed by {self.signal}"
        elif self.exitcode is None:
            end = "ended (how is not known)"
        else:
            end = f"exited with code {self.exitcode}"
        if self.oom:
            end += " (the kernel's OOM killer: out of memory)"
        elif self.oom is None:
            end += " (perhaps the kernel's OOM killer: that can't be known here)"
        ran = f" while it ran {self.task}" if self.task else ""
        return f"{name} (pid {self.pid}) {end}{ran}"


class StartError(ProcessError):
    """Workers cannot be started, or their initializer raised: the pool takes no work."""


class TaskCancelled(ProcessError):
    """The pool was terminated before this call had ended."""


class BrokenPool(ProcessError):
    """The pool's shared memory is damaged, or no worker is left and none can be started."""


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
        case "ENOMEM":
            return MemoryError(text)
    if name.startswith("AC_"):
        return BrokenPool(text)
    return OSError(-code, os.strerror(-code))

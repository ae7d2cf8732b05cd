# SPDX-License-Identifier: MIT
"""The standard library's own processes that must run before a worker can start: its resource
tracker, and the forkserver, which forks the workers of that start method.

The forkserver passes its signal mask on to whatever it forks. SIGINT is blocked in it, since Ctrl-C
must meet neither a forkserver nor a worker that is still importing: each would print a traceback of
its own. Processes that the program starts by the same forkserver get SIGINT unblocked: see
_forkserver_preload.py.

Before it serves, the forkserver imports what it is told to; in CPython 3.14.1 and later (and late
3.13) that is the main program, too, which may take long. Whoever starts a process waits for that. An
owner that is killed meanwhile is noticed by the forkserver when it serves, and not before.
"""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import util

from ._descriptors import standard_reserved
from ._stdlib_private import forkserver_pid, preload_in_forkserver
from .errors import StartError

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any


def ensure_running(method: str, mask: set[Any]) -> None:
    """Start what a process needs that is started by this method. mask: the signals that are to be
    blocked in the processes that the forkserver forks."""
    if method != "fork":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # unblocks signals: so not between the lines below
    if method == "forkserver":
        _ensure_forkserver(mask)


def _ensure_forkserver(mask: set[Any]) -> None:
    from multiprocessing import forkserver  # here: the other methods do without it

    # Who blocks SIGINT keeps it blocked.
    preload_in_forkserver(
        "allcores._worker" if signal.SIGINT in mask else "allcores._forkserver_preload"
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask | {signal.SIGINT})
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_and_wait(method: str, mask: set[Any]) -> None:
    """The same, and wait for it. Starting a worker would wait, too, but no signal handler runs
    meanwhile; here handlers run, and what they raise loses nothing."""
    try:
        with standard_reserved():
            ensure_running(method, mask)
    except Exception:
        return  # the start of the first worker meets the same error and reports it
    if method == "forkserver":
        _wait_for_forkserver()


def _wait_for_forkserver() -> None:
    # The first start needs it. The forkserver takes longer than this import.
    from multiprocessing import popen_forkserver  # noqa: F401

    pid = forkserver_pid()
    if pid is None:  # another thread found it dead, and is about to start it
        return
    end = util.Finalize(None, _end, args=(pid,), exitpriority=-100)
    was_importing = False
    while not (how := _how_it_ended(pid)) and _is_importing(pid):
        was_importing = True
        time.sleep(0.002)
    end.cancel()
    if how and was_importing:  # else the start of a worker starts another one
        raise StartError(
            f"the forkserver {how} before it was ready (it first imports the main program, and what "
            "set_forkserver_preload names): see standard error for the reason"
        )


def _how_it_ended(pid: int) -> str | None:
    """None: it has not, or that can't be known."""
    try:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return None
    if end is None:
        return None
    if end.si_code == os.CLD_EXITED:
        return f"exited with code {end.si_status}"
    return f"was killed by {signal.Signals(end.si_status).name}"


def _is_importing(pid: int) -> bool:
    """Whether this process is a forkserver that does not serve yet. False where that can't be
    known."""
    try:
        with open(f"/proc/{pid}/status", "rb", 0) as file:
            status = file.read()
    except OSError:
        return False
    # A forkserver that serves has a handler of SIGCHLD.
    _, found, caught = status.partition(b"\nSigCgt:\t")
    return bool(found) and not int(caught[:16], 16) >> (signal.SIGCHLD - 1) & 1


def _end(pid: int) -> None:
    """At the exit of a program that was interrupted while it waited: nobody needs a forkserver that
    still imports, and it would go on until it has done so."""
    try:
        # An error if it is not our child any more, and somebody else may have its number.
        has_ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if not has_ended and _is_importing(pid):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass

# SPDX-License-Identifier: MIT
"""Everything private or undocumented in the standard library that this package relies on: no other
module of the package names such a thing. Each function says what it relies on; where it names no
version, all of CPython 3.11 to 3.14 have it. tests/test_stdlib_private.py checks that.

The extension relies on one more: _frozen_importlib._module_locks (ext/undisturbed.c).
"""

from __future__ import annotations

# The functions of signal, without signal's enums, which take a worker long to make.
import _signal as plain_signal  # type: ignore[import]
import atexit
import contextlib
import itertools
import os
import sys
import threading
import weakref
from multiprocessing import context, get_start_method, process, reduction, util

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.context import DefaultContext
    from multiprocessing.process import BaseProcess
    from types import TracebackType
    from typing import Any

__all__ = ["plain_signal"]

_context: Any = context
_process: Any = process
_reduction: Any = reduction
_util: Any = util
_atexit: Any = atexit


def is_gil_enabled() -> bool:
    """Whether the interpreter has the GIL, now: sys._is_gil_enabled(), from 3.13 on."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


# ---- contexts ----


def default_context() -> DefaultContext:
    """multiprocessing's own context. context._default_context: all functions of multiprocessing are
    its methods. Not imported here: a program may have put this package in multiprocessing's place."""
    return context._default_context


def start_method_of(process: BaseProcess) -> str:
    """The start method of this process. Process._start_method: set in the classes of contexts, None
    where the default context decides."""
    return getattr(type(process), "_start_method", None) or get_start_method()


def is_pickled_for_start() -> bool:
    """Whether this thread is pickling what a new process needs: context.get_spawning_popen()."""
    return _context.get_spawning_popen() is not None


def is_helper_process() -> bool:
    """Whether spawn or forkserver is starting this process, or it is the forkserver. The attribute
    _inheriting of the current process is there while spawn's child unpickles what it runs, and
    true; the command line of the forkserver names its module."""
    current = _process.current_process()
    return getattr(current, "_inheriting", False) or any(
        "multiprocessing.forkserver" in word for word in sys.orig_argv
    )


# ---- Process objects ----


def number_of(process: BaseProcess) -> int:
    """The number that multiprocessing's counter gave the process: the last one of
    Process._identity."""
    return process._identity[-1]


def set_next_number(number: int) -> None:
    """The number of the next process to be made: process._process_counter."""
    _process._process_counter = itertools.count(number)


def set_parent(process: Any, pid: int) -> None:
    """Make the object that of a child of pid. Process._parent_pid: other processes can't join it."""
    process._parent_pid = pid


def target_of(process: BaseProcess) -> object:
    """The function that the process runs: Process._target, which start() deletes in the parent."""
    return getattr(process, "_target", None)


def popen_of(process: BaseProcess) -> Any:
    """Process._popen: what start() made to ask about the process. None before; Process.close
    sets it to None, too."""
    return getattr(process, "_popen", None)


def note_started(process: Any, cls: type[BaseProcess], popen: object) -> None:
    """What Process.start does besides starting a process: sets _popen, deletes _target, _args and
    _kwargs, which may refer to the process, and adds it to process._children, which
    multiprocessing polls, and joins at exit. cls: the class that the object gets."""
    # No signal handler can come between these lines, but before the first and at the call.
    process.__class__ = cls
    process._popen = popen
    del process._target, process._args, process._kwargs
    _process._children.add(process)


class LazySentinel:
    """In front of Process in the bases of a class: its sentinel is asked for when it is used.
    Process.start would copy it to the attribute _sentinel, which Process.close deletes."""

    @property
    def _sentinel(self) -> Any:
        return popen_of(self).sentinel  # type: ignore[arg-type]

    @_sentinel.deleter
    def _sentinel(self) -> None:
        pass


def disown(processes: Iterable[BaseProcess]) -> None:
    """Let multiprocessing forget these children: process._children."""
    _process._children.difference_update(processes)


# ---- forks ----


def _is_from(module: str, function: object) -> bool:
    return getattr(function, "__module__", None) == module


def forks_plainly(cls: type[BaseProcess]) -> bool:
    """Whether starting a process of this class by fork is nothing but the standard library's fork.
    Debuggers (pydevd) and gevent replace a part of it, and rely on its being called:
    posix.fork, Process.start, Process._Popen of contexts, popen_fork.Popen._launch."""
    import posix
    from multiprocessing import popen_fork

    return (
        os.fork is posix.fork
        and cls.start is process.BaseProcess.start
        and _is_from("multiprocessing.process", cls.start)
        and _is_from("multiprocessing.context", getattr(cls, "_Popen", None))
        and _is_from("multiprocessing.popen_fork", getattr(popen_fork.Popen, "_launch", None))
    )


def child_popen_of(process: BaseProcess) -> Any:
    """The Popen of a process that is a child of this one, else None. popen_fork.Popen: the class
    from which those of all methods come; its attributes pid, returncode (None until the end is
    known), and method: forkserver's processes are the server's children."""
    from multiprocessing import popen_fork

    popen = popen_of(process)
    is_child = isinstance(popen, popen_fork.Popen) and popen.method != "forkserver"
    return popen if is_child else None


def poll_one_by_one(process: BaseProcess) -> None:
    """Let one thread at a time ask how this process has ended: waitpid and the forkserver's pipe tell it
    once, and another thread that asks meanwhile would get a wrong answer. Popen.poll(flag) of
    popen_fork.Popen and its subclasses: os.WNOHANG, or 0 to wait; sentinel, pid and method."""
    from multiprocessing import connection, popen_fork

    popen: Any = popen_of(process)
    if not isinstance(popen, popen_fork.Popen):
        return
    reference, lock, owner = weakref.ref(popen), threading.Lock(), os.getpid()

    def poll(flag: int = os.WNOHANG) -> int | None:
        asked: Any = reference()
        if os.getpid() != owner:  # a forked child: another thread may have held the lock
            return asked.__class__.poll(asked, flag)  # type: ignore[no-any-return]
        if flag != os.WNOHANG and asked.returncode is None:
            if asked.method == "forkserver":
                connection.wait([asked.sentinel])
            else:
                with contextlib.suppress(ChildProcessError):  # somebody else has reaped it
                    os.waitid(os.P_PID, asked.pid, os.WEXITED | os.WNOWAIT)
        with lock:
            return asked.__class__.poll(asked, os.WNOHANG)  # type: ignore[no-any-return]

    vars(popen)["poll"] = poll


def flush_std_streams() -> None:
    """As before each fork: util._flush_std_streams()."""
    _util._flush_std_streams()


# Whether multiprocessing's forked processes run atexit functions, their finalizers among them. In
# older versions Process._bootstrap runs the finalizers, and atexit functions never run.
_RUNS_ATEXIT = sys.version_info >= (3, 13)


def run_in_child(process: Any, sentinel: int | None) -> int:
    """Run a process in the forked child, as popen_fork.Popen does, and return its exit code:
    Process._bootstrap; from 3.13 on also atexit._clear (forgets the parent's functions),
    util._exit_function (finalizers) and atexit._run_exitfuncs."""
    if _RUNS_ATEXIT:
        _atexit._clear()
        _atexit.register(_util._exit_function)
    try:
        code: int = process._bootstrap(parent_sentinel=sentinel)
        return code
    finally:
        if _RUNS_ATEXIT:
            _atexit._run_exitfuncs()


def keep_resource_tracker(keep: bool) -> None:
    """To the resource tracker, a fork by this thread is Process.start's, or not any more. A child
    of Process.start uses its parent's tracker. Any other child lets go of it and starts one of
    its own, which removes what a worker shares when the worker exits.
    resource_tracker._fork_intent.preserve_fd: late versions of 3.13 and 3.14 have it; older ones
    keep the tracker in every child."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    intent = getattr(tracker, "_fork_intent", None)
    if intent is not None:
        intent.preserve_fd = keep


# ---- descriptors ----


class _Once:
    """True, and calls a function before it says so the first time."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __bool__(self) -> bool:
        _reduction.HAVE_SEND_HANDLE = True
        self._function()
        return True


def before_sharing(function: Callable[[], object]) -> None:
    """Call the function once, before this process shares a descriptor for the first time, whoever
    does that. reduction.HAVE_SEND_HANDLE: reduction.DupFd asks whether it is true, and then
    imports resource_sharer, which is too slow to be done in each worker."""
    once = _reduction.HAVE_SEND_HANDLE = _Once(function)
    if "multiprocessing.resource_sharer" in sys.modules:  # which may be called directly
        bool(once)


def replace_shared(make: Callable[[int], object]) -> None:
    """What make(descriptor) returns is pickled in the place of resource_sharer.DupFd(descriptor),
    unless it is None."""
    from multiprocessing.resource_sharer import DupFd

    cls: Any = DupFd

    def new(cls: Any, fd: int | None = None) -> Any:  # None: it is being unpickled
        made = None if fd is None else make(fd)
        return object.__new__(cls) if made is None else made

    cls.__new__ = new


def share_descriptor(fd: int, fetched: Callable[[], object]) -> Any:
    """As resource_sharer.DupFd(fd). fetched is called when another process has the descriptor.
    resource_sharer._resource_sharer.register; the attribute _id of a DupFd."""
    from multiprocessing import resource_sharer

    duplicate = os.dup(fd)

    def send(connection: Any, pid: int) -> None:
        _reduction.send_handle(connection, duplicate, pid)

    def close() -> None:
        os.close(duplicate)
        fetched()

    shared: Any = object.__new__(resource_sharer.DupFd)
    shared._id = resource_sharer._resource_sharer.register(send, close)  # type: ignore[attr-defined]
    return shared


# ---- the forkserver ----


def preload_in_forkserver(module: str) -> None:
    """Have the forkserver import this module, too, when it starts. forkserver._forkserver: the one
    object that starts it; its list _preload_modules, which set_forkserver_preload sets."""
    server = _forkserver()
    if module not in server._preload_modules:
        server._preload_modules = [*server._preload_modules, module]


def forkserver_pid() -> int | None:
    """The pid of the forkserver, once it was started: _forkserver_pid of the same object."""
    pid: int | None = _forkserver()._forkserver_pid
    return pid


def _forkserver() -> Any:
    from multiprocessing import forkserver  # here: the other methods do without it

    return forkserver._forkserver


# ---- pools ----


def reducers_of(pickler: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What programs have registered by ForkingPickler.register and copyreg.pickle, in this order of
    preference: ForkingPickler._extra_reducers, and copyreg's table, as ForkingPickler.__init__ does."""
    import copyreg

    return pickler._extra_reducers, copyreg.dispatch_table


def cut_into_tasks(function: object, items: Iterable[Any], size: int) -> Any:
    """An iterator over (function, tuple of items): Pool._get_tasks. Programs that extend a pool
    (istarmap) call it."""
    from multiprocessing.pool import Pool

    return Pool._get_tasks(function, items, size)  # type: ignore[attr-defined]


# ---- failures ----


def with_traceback(error: BaseException, traceback: TracebackType | None) -> Any:
    """An object whose pickle is that of the exception, and which unpickles with the traceback as
    the exception's cause: pool.ExceptionWithTraceback. Its attribute exc is the exception."""
    from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]

    return ExceptionWithTraceback(error, traceback)


def maybe_encoding_error(error: object, value: object) -> Exception:
    """pool.MaybeEncodingError: takes the repr of both, and keeps these texts."""
    from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]

    made: Exception = MaybeEncodingError(error, value)
    return made

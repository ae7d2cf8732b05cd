# SPDX-License-Identifier: MIT
"""Pool: the interface of multiprocessing.Pool, over the engine of allcores."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import get_context, util
from multiprocessing.process import BaseProcess
from types import FunctionType

from . import _core
from ._chunk_sizes import GivenChunks, MeasuredChunks, nominal_size
from ._driver import CallbackThread, Driver
from ._forked import ForkedCrew, can_fork
from ._imap import ImapJob, ImapResults, UnorderedImapResults
from ._jobs import CallJob, MapJob
from ._results import AsyncResult, JobResult, MapResult
from ._stdlib_pool import LikeStdlib, TaskQueue, find_added
from ._submitting import Submitting
from ._unfinished import Unfinished
from .crew import Crew, make_process
from .errors import FORKED, advise

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    from ._results import Callback

__all__ = ["Pool", "ThreadPool"]

INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

PACES_MOST = 256

ApplyResult = AsyncResult


def __getattr__(name: str) -> Any:
    """Other names of the standard library's module: ThreadPool, MaybeEncodingError..."""
    if name.startswith("__"):  # importlib asks for some: not worth importing the module
        raise AttributeError(name)
    from multiprocessing import pool

    return getattr(pool, name)


class Pool(LikeStdlib):
    """A pool of worker processes, with the methods and habits of multiprocessing.Pool.

    processes: the number of workers; None: as many processors as this process may use
    (allcores.cpus). initializer(*initargs) runs in each worker before its first call.
    maxtasksperchild: a worker is replaced after that many calls (a chunk counts as one).
    context: how processes are started.
    """

    _stdlib_name = "Pool"
    _state = INIT

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> BaseProcess:
        """Make a worker's process. Subclasses may override it."""
        return ctx.Process(*args, **kwds)  # type: ignore[no-any-return]

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._ctx = context or get_context()
        if processes is None:
            processes = _core.cpus()
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._owner = os.getpid()
        self._processes = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._crew = self._make_crew()
        try:
            self._open(processes)
        except BaseException as error:  # also what a signal handler raises, in any line of it
            self._crew.stop(self.__dict__.get("_core"))
            raise advise(self._crew.failure or error) from None
        self._paces = _Paces()
        self._state = RUN

    def _open(self, processes: int) -> None:
        self._core = self._crew.open(processes, self._maxtasksperchild or 0, AsyncResult)
        self._submitting = Submitting()
        self._callbacks = CallbackThread(self._core, self._submitting)
        self._cache = Unfinished(self._core)
        self._terminate = util.Finalize(
            self,
            _finalize,
            args=(self._core, self._crew, self._submitting, self._callbacks),
            exitpriority=15,
        )

    def _make_crew(self) -> Crew:
        make = functools.partial(
            make_process, self.Process, self._ctx, self._initializer, self._initargs
        )
        first = make()
        if can_fork(first[0]):
            return ForkedCrew(make, first, self._initializer is not None)
        from ._started import StartedCrew  # here, since fork does not need it

        return StartedCrew(make, first)

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._state == RUN:
            _warn(
                f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self
            )

    def __repr__(self) -> str:
        cls = type(self)
        return (
            f"<{cls.__module__}.{cls.__qualname__} state={self._state} "
            f"pool_size={self._processes}>"
        )

    def __reduce__(self) -> Any:
        raise NotImplementedError(
            "pool objects cannot be passed between processes or pickled"
        )

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        if os.getpid() == self._owner:  # a forked child leaves the block, too: the pool goes on
            self.terminate()

    def _check_owner(self) -> None:
        """The first step of every public method. A forked child has the pool's locks and threads as
        they were at the fork, and none of its processes."""
        if os.getpid() != self._owner:
            raise RuntimeError(FORKED)

    def _check_running(self) -> None:
        self._check_owner()
        if self._state != RUN:
            raise ValueError("Pool not running")

    # ---- private names of the standard library's pool that programs use ----

    @property
    def _pool(self) -> list[BaseProcess]:
        return self._crew.processes

    @property
    def _taskqueue(self) -> TaskQueue:
        return TaskQueue(self)

    @staticmethod
    def _get_tasks(func: Any, it: Iterable[Any], size: int) -> Any:
        from multiprocessing.pool import Pool as Theirs

        return Theirs._get_tasks(func, it, size)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return find_added(self, name)

    def _repopulate_pool(self) -> None:
        """Do nothing: the engine replaces workers as soon as they exit."""

    # ---- single calls ----

    def apply(self, func: Callable[..., Any], args: Any = (), kwds: Any = {}) -> Any:
        """Call func(*args, **kwds) in a worker. Return its value, or raise its exception."""
        self._check_running()
        return self._core.submit(self, func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Any = (),
        kwds: Any = {},
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> AsyncResult:
        """Call func(*args, **kwds) in a worker and return at once. callback(value) or
        error_callback(exception) runs in a thread of the pool before the result is ready."""
        self._check_running()
        if callback is None and error_callback is None:
            return self._core.submit(self, func, args, kwds)  # type: ignore[no-any-return]
        result = JobResult(self, func, callback, error_callback)
        self._callbacks.call(CallJob(func, result), func, args, kwds)
        return result

    # ---- maps ----

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
    ) -> list[Any]:
        """[func(x) for x in iterable], in the workers. chunksize items make one call;
        None: the pool measures how long items take, and chooses."""
        return self._map(func, iterable, False, chunksize)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """[func(*x) for x in iterable], in the workers: see map."""
        return self._map(func, iterable, True, chunksize)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Start a map and return at once. callback(list) or error_callback(exception) runs in a
        thread of the pool before the result is ready."""
        return self._map_async(func, iterable, False, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Start a starmap and return at once: see map_async."""
        return self._map_async(func, iterable, True, chunksize, callback, error_callback)

    def _map_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
    ) -> MapJob:
        self._check_running()
        _check_chunksize(chunksize)
        items = _as_sequence(iterable)
        chunks: GivenChunks | MeasuredChunks
        if chunksize is None and self._maxtasksperchild is None:
            chunks = MeasuredChunks(self._processes, self._paces.get(func))
        else:
            # maxtasksperchild counts calls, so with it chunks have the standard library's size.
            chunks = GivenChunks(chunksize or nominal_size(len(items), self._processes))
        return MapJob(self._core, self._processes, func, items, star, chunks)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
    ) -> list[Any]:
        job = self._map_job(func, iterable, star, chunksize)
        if job.is_complete():
            return []
        self._cache.add(job)
        self._drive(job)
        self._paces.note(func, job.chunks)
        success, value = job.outcome()
        if success:
            return value  # type: ignore[no-any-return]
        raise value

    def _drive(self, job: MapJob) -> None:
        """Drive a job to its end in this thread, over a stream of its own."""
        driver = Driver(self._core.stream(), self._submitting)
        try:
            self._submitting.enter(job)
            driver.add(job)
            driver.run(until=job)
        finally:
            self._submitting.forget(job)
            self._submitting.leave(job)
            driver.stream.close()

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
        callback: Callback,
        error_callback: Callback,
    ) -> MapResult:
        job = self._map_job(func, iterable, star, chunksize)
        result = MapResult(self, job, func, callback, error_callback)
        if not job.is_complete():
            job.result = result
            self._cache.add(job)
            self._callbacks.map(job)
        return result

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> ImapResults:
        """An iterator over the results, in the input's order. The input is read a bounded
        number of items ahead of the results that were taken."""
        return self._imap(func, iterable, chunksize, True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> ImapResults:
        """imap, with the results in the order in which they arrive."""
        return self._imap(func, iterable, chunksize, False)

    def _imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        ordered: bool,
        star: bool = False,
    ) -> ImapResults:
        self._check_running()
        _check_chunksize(chunksize)
        chunk = 0 if chunksize == 1 else chunksize
        job = ImapJob(
            self._core, self._submitting, self._processes, func, iterable, star, chunk, ordered
        )
        self._cache.add(job)
        return ImapResults(self, job) if ordered else UnorderedImapResults(self, job)

    # ---- what the workers are doing ----

    def dump(self, file: Any = None) -> None:
        """Write what each worker is doing to file (a text file; None: sys.stderr): its call, for
        how long it has run, and the worker's Python stack. For a pool that seems stuck. Takes
        one second at most."""
        from .dump import describe_pool  # here, since most programs never need it

        self._check_owner()
        text = describe_pool(self._core, self._crew, self._processes)
        (file or sys.stderr).write(f"{self!r}\n{text}")

    # ---- ending ----

    def close(self) -> None:
        """Accept no more work. The work that was submitted is done."""
        self._check_owner()
        if self._state == RUN:
            self._state = CLOSE
        if self._state == CLOSE:  # also when repeated after a Ctrl-C came between these lines
            self._submitting.close(self._core.shut)

    def terminate(self) -> None:
        """Stop now: unfinished calls fail with TaskCancelled, the workers are killed."""
        self._check_owner()
        self._state = TERMINATE
        self._crew.terminated = True
        # The engine first. The finalizer runs only once: if a Ctrl-C cut it short before it had
        # stopped the engine, workers would be replaced for ever.
        self._core.terminate()
        self._terminate()

    def join(self) -> None:
        """Wait until all work is done, all callbacks have returned and all workers have exited.
        Only after close or terminate."""
        self._check_owner()
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self.close()
        _finish(self._core, self._crew, self._submitting, self._callbacks)


class _Paces:
    """How long items of the latest maps took: first guesses for the next map of the same function."""

    def __init__(self) -> None:
        self._paces: dict[FunctionType, float] = {}  # nanoseconds

    def get(self, function: object) -> float | None:
        """The time of an item, if it is known."""
        return self._paces.get(function) if isinstance(function, FunctionType) else None

    def note(self, function: object, chunks: GivenChunks | MeasuredChunks) -> None:
        """A map of this function has ended."""
        if not isinstance(function, FunctionType) or not isinstance(chunks, MeasuredChunks):
            return
        if chunks.pace is not None:
            if len(self._paces) >= PACES_MOST:
                self._paces.clear()
            self._paces[function] = chunks.pace


def _as_sequence(iterable: Iterable[Any]) -> Sequence[Any]:
    """The items, which nobody changes while they are submitted. A map reads its whole input first.
    Subclasses of list and tuple may iterate in a way of their own."""
    if type(iterable) is tuple or type(iterable) is range:
        return iterable
    return list(iterable)


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is None:
        return
    if not isinstance(chunksize, int):
        raise TypeError(f"Chunksize must be an integer, not {type(chunksize).__name__}")
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")


def _finish(
    core: _core.Pool, crew: Crew, submitting: Submitting, callbacks: CallbackThread
) -> None:
    """Wait until all work of a closed pool is done and its workers have exited."""
    for job in submitting.jobs():
        if isinstance(job, ImapJob):
            job.read_to_end()
    submitting.wait()
    core.join()
    callbacks.end()
    callbacks.join()
    crew.reap(10)


def _finalize(
    core: _core.Pool, crew: Crew, submitting: Submitting, callbacks: CallbackThread
) -> None:
    """Finalizer of a pool. Runs at interpreter exit, after terminate(), or when the pool is
    garbage-collected. Only in the last case do submitted tasks finish first."""
    if crew.terminated or util.is_exiting() or not _has_work(core):
        _terminate_pool(core, crew, submitting, callbacks)
        return
    at_exit = util.Finalize(
        None, _terminate_pool, args=(core, crew, submitting, callbacks), exitpriority=15
    )

    def finish() -> None:
        try:
            _stop_imaps(submitting)  # items that were not read yet were not submitted
            submitting.close(core.shut)
            _finish(core, crew, submitting, callbacks)
        finally:
            at_exit.cancel()

    try:
        threading.Thread(target=finish, name="allcores-finish", daemon=True).start()
    except (RuntimeError, MemoryError):
        at_exit()


def _stop_imaps(submitting: Submitting) -> None:
    for job in submitting.jobs():
        if isinstance(job, ImapJob):
            job.stop()


def _has_work(core: _core.Pool) -> bool:
    try:
        stat = core.stat()
    except RuntimeError:  # a forked child
        return False
    return stat["waiting"] + stat["running"] > 0


def _terminate_pool(
    core: _core.Pool, crew: Crew, submitting: Submitting, callbacks: CallbackThread
) -> None:
    """Cancel all calls, kill the workers, and wait for their exit, at most 10 seconds."""
    util.debug("terminating pool")
    crew.terminated = True
    core.terminate()
    _stop_imaps(submitting)
    submitting.clear()
    callbacks.end()
    core.join(10)
    crew.reap(1)

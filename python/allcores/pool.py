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
from ._forked_workers import ForkedWorkers, can_fork
from ._imap import ImapJob, IMapIterator, IMapUnorderedIterator
from ._jobs import CallJob, MapJob
from ._results import AsyncResult, JobResult, MapResult
from ._stdlib_pool import LikeStdlib, find_added_in
from ._stdlib_private import cut_into_tasks
from ._submitting import Submitting
from ._unfinished import Unfinished
from ._worker_processes import WorkerProcesses, make_process
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

        with allcores.Pool() as pool:
            print(pool.map(math.factorial, range(100)))

    processes, initializer, initargs, maxtasksperchild: see allcores.Pool. context: a context that
    says how processes are started (allcores.get_context("spawn")); None: the default.

    Functions, arguments and values are pickled on their way: functions must be importable by name
    (no lambdas). Arguments are pickled when they are submitted, in the calling thread; those of
    map_async bit by bit, in a thread of the pool. Values are unpickled when they are asked for. All
    methods may be called from any thread.

    No method waits for ever because something failed. These exceptions can come in the place of
    any call's value, beside those that its function raises:

        WorkerDied          the worker died during the call; it says how, and at what. Other calls
                            go on, and a new worker takes its place.
        MaybeEncodingError  what the function returned or raised cannot be pickled.
        MemoryError         there is no shared memory for the argument or the value.
        StartError          the initializer raised, or no worker can be started any more.
        TaskCancelled       the pool was terminated before the call had ended.
        BrokenPool          the pool's shared memory is damaged.

    A pool belongs to the process that made it: in a forked child its methods raise RuntimeError.
    A pool that is dropped does first what was submitted to it, in the background, and gives a
    ResourceWarning: end it by a with block, or by close and join.
    """

    _stdlib_name = "Pool"
    _state = INIT

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> BaseProcess:
        """Make the Process object of a worker: ctx.Process(*args, **kwds). Subclasses may override
        it.

        ctx: the pool's context. args, kwds: as for multiprocessing.Process.
        """
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
        find_added_in(Pool)
        self._processes = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._workers = self._make_workers()
        try:
            self._open(processes)
        except BaseException as error:  # also what a signal handler raises, in any line of it
            self._workers.stop(self.__dict__.get("_core"))
            raise advise(self._workers.failure or error) from None
        self._paces = _Paces()
        self._state = RUN

    def _open(self, processes: int) -> None:
        self._core = self._workers.open(processes, self._maxtasksperchild or 0, AsyncResult)
        self._submitting = Submitting()
        self._callbacks = CallbackThread(self._core, self._submitting)
        self._cache = Unfinished(self._core)
        self._terminate = util.Finalize(
            self,
            _finalize,
            args=(self._core, self._workers, self._submitting, self._callbacks),
            exitpriority=15,
        )

    def _make_workers(self) -> WorkerProcesses:
        make = functools.partial(
            make_process, self.Process, self._ctx, self._initializer, self._initargs
        )
        first = make()
        if can_fork(first[0]):
            return ForkedWorkers(make, first, self._initializer is not None)
        from ._started_workers import StartedWorkers  # here, since fork does not need it

        return StartedWorkers(make, first)

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
        # A forked child may leave the block, too, by sys.exit: it has no pool to terminate.
        if exc_type is None or os.getpid() == self._owner:
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
        return self._workers.processes

    @property
    def _taskqueue(self) -> Any:
        from ._task_queue import TaskQueue  # here, since most programs never need it

        return TaskQueue(self._core, self._cache, self._callbacks)

    @staticmethod
    def _get_tasks(func: Any, it: Iterable[Any], size: int) -> Any:
        return cut_into_tasks(func, it, size)

    def _repopulate_pool(self) -> None:
        """Do nothing: the engine replaces workers as soon as they exit."""

    # ---- single calls ----

    def apply(self, func: Callable[..., Any], args: Any = (), kwds: Any = {}) -> Any:
        """Call func(*args, **kwds) in a worker, and wait for its end.

        args, kwds: the arguments: an iterable, and a mapping with names as keys. Default: none.

        Returns what func returned.

        Raises:
            What func raised; WorkerDied and the others that the class lists.
            ValueError: the pool was closed or terminated.
            PicklingError, AttributeError, TypeError: func or an argument cannot be pickled.
            RuntimeError: this process is a forked child of the pool's.
        """
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
        """Submit the call func(*args, **kwds), and return at once.

        args, kwds: the arguments: an iterable, and a mapping with names as keys. Default: none.
        callback: called with the value when the call has ended; None: nothing is called.
        error_callback: called with the exception if the call failed.
            Callbacks run in one thread of the pool, one after the other, and before the result is
            ready: a slow one delays all others. What a callback raises is logged.

        Returns an AsyncResult, whose get() returns the value. Without callbacks a failure that
        nobody gets is logged when the result is dropped.

        Raises:
            ValueError: the pool was closed or terminated.
            RuntimeError: this process is a forked child of the pool's.
            All other failures, also of pickling, are the result's: get() raises them.
        """
        if callback is None and error_callback is None:
            if self._state != RUN:
                self._check_running()
            # The engine makes the check of the owner here.
            return self._core.submit(self, func, args, kwds)  # type: ignore[no-any-return]
        self._check_running()
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
        """Return the list [func(x) for x in iterable], computed in the workers.

        func: a function of one argument.
        iterable: the items. All are read before the first call.
        chunksize: how many items make one call to a worker. None: the pool measures how long items
            take, and chooses; with maxtasksperchild, as the standard library chooses.

        Returns the list of values, in the order of the items.

        Raises:
            What func raised; WorkerDied and the others that the class lists: the first failure
                that arrives, after all calls have ended. The other values are lost; with imap
                they are not.
            ValueError: the pool was closed or terminated, or chunksize is less than 1.
            TypeError: iterable cannot be iterated over.
            PicklingError, AttributeError, TypeError: func or an item cannot be pickled.
            RuntimeError: this process is a forked child of the pool's.
        """
        return self._map(func, iterable, False, chunksize)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Return the list [func(*x) for x in iterable], computed in the workers.

        func: a function.
        iterable: its arguments, an iterable for each call: [(1, 2), (3, 4)].
        chunksize: as in map.

        Returns the list of values, in the order of the items.

        Raises: as map; TypeError also where an item is not iterable.
        """
        return self._map(func, iterable, True, chunksize)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Submit a map, and return at once.

        func, iterable, chunksize: as in map. The items are read in this call.
        callback: called with the list of values when the map has ended; None: nothing is called.
        error_callback: called with the exception if the map failed.
            For both see apply_async.

        Returns a MapResult, whose get() returns the list of values.

        Raises:
            ValueError: the pool was closed or terminated, or chunksize is less than 1.
            TypeError: iterable cannot be iterated over.
            RuntimeError: this process is a forked child of the pool's.
            All other failures are the result's: get() raises them.
        """
        return self._map_async(func, iterable, False, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """Submit a starmap, and return at once.

        func, iterable, chunksize: as in starmap. The items are read in this call.
        callback, error_callback: as in map_async.

        Returns a MapResult, whose get() returns the list of values.

        Raises: as map_async.
        """
        return self._map_async(func, iterable, True, chunksize, callback, error_callback)

    def _map_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
    ) -> MapJob:
        self._check_running()
        size = _check_chunksize(chunksize)
        items = _as_sequence(iterable)
        chunks: GivenChunks | MeasuredChunks
        if not size and self._maxtasksperchild is None:
            chunks = MeasuredChunks(self._processes, self._paces.get(func))
        else:
            # maxtasksperchild counts calls, so with it chunks have the standard library's size.
            chunks = GivenChunks(size or nominal_size(len(items), self._processes))
        return MapJob(self._core, self._processes, func, items, star, chunks)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
    ) -> list[Any]:
        job = self._map_job(func, iterable, star, chunksize)
        if not job.is_complete():
            self._cache.add(job)
            self._drive(job)
            self._paces.note(func, job.chunks)
        success, value = job.outcome()
        if success:
            return value  # type: ignore[no-any-return]
        try:
            raise value
        finally:  # its traceback has this frame: keep no items until the next garbage collection
            del job, value

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
        if not job.is_empty:
            job.result = result
            self._cache.add(job)
            self._callbacks.map(job)
        return result

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Return an iterator over func(x) for x in iterable, computed in the workers.

        func: a function of one argument.
        iterable: the items. They are read a bounded number ahead of the values that were taken
            (50 ms of work; at least 64 items; at most 1024, or 16 MB), by another thread unless
            it is a list, a range or the like.
        chunksize: how many items make one call to a worker.

        Returns an IMapIterator, which gives the values in the order of the items. Where a call
        failed it raises the exception, and goes on with the next item, or with the next chunk
        where chunksize is above 1. What iterable raises comes after the values of the items before
        it, and ends the iteration.

        Raises:
            ValueError: the pool was closed or terminated, or chunksize is less than 1.
            RuntimeError: this process is a forked child of the pool's.
            All other failures come from the iterator.
        """
        return self._imap(func, iterable, chunksize, True)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator:
        """Return an iterator over func(x) for x in iterable, in the order in which the calls end.

        func, iterable, chunksize: as in imap.

        Returns an IMapUnorderedIterator. A failed call raises its exception when it has ended.

        Raises: as imap.
        """
        return self._imap(func, iterable, chunksize, False)

    def _imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        ordered: bool,
    ) -> IMapIterator:
        self._check_running()
        size = _check_chunksize(chunksize)
        chunk = 0 if size == 1 else size
        job = ImapJob(
            self._core, self._submitting, self._processes, func, iterable, chunk, ordered
        )
        self._cache.add(job)
        return (IMapIterator if ordered else IMapUnorderedIterator)(self, job)

    # ---- what the workers are doing ----

    def dump(self, file: Any = None) -> None:
        """Write what each worker is doing: its call, for how long, and its Python stack. For a pool
        that seems stuck. Takes one second at most.

        file: a text file, or any object with a method write(text); None: sys.stderr.

        Raises:
            What file.write raises.
            RuntimeError: this process is a forked child of the pool's.
        """
        from ._dump import describe_pool  # here, since most programs never need it

        self._check_owner()
        text = describe_pool(self._core, self._workers, self._processes)
        (file or sys.stderr).write(f"{self!r}\n{text}")

    # ---- ending ----

    def close(self) -> None:
        """Accept no more work. What was submitted is still done; then the workers exit. Returns at
        once; may be called again.

        Raises:
            RuntimeError: this process is a forked child of the pool's.
        """
        self._check_owner()
        if self._state == RUN:
            self._state = CLOSE
        if self._state == CLOSE:  # also when repeated after a Ctrl-C came between these lines
            self._submitting.close(self._core.shut)

    def terminate(self) -> None:
        """Stop now: kill the workers, and fail the calls that have not ended with TaskCancelled.
        Idle workers exit in the normal way; those that handle SIGTERM get that signal first, and
        are killed two seconds later. May be called again.

        Raises:
            RuntimeError: this process is a forked child of the pool's.
        """
        self._check_owner()
        self._state = TERMINATE
        self._workers.terminated = True
        # The engine first. The finalizer runs only once: if a Ctrl-C cut it short before it had
        # stopped the engine, workers would be replaced for ever.
        self._core.terminate()
        self._terminate()

    def join(self) -> None:
        """Wait until all work is done, all callbacks have returned and all workers have exited.
        Only after close or terminate; may be called again.

        Raises:
            ValueError: neither close nor terminate was called.
            RuntimeError: this process is a forked child of the pool's.
        """
        self._check_owner()
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self.close()
        _finish(self._core, self._workers, self._submitting, self._callbacks)


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
    """The items by number: a map reads its whole input first. Subclasses of list and tuple may
    iterate in a way of their own."""
    return iterable if type(iterable) in (list, tuple, range) else list(iterable)  # type: ignore[return-value]


CHUNK_MOST = 1 << 31  # items of a call


def _check_chunksize(chunksize: int | None) -> int:
    """The chunk size, 0 for None."""
    if chunksize is None:
        return 0
    if not isinstance(chunksize, int):
        raise TypeError(f"Chunksize must be an integer, not {type(chunksize).__name__}")
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
    return min(chunksize, CHUNK_MOST)


def _finish(
    core: _core.Pool, workers: WorkerProcesses, submitting: Submitting, callbacks: CallbackThread
) -> None:
    """Wait until all work of a closed pool is done and its workers have exited."""
    for job in submitting.jobs():
        if isinstance(job, ImapJob):
            job.read_to_end()
    submitting.wait()
    core.join()
    callbacks.end()
    callbacks.join()
    workers.reap(10)


def _finalize(
    core: _core.Pool, workers: WorkerProcesses, submitting: Submitting, callbacks: CallbackThread
) -> None:
    """Finalizer of a pool. Runs at interpreter exit, after terminate(), or when the pool is
    garbage-collected. Only in the last case do submitted tasks finish first."""
    if workers.terminated or util.is_exiting() or not _has_work(core):
        _terminate_pool(core, workers, submitting, callbacks)
        return
    at_exit = util.Finalize(
        None, _terminate_pool, args=(core, workers, submitting, callbacks), exitpriority=15
    )

    def finish() -> None:
        try:
            _stop_imaps(submitting)  # items that were not read yet were not submitted
            submitting.close(core.shut)
            _finish(core, workers, submitting, callbacks)
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
    core: _core.Pool, workers: WorkerProcesses, submitting: Submitting, callbacks: CallbackThread
) -> None:
    """Cancel all calls, kill the workers, and wait for their exit, at most 10 seconds."""
    util.debug("terminating pool")
    workers.terminated = True
    core.terminate()
    _stop_imaps(submitting)
    submitting.clear()
    callbacks.end()
    core.join(10)
    workers.reap(1)

# SPDX-License-Identifier: MIT
"""Pool: the interface of multiprocessing.Pool, over the engine of allcores."""

from __future__ import annotations

import atexit
import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from multiprocessing import get_context, util
from multiprocessing.process import BaseProcess
from types import FunctionType

from . import _core
from .chunks import GivenChunks, MeasuredChunks, nominal_size
from ._forked_workers import ForkedWorkers, can_fork
from ._worker_processes import WorkerProcesses, make_process
from .errors import advise
from .handler import Handler
from .imap import IMapIterator, IMapUnorderedIterator, Source
from .intake import Intake
from .results import AsyncResult, CallResult, MapResult, run_given

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from .results import Callback

    _Returned = TypeVar("_Returned")

__all__ = ["Pool", "ThreadPool"]

INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

PACES_MOST = 256

atexit.register(_core.forget)

ApplyResult = AsyncResult


def __getattr__(name: str) -> Any:
    """Other names of the standard library's module: ThreadPool, MaybeEncodingError..."""
    if name.startswith("__"):  # importlib asks for some: not worth importing the module
        raise AttributeError(name)
    from multiprocessing import pool

    return getattr(pool, name)


class _Unfinished(Mapping[int, object]):
    """Pool._cache: its length is the number of unfinished jobs. Of these it holds the jobs that
    consist of many calls; single calls are only counted."""

    def __init__(self, core: _core.Pool) -> None:
        self._core = core
        # Not a WeakSet: iterating over one fails when another thread adds to it.
        self._jobs: dict[int, weakref.ref[MapResult | Source]] = {}
        self._numbers = count()
        self._most = 16  # references; at that number the dead ones are removed

    def add(self, job: MapResult | Source) -> None:
        """Add a map, or the source of an imap."""
        if len(self._jobs) >= self._most:
            for number, reference in list(self._jobs.items()):
                if reference() is None:
                    self._jobs.pop(number, None)
            self._most = 2 * len(self._jobs) + 16
        self._jobs[next(self._numbers)] = weakref.ref(job)

    def _unfinished(self) -> list[MapResult | Source]:
        jobs = (reference() for reference in list(self._jobs.values()))
        return [job for job in jobs if job is not None and not job.is_finished()]

    def __getitem__(self, key: int) -> object:
        return self._unfinished()[key]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._unfinished())))

    def __len__(self) -> int:
        jobs = self._unfinished()
        stat = self._core.stat()
        single = stat["waiting"] + stat["running"] - sum(job.calls_under_way() for job in jobs)
        return max(single, 0) + len(jobs)


class Pool:
    """A pool of worker processes, with the methods and habits of multiprocessing.Pool.

    processes: the number of workers; None: as many processors as this process may use
    (allcores.cpus). initializer(*initargs) runs in each worker before its first call.
    maxtasksperchild: a worker is replaced after that many calls (a chunk counts as one).
    context: how processes are started.
    """

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
        self._paces: dict[object, float] = {}  # nanoseconds per item, by function
        self._state = RUN

    def _open(self, processes: int) -> None:
        self._core = self._crew.open(processes, self._maxtasksperchild or 0, AsyncResult)
        self._intake = Intake()
        self._handler = Handler(self._core, self._intake)
        self._cache = _Unfinished(self._core)
        self._terminate = util.Finalize(
            self,
            _finalize,
            args=(self._core, self._crew, self._intake, self._handler),
            exitpriority=15,
        )

    def _make_crew(self) -> WorkerProcesses:
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
        self.terminate()

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    # ---- private names of the standard library's pool that programs use ----

    @property
    def _pool(self) -> list[BaseProcess]:
        return self._crew.processes

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
        if self._state != RUN:
            raise ValueError("Pool not running")
        if callback is None and error_callback is None:
            return self._core.submit(self, func, args, kwds)  # type: ignore[no-any-return]
        result = CallResult(self, func, callback, error_callback)
        self._handler.call(result, func, args, kwds)
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

    def _make_map(
        self,
        func: Callable[..., Any],
        items: Sequence[Any],
        star: bool,
        chunksize: int | None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        # maxtasksperchild counts calls, so with it chunks have the standard library's size.
        nominal = chunksize or nominal_size(len(items), self._processes) or 1
        chunks: GivenChunks | MeasuredChunks
        if chunksize is None and self._maxtasksperchild is None:
            chunks = MeasuredChunks(self._processes, self._pace_of(func))
        else:
            chunks = GivenChunks(nominal, self._processes)
        return MapResult(
            self, self._processes, func, items, star, chunks, nominal, callback, error_callback
        )

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
    ) -> list[Any]:
        self._check_running()
        items = _as_sequence(iterable)
        _check_chunksize(chunksize)
        if not items:
            return []
        if chunksize is not None:
            size = chunksize
            return self._feed(object(), lambda: run_given(self._core, func, items, star, size))
        result = self._make_map(func, items, star, chunksize)
        self._cache.add(result)
        self._feed(result, lambda: result.run(self._core))
        self._remember_pace(func, result)
        return result.get()  # type: ignore[no-any-return]

    def _feed(self, feeder: object, run: Callable[[], _Returned]) -> _Returned:
        """Call run(), which goes on submitting work also after the pool was closed."""
        try:
            self._intake.enter(feeder)
            return run()
        finally:
            self._intake.forget(feeder)
            self._intake.leave(feeder)

    def _pace_of(self, func: Callable[..., Any]) -> float | None:
        return self._paces.get(func) if isinstance(func, FunctionType) else None

    def _remember_pace(self, func: Callable[..., Any], result: MapResult) -> None:
        """Keep the time per item as a first guess for the next map of this function."""
        if isinstance(func, FunctionType) and isinstance(result.chunks, MeasuredChunks):
            if len(self._paces) >= PACES_MOST:
                self._paces.clear()
            self._paces[func] = result.chunks.item_ns

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
        callback: Callback,
        error_callback: Callback,
    ) -> MapResult:
        self._check_running()
        items = _as_sequence(iterable)
        _check_chunksize(chunksize)
        result = self._make_map(func, items, star, chunksize, callback, error_callback)
        if items:
            self._cache.add(result)
            self._handler.map(result)
        return result

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """An iterator over the results, in the input's order. The input is read a bounded
        number of items ahead of the results that were taken."""
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """imap, with the results in the order in which they arrive."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize)

    def _imap(
        self,
        kind: type[IMapUnorderedIterator],
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
    ) -> Iterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        chunk = 0 if chunksize == 1 else chunksize
        source = Source(
            self._core, self._intake, self._processes, func, iterable, chunk
        )
        self._cache.add(source)
        results = kind(self, source)
        if chunksize == 1:
            return results
        return (item for chunk in results for item in chunk)

    # ---- what the workers are doing ----

    def dump(self, file: Any = None) -> None:
        """Write what each worker is doing to file (a text file; None: sys.stderr): its call, for
        how long it has run, and the worker's Python stack. For a pool that seems stuck. Takes
        one second at most."""
        from ._dump import describe_pool  # here, since most programs never need it

        text = describe_pool(self._core, self._crew, self._processes)
        (file or sys.stderr).write(f"{self!r}\n{text}")

    # ---- ending ----

    def close(self) -> None:
        """Accept no more work. The work that was submitted is done."""
        if self._state == RUN:
            self._state = CLOSE
        if self._state == CLOSE:  # also when repeated after a Ctrl-C came between these lines
            self._intake.close(self._core.shut)

    def terminate(self) -> None:
        """Stop now: unfinished calls fail with TaskCancelled, the workers are killed."""
        self._state = TERMINATE
        self._crew.terminated = True
        # The engine first. The finalizer runs only once: if a Ctrl-C cut it short before it had
        # stopped the engine, workers would be replaced for ever.
        self._core.terminate()
        self._terminate()

    def join(self) -> None:
        """Wait until all work is done, all callbacks have returned and all workers have exited.
        Only after close or terminate."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self.close()
        _finish(self._core, self._crew, self._intake, self._handler)


def _as_sequence(iterable: Iterable[Any]) -> Sequence[Any]:
    """The items as a sequence, of which slices can be taken. A map reads its whole input first."""
    return iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def _finish(core: _core.Pool, crew: WorkerProcesses, intake: Intake, handler: Handler) -> None:
    """Wait until all work of a closed pool is done and its workers have exited."""
    for feeder in intake.feeders():
        if isinstance(feeder, Source):
            feeder.read_to_end()
    intake.wait()
    core.join()
    handler.end()
    handler.join()
    crew.reap(10)


def _finalize(core: _core.Pool, crew: WorkerProcesses, intake: Intake, handler: Handler) -> None:
    """Finalizer of a pool. Runs at interpreter exit, after terminate(), or when the pool is
    garbage-collected. Only in the last case do submitted tasks finish first."""
    if crew.terminated or util.is_exiting() or not _has_work(core):
        _terminate_pool(core, crew, intake, handler)
        return
    at_exit = util.Finalize(
        None, _terminate_pool, args=(core, crew, intake, handler), exitpriority=15
    )

    def finish() -> None:
        try:
            _stop_sources(intake)  # items that were not read yet were not submitted
            intake.close(core.shut)
            _finish(core, crew, intake, handler)
        finally:
            at_exit.cancel()

    try:
        threading.Thread(target=finish, name="allcores-finish", daemon=True).start()
    except (RuntimeError, MemoryError):
        at_exit()


def _stop_sources(intake: Intake) -> None:
    for feeder in intake.feeders():
        if isinstance(feeder, Source):
            feeder.stop()


def _has_work(core: _core.Pool) -> bool:
    try:
        stat = core.stat()
    except RuntimeError:  # a forked child
        return False
    return stat["waiting"] + stat["running"] > 0


def _terminate_pool(core: _core.Pool, crew: WorkerProcesses, intake: Intake, handler: Handler) -> None:
    """Cancel all calls, kill the workers, and wait for their exit, at most 10 seconds."""
    util.debug("terminating pool")
    crew.terminated = True
    core.terminate()
    _stop_sources(intake)
    intake.clear()
    handler.end()
    core.join(10)
    crew.reap(1)

# SPDX-License-Identifier: MIT
"""Pool: the standard library's, over the engine of allcores."""

from __future__ import annotations

import atexit
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
from .crew import Crew
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
    """What else the standard library's module has: ThreadPool, MaybeEncodingError..."""
    if name.startswith("__"):  # importlib asks: not worth an import
        raise AttributeError(name)
    from multiprocessing import pool

    return getattr(pool, name)


class _Unfinished(Mapping[int, object]):
    """Pool._cache: how many jobs are unfinished; those that consist of many calls are in it."""

    def __init__(self, core: _core.Pool) -> None:
        self._core = core
        # Not a WeakSet, which can't be looked through while other threads add to it.
        self._jobs: dict[int, weakref.ref[MapResult | Source]] = {}
        self._numbers = count()
        self._most = 16  # then those that are gone are cleared away

    def add(self, job: MapResult | Source) -> None:
        """A map, or the source of an imap."""
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

    processes: how many; None: as many as this process may really use (allcores.cpus).
    initializer(*initargs) runs in each worker before its first call. maxtasksperchild:
    a worker is replaced after so many calls (a chunk counts as one). context: how
    processes are started.
    """

    _state = INIT

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> BaseProcess:
        """The process of a worker; subclasses may bring their own."""
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
        self._crew = Crew(self.Process, self._ctx, initializer, self._initargs)
        try:
            self._core = _core.Pool(processes, maxtasksperchild or 0, self._crew, AsyncResult)
        except BaseException as error:
            self._crew.stop()
            raise advise(self._crew.failure or error) from None
        self._intake = Intake()
        self._handler = Handler(self._core, self._intake)
        self._cache = _Unfinished(self._core)
        self._terminate = util.Finalize(
            self,
            _let_go,
            args=(self._core, self._crew, self._intake, self._handler),
            exitpriority=15,
        )
        self._paces: dict[object, float] = {}  # nanoseconds per item, by function
        self._state = RUN

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

    # ---- what programs reach into ----

    @property
    def _pool(self) -> list[BaseProcess]:
        return self._crew.processes

    def _repopulate_pool(self) -> None:
        """Nothing to do: the engine replaces workers as they end."""

    # ---- single calls ----

    def apply(self, func: Callable[..., Any], args: Any = (), kwds: Any = {}) -> Any:
        """func(*args, **kwds) in a worker: its value, or its exception, raised."""
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
        """func(*args, **kwds) in a worker; callback(value) or error_callback(exception)
        runs in a thread of the pool before the result is ready."""
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
        None: found by measuring."""
        return self._map(func, iterable, False, chunksize)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """[func(*x) for x in iterable], as map."""
        return self._map(func, iterable, True, chunksize)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback = None,
        error_callback: Callback = None,
    ) -> MapResult:
        """map that returns at once; callback(list) or error_callback(exception) runs in a
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
        """starmap that returns at once, as map_async."""
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
        # Recycling counts calls: where that is asked for, they are what they always were.
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
        self._remember(func, result)
        return result.get()  # type: ignore[no-any-return]

    def _feed(self, feeder: object, run: Callable[[], _Returned]) -> _Returned:
        """run(), which goes on handing in work also after the pool is closed."""
        try:
            self._intake.enter(feeder)
            return run()
        finally:
            self._intake.forget(feeder)
            self._intake.leave(feeder)

    def _pace_of(self, func: Callable[..., Any]) -> float | None:
        return self._paces.get(func) if isinstance(func, FunctionType) else None

    def _remember(self, func: Callable[..., Any], result: MapResult) -> None:
        """What a map's items took is a good guess for the next one."""
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
        """An iterator over the results in the input's order. The input is read a bounded
        distance ahead of what is used."""
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """imap, with results as they come."""
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

    # ---- seeing ----

    def dump(self, file: Any = None) -> None:
        """Write what each worker is at to file (a text file; None: sys.stderr): its call,
        for how long, and its Python stack. For a pool that seems stuck; takes a second at most."""
        from .dump import describe_pool  # most programs never ask

        text = describe_pool(self._core, self._crew, self._processes)
        (file or sys.stderr).write(f"{self!r}\n{text}")

    # ---- ending ----

    def close(self) -> None:
        """Take no more work. What was handed in is done."""
        if self._state == RUN:
            self._state = CLOSE
        if self._state == CLOSE:  # again, if a Ctrl-C came in between
            self._intake.close(self._core.shut)

    def terminate(self) -> None:
        """Stop now: unfinished calls fail with TaskCancelled, the workers are killed."""
        self._state = TERMINATE
        self._crew.over = True
        # First: a Ctrl-C in the finalizer uses that up, and the workers would be replaced for ever.
        self._core.terminate()
        self._terminate()

    def join(self) -> None:
        """Wait until all work is done, callbacks have returned and the workers are gone;
        after close or terminate."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self.close()
        _finish(self._core, self._crew, self._intake, self._handler)


def _as_sequence(iterable: Iterable[Any]) -> Sequence[Any]:
    """Something to cut slices of; read here, as a map always reads its whole input."""
    return iterable if isinstance(iterable, (list, tuple, range)) else list(iterable)


def _check_chunksize(chunksize: int | None) -> None:
    if chunksize is not None and chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def _finish(core: _core.Pool, crew: Crew, intake: Intake, handler: Handler) -> None:
    """Until all is done that a closed pool has promised, and its workers are gone."""
    for feeder in intake.feeders():
        if isinstance(feeder, Source):
            feeder.lift()
    intake.wait()
    core.join()
    handler.end()
    handler.join()
    crew.reap(10)


def _let_go(core: _core.Pool, crew: Crew, intake: Intake, handler: Handler) -> None:
    """At the interpreter's exit, when it was terminated, or dropped: then what was handed in is
    done first."""
    if crew.over or util.is_exiting() or not _has_work(core):
        _end(core, crew, intake, handler)
        return
    at_exit = util.Finalize(None, _end, args=(core, crew, intake, handler), exitpriority=15)

    def finish() -> None:
        try:
            _stop_sources(intake)  # what has not been read was not handed in
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


def _end(core: _core.Pool, crew: Crew, intake: Intake, handler: Handler) -> None:
    """Terminate."""
    util.debug("terminating pool")
    crew.over = True
    core.terminate()
    _stop_sources(intake)
    intake.clear()
    handler.end()
    core.join(10)
    crew.reap(1)

# SPDX-License-Identifier: MIT
"""Pool._taskqueue: tasks that a program hands to the pool as the standard library's pool does within.

The program puts a result of its own into Pool._cache, under the number of its job, and tasks that bear
this number into the queue. The callback thread passes what becomes of each task to the result's method
_set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import util

from . import _core
from ._driver import REFUSALS, CallbackThread, Driver
from ._jobs import FEED_BYTES, Job

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    from ._unfinished import Unfinished

    # Job, place in the job, function, args, kwds.
    Task = tuple[int, int, Callable[..., object], tuple[object, ...], dict[str, object]]
    # Called with the number of tasks once all have been read.
    SetLength = Callable[[int], object] | None

MOST = 1024  # tasks under way of one put


def _run_task(function: Callable[..., object], args: Any, kwds: Any) -> object:
    """In a worker."""
    return function(*args, **kwds)


class QueuedTasks(Job):
    """The tasks of one put. A thread of its own reads them, since their source may block."""

    def __init__(self, core: _core.Pool, cache: Unfinished, tasks: Iterable[Task]) -> None:
        self._cache = cache
        self._tasks = tasks
        self._encoded = core.function(_run_task)
        self._places: dict[int, tuple[int, int]] = {}  # of the tasks under way, by number
        self._length = 0  # tasks read
        self._ended = False

    def _calls(self) -> Iterator[tuple[Any, Any, Any]]:
        for job, place, function, args, kwds in self._tasks:
            self._places[self._length] = job, place
            self._length += 1
            yield function, args, kwds

    def read(self, driver: Driver, set_length: SetLength) -> None:
        """Read all tasks and submit them, a bounded number ahead of their results."""
        calls, first, more = self._calls(), 0, True
        try:
            while more:
                _, items, more = driver.stream.feed(
                    self, self._encoded, calls, first, 0, True, 0, False, 64, FEED_BYTES
                )
                first += items
                while len(self._places) > MOST:
                    time.sleep(0.001)
            if set_length is not None:
                set_length(self._length)
        except BaseException as error:
            self._report(error)
        self._ended = True
        driver.add(self)

    def _report(self, error: BaseException) -> None:
        if not isinstance(error, REFUSALS):
            util.get_logger().exception("reading the pool's task queue raised")
        for number in list(self._places):
            self._tell(number, False, error)

    def receive(self, rows: list[_core.Row]) -> None:
        """Pass the results on."""
        for first, _, failed, value, _, _ in rows:
            self._tell(first, not failed, value)

    def _tell(self, number: int, success: bool, value: object) -> None:
        job, place = self._places.pop(number, (None, 0))
        result: Any = self._cache.get(job) if job is not None else None
        if result is None:  # the program has removed it
            return
        try:
            result._set(place, (success, value))
        except BaseException:  # must not end the thread that runs callbacks
            util.get_logger().exception("%r raised", result)

    def fail_all(self, error: BaseException) -> None:
        """No more results will arrive."""
        self._report(error)
        self._ended = True

    def is_complete(self) -> bool:
        """Whether all have been read and have ended."""
        return self._ended and not self._places


class TaskQueue:
    """The object itself: it has a method put, and nothing else."""

    def __init__(self, core: _core.Pool, cache: Unfinished, callbacks: CallbackThread) -> None:
        self._core = core
        self._cache = cache
        self._callbacks = callbacks

    def put(self, item: tuple[Iterable[Task], SetLength]) -> None:
        """Run these tasks."""
        tasks, set_length = item
        job = QueuedTasks(self._core, self._cache, tasks)
        driver = self._callbacks.start(job)
        threading.Thread(
            target=job.read, args=(driver, set_length), name="allcores-tasks", daemon=True
        ).start()

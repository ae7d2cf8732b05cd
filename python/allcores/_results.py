# SPDX-License-Identifier: MIT
"""The results of apply_async and map_async."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from multiprocessing import TimeoutError

from . import _core
from ._interruptible import Gate
from ._stdlib_pool import LikeStdlib, made_by_hand
from .errors import TaskCancelled, is_a, is_worth_reporting, report_callback

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    from ._jobs import MapJob

    Callback = Callable[[Any], object] | None


class AsyncResult(LikeStdlib, _core.Task):
    """The result of one call, which Pool.apply_async returns.

        result = pool.apply_async(pow, (2, 10))
        print(result.get(timeout=60))

    A failure that nobody asked for is logged when the result is dropped.
    """

    _stdlib_name = "ApplyResult"

    def __new__(cls, *args: Any) -> Any:
        """AsyncResult(pool, callback, error_callback) makes the standard library's."""
        return made_by_hand("ApplyResult", *args) if cls is AsyncResult else super().__new__(cls)

    __class_getitem__: Any = classmethod(types.GenericAlias)


class JobResult(AsyncResult):
    """The result of a job: the thread that drives the job sets it. It is ready once its callback has
    returned."""

    def __init__(
        self, pool: object, function: object, callback: Callback, error_callback: Callback
    ) -> None:
        self._pool = pool  # keeps the pool alive as long as it has work
        self._function = function
        self._event = Gate()
        self._pid = os.getpid()
        self._callback = callback
        self._error_callback = error_callback
        self._success = False
        self._value: Any = None

    def ready(self) -> bool:
        """Return whether the work has ended, and its callback has returned."""
        return self._event.is_set() or self._await(0)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the work has ended. Whether it has, ready() says.

        timeout: for how many seconds to wait, at most; None: as long as it takes.

        Raises:
            ValueError: timeout is NaN.
            RuntimeError: as get.
        """
        self._await(timeout)

    def _await(self, timeout: float | None) -> bool:
        if not self._event.is_set() and os.getpid() != self._pid:
            raise RuntimeError("this result belongs to the process that asked for it")
        if timeout is not None and timeout != timeout:
            raise ValueError("timeout must not be NaN")
        return self._event.wait(timeout)

    def successful(self) -> bool:
        """Return whether the work ended without an exception.

        Raises:
            ValueError: it has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        self._unfetched = None
        return self._success

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the end of the work, and return its value.

        timeout: for how many seconds to wait, at most; None: as long as it takes.

        Raises:
            What the function raised; WorkerDied and the others that allcores.pool.Pool lists.
            TimeoutError (multiprocessing's): the work has not ended within timeout seconds. It
                goes on, and get may be called again.
            ValueError: timeout is NaN.
            RuntimeError: this process is a forked child of the pool's, and the result was not
                ready at the fork.
        """
        if not self._await(timeout):
            raise TimeoutError
        if self._success:
            return self._value
        self._unfetched = None
        raise self._value

    def _set_result(self, success: bool, value: Any) -> None:
        """Set the value, or the exception; run the callback; be ready."""
        self._success = success
        self._value = value
        callback = self._callback if success else self._error_callback
        self._callback = self._error_callback = None
        if not success and not callback and is_worth_reporting(value):
            self._unfetched = (self._pid, value, self._function)
        if callback and not (not success and is_a(value, TaskCancelled)):
            try:
                callback(value)
            except BaseException as error:  # even SystemExit must not end the thread of callbacks
                report_callback(callback, error)
        self._pool = None
        self._event.set()


class MapResult(JobResult):
    """The result of a map, which map_async and starmap_async return: an AsyncResult whose value is
    the list of values."""

    _stdlib_name = "MapResult"

    def __new__(cls, pool: object, job: object, *args: Any) -> Any:
        """MapResult(pool, chunksize, length, callback, error_callback) makes the standard library's."""
        if isinstance(job, int):
            return made_by_hand("MapResult", pool, job, *args)
        return super().__new__(cls)

    def __init__(
        self,
        pool: object,
        job: MapJob,
        function: object,
        callback: Callback,
        error_callback: Callback,
    ) -> None:
        super().__init__(pool, function, callback, error_callback)
        self._map: MapJob | None = job  # until it is complete: it holds the items
        self._chunksize = job.nominal_chunk  # or what the standard library would choose
        if job.is_empty:  # no callback, as in the standard library
            self._callback = None
            self._set_result(True, [])

    @property
    def _number_left(self) -> int:
        """Chunks without a result."""
        job = self._map
        return -(-job.outstanding // self._chunksize) if job else 0

    def _set_result(self, success: bool, value: Any) -> None:
        super()._set_result(success, value)
        self._map = None

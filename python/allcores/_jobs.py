# SPDX-License-Identifier: MIT
"""Jobs: what one call of a pool's method has to do.

A job knows what is to be submitted next, what has arrived, what has failed, and whether it is
complete. _driver.py drives jobs; one thread at a time calls a job. A new kind of call is a new kind
of job.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import _core
from ._chunk_sizes import GivenChunks, MeasuredChunks, nominal_size
from .errors import WorkerDied, describe, is_a

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    from ._results import JobResult

# Bytes of arguments that are submitted in one go.
FEED_BYTES = 16 << 20


def name_task(error: Any, function: object, items: range | None = None) -> None:
    """Add to a WorkerDied which function and items the worker ran, if it does not say so yet."""
    if is_a(error, WorkerDied) and error.task is None:
        error.task = describe(function)
        error.items = items


class Job:
    """The kinds are CallJob and MapJob here, ImapJob in _imap.py, QueuedTasks in _task_queue.py."""

    result: JobResult | None = None  # whom to tell that the job is complete
    calls = 0  # submitted, without a result so far

    def feed(self, stream: _core.Stream) -> None:
        """Submit what should be under way now. Raises what the pool refuses calls with."""

    def receive(self, rows: list[_core.Row]) -> None:
        """Take results of the job's calls: see Stream.take."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Nothing more can be submitted: fail what has not been."""

    def fail_all(self, error: BaseException) -> None:
        """Fail what is under way, too: no more results will arrive."""
        raise NotImplementedError

    def is_complete(self) -> bool:
        """Whether there is nothing more to submit and nothing under way."""
        raise NotImplementedError

    def outcome(self) -> tuple[bool, Any]:
        """Of a complete job: whether it succeeded; its value, or its exception."""
        raise NotImplementedError

    def calls_under_way(self) -> int:
        """The number of calls that were submitted and whose results have not arrived."""
        return self.calls

    def starved_for(self) -> float | None:
        """Workers have no work, while calls may have items that can be taken back: how many seconds to
        wait before that is done. None: that is not so."""
        return None

    def take_back(self, first: int, count: int) -> None:
        """These items were taken back from a call: submit them again."""

    def note_nothing_taken_back(self) -> None:
        """No call had items that could be taken back."""

    def finish(self) -> None:
        """The job is complete: tell whoever waits, and run the callback."""
        result, self.result = self.result, None
        if result is not None:
            result._set_result(*self.outcome())


class CallJob(Job):
    """One call, which has callbacks. The thread that makes it submits it, so it needs no driving."""

    calls = 1

    def __init__(self, function: object, result: JobResult) -> None:
        self._function = function
        self.result = result
        self._outcome: tuple[bool, Any] = False, None

    def receive(self, rows: list[_core.Row]) -> None:
        """Take the call's result, and finish."""
        ((_, _, failed, value, _, _),) = rows
        if failed:
            name_task(value, self._function)
        self._end(not failed, value)

    def fail_all(self, error: BaseException) -> None:
        """Fail the call."""
        self._end(False, error)

    def _end(self, success: bool, value: Any) -> None:
        self._outcome = success, value
        self.calls = 0
        self.finish()

    def is_complete(self) -> bool:
        """Whether the result is here."""
        return not self.calls

    def outcome(self) -> tuple[bool, Any]:
        """The call's."""
        return self._outcome


class MapJob(Job):
    """A map. Its items are cut into calls while it runs, and the values put together in order."""

    def __init__(
        self,
        core: _core.Pool,
        workers: int,
        function: Any,
        items: Sequence[Any],
        star: bool,
        chunks: GivenChunks | MeasuredChunks,
    ) -> None:
        self._workers = workers
        self._function = function
        self._encoded = core.function(function)
        self._items = items
        self._star = star
        self.chunks = chunks
        self.nominal_chunk = chunks.nominal or nominal_size(len(items), workers) or 1
        self._values: list[Any] = [None] * len(items)
        self._unsubmitted = [range(len(items))] if len(items) else []
        self.outstanding = len(items)  # items without a value or a failure
        self._failure: BaseException | None = None
        # No call had items to take back: do not search again until a result arrives.
        self._found_nothing = False
        self.is_empty = not len(items)
        if not self.is_empty:
            try:
                self._encoded.prepare()
            except Exception as error:  # else each call would meet it again
                self.fail(error)

    # ---- submitting ----

    def feed(self, stream: _core.Stream) -> None:
        """Submit calls until enough are under way."""
        while self._unsubmitted and (most := self.chunks.most(self.calls)):
            left = self._unsubmitted[-1]
            calls, items, _ = stream.feed(
                self,
                self._encoded,
                self._items,
                left.start,
                left.stop,
                self._star,
                0 if self.chunks.single else self.chunks.size(len(left)),
                self.chunks.divisible,
                most,
                FEED_BYTES,
            )
            self.calls += calls
            if not items:
                self.fail(RuntimeError("the list of items was shortened while they were submitted"))
            elif items < len(left):
                self._unsubmitted[-1] = left[items:]
            else:
                self._unsubmitted.pop()

    def fail(self, error: BaseException) -> None:
        """Fail the items that are not under way."""
        if self._failure is None:
            self._failure = error
        self.outstanding -= sum(map(len, self._unsubmitted))
        self._unsubmitted.clear()

    def fail_all(self, error: BaseException) -> None:
        """Fail all items."""
        self.fail(error)
        self.calls = self.outstanding = 0

    # ---- results ----

    def receive(self, rows: list[_core.Row]) -> None:
        """Take results: values, lists of values, exceptions."""
        if self.chunks.single:
            self._receive_single(rows)
        else:
            self._receive_chunks(rows)
        self.calls -= len(rows)
        self._found_nothing = False

    def _receive_single(self, rows: list[_core.Row]) -> None:
        values = self._values
        for first, _, failed, value, _, _ in rows:
            if failed:
                self._note_failure(value, range(first, first + 1))
            else:
                values[first] = value
        self.outstanding -= len(rows)

    def _receive_chunks(self, rows: list[_core.Row]) -> None:
        for first, count, failed, value, elapsed_ns, outside_ns in rows:
            self.outstanding -= count
            if failed:
                self._note_failure(value, range(first, first + count))
            else:
                self._values[first : first + count] = value
                self.chunks.learn(count, elapsed_ns, outside_ns)

    def _note_failure(self, error: BaseException, items: range) -> None:
        if self._failure is None:
            name_task(error, self._function, items)
            self._failure = error

    def is_complete(self) -> bool:
        """Whether every item has a value or has failed."""
        # Below 0: a feed was refused after it had submitted items, which were failed with the rest.
        return self.outstanding <= 0

    def outcome(self) -> tuple[bool, Any]:
        """All values in order, or the first failure."""
        if self._failure is not None:
            return False, self._failure
        return True, self._values

    # ---- items that take longer than expected ----

    def starved_for(self) -> float | None:
        """How long to wait before items are taken back; None: workers have work."""
        if (
            self.chunks.divisible
            and not self._found_nothing
            and not self._unsubmitted
            and 0 < self.calls < self._workers
        ):
            return self.chunks.patience
        return None

    def take_back(self, first: int, count: int) -> None:
        """Submit these items again."""
        self._unsubmitted.append(range(first, first + count))
        if isinstance(self.chunks, MeasuredChunks):
            self.chunks.distrust()

    def note_nothing_taken_back(self) -> None:
        """Do not search again until a result arrives."""
        self._found_nothing = True

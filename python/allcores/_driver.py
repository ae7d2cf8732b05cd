# SPDX-License-Identifier: MIT
"""Driving jobs over a stream of the engine; the one thread of a pool that drives those for which no
thread waits."""

from __future__ import annotations

import threading
from collections import deque
from multiprocessing import ProcessError

from . import _core
from ._interruptible import in_slices
from ._jobs import CallJob, Job, MapJob
from ._submitting import Submitting
from .errors import TaskCancelled

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

# The exceptions by which the pool refuses a call. Any other exception of a submission may be the
# user's: a signal handler raised it.
REFUSALS = (ProcessError, MemoryError)


class Driver:
    """Submits what jobs have next, hands them their results, and finishes those that are complete.

    Other threads add jobs. Apart from that one thread drives: the one that called Pool.map, the
    pool's callback thread, or whoever takes an imap's results.
    """

    def __init__(self, stream: _core.Stream, submitting: Submitting) -> None:
        self.stream = stream
        self._submitting = submitting
        self._added: deque[Job] = deque()
        self._jobs: set[Job] = set()  # those that have been added and are not complete

    def add(self, job: Job) -> None:
        """Drive this job, too. Any thread."""
        self._added.append(job)
        self.stream.wake()

    def run(self, until: Job | None = None) -> None:
        """Drive until this job is complete; None: until the stream was ended."""
        self._begin_added()
        while not (until and until.is_complete()) and self.step():
            self._begin_added()

    def _begin_added(self) -> None:
        while self._added:
            job = self._added.popleft()
            self._jobs.add(job)
            self._advance(job)

    def step(self, timeout: float | None = None) -> bool:
        """Wait for results, at most timeout seconds, and hand them out. False: the stream was ended,
        and all results have been taken."""
        waits = [wait for job in self._jobs if (wait := job.starved_for()) is not None]
        batches = self.stream.take(min(waits, default=timeout))
        if batches is None:
            return False
        for job, rows in batches:
            job.receive(rows)
            if job in self._jobs:
                self._advance(job)
        if waits and not batches:
            self._take_back()
        return True

    def _advance(self, job: Job) -> None:
        try:
            job.feed(self.stream)
        except REFUSALS as error:
            job.fail(error)
        if job.is_complete():
            self._jobs.discard(job)
            job.finish()
            self._submitting.leave(job)

    def _take_back(self) -> None:
        found = set()
        while (taken := self.stream.take_back()) is not None:
            job, first, count = taken
            job.take_back(first, count)
            found.add(job)
        for job in list(self._jobs):
            if job in found:
                self._advance(job)
            else:
                job.note_nothing_taken_back()

    def fail_all(self, error: BaseException) -> None:
        """The stream has failed: fail all jobs, usually none."""
        for job in {*self._added, *self._jobs, *self.stream.jobs()}:
            job.fail_all(error)
            if job in self._jobs or job in self._added:
                job.finish()
            self._submitting.leave(job)
        self.stream.close()


class CallbackThread:
    """The thread that runs callbacks: it drives map_async's jobs and calls that have callbacks.

    It starts with the first of them. It has no reference to the pool but through results, which keep
    their pool alive until they are ready.
    """

    def __init__(self, core: _core.Pool, submitting: Submitting) -> None:
        self._core = core
        self._submitting = submitting
        # Guards the two below, and that no job is added to a driver that has failed. Reentrant: see
        # Submitting.
        self._lock = threading.RLock()
        self._driver: Driver | None = None
        self._thread: threading.Thread | None = None

    def _start_once(self) -> Driver:
        """Under the lock."""
        if self._driver is None:
            driver = Driver(self._core.stream(), self._submitting)
            thread = threading.Thread(
                target=self._run, args=(driver,), name="allcores-callbacks", daemon=True
            )
            if self._driver is not None:  # a garbage collection made a call meanwhile
                return self._driver
            self._driver, self._thread = driver, thread
            try:
                _core.undisturbed(thread.start)
            except BaseException:  # keep no stream whose results no thread takes
                self._driver = self._thread = None
                driver.stream.close()
                raise
        return self._driver

    def call(self, job: CallJob, function: Any, args: Any, kwds: Any) -> None:
        """Submit one call, whose job the thread will finish."""
        with self._lock:
            driver = self._start_once()
        try:
            driver.stream.push_call(job, function, args, kwds)  # runs user code: not under the lock
        except TaskCancelled:  # the pool was closed after its state was checked
            raise ValueError("Pool not running") from None
        except REFUSALS as error:
            driver.stream.fail(job, 0, error)
        except ValueError:
            if self._driver is driver:
                raise
            self.call(job, function, args, kwds)  # the driver has failed meanwhile: begin anew

    def start(self, job: Job) -> Driver:
        """Drive a job that another thread submits. Return what drives it."""
        with self._lock:
            driver = self._start_once()
            self._submitting.enter(job)
            return driver

    def finish(self, job: Job, driver: Driver) -> None:
        """A job of start() has submitted everything."""
        with self._lock:
            if self._driver is driver:
                driver.add(job)
                return
        self._submitting.leave(job)  # the driver has failed, and all calls that it had

    def map(self, job: MapJob) -> None:
        """Drive a map to its end."""
        try:
            with self._lock:
                driver = self._start_once()
                self._submitting.enter(job)
                driver.add(job)
        except BaseException:  # a signal handler's: the user will not get this job's result
            self._submitting.forget(job)
            raise

    def end(self) -> None:
        """Say that nothing more will be submitted."""
        if self._driver:
            self._driver.stream.end()

    def join(self) -> None:
        """Wait until the last callback has returned. In a callback: return at once."""
        if self._thread and self._thread is not threading.current_thread():
            in_slices(self._join_thread)

    def _join_thread(self, timeout: float | None) -> bool:
        assert self._thread
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, driver: Driver) -> None:
        # Of a job that was added when the pool was terminated already.
        error: BaseException = TaskCancelled("the pool was terminated before this had ended")
        try:
            driver.run()
        except BaseException as failure:  # the pool takes no more work, or there is no memory
            error = failure
        with self._lock:
            self._driver = None  # the next call begins anew, and learns the reason
        driver.fail_all(error)

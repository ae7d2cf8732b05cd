# SPDX-License-Identifier: MIT
"""imap: results one by one. The input is read a bounded number of items ahead of them."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import TimeoutError
from os import getpid, register_at_fork

from . import _core
from ._driver import REFUSALS, Driver
from ._jobs import FEED_BYTES, Job, name_task
from ._stdlib_pool import LikeStdlib, made_by_hand
from ._submitting import Submitting
from .errors import FORKED, TaskCancelled, WorkerDied, is_a

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

# Types of inputs that never block: the thread that takes the results reads these itself. Not their
# subclasses, which may iterate in a way of their own.
NEVER_BLOCKING = {list, tuple, range, str, bytes, dict, set, frozenset}

AHEAD_LEAST = 64  # calls submitted ahead of the results that were taken
AHEAD_MOST = 1024
AHEAD_SECONDS = 0.05  # the work to read ahead, at the rate at which results arrive
DISCARD_MOST = 256  # calls under way whose results nobody takes


_jobs: weakref.WeakSet[ImapJob] = weakref.WeakSet()


def _forget_results() -> None:
    """Runs in a forked child. The results are its parent's: whoever asks for them gets an error."""
    for job in _jobs:
        job.ready.clear()


register_at_fork(after_in_child=_forget_results)


class ImapJob(Job):
    """One imap: reads its input, one thread at a time, and keeps results until they are taken.

    function, iterable: the user's. chunk: items of a call; 0: one, and no list of one. ordered:
    results come in the input's order.
    """

    def __init__(
        self,
        core: _core.Pool,
        submitting: Submitting,
        workers: int,
        function: Any,
        iterable: Iterable[Any],
        chunk: int,
        ordered: bool,
    ) -> None:
        self._function = function
        self._encoded = core.function(function)
        self.chunk = chunk
        self.driver = Driver(core.stream(), submitting)
        self.stream = self.driver.stream
        self._submitting = submitting
        self._position = 0  # of the next item in the input
        self._submitted = 0  # calls
        self.used = 0  # results that the user has taken
        self.ready: deque[_core.Row] = deque()
        self._early: dict[int, _core.Row] | None = {} if ordered else None
        self._awaited = 0  # ordered: the item whose result comes next
        self._since = time.perf_counter()
        self._failure: BaseException | None = None  # why the input was not read to its end
        self._least = max(AHEAD_LEAST, 4 * workers)
        self._ahead = self._least
        self._unbounded = self._discards = self._ended = self._stopped = False
        # Has the key "reader" while a thread reads. No thread waits for another one to have read:
        # user code runs meanwhile.
        self._readers: dict[str, object] = {}
        self._missed = False  # another thread wanted to read meanwhile
        self.waiting: set[int] = set()  # threads that wait for results
        self._lock = threading.RLock()  # reentrant: see Submitting
        self._may_read = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self.pid = getpid()  # of the pool's owner
        _jobs.add(self)
        try:
            submitting.enter(self)
            self._begin(iterable)
        except BaseException:  # raised by a signal handler: the user will not get this object
            self._end()
            raise

    def _begin(self, iterable: Iterable[Any]) -> None:
        try:
            self._iterator = iter(iterable)
        except Exception as error:
            self._fail(error)
            self._end()
            return
        if type(iterable) in NEVER_BLOCKING:
            self._read()
        else:
            self._start_thread()

    def is_complete(self) -> bool:
        """Whether all items have been read and all results have arrived."""
        return self._ended and not self.stream.under_way

    def calls_under_way(self) -> int:
        """The number of calls that were submitted and whose results have not arrived."""
        return self.stream.under_way

    # ---- how far ahead ----

    def _calls_to_submit(self) -> int:
        """How many more calls may be submitted now."""
        if self._discards:
            return self._discard_limit()
        if self._unbounded:
            return AHEAD_MOST
        return self._ahead - (self._submitted - self.used)

    def _calls_that_fit(self) -> int:
        """How many calls fit into the bytes that may be under way."""
        return max(FEED_BYTES // max(self.stream.weight, 1), 2)

    def _discard_limit(self) -> int:
        """How many calls may be under way whose results nobody takes."""
        return min(DISCARD_MOST, self._calls_that_fit())

    def _note_rate(self, results: int) -> None:
        """Choose how far to read ahead, from the number of results that arrived since the last."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        ahead = int(results / seconds * AHEAD_SECONDS) if seconds > 0 else AHEAD_MOST
        self._ahead = min(max(ahead, self._least), self._calls_that_fit(), AHEAD_MOST)

    def feed(self, stream: _core.Stream) -> None:
        """The user has taken results: read more items, or let the thread read them."""
        while self._has_room():
            if self._thread is not None:
                with self._lock:
                    self._may_read.notify()
                return
            self._read()
            if self._readers or not self._missed:
                return  # a thread that reads at this moment will read on for this one, too
            self._missed = False

    def _has_room(self) -> bool:
        return not self._ended and self._calls_to_submit() >= self._ahead // 2

    # ---- reading ----

    def _read(self) -> None:
        """Read and submit as many items as may be read now, if no other thread is doing so: that one
        reads on for this thread, too. Nor may what this thread pickles read from here."""
        me = object()
        try:
            if self._readers.setdefault("reader", me) is not me:
                self._missed = True
                return
            if not self._ended and not self._read_some():
                self._end()
            self._readers.clear()
        except BaseException as error:
            self._readers.clear()
            # What the inputs raise that the user's thread reads is a result, so any other exception
            # comes from a signal handler.
            if is_a(error, *REFUSALS) or self._thread is threading.current_thread():
                self._fail(error)
                self._end()
                return
            self._fail(TaskCancelled("an exception came when the input was read"))
            self._end()
            raise

    def _read_some(self) -> bool:
        """Read items and submit them. False: the input is at its end."""
        calls, items, more = self.stream.feed(
            self,
            self._encoded,
            self._iterator,
            self._position,
            0,
            False,
            self.chunk,
            False,
            self._calls_to_submit(),
            FEED_BYTES,
        )
        self._submitted += calls
        self._position += items
        return more

    def _fail(self, error: BaseException) -> None:
        """The input will not be read to its end: say so behind the last result."""
        if self._failure is None:
            self._failure = error

    def failure(self) -> BaseException | None:
        """Why there are no more results; None: because all have been taken. Only once, but for a
        cancelled one."""
        failure = self._failure
        if not is_a(failure, TaskCancelled):
            self._failure = None
        return failure

    def _end(self) -> None:
        self._ended = True
        self.stream.end()
        self._submitting.leave(self)

    # ---- results ----

    def receive(self, rows: list[_core.Row]) -> None:
        """Keep results until the user takes them, in whatever thread they arrive."""
        if self._discards:
            return
        with self._lock:
            self._note_rate(len(rows))
            if self._early is None:
                self.ready.extend(rows)
                return
            for row in rows:
                self._early[row[0]] = row
            self._pass_on()

    def _pass_on(self) -> None:
        """Ordered: the results whose turn it is are ready."""
        while self._early and (row := self._early.pop(self._awaited, None)) is not None:
            self.ready.append(row)
            self._awaited += row[1]

    def wait(self, timeout: float | None) -> bool:
        """Wait for results, at most timeout seconds. False: there are no more."""
        me = threading.get_ident()
        try:
            self.waiting.add(me)
            if self._skip_lost():
                return True
            more = self.driver.step(timeout)
            if len(self.ready) > 1 and len(self.waiting) > 1:
                self.stream.wake()  # another thread, which waits for results that are here now
            return more
        finally:
            self.waiting.discard(me)

    def _skip_lost(self) -> bool:
        """A signal handler's exception may have come when a thread had just taken results. Go on with
        those behind them. Whether there are results now."""
        position, submitted = self._position, self._submitted  # before the look at under_way
        if self.stream.under_way or self.ready:
            return bool(self.ready)  # another thread may have noted them since the caller looked
        self.driver.step(0.0)  # a call that could not be submitted is not under way
        with self._lock:
            if not (self.stream.under_way or self.ready or len(self.waiting) > 1):
                self.used = max(self.used, submitted)
                self._awaited = min(self._early or (max(self._awaited, position),))
                self._pass_on()
        self.feed(self.stream)
        return bool(self.ready)

    def name_task(self, error: object, items: range) -> None:
        """Add to a WorkerDied which function and items the worker ran."""
        name_task(error, self._function, items)

    # ---- when nobody takes results ----

    def read_to_end(self) -> None:
        """Read the whole input: the pool is being joined and waits for it."""
        with self._lock:
            self._unbounded = True
            self._may_read.notify()
        if not self._ended:
            self._start_thread()

    def discard_results(self) -> None:
        """The user has dropped the iterator: read the whole input and discard the results."""
        if getpid() != self.pid:
            return  # a forked child, where a lock that was held at the fork stays held
        with self._lock:
            self._unbounded = self._discards = True
            self._may_read.notify()
        if self._stopped or sys.is_finalizing() or self.is_complete():
            return
        try:
            self._start_thread()
        except (RuntimeError, MemoryError):
            pass  # Pool.join will read the input

    def stop(self) -> None:
        """The pool is terminated: read no more items."""
        with self._lock:
            self._stopped = True
        # Not under the lock: where a thread leaves, a garbage collection may drop this iterator.
        if not self._ended:
            self._fail(TaskCancelled("the pool was terminated before the input's end"))
            self._end()
        with self._lock:
            self._may_read.notify()

    # ---- the thread that reads an input that may block ----

    def _start_thread(self) -> None:
        """If there is none. Not under the lock: the collector may run in the thread that starts it, and
        may find the iterator there."""
        thread = threading.Thread(target=self._run, name="allcores-imap", daemon=True)
        try:
            with self._lock:
                if self._thread is not None:
                    return
                self._thread = thread
            _core.undisturbed(thread.start)
        except BaseException:  # the next call tries again
            if self._thread is thread:
                self._thread = None
            raise

    def _run(self) -> None:
        # Else a Ctrl-C came, and the starting thread gave this one up.
        while self._thread is threading.current_thread():
            if not self._ended:
                self._read()
            if self._missed:  # a thread of the user's is reading
                self._missed = False
                time.sleep(0.001)
                continue
            with self._lock:
                self._may_read.wait_for(
                    lambda: self._ended
                    or self._unbounded
                    or self._calls_to_submit() > self._ahead // 2
                )
                if self._ended and not self._discards:
                    self._thread = None
                    return
            if self._discards and not self._discard():
                return

    def _discard(self) -> bool:
        """Take results that nobody needs until few calls are under way. False: all are taken."""
        while self._ended or self.stream.under_way > self._discard_limit():
            try:
                if self.stream.take(None, 16) is None:
                    return False
            except Exception:  # the pool has been terminated
                return False
        return True


class IMapIterator(LikeStdlib):
    """The values of Pool.imap, in the order of the items.

        for value in pool.imap(work, items):
            print(value)

    A failed call raises its exception in its turn; the next value comes after it. An iterator that
    is dropped has its remaining calls made, and their values discarded.
    """

    _stdlib_name = "IMapIterator"

    def __new__(cls, pool: Any, job: ImapJob | None = None) -> Any:
        """IMapIterator(pool) makes the standard library's."""
        return super().__new__(cls) if job else made_by_hand(cls.__name__, pool)

    def __init__(self, pool: object, job: ImapJob) -> None:
        self._pool = pool  # keeps the pool alive until the last result has arrived
        self._imap = job
        self._closed = False
        self._values: deque[Any] = deque()  # of chunks that have arrived: any thread takes one

    def __iter__(self) -> Iterator[Any]:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Wait for the next value, and return it.

        timeout: for how many seconds to wait, at most; None: as long as it takes.

        Raises:
            What the function raised for this item; WorkerDied and the others that
                allcores.pool.Pool lists.
            StopIteration: there are no more values.
            TimeoutError (multiprocessing's): none came within timeout seconds; next may be called
                again.
            TaskCancelled: the pool was terminated before the input's end.
            ValueError: timeout is NaN.
        """
        while self._values:
            try:
                return self._values.popleft()
            except IndexError:  # another thread has taken the last one
                pass
        job = self._imap
        while True:
            try:
                first, count, failed, value, _, _ = job.ready.popleft()
                break
            except IndexError:
                pass
            self._await(timeout)
        job.used += 1
        if not job.used & 15:
            job.feed(job.stream)
        if failed:
            if job.chunk and not is_a(value, WorkerDied):
                self.close()  # as in the standard library
            job.name_task(value, range(first, first + count))
            try:
                raise value
            finally:  # its traceback has this frame, and so this iterator
                del value
        if not job.chunk:
            return value
        self._values.extend(value[1:])
        return value[0]

    __next__ = next

    def close(self) -> None:
        """Give no more values: the remaining calls are made, and their values discarded."""
        self._pool = None
        self._closed = True
        self._values.clear()
        self._imap.discard_results()
        self._imap.ready.clear()

    def __del__(self) -> None:
        job = getattr(self, "_imap", None)
        if job is not None:
            job.discard_results()

    def _await(self, timeout: float | None) -> None:
        """Wait for results. Raises where there is none."""
        job = self._imap
        if getpid() != job.pid:
            raise RuntimeError(FORKED)
        if self._closed:
            raise StopIteration
        job.feed(job.stream)
        end = None if timeout is None else time.monotonic() + timeout
        while not job.ready:
            left = None if end is None else max(end - time.monotonic(), 0.0)
            if not job.wait(left) and not job.ready:
                self._pool = None
                raise job.failure() or StopIteration
            if left == 0.0 and not job.ready:
                raise TimeoutError


class IMapUnorderedIterator(IMapIterator):
    """The values of Pool.imap_unordered, in the order in which the calls end."""

    _stdlib_name = "IMapUnorderedIterator"

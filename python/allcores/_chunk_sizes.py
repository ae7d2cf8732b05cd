# SPDX-License-Identifier: MIT
"""How many items one call of a map gets."""

from __future__ import annotations

CALLS_MOST = 512  # under way at a time, of a map whose chunk size is given
BATCH = 256  # of those, pushed at a time


def nominal_size(items: int, workers: int) -> int:
    """The chunk size that the standard library chooses: a quarter of a worker's share."""
    size, extra = divmod(items, workers * 4)
    return size + 1 if extra else size


class GivenChunks:
    """Chunks of a size that the user gave."""

    divisible = False
    patience = 0.0

    def __init__(self, size: int) -> None:
        # A call of one item carries the item, not a list of one.
        self.single = size == 1
        self.nominal = self._size = size

    def most(self, under_way: int) -> int:
        """How many calls to submit now."""
        return BATCH if under_way <= CALLS_MOST - BATCH else 0

    def size(self, remaining: int) -> int:
        """How many of the remaining items the next call gets."""
        return self._size

    def learn(self, items: int, elapsed_ns: int, outside_ns: int) -> None:
        """Do nothing: the size is given."""


class MeasuredChunks:
    """Chunks of a measured size: long compared with the overhead of a call, short compared with the
    work that is left, so that all workers finish at about the same time.

    What a call costs beside its items has two parts: one for each item, and a fixed one (a large object
    that its items share, the data of a bound method). The fixed part may be a quarter of the rest, an
    eighth if possible.

    If items take longer than expected, those not begun are taken back from the call.
    """

    divisible = True
    single = False
    nominal = 0  # no size was given
    TARGET_NS = 1_000_000
    GROWTH = 16  # a call gets at most so many times the items of the largest call measured
    SHARE_MOST, SHARE_WANTED = 4, 8

    def __init__(self, workers: int, item_ns: float | None = None) -> None:
        """item_ns: how long an item of the last map of this function took, if known."""
        self._calls_most = 2 * workers + 1
        self._workers = workers
        self.item_ns = item_ns or 0.0
        # The largest call measured, in items.
        self._known = 0 if item_ns is None else int(self.TARGET_NS / max(item_ns, 1.0))
        # Beside the items: the largest call measured, in items and nanoseconds, and the two parts.
        self._outside = (0, 0.0)
        self._outside_item_ns = self._fixed_ns = 0.0

    def most(self, under_way: int) -> int:
        """How many calls to submit now."""
        return 1 if under_way < self._calls_most else 0

    def size(self, remaining: int) -> int:
        """How many of the remaining items the next call gets."""
        share = -(-remaining // (2 * self._workers))
        if not self._known:
            return share if self._fixed_ns > self.TARGET_NS else 1
        item_ns = max(self.item_ns + self._outside_item_ns, 1.0)
        wanted = max(self.TARGET_NS, self.SHARE_WANTED * self._fixed_ns) / item_ns
        least = self.SHARE_MOST * self._fixed_ns / item_ns
        size = min(max(min(wanted, share), least), self._known * self.GROWTH)
        return max(1, min(int(size), remaining))

    def learn(self, items: int, elapsed_ns: int, outside_ns: int) -> None:
        """Learn from a call: items took elapsed_ns together, all else outside_ns."""
        if not items:
            return
        measured = elapsed_ns / items
        # A call with more items than all before replaces the average: the first items were slow
        # because of imports and cold caches.
        self.item_ns = (self.item_ns + measured) / 2 if self._known >= items else measured
        self._known = max(self._known, items)
        self._learn_outside(items, outside_ns)

    def _learn_outside(self, items: int, outside_ns: float) -> None:
        """Two calls of different sizes tell the fixed part. Before, it is all of a call of one item."""
        before, before_ns = self._outside
        if items < before or not outside_ns:
            return
        if items == before:
            outside_ns = min(outside_ns, before_ns)
        fixed_ns = outside_ns
        if before and items > before:
            fixed_ns -= (outside_ns - before_ns) / (items - before) * items
            # A smaller part of it may be noise.
            self._fixed_ns = fixed_ns if 2 * fixed_ns > outside_ns else 0.0
        elif not before and items == 1:
            self._fixed_ns = fixed_ns
        self._outside_item_ns = max(outside_ns - self._fixed_ns, 0.0) / items
        self._outside = items, outside_ns

    def distrust(self) -> None:
        """Items were taken back, so they take longer than was measured: measure again."""
        self.item_ns = 0.0
        self._known = 0

    @property
    def patience(self) -> float:
        """Seconds for which workers may have no work before items are taken back from a call: its
        worker may be decoding them, and they would be sent and decoded once more."""
        return max(self.TARGET_NS, 2 * self._outside[1]) / 1e9

    @property
    def pace(self) -> float | None:
        """Nanoseconds per item, a first guess for the next map of this function; None: not known."""
        return self.item_ns if self._known else None

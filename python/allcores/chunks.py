# SPDX-License-Identifier: MIT
"""How many items one call of a map gets."""

from __future__ import annotations


def nominal_size(items: int, workers: int) -> int:
    """The chunk size that the standard library chooses: a quarter of a worker's share."""
    size, extra = divmod(items, workers * 4)
    return size + 1 if extra else size


class GivenChunks:
    """Chunks of a size that the user gave."""

    divisible = False

    def __init__(self, size: int, workers: int) -> None:
        self.window = max(64, 4 * workers)
        self._size = size

    def size(self, remaining: int) -> int:
        """How many of the remaining items the next call gets."""
        return self._size

    def learn(self, items: int, elapsed_ns: int) -> None:
        """Do nothing: the size is given."""


class MeasuredChunks:
    """Chunks of a measured size: long compared with the overhead of a call, short compared with the
    work that is left, so that all workers finish at about the same time.

    If items take longer than expected, those not begun are taken back from the call.
    """

    divisible = True
    TARGET_NS = 1_000_000
    GROWTH = 16  # a call gets at most so many times the items of the largest call measured

    def __init__(self, workers: int, item_ns: float | None = None) -> None:
        """item_ns: how long an item of the last map of this function took, if known."""
        self.window = 2 * workers + 1
        self._workers = workers
        self.item_ns = item_ns or 0.0
        # The largest call measured, in items.
        self._known = 0 if item_ns is None else int(self.TARGET_NS / max(item_ns, 1.0))

    def size(self, remaining: int) -> int:
        """How many of the remaining items the next call gets."""
        if not self._known:
            return 1
        fits = self.TARGET_NS / max(self.item_ns, 1.0)
        share = -(-remaining // (2 * self._workers))
        return max(1, min(int(fits), self._known * self.GROWTH, share))

    def learn(self, items: int, elapsed_ns: int) -> None:
        """Learn from a call: items took elapsed_ns together."""
        if not items:
            return
        measured = elapsed_ns / items
        # A call with more items than all before replaces the average: the first items were slow
        # because of imports and cold caches.
        self.item_ns = (self.item_ns + measured) / 2 if self._known >= items else measured
        self._known = max(self._known, items)

# SPDX-License-Identifier: MIT
"""How many items a call of a map consists of."""

from __future__ import annotations


def nominal_size(items: int, workers: int) -> int:
    """The standard library's size: a quarter of a worker's share."""
    size, extra = divmod(items, workers * 4)
    return size + 1 if extra else size


class GivenChunks:
    """The size that the user gave."""

    divisible = False

    def __init__(self, size: int, workers: int) -> None:
        self.window = max(64, 4 * workers)
        self._size = size

    def size(self, remaining: int) -> int:
        """How many of the remaining items the next call gets."""
        return self._size

    def learn(self, items: int, elapsed_ns: int) -> None:
        """So many items took so long."""


class MeasuredChunks:
    """Long against a call's overhead, short against what is left, so that all end together.

    Items that turn out longer than expected are taken back from the call that has them.
    """

    divisible = True
    TARGET_NS = 1_000_000
    GROWTH = 16  # at most, from what has been measured to what is tried

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
        """So many items took so long."""
        if not items:
            return
        measured = elapsed_ns / items
        # More items tell more: the first ones paid for imports, and for cold caches.
        self.item_ns = (self.item_ns + measured) / 2 if self._known >= items else measured
        self._known = max(self._known, items)

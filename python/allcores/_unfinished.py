# SPDX-License-Identifier: MIT
"""Pool._cache: the jobs of a pool that are not finished, as programs look at them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, MutableMapping

from . import _core
from ._jobs import Job


class Unfinished(MutableMapping[int, object]):
    """Its length is the number of unfinished jobs. Single calls are only counted.

    A program may put results of its own here: whatever has a method _set. They stay until the
    program removes them, as in the standard library.
    """

    def __init__(self, core: _core.Pool) -> None:
        self._core = core
        self._foreign: dict[int, object] = {}
        # Not a WeakSet: iterating over one fails when another thread adds to it.
        self._jobs: dict[int, weakref.ref[Job]] = {}
        self._numbers = itertools.count(-1, -1)  # programs take theirs from 0 on
        self._most = 16  # references; at that number the dead ones are removed

    def add(self, job: Job) -> None:
        """Add a map or an imap."""
        if len(self._jobs) >= self._most:
            for number, reference in list(self._jobs.items()):
                if reference() is None:
                    self._jobs.pop(number, None)
            self._most = 2 * len(self._jobs) + 16
        self._jobs[next(self._numbers)] = weakref.ref(job)

    def _unfinished(self) -> dict[int, Job]:
        jobs = ((number, reference()) for number, reference in list(self._jobs.items()))
        return {number: job for number, job in jobs if job and not job.is_complete()}

    def __getitem__(self, key: int) -> object:
        return self._foreign[key] if key in self._foreign else self._unfinished()[key]

    def __setitem__(self, key: int, result: object) -> None:
        self._foreign[key] = result

    def __delitem__(self, key: int) -> None:
        del self._foreign[key]

    def __iter__(self) -> Iterator[int]:
        return iter([*self._foreign, *self._unfinished()])

    def __len__(self) -> int:
        jobs = self._unfinished().values()
        stat = self._core.stat()
        single = stat["waiting"] + stat["running"] - sum(job.calls_under_way() for job in jobs)
        return max(single, 0) + len(jobs) + len(self._foreign)

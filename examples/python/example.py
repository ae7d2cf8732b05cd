# SPDX-License-Identifier: MIT
"""What the example programs share: arguments, checks, and the floor, which is the time that no
pool can beat on this machine. Nothing in here is needed to use allcores.
"""
import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import allcores


def arguments(what: str, **numbers: tuple[int, str]) -> list[int]:
    """The numbers on the command line, in their order; each has a default and a help text.

    Answers --help with the first paragraph of what, and ends the program on anything wrong.
    """
    parser = argparse.ArgumentParser(description=what.strip().split("\n\n")[0])
    for name, (default, text) in numbers.items():
        parser.add_argument(name, type=int, nargs="?", default=default,
                            help=f"{text} (default: %(default)s)")
    values = list(vars(parser.parse_args()).values())
    for name, value in zip(numbers, values, strict=True):
        if value < 1:
            parser.error(f"{name}: {value} is less than 1")
    return values


def expect(right: object, message: str) -> None:
    """End the program with a message if its results are wrong."""
    if not right:
        sys.exit(f"wrong: {message}")


class Work:
    """Jobs done one after the other without a pool, and their times in seconds.

    The floor is made of these: an even share of all the work, or the longest job.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.longest = 0.0

    def do(self, function: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
        """Call the function, take its time, return its result."""
        start = time.monotonic()
        result = function(*args, **kwds)
        took = time.monotonic() - start
        self.total += took
        self.longest = max(self.longest, took)
        return result

    def floor(self, at_once: int) -> float:
        """The least time in seconds, if so many jobs can run at once."""
        return max(self.total / at_once, self.longest)

    def report(self, who: str, took: float, at_once: int) -> None:
        """Print a time in seconds beside its floor."""
        floor = self.floor(at_once)
        reason = f"{self.total:.3f} s of work, {at_once} at once"
        if floor == self.longest:
            reason = "the longest job"
        print(f"{who}: {took:.3f} s, floor {floor:.3f} s ({reason}): {took / floor:.2f} times the "
              f"floor, {self.total / took:.2f} times faster than one core")


def processors(workers: int | None = None) -> int:
    """How many of so many workers can compute at once on this machine; None: of any number."""
    return min(workers or sys.maxsize, allcores.cpus())

# SPDX-License-Identifier: MIT
"""What a row is made of: experiments, the sides that take turns in them, lines, floors."""
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from contestants import CONTESTANTS
from table import Goal

LIMIT = 60.0    # seconds; longer than any turn takes: it hangs

NO_LESS = Goal("ratio", 1)


def at_most(least: float, meant: float | None = None) -> Goal:
    """Of the standard library's time."""
    return Goal("ratio", least, meant, lower=True)


NO_SLOWER = at_most(1)


@dataclass
class Plan:
    """What the command line wants."""

    cores: int
    peers: list[str]
    quick: bool = False

    @property
    def seconds(self) -> float:
        return 0.15 if self.quick else 0.4

    def two(self) -> list[str]:
        return ["ours", "stdlib"]

    def able(self, method: str) -> list[str]:
        """Ours, the standard library's, and the peers who have this method of a pool."""
        return self.two() + [name for name in self.peers if hasattr(CONTESTANTS[name], method)]

    def starting_by(self, method: str) -> list[str]:
        """Ours, the standard library's, and the peers who start processes that way."""
        return self.two() + [name for name in self.peers
                             if method in CONTESTANTS[name].methods]


@dataclass
class Side:
    """One of those who take turns; contestant only where it isn't the name."""

    name: str
    turn: str
    parameters: dict = field(default_factory=dict)

    @property
    def contestant(self) -> str:
        return self.name if self.name in CONTESTANTS else "stdlib"


@dataclass
class Spec:
    """A line: the figure's name, or a function of one round's figures by side."""

    what: str
    figure: str | Callable[[dict[str, dict], str], float]
    unit: str
    goal: Goal | None = None
    floor: float | None = None      # where the floor is known beforehand


@dataclass
class Experiment:
    """Sides that take turns, and the lines made of their figures. quick: rounds with --quick;
    limit: seconds of a turn."""

    sides: list[Side]
    lines: list[Spec]
    rounds: int = 5
    quick: int = 2
    limit: float = LIMIT


def each(names: list[str], turn: str, **parameters) -> list[Side]:
    return [Side(name, turn, parameters) for name in names]


def makespan(seconds: list[float], workers: int) -> float:
    """The floor of a list of sleeps: how long one piece at a time takes, whoever is free taking the
    next."""
    free = [0.0] * workers
    for length in seconds:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)

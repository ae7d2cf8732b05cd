# SPDX-License-Identifier: MIT
"""Lines of the table: figures of all contestants, goals, and whether they are met.

A figure is the median of its rounds; a ratio is the median of the rounds' ratios, so that a
disturbance of the machine that lasts longer than a turn hits both sides.
"""
import statistics
from dataclasses import dataclass, field

Sample = float | None


@dataclass
class Goal:
    """What ours must at least be and is meant to be, and what that is about.

    by: "ratio" (to the standard library's), "ours", "difference" (from the standard
    library's), or "floor" (ratio to the floor).
    """

    by: str
    least: float
    meant: float | None = None
    lower: bool = False

    def met(self, score: float, goal: float) -> bool:
        return score <= goal if self.lower else score >= goal

    def text(self, goal: float | None, unit: str) -> str:
        if goal is None:
            return "-"
        number = {"ratio": f"{goal:g} x", "floor": f"{goal:g} floor",
                  "difference": f"+{goal:g} {unit}"}.get(self.by, f"{goal:g} {unit}".strip())
        return ("<= " if self.lower else ">= ") + number


def divide(ours: float, theirs: float) -> Sample:
    """Nothing and nothing are equal; no ratio says how much more something is than nothing."""
    if theirs == 0:
        return 1.0 if ours == 0 else None
    return ours / theirs


@dataclass
class Line:
    """One line; samples are by contestant, one for each round, None where there is none."""

    what: str
    unit: str
    goal: Goal | None = None
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def median(self, name: str) -> Sample:
        values = [value for value in self.samples.get(name, []) if value is not None]
        return statistics.median(values) if values else None

    def _paired(self, name: str, function) -> Sample:
        values = [function(ours, theirs) for ours, theirs
                  in zip(self.samples.get("ours", []), self.samples.get(name, []))
                  if ours is not None and theirs is not None]
        values = [value for value in values if value is not None]
        return statistics.median(values) if values else None

    def ratio(self, name: str = "stdlib") -> Sample:
        return self._paired(name, divide)

    def score(self) -> Sample:
        """What the goal is compared with."""
        by = self.goal.by if self.goal else ""
        if by == "ours":
            return self.median("ours")
        if by == "difference":
            return self._paired("stdlib", lambda ours, theirs: ours - theirs)
        return self.ratio("floor" if by == "floor" else "stdlib")

    def verdict(self) -> str:
        """failed, short, ok (the least is met), meant (that too), or - where there is no goal."""
        score = self.score()
        if self.goal is None:
            return "-"
        if score is None:
            return "failed"
        if not self.goal.met(score, self.goal.least):
            return "short"
        if self.goal.meant is not None and self.goal.met(score, self.goal.meant):
            return "meant"
        return "ok"

    def as_json(self) -> dict:
        goal = self.goal and vars(self.goal)
        return {"what": self.what, "unit": self.unit, "goal": goal, "ratio": self.ratio(),
                "score": self.score(), "verdict": self.verdict(),
                "medians": {name: self.median(name) for name in self.samples},
                "samples": self.samples}


def format_number(value: Sample, unit: str = "") -> str:
    if value is None:
        return "-"
    for limit, mark in ((1e6, "M"), (1e4, "k")):
        if unit == "/s" and value >= limit:
            value, unit = value / (limit if mark == "M" else 1e3), mark + unit
            break
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or not size else 4
    space = "" if unit.startswith(("M/", "k/", "/")) or not unit else " "
    return f"{value:.{digits}f}{space}{unit}"


class Table:
    """Prints lines as they come; columns are wide enough for what they usually hold."""

    def __init__(self, peers: list[str]):
        self.peers = peers

    def _row(self, what: str, cells: list[str], verdict: str, peers: list[str]) -> str:
        text = f"  {what:<44}"
        for cell, width in zip(cells, (13, 13, 8, 13, 15, 12)):
            text += f"{cell:>{width}}"
        return text + f"  {verdict:<7}" + "".join(f"{cell:>13}" for cell in peers)

    def head(self, name: str, about: str) -> None:
        titles = ["ours", "stdlib", "ratio", "floor", "at least", "meant"]
        print(f"\n{name}: {about}")
        print(self._row("", titles, "", self.peers).rstrip(), flush=True)

    def line(self, line: Line) -> None:
        goal = line.goal
        cells = [format_number(line.median("ours"), line.unit),
                 format_number(line.median("stdlib"), line.unit),
                 format_number(line.ratio()),
                 format_number(line.median("floor"), line.unit),
                 goal.text(goal.least, line.unit) if goal else "-",
                 goal.text(goal.meant, line.unit) if goal else "-"]
        peers = [format_number(line.median(name), line.unit) for name in self.peers]
        print(self._row(line.what, cells, line.verdict(), peers).rstrip(), flush=True)

    def note(self, text: str) -> None:
        print(f"  ({text})", flush=True)

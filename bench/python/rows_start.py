# SPDX-License-Identifier: MIT
"""Rows about how pools start and end; "cold" is the first pool of a program, "again" a later one.

Each turn is a fresh interpreter. It has imported allcores or multiprocessing.pool, but for the
lines that say that they time the import, too.
"""
import multiprocessing
from collections.abc import Callable, Iterator

import jobs
from contestants import CONTESTANTS
from plan import NO_SLOWER, Experiment, Plan, Side, Spec, at_most, each, makespan
from table import Goal

GIGABYTE = 1024     # in MB


def _first(label: str, cold: Goal, again: Goal) -> list[Spec]:
    return [Spec(f"{label}: first result, cold", "first", "ms", cold),
            Spec(f"{label}: first result, again", "first again", "ms", again)]


def _close(label: str, cold: Goal, again: Goal) -> list[Spec]:
    return [Spec(f"{label}, cold", "close", "ms", cold),
            Spec(f"{label}, again", "close again", "ms", again)]


def _with_import(label: str) -> Spec:
    return Spec(f"{label}: import and first result, cold", "loaded and first", "ms")


def _forks(workers: int, megabytes: int = 0) -> Side:
    return Side("floor", "bare_forks", {"workers": workers, "megabytes": megabytes})


def row_start(plan: Plan) -> Iterator[Experiment]:
    goals = {2: (at_most(0.7, 0.5), at_most(0.7, 0.5), NO_SLOWER),
             8: (at_most(0.5, 0.3), NO_SLOWER, NO_SLOWER),
             50: (at_most(0.2, 0.1), NO_SLOWER, at_most(0.5, 0.3))}
    for workers, (cold, again, close) in goals.items():
        label = f"fork, {workers}"
        lines = (_first(label, cold, again)
                 + _close(f"{label}: close after one task", close, close))
        if workers == 2:
            lines.insert(1, _with_import(label))
        sides = each(plan.starting_by("fork"), "start", method="fork", workers=workers)
        yield Experiment([*sides, _forks(workers)], lines, rounds=11, quick=9)


def row_at_work(plan: Plan) -> Iterator[Experiment]:
    names = [name for name in plan.starting_by("fork") if hasattr(CONTESTANTS[name], "submit")]
    close = at_most(0.5, 0.3)
    yield Experiment(
        [*each(names, "all_at_work", workers=50), _forks(50)],
        [Spec("fork, 50: until all are at work, cold", "all", "ms", at_most(0.7, 0.4)),
         Spec("fork, 50: until all are at work, again", "all again", "ms", at_most(0.6, 0.4)),
         *_close("fork, 50: close after all worked", close, close)], rounds=11, quick=9)


def row_gigabyte(plan: Plan) -> Iterator[Experiment]:
    names = plan.two() + [name for name in plan.peers if name == "executor"]
    goal = at_most(1, 0.9)
    yield Experiment(
        [*each(names, "start", method="fork", workers=2, megabytes=GIGABYTE), _forks(2, GIGABYTE)],
        _first("fork, 2", goal, goal) + _close("fork, 2: close", NO_SLOWER, NO_SLOWER),
        rounds=9, quick=7)
    yield Experiment(each(plan.two(), "replacement", megabytes=GIGABYTE, threads=4),
                     [Spec("fork: a death, to the next worker's result", "ms", "ms", at_most(0.5))],
                     rounds=5, quick=3)


def row_sleeps(plan: Plan) -> Iterator[Experiment]:
    lengths = [seconds * 1000 for _, _, seconds in jobs.short_naps()]
    goal = at_most(1, 0.9)
    for workers in (8, 50):
        floor = makespan(lengths, workers)
        yield Experiment(each(plan.two(), "sleeps", workers=workers),
                         [Spec(f"fork, {workers}: open, starmap", "done", "ms", goal, floor),
                          Spec(f"fork, {workers}: open, starmap, close", "closed", "ms",
                               NO_SLOWER, floor)],
                         rounds=9, quick=7)


def row_methods(plan: Plan) -> Iterator[Experiment]:
    goals = {"spawn": (at_most(0.9), at_most(0.8)), "forkserver": (at_most(1), at_most(0.8))}
    for method, (cold, again) in goals.items():
        names = plan.starting_by(method)
        yield _by_method(names, method, f"{method}, 2", 2, cold, again)
        if method == "forkserver":
            yield _close_after_all(plan.two(), method, f"{method}, 2")
    default = multiprocessing.get_context().get_start_method()
    if default == "fork":
        return
    for workers in (2, 8, 50):  # from Python 3.14 on
        label = f"default, {workers}"
        yield _by_method(plan.two(), None, label, workers, *goals[default])
    yield _close_after_all(plan.two(), None, "default, 2")


def _by_method(names: list[str], method: str | None, label: str, workers: int,
               cold: Goal, again: Goal) -> Experiment:
    return Experiment(each(names, "start", method=method, workers=workers),
                      _first(label, cold, again)
                      + _close(f"{label}: close after one task", NO_SLOWER, NO_SLOWER),
                      rounds=9, quick=7 if workers == 2 else 3)


def _close_after_all(names: list[str], method: str | None, label: str) -> Experiment:
    return Experiment(each(names, "start", method=method, workers=2, all_work=True),
                      _close(f"{label}: close after all worked", NO_SLOWER, NO_SLOWER),
                      rounds=9, quick=7)


def row_import(_plan: Plan) -> Iterator[Experiment]:
    yield Experiment(each(["ours", "stdlib"], "import_time"),
                     [Spec("import allcores", "ms", "ms", at_most(1.1)),
                      Spec("import allcores.pool", "pool ms", "ms")], rounds=31, quick=21)


ROWS: dict[str, tuple[str, Callable[[Plan], Iterator[Experiment]]]] = {
    "import": ("in a fresh interpreter, beside import multiprocessing.pool", row_import),
    "start": ("open to the first result, and close; floor: bare os.fork", row_start),
    "atwork": ("open until all 50 are in a task at once; floor: bare os.fork", row_at_work),
    "gigabyte": ("in an owner of 1 GB; floor: bare os.fork", row_gigabyte),
    "sleeps": ("50 sleeps of 10 to 20 ms in a program's first pool; floor: workers from the start",
               row_sleeps),
    "methods": ("spawn, forkserver, and the default if it is not fork", row_methods),
}

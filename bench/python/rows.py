# SPDX-License-Identifier: MIT
"""The rows: who takes which turns, which figures become lines, and the goals.

A row is a function of a Plan and gives experiments. The turns of one experiment are
interleaved; its lines are read from them.
"""
from collections.abc import Callable, Iterator

import jobs
import rows_start
from contestants import CONTESTANTS
from plan import NO_LESS, NO_SLOWER, Experiment, Plan, Side, Spec, each, makespan
from table import Goal

# ---- small tasks --------------------------------------------------------------

def row_tasks(plan: Plan) -> Iterator[Experiment]:
    goal = Goal("ratio", 10, 20)
    for call, needs, what in (("map 1", "map", "map, chunksize=1"), ("imap", "imap", "imap"),
                              ("imap_unordered", "imap_unordered", "imap_unordered"),
                              ("apply_async", "submit_all", "apply_async, then get")):
        yield Experiment(each(plan.able(needs), "rate", call=call, seconds=plan.seconds),
                         [Spec(what, "rate", "/s", goal)])


def row_map(plan: Plan) -> Iterator[Experiment]:
    goal = Goal("ratio", 1.5, 2.5)
    sides = each(plan.able("map"), "rate", call="map", long=True, seconds=plan.seconds)
    yield Experiment(sides, [Spec("map of a list, default chunks", "rate", "/s", goal)])
    yield Experiment(each(plan.two(), "rate", call="map range", long=True, seconds=plan.seconds),
                     [Spec("map of a range, default chunks", "rate", "/s", goal)])


def row_latency(plan: Plan) -> Iterator[Experiment]:
    yield Experiment(each(plan.able("apply"), "latency", count=500 if plan.quick else 2000),
                     [Spec("apply, back to back, p50", "p50", "µs",
                           Goal("ratio", 0.25, lower=True)),
                      Spec("apply, back to back, p99", "p99", "µs", NO_SLOWER)])


def row_more(plan: Plan) -> Iterator[Experiment]:
    """What else people call: nowhere slower than the standard library."""
    for call, what in (("map 100", "map, chunksize=100"), ("imap 100", "imap, chunksize=100"),
                       ("imap_unordered 100", "imap_unordered, chunksize=100"),
                       ("callbacks", "apply_async with callback")):
        share = 10 if "100" in call else 1
        yield Experiment(each(plan.two(), "rate", call=call, share=share, seconds=plan.seconds),
                         [Spec(what, "rate", "/s", NO_LESS)])
    yield Experiment(each(plan.two(), "rate", call="starmap", long=True, share=0.3,
                           seconds=plan.seconds),
                     [Spec("starmap, default chunks", "rate", "/s", NO_LESS)])
    for items in (1, 10, 100, 10000):
        count = 60 if items == 10000 else 300
        yield Experiment(each(plan.two(), "small_map", items=items, count=count),
                         [Spec(f"map of {items}, p50", "p50", "µs", NO_SLOWER)])
    yield Experiment(each(plan.two(), "latency_after", items=300_000),
                     [Spec("apply after a map of 300k strings, p50", "p50", "µs", NO_SLOWER)])
    yield Experiment(each(plan.two(), "raising"),
                     [Spec("apply that raises, p50", "p50", "µs", NO_SLOWER)])


# ---- a whole program ----------------------------------------------------------

def row_squares(plan: Plan) -> Iterator[Experiment]:
    yield Experiment(each(plan.two(), "squares"),
                     [Spec("four sleeps of 2 s, pool of 8", "s", "s",
                           Goal("ours", 2.1, 2.05, lower=True), floor=2.0)],
                     rounds=1 if plan.quick else 3)


# ---- all cores, and lists of many lengths ---------------------------------------------

def row_cores(plan: Plan) -> Iterator[Experiment]:
    """Efficiency: what one core needs, shared by the cores, over what the pool takes."""
    def efficiency(figures: dict[str, dict], side: str) -> float:
        return figures["loop"]["s"] / (plan.cores * figures[side]["s"])

    for program, what in (("sieve", "sieve"), ("maths", "do the maths")):
        parameters = {"program": program, "workers": plan.cores}
        sides = [Side("loop", "loop", parameters), *each(plan.two(), "work", **parameters),
                 Side("floor", "loops_at_once", parameters)]
        yield Experiment(sides, [Spec(f"{what}: one / (cores * all)", efficiency, "",
                                      Goal("ours", 0.97, 0.99))],
                         rounds=1 if plan.quick else 5)


def row_naps(plan: Plan) -> Iterator[Experiment]:
    lengths = [seconds for _, _, seconds in jobs.naps()]
    sizes = (4, 10, 50) if plan.quick else (1, 2, 4, 6, 8, 10, 12, 14, 18, 50)
    for workers in sizes:
        yield Experiment(each(plan.two(), "naps", workers=workers),
                         [Spec(f"50 sleeps, pool of {workers}: starmap", "map", "s",
                               Goal("floor", 1.01, lower=True), makespan(lengths, workers))],
                         rounds=1 if plan.quick else 3)


# ---- memory, large payloads, death --------------------------------------------------------

def row_readahead(plan: Plan) -> Iterator[Experiment]:
    yield Experiment(each(plan.two(), "read_ahead"),
                     [Spec("imap, endless source: growth in 3 s", "growth", "MB",
                           Goal("ours", 2, lower=True)),
                      Spec("imap, endless source: items ahead", "ahead", "items")],
                     rounds=1 if plan.quick else 2)


def row_idle(plan: Plan) -> Iterator[Experiment]:
    yield Experiment(each(plan.two(), "idle", workers=50),
                     [Spec("pool of 50, used: memory", "mb", "MB", NO_SLOWER),
                      Spec("pool of 50, idle: wake-ups", "wakeups", "/s", NO_SLOWER)],
                     rounds=1 if plan.quick else 3)


def row_payload(plan: Plan) -> Iterator[Experiment]:
    sizes = [("bytes", size, "in and out") for size in (1 << 10, 1 << 16, 1 << 20)]
    sizes += [("bytes", 16 << 20, way) for way in ("in", "out", "in and out")]
    try:
        import numpy    # noqa: F401
        sizes += [("numpy", size, way) for size in (1 << 20, 16 << 20)
                  for way in ("in", "out", "in and out")]
    except ImportError:
        pass
    for kind, size, way in sizes:
        label = f"{size >> 10} KB" if size < 1 << 20 else f"{size >> 20} MB"
        yield Experiment(each(plan.two() + [p for p in plan.peers if p == "executor"],
                              "payload", kind=kind, size=size, way=way, seconds=plan.seconds),
                         [Spec(f"{kind} {label} {way}", "speed", "MB/s", NO_LESS)])
    for size, items in ((1 << 10, 2000), (1 << 20, 32)):
        label = f"{size >> 10} KB" if size < 1 << 20 else f"{size >> 20} MB"
        yield Experiment(each(plan.two(), "payload_map", size=size, items=items),
                         [Spec(f"map of {items} x {label}, in and out", "speed", "MB/s", NO_LESS)])


def row_death(plan: Plan) -> Iterator[Experiment]:
    """The standard library waits for ever, so it takes no turn."""
    names = ["ours"] + [name for name in plan.peers if hasattr(CONTESTANTS[name], "submit")
                        and "fork" in CONTESTANTS[name].methods]
    yield Experiment(each(names, "death", where="apply_async"),
                     [Spec("SIGKILL in apply_async, to the error", "ms", "ms"),
                      Spec("afterwards the pool works (1) or not (0)", "usable", "",
                           Goal("ours", 1))], limit=30)
    yield Experiment(each(["ours"], "death", where="map"),
                     [Spec("SIGKILL in map, to the error", "ms", "ms"),
                      Spec("afterwards the pool works (1) or not (0)", "usable", "",
                           Goal("ours", 1))], limit=30)


ROWS: dict[str, tuple[str, Callable[[Plan], Iterator[Experiment]]]] = {
    "tasks": ("single no-op tasks a second, pool of 2", row_tasks),
    "map": ("no-op tasks a second in a map of a million, pool of 2", row_map),
    "latency": ("wait for one no-op, pool of 2", row_latency),
    "more": ("other calls, pool of 2", row_more),
    **rows_start.ROWS,
    "squares": ("a whole program that sleeps", row_squares),
    "cores": ("efficiency on all cores; floor: bare forks, work shared out beforehand",
              row_cores),
    "naps": ("50 sleeps of 50 to 150 ms, workers ready; floor: one at a time, computed",
             row_naps),
    "readahead": ("imap over a source without end, slow reader", row_readahead),
    "idle": ("what a pool of 50 costs", row_idle),
    "payload": ("large arguments and results, one call at a time", row_payload),
    "death": ("a worker killed inside a task; the standard library hangs", row_death),
}

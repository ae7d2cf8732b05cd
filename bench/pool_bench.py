#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast allcores.Pool is, against the standard library's and what else is installed.

    pool_bench.py [--rows A,B] [--rounds N] [--peers A,B] [--json FILE] [--quick]

Ours and theirs take turns, in every second round backwards. Every turn is a process of its
own, started afresh and ended when it takes too long. Figures are medians of the rounds, the
ratio (ours / stdlib) is the median of the rounds' ratios. "short", "ok" and "meant" say
whether the goal is missed, met at least, or met as meant; a line with "-" has no goal.
Exit code 1 means a wrong result or a hang, of ours or of the standard library; a slow
figure never does.
"""
import argparse
import json
import os
import platform
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "python"))

from contestants import PEERS  # noqa: E402
from plan import LIMIT, Experiment, Plan, Spec  # noqa: E402
from rows import ROWS  # noqa: E402
from runner import Load, Turn, adopt_orphans, run_turn, wait_for_quiet  # noqa: E402
from table import Line, Table  # noqa: E402


def list_of(known):
    """An argument type: names from a list, with commas between."""
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(known)}")
        return names
    return parse


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def read_options() -> argparse.Namespace:
    rows = "\n".join(f"  {name:<10} {about}" for name, (about, _) in ROWS.items())
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=list_of(ROWS), default=list(ROWS), metavar="A,B",
                        help="only these rows")
    parser.add_argument("--rounds", type=positive, metavar="N", help="rounds for each comparison "
                        "(default: each row's own, mostly 5)")
    parser.add_argument("--peers", type=list_of(PEERS), default=list(PEERS), metavar="A,B",
                        help=f"of {', '.join(PEERS)}; '' for none (default: what is installed)")
    parser.add_argument("--quick", action="store_true",
                        help="fewer rounds, shorter turns, fewer sizes")
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS",
                        help="before each comparison wait for a quiet machine, so long at most")
    parser.add_argument("--json", metavar="FILE", help="all samples, as one JSON document")
    parser.add_argument("--ours", default="allcores", metavar="MODULE",
                        help="measure another module with a Pool in place of allcores")
    return parser.parse_args()


class Bench:
    """The run: its table, its faults, and what goes into the JSON file."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.versions: dict[str, str] = {}
        self.lines: list[dict] = []
        self.failed = False

    def find_contestants(self) -> list[str]:
        """Import each once, which also compiles it. Returns the peers that are here."""
        for name in ["ours", "stdlib", *self.options.peers]:
            found = run_turn("probe", name, {}, LIMIT)
            if "version" in found.figures:
                self.versions[name] = found.figures["version"]
            elif name in ("ours", "stdlib"):
                sys.exit(f"pool_bench: {name}: {found.fault or found.figures['missing']}")
        return [name for name in self.options.peers if name in self.versions]

    def rounds(self, experiment: Experiment) -> int:
        usual = experiment.quick if self.options.quick else experiment.rounds
        return self.options.rounds or min(usual, experiment.rounds)

    def measure(self, experiment: Experiment) -> tuple[list[dict[str, Turn]], dict[str, str]]:
        """All rounds; and the last fault of each side. Who has failed takes no more turns."""
        rounds, faults = [], {}
        wait_for_quiet(self.options.patience)
        for number in range(self.rounds(experiment)):
            turns = {}
            for side in experiment.sides[::-1 if number % 2 else 1]:
                if side.name in faults:
                    continue
                turn = run_turn(side.turn, side.contestant, side.parameters, experiment.limit)
                if turn.fault:
                    faults[side.name] = turn.fault
                if turn.figures:
                    turns[side.name] = turn
            rounds.append(turns)
        return rounds, faults

    @staticmethod
    def make_line(spec: Spec, rounds: list[dict[str, Turn]], experiment: Experiment) -> Line:
        line = Line(spec.what, spec.unit, spec.goal)
        for side in experiment.sides:
            samples = []
            for turns in rounds:
                figures = {name: turn.figures for name, turn in turns.items()}
                try:
                    samples.append(spec.figure(figures, side.name) if callable(spec.figure)
                                   else figures[side.name][spec.figure])
                except KeyError:
                    samples.append(None)
            line.samples[side.name] = samples
        if spec.floor is not None:
            line.samples["floor"] = [spec.floor] * len(rounds)
        return line

    def run_experiment(self, row: str, experiment: Experiment, table: Table) -> None:
        rounds, faults = self.measure(experiment)
        for spec in experiment.lines:
            line = self.make_line(spec, rounds, experiment)
            table.line(line)
            self.lines.append({"row": row, **line.as_json()})
        for name, fault in faults.items():
            table.note(f"{name}: {fault}")
            self.lines.append({"row": row, "side": name, "fault": fault})
            self.failed |= name in ("ours", "stdlib")

    def run_row(self, row: str, plan: Plan, table: Table) -> None:
        about, experiments = ROWS[row]
        table.head(row, about)
        load = Load()
        for experiment in experiments(plan):
            self.run_experiment(row, experiment, table)
        if load.others() > 0.05:
            table.note(f"others used {load.others():.2f} of {plan.cores} cores meanwhile")

    def run(self) -> None:
        cores = len(os.sched_getaffinity(0))
        plan = Plan(cores, self.find_contestants(), self.options.quick)
        table = Table(plan.peers)
        versions = ", ".join(f"{name} {version}".strip() for name, version in self.versions.items())
        print(f"{self.options.ours} on {cores} cores; turn by turn, medians; {versions}")
        for row in self.options.rows:
            self.run_row(row, plan, table)
        self.print_sum()
        if self.options.json:
            self.write_json(cores)

    def print_sum(self) -> None:
        verdicts = [line["verdict"] for line in self.lines if "verdict" in line]
        print("\n" + ", ".join(f"{verdicts.count(name)} {name}"
                               for name in ("meant", "ok", "short", "failed")))

    def write_json(self, cores: int) -> None:
        with open(self.options.json, "w") as file:
            json.dump({"cores": cores, "machine": platform.machine(), "kernel": platform.release(),
                       "python": platform.python_version(), "ours": self.options.ours,
                       "versions": self.versions, "lines": self.lines}, file, indent=1)
            file.write("\n")


def find_ours(module: str) -> None:
    """Tell the turns which module is measured; the checkout's own where none is installed."""
    os.environ["POOL_BENCH_OURS"] = module
    # A package that is compiled at every import would look slow; unbuffered lines are torn.
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)
    package = os.path.join(os.path.dirname(HERE), "python")
    if os.path.isdir(os.path.join(package, module)):
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), package]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def main() -> int:
    options = read_options()
    find_ours(options.ours)
    adopt_orphans()
    bench = Bench(options)
    bench.run()
    return bench.failed


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The demonstration: C, Python and the standard library's pool side by side.

The jobs of sieve and sleeps in pools of many sizes: a table of times beside their floors, and a
picture of every worker's work. Each measurement is a program of its own, demo.c or demo_jobs.py,
and the columns take turns, so that whatever else the machine does hits all of them alike.
"""
import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import picture

HERE = pathlib.Path(__file__).resolve().parent
Answer = dict[str, Any]  # what demo.c and demo_jobs.py print


@dataclasses.dataclass
class Column:
    """One way to have a pool, and its answers about the current job: (way, workers): answer."""
    language: str
    name: str
    command: list[str]
    engine: str | None  # what ALLCORES_ENGINE has to be
    dark: str
    light: str
    answers: dict[tuple[str, int], Answer] = dataclasses.field(default_factory=dict)

    def run(self, job: str, way: str, workers: int, percent: int) -> Answer:
        """One measurement: what the program printed. Raises SubprocessError."""
        env = dict(os.environ)
        env.pop("ALLCORES_ENGINE", None)
        if self.engine:
            env["ALLCORES_ENGINE"] = self.engine
        command = [*self.command, job, way, str(workers), str(percent)]
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True,
                              timeout=60 + percent)  # the longest takes a fortieth of percent
        answer: Answer = json.loads(done.stdout)
        return answer

    def took(self, way: str, workers: int) -> float:
        """Seconds."""
        return float(self.answers[way, workers]["took_ns"]) / 1e9

    @property
    def alone(self) -> float:
        """Seconds that the jobs take one after the other, if nobody else disturbs them."""
        loop = self.answers["loop", 1]
        computes = loop["cpu_ns"] > loop["took_ns"] / 10  # it doesn't sleep
        return float(loop["cpu_ns" if computes else "took_ns"]) / 1e9

    def floor(self, at_once: int) -> float:
        """The least seconds, if so many jobs can run at once."""
        longest = max(end - start for _, _, _, start, end in self.answers["loop", 1]["events"])
        return max(self.alone / at_once, float(longest) / 1e9)


@dataclasses.dataclass
class Job:
    """One list of jobs, and the pools that do it."""
    name: str
    title: str
    subtitle: str
    sizes: list[int]
    pictured: int  # the size that goes into the picture
    at_once: int  # how many jobs the machine can do at once, whatever the pool


def make_jobs(cpus: int, percent: int) -> list[Job]:
    sizes = {2 ** i for i in range(8) if 2 ** i <= 2 * cpus} | {cpus, 50}
    return [
        Job("sieve", "Sieve of Eratosthenes, 100 times",
            f"Primes below {80000 * percent:,} in C, {2500 * percent:,} in Python. In the picture: "
            f"pools of {cpus}.", sorted(sizes), cpus, cpus),
        Job("sleeps", "50 sleeps of different lengths",
            f"From {percent / 4:g} to {percent * 0.74:g} ms; sleeping needs no processor. In the "
            "picture: pools of 8.",
            [1, 2, 4, 6, 8, 10, 12, 14, 18, 50], 8, 50),
    ]


# ---- Columns ----

def find_columns(program: str) -> list[Column]:
    """Those that can run here; says why others can't."""
    python = [sys.executable, str(HERE / "demo_jobs.py")]
    columns = [
        Column("C", "liballcores", [program], None, "#1d5fa6", "#9cc3ea"),
        Column("Python", "allcores", python, None, "#0c7a66", "#8fd3c4"),
        Column("Python", "multiprocessing", python, "stdlib", "#b3500b", "#f4bf92"),
    ]
    return [column for column in columns if can_run(column)]


def can_run(column: Column) -> bool:
    if column.language == "C":
        return True
    if importlib.util.find_spec("allcores") is None:
        print(f"without Python, {column.name}: the package is not in PYTHONPATH")
        return False
    engine = column.run("sleeps", "loop", 1, 1)["engine"]
    if (engine == "stdlib") != (column.engine == "stdlib"):
        print(f"without Python, {column.name}: the extension is not built")
        return False
    return True


# ---- Measuring, and the table ----

def say(text: str) -> None:
    """What is going on, on a line of the terminal that the table's next row overwrites."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def print_head(columns: list[Column]) -> None:
    print(" " * 12 + "".join(f"{column.language + ', ' + column.name:>25}" for column in columns))
    print(f"{'pool of':12}" + f"{'seconds':>11}{'faster':>7}{'floors':>7}" * len(columns))


def cell(column: Column, took: float, at_once: int) -> str:
    return f"{took:11.3f}{column.alone / took:7.2f}{took / column.floor(at_once):7.2f}"


def measure_row(job: Job, columns: list[Column], way: str, workers: int, percent: int) -> None:
    at_once = 1 if way == "loop" else min(workers, job.at_once)
    label = {"loop": "no pool", "forks": f"{workers} bare forks"}.get(way, str(workers))
    cells = []
    for column in columns:
        say(f"{job.name}, {label}: {column.language}, {column.name}")
        answer = column.run(job.name, way, workers, percent)
        column.answers[way, workers] = answer
        if way == "pool" and answer["results"] != column.answers["loop", 1]["results"]:
            sys.exit(f"wrong: {job.name}: the {column.name} pool of {workers} and the loop "
                     "disagree")
        cells.append(cell(column, column.took(way, workers), at_once))
    say("")
    print(f"{label:12}" + "".join(cells), flush=True)


def measure(job: Job, columns: list[Column], percent: int) -> picture.Section:
    """Print the job's table; what it found goes into the picture."""
    print(f"\n{job.title}\n{job.subtitle}")
    print_head(columns)
    for column in columns:
        column.answers = {}
    measure_row(job, columns, "loop", 1, percent)
    measure_row(job, columns, "forks", job.pictured, percent)
    for size in job.sizes:
        measure_row(job, columns, "pool", size, percent)
    return picture.Section(job.title, job.subtitle, [make_lane(job, c) for c in columns])


def make_lane(job: Job, column: Column) -> picture.Lane:
    events = [picture.Event(worker, task, items, start / 1e9, end / 1e9)
              for worker, task, items, start, end in column.answers["pool", job.pictured]["events"]]
    return picture.Lane(
        name=f"{column.language}, {column.name}", dark=column.dark, light=column.light,
        workers=job.pictured, took=column.took("pool", job.pictured),
        floor=column.floor(min(job.pictured, job.at_once)),
        forks=column.took("forks", job.pictured), alone=column.alone, events=events,
        curve={size: column.took("pool", size) / column.floor(min(size, job.at_once))
               for size in job.sizes})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="what demo.c was built as")
    parser.add_argument("picture", type=pathlib.Path, help="where the picture goes, a name.svg")
    parser.add_argument("percent", type=int, nargs="?", default=100,
                        help="how long the jobs are, in percent of the usual")
    args = parser.parse_args()

    columns = find_columns(args.program)
    about = columns[0].run("sleeps", "loop", 1, 1)
    cpus = about["cpus"]
    print(f"allcores {about['version']} on {cpus} processors. faster: than the same jobs on one "
          "core without a pool.\nfloors: the floor is an even share of that work, or the longest "
          "job: 1.00 is perfect.")
    sections = [measure(job, columns, args.percent) for job in make_jobs(cpus, args.percent)]
    args.picture.write_text(picture.draw(
        "allcores: every core at work",
        f"Who ran which task when, in pools of processes, on a machine with {cpus} processors.",
        sections))
    print(f"\nThe picture of who ran what when is in {args.picture}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as error:
        sys.exit(f"wrong: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

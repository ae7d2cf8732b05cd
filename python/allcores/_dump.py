# SPDX-License-Identifier: MIT
"""What the workers of a pool are doing: Pool.dump."""

from __future__ import annotations

import time

from . import _core, _worker_stacks
from ._worker_processes import WorkerProcesses

STATES = {
    _core.WORKER_ABSENT: "no process",
    _core.WORKER_STARTING: "starting",
    _core.WORKER_IDLE: "idle",
    _core.WORKER_BUSY: "at work",
}

PATIENCE = 1.0  # seconds within which workers write their stacks, if they can
QUIET = 0.02  # seconds: if nothing was written meanwhile, the stacks are complete


def describe_pool(core: _core.Pool, processes: WorkerProcesses, size: int) -> str:
    """The pool's counts, then each worker, with its Python stack if it is working."""
    stat = core.stat()
    counts = ", ".join(
        f"{stat[name]} {name}" for name in ("waiting", "running", "done", "failed", "cancelled")
    )
    lines = [
        f"{stat['submitted']} calls submitted: {counts}; workers that died: {stat['deaths']}"
    ]
    if problem := processes.describe_template():
        lines.append(problem)
    workers = [Worker(number, processes, stat) for number, stat in enumerate(core.workers(size))]
    asked = [worker.number for worker in workers if worker.is_working() and worker.request_stack()]
    _await_stacks(processes.stacks, asked)
    for worker in workers:
        lines.append(worker.describe())
        if worker.is_working():
            lines += worker.stack(worker.number in asked)
    return "\n".join(lines) + "\n"


def _await_stacks(written: _worker_stacks.Stacks, workers: list[int]) -> None:
    """Wait until each of these workers has written its stack and writes no more."""
    end = time.monotonic() + PATIENCE
    before: list[str] = []
    texts = [""] * len(workers)
    while time.monotonic() < end and not (all(texts) and texts == before):
        time.sleep(QUIET)
        before, texts = texts, [written.peek(worker) for worker in workers]


class Worker:
    """One seat: what the engine says about it, its process, its stacks."""

    def __init__(self, number: int, processes: WorkerProcesses, stat: _core.WorkerStat) -> None:
        self.number = number
        self._processes = processes
        self._stat = stat
        self._process = processes.processes[number] if number < len(processes.processes) else None
        # A worker that has not taken its seat yet: the engine does not know its pid.
        is_starting = stat.state == _core.WORKER_STARTING
        self._pid = stat.pid or (is_starting and self._process and self._process.pid) or 0

    def is_working(self) -> bool:
        """Whether the worker is starting or runs a call, so that its stack is of interest."""
        return self._stat.state in (_core.WORKER_STARTING, _core.WORKER_BUSY) and self._pid > 0

    def request_stack(self) -> bool:
        """Make the worker write its stack. False: it cannot."""
        self._processes.stacks.take(self.number)  # a stack that came too late for an earlier dump
        is_there = self._processes.is_current(self.number, self._pid)
        return is_there and _worker_stacks.request(self._pid)

    def describe(self) -> str:
        """One line."""
        stat = self._stat
        if not self._pid:
            return f"worker {self.number}: {STATES[stat.state]}"
        named = self._process is not None and self._process.pid == self._pid
        name = f"{self._process.name}, " if self._process and named else ""
        line = f"worker {self.number}, {name}pid {self._pid}: {STATES[stat.state]}"
        if stat.state == _core.WORKER_BUSY and stat.call:
            return f"{line} for {stat.ns / 1e9:.1f} s, call {stat.call}: {stat.text or '?'}"
        is_starting = stat.state == _core.WORKER_STARTING
        return f"{line}: {stat.text}" if is_starting and stat.text else line

    def stack(self, was_asked: bool) -> list[str]:
        """The lines of its stack, or one that says why there is none."""
        text = self._processes.stacks.take(self.number) if was_asked else ""
        if text:
            return [f"  {line}" for line in _worker_stacks.task_stacks(text).splitlines()]
        return [f"  no Python stack: {self._why_no_stack(was_asked)}"]

    def _why_no_stack(self, was_asked: bool) -> str:
        try:
            with open(f"/proc/{self._pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return "the process has exited"
        if state in "Tt":
            return "the process is stopped"
        if state == "D":
            return "the process is in uninterruptible sleep in the kernel"
        return f"not written within {PATIENCE:g} s" if was_asked else "the process cannot write one"

# SPDX-License-Identifier: MIT
"""Runs turns: each in a process and session of its own, bounded, with nothing left behind."""
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

TURN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "turn.py")
GRACE = 2.0     # seconds that a turn's processes may take to follow it
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Turn:
    """Figures by name, or what went wrong; a turn that left processes has both."""

    figures: dict
    fault: str = ""


def adopt_orphans() -> None:
    """Let orphans of turns come to us, so that they can be waited for."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _group_lives(group: int) -> bool:
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _end_group(group: int) -> bool:
    """Kill what is left of a turn after a moment; False if nothing had to be killed."""
    deadline = time.monotonic() + GRACE
    while _group_lives(group):
        if time.monotonic() > deadline:
            os.killpg(group, signal.SIGKILL)
            while _group_lives(group):
                time.sleep(0.01)
            return True
        time.sleep(0.005)
    return False


def _last_line(file) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def run_turn(function: str, contestant: str, parameters: dict, limit: float) -> Turn:
    """Run one turn, at most so many seconds."""
    argv = [sys.executable, TURN, function, contestant, repr(parameters)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   start_new_session=True)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            where = "at its end" if _last_line(out) else "hangs"
            return Turn({}, f"{where}: ended after {limit:g} s")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            left = _end_group(process.pid)
        if process.returncode:
            return Turn({}, _last_line(err) or f"exit code {process.returncode}")
        return Turn(json.loads(_last_line(out)), "left processes behind" if left else "")


class Load:
    """How much of the machine others use meanwhile, in cores."""

    def __init__(self):
        self.start = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, soft, steal = map(int, file.readline().split()[1:9])
        busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        own = sum(usage.ru_utime + usage.ru_stime for usage in
                  map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
        return time.monotonic(), busy - own

    def others(self) -> float:
        (before, other), (now, other_now) = self.start, self._now()
        return max(0.0, (other_now - other) / (now - before))


def wait_for_quiet(seconds: float) -> None:
    """Wait until others leave the machine alone for a moment, at most so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        load = Load()
        time.sleep(0.3)
        if load.others() < 0.1:
            return

# SPDX-License-Identifier: MIT
"""What is left of a script: the living processes of its session, whoever started them."""
import os
import time


def left(session, seconds):
    """Those that do not end within the given seconds."""
    end = time.monotonic() + seconds
    while (found := members(session)) and time.monotonic() < end:
        time.sleep(0.002)
    return found


def members(session):
    """One that waits for its parent to reap it has ended."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, _, _, theirs = file.read().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(theirs) == session and state not in "ZX":
            found.append(int(name))
    return found


def describe(pids):
    """The command line of each, for who reads a failure."""
    return [f"{pid}: {_command(pid)}" for pid in pids]


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return "gone"

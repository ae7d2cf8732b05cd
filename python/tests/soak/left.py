# SPDX-License-Identifier: MIT
"""What a program has and is to have again after a round: processes, descriptors, threads..."""
import collections
import ctypes
import gc
import os
import resource
import time

SETTLE = 60.0  # seconds within which all must be gone: dropped pools finish their work
SHOWN = 1000  # characters of each difference
WARM_ROUNDS = 3


def processes():
    """Of our group, zombies too where they are our own: "pid name state"."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                head, _, tail = file.read().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, group = tail.split()[:3]
        ours = int(parent) == os.getpid()
        if (ours or int(group) == os.getpgrp()) and (ours or state not in "ZX"):
            # The resource tracker and the forkserver start by exec, and get another name.
            found.append(f"{head}) {'Z' if state in 'ZX' else ''}")
    return collections.Counter(found)


def waits():
    """Of each of these processes: what it is at, for whoever looks at a hang."""
    for text in processes():
        pid = text.split()[0]
        found = [text]
        for name in ("status", "wchan", "syscall"):
            try:
                with open(f"/proc/{pid}/{name}") as file:
                    lines = file.read().splitlines()
            except OSError:
                continue
            found += [line for line in lines if name != "status" or line.startswith("State")]
        yield " ".join(found)


def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            pass  # that of the list itself
    return collections.Counter(found)


def threads():
    return collections.Counter(os.listdir("/proc/self/task"))


def mappings():
    with open("/proc/self/maps") as file:
        return file.read().splitlines()


def shared_mappings():
    return collections.Counter(line for line in mappings() if line.split()[1][3] == "s")


def objects():
    """Of the package: pools, results, streams..."""
    return collections.Counter(
        type(o).__qualname__ for o in gc.get_objects()
        if str(getattr(type(o), "__module__", "")).startswith("allcores"))


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


def allocated_kb():
    """By malloc, and not free: without what it keeps for later. 0: this libc does not tell."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = Mallinfo
    info = ask()
    return (info.uordblks + info.hblkhd) >> 10


EXACT = {"processes": processes, "descriptors": descriptors, "threads": threads,
         "shared mappings": shared_mappings, "objects": objects}
# By how much they may grow. What is resident says little: malloc keeps much of what threads
# have freed; what is allocated says all.
ROUGH = {"mappings": (lambda: len(mappings()), 100), "MB resident": (resident_mb, 1024),
         "kB allocated": (allocated_kb, 8192), "objects": (lambda: len(gc.get_objects()), 5000)}


class Print:
    """How things were, to be compared with how they are."""

    def __init__(self):
        gc.collect()
        time.sleep(1)  # an ended thread is still to be seen for a moment
        self.exact = {name: take() for name, take in EXACT.items()}
        self.rounds = {name: [] for name in ROUGH}

    def differences(self):
        """Sentences; empty when all is as before."""
        end = time.monotonic() + SETTLE
        while True:
            gc.collect()
            found = [text for name in EXACT for text in self.difference(name)]
            if not found or time.monotonic() > end:
                break
            time.sleep(0.1)
        return found

    def difference(self, name):
        now = EXACT[name]()
        if more := now - self.exact[name]:
            yield f"{name}: {dict(more)}"[:SHOWN]
        if fewer := self.exact[name] - now:
            yield f"{name} that are missing: {dict(fewer)}"[:SHOWN]

    def now(self):
        """What may vary, after the round that has ended."""
        for name, (take, _) in ROUGH.items():
            self.rounds[name].append(take())
        return ", ".join(f"{values[-1]} {name}" for name, values in self.rounds.items())

    def growth(self):
        """Sentences about what has grown since the first rounds, by more than it may."""
        for name, values in self.rounds.items():
            more = ROUGH[name][1]
            if values[WARM_ROUNDS:] and values[-1] > max(values[:WARM_ROUNDS]) + more:
                yield f"{name} grow by more than {more}: {values}"

# SPDX-License-Identifier: MIT
"""Whether the kernel's OOM killer did it: its counters, before and after.

/proc/vmstat counts the kills of the whole system (Linux 4.13), memory.events (cgroup v2) or
memory.oom_control (v1) those of this process's control group.
"""

from __future__ import annotations

import os
from collections import namedtuple

# How many there have been; None: not known here. The system is asked only where the group tells
# nothing.
Kills = namedtuple("Kills", ["system", "group"])


def _read_field(path: str, name: str) -> int | None:
    try:
        with open(path) as file:
            for line in file:
                words = line.split()
                if len(words) == 2 and words[0] == name:
                    return int(words[1])
    except (OSError, ValueError):
        pass
    return None


def _group_files(root: str) -> list[str]:
    """Where this process's groups may count."""
    files = []
    try:
        with open(os.path.join(root, "proc/self/cgroup")) as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                group = path.lstrip("/")
                mount = os.path.join(root, "sys/fs/cgroup")
                if controllers == "":
                    files.append(os.path.join(mount, group, "memory.events"))
                    files.append(os.path.join(mount, "unified", group, "memory.events"))
                elif "memory" in controllers.split(","):
                    files.append(os.path.join(mount, "memory", group, "memory.oom_control"))
                    # In a container the group is its own root.
                    files.append(os.path.join(mount, "memory", "memory.oom_control"))
    except (OSError, ValueError):
        pass
    return files


def read(root: str = "/") -> Kills:
    """The counters as they are now; root is for tests."""
    for path in _group_files(root):
        group = _read_field(path, "oom_kill")
        if group is not None:
            return Kills(None, group)
    return Kills(_read_field(os.path.join(root, "proc/vmstat"), "oom_kill"), None)


def verdict(before: Kills, after: Kills, deaths: int) -> bool | None:
    """Was it one of the kills in between? deaths: how many processes of ours have been killed by
    SIGKILL meanwhile, that one included. None: it can't be known here."""
    if before.group is not None and after.group is not None:
        kills = after.group - before.group
        if 0 < kills < deaths or kills < 0:  # which of ours; another group's
            return None
        return bool(kills)
    if before.system is not None and after.system is not None:
        # Somebody's; whose is not told.
        return None if after.system > before.system else False
    return None

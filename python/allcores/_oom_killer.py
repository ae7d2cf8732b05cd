# SPDX-License-Identifier: MIT
"""Whether the kernel's OOM killer killed a worker: from its counters, before and after.

/proc/vmstat counts the kills of the whole system (Linux 4.13), memory.events (cgroup v2) or
memory.oom_control (v1) those of this process's control group.
"""

from __future__ import annotations

import os
from collections import namedtuple

# Numbers of kills; None: not known here. That of the whole system is read only where there is none
# for the group.
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
    """The files in which this process's control groups may count kills."""
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
                    # In a container the group may be mounted as the root.
                    files.append(os.path.join(mount, "memory", "memory.oom_control"))
    except (OSError, ValueError):
        pass
    return files


def read_kills(root: str = "/") -> Kills:
    """Read the counters. Tests set root."""
    for path in _group_files(root):
        group = _read_field(path, "oom_kill")
        if group is not None:
            return Kills(None, group)
    return Kills(_read_field(os.path.join(root, "proc/vmstat"), "oom_kill"), None)


def was_killed(before: Kills, after: Kills, deaths: int) -> bool | None:
    """Whether the OOM killer killed a worker between two readings. deaths: how many workers died by
    SIGKILL between them, including this one. None: it cannot be known here."""
    if before.group is not None and after.group is not None:
        kills = after.group - before.group
        # Fewer kills than deaths: this worker's may be one or not. Negative: the process was moved
        # to another group.
        if 0 < kills < deaths or kills < 0:
            return None
        return bool(kills)
    if before.system is not None and after.system is not None:
        # The system's counter does not say whose process was killed.
        return None if after.system > before.system else False
    return None

# SPDX-License-Identifier: MIT
"""Who is whose parent, among the processes of a program whose workers are forked by a template."""
import contextlib
import os
import signal
import sys
import time

import sessions
import tasks

PATIENCE = 15.0


def parent(pid):
    """The pid of its parent."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def state(pid):
    """The letter that /proc has for the state of the process."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def children():
    """The pids of this process's children, those too that wait to be reaped."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if parent(name) == os.getpid():
                found.append(int(name))
        except OSError:
            pass  # it has ended
    return found


def pids(pool):
    return [worker.pid for worker in pool._pool]


def template(pool):
    """The parent of a worker. Only after settle(), if a template has been lost."""
    return parent(pids(pool)[0])


def servers(pool):
    """The living processes of this session besides this one, which leads it, and the workers:
    the template, and what stands ready to take over from it."""
    return sorted(set(sessions.members(os.getpid())) - {os.getpid(), *pids(pool)})


def wait(condition, what, seconds=PATIENCE):
    """Poll until condition() is true, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {seconds:g} s")
        time.sleep(0.002)
    return found


def wait_for_reserve(pool):
    """Until somebody stands ready to take over from the template."""
    return wait(lambda: len(servers(pool)) >= 2 and servers(pool), "a reserve of the template", 5)


def replace(pool, number=0):
    """Kill an idle worker from outside. Return its successor's pid."""
    pool.apply(tasks.nothing)  # from now on a thread of the engine's sees to its workers
    size, before = len(pool._pool), pids(pool)
    with contextlib.suppress(ProcessLookupError):  # it was to be recycled
        os.kill(before[number], signal.SIGKILL)
    wait(lambda: before[number] not in pids(pool) and len(pool._pool) == size, "a replacement")
    return next(iter(set(pids(pool)) - set(before)))


def lose_template(pool):
    """Kill the template, and wait until workers are forked by another one. Return its pid."""
    lost = template(pool)
    wait_for_reserve(pool)
    os.kill(lost, signal.SIGKILL)
    wait(lambda: lost not in servers(pool), "the template's end")
    found = parent(replace(pool))
    if found in (lost, os.getpid()):
        sys.exit(f"the replacement's parent is {found}")
    return found


def lose_all_templates(pool):
    """Kill the template and its reserve at the same moment."""
    wait_for_reserve(pool)
    for signum in (signal.SIGSTOP, signal.SIGKILL):  # stopped, none of them can fork another one
        for pid in servers(pool):
            os.kill(pid, signum)
    wait(lambda: not servers(pool), "the end of all templates")

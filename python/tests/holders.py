# SPDX-License-Identifier: MIT
"""Threads that hold locks for as long as their program runs, and tasks that take those locks."""
import collections
import ctypes
import importlib
import logging
import os
import signal
import sys
import threading
import time

import allcores
import tasks

OWNER = os.getpid()
AT_ONCE = 6  # calls that are under way
PATIENCE = 20.0

lock = threading.Lock()
reading, writing = os.pipe()
file = open(writing, "wb")
handler = logging.StreamHandler(open(os.devnull, "w"))
logger = logging.getLogger("holders")
logger.propagate = False
logger.addHandler(handler)

# Tasks import it at once; the owner, for ever.
SLOW_MODULE = """
import os, time, holders
if os.getpid() == holders.OWNER:
    holders.held["import"].set()
    time.sleep(10_000)
"""

held = collections.defaultdict(threading.Event)  # by kind: set when the thread has the lock


def use_import():
    import slow_module
    return slow_module and "used"


def use_logging():
    logging.getLogger(f"holders.{time.monotonic()}").setLevel(logging.INFO)
    return "used"


def use_handler():
    logger.error("from a worker")
    return "used"


def use_stdout():
    """The pipe is full, for workers, too: what they print goes elsewhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print("from a worker", flush=True)
    return "used"


def use_file():
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    file.write(b"from a worker")
    file.flush()
    return "used"


def use_user():
    with lock:
        return "used"


def use_malloc():
    churn(time.monotonic() + 0.001)
    return "used"


def hold_import():
    importlib.import_module("slow_module")


def hold_logging():
    with logging._lock:
        keep("logging")


def hold_handler():
    with handler.lock:
        keep("handler")


def hold_stdout():
    """Nobody reads what is printed."""
    threading.Timer(0.2, held["stdout"].set).start()
    sys.stdout.write("x" * (1 << 21))
    sys.stdout.flush()


def hold_file():
    threading.Timer(0.2, held["file"].set).start()
    file.write(bytes(1 << 21))


def hold_user():
    with lock:
        keep("user")


def hold_malloc():
    """Without the GIL, so that a fork may meet each of them within the allocator."""
    for _ in range(7):
        start(churn)
    held["malloc"].set()
    churn()


def keep(kind):
    held[kind].set()
    threading.Event().wait()


def churn(end=None):
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    sizes = (24, 500, 5000, 200_000)
    while end is None or time.monotonic() < end:
        blocks = [libc.malloc(size) for size in sizes for _ in range(10)]
        data = [bytes(size) for size in sizes]
        for block in blocks:
            libc.free(block)
        del data


def start(function):
    threading.Thread(target=function, daemon=True).start()


def prepare(kinds, folder):
    """Before Pool(): return the tasks that use these locks."""
    sys.path.insert(0, folder)
    with open(os.path.join(folder, "slow_module.py"), "w") as file:
        file.write(SLOW_MODULE)
    return [globals()[f"use_{kind}"] for kind in kinds]


def hold(kinds):
    """After Pool(): take the locks, in a thread for each."""
    for kind in kinds:
        start(globals()[f"hold_{kind}"])
    for kind in kinds:
        if not held[kind].wait(PATIENCE):
            sys.exit(f"the {kind} lock was not taken")


def use_and_end(use, how):
    """Use the lock; then the worker dies, or is recycled."""
    found = use()
    if how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def replace_many(pool, uses, count, notes):
    """Have count workers end, each after it has used one of the locks, and check each."""
    under_way = collections.deque()
    ways = ("exit", "recycle", "kill", "recycle")
    for number in range(count):
        how = ways[number % len(ways)]
        use = uses[number // len(ways) % len(uses)]
        under_way.append((how, pool.apply_async(use_and_end, (use, how))))
        if len(under_way) == AT_ONCE:
            check(*under_way.popleft())
    for how, result in under_way:
        check(how, result)
    tasks.note(notes, f"{count} workers replaced")


def check(how, result):
    try:
        found = result.get(PATIENCE)
    except allcores.WorkerDied:
        found = "died"
    except allcores.TimeoutError:
        sys.stderr.write(f"hangs: {how}\n")
        os._exit(9)
    if found != ("used" if how == "recycle" else "died"):
        sys.stderr.write(f"{how}: {found}\n")
        os._exit(10)

# SPDX-License-Identifier: MIT
"""What the workers of the long random run do, and what each of it must end with.

An order is a tuple (kind, number, amount, blob). Nothing here needs a lock that another thread
of the owner may hold when it forks: no prints, no logging, no imports on the way.
"""
import faulthandler
import os
import resource
import signal
import sys
import time
from multiprocessing.pool import MaybeEncodingError

import allcores

FACTOR = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1

state = None  # set by the initializer


class Trouble(Exception):
    """With the number of the order that raised it."""


class Odd(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__(lambda: None)


class TwoArguments(Exception):
    """Can be pickled and never be rebuilt."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def fill(number, size):
    """Bytes that tell whether they are the right ones."""
    unit = (number * FACTOR & MASK).to_bytes(8, "little")
    return (unit * (size // 8 + 1))[:size]


def set_state(token):
    global state
    state = token


def fail_start(number):
    sys.exit(number)  # of all exceptions the one that prints no traceback


# ---- kinds that return ----

def burn(number, amount, blob):
    end = time.perf_counter() + amount / 1e6
    while time.perf_counter() < end:
        pass


def nap(number, amount, blob):
    time.sleep(amount / 1e6)


def take(number, amount, blob):
    if blob != fill(number + 1, len(blob)):
        raise ValueError("the argument is damaged")


def fork_and_exit(number, amount, blob):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def fork_and_return(number, amount, blob):
    """The child comes back from the task, and nobody may hear of it."""
    child = os.fork()
    if child == 0:
        return b"the child"
    os.waitpid(child, 0)


# ---- kinds that raise ----

def fail(number, amount, blob):
    raise Trouble(number)


def fail_odd(number, amount, blob):
    raise Odd


def fail_two_arguments(number, amount, blob):
    raise TwoArguments(number, amount)


def return_odd(number, amount, blob):
    return lambda: None


# ---- kinds that die ----

def die(number, amount, blob):
    """amount: an exit code, or a signal's number, negative."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    if amount >= 0:
        os._exit(amount)
    os.kill(os.getpid(), -amount)
    time.sleep(60)


def leave(number, amount, blob):
    sys.exit(amount)


DEATHS = (7, 0, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGTERM)

FINE = {"now": None, "state": None, "burn": burn, "nap": nap, "take": take,
        "fork_and_exit": fork_and_exit, "fork_and_return": fork_and_return}
BAD = {"fail": fail, "fail_odd": fail_odd, "fail_two_arguments": fail_two_arguments,
       "return_odd": return_odd}
DEADLY = {"die": die, "leave": leave}
KINDS = {**FINE, **BAD, **DEADLY}


def do_star(kind, number, amount, blob):
    """(number, the worker's pid, bytes), unless the kind has it otherwise."""
    action = KINDS[kind]
    found = action and action(number, amount, blob)
    if found is None:
        found = repr(state).encode() if kind == "state" else fill(number, amount)
    return number, os.getpid(), found


def do(order):
    return do_star(*order)


class Clerk:
    """Its bound method is a function, too."""

    def do(self, order):
        return do_star(*order)


# ---- in the owner ----

def is_right(order, value, token):
    """Whether the order's value is that; token: what the initializer set, or None."""
    kind, number, amount, _ = order
    expected = repr(token).encode() if kind == "state" else fill(number, amount)
    return kind in FINE and value[0] == number and value[2] == expected


def is_own_end(order, error):
    """Whether the order, left alone, ends with this exception."""
    kind, number, amount, _ = order
    if kind == "fail":
        return isinstance(error, Trouble) and error.args == (number,)
    if kind in BAD:
        return isinstance(error, MaybeEncodingError)
    return (kind in DEADLY and isinstance(error, allcores.WorkerDied)
            and error.exitcode == amount)

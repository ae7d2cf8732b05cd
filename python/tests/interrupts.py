# SPDX-License-Identifier: MIT
"""Ctrl-C at each place where Python looks for it: as a function of the package is entered.

A signal handler runs between two instructions of the main thread, where a function begins, after
a call, and where a loop goes round. Here SIGINT is raised at each of the first kind in turn, each
in a forked copy of this process.
"""
import multiprocessing.util
import os
import signal
import sys
import time
import traceback

import allcores
import sessions

# The package's files, and those of multiprocessing whose state its own depends on.
PLACES = (os.path.dirname(allcores.__file__) + os.sep, multiprocessing.util.__file__)
PATIENCE = 20.0


class At:
    """In its block SIGINT comes as the number-th function is entered (None: never)."""

    def __init__(self, number=None):
        self.number = number
        self._pid = None
        self.entered = []  # names of functions

    def __enter__(self):
        self._pid = os.getpid()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc):
        sys.settrace(None)

    def came(self):
        """Whether it has come: two runs need not enter the same functions."""
        return self.number is not None and self.number < len(self.entered)

    def _trace(self, frame, event, arg):
        code = frame.f_code
        if os.getpid() == self._pid and code.co_filename.startswith(PLACES):
            self.entered.append(f"{os.path.basename(code.co_filename)} {code.co_qualname}")
            if len(self.entered) - 1 == self.number:
                signal.raise_signal(signal.SIGINT)


def check(scenario):
    """Print a line for each place that scenario(at) does not come through.

    It makes what it needs, does what is to be interrupted in `with at`, and in the end whatever
    must still go; KeyboardInterrupt may come out of its block and of nothing else. Then the
    process exits, and all that it started must be gone.
    """
    at = At()
    _run(scenario, at, None)
    for name in dict.fromkeys(at.entered):
        place = f"{scenario.__name__}, interrupted in {name}"
        _run(scenario, At(at.entered.index(name)), place)
    print(scenario.__name__, len(at.entered) > 5, flush=True)


def _run(scenario, at, place):
    if place is None:
        scenario(at)
        return
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            scenario(at)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        sys.exit(0)
    status = _wait(child)
    left = sessions.left(child, PATIENCE / 4)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(f"{place}: hangs", flush=True)
    elif status != 0 or left:
        print(f"{place}: status {status}, left {left}", flush=True)


def _wait(child):
    """Its status, or None: it does not end."""
    end = time.monotonic() + PATIENCE / 2
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.001)
    return None

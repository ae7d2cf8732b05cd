# SPDX-License-Identifier: MIT
"""Ctrl-C at each place where Python looks for it.

A signal handler runs between two instructions of the main thread: where a function begins, after
a call of what is not written in Python, and where a loop goes round. Here SIGINT is raised at each
such place in turn, as it is come to for the first time, each in a forked copy of this process.
"""
import dis
import functools
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import traceback

import allcores
import sessions

# The package's files, and those of the standard library whose state its own depends on.
PLACES = (os.path.dirname(allcores.__file__) + os.sep, multiprocessing.util.__file__,
          threading.__file__)
PATIENCE = 20.0
LOOKS = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}


@functools.cache
def _table(code):
    return dis._parse_exception_table(code)


def _handler(code, offset):
    """Where an exception raised at this offset is handled."""
    for entry in _table(code):
        if entry.start <= offset < entry.end:
            return entry.target
    return None


class At:
    """In its block SIGINT comes at the place (None: never)."""

    def __init__(self, place=None):
        self.place = place
        self.came = False
        self.places = {}  # in the order in which they were come to
        self._pid = None
        self._callers = set()  # frames whose last call was of Python code, which looks by itself

    def __enter__(self):
        self._pid = os.getpid()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *exc):
        sys.settrace(None)

    def _reach(self, code, offset, line):
        place = f"{os.path.basename(code.co_filename)}:{line} {code.co_qualname} @{offset}"
        if os.getpid() != self._pid or place in self.places:
            return
        self.places[place] = True
        if place == self.place:
            self.came = True
            signal.raise_signal(signal.SIGINT)

    def _enter(self, frame, event, arg):
        code = frame.f_code
        self._callers.add(frame.f_back)
        if not code.co_filename.startswith(PLACES):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._reach(code, -1, code.co_firstlineno)
        last = None

        def step(frame, event, arg):
            nonlocal last
            if event == "opcode":
                here, before, last = frame.f_lasti, last, frame.f_lasti
                called_python = frame in self._callers
                self._callers.discard(frame)
                if (before is not None and not called_python
                        and dis.opname[code.co_code[before]] in LOOKS
                        # What is raised here must go where it would have gone from there.
                        and _handler(code, before) == _handler(code, here)):
                    self._reach(code, here, frame.f_lineno)
            return step

        return step


def check(scenario):
    """Print a line for each place that scenario(at) does not come through.

    It makes what it needs, does what is to be interrupted in `with at`, and in the end whatever
    must still go; KeyboardInterrupt may come out of its block and of nothing else. Then the
    process exits, and all that it started must be gone.
    """
    at = At()
    scenario(at)
    for place in at.places:
        _run(scenario, At(place), f"{scenario.__name__}, interrupted in {place}")
    print(scenario.__name__, len(at.places), flush=True)


def _run(scenario, at, place):
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

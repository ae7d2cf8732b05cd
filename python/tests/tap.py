#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run unittest modules, print TAP, and outlive a test that hangs or crashes.

    PYTHONPATH=python python3 python/tests/tap.py [-k TEXT] [-t SECONDS] MODULE...

The tests run in a child process, one after the other. The child notes each
beginning and each end in a journal; when a test takes too long, or takes the
child with it, that test is "not ok" and a new child goes on behind it. The
time limit is watched from outside, so that the child has no thread that the
tests did not start.
"""
import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT = 60.0  # seconds for a test; its class may have another "limit"
GRACE = 2.0  # seconds to print where it hangs
DUMP = signal.SIGXCPU  # "took too long"; faulthandler cannot chain SIGABRT
SKIP_CODE = 77


def flatten(suite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from flatten(part)
        else:
            yield part


def load(modules, text):
    """The tests whose name contains text, in a fixed order."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    return [test for test in flatten(suite) if text in test.id()]


class Journal:
    """A file of lines "index limit" at a beginning, "end" at an end."""

    def __init__(self, path):
        self.path = path

    def write(self, line):
        with open(self.path, "a") as file:
            file.write(f"{line}\n")

    def last(self):
        with open(self.path) as file:
            return (file.read().splitlines() or [""])[-1]


class TapResult(unittest.TestResult):
    """Prints a line for each test as soon as it has ended."""

    def __init__(self, journal, first, limit):
        super().__init__()
        self.journal = journal
        self.number = first
        self.limit = limit
        self.trouble = self.why_skipped = None

    def startTest(self, test):
        super().startTest(test)
        self.trouble = self.why_skipped = None
        limit = getattr(test, "limit", None) or self.limit
        self.journal.write(f"{self.number} {limit}")

    def stopTest(self, test):
        super().stopTest(test)
        self.number += 1
        say(self.number, test.id(), self.trouble, self.why_skipped)
        self.journal.write("end")

    def tell(self, test, error):
        self.trouble = "failed"
        text = "".join(traceback.format_exception(*error))
        print(f"---- {test.id()}\n{text}", file=sys.stderr, flush=True)
        if not isinstance(test, unittest.TestCase):  # setUpClass and its like
            say("", test.id(), self.trouble, None)

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.tell(test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.why_skipped = reason
        if not isinstance(test, unittest.TestCase):
            say("", test.id(), None, reason)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.trouble = "unexpected success"


def say(number, name, trouble, why_skipped):
    line = f"{'not ok' if trouble else 'ok'} {number} - {name}"
    if why_skipped is not None and not trouble:
        line += f" # SKIP {why_skipped}"
    print(line, flush=True)


def run_child(modules, text, first, journal, limit):
    """Run the tests from number first on, in this process.

    It was started with -c, so that spawned workers have no main module to import.
    """
    faulthandler.register(DUMP, all_threads=True, chain=True)
    # A shell starts what runs in the background with Ctrl-C ignored, which programs inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tests = load(modules, text)[first:]
    result = TapResult(Journal(journal), first, float(limit))
    unittest.TestSuite(tests).run(result)
    return 0 if result.wasSuccessful() else 1


def overdue(journal, state):
    """Whether the running test has had its time; state remembers when it began."""
    line = journal.last()
    if line != state.get("line"):
        state.update(line=line, began=time.monotonic())
    index, _, limit = line.partition(" ")
    return bool(limit) and time.monotonic() - state["began"] > float(limit)


def wait_for(child, journal):
    """Wait until the child has ended by itself or was ended for taking too long."""
    state = {}
    while True:
        try:
            child.wait(0.2)
            return ""
        except subprocess.TimeoutExpired:
            if not overdue(journal, state):
                continue
        child.send_signal(DUMP)
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return "took too long"


def kill_group(pid):
    """What an aborted test may have left in its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run_from(first, args, journal):
    """One child: (its exit code, number of the test that it died in or None, why)."""
    code = "import sys, tap; sys.exit(tap.run_child({!r}, {!r}, {!r}, {!r}, {!r}))"
    code = code.format(args.modules, args.k, first, journal.path, args.t)
    path = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))
    env = dict(os.environ, PYTHONPATH=path, TMPDIR=os.path.dirname(journal.path))
    child = subprocess.Popen([sys.executable, "-c", code], process_group=0, env=env)
    try:
        why = wait_for(child, journal)
    except BaseException:
        kill_group(child.pid)
        raise
    index, _, running = journal.last().partition(" ")
    if not running:
        return child.returncode, None, why
    kill_group(child.pid)
    return child.returncode, int(index), why or f"exit status {child.returncode}"


def run(args):
    tests = load(args.modules, args.k)
    print(f"1..{len(tests)}", flush=True)
    first, failed = 0, not tests
    # The tests' files lie in it, too: nobody else removes those of an aborted one.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        journal = Journal(os.path.join(folder, "journal"))
        while first < len(tests):
            journal.write("end")
            code, victim, why = run_from(first, args, journal)
            failed = failed or code != 0 or victim is not None
            if victim is None:
                break
            print(f"---- {tests[victim].id()}: {why}", file=sys.stderr, flush=True)
            say(victim + 1, tests[victim].id(), why, None)
            first = victim + 1
    return int(failed)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="TEXT", help="only tests with TEXT in their name")
    parser.add_argument("-t", default=LIMIT, type=float, metavar="SECONDS",
                        help=f"limit for each test ({LIMIT:g})")
    parser.add_argument("modules", nargs="+", metavar="MODULE")
    sys.path.insert(0, HERE)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())

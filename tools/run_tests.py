#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Build, run the tests, and count them case by case.

    run_tests.py [-j N] [-k TEXT] RUN...

A RUN is  [valgrind@]DIR[:NAME,NAME...]  where DIR is a configured build
directory and each NAME a suite or a test; none means every suite but stress.
The last line is always "N passed, N failed[, N skipped]"; the exit code is 0
only if nothing failed and something ran.

Every test runs in a session of its own. When its program has ended, nothing
of it may be left: processes still there a second later are a failure, and
are killed. Orphans come to this program (it is their subreaper), so that a
killed process is gone for its test also where process 1 reaps nobody.
"""
import argparse
import collections
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

GRACE = 1.0  # seconds that processes may take to follow their program
SHOWN = 6000  # bytes of a failed program's output, from its end
SKIP_CODE = 77
VALGRIND = ("valgrind -q --error-exitcode=99 --leak-check=full "
            "--errors-for-leak-kinds=definite --child-silent-after-fork=yes")
MARK = "ALLCORES_TEST_ID"
PR_SET_CHILD_SUBREAPER = 36

TAP = re.compile(r"^(not )?ok\b[ \t]*\d*[ \t]*(?:- )?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)")
SKIP = re.compile(r"#[ \t]*skip\S*[ \t]*(.*)", re.I)

Case = collections.namedtuple("Case", "result name reason")


class Test:
    """One command: how to run it, and how its run went."""

    def __init__(self, label, info, wrap, patience):
        self.label = f"{label}/{info['name']}"
        self.suites = [s.split(":")[-1] for s in info["suite"]]
        self.name = info["name"]
        self.cmd = wrap + info["cmd"]
        self.env = info["env"]
        self.cwd = info["workdir"]
        self.parallel = info["is_parallel"]
        timeout = info["timeout"]
        self.timeout = timeout * patience if timeout > 0 else None
        self.status = None  # as os.waitpid gives it
        self.faults = []  # what went wrong besides the cases
        self.left = []

    def start(self):
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.TemporaryFile()
        self.id = f"{os.getpid()}.{id(self)}"
        env = dict(os.environ, **self.env)
        env[MARK] = self.id
        self.began = time.monotonic()
        self.pid = None
        try:
            # Kept, because one that is dropped takes the exit status away.
            self.process = subprocess.Popen(
                self.cmd, cwd=self.cwd, env=env, stdin=subprocess.DEVNULL,
                stdout=self.out, stderr=self.err, start_new_session=True)
            self.pid = self.process.pid
        except OSError as error:
            self.faults.append(f"cannot be started: {error}")
            self.status = 0

    def ended(self, status):
        self.status = status
        self.process.returncode = os.waitstatus_to_exitcode(status)

    def overdue(self):
        return self.timeout and time.monotonic() - self.began > self.timeout

    def text(self, file):
        file.seek(0)
        return file.read().decode(errors="replace")

    def cases(self):
        """All cases, the program's own misbehaviour being one more."""
        out = self.text(self.out)
        cases, planned = parse_tap(out)
        code = os.waitstatus_to_exitcode(self.status)
        failed = any(c.result == "failed" for c in cases)
        if code < 0:
            self.faults.append(f"killed by {signal_name(-code)}")
        elif cases and planned is not None and len(cases) != planned:
            self.faults.append(f"{planned} cases planned, {len(cases)} seen")
        elif cases and code != 0 and not failed and not only_skips(cases):
            self.faults.append(f"exit code {code}")
        if self.left:
            self.faults.append("left behind: " + "; ".join(self.left))
        if self.faults:
            cases.append(Case("failed", "the program", "; ".join(self.faults)))
        if not cases:
            cases.append(self.case_of_exit_code(code, out))
        return cases

    def case_of_exit_code(self, code, out):
        if code == 0:
            return Case("passed", "exit code", "")
        if code == SKIP_CODE:
            words = (out + self.text(self.err)).strip().splitlines()
            return Case("skipped", "exit code", words[-1] if words else "")
        return Case("failed", "", f"exit code {code}")


def only_skips(cases):
    """cmocka 1.1 counts a skipped case as neither, but writes "not ok"."""
    return all(c.result == "skipped" for c in cases)


def parse_tap(text):
    cases, planned = [], None
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            planned = (planned or 0) + int(plan[1])
            continue
        found = TAP.match(line)
        if not found:
            continue
        skip = SKIP.search(found[2])
        if skip:
            # "name # SKIP why", or cmocka's "# SKIP name".
            name = found[2][:skip.start()].strip()
            cases.append(Case("skipped", name or skip[1], skip[1]))
        else:
            cases.append(Case("failed" if found[1] else "passed", found[2], ""))
    return cases, planned


def signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# ---- processes ----

def become_subreaper():
    try:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # orphans then go to process 1


def read_proc(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def leftovers(test):
    """Pids of its session, or with its mark in their environment."""
    mark = f"{MARK}={test.id}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == test.pid:
            continue
        stat = read_proc(entry, "stat").rpartition(b") ")[2].split()
        if len(stat) < 4 or stat[0] in b"ZX":
            continue
        if int(stat[3]) == test.pid or \
                mark in read_proc(entry, "environ").split(b"\0"):
            found.append(int(entry))
    return found


def describe(pid):
    command = read_proc(pid, "cmdline").replace(b"\0", b" ").decode(
        errors="replace")[:60].strip()
    return f"{pid} {read_proc(pid, 'comm').decode(errors='replace').strip()}" \
           f" ({command})"


def wchan(pid):
    return read_proc(pid, "wchan").decode(errors="replace") or "?"


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def reap(running):
    """Wait for whoever has ended: tests, and orphans that came to us."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for test in running:
            if test.pid == pid:
                test.ended(status)


def end(test, running):
    """Its program has ended: nothing of it may be left."""
    deadline = time.monotonic() + (0 if test.faults else GRACE)
    left = leftovers(test)
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        reap(running)
        left = leftovers(test)
    if not test.faults:  # after a timeout they are no news
        test.left = [describe(pid) for pid in left]
    while left:
        for pid in left:
            kill(pid)
        time.sleep(0.01)
        reap(running)
        left = leftovers(test)


# ---- the run ----

def run_all(tests, jobs, report):
    """Parallel ones first, then each of the others by itself."""
    waiting = [t for t in tests if t.parallel]
    waiting += [t for t in tests if not t.parallel]
    running = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs and (
                    not running or waiting[0].parallel):
                running.append(waiting.pop(0))
                running[-1].start()
            reap(running)
            for test in [t for t in running if t.status is not None]:
                if test.pid:
                    end(test, running)
                running.remove(test)
                report(test)
            for test in running:
                if test.overdue() and not test.faults:
                    test.faults.append(f"out of time after {test.timeout} s")
                    test.faults += [f"{describe(pid)} was in {wchan(pid)}" for
                                    pid in [test.pid] + leftovers(test)]
                    kill(test.pid)
            time.sleep(0.005)
    finally:
        for test in running:  # we were interrupted
            for pid in leftovers(test):
                kill(pid)
            kill(test.pid)


class Report:
    """Prints a line for each program; keeps what failed for the end."""

    def __init__(self):
        self.count = collections.Counter()
        self.failures = []

    def __call__(self, test):
        cases = test.cases()
        count = collections.Counter(c.result for c in cases)
        self.count += count
        took = time.monotonic() - test.began
        print(f"{test.label:<44} {summary(count):<34} {took:6.2f} s", flush=True)
        for case in cases:
            if case.result == "skipped":
                print(f"    skipped: {case.name}: {case.reason}", flush=True)
        if count["failed"]:
            self.failures.append((test, cases))

    def failed_build(self, directory, output):
        self.count["failed"] += 1
        print(f"{directory}: the build failed", flush=True)
        print(output[-SHOWN:], flush=True)

    def close(self, using=""):
        for test, cases in self.failures:
            print(f"\n==== {test.label}: {' '.join(test.cmd)}")
            for case in cases:
                if case.result == "failed":
                    print(" ".join(filter(None, ("failed:", case.name, case.reason))))
            for name, file in ("stdout", test.out), ("stderr", test.err):
                text = test.text(file).rstrip()
                if text:
                    print(f"---- {name}\n{text[-SHOWN:]}")
        print(("\n" if self.failures else "") + summary(self.count) +
              (f", {using}" if using else ""))
        return 1 if self.count["failed"] or not self.count["passed"] else 0


def summary(count):
    text = f"{count['passed']} passed, {count['failed']} failed"
    if count["skipped"]:
        text += f", {count['skipped']} skipped"
    return text


# ---- what to run ----

def load(directory, name):
    with open(os.path.join(directory, "meson-info", f"intro-{name}.json")) as f:
        return json.load(f)


def sanitizer_of(directory):
    for option in load(directory, "buildoptions"):
        if option["name"] == "b_sanitize":
            return option["value"]
    return "none"


def fixed_addresses():
    """Sanitizers of gcc 12 and clang 14 fail at times where the kernel
    scatters addresses far. Some containers forbid turning that off."""
    setarch = shutil.which("setarch")
    if setarch and subprocess.run([setarch, "-R", "true"],
                                  stderr=subprocess.DEVNULL).returncode == 0:
        return [setarch, "-R"]
    return []


def tests_of(run, match):
    tool, _, rest = run.rpartition("@")
    directory, _, names = rest.partition(":")
    wanted = [n for n in names.split(",") if n]
    wrap, patience, label = [], 1, os.path.basename(directory)
    if tool == "valgrind":
        if not shutil.which("valgrind"):
            print("valgrind is not here: its run is left out")
            return []
        wrap, patience, label = VALGRIND.split(), 10, "valgrind"
    elif sanitizer_of(directory) not in ("none", ""):
        wrap, patience = fixed_addresses(), 5
    chosen = []
    for info in load(directory, "tests"):
        test = Test(label, info, wrap, patience)
        if wanted and test.name not in wanted and \
                not set(test.suites) & set(wanted):
            continue
        if not wanted and "stress" in test.suites:
            continue
        if match in test.name:
            chosen.append(test)
    return chosen


def directory_of(run):
    return run.rpartition("@")[2].partition(":")[0]


def build(directory):
    """None, or what the failed build said."""
    done = subprocess.run(["ninja", "-C", directory], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.stdout if done.returncode else None


def sort_key(test):
    """Suites from the lowest floor up: the first red line is the cause."""
    order = ["unit", "crash", "sweep", "model", "programs", "install", "stress"]
    return min([order.index(s) for s in test.suites if s in order],
               default=len(order))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-j", type=int, default=2, metavar="N",
                        help="programs at a time (2)")
    parser.add_argument("-k", default="", metavar="TEXT",
                        help="only tests with TEXT in their name")
    parser.add_argument("--with", dest="using", default="", metavar="TEXT",
                        help="what the last line ends with: the interpreters, say")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    args = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    broken = set()
    for directory in dict.fromkeys(map(directory_of, args.runs)):
        output = build(directory)
        if output is not None:
            broken.add(directory)
            report.failed_build(directory, output)
    become_subreaper()
    for run in args.runs:
        if directory_of(run) not in broken:
            tests = sorted(tests_of(run, args.k), key=sort_key)
            run_all(tests, args.j, report)
    return report.close(args.using)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the tests of several build directories, and count them case by case.

    run_tests.py [-j N] [-k TEXT] RUN...

A RUN is  [valgrind@]DIR[:NAME,NAME...]  where DIR is a configured build
directory and each NAME a suite or a test; none means every suite but stress.
What these tests need is built first. The last line is always "N passed, N
failed[, N skipped]"; the exit code is 0 only if nothing failed and something
ran.

For one test `meson test -C DIR NAME` does, too. This program adds what meson
lacks:

- All runs are one queue, the longest test first, so that no processor is idle
  while the last tests of one build directory end. How many seconds a test
  takes is its priority in its meson.build. Each suite's time is printed beside
  the sum of these; a test that takes longer does not fail for it.
- Nothing of a test may be left when its program has ended: processes that are
  still there a second later are a failure, and are killed. Every test runs in
  a session of its own. Orphans come to this program (it is their subreaper),
  so that a killed process is gone for its test also where process 1 reaps
  nobody.
"""
import argparse
import collections
import ctypes
import json
import math
import os
import re
import resource
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
# How much longer a test takes there, and how much longer it may take before it hangs.
SLOWER = {"valgrind": (5, 10), "sanitizer": (1.2, 5)}
MARK = "ALLCORES_TEST_ID"
PR_SET_CHILD_SUBREAPER = 36

TAP = re.compile(r"^(not )?ok\b[ \t]*\d*[ \t]*(?:- )?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)")
SKIP = re.compile(r"#[ \t]*skip\S*[ \t]*(.*)", re.I)

Case = collections.namedtuple("Case", "result name reason")


class Test:
    """One command: how to run it, and how its run went."""

    def __init__(self, build, info, wrap, slower=(1, 1)):
        self.label = f"{build}/{info['name']}"
        self.suites = [s.split(":")[-1] for s in info["suite"]]
        self.suite = f"{build}/{self.suites[0]}"
        self.name = info["name"]
        self.cmd = wrap + info["cmd"]
        self.env = info["env"]
        self.cwd = info["workdir"]
        self.prints_tap = info["protocol"] == "tap"
        self.parallel = info["is_parallel"]
        self.depends = info["depends"]
        self.budget = max(info["priority"], 1) * slower[0]
        self.timeout = info["timeout"] * slower[1]
        if self.timeout <= 0:  # it goes on for as long as it is asked to
            self.budget = self.timeout = math.inf
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
        return time.monotonic() - self.began > self.timeout

    def text(self, file):
        file.seek(0)
        return file.read().decode(errors="replace")

    def cases(self):
        """All cases, the program's own misbehaviour being one more."""
        out = self.text(self.out)
        code = os.waitstatus_to_exitcode(self.status)
        cases, planned = parse_tap(out) if self.prints_tap else ([], 0)
        results = {c.result for c in cases}
        if code < 0:
            self.faults.append(f"killed by {signal_name(-code)}")
        elif len(cases) != planned:
            self.faults.append(f"{planned or 'no'} cases planned, {len(cases)} seen")
        elif code > 0 and "passed" in results and "failed" not in results:
            self.faults.append(f"exit code {code}")
        if self.left:
            self.faults.append("left behind: " + "; ".join(self.left))
        if self.faults:
            cases.append(Case("failed", "the program", "; ".join(self.faults)))
        return cases or [self.case_of_exit_code(code, out)]

    def case_of_exit_code(self, code, out):
        if code == 0:
            return Case("passed", "exit code", "")
        if code == SKIP_CODE:
            words = (out + self.text(self.err)).strip().splitlines()
            return Case("skipped", "exit code", words[-1] if words else "")
        return Case("failed", "exit code", str(code))


def parse_tap(text):
    """The cases, and how many were planned: None when the program says nothing of it."""
    cases, planned = [], None
    for line in text.splitlines():
        plan = PLAN.match(line)
        if plan:
            planned = int(plan[1])
        found = TAP.match(line)
        skip = SKIP.search(line)
        if skip and plan:  # "1..0 # SKIP why"
            cases.append(Case("skipped", "all cases", skip[1]))
            planned = 1
        elif skip and found:  # "ok 1 - name # SKIP why", or cmocka's "not ok 1 # SKIP name"
            name = found[2].partition("#")[0].strip()
            cases.append(Case("skipped", name or skip[1], skip[1]))
        elif found:
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
    """The longest first; those that must run alone at the end, one by one."""
    waiting = sorted(tests, key=lambda t: (not t.parallel, -t.budget))
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


def processor_time():
    """Of all processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Report:
    """Prints a line for each program; keeps what failed for the end."""

    def __init__(self):
        self.count = collections.Counter()
        self.failures = []
        self.took = collections.Counter()  # by suite
        self.budget = collections.Counter()
        self.began, self.used = time.monotonic(), processor_time()
        self.planned = self.run = 0

    def plan(self, tests, jobs):
        seconds = sum(t.budget for t in tests) / jobs
        self.planned = len(tests)
        self.began, self.used = time.monotonic(), processor_time()
        print(f"{len(tests)} test programs, {jobs} at a time" +
              (f": about {seconds / 60:.1f} minutes" if seconds < math.inf else ""),
              flush=True)

    def __call__(self, test):
        took = time.monotonic() - test.began
        cases = test.cases()
        count = collections.Counter(c.result for c in cases)
        self.count += count
        self.run += 1
        self.took[test.suite] += took
        self.budget[test.suite] += test.budget
        print(f"[{self.run:3}/{self.planned}] {test.label:<32} "
              f"{summary(count):<34} {took:6.2f} s", flush=True)
        for case in cases:
            if case.result == "skipped":
                print(f"    skipped: {case.name}: {case.reason}", flush=True)
        if count["failed"]:
            self.failures.append((test, cases))
        else:
            test.out.close()
            test.err.close()

    def failed_build(self, directory, output):
        self.count["failed"] += 1
        print(f"{directory}: the build failed", flush=True)
        print(output[-SHOWN:], flush=True)

    def print_times(self):
        print(f"\n{'suite':<24} {'took':>6} {'budget':>8}")
        for suite, took in self.took.items():
            budget = self.budget[suite]
            print(f"{suite:<24} {took:6.0f} {budget:6.0f} s" +
                  ("   over its budget" if took > budget else ""))
        print(f"all took {time.monotonic() - self.began:.0f} s, and "
              f"{processor_time() - self.used:.0f} s of processor time")

    def close(self):
        self.print_times()
        for test, cases in self.failures:
            print(f"\n==== {test.label}: {' '.join(test.cmd)}")
            for case in cases:
                if case.result == "failed":
                    print(" ".join(filter(None, ("failed:", case.name, case.reason))))
            for name, file in ("stdout", test.out), ("stderr", test.err):
                text = test.text(file).rstrip()
                if text:
                    print(f"---- {name}\n{text[-SHOWN:]}")
        print("\n" + summary(self.count))
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
    wanted = set(filter(None, names.split(",")))
    wrap, slower, build = [], (1, 1), os.path.basename(directory)
    if tool == "valgrind":
        if not shutil.which("valgrind"):
            print("valgrind is not here: its run is left out")
            return []
        wrap, slower, build = VALGRIND.split(), SLOWER["valgrind"], "valgrind"
    elif sanitizer_of(directory) not in ("none", ""):
        wrap, slower = fixed_addresses(), SLOWER["sanitizer"]
    chosen = []
    for info in load(directory, "tests"):
        test = Test(build, info, wrap, slower)
        names = {test.name, *test.suites}
        if match in test.name and (
                names & wanted if wanted else "stress" not in test.suites):
            chosen.append(test)
    return chosen


def directory_of(run):
    return run.rpartition("@")[2].partition(":")[0]


def needed_by(tests, directory):
    """Ninja's names of what the tests depend on."""
    files = {target["id"]: target["filename"] for target in load(directory, "targets")}
    return {os.path.relpath(file, os.path.realpath(directory))
            for test in tests for target in test.depends for file in files[target]}


def ninja(directory, *targets):
    """None, or what the failed build said."""
    done = subprocess.run(["ninja", "-C", directory, *targets], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.stdout if done.returncode else None


def build(directory, runs, match):
    """The tests of these runs, built: (tests, what a failed build said or None)."""
    print(f"building what the tests of {directory} need", flush=True)
    output = ninja(directory, "build.ninja")  # a meson.build may have changed
    if output is not None:
        return [], output
    tests = [test for run in runs for test in tests_of(run, match)]
    output = ninja(directory, *needed_by(tests, directory))
    return tests if output is None else [], output


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    jobs = len(os.sched_getaffinity(0)) + 1  # tests sleep for a third of their time
    parser.add_argument("-j", type=int, default=jobs, metavar="N",
                        help=f"programs at a time ({jobs}: one more than processors)")
    parser.add_argument("-k", default="", metavar="TEXT",
                        help="only tests with TEXT in their name")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    args = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report()
    tests = []
    for directory in dict.fromkeys(map(directory_of, args.runs)):
        runs = [run for run in args.runs if directory_of(run) == directory]
        built, output = build(directory, runs, args.k)
        tests += built
        if output is not None:
            report.failed_build(directory, output)
    become_subreaper()
    report.plan(tests, args.j)
    run_all(tests, args.j, report)
    return report.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A worker is killed after each store to shared memory and at each of its system calls.

One of two workers is led by ptrace (tracer.py) through a script (kill_stage.py): once to learn
its places, then a fresh pool for each place, where it is killed: after a store; before a system
call, asleep inside of it, after it. Then what it held fails, as killed by SIGKILL with its pid,
everything else comes once and right, the pool works, closes, and leaves nothing.

What it held: the calls that fail are one stretch of the path each, in the order of the calls;
where all places are run it begins and ends with a store to the same word, the call's.

Not run: a store that changes no byte, and a system call with nothing since the last one: the
same is left behind as at the place before. Of stores in a row that are not the engine's own
(copying), and of an instruction that repeats itself: the first, the last, 16 between.

A part of the places is run; with ALLCORES_KILLS=all in the environment: all of them, by fork, and
a large part by the other start methods.
"""
import ctypes
import errno
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import tracer
from support import engine_only, for_each_method

ALL = os.environ.get("ALLCORES_KILLS") == "all"
MODULE = "test_kills"
HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30.0  # seconds for an answer; the stage's own bounds are shorter
BETWEEN = 16
TRIES = 4
PART = 12  # runs of each script where not all are made
MOST = 100  # where a run takes long, since interpreters start in it
PTRACE_CALL, NO_NEW_PRIVILEGES, SET_SECCOMP = 101, 38, 22
# Copies are made of single stores, not of one instruction that repeats itself by the byte.
PLAIN_COPIES = "glibc.cpu.x86_rep_movsb_threshold=0x40000000"


# ---- the stage ----

class Stage:
    """The process that owns the pools, and what it answers."""

    def __init__(self, method, folder):
        env = dict(os.environ, ALLCORES_TEST_FOLDER=folder, PYTHONHASHSEED="0",
                   GLIBC_TUNABLES=PLAIN_COPIES)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, env.get("PYTHONPATH")]))
        self.method = method
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", "import kill_stage; kill_stage.main()", method],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0,
            preexec_fn=tracer.become_repeatable)
        self.pid = self.process.pid
        self._text = b""
        self.answer()

    def ask(self, name, *args):
        self.send(name, *args)
        return self.answer()

    def send(self, name, *args):
        self.process.stdin.write(json.dumps([name, *args]).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, seconds=PATIENCE):
        """Of what was sent last. Raises AssertionError with what the stage found wrong."""
        end = time.monotonic() + seconds
        while b"\n" not in self._text:
            ready, _, _ = select.select([self.process.stdout], [], [], end - time.monotonic())
            more = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not more:
                self.dump()
                raise AssertionError("the owner of the pool " + (
                    "has ended" if ready else f"gives no answer within {seconds:g} s"))
            self._text += more
        line, self._text = self._text.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            self.dump()
            raise AssertionError(answer["error"])
        return answer["value"]

    def dump(self):
        """The stacks of its threads, to stderr."""
        self.process.send_signal(signal.SIGXCPU)
        time.sleep(0.5)

    def stop(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# ---- one run ----

class Run:
    """A fresh pool and its victim, from the beginning of a script on."""

    def __init__(self, stage, script, watch):
        self.stage, self.script = stage, script
        if script == "Starting":
            self.tracee = self._catch_birth(script, watch)
            about = stage.answer()
        else:
            about = stage.ask("open", script)
            self.tracee = tracer.Tracee(about["victim"], watch)
            self.tracee.seize()
        if about["victim"] != self.tracee.pid:
            raise AssertionError(f"{about} was opened, {self.tracee.pid} is traced")
        self.about = about

    def _catch_birth(self, script, watch):
        parent = tracer.Parent(self.stage.pid)
        self.stage.send("open", script)
        pid, vforked = parent.await_child()
        if self.stage.method == "fork":  # that was the template
            parent.let_go()
            parent = tracer.Parent(pid, traced=True)
            pid, vforked = parent.await_child()
        tracee = tracer.Tracee(pid, watch)
        tracee.adopt(vforked)
        parent.let_go()
        return tracee

    def places(self):
        """Each as it comes there; what the owner does meanwhile is done when it sleeps."""
        for found in self.tracee.places():
            yield found
            if found.place.kind == tracer.ASLEEP and not self._go_on():
                return

    def _go_on(self):
        """False: it sleeps, and will."""
        end = time.monotonic() + PATIENCE
        while not self.tracee.has_news():
            if time.monotonic() > end:
                self.stage.dump()
                raise AssertionError(f"the victim sleeps, and {self.script} is not at its end")
            acted = self.stage.ask("act")
            if acted is None:
                return False
            if acted:
                return True
            time.sleep(0.0005)
        return True

    def end(self, kill, number=0):
        """What the stage says of how it went on. Killed, every other time the owner hears of
        the death before it looks at what was done."""
        pid, held = self.tracee.pid, None
        if kill:
            if self.about["alone"] and number // 2 % 2:
                held = self.stage.ask("stat")["running"]
            self.tracee.kill()
            if number % 2 and not self.stage.ask("is_closed"):
                self.stage.ask("wait_replaced", pid)
        else:
            self.tracee.let_go()
        report = self.stage.ask("finish", pid if kill else None)
        if held == 0 and report["lost"]:
            raise AssertionError(f"{report['lost']} were lost, and nothing was held")
        return report


# ---- a sweep ----

def choose(path, begins):
    """Which of the places are worth a run: their numbers."""
    chosen, k = [], begins
    while k < len(path):
        n = 1
        while k + n < len(path) and is_copying(path, k + n):
            n += 1
        chosen += pick(range(k, k + n), BETWEEN + 2)
        k += n
    return [k for k in chosen if leaves_other(path, k)]


def pick(places, most):
    """The first, the last, and some between."""
    n = len(places)
    return [places[i * (n - 1) // (most - 1)] for i in range(most)] if n > most else list(places)


def is_copying(path, k):
    """It goes on with what the store before it did."""
    here, before = path[k], path[k - 1]
    return (here.place.kind == before.place.kind == tracer.STORE and
            (not (here.engine or before.engine) or here.pc == before.pc))


def leaves_other(path, k):
    """Than the place before it."""
    if path[k].place.kind == tracer.BEFORE:
        return k == 0 or path[k - 1].place.kind == tracer.STORE
    return path[k].changed


class Sweep:
    """All runs of a script by a start method."""

    def __init__(self, method, script, part):
        self.method, self.script, self.part = method, script, part
        self.folder = tempfile.mkdtemp(prefix="allcores-")
        self.stage = Stage(method, self.folder)
        self.missed = 0

    def stop(self):
        self.stage.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def learn(self):
        run = Run(self.stage, self.script, "all")
        self.about = run.about
        path = list(run.places())
        if run.tracee.status not in (None, 0):
            raise AssertionError(f"the victim ended by itself: {run.tracee.status}")
        if run.end(kill=False)["lost"]:
            raise AssertionError("something was lost, and nobody was killed")
        return path

    def begins(self, path):
        """Where a spawned worker has come to its seat: what it does before is the interpreter's
        start."""
        if self.script != "Starting" or self.method == "fork":
            return 0
        first = next(k for k, found in enumerate(path) if found.place.kind == tracer.STORE)
        return max(k for k in range(first) if path[k].place.what == tracer.RECVMSG and
                   path[k].place.kind == tracer.BEFORE)

    def kill_at(self, place, number):
        """The items that were lost, or None: it did not come by there."""
        watch = place.what if place.kind == tracer.STORE else None
        for _ in range(TRIES):
            run = Run(self.stage, self.script, watch)
            for found in run.places():
                if found.place == place:
                    return run.end(True, number)["lost"]
            run.end(kill=False)
        self.missed += 1
        return None

    def run(self):
        self.learn()  # the stage imports at last what it needs; its workers have it by fork
        path = self.learn()
        all_places = choose(path, self.begins(path))
        places = pick(all_places, self.part or len(all_places))
        ends = []
        for number, k in enumerate(places):
            try:
                lost = self.kill_at(path[k].place, number)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{self.script}, {self.method}, killed {path[k].place} "
                                     f"(number {k} of {len(path)}): {error}") from error
            ends.append((path[k].place, lost))
        self.tell(path, ends)
        self.check_number(places)
        if self.about["steady"]:
            check_stretches(ends, whole=len(places) == len(all_places))

    def tell(self, path, ends):
        stores = sum(found.place.kind == tracer.STORE for found in path)
        lost = sum(bool(items) for _, items in ends)
        print(f"# {self.method}, {self.script}: {len(path)} places, {stores} of them stores; "
              f"{len(ends)} runs, {lost} of which lost a call; not reached: {self.missed}",
              flush=True)
        if os.environ.get("ALLCORES_KILLS_VERBOSE"):
            for place, items in ends:
                print(f"#   {place}: lost {items}")

    def check_number(self, places):
        """A sweep that comes to few places shows little. Where the owner acts meanwhile, no two
        runs are alike: how often the victim sleeps, and whether it has to ring, is a matter of
        time. Else few things are: when memory is asked for, or given back."""
        most = 2 + len(places) // (20 if self.about["quiet"] else 4)
        if not len(places) > self.missed <= most:
            raise AssertionError(f"{self.missed} of {len(places)} places were not reached")


def check_stretches(ends, whole):
    """Each call is lost on one stretch of the path, in their order; if all places were run,
    it is from one store to the call's word to another. Where a map is lost, that is because of
    another call of it each time."""
    known = [lost for _, lost in ends if lost is not None]
    held = [lost for k, lost in enumerate(known) if lost and (k == 0 or lost != known[k - 1])]
    if any(len(lost) == 1 for lost in held) and (
            held != sorted(held) or len(held) != len(set(map(tuple, held)))):
        raise AssertionError(f"calls are lost in turns: {ends}")
    if not whole:
        return
    if not held:
        raise AssertionError("no call was ever lost")
    taken = None
    for (_, before), (place, lost) in zip(ends, ends[1:]):
        if None in (before, lost) or lost == before:
            continue
        if place.kind != tracer.STORE or before and taken and taken.what != place.what:
            raise AssertionError(f"{before or lost} is lost from {taken} to {place}")
        taken = place if lost else None


# ---- the cases ----

@engine_only
class Kills:
    """A sweep for each script."""

    method = None
    limit = 1800 if ALL else 60

    def check(self, script):
        refused = tracer.why_not()
        if refused:
            self.skipTest(f"not run: {refused}")
        part = PART if not ALL else None if self.method == "fork" else MOST
        sweep = Sweep(self.method, script, part)
        self.addCleanup(sweep.stop)
        sweep.run()

    def test_first_call(self):
        self.check("Cold")

    def test_small_results(self):
        self.check("Small")

    def test_small_results_with_callbacks(self):
        self.check("Callbacks")

    def test_result_of_a_page(self):
        self.check("Page")

    def test_large_result(self):
        self.check("Block")

    def test_exception(self):
        self.check("Raises")

    def test_large_argument(self):
        self.check("Argument")

    def test_map_with_chunk_size(self):
        self.check("Map")

    def test_map(self):
        self.check("MeasuredMap")

    def test_map_whose_chunk_is_divided(self):
        self.check("Divided")

    def test_imap(self):
        self.check("Imap")

    def test_recycled(self):
        self.check("Recycled")

    def test_leaving(self):
        self.check("Leaving")

    def test_starting(self):
        if self.method == "forkserver":
            self.skipTest("not run: its parent is the forkserver, which is shared")
        self.check("Starting")


for_each_method(globals(), Kills)
if not ALL:
    del Kills_spawn, Kills_forkserver  # noqa: F821


# ---- where it is forbidden ----

def forbid_ptrace():
    """In a process that is about to be another program: no ptrace any more, by seccomp."""
    filters = b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0),  # the system call's number
        (0x15, 0, 1, PTRACE_CALL),
        (0x06, 0, 0, 0x00050000 | errno.EPERM),
        (0x06, 0, 0, 0x7FFF0000)))
    program = ctypes.create_string_buffer(filters)
    about = struct.pack("HL", len(filters) // 8, ctypes.addressof(program))
    libc = ctypes.CDLL(None)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, 2, about, 0, 0):
        raise OSError("no seccomp")


class Forbidden(unittest.TestCase):
    def test_it_is_skipped_and_never_passes(self):
        if platform.machine() != "x86_64":
            self.skipTest("its filter is made for x86-64")
        command = [sys.executable, os.path.join(HERE, "tap.py"), "-k", "fork.test_first", MODULE]
        try:
            done = subprocess.run(command, preexec_fn=forbid_ptrace, capture_output=True,
                                  text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise
        except subprocess.SubprocessError:  # from forbid_ptrace
            self.skipTest("no seccomp here")
        self.assertRegex(done.stdout, r"ok 1 .*# SKIP not run: ptrace is forbidden here \(Oper")
        self.assertEqual(done.stdout.count("ok "), 1)
        self.assertNotIn("lost", done.stdout)


if __name__ == "__main__":
    unittest.main()

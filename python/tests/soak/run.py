#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random work for a long time, through Python.

    PYTHONPATH=python python3 python/tests/soak/run.py [--seconds N] [--seed N] [--method METHOD]

Rounds of some seconds, each with several pools and several threads that use them all, open
and end them, while another thread kills and stops workers. Everything that ends must have
ended in a way that is possible for what was done to it; after each round nothing may be left.

ALLCORES_SOAK_SECONDS says for how long (20); ALLCORES_TEST_SEED, or --seed, repeats the
choices, not the interleaving.
"""
import collections
import faulthandler
import logging
import mmap
import multiprocessing.util
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings

import allcores
import left
import tasks
from hands import Hand
from lives import BOUND, Killer, Lives, counts

POOLS = (1, 4)  # fewest, most
HANDS = (1, 4)


class Soak:
    """The whole run."""

    def __init__(self, seed, method):
        self.seed = seed
        self.method = method
        self.round = 0
        self.rng = random.Random(f"{seed} main")
        self.total = collections.Counter()
        self.failures = []
        self.watched = []  # what has "doing" and "since"
        self.doing, self.since = "nothing", time.monotonic()
        self.pid = os.getpid()
        self.shared = mmap.mmap(-1, 1)
        sys.unraisablehook = threading.excepthook = self.note_uncaught

    # ---- what goes wrong ----

    def fail(self, error):
        """Tell at once: what comes later may hang."""
        self.failures.append(error)
        say(f"failed: --seed {self.seed} --method {self.method}, round {self.round}: {error}")
        say_traceback(error)

    def note_uncaught(self, args):
        """Also in a forked worker, where nobody else would hear of it."""
        if os.getpid() == self.pid:
            self.fail(args.exc_value)
        else:
            self.shared[0] = 1
            os.write(1, f"# in a worker: {args.exc_value!r}\n".encode())

    def run_thread(self, part, over):
        try:
            part.run(over.is_set)
        except BaseException as error:
            self.fail(error)

    def watch(self):
        """Nothing may last longer than it is allowed to."""
        if self.shared[0]:
            self.shared[0] = 0
            self.fail("an exception that nobody caught, in a worker")
        # Where not even this thread goes on, nobody renews it, and all threads' stacks are shown.
        signal.alarm(int(2 * BOUND))
        for part in self.watched:
            if time.monotonic() - part.since > BOUND:
                self.fail(f"no end after {BOUND:g} s: {part.doing}")
                say("\n".join(left.waits()))
                faulthandler.dump_traceback(all_threads=True)
                print("not ok 1 - it hangs", flush=True)
                os._exit(1)

    def begin(self, what):
        self.doing, self.since = what, time.monotonic()

    # ---- a round ----

    def run_round(self, seconds):
        counts.clear()
        lives = Lives(self.rng, self.method, self.rng.randint(*POOLS))
        hands = [Hand(self.seed, f"{self.round}.{i}", self.method, lives)
                 for i in range(self.rng.randint(*HANDS))]
        killer = Killer(random.Random(f"{self.seed} {self.round} killer"), lives)
        over = threading.Event()
        self.watched = list(hands)
        self.work([*hands, killer], over, seconds)
        ending = threading.Thread(target=self.end_all, args=(lives,), name="ending")
        self.watched = [self]
        self.begin("ending")
        ending.start()
        self.watch_until(lambda: not ending.is_alive())
        self.total.update(counts)
        self.watched = []

    def work(self, parts, over, seconds):
        threads = [threading.Thread(target=self.run_thread, args=(part, over), name=f"part {i}")
                   for i, part in enumerate(parts)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        self.watch_until(lambda: time.monotonic() > end or self.failures)
        over.set()
        self.watch_until(lambda: not any(thread.is_alive() for thread in threads))

    def watch_until(self, condition):
        while not condition():
            self.watch()
            time.sleep(0.05)

    def end_all(self, lives):
        try:
            while lives.open:
                self.begin(f"ending {lives.open[0]}")
                lives.replace(self.rng, None).end(self.rng)
            lives.check_gone(self.begin)
        except BaseException as error:
            self.fail(error)

    def check_left(self, before):
        signal.alarm(int(2 * left.SETTLE))
        found = before.differences()
        for what in found:
            self.fail(f"left behind: {what}")
        if found:
            say("\n".join(left.waits()))
            faulthandler.dump_traceback(all_threads=True)

    # ---- all rounds ----

    def run(self, seconds):
        end = time.monotonic() + seconds
        length = 20.0 if seconds > 30 else seconds / 4
        with allcores.get_context(self.method).Pool(1) as pool:
            pool.apply(tasks.do, (("now", 1, 1, b""),))  # what is started once, is now
        pool.join()
        del pool
        before = left.Print()
        while not self.failures and time.monotonic() < end:
            self.round += 1
            self.run_round(length * (0.5 + self.rng.random()))
            if not self.failures:  # else threads may have left their pools as they were
                self.check_left(before)
            say(f"round {self.round}: {sums(counts)}; {before.now()}")
        signal.alarm(0)
        say(f"{self.round} rounds by {self.method}, --seed {self.seed}: {sums(self.total)}")
        for what in before.growth():
            self.fail(what)
        return not self.failures


def say(text):
    sys.stdout.write("".join(f"# {line}\n" for line in text.splitlines()))
    sys.stdout.flush()


def say_traceback(error):
    """The exception with its causes, for whoever looks for them."""
    if isinstance(error, BaseException):
        say("".join(traceback.format_exception(error)))


def sums(counts):
    first = ("calls", "deaths", "pools")
    names = [*first, *sorted(set(counts) - set(first))]
    return ", ".join(f"{counts[name]} {name}" for name in names)


def prepare():
    """What is the whole program's."""
    warnings.simplefilter("ignore", ResourceWarning)  # pools are dropped on purpose
    warnings.simplefilter("ignore", DeprecationWarning)  # forks with threads, too
    # Nor are failures that nobody fetches worth a page each.
    multiprocessing.util.get_logger().addHandler(logging.NullHandler())
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # what is left is known by its process group


def main():
    import argparse

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float,
                        default=float(os.environ.get("ALLCORES_SOAK_SECONDS") or 20))
    parser.add_argument("--seed", type=int, default=os.environ.get("ALLCORES_TEST_SEED"))
    parser.add_argument("--method", choices=("fork", "spawn", "forkserver"), default="fork")
    args = parser.parse_args()
    if allcores.engine == "stdlib":
        print("1..0 # SKIP the engine is not there")
        return 77
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else int(args.seed)
    say(f"--seed {seed} --method {args.method}, {args.seconds:g} s")
    print("1..1", flush=True)
    prepare()
    passed = Soak(seed, args.method).run(args.seconds)
    print(f"{'ok' if passed else 'not ok'} 1 - random work by {args.method}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

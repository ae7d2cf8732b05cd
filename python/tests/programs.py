# SPDX-License-Identifier: MIT
"""Tests that take a whole program: a script in a session of its own, and its workers."""
import os
import signal
import time

from squeeze import SKIP
from support import Case, Script

HEAD = """
import os, resource, signal, sys, threading, time
import allcores
import tasks
if __name__ == "__mp_main__" and "NOTES" in os.environ:
    held_back = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    tasks.note(os.environ["NOTES"], "held back" if held_back else "unprotected")
    time.sleep(100 if "SLOW" in os.environ else 0)
if __name__ == "__main__":
    method, folder = sys.argv[1:3]
    context = allcores.get_context(method)
    notes, never = folder + "/notes", folder + "/never"
    def tell(pool):
        print(*[worker.pid for worker in pool._pool], flush=True)
"""

# Seconds from a signal to the end of all: less than the ten after which what was forgotten is
# ended in the end (core.join and workers.reap in pool.py, LEAVE_NS in C), so that it is noticed.
AT_ONCE = 8.0


class Program(Case):
    """Runs a script; its first line of output is its workers' pids."""

    def start(self, body, head=""):
        lines = (head + body).strip().splitlines()
        text = HEAD + "".join(f"    {line}\n" for line in lines)
        script = Script(self, text, self.method, self.folder)
        self.signalled = None
        line = script.first_line()
        if line.startswith(SKIP):
            self.skipTest(line.removeprefix(SKIP).strip())
        self.workers = [int(word) for word in line.split()]
        return script

    def wait_notes(self, count):
        self.wait_until(lambda: len(self.read_notes()) >= count, f"{count} running tasks")

    def interrupt(self, script):
        """Ctrl-C, which goes to the whole group."""
        self.signalled = time.monotonic()
        os.killpg(script.pid, signal.SIGINT)

    def send(self, script, number):
        self.signalled = time.monotonic()
        os.kill(script.pid, number)

    def kill(self, script):
        """Nothing outlives it for long."""
        self.send(script, signal.SIGKILL)
        script.check_gone()
        self.check_ended(AT_ONCE)

    def finish(self, script, *codes, within=AT_ONCE):
        """Its output; it ends by itself, with one of the codes, all its workers with it, and
        within so many seconds of a signal."""
        code, out, err = script.finish()
        self.assertIn(code, codes, err)
        self.check_ended(within)
        return out, err

    def check_ended(self, within):
        self.wait_gone(self.workers)  # wherever they went
        if self.signalled is not None:
            self.assertLess(time.monotonic() - self.signalled, within, "seconds to the end")

# SPDX-License-Identifier: MIT
"""Whether the OOM killer did it, from recorded counters; and what a plain SIGKILL says."""

import os
import pickle
import signal
import tempfile
import unittest

import allcores
from allcores import _oom_killer
from support import engine_only

V2 = "0::/job\n"
V1 = "5:memory:/job\n4:cpu,cpuacct:/job\n0::/job\n"


class Counters(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def test_unified(self):
        self.write("proc/self/cgroup", V2)
        self.write("sys/fs/cgroup/job/memory.events", "low 0\noom 3\noom_kill 2\n")
        self.write("proc/vmstat", "nr_free_pages 17\noom_kill 40\n")
        self.assertEqual(_oom_killer.read_kills(self.root), _oom_killer.Kills(None, 2))

    def test_version_one(self):
        self.write("proc/self/cgroup", V1)
        self.write("sys/fs/cgroup/memory/job/memory.oom_control",
                   "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
        self.assertEqual(_oom_killer.read_kills(self.root), _oom_killer.Kills(None, 7))

    def test_version_one_in_a_container(self):
        self.write("proc/self/cgroup", V1)
        self.write("sys/fs/cgroup/memory/memory.oom_control", "oom_kill 1\n")
        self.assertEqual(_oom_killer.read_kills(self.root).group, 1)

    def test_system_where_the_group_tells_nothing(self):
        self.write("proc/self/cgroup", V2)
        self.write("proc/vmstat", "nr_free_pages 17\noom_kill 40\n")
        self.assertEqual(_oom_killer.read_kills(self.root), _oom_killer.Kills(40, None))

    def test_nothing_to_read(self):
        self.assertEqual(_oom_killer.read_kills(self.root), _oom_killer.Kills(None, None))

    def test_what_is_no_number(self):
        self.write("proc/self/cgroup", "nonsense\n")
        self.write("proc/vmstat", "oom_kill many\n")
        self.assertEqual(_oom_killer.read_kills(self.root), _oom_killer.Kills(None, None))

    def test_verdicts(self):
        for before, after, deaths, verdict in (
            (_oom_killer.Kills(None, 1), _oom_killer.Kills(None, 2), 1, True),
            (_oom_killer.Kills(None, 1), _oom_killer.Kills(None, 3), 2, True),
            (_oom_killer.Kills(None, 1), _oom_killer.Kills(None, 2), 2, None),  # which of the two
            (_oom_killer.Kills(None, 1), _oom_killer.Kills(None, 1), 1, False),
            (_oom_killer.Kills(None, 3), _oom_killer.Kills(None, 1), 1, None),  # another group's
            (_oom_killer.Kills(1, None), _oom_killer.Kills(1, None), 1, False),
            (_oom_killer.Kills(1, None), _oom_killer.Kills(2, None), 1, None),
            (_oom_killer.Kills(None, None), _oom_killer.Kills(None, None), 1, None),
        ):
            with self.subTest(before=before, after=after, deaths=deaths):
                self.assertIs(_oom_killer.was_killed(before, after, deaths), verdict)


@engine_only
class Told(unittest.TestCase):
    def test_a_kill_of_ours_is_not_the_kernels(self):
        pool = allcores.get_context("fork").Pool(1)
        self.addCleanup(pool.join)
        self.addCleanup(pool.terminate)
        with self.assertRaises(allcores.WorkerDied) as caught:
            pool.apply(kill_self)
        # Another program's OOM kill in that moment can make it "not known".
        self.assertIn(caught.exception.oom, (False, None))
        again = pickle.loads(pickle.dumps(caught.exception))
        self.assertEqual((again.pid, again.oom, str(again)),
                         (caught.exception.pid, caught.exception.oom, str(caught.exception)))

    def test_words(self):
        for verdict, words in ((True, "out of memory"), (None, "cannot be known"), (False, "")):
            error = allcores.WorkerDied(7, -signal.SIGKILL, "w", "f", verdict)
            self.assertIn(words, str(error))
        self.assertNotIn("OOM", str(error))


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()

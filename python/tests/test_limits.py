#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Limits that are really reached: an error that names the cause, or a slower way.

Descriptors, processes, threads, address space, file size, /dev/shm, memfd: never a hang, never
a signal; what goes on beside it is right, and what was refused works again when there is room.
The same for C's side: tests/crash/limits.c.
"""
import unittest

import squeeze
from programs import Program
from support import engine_only, for_each_method

HEAD = """
from squeeze import *
def use(pool):
    assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
    assert pool.apply_async(tasks.square, (3,), callback=str).get(20) == 9
    assert list(pool.imap(tasks.square, (i for i in range(4)))) == [0, 1, 4, 9]
def use_new():
    with context.Pool(2) as pool:
        use(pool)
    return "works"
def use_new_plainly():
    with context.Pool(2) as pool:
        assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
        assert pool.apply(tasks.square, (3,)) == 9
    return "works"
def use_large(pool, size=3 << 20):
    data = b"x" * size
    assert pool.apply(tasks.blob, (size,)) == data
    assert pool.apply(tasks.length, (data,)) == size
    assert pool.map(tasks.same, [data] * 4, 1) == [data] * 4
    assert list(pool.imap(tasks.same, [data] * 4)) == [data] * 4
def end(pool):
    pool.close()
    pool.join()
    sums = pool._core.stat()
    assert sums["submitted"] == sums["done"] + sums["failed"] + sums["cancelled"], sums
    assert not any(worker.is_alive() for worker in pool._pool)
    print("closed")
"""


class Limited(Program):
    """A script of lines "value" or "exception: words", the first with the workers' pids."""

    def start(self, body):
        return super().start(body, HEAD)

    def run_script(self, body):
        out, err = self.finish(self.start(body), 0)
        return out.splitlines(), err

    server_ends = ["ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError", "EOFError",
                   "StartError: the forkserver exited"]

    def check_each(self, lines, *refusals):
        """Some were refused, each in one of these ways; some were not; the last works."""
        refused = [line for line in lines if line != "works"]
        self.assertTrue(refused)
        self.assertGreater(len(lines), len(refused))
        for line in refused:
            self.assertRegex(line, "|".join(refusals))
        self.assertEqual(lines[-1], "works", lines)


@engine_only
class Descriptors(Limited):
    """RLIMIT_NOFILE."""

    def test_each_number_left_at_opening(self):
        lines, _ = self.run_script("""
print(flush=True)
if method != "fork":
    use_new()  # the server and the tracker have theirs
for left in range(0, 40, 1 if method == "fork" else 3):
    free = os.dup(0)
    os.close(free)
    with limited(resource.RLIMIT_NOFILE, free + left):
        result = attempt(use_new)
    tell(result)
    assert not context.active_children()
    if result == "works":
        break
tell(in_the_end(use_new))
""")
        refusals = ["OSError: .*Too many open files.*; .*ulimit -n"]
        if self.method == "forkserver":
            # The standard library's server ends when a client can't send it descriptors, and
            # is started anew by the first who comes when it is gone.
            refusals += self.server_ends
        self.check_each(lines, *refusals)

    def test_none_left_while_it_works(self):
        """Large results need none; a worker that dies is missed until there are some."""
        lines, _ = self.run_script("""
pool = context.Pool(2)
tell("")
pool.starmap(tasks.meet, [(folder, 2)] * 2, 1)
with no_descriptors():
    use(pool)
    use_large(pool)
    tell(attempt(lambda: pool.apply(tasks.die, ("kill",))))
    use(pool)
    use_large(pool)
deadline = time.monotonic() + 20
def living():
    return sum(worker.is_alive() for worker in pool._pool)
while method == "fork" and living() < 2 and time.monotonic() < deadline:
    pool.apply(tasks.nap, (0.05,))
tell(living())
end(pool)
""")
        self.assertRegex(lines[0], "WorkerDied: .*SIGKILL")
        # It is tried again every second: seen once is enough.
        self.assertIn(lines[1], ["2"] if self.method == "fork" else ["1", "2"])
        self.assertEqual(lines[2], "closed")

    def test_none_left_for_any_worker(self):
        """Calls that nobody is left to run fail, and say why."""
        lines, _ = self.run_script("""
pool = context.Pool(1, maxtasksperchild=1)
tell("")
with no_descriptors():
    results = [pool.apply_async(tasks.square, (i,)) for i in range(5)]
    for result in results:
        tell(attempt(lambda: result.get(20)))
end(pool)
""")
        self.assertEqual((lines[0], lines[-1]), ("0", "closed"))
        for line in lines[1:-1]:
            self.assertRegex(line, "StartError: .*Too many open files")

    def test_one_that_is_starting_is_waited_for(self):
        """Nobody is ready and none can be started, but one is on its way."""
        lines, _ = self.run_script("""
pool = context.Pool(2, wait_first_free, (folder,))
tell("")
use(pool)
with no_descriptors():
    tell(attempt(lambda: pool.apply(tasks.die, ("kill",))))
    result = pool.apply_async(tasks.square, (3,))
    os.mkdir(folder + "/go")  # needs none
    tell(attempt(lambda: result.get(20)))
end(pool)
""")
        self.assertRegex(lines[0], "WorkerDied: .*SIGKILL")
        self.assertEqual(lines[1:], ["9", "closed"])


@engine_only
class Processes(Limited):
    """RLIMIT_NPROC, as a user to whom it applies. It counts threads, and others' processes."""

    def test_each_number_at_opening(self):
        lines, _ = self.run_script("""
become_nobody()
print(flush=True)
for most in (1, 3, 5, 7):
    with limited(resource.RLIMIT_NPROC, most):
        tell(attempt(use_new))
tell(in_the_end(use_new))
""")
        self.check_each(lines, "BlockingIOError: .*temporarily unavailable; .*ulimit -u",
                        "RuntimeError: can't start new thread", "StartError", *self.server_ends)

    def test_no_more_while_it_works(self):
        lines, _ = self.run_script("""
become_nobody()
pool = context.Pool(2)
tell("")
pool.map(tasks.square, range(4))
with limited(resource.RLIMIT_NPROC, 1):
    use_large(pool)
    tell(attempt(lambda: pool.apply_async(tasks.square, (3,), callback=str)))
    tell(attempt(lambda: pool.map_async(tasks.square, range(4))))
use(pool)
end(pool)
""")
        self.assertEqual(lines, ["RuntimeError: can't start new thread"] * 2 + ["closed"])


@engine_only
class Threads(Limited, unittest.TestCase):
    """No thread can be started. The owner's threads: the same however workers start."""

    method = "fork"

    def test_callbacks(self):
        """Refused, not lost: nothing is handed to a thread that is not there."""
        lines, _ = self.run_script("""
pool = context.Pool(2)
tell("")
with no_threads():
    tell(attempt(lambda: pool.apply_async(tasks.square, (3,), callback=str)))
    tell(attempt(lambda: pool.map_async(tasks.square, range(4))))
    assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
    assert pool.apply_async(tasks.square, (3,)).get(20) == 9
use(pool)
end(pool)
""")
        self.assertEqual(lines, ["RuntimeError: can't start new thread"] * 2 + ["closed"])

    def test_close_after_a_callback_was_refused(self):
        lines, _ = self.run_script("""
pool = context.Pool(2)
tell("")
with no_threads():
    tell(attempt(lambda: pool.map_async(tasks.square, range(4))))
end(pool)
""")
        self.assertEqual(lines, ["RuntimeError: can't start new thread", "closed"])

    def test_imap(self):
        lines, _ = self.run_script("""
pool = context.Pool(2)
tell("")
with no_threads():
    tell(attempt(lambda: pool.imap(tasks.square, (i for i in range(4)))))
    assert list(pool.imap(tasks.square, range(1000))) == [i * i for i in range(1000)]
use(pool)
end(pool)
""")
        self.assertEqual(lines, ["RuntimeError: can't start new thread", "closed"])

    def test_imap_that_was_dropped(self):
        lines, err = self.run_script("""
pool = context.Pool(2)
tell("")
found = pool.imap(tasks.square, range(20_000))
assert next(found) == 0
with no_threads():
    del found
end(pool)
""")
        self.assertEqual((lines, err), (["closed"], ""))

    def test_join_with_an_imap_half_read(self):
        lines, _ = self.run_script("""
pool = context.Pool(2)
tell("")
found = pool.imap(tasks.square, range(20_000))
assert next(found) == 0
pool.close()
with no_threads():
    tell(attempt(pool.join))
end(pool)
assert sum(found) == sum(i * i for i in range(20_000))
""")
        self.assertEqual(lines, ["RuntimeError: can't start new thread", "closed"])


@engine_only
class Memory(Limited, unittest.TestCase):
    """RLIMIT_AS. The engine maps and copies, whatever the start method."""

    method = "fork"

    def test_each_size_at_opening(self):
        lines, _ = self.run_script("""
use_new()
print(flush=True)
for power in range(12, 30, 2):
    # No threads: Thread.start waits for ever where its thread has no memory to begin with.
    with limited(resource.RLIMIT_AS, space() + (1 << power)):
        result = attempt(use_new_plainly)
    tell(result)
tell(use_new())
""")
        self.check_each(lines, "MemoryError", "OSError: .*Cannot allocate memory",
                        "RuntimeError: can't start new thread", "StartError")

    def check_sizes(self, lines):
        """Small ones were right, large ones MemoryError; then all is as before."""
        self.assertEqual(lines[0], "right")
        self.assertRegex(lines[-2], "MemoryError")
        for line in lines[:-1]:
            self.assertRegex(line, "^right$|^MemoryError")
        self.assertEqual(lines[-1], "closed")

    def test_owner_has_little_left(self):
        lines, _ = self.run_script("""
pool = context.Pool(2)
tell("")
use(pool)
with limited(resource.RLIMIT_AS, space() + (24 << 20)):
    size = 1000
    while size < 30_000_000:
        tell(attempt(lambda: "right" if len(pool.apply_async(tasks.blob, (size,)).get(20)) == size
                     else "wrong"))
        tell(attempt(lambda: "right" if pool.map(tasks.length, [b"x" * size] * 3) == [size] * 3
                     else "wrong"))
        size *= 4
    assert pool.map(tasks.square, range(4)) == [0, 1, 4, 9]
use_large(pool, 12 << 20)
end(pool)
""")
        self.check_sizes(lines)

    def test_worker_has_little_left(self):
        """Large arguments and results fail their calls; no worker ends of it."""
        lines, err = self.run_script("""
pool = context.Pool(1, limit_space, (40 << 20,))
tell("")
use(pool)
before = [worker.pid for worker in pool._pool]
size = 1000
while size < 30_000_000:
    data = b"x" * size
    tell(attempt(lambda: "right" if pool.apply_async(tasks.length, (data,)).get(20) == size
                 else "wrong"))
    tell(attempt(lambda: "right" if len(pool.apply_async(tasks.blob, (size,)).get(20)) == size
                 else "wrong"))
    tell(attempt(lambda: "right" if pool.map_async(tasks.length, [data] * 3, 1).get(20)
                 == [size] * 3 else "wrong"))
    size *= 4
use(pool)
assert [worker.pid for worker in pool._pool] == before
end(pool)
""")
        self.check_sizes(lines)
        self.assertEqual(err, "")


@engine_only
class OutOfMemory(Limited):
    """The kernel's OOM killer, in a control group of its own: who was killed by it is told."""

    def run_in_group(self, body):
        group = squeeze.new_memory_group(256 << 20)
        if not group:
            self.skipTest("no control group of memory can be made here")
        self.addCleanup(self.wait_until, lambda: squeeze.drop_group(group), "the group's end")
        lines, _ = self.run_script(f"enter_group({group!r})" + """
pool = context.Pool(2)
tell("")
def tell_death(result):
    error = attempt(lambda: result.get(60))
    print(type(error).__name__, error.signal, error.oom, "out of memory" in str(error))
""" + body + """
use(pool)
end(pool)
""")
        self.assertEqual(lines.pop(), "closed")
        return lines

    def test_killed_by_the_kernel(self):
        """All at once: each is told."""
        lines = self.run_in_group("""
for result in [pool.apply_async(tasks.blob, (1 << 30,)) for _ in range(2)]:
    tell_death(result)
""")
        self.assertEqual(lines, ["WorkerDied SIGKILL True True"] * 2)

    def test_killed_by_others(self):
        """Where the kernel has killed fewer than have died it can't be told which."""
        lines = self.run_in_group("""
tell_death(pool.apply_async(tasks.die_of, (signal.SIGKILL,)))
tell_death(pool.apply_async(tasks.blob, (1 << 30,)))
""")
        self.assertEqual(lines, ["WorkerDied SIGKILL False False", "WorkerDied SIGKILL None False"])


@engine_only
class FileSize(Limited, unittest.TestCase):
    """RLIMIT_FSIZE, where writing beyond it would kill with SIGXFSZ."""

    method = "fork"

    def test_each_size_at_opening(self):
        lines, _ = self.run_script("""
print(flush=True)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
for power in range(0, 30, 4):
    with limited(resource.RLIMIT_FSIZE, 1 << power):
        tell(attempt(use_new))
tell(use_new())
""")
        self.check_each(lines, "OSError: .*File too large; .*ulimit -f")

    def test_while_it_works(self):
        """The memory is no file that grows: neither owner nor worker meets it."""
        lines, _ = self.run_script("""
pool = context.Pool(2, limit_files, (4096,))
tell("")
limit_files(4096)
use(pool)
use_large(pool)
end(pool)
""")
        self.assertEqual(lines, ["closed"])


@engine_only
class NoDevShm(Limited):
    """/dev/shm is not needed."""

    def test_full_read_only_absent(self):
        lines, _ = self.run_script("""
private_mounts()
print(flush=True)
mount_tmpfs("/dev/shm", "size=8k")
fill("/dev/shm")
def refused(path):
    with open(path, "wb", 0) as file:
        file.write(b"x" * 4096)
for flags in (None, 1):
    if flags:
        mount_tmpfs("/dev/shm", "size=8k", flags)
    tell(attempt(lambda: refused("/dev/shm/x")))
    with context.Pool(2) as pool:
        use(pool)
        use_large(pool)
mount_tmpfs("/dev", "size=8k")
tell(os.path.exists("/dev/shm"))
with context.Pool(2) as pool:
    use(pool)
    use_large(pool)
""")
        self.assertEqual(len(lines), 3)
        self.assertIn("No space left", lines[0])
        self.assertIn("Read-only", lines[1])
        self.assertEqual(lines[2], "False")


@engine_only
class NoMemfd(Limited, unittest.TestCase):
    """No memfd: a file without a name. All workers come to it in the same way."""

    method = "fork"

    def test_no_memfd(self):
        lines, _ = self.run_script("""
forbid_memfd()
os.mkdir(folder + "/tmp")
os.environ["TMPDIR"] = folder + "/tmp"
pool = context.Pool(2)
tell("")
use(pool)
use_large(pool)
tell(os.listdir(folder + "/tmp"))
tell(attempt(lambda: pool.apply(tasks.die, ("kill",))))
use(pool)
end(pool)
""")
        self.assertEqual((lines[0], lines[2]), ("[]", "closed"))
        self.assertRegex(lines[1], "WorkerDied: .*SIGKILL")

    def check_refused(self, lines):
        """What is too large is refused as memory is, on both sides."""
        self.assertEqual(len(lines), 5)
        for line in lines[:4]:
            self.assertRegex(line, "^MemoryError: .*memory")
        self.assertEqual(lines[4], "closed")

    refused = """
size = 30 << 20
for call in (lambda: pool.apply_async(tasks.length, (b"x" * size,)).get(20),
             lambda: pool.apply_async(tasks.blob, (size,)).get(20),
             lambda: pool.map(tasks.length, [b"x" * size] * 2, 1),
             lambda: pool.map(tasks.blob, [size] * 2)):
    tell(attempt(call))
    use(pool)
end(pool)
"""

    def test_no_memfd_and_a_full_disk(self):
        """Never a SIGBUS: room is reserved before it is written to."""
        lines, _ = self.run_script("""
private_mounts()
forbid_memfd()
os.mkdir(folder + "/tmp")
mount_tmpfs(folder + "/tmp", "size=12m")
os.environ["TMPDIR"] = folder + "/tmp"
pool = context.Pool(2)
tell("")
use(pool)
""" + self.refused)
        self.check_refused(lines)

    def test_no_memfd_and_small_files(self):
        """RLIMIT_FSIZE, now that it is a file that grows."""
        lines, _ = self.run_script("""
forbid_memfd()
pool = context.Pool(2, limit_files, (16 << 20,))
tell("")
limit_files(16 << 20)
use(pool)
""" + self.refused)
        self.check_refused(lines)

    def test_no_memfd_and_nowhere_to_write(self):
        lines, _ = self.run_script("""
private_mounts()
forbid_memfd()
print(flush=True)
os.environ.pop("TMPDIR", None)
import multiprocessing.popen_fork
folders = ("/tmp", "/var/tmp", "/dev/shm")
for folder in folders:
    mount_tmpfs(folder, "size=8k", 1)
tell(attempt(use_new))
for folder in folders:
    libc.umount(folder.encode())
tell(use_new())
""")
        self.check_each(lines, "OSError: .*Read-only file system; .*TMPDIR")


for_each_method(globals(), Descriptors, Processes, OutOfMemory, NoDevShm)

if __name__ == "__main__":
    unittest.main()

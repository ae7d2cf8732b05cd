#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""By fork all workers of a pool come from one template process, which was forked when the pool
opened. So they see the owner as it was then, and the owner forks nothing later.

Process objects of the workers: test_processes.py. Locks of the owner's threads: test_locks.py.
"""
import sys
import unittest

from programs import Program
from support import engine_only


class Told(Program):
    """A program by fork, and the lines that it prints after its workers' pids."""

    method = "fork"
    head = "import families, lifecycle, tempfile\n"

    def tell(self, body):
        script = self.start(body, self.head)
        out, err = self.finish(script, 0)
        self.assertEqual(err, "")
        return out.splitlines()


@engine_only
class Parents(Told, unittest.TestCase):
    """Who is whose child."""

    def test_one_template_for_all(self):
        lines = self.tell("""
pool = context.Pool(4)
tell(pool)
parents = {families.parent(pid) for pid in families.pids(pool)}
asked = set(pool.map(lifecycle.parent, range(20), 1))
print(len(parents), asked <= parents, os.getpid() in parents)
print(families.parent(parents.pop()) == os.getpid())
""")
        self.assertEqual(lines, ["1 True False", "True"])

    def test_replacements_have_the_same(self):
        """Of workers that were killed, that ended by themselves, and that were recycled."""
        lines = self.tell("""
pool = context.Pool(2, maxtasksperchild=3)
tell(pool)
before = families.template(pool)
for _ in range(3):
    families.replace(pool)
    try:
        pool.apply(tasks.die, ("sys.exit",))
    except allcores.WorkerDied:
        pass
found = pool.map(tasks.pid, range(24), 1)
print(len(set(found)) >= 8)
print(set(pool.map(lifecycle.parent, range(24), 1)) == {before}, before == os.getpid())
""")
        self.assertEqual(lines, ["True", "True False"])

    def test_owner_has_no_other_child(self):
        """Not even one that waits to be reaped, and none when the pool is closed."""
        lines = self.tell("""
pool = context.Pool(2, maxtasksperchild=1)
tell(pool)
before = families.children()
pool.map(tasks.square, range(10), 1)
families.replace(pool)
print(len(before), families.children() == before)
pool.close()
pool.join()
print(families.children())
""")
        self.assertEqual(lines, ["1 True", "[]"])

    def test_one_template_for_each_pool(self):
        lines = self.tell("""
pools = [context.Pool(2) for _ in range(3)]
tell(pools[0])
print(len({families.parent(pid) for pool in pools for pid in families.pids(pool)}))
print(len(families.children()))
for pool in pools:
    pool.terminate()
    pool.join()
print(families.children())
""")
        self.assertEqual(lines, ["3", "3", "[]"])

    def test_template_has_no_other_thread(self):
        lines = self.tell("""
never = threading.Event()
for _ in range(4):
    threading.Thread(target=never.wait, daemon=True).start()
pool = context.Pool(2)
tell(pool)
pool.map(tasks.square, range(4))
print(len(os.listdir(f"/proc/{families.template(pool)}/task")))
print(pool.apply(lifecycle.threads))
families.replace(pool)
print(set(pool.map(lifecycle.threads, range(10), 1)))
""")
        self.assertEqual(lines, ["1", "(True, True, 1)", "{(True, True, 1)}"])

    def test_opened_in_another_thread(self):
        """The workers' only thread is their main thread, in which handlers can be set."""
        lines = self.tell("""
opened = []
thread = threading.Thread(target=lambda: opened.append(context.Pool(1)))
thread.start()
thread.join()
pool = opened[0]
tell(pool)
for _ in range(2):
    print(pool.apply(lifecycle.threads), pool.apply(lifecycle.set_handler))
    families.replace(pool)
""")
        self.assertEqual(lines, ["(True, True, 1) set"] * 2)

    def test_owner_is_what_multiprocessing_calls_the_parent(self):
        lines = self.tell("""
allcores.current_process().name = "Chief"
pool = context.Pool(1)
tell(pool)
for _ in range(2):
    print(pool.apply(lifecycle.parents_identity) == ("Chief", os.getpid(), True))
    families.replace(pool)
""")
        self.assertEqual(lines, ["True", "True"])

    def test_template_is_ended_by_no_common_signal(self):
        """What a terminal or a service manager sends to all processes is for the owner to judge."""
        lines = self.tell("""
pool = context.Pool(1)
tell(pool)
before = families.template(pool)
assert before != os.getpid(), "there is no template"
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
               signal.SIGALRM, signal.SIGPIPE):
    os.kill(before, signum)
families.replace(pool)
print(families.template(pool) == before)
""")
        self.assertEqual(lines, ["True"])

    def test_all_workers_of_an_initializer_are_there_at_once(self):
        lines = self.tell("""
pool = context.Pool(4, tasks.note_start, (notes,))
tell(pool)
families.wait(lambda: len(tasks.read_notes(notes)) == 4, "four initializers")
print(sorted(map(int, tasks.read_notes(notes))) == sorted(families.pids(pool)))
""")
        self.assertEqual(lines, ["True"])


@engine_only
class Forks(Told, unittest.TestCase):
    """Pool() forks once, in the caller's thread; nothing is forked later."""

    head = Told.head + """
def replace_some(pool):
    for number in range(2):
        families.replace(pool, number)
    pool.map(tasks.square, range(12), 1)
"""

    def test_hooks_in_the_owner(self):
        """Of os.register_at_fork: before, and after in the parent."""
        lines = self.tell("""
calls = []
os.register_at_fork(before=lambda: calls.append(("before", threading.get_ident())),
                    after_in_parent=lambda: calls.append(("after", threading.get_ident())))
here = threading.get_ident()
pool = context.Pool(3, maxtasksperchild=1)
expected = [("before", here), ("after", here)]
tell(pool)
print(calls == expected)
replace_some(pool)
print(calls == expected)
with context.Pool(2) as other:
    other.map(tasks.square, range(4))
print(calls == 2 * expected)
pool.terminate()
pool.join()
print(calls == 2 * expected)
""")
        self.assertEqual(lines, ["True"] * 4)

    def test_hooks_in_the_child(self):
        """Once in each worker, a replacement too, and never in a process that is none."""
        lines = self.tell("""
os.register_at_fork(after_in_child=lambda: tasks.note(notes, os.getpid()))
pool = context.Pool(2)
tell(pool)
pool.starmap(tasks.meet, [(folder, 2)] * 2, 1)
expected = set(families.pids(pool))
for _ in range(3):
    expected.add(families.replace(pool))
    pool.starmap(tasks.meet, [(tempfile.mkdtemp(dir=folder), 2)] * 2, 1)
pool.close()
pool.join()
found = [int(pid) for pid in tasks.read_notes(notes)]
print(len(found) == len(set(found)), set(found) == expected)
""")
        self.assertEqual(lines, ["True True"])

    def test_hooks_of_multiprocessing(self):
        """Of multiprocessing.util.register_after_fork: the same."""
        lines = self.tell("""
hook = lifecycle.AfterFork(notes)
pool = context.Pool(2)
tell(pool)
pool.starmap(tasks.meet, [(folder, 2)] * 2, 1)
expected = set(families.pids(pool))
for _ in range(3):
    expected.add(families.replace(pool))
    pool.starmap(tasks.meet, [(tempfile.mkdtemp(dir=folder), 2)] * 2, 1)
pool.close()
pool.join()
found = [int(pid) for pid in tasks.read_notes(notes)]
print(len(found) == len(set(found)), set(found) == expected)
""")
        self.assertEqual(lines, ["True True"])

    def test_audit_event(self):
        lines = self.tell("""
events = []
def note_event(name, args):
    if name == "os.fork" and os.getpid() == owner:
        events.append(threading.get_ident())
owner = os.getpid()
sys.addaudithook(note_event)
pool = context.Pool(3, maxtasksperchild=1)
tell(pool)
print(events == [threading.get_ident()])
replace_some(pool)
print(len(events))
""")
        self.assertEqual(lines, ["True", "1"])

    def test_refused_by_an_audit_hook(self):
        """Pool() raises what the hook raises, and starts nothing."""
        lines = self.tell("""
def refuse(name, args):
    if name == "os.fork" and refusing:
        raise PermissionError("no forks here")
refusing = True
sys.addaudithook(refuse)
print(flush=True)
try:
    context.Pool(2)
except PermissionError as error:
    print(error)
print(families.children(), allcores.active_children())
refusing = False
with context.Pool(2) as pool:
    print(pool.map(tasks.square, range(4)))
""")
        self.assertEqual(lines, ["no forks here", "[] []", "[0, 1, 4, 9]"])

    @unittest.skipIf(sys.version_info < (3, 12), "Python warns of that since 3.12")
    def test_warning_of_threads(self):
        """Python's own warning of a fork in a program with threads: once for a pool."""
        lines = self.tell("""
import warnings
never = threading.Event()
threading.Thread(target=never.wait, daemon=True).start()
def count(warned):
    return sum("multi-threaded" in str(warning.message) for warning in warned)
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    pool = context.Pool(3, maxtasksperchild=1)
    print(*families.pids(pool))
    print(count(warned), {warning.category.__name__ for warning in warned})
    replace_some(pool)
    print(count(warned))
    pool.terminate()
    pool.join()
""")
        self.assertEqual(lines, ["1 {'DeprecationWarning'}", "1"])

    def test_warning_that_is_an_error(self):
        """As with os.fork: the pool is open, and no error comes."""
        lines = self.tell("""
import warnings
warnings.simplefilter("error", DeprecationWarning)
threading.Thread(target=threading.Event().wait, daemon=True).start()
pool = context.Pool(2)
tell(pool)
print(pool.map(tasks.square, range(3)))
pool.terminate()
""")
        self.assertEqual(lines, ["[0, 1, 4]"])

    @unittest.skipIf(sys.version_info < (3, 12), "Python warns of that since 3.12")
    def test_no_warning_without_threads(self):
        lines = self.tell("""
import warnings
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    pool = context.Pool(3, maxtasksperchild=1)
    tell(pool)
    replace_some(pool)
print([str(warning.message) for warning in warned])
""")
        self.assertEqual(lines, ["[]"])


@engine_only
class Inherited(Told, unittest.TestCase):
    """What a worker sees is the owner of the time of Pool()."""

    prepare = """
os.mkdir(folder + "/then")
os.mkdir(folder + "/now")
os.chdir(folder + "/then")
os.environ["ALLCORES_TEST_WORD"] = "then"
os.umask(0o27)
resource.setrlimit(resource.RLIMIT_CPU, (1000, resource.RLIM_INFINITY))
tasks.state = "then"
file = os.open(folder + "/then.txt", os.O_CREAT | os.O_RDWR)
then = dict(memory="then", folder="then", variable="then", file="then.txt", umask=0o27, limit=1000)
"""
    change = """
os.chdir(folder + "/now")
os.environ["ALLCORES_TEST_WORD"] = "now"
os.umask(0o22)
resource.setrlimit(resource.RLIMIT_CPU, (2000, resource.RLIM_INFINITY))
tasks.state = "now"
os.close(file)
"""

    def test_by_replacements(self):
        lines = self.tell(self.prepare + """
pool = context.Pool(1)
tell(pool)
print(pool.apply(lifecycle.surroundings, (file,)) == then)
""" + self.change + """
for _ in range(2):
    families.replace(pool)
    found = pool.apply(lifecycle.surroundings, (file,))
    print(found if found != then else True)
""")
        self.assertEqual(lines, ["True"] * 3)

    def test_by_workers_that_are_needed_late(self):
        """Whenever they are forked."""
        lines = self.tell(self.prepare + """
pool = context.Pool(4)
print(flush=True)
""" + self.change + """
pool.starmap(tasks.meet, [(folder, 4)] * 4, 1)
found = pool.map(lifecycle.surroundings, [file] * 20, 1)
print(found if found != [then] * 20 else True)
""")
        self.assertEqual(lines, ["True"])

    def test_files_opened_later_are_not(self):
        """A file that a worker held open would not be freed, nor a pipe come to its end."""
        lines = self.tell("""
import select
pool = context.Pool(1)
tell(pool)
reading, writing = os.pipe()
for _ in range(2):
    families.replace(pool)
    pool.apply(tasks.nothing)
os.close(writing)
print(select.select([reading], [], [], 5)[0] == [reading])
""")
        self.assertEqual(lines, ["True"])

    def test_initializer_is_never_pickled(self):
        """Nor what it is given: a function without a name, a lock, a socket, a generator."""
        lines = self.tell("""
import socket
ours, theirs = socket.socketpair()
def give():
    yield 1
given = (theirs, threading.Lock(), give())
def start(connection, lock, generator):
    with lock:
        connection.send(b"%d" % next(generator))
pool = context.Pool(1, lambda *args: start(*args), given, maxtasksperchild=2)
tell(pool)
for _ in range(3):
    pool.apply(tasks.nothing)
    families.replace(pool)
pool.apply(tasks.nothing)
ours.settimeout(10)
received = b""
while len(received) < 4:
    received += ours.recv(1)
print(received)
""")
        self.assertEqual(lines, ["b'1111'"])

    def test_wakeup_descriptor_is_the_owners_alone(self):
        """A signal that a worker gets does not wake the owner's event loop."""
        lines = self.tell("""
reading, writing = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writing)
pool = context.Pool(1)
tell(pool)
print(pool.apply(lifecycle.wakeup_descriptor))
families.replace(pool)
print(pool.apply(lifecycle.wakeup_descriptor))
print(signal.set_wakeup_fd(-1) == writing)
""")
        self.assertEqual(lines, ["-1", "-1", "True"])


@engine_only
class Lost(Told, unittest.TestCase):
    """A template that is killed, by the OOM killer perhaps, does not cost the pool."""

    def test_its_reserve_takes_over(self):
        """Again and again, and what replacements see is still the owner of the time of Pool()."""
        lines = self.tell("""
forks = []
os.register_at_fork(before=lambda: forks.append(True))
tasks.state = "then"
pool = context.Pool(2)
tell(pool)
pool.map(tasks.square, range(4))
tasks.state = "now"
seen = {families.template(pool)}
for _ in range(3):
    seen.add(families.lose_template(pool))
    print(pool.map(tasks.square, range(20), 1) == [i * i for i in range(20)])
for number in range(2):
    families.replace(pool, number)
print(set(pool.map(tasks.get_state, range(20), 1)), len(seen), len(forks))
pool.close()
pool.join()
print(families.children())
""")
        self.assertEqual(lines, ["True"] * 3 + ["{'then'} 4 1", "[]"])

    def test_at_any_moment(self):
        """From the first microseconds of a pool on, with work handed in and workers that are replaced.
        Before there is a reserve it may cost the pool: an error that says so, and no hang."""
        lines = self.tell("""
print(flush=True)
right = refused = 0
for number in range(60):
    pool = context.Pool(2, maxtasksperchild=3)
    results = pool.map_async(tasks.square, range(40), 1)
    time.sleep(number * number * 4e-5)
    for pid in families.children():  # one: the template
        os.kill(pid, signal.SIGKILL)
    try:
        right += results.get(10) == [item * item for item in range(40)]
    except allcores.StartError as error:
        refused += "template" in str(error)
    pool.terminate()
    pool.join()
print(right + refused, right > 20, families.children())
""")
        self.assertEqual(lines[-1:], ["60 True []"])

    def test_while_workers_are_at_work(self):
        """They go on, and deliver."""
        lines = self.tell("""
pool = context.Pool(2)
tell(pool)
go = folder + "/go"
held = [pool.apply_async(tasks.note_and_wait, (notes, go, number)) for number in range(2)]
others = [pool.apply_async(tasks.square, (number,)) for number in range(50)]
families.wait(lambda: len(tasks.read_notes(notes)) == 2, "two running tasks")
lost = families.template(pool)
families.wait_for_reserve(pool)
os.kill(lost, signal.SIGKILL)
families.wait(lambda: lost not in families.servers(pool), "the template's end")
tasks.touch(go)
print([result.get(10) for result in held], sum(result.get(10) for result in others))
""")
        self.assertEqual(lines, [f"[0, 1] {sum(i * i for i in range(50))}"])

    def test_with_recycled_workers_under_load(self):
        lines = self.tell("""
pool = context.Pool(2, maxtasksperchild=1)
tell(pool)
lost = families.template(pool)
families.wait_for_reserve(pool)
results = [pool.apply_async(tasks.square, (number,)) for number in range(100)]
results[20].get(10)
os.kill(lost, signal.SIGKILL)
print(sum(result.get(10) for result in results))
print(lost in pool.map(lifecycle.parent, range(10), 1))
""")
        self.assertEqual(lines, [str(sum(i * i for i in range(100))), "False"])

    def test_its_reserve_alone(self):
        lines = self.tell("""
pool = context.Pool(1)
tell(pool)
before = families.template(pool)
for pid in set(families.wait_for_reserve(pool)) - {before}:
    os.kill(pid, signal.SIGKILL)
families.replace(pool)
print(pool.apply(tasks.square, (3,)), families.template(pool) == before)
""")
        self.assertEqual(lines, ["9 True"])

    def test_both(self):
        """The remaining workers go on; when the last has ended, the error tells why."""
        lines = self.tell("""
pool = context.Pool(2)
tell(pool)
pool.starmap(tasks.meet, [(folder, 2)] * 2, 1)
workers = families.pids(pool)
families.lose_all_templates(pool)
print(pool.map(tasks.square, range(4)), families.pids(pool) == workers)
os.kill(workers[0], signal.SIGKILL)
time.sleep(0.1)
print(pool.map(tasks.square, range(4)))
os.kill(workers[1], signal.SIGKILL)
for call in (lambda: pool.apply(tasks.square, (3,)), lambda: pool.map(tasks.square, range(4))):
    try:
        for _ in range(3):  # the first may have been in the killed worker's hands
            try:
                call()
            except allcores.WorkerDied:
                pass
    except allcores.StartError as error:
        print("template" in str(error) or error)
pool.close()
pool.join()
print(families.children())
""")
        squares = "[0, 1, 4, 9]"
        self.assertEqual(lines, [f"{squares} True", squares, "True", "True", "[]"])

    def test_both_with_calls_that_wait(self):
        """They are told; nobody waits for a worker that cannot come."""
        lines = self.tell("""
pool = context.Pool(1)
tell(pool)
held = pool.apply_async(tasks.note_and_wait, (notes, never))
others = [pool.apply_async(tasks.square, (3,)) for _ in range(3)]
families.wait(lambda: tasks.read_notes(notes), "a running task")
worker = families.pids(pool)[0]
families.lose_all_templates(pool)
os.kill(worker, signal.SIGKILL)
for result in [held, *others]:
    try:
        result.get(10)
    except allcores.ProcessError as error:
        print(type(error).__name__, "template" in str(error))
pool.terminate()
pool.join()
""")
        self.assertEqual(lines[0].split()[0], "WorkerDied")
        self.assertEqual(lines[1:], ["StartError True"] * 3)

    def test_exit_code_of_orphans(self):
        """255, as forkserver's workers have it whose server has died; until then they live."""
        lines = self.tell("""
pool = context.Pool(2)
tell(pool)
pool.map(tasks.square, range(4))
killed, left = pool._pool
families.lose_all_templates(pool)
print([(worker.exitcode, worker.is_alive()) for worker in (killed, left)])
killed.kill()
killed.join(10)
print(killed.exitcode, killed.is_alive())
print(pool.map(tasks.square, range(4)))
pool.close()
pool.join()
print(left.exitcode, left.is_alive())
""")
        self.assertEqual(lines, ["[(None, True), (None, True)]", "255 False", "[0, 1, 4, 9]",
                                 "255 False"])

    def test_nothing_is_left_of_an_owner_without_template(self):
        """Its workers end with it, as ever: finish() looks for them."""
        script = self.start("""
pool = context.Pool(2)
families.lose_all_templates(pool)
tell(pool)
pool.starmap(tasks.note_and_wait, [(notes, never)] * 2, 1)
""", self.head)
        self.wait_notes(2)
        self.kill(script)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: MIT
"""What the workers run. Importing it costs little: every spawned worker does."""
import atexit
import faulthandler
import fcntl
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.shared_memory
import multiprocessing.util
import os
import resource
import signal
import sys
import time

import allcores
import allcores.pool

state = None  # set by initializers


# ---- talking through files ----

def note(path, *words):
    """Append a line in one write, which no other writer can cut."""
    line = " ".join(map(str, words)) + "\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read_notes(path):
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def forget(path):
    os.unlink(path)


def touch(path):
    with open(path, "w"):
        pass


def wait_for(path, value=None):
    """Return value when the file is there; give up when its folder is gone."""
    while not os.path.exists(path):
        if not os.path.isdir(os.path.dirname(path)):
            raise FileNotFoundError(path)
        time.sleep(0.002)
    return value


def note_and_wait(notes, path, value=None):
    note(notes, os.getpid(), value)
    return wait_for(path, value)


def meet(folder, count):
    """Return the pid when count workers are in here: each of them has one task."""
    touch(os.path.join(folder, f"here-{os.getpid()}"))
    end = time.monotonic() + 60
    while sum(name.startswith("here-") for name in os.listdir(folder)) < count:
        if time.monotonic() > end:
            raise TimeoutError("nobody came")
        time.sleep(0.002)
    return os.getpid()


def send_blocked_signals(connection):
    connection.send(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def tracker():
    """What the resource tracker of this process reads from; started if there is none."""
    return os.fstat(multiprocessing.resource_tracker.getfd()).st_ino


def make_shared_memory():
    shared = multiprocessing.shared_memory.SharedMemory(create=True, size=5)
    shared.buf[:5] = b"found"
    shared.close()
    return shared.name


def is_imported(module):
    return module in sys.modules


def memory():
    """Bytes of this process's private memory and of what it has touched of others'."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def spin_noted(notes):
    """Compute for ever."""
    note(notes, os.getpid())
    while True:
        pass


# ---- values ----

def nothing(*_args):
    pass


def same(x):
    return x


def square(x):
    return x * x


def product(a, b):
    return a * b


def describe(*args, **kwds):
    return args, kwds


def pid(_=None):
    return os.getpid()


def nap_and_note(seconds, notes, *words):
    time.sleep(seconds)
    note(notes, *words)


def nap(seconds):
    time.sleep(seconds)
    return seconds


def length(x):
    return len(x)


def blob(size):
    return b"x" * size


class Counter:
    """Bound methods, class methods and instances are functions, too."""

    def __init__(self, start):
        self.start = start

    def __call__(self, x):
        return self.start + x

    def add(self, x):
        return self.start + x

    @classmethod
    def name(cls, x):
        return f"{cls.__name__}{x}"

    @staticmethod
    def double(x):
        return 2 * x


class Shy:
    """Callable, and fails whoever asks what it is."""

    def __call__(self, *args):
        return args

    def __repr__(self):
        raise RuntimeError("not for you")

    def __getattr__(self, name):
        if name.startswith("__reduce"):
            raise AttributeError(name)
        raise RuntimeError("not for you, either")


class ShyAndDeadly(Shy):
    def __call__(self, *args):
        die_of(signal.SIGKILL)


# ---- errors ----

class Trouble(Exception):
    """With an argument more than args holds, yet it can be pickled."""

    def __init__(self, text, number=0):
        super().__init__(text, number)
        self.number = number


def fail(x):
    raise Trouble("no luck", x)


def fail_on(bad, notes, x):
    """Note x, then fail if it is one of the bad."""
    note(notes, x)
    if x in bad:
        raise Trouble("bad item", x)
    return x


def fail_late(notes, path, x):
    """0 fails when the file is there and time has passed, 1 at once."""
    if x == 0:
        wait_for(path)
        time.sleep(0.5)
    else:
        touch(path)
    note(notes, x)
    raise Trouble("bad item", x)


def then_raise(items, error):
    """An input: the items, then the error."""
    yield from items
    raise error


class Brittle:
    """Each stage of its travel can be made to fail: pickle or unpickle."""

    def __init__(self, stage):
        self.stage = stage

    def __reduce__(self):
        if self.stage == "pickle":
            raise RuntimeError("cannot be pickled")
        return rebuild, (self.stage,)


def rebuild(stage):
    if stage == "unpickle":
        raise RuntimeError("cannot be rebuilt")
    return Brittle(stage)


def brittle(stage):
    return Brittle(stage)


def count_or_fail(seen):
    """How many items of its call, which share the list seen, have been here; fails without one."""
    if seen is None:
        raise Trouble("nothing to count with")
    seen.append(1)
    return len(seen)


class Falsy(Exception):
    def __len__(self):
        return 0


def fail_falsy(x):
    if x == 2:
        raise Falsy(x)
    return x


class ExitsWhenPickled:
    """If it is bad."""

    def __init__(self, bad):
        self.bad = bad

    def __reduce__(self):
        if self.bad:
            sys.exit("cannot be pickled")
        return ExitsWhenPickled, (False,)


class TwoArguments(Exception):
    """The classic: it can be pickled and never be rebuilt."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def fail_two_arguments(x):
    raise TwoArguments(x, x)


class Unpicklable(Exception):
    def __init__(self):
        super().__init__(Brittle("pickle"))


def fail_unpicklable(_=None):
    raise Unpicklable


class Interrupting:
    """A Ctrl-C comes while this is rebuilt in process pid, once."""

    came = False

    def __init__(self, pid):
        self.pid = pid

    def __setstate__(self, state):
        self.__dict__.update(state)
        if os.getpid() == self.pid and not Interrupting.came:
            Interrupting.came = True
            signal.raise_signal(signal.SIGINT)


def interrupting(pid):
    time.sleep(0.02)
    return Interrupting(pid)


def fail_interrupting(pid):
    raise Trouble(Interrupting(pid))


class SlowToRebuild:
    def __init__(self, seconds):
        self.seconds = seconds

    def __setstate__(self, values):
        time.sleep(values["seconds"])
        self.__dict__.update(values)


def slow_to_rebuild(seconds):
    return SlowToRebuild(seconds)


def leaves_base_exception(_=None):
    raise GeneratorExit("not an Exception")


# ---- deaths ----

# How a task can take its worker with it: (exit code, signal), None is not told.
DEATHS = {
    "sys.exit": (3, None),
    "os._exit": (7, None),
    "interrupt": None,
    "kill": (-signal.SIGKILL, "SIGKILL"),
    "segv": (-signal.SIGSEGV, "SIGSEGV"),
    "abort": (-signal.SIGABRT, "SIGABRT"),
}


def die(how):
    """Does not return, unless the worker holds back a signal that it must not."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump can take long
    faulthandler.disable()  # no page of tracebacks in the tests' output
    if how == "sys.exit":
        sys.exit(3)
    elif how == "os._exit":
        os._exit(7)
    elif how == "interrupt":
        raise KeyboardInterrupt
    elif how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "abort":
        os.abort()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
    raise Trouble("still alive")


def die_noted(notes, how):
    note(notes, os.getpid())
    die(how)


def die_on_three(item):
    """item is (how, file, number); number 3 dies, the others are squared."""
    how, notes, number = item
    note(notes, number)
    if number == 3:
        die(how)
    return number * number


def die_on_three_star(how, notes, number):
    return die_on_three((how, notes, number))


class Deadly:
    """Kills the process that reads it, or that writes it."""

    def __init__(self, stage):
        self.stage = stage

    def __reduce__(self):
        if self.stage == "write":
            os.kill(os.getpid(), signal.SIGKILL)
        return rebuild_deadly, (self.stage,)


def rebuild_deadly(stage):
    if stage == "read":
        os.kill(os.getpid(), signal.SIGKILL)
    return Deadly(stage)


def deadly(stage):
    return Deadly(stage)


def die_once(path, x):
    """The first that comes by is killed."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return x
    os.kill(os.getpid(), signal.SIGKILL)


# ---- initializers ----

def set_state(*args):
    global state
    state = args


def get_state(_=None):
    return state


def note_start(notes):
    note(notes, os.getpid())


def fail_start_at_length():
    raise Trouble("не удалось открыть файл настроек: " * 8)


def fail_start(notes):
    note(notes, os.getpid())
    raise Trouble("initializer without luck")


def fail_first_start(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    raise Trouble("only once")


def fail_second_start(folder):
    """The first worker starts, the second does not, the third does."""
    count = len([name for name in os.listdir(folder) if name.startswith("start")])
    touch(os.path.join(folder, f"start{count}"))
    if count == 1:
        raise Trouble("the second has no luck")


def die_at_start(notes, how):
    note(notes, os.getpid())
    die(how)


def hang_at_start(notes):
    note(notes, os.getpid())
    time.sleep(60)


def hang_at_first_start(notes):
    is_first = not os.path.exists(notes)
    note(notes, os.getpid())
    time.sleep(60 if is_first else 0)


# ---- workers ----

def whoami(_=None):
    process = multiprocessing.current_process()
    return process.name, process._identity, process.daemon, os.getpid()


def signal_mask(_=None):
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def start_a_process(_=None):
    child = multiprocessing.Process(target=nothing)
    child.start()
    child.join()
    return child.exitcode


def log_level(_=None):
    return multiprocessing.get_logger().getEffectiveLevel()


def add_finalizer(notes):
    multiprocessing.util.Finalize(None, note_start, (notes,), exitpriority=10)


def add_atexit(notes):
    atexit.register(note_start, notes)


def add_slow_finalizer(notes, seconds):
    """Notes its worker at the start, and again when its process ends."""
    multiprocessing.util.Finalize(None, note_late, (notes, seconds), exitpriority=10)
    note_start(notes)


def note_late(notes, seconds):
    time.sleep(seconds)
    note_start(notes)


class Hook:
    """Counts the forks that it has seen."""

    def __init__(self):
        self.seen = 0
        multiprocessing.util.register_after_fork(self, Hook.count)

    def count(self):
        self.seen += 1


def nested_map(method, count):
    """A pool inside of a worker."""
    with allcores.get_context(method).Pool(2) as pool:
        return sum(pool.map(square, range(count)))


def _undaemonic(method):
    """The recipe for pools in pools: processes that never are daemons."""
    context = type(allcores.get_context(method))

    class NoDaemonProcess(context.Process):
        @property
        def daemon(self):
            return False

        @daemon.setter
        def daemon(self, value):
            pass

    class NoDaemonContext(context):
        Process = NoDaemonProcess

    for made in (NoDaemonProcess, NoDaemonContext):
        made.__qualname__ = f"{made.__name__}_{method}"
        globals()[made.__qualname__] = made
    return NoDaemonContext


NO_DAEMON = {method: _undaemonic(method) for method in ("fork", "spawn", "forkserver")}


class NestablePool(allcores.pool.Pool):
    def __init__(self, *args, **kwds):
        kwds["context"] = NO_DAEMON[multiprocessing.get_start_method()]()
        super().__init__(*args, **kwds)


class OldNestablePool(allcores.pool.Pool):
    """The older recipe: another Process for the pool."""

    @staticmethod
    def Process(context, *args, **kwds):
        return NO_DAEMON[context.get_start_method()].Process(*args, **kwds)


def nested_death(method):
    with allcores.get_context(method).Pool(1) as pool:
        pool.apply(die, ("kill",))


# ---- forks by the user ----

def fork_and_exit(notes):
    """The child leaves as it should."""
    child = os.fork()
    if child == 0:
        note(notes, os.getpid())
        os._exit(0)
    os.waitpid(child, 0)
    return "parent"


def fork_and_return(notes):
    """The child returns from the task, into the worker's loop."""
    child = os.fork()
    if child == 0:
        note(notes, os.getpid())
        return "child"
    os.waitpid(child, 0)
    return "parent"


def fork_and_exit_with(code, _item):
    """What the child ended with."""
    child = os.fork()
    if child == 0:
        sys.exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave_a_process(notes, seconds):
    """It lives on, with all that it inherited."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(seconds)
        os._exit(0)
    note(notes, child)


def use_state_as_pool():
    return state.apply(square, (3,))


# ---- that are told of ----

def grow_and_die(megabytes, seconds, signum):
    _memory = bytearray(megabytes << 20)
    time.sleep(seconds)
    die_of(signum)


def die_of(signum):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signum)


def die_of_segv_on(bad, item):
    if item == bad:
        die_of(signal.SIGSEGV)
    return item


def nap_deep(notes, path):
    """A frame of its own name, that waits for path."""
    return note_and_wait(notes, path)


def start_slowly(notes, path):
    nap_deep(notes, path)


def read_input(x):
    return x, sys.stdin.read()


def enable_own_faulthandler(path):
    faulthandler.enable(open(path, "a"))


def standard_descriptors():
    """What 0, 1 and 2 lead to, those that are open."""
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)
            if os.path.lexists(f"/proc/self/fd/{fd}")]


def writable_standard_descriptors(_):
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)
            if os.path.lexists(f"/proc/self/fd/{fd}")
            and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY]

# SPDX-License-Identifier: MIT
"""What the workers run in the tests of how they start, what they inherit, and how they leave."""
import atexit
import collections
import itertools
import multiprocessing.process
import multiprocessing.util
import os
import resource
import signal
import sys
import threading
import time

import allcores
import allcores.pool
import tasks

# ---- what a worker is ----


def parent(_=None):
    return os.getppid()


def parents_identity(_=None):
    """(name, pid, whether it lives) of the process that multiprocessing calls the parent."""
    process = multiprocessing.parent_process()
    return process.name, process.pid, process.is_alive()


def threads(_=None):
    """(The current thread is the main one, the main one's id is the process's, how many.)"""
    main = threading.main_thread()
    return (threading.current_thread() is main, main.native_id == os.getpid(),
            len(os.listdir("/proc/self/task")))


def set_handler(_=None):
    """Only a main thread can."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    return "set"


def wakeup_descriptor(_=None):
    return signal.set_wakeup_fd(-1)


def surroundings(descriptor):
    """What a process inherits at a fork."""
    try:
        file = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:
        file = None
    umask = os.umask(0)
    os.umask(umask)
    return {
        "memory": tasks.state, "folder": os.path.basename(os.getcwd()),
        "variable": os.environ.get("ALLCORES_TEST_WORD"), "file": file, "umask": umask,
        "limit": resource.getrlimit(resource.RLIMIT_CPU)[0]}


class AfterFork:
    """Has an after-fork hook of multiprocessing's, which notes each process that it runs in."""

    def __init__(self, notes):
        self.notes = notes
        multiprocessing.util.register_after_fork(self, AfterFork.note)

    def note(self):
        tasks.note(self.notes, os.getpid())


# ---- processes of the user's own class ----

class NotingProcess:
    """Notes which of its methods are called, and where. NOTES is the file."""

    def __init__(self, *args, **kwds):
        super().__init__(*args, **kwds)
        self.notes = os.environ["NOTES"]

    def note(self, method):
        tasks.note(self.notes, method, os.getpid(), self.name)

    def run(self):
        self.note("run")
        super().run()

    def _bootstrap(self, *args, **kwds):
        self.note("_bootstrap")
        return super()._bootstrap(*args, **kwds)


def _noting(method):
    context = type(allcores.get_context(method))

    class Process(NotingProcess, context.Process):
        pass

    class Context(context):
        pass

    Context.Process = Process
    for made in (Process, Context):
        made.__qualname__ = f"Noting{made.__name__}_{method}"
        globals()[made.__qualname__] = made
    return Context


NOTING = {method: _noting(method) for method in ("fork", "spawn", "forkserver")}


class OwnStart(multiprocessing.context.ForkProcess):
    """A process with a way to start of its own."""

    def start(self):
        tasks.note(os.environ["NOTES"], "start", os.getpid())
        super().start()


class OwnStartContext(type(allcores.get_context("fork"))):
    Process = OwnStart


# ---- starting ----

class Held:
    """Unpickled in a worker before its initializer begins: notes the worker, and holds it there
    while the file is there."""

    def __init__(self, notes, hold):
        self.path = notes, hold

    def __reduce__(self):
        return hold, self.path


def hold(notes, path):
    tasks.note(notes, os.getpid())
    while os.path.exists(path):
        time.sleep(0.002)
    return None


class Fatal:
    """Whoever unpickles it ends in one of the ways of tasks.die, or by an import error."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return end_so, (self.how,)


def end_so(how):
    sys.stderr = open(os.devnull, "w")  # no tracebacks among the tests' output
    if how == "import error":
        raise ImportError("no module named nobody")
    tasks.die(how)


def open_a_pool(method, notes, context=None):
    """In a process that is a daemon, perhaps: a pool, its result, or the error."""
    try:
        with allcores.pool.Pool(2, context=context or allcores.get_context(method)) as pool:
            text = repr(pool.map(tasks.square, range(4)))
    except AssertionError as error:
        text = f"AssertionError: {error}"
    tasks.note(notes, text)
    return text


def open_own_start_pool(notes):
    os.environ["NOTES"] = notes
    open_a_pool("fork", notes, OwnStartContext())


def open_a_pool_and_wait(notes):
    pool = allcores.get_context("fork").Pool(2)
    pool.map(tasks.square, range(4))
    tasks.note(notes, *[process.pid for process in pool._pool])
    time.sleep(100)


# ---- leaving ----

def note_sigterm(notes):
    """As coverage does it: write out what there is, then end in the way of before."""
    def handler(signum, frame):
        tasks.note(notes, "SIGTERM", os.getpid())
        signal.signal(signal.SIGTERM, before)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handler)


def hang_at_sigterm(notes):
    """Has begun to leave, and does not come to an end."""
    def handler(signum, frame):
        tasks.note(notes, "SIGTERM", os.getpid())
        time.sleep(100)

    signal.signal(signal.SIGTERM, handler)


def note_ends(notes):
    """Notes that come when the process ends in the normal way."""
    multiprocessing.util.Finalize(
        None, tasks.note, (notes, "Finalize", os.getpid()), exitpriority=10)
    atexit.register(tasks.note, notes, "atexit", os.getpid())


def hang_at_end(notes):
    multiprocessing.util.Finalize(None, hang_noted, (notes,), exitpriority=10)


def hang_noted(notes):
    tasks.note(notes, "leaves", os.getpid())
    time.sleep(100)


def stay_in_c(notes):
    """Never comes back to Python."""
    tasks.note(notes, os.getpid())
    collections.deque(itertools.repeat(0), maxlen=0)


# ---- initializers whose errors are hard to tell ----

class Mute(Exception):
    """Has no text."""

    def __str__(self):
        raise RuntimeError("cannot be shown")

    __repr__ = __str__


class Endless(Exception):
    """Recurses where it is shown."""

    def __str__(self):
        return str(self)

    __repr__ = __str__


class NoText(Exception):
    """What should be its text is something else."""

    def __str__(self):
        return 5


ERRORS = {
    "NUL": lambda: ValueError("the file\0is empty"),
    "NUL first": lambda: ValueError("\0the file is empty"),
    "surrogate": lambda: ValueError("no file \udcff here"),
    "surrogate alone": lambda: ValueError("\ud800"),
    "at length": lambda: ValueError("\udcff€" * 500),
    "mute": Mute,
    "endless": Endless,
    "no text": NoText,
}


def fail_with(name):
    sys.stderr = open(os.devnull, "w")  # tracebacks are not what is tested
    raise ERRORS[name]()


class OddlyNamed:
    """A callable whose name is hard to tell."""

    def __init__(self, kind, error=None):
        self.kind, self.error = kind, error

    def __getattr__(self, name):
        if name != "__qualname__":
            raise AttributeError(name)
        names = {"surrogate": "start\udcff", "NUL": "start\0", "number": 5}
        if self.kind in names:
            return names[self.kind]
        raise RuntimeError("no name")

    def __repr__(self):
        raise RuntimeError("not shown")

    def __call__(self):
        if self.error:
            fail_with(self.error)
        tasks.state = "initialized"


class OddlyNamedDeath(OddlyNamed):
    def __call__(self):
        tasks.die("kill")

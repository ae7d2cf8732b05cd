# SPDX-License-Identifier: MIT
"""What the scripts of test_limits.py do to themselves: limits, and what a system may lack."""
import contextlib
import ctypes
import gc
import os
import resource
import shutil
import signal
import struct
import sys
import threading
import time

from allcores import _oom_killer

SKIP = "skip: "  # how the first line begins of a script that can't be run here, before the reason
NOBODY = 65534
UNLIMITED = resource.RLIM_INFINITY
CLONE_NEWNS, MS_RDONLY, MS_REC, MS_PRIVATE = 0x20000, 1, 0x4000, 0x40000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ENOSYS = 38
MEMFD_CREATE = {"x86_64": 319, "aarch64": 279, "riscv64": 279}

libc = ctypes.CDLL(None, use_errno=True)


def give_up(reason):
    """The test is skipped."""
    print(f"{SKIP}{reason}", flush=True)
    sys.exit(0)


def attempt(call):
    """What it gives, or the exception that it raises."""
    try:
        return call()
    except Exception as error:
        return error


def in_the_end(call):
    """What it gives once it raises no more; the forkserver may still be about to end."""
    for _ in range(50):
        result = attempt(call)
        if not isinstance(result, Exception):
            break
        time.sleep(0.02)
    return result


def tell(what):
    """A line: the value, or an exception's type, words and notes."""
    if isinstance(what, BaseException):
        notes = getattr(what, "__notes__", [])
        what = "; ".join([f"{type(what).__name__}: {what}", *notes])
    print(what, flush=True)


# ---- control groups ----

def new_memory_group(size):
    """The folder of a group below ours that may have so many bytes; None where we may not."""
    for events in _oom_killer._group_files("/"):
        folder = f"{os.path.dirname(events)}/allcores-test-{os.getpid()}"
        limits = ["memory.max", "memory.swap.max"] if events.endswith("events") else [
            "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        sizes = [size, 0 if limits[1] == "memory.swap.max" else size]
        try:
            os.mkdir(folder)
            write(f"{folder}/{limits[0]}", sizes[0])
        except OSError:
            drop_group(folder)
            continue
        with contextlib.suppress(OSError):  # where swap is counted
            write(f"{folder}/{limits[1]}", sizes[1])
        return folder
    return None


def enter_group(folder):
    write(f"{folder}/cgroup.procs", os.getpid())


def drop_group(folder):
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return not os.path.exists(folder)


def write(path, value):
    with open(path, "w") as file:
        file.write(str(value))


# ---- limits ----

def limit(what, number):
    resource.setrlimit(what, (number, resource.getrlimit(what)[1]))


@contextlib.contextmanager
def limited(what, number):
    before = resource.getrlimit(what)[0]
    limit(what, number)
    try:
        yield
    finally:
        limit(what, before)


def space():
    """Bytes of address space in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def limit_space(more):
    """Initializer: so much more address space than now."""
    limit(resource.RLIMIT_AS, space() + more)


def limit_files(most):
    """Initializer: files of at most so many bytes; more is SIGXFSZ, which Python ignores."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    limit(resource.RLIMIT_FSIZE, most)


@contextlib.contextmanager
def no_threads():
    """Each thread's stack would need more than there is."""
    gc.collect()
    before = threading.stack_size(256 << 20)
    try:
        with limited(resource.RLIMIT_AS, space() + (64 << 20)):
            yield
    finally:
        threading.stack_size(before)


@contextlib.contextmanager
def no_descriptors():
    held = []
    with limited(resource.RLIMIT_NOFILE, 64):
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            yield
        finally:
            for fd in held:
                os.close(fd)


def wait_first_free(folder, seconds=20):
    """Initializer: the first worker starts, the others wait for the file go."""
    try:
        os.mkdir(os.path.join(folder, "first"))
    except FileExistsError:
        end = time.monotonic() + seconds
        while not os.path.exists(os.path.join(folder, "go")) and time.monotonic() < end:
            time.sleep(0.01)


# ---- another user ----

def become_nobody():
    """Run on as a user to whom RLIMIT_NPROC applies, who may still read all files."""
    if os.getuid() == NOBODY:
        return
    if os.getuid() != 0:
        give_up("RLIMIT_NPROC counts all that this user runs: needs root, to become nobody")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        give_up("setpriv is not there")
    caps = "-all,+dac_read_search"
    command = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
               f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}",
               sys.executable]
    if os.spawnv(os.P_WAIT, setpriv, [*command, "-c", "import allcores, tasks"]) != 0:
        give_up("nobody can't read Python or these sources")
    os.execv(setpriv, [*command, *sys.argv])


# ---- what a system may lack ----

def private_mounts():
    """Mounts made from here on are this process's and its children's."""
    if libc.unshare(CLONE_NEWNS) != 0:
        give_up(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    _mount(None, "/", None, MS_REC | MS_PRIVATE, None)


def mount_tmpfs(path, options, flags=0):
    _mount("tmpfs", path, "tmpfs", flags, options)


def _mount(source, path, kind, flags, options):
    words = [word and word.encode() for word in (source, path, kind, options)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        give_up(f"can't mount on {path}: {os.strerror(ctypes.get_errno())}")


def fill(folder):
    """Until nothing more fits."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "full"), "wb", 0) as file:
        while True:
            file.write(b"x" * 4096)


def forbid_memfd():
    """From here on memfd_create is not there, as in kernels before 3.17 and in sandboxes."""
    number = MEMFD_CREATE.get(os.uname().machine)
    if number is None:
        give_up("the number of memfd_create is not known for this machine")

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    code = b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x00050000 | ENOSYS),
        (0x06, 0, 0, 0x7FFF0000)))  # allow
    lines = ctypes.create_string_buffer(code)
    program = Program(4, ctypes.addressof(lines))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        give_up(f"no filter of system calls: {os.strerror(ctypes.get_errno())}")
    error = attempt(lambda: os.memfd_create("still there"))
    assert isinstance(error, OSError) and error.errno == ENOSYS, error

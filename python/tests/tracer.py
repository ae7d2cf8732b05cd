# SPDX-License-Identifier: MIT
"""One process led by ptrace from place to place: its stores to shared memory, its system calls.

To stop at each store, and to pay for nothing else, the pool's region is made read-only in
the traced process (by a system call that it is made to make): a store is then a fault, and the
process stops before it. The page is opened, one instruction is made, the page is closed.

A place is the same in two runs if it is the nth store to that offset of the region, or the nth
time of that system call. So who wants to come to one place needs to stop at little else: a
store takes one closed page, a system call none.

All requests for a process have to come from the thread that seized it.
"""
import ctypes
import errno
import os
import platform
import signal
import time
from collections import Counter
from typing import NamedTuple

HANG = 20.0  # seconds without news, and not asleep
PAGE = os.sysconf("SC_PAGESIZE")
REGION = "/memfd:allcores"
ENGINE = "/_core."

SINGLESTEP, GETREGS, SETREGS, DETACH, SYSCALL = 9, 12, 13, 17, 24
GETEVENTMSG, GETSIGINFO, SEIZE, INTERRUPT = 0x4201, 0x4202, 0x4206, 0x4207
CONT = 7
TRACE_CALLS, TRACE_FORK, TRACE_VFORK, EXIT_KILL = 1, 2, 4, 1 << 20
EVENT_FORK, EVENT_VFORK, EVENT_STOP = 1, 2, 128
WALL = 0x40000000
CALL_TRAP = signal.SIGTRAP | 0x80
ADDRESS_AT = 16  # in siginfo

# Numbers of system calls on x86-64.
MMAP, MPROTECT, MUNMAP, YIELD, RECVMSG, EXECVE, FUTEX = 9, 10, 11, 24, 47, 59, 202
SYSTEM_CALL = b"\x0f\x05"
MAPS_OVER = 0x01 | 0x10  # MAP_SHARED, MAP_FIXED
READ, WRITE = 1, 2
NO_ADDRESS_RANDOMIZATION, PARENT_DEATH_SIGNAL = 0x0040000, 1
NO_CALL = (1 << 64) - 1
RESTARTS = range(-516, -511)  # what the kernel says of a call that it is to make again

STORE, BEFORE, ASLEEP, AFTER = "store", "before", "asleep in", "after"


class Place(NamedTuple):
    """kind, the offset in the region or the system call's number, and how often so far."""

    kind: str
    what: int
    visit: int

    def __str__(self):
        what = f"to {self.what:#x}" if self.kind == STORE else f"call {self.what}"
        return f"{self.kind} {what}, visit {self.visit}"


class Found(NamedTuple):
    """A place, and what is known of it."""

    place: Place
    pc: int
    changed: bool = True  # a store that changes no byte is nothing to others
    engine: bool = True  # the store is made by the engine's own code


class Registers(ctypes.Structure):
    """struct user_regs_struct"""

    _fields_ = [(name, ctypes.c_uint64) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags "
        "rsp ss fs_base gs_base ds es fs gs").split()]

    def copy(self):
        return type(self).from_buffer_copy(self)

    def arguments(self):
        return self.rdi, self.rsi, self.rdx, self.r10


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class Gone(Exception):
    """The process has ended."""


def request(what, pid, address=0, data=0):
    """ptrace(2). Raises Gone, or OSError."""
    if _libc.ptrace(what, pid, address, data) >= 0:
        return
    code = ctypes.get_errno()
    if code == errno.ESRCH:
        raise Gone(pid)
    raise OSError(code, f"ptrace: {os.strerror(code)}")


def state_of(pid):
    """As in /proc: R, S, Z...; X: it is not there."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_alive(pid):
    return state_of(pid) not in "ZX"


def is_ready(pid):
    """It sleeps on a word: a worker with nothing to do."""
    def sleeps():
        try:
            with open(f"/proc/{pid}/syscall") as file:
                return file.read().startswith(f"{FUTEX} ") and state_of(pid) == "S"
        except OSError:
            return False
    return sleeps() and sleeps()


def why_not():
    """Why nothing can be traced here, or None."""
    if platform.machine() != "x86_64":
        return f"registers are known for x86-64, not for {platform.machine()}"
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        request(SEIZE, pid, 0, EXIT_KILL)
        request(INTERRUPT, pid)
        return None
    except OSError as error:
        return f"ptrace is forbidden here ({os.strerror(error.errno)})"
    finally:
        os.kill(pid, signal.SIGKILL)
        while True:
            if not os.WIFSTOPPED(os.waitpid(pid, WALL)[1]):
                break


def _back_to_call(regs):
    """Interrupted in a system call, it is to make it again."""
    if ctypes.c_int64(regs.rax).value in RESTARTS:
        regs.rip -= 2
        regs.rax = regs.orig_rax
    return regs


class Mapping(NamedTuple):
    start: int
    end: int
    offset: int  # in the region


class Tracee:
    """A traced process. watch: the offset of whose page stores are seen; None: no store is;
    "all": each is."""

    def __init__(self, pid, watch=None):
        self.pid = pid
        self.status = None  # of waitpid, once it has ended
        self._watch = watch
        self._visits = Counter()
        self._maps = []
        self._engine = []
        self._syscall = None  # where such an instruction is
        self._memory = None
        self._stopped, self._stop = False, 0  # and by what: waitpid's status without its low byte

    # ---- beginnings and ends ----

    def seize(self):
        """Of a process that sleeps in a system call: it is about to make that again."""
        request(SEIZE, self.pid, 0, TRACE_CALLS | EXIT_KILL)
        request(INTERRUPT, self.pid)
        self._await()
        self._begin()

    def adopt(self, vforked):
        """One that was born to a process that is traced; it is in the call that made it.
        vforked: till its exec all memory is its parent's, who waits for that."""
        self._await()
        if vforked:
            self._go_to_program()
        self._begin()

    def _go_to_program(self):
        """To the end of its first system call there."""
        number = None
        while number != EXECVE or ctypes.c_int64(self._registers().rax).value < 0:
            number = self._make_next_call()
        self._make_next_call()

    def _make_next_call(self):
        self._go_to_call()
        number = self._registers().orig_rax
        self._go_to_call()
        return number

    def _go_to_call(self):
        """Where one begins, or ends."""
        self._resume(SYSCALL)
        self._await()
        while self._stop != CALL_TRAP:
            self._resume(SYSCALL)
            self._await()

    def _begin(self):
        self._look_at_maps()
        regs = self._registers()
        self._syscall = regs.rip - 2
        if self._read(self._syscall, 2) != SYSTEM_CALL:
            raise RuntimeError(f"{self.pid} was in no system call")
        self._close_all(_back_to_call(regs))

    def kill(self):
        """At once, wherever it is."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
        self._await_end()
        self._forget()

    def let_go(self):
        """From where it sleeps; its pages are as they were."""
        try:
            request(INTERRUPT, self.pid)
            self._await()
            regs = _back_to_call(self._registers())
            self._open_all()
            self._set_registers(regs)
            request(DETACH, self.pid)
        except Gone:
            self._await_end()
        self._forget()

    def _forget(self):
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    # ---- requests ----

    def _registers(self):
        regs = Registers()
        request(GETREGS, self.pid, 0, ctypes.addressof(regs))
        return regs

    def _set_registers(self, regs):
        """It is in no system call, whatever it was in."""
        regs.orig_rax = NO_CALL
        request(SETREGS, self.pid, 0, ctypes.addressof(regs))

    def _fault_address(self):
        info = ctypes.create_string_buffer(128)
        request(GETSIGINFO, self.pid, 0, ctypes.addressof(info))
        return int.from_bytes(info.raw[ADDRESS_AT:ADDRESS_AT + 8], "little")

    def _read(self, address, size):
        if self._memory is None:
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(self._memory, size, address)
        except OSError:
            return b""

    def _resume(self, how, signum=0):
        self._stopped = False
        request(how, self.pid, 0, signum)

    # ---- news ----

    def _poll(self, wait=False):
        """Whether there is news: it stopped, or ended."""
        pid, status = os.waitpid(self.pid, WALL | (0 if wait else os.WNOHANG))
        if pid == 0:
            return False
        if os.WIFSTOPPED(status):
            self._stopped = True
            self._stop = status >> 8
        else:
            self.status = status
        return True

    def _await(self):
        """Until it stops; Gone if it ends."""
        end = time.monotonic() + HANG
        looks = 0
        while not self._poll():
            looks += 1
            if looks > 50:
                time.sleep(0.00002)
            if looks % 1000 == 0 and time.monotonic() > end:
                raise TimeoutError(f"no news of {self.pid}, which is {state_of(self.pid)}")
        if self.status is not None:
            raise Gone(self.pid)

    def _await_end(self):
        while self.status is None:
            self._poll(wait=True)

    def _sleeps(self):
        """Twice: one that is woken is not shown asleep any more. News may come meanwhile."""
        return state_of(self.pid) == "S" == state_of(self.pid) and not self._poll()

    def has_news(self):
        """Asleep a moment ago, it has come on."""
        return self._stopped or self.status is not None or self._poll()

    # ---- the region's pages ----

    def _look_at_maps(self):
        self._maps, self._engine = [], []
        with open(f"/proc/{self.pid}/maps") as file:
            for line in file:
                if REGION not in line and ENGINE not in line:
                    continue
                words = line.split()
                start, end = (int(word, 16) for word in words[0].split("-"))
                if REGION in line and words[1][3] == "s":
                    self._maps.append(Mapping(start, end, int(words[2], 16)))
                elif ENGINE in line and "x" in words[1]:
                    self._engine.append(range(start, end))

    def _offset(self, address):
        """In the region, or None."""
        for found in self._maps:
            if found.start <= address < found.end:
                return address - found.start + found.offset
        return None

    def _to_close(self):
        """(address, length) of what is to be read-only."""
        if self._watch == "all":
            return [(found.start, found.end - found.start) for found in self._maps]
        if self._watch is None:
            return []
        page = self._watch - self._watch % PAGE
        return [(found.start + page - found.offset, PAGE) for found in self._maps
                if found.offset <= page < found.offset + found.end - found.start]

    def _inject(self, number, *arguments):
        """It makes a system call; its registers are lost."""
        regs = self._registers()
        regs.rip, regs.rax = self._syscall, number
        regs.rdi, regs.rsi, regs.rdx = arguments
        self._set_registers(regs)
        self._resume(SINGLESTEP)
        self._await()
        result = ctypes.c_int64(self._registers().rax).value
        if result < 0:
            raise OSError(-result, f"system call {number} in {self.pid}: {os.strerror(-result)}")

    def _open_all(self):
        for address, length in self._to_close():
            self._inject(MPROTECT, address, length, READ | WRITE)

    def _close_all(self, regs):
        for address, length in self._to_close():
            self._inject(MPROTECT, address, length, READ)
        self._set_registers(regs)

    def _is_closed(self, address):
        return any(start <= address < start + length for start, length in self._to_close())

    # ---- from place to place ----

    def places(self):
        """Each place, as it comes to it (see Found). Stopped there, or asleep; to go on is to
        ask for the next one. Who was told that it sleeps may kill it, or wake it."""
        try:
            yield from self._places()
        except Gone:
            self._await_end()

    def _found(self, kind, what, pc, **more):
        self._visits[kind, what] += 1
        return Found(Place(kind, what, self._visits[kind, what]), pc, **more)

    def _places(self):
        number, signum = None, 0  # the system call that it was in last; to be delivered
        while True:
            self._resume(SYSCALL, signum)
            self._await()
            signum = 0
            if self._stop == CALL_TRAP:
                regs = self._registers()
                # One that looks for work yields as often as time allows: one place.
                again = number == YIELD == regs.orig_rax
                number = regs.orig_rax
                yield from self._call(regs, again)
            elif self._stop == signal.SIGSEGV and self._is_closed(self._fault_address()):
                number = None
                yield self._store(self._registers(), self._fault_address())
            elif self._stop >> 8 != EVENT_STOP and self._stop != signal.SIGTRAP:
                signum = self._stop

    def _call(self, regs, hidden):
        number, pc = regs.orig_rax, regs.rip
        if not hidden:
            yield self._found(BEFORE, number, pc)
        opened = self._writes_to_closed(number, regs)
        if opened:
            self._open_for_call(regs)
        self._resume(SYSCALL)
        yield from self._wait_in_call(number, pc)
        if opened or self._changes_maps(number, regs):
            self._close_after_call()
        if not hidden:
            yield self._found(AFTER, number, pc)

    def _wait_in_call(self, number, pc):
        end = time.monotonic() + HANG
        looks, told = 0, False
        while not self._poll():
            looks += 1
            if looks < 30:
                os.sched_yield()
            elif told or not self._sleeps():
                time.sleep(0.00005)
            elif not self.has_news():
                told = True
                yield self._found(ASLEEP, number, pc)
                end = time.monotonic() + HANG
                if self.has_news():
                    break
            else:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{self.pid} does not come out of system call {number}")
        if self.status is not None:
            raise Gone(self.pid)

    def _changes_maps(self, number, regs):
        if number == MMAP:
            return regs.r10 & MAPS_OVER
        return number == MUNMAP and self._offset(regs.rdi) is not None

    def _writes_to_closed(self, number, regs):
        """The kernel would, and would be refused. Waiting on a word only reads it."""
        return number not in (FUTEX, MMAP, MUNMAP, MPROTECT) and any(
            self._is_closed(address) for address in regs.arguments())

    def _open_for_call(self, regs):
        """It is about to make this call: it makes none, and comes to this one again."""
        again = regs.copy()
        self._set_registers(regs)
        self._resume(SYSCALL)
        self._await()
        self._open_all()
        again.rip, again.rax = again.rip - 2, again.orig_rax
        self._set_registers(again)
        self._resume(SYSCALL)
        self._await()

    def _close_after_call(self):
        regs = self._registers()
        self._look_at_maps()
        self._close_all(regs)

    # ---- a store ----

    def _store(self, regs, address):
        """It is made; where it goes over the end of a page, both are opened for it."""
        before, opened = self._read(address, 64), [address - address % PAGE]
        while True:
            self._inject(MPROTECT, opened[-1], PAGE, READ | WRITE)
            self._set_registers(regs)
            self._resume(SINGLESTEP)
            self._await()
            if self._stop != signal.SIGSEGV:
                break
            other = self._fault_address()
            opened.append(other - other % PAGE)
        changed = self._read(address, 64) != before
        after = self._registers()
        for page in opened:
            self._inject(MPROTECT, page, PAGE, READ)
        self._set_registers(after)
        engine = any(regs.rip in code for code in self._engine)
        return self._found(STORE, self._offset(address), regs.rip, changed=changed, engine=engine)


class Parent:
    """A process that is traced until it has a child."""

    def __init__(self, pid, traced=False):
        """traced: it is another's child that await_child has returned, and is traced by that."""
        self.pid = pid
        if not traced:
            request(SEIZE, pid, 0, TRACE_CALLS | TRACE_FORK | TRACE_VFORK | EXIT_KILL)

    def await_child(self):
        """(its pid, whether it was vforked); the parent is stopped."""
        end = time.monotonic() + HANG
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, WALL | os.WNOHANG)
            if pid == 0:
                time.sleep(0.0001)
                continue
            if not os.WIFSTOPPED(status):
                raise Gone(self.pid)
            event = status >> 16
            if event in (EVENT_FORK, EVENT_VFORK):
                child = ctypes.c_ulong()
                request(GETEVENTMSG, self.pid, 0, ctypes.addressof(child))
                return child.value, event == EVENT_VFORK
            request(CONT, self.pid, 0, 0 if event else os.WSTOPSIG(status))
        raise TimeoutError(f"{self.pid} has no child")

    def let_go(self):
        request(DETACH, self.pid)


def become_repeatable():
    """In a process that is about to be another program: its addresses are the same each time,
    and it does not outlive its parent."""
    _libc.personality(NO_ADDRESS_RANDOMIZATION)
    _libc.prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)

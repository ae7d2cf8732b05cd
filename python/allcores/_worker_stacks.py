# SPDX-License-Identifier: MIT
"""Python stacks of workers: written by faulthandler in the worker, read by the owner.

A worker writes its stack when its interpreter crashes, or when the owner asks for it (SIGNAL). It
writes to a file in memory that all workers of a pool share. Each worker has an area of its own in
it, and a file position of its own, since it opens the file again. The owner overwrites what it
has read with zeros. The file is sparse: areas that nobody writes to take no memory.

Needs memfd and /proc (Linux). Elsewhere there are no stacks.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import weakref

from ._descriptors import above_standard

AREA = 1 << 26  # bytes; no worker writes that much in its life

# A signal that programs hardly use.
SIGNAL = getattr(signal, "SIGRTMAX", 0) - 1

_WORKER_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_worker.py")

SHOWN_MOST = 16384  # bytes of a stack that are shown


class Stacks:
    """The owner's side."""

    def __init__(self) -> None:
        self.fd = -1
        self._lock = threading.RLock()
        try:
            self.fd = above_standard(os.memfd_create("allcores-stacks"))
        except (AttributeError, OSError):
            return
        self._close = weakref.finalize(self, os.close, self.fd)
        # At exit it stays open: exit functions of others run later, and may open files, which would
        # get the number.
        self._close.atexit = False

    def close(self) -> None:
        """Close the file: no more stacks will be read."""
        with self._lock:
            if self.fd >= 0:
                self._close()
                self.fd = -1

    def renew_lock(self) -> None:
        """In a forked child."""
        self._lock = threading.RLock()

    def _pieces(self, worker: int) -> list[tuple[int, bytes]]:
        """The parts of an area that were ever written, as (position, bytes)."""
        position, end = worker * AREA, (worker + 1) * AREA
        pieces = []
        while self.fd >= 0 and position < end:
            try:
                position = os.lseek(self.fd, position, os.SEEK_DATA)
                hole = os.lseek(self.fd, position, os.SEEK_HOLE)
            except OSError:  # the rest of the file is a hole
                break
            if position >= end:
                break
            length = min(hole, end) - position
            pieces.append((position, os.pread(self.fd, length, position)))
            position += length
        return pieces

    def peek(self, worker: int) -> str:
        """What the worker in this seat (from 0) has written since the last take."""
        with self._lock:
            data = b"".join(data for _, data in self._pieces(worker))
        return data.replace(b"\0", b"")[:SHOWN_MOST].decode(errors="replace")

    def take(self, worker: int) -> str:
        """The same, and remove it."""
        text = self.peek(worker)
        if text:
            with self._lock:
                for position, data in self._pieces(worker):
                    os.pwrite(self.fd, bytes(len(data)), position)
        return text


def crash_stack(text: str) -> str | None:
    """The stack in what a worker has written because its interpreter crashed."""
    _, found, crash = text.rpartition("Fatal Python error: ")
    if not found:
        return None
    _, _, threads = crash.partition("\n")
    threads, _, _ = threads.partition("\nExtension modules: ")
    return task_stacks(threads) or None


def task_stacks(text: str) -> str:
    """Stacks without the frames of the package that lead to the task's function."""
    lines: list[str] = []
    own = False
    for line in text.strip().splitlines():
        if not line.startswith("  File "):
            own = False
        elif line.startswith(f'  File "{_WORKER_FILE}"') and line.endswith(" in main"):
            own = True
            if lines and not lines[-1].startswith("  File "):
                lines.append("  (a function that is not written in Python)")
        if not own:
            lines.append(line)
    return "\n".join(lines)


_START_FAILURE = "allcores: this worker can't start: "


def start_failure(text: str) -> str | None:
    """What a worker has written by write_start_failure."""
    _, found, words = text.rpartition(_START_FAILURE)
    return words.partition("\n")[0] if found else None


def write_start_failure(fd: int, words: str) -> None:
    """In a worker: say why it can't take its seat. fd: what write_to has returned."""
    if fd < 0:
        return
    try:
        os.write(fd, (_START_FAILURE + " ".join(words.split()) + "\n").encode())
    except OSError:
        pass  # the owner learns the exit code


def write_to(fd: int, worker: int) -> int:
    """In a worker: write stacks to this file from now on, if possible. Takes over fd. Return the
    descriptor that is written to, or -1."""
    if fd < 0:
        return -1
    try:
        own = above_standard(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
        os.lseek(own, worker * AREA, os.SEEK_SET)
    except OSError:
        return -1
    finally:
        os.close(fd)
    faulthandler.enable(own)
    faulthandler.register(SIGNAL, own)
    return own


def request(pid: int) -> bool:
    """Make a worker write its stack, by a signal. False: the process does not handle the signal,
    which would kill it, or it is in a state in which it cannot run the handler."""
    try:
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        if status["State"].split()[0] in "RS" and _has_bit(status["SigCgt"], SIGNAL - 1):
            os.kill(pid, SIGNAL)
            return True
    except (OSError, ValueError, LookupError):
        pass
    return False


def _has_bit(mask: str, bit: int) -> bool:
    return bool(int(mask, 16) >> bit & 1)

# SPDX-License-Identifier: MIT
"""Descriptors of our own.

Some programs have closed 0, 1 or 2. A descriptor that the package opens must not get one of these
numbers: what the program or a C library prints would be written into a pipe or a file of ours.

And the sockets over which workers send the descriptors that results hold. _sent_descriptors.py
uses them; it is imported when that happens.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager


def above_standard(fd: int) -> int:
    """The same open file under a number above 2. Takes over fd."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextmanager
def standard_reserved() -> Iterator[None]:
    """For code of the standard library that opens descriptors: in this block those of 0, 1 and 2
    that are closed lead to /dev/null. Processes that are started in it inherit that."""
    reserved = []
    try:
        while not all(map(_is_open, range(3))):
            reserved.append(os.open(os.devnull, os.O_RDWR))
            os.set_inheritable(reserved[-1], True)
    except OSError:
        pass  # no /dev/null, or no descriptor left: start without
    try:
        yield
    finally:
        for fd in reserved:
            os.close(fd)


class SocketEnd:
    """One end of a pair of sockets. It may be closed, or may never have been opened."""

    def __init__(self, fd: int = -1, inode: int = 0) -> None:
        self.fd = fd
        self.inode = inode  # the program may have closed fd, and have another file under it

    def _is_open(self) -> bool:
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def open(self) -> socket.socket:
        """The same socket once more, to be closed after use."""
        if not self._is_open():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fd = above_standard(os.dup(self.fd))
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)

    def close(self) -> None:
        """Close it, if it is still open."""
        if self._is_open():
            os.close(self.fd)
        self.fd = -1


def _make_pair() -> tuple[SocketEnd, SocketEnd]:
    try:
        with standard_reserved():
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # More than is allowed: as much as is.
        pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    except OSError:
        return SocketEnd(), SocketEnd()
    first, second = [(os.fstat(end.fileno()).st_ino, end.detach()) for end in pair]
    return SocketEnd(*reversed(first)), SocketEnd(*reversed(second))


class DescriptorChannel:
    """The sockets of a pool over which its workers send the descriptors that results hold, and the
    descriptors that were received and that nobody has asked for so far. In the owner.

    key: workers name the channel by it.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.receiver, self.sender = _make_pair()
        self.key = self.sender.inode
        # Reentrant: a garbage collection in the thread that holds it may decode dropped results.
        self.lock = threading.RLock()
        self.received: dict[bytes, dict[int, int]] = {}  # by result, by number in it
        if self.key:
            channels[self.key] = self

    def is_empty(self) -> bool:
        """Whether there are no descriptors, neither received nor on their way."""
        try:
            with self.receiver.open() as end:
                waits = end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            waits = b""
        return not waits and not self.received

    def close_if_empty(self) -> None:
        """The workers have exited."""
        self.sender.close()
        if self.is_empty():
            self.receiver.close()

    def close(self) -> None:
        """No result can refer to the channel any more."""
        if os.getpid() == self.owner and not self.is_empty():
            from ._sent_descriptors import discard_all  # here, since few programs need it

            discard_all(self)
        self.sender.close()
        self.receiver.close()


channels: weakref.WeakValueDictionary[int, DescriptorChannel] = weakref.WeakValueDictionary()

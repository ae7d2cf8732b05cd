# SPDX-License-Identifier: MIT
"""Descriptors that results hold: sockets, connections, whatever is pickled by reduction.DupFd.

The standard library has a thread of the worker serve them. They are lost when the worker exits
before the owner unpickles the result. So the worker sends them with the result, over a socket of
the pool (DescriptorChannel): the kernel keeps what was sent, and the owner receives it when it
unpickles the result, however late.

One message has all descriptors of a result: its id, their number, the descriptors. Where they
cannot be sent (as many results wait in the socket as it takes, about 550) the result is pickled
again in the standard library's way, and a worker that exits waits a second for the owner to fetch
them.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import time
from array import array
from multiprocessing import ProcessError

from . import _core
from ._descriptors import DescriptorChannel, SocketEnd, above_standard, channels
from ._stdlib_private import replace_shared, share_descriptor
from ._worker import this_thread
from .errors import FORKED

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

SENT_MOST = 253  # descriptors that the kernel takes in one message

ID = 16  # bytes of an id

FETCH_SECONDS = 1.0


class SentDescriptor:
    """In a result, in the place of a descriptor. As resource_sharer.DupFd."""

    def __init__(self, key: int, id: bytes, index: int, shared: Any) -> None:
        self._of = key, id, index
        self._shared = shared  # the standard library's, if the descriptor could not be sent

    def __reduce__(self) -> Any:
        return SentDescriptor, (*self._of, self._shared)

    def detach(self) -> int:
        """The descriptor. Only once."""
        key, id, index = self._of
        if _sender and _sender.has_made(id):
            return _sender.copy(index)
        fd = _receive(key, id, index) if self._shared is None else _fetch(self._shared)
        os.set_inheritable(fd, True)  # as that which the standard library receives
        return fd


# ---- in the worker ----


class Outgoing:
    """The descriptors of the result that is being encoded."""

    def __init__(self, end: SocketEnd) -> None:
        self.id = os.urandom(ID)
        self.fds: list[int] = []
        self.was_refused = False
        self._end = end

    def __del__(self) -> None:
        for fd in self.fds:
            os.close(fd)

    def send(self) -> bool:
        """Send them. False: they cannot be sent."""
        self.was_refused = self.was_refused or not self._try_to_send()
        return not self.was_refused

    def _try_to_send(self) -> bool:
        if len(self.fds) > SENT_MOST:
            return False
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", self.fds))
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            with self._end.open() as end:
                end.sendmsg([self.id, bytes([len(self.fds)])], [rights], flags)
        except OSError:
            return False
        return True


class Sender:
    """Sends the descriptors in a worker's results."""

    def __init__(self, worker: _core.Worker, thread: tuple[int, int], end: SocketEnd) -> None:
        self._worker = worker
        self._thread = thread  # the one that encodes results
        self._end = end
        self._unfetched: set[tuple[bytes, int]] = set()

    def make(self, fd: int) -> SentDescriptor | None:
        """What is pickled for this descriptor. None: the descriptor is not in a result."""
        if not self._worker.encoding or this_thread() != self._thread:
            return None
        outgoing = self._outgoing()
        outgoing.fds.append(os.dup(fd))
        index = len(outgoing.fds) - 1
        shared = self._share(fd, (outgoing.id, index)) if outgoing.was_refused else None
        return SentDescriptor(self._end.inode, outgoing.id, index, shared)

    def _outgoing(self) -> Outgoing:
        outgoing = self._worker.outgoing
        if outgoing is None:
            outgoing = self._worker.outgoing = Outgoing(self._end)
        assert isinstance(outgoing, Outgoing)
        return outgoing

    def _share(self, fd: int, which: tuple[bytes, int]) -> Any:
        self._unfetched.add(which)
        return share_descriptor(fd, lambda: self._unfetched.discard(which))

    def has_made(self, id: bytes) -> bool:
        """Whether the descriptor was made here a moment ago: a worker tries whether exceptions can
        be unpickled."""
        outgoing = self._worker.outgoing
        return isinstance(outgoing, Outgoing) and outgoing.id == id

    def copy(self, index: int) -> int:
        """Such a descriptor."""
        return os.dup(self._outgoing().fds[index])

    def await_fetches(self) -> None:
        """Wait until the owner has fetched what could not be sent, or the time is over."""
        end = time.monotonic() + FETCH_SECONDS
        while self._unfetched and time.monotonic() < end:
            time.sleep(0.002)


_sender: Sender | None = None


def send_descriptors(worker: _core.Worker, thread: tuple[int, int], end: SocketEnd) -> None:
    """From now on send those in the results that this worker encodes in that thread."""
    global _sender
    _sender = Sender(worker, thread, end)
    replace_shared(_make)


def _make(fd: int) -> SentDescriptor | None:
    return _sender.make(fd) if _sender else None


def await_fetches() -> None:
    """The worker is about to exit."""
    if _sender:
        _sender.await_fetches()


# ---- in the owner ----


def _fetch(shared: Any) -> int:
    try:
        return shared.detach()  # type: ignore[no-any-return]
    except (OSError, EOFError) as error:
        raise ProcessError(
            "the worker has ended that was to hand over a descriptor in this result"
        ) from error


def _receive(key: int, id: bytes, index: int) -> int:
    channel = channels.get(key)
    if channel is None or channel.owner != os.getpid():
        raise RuntimeError(FORKED)
    if id not in channel.received:
        # What a signal handler raises would cut it short, and lose descriptors of other results.
        _core.undisturbed(functools.partial(_receive_until, channel, id))
    fd = _take(channel.received, id, index)
    if fd is None:
        raise ProcessError("a descriptor in this result is not there: it was taken before")
    if fd < 0:
        raise OSError(errno.EMFILE, "no free descriptor for one in this result (ulimit -n)")
    return fd


def _receive_until(channel: DescriptorChannel, id: bytes) -> None:
    """Receive descriptors until those of this result are there, or there are no more."""
    with channel.lock:
        while id not in channel.received and _receive_message(channel):
            pass


def _take(received: dict[bytes, dict[int, int]], id: bytes, index: int) -> int | None:
    """None: it is not there. -1: it could not be received."""
    fds = received.get(id, {})
    fd = fds.pop(index, None)
    if not fds:
        received.pop(id, None)
    return fd


def _receive_message(channel: DescriptorChannel) -> bool:
    """Receive the descriptors of one more result. False: no more were sent."""
    space = socket.CMSG_SPACE(SENT_MOST * array("i").itemsize)
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    try:
        with channel.receiver.open() as end:
            data, rights, _, _ = end.recvmsg(ID + 1, space, flags)
    except BlockingIOError:
        return False
    if not data:
        return False
    channel.received[data[:ID]] = _read_rights(rights, data[-1])
    return True


def _read_rights(rights: list[tuple[int, int, bytes]], count: int) -> dict[int, int]:
    """By number, the descriptors that were sent; -1 where this process may not have more."""
    fds = array("i")
    for _, _, data in rights:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return dict.fromkeys(range(count), -1) | dict(enumerate(map(above_standard, fds)))


def _close(fds: dict[int, int]) -> None:
    for fd in fds.values():
        if fd >= 0:
            os.close(fd)


def discard_all(channel: DescriptorChannel) -> None:
    """No result refers to these descriptors any more. In the socket, too: as long as a forked
    child has it open they would stay open."""
    with channel.lock:
        while True:
            while channel.received:
                _close(channel.received.popitem()[1])
            if not _receive_message(channel):
                return

# SPDX-License-Identifier: MIT
"""Results that hold descriptors, which the owner fetches from the worker when it decodes them."""
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from multiprocessing import reduction


def open_socket(text):
    """One end of a pair; the text waits in it."""
    ours, theirs = socket.socketpair()
    theirs.sendall(text.encode())
    theirs.close()
    return ours


def open_pipe(text):
    reader, writer = multiprocessing.Pipe(duplex=False)
    writer.send(text)
    writer.close()
    return reader


class Descriptor:
    """A plain number, sent as multiprocessing.reduction has it."""

    def __init__(self, fd):
        self.fd = fd

    def __reduce__(self):
        return rebuild, (reduction.DupFd(self.fd),)


def rebuild(dup):
    return Descriptor(dup.detach())


def open_file(text):
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return Descriptor(reader)


def read(opened):
    """What waits in a result of one of these, which is then closed."""
    if isinstance(opened, socket.socket):
        with opened:
            return opened.recv(100).decode()
    if isinstance(opened, Descriptor):
        with open(opened.fd, "rb") as file:
            return file.read().decode()
    with opened:
        return opened.recv()


def open_several(text):
    return [open_socket(text), {"pipe": open_pipe(text)}, open_file(text)]


class OpenError(Exception):
    """An exception that holds a socket."""

    def __init__(self, opened):
        super().__init__(opened)
        self.opened = opened


def raise_with_socket(text):
    raise OpenError(open_socket(text))


def open_and_die(text):
    """The result has hardly left when its worker is killed."""
    def die():
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=die, daemon=True).start()
    return open_socket(text)


def open_many(count):
    return [open_socket(str(i)) for i in range(count)]


def open_twice(text):
    """The same object and the same descriptor twice."""
    ours = open_socket(text)
    return ours, ours, Descriptor(os.dup(ours.fileno())), Descriptor(ours.fileno())


def open_and_fork(text):
    """The child returns, too."""
    opened = open_socket(text)
    if os.fork() == 0:
        return opened
    os.wait()
    return opened


class Closing:
    """Has a descriptor only while it is pickled."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        with open_socket(self.text) as opened:
            return rebuild, (reduction.DupFd(opened.fileno()),)


def raise_closing(text):
    raise OpenError(Closing(text))


class Unpicklable:
    def __reduce__(self):
        raise ValueError("not to be pickled")


def open_in_vain(text):
    return open_socket(text), Unpicklable()


def raise_in_vain(text):
    raise OpenError(open_in_vain(text))


def send_one_by_itself(connection):
    """While it runs, not with its result."""
    with connection:
        connection.send(open_socket("sent by the task"))
    return open_socket("the result")


def fetch_from_inner_pool(method):
    """In a process that may have children: a socket of its own pool's, after join."""
    import allcores

    pool = allcores.get_context(method).Pool(1)
    result = pool.apply_async(open_socket, ("inner",))
    pool.close()
    pool.join()
    return read(result.get(0)), open_socket("outer")


def run_fetch(method, connection):
    text, opened = fetch_from_inner_pool(method)
    opened.close()
    connection.send(text)


def count_descriptors(_=None):
    return len(os.listdir("/proc/self/fd"))


OPENERS = (open_socket, open_pipe, open_file)

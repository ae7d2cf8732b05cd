# SPDX-License-Identifier: MIT
"""The descriptors 0, 1 and 2, which some programs have closed.

A descriptor that the package opens must not get one of these numbers: what the program or a C
library prints would be written into a pipe or a file of ours.
"""

from __future__ import annotations

import fcntl
import os
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

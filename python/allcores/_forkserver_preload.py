# SPDX-License-Identifier: MIT
"""Imported by the forkserver before it serves: see _stdlib_servers.py. Its workers then need not import the
package, one after the other."""

from __future__ import annotations

import signal
from multiprocessing import process, util

from . import _worker
from ._stdlib_private import target_of


def _unblock(_: object) -> None:
    """Runs in each process that the forkserver has forked, before its run(). SIGINT is blocked; a
    worker unblocks it when its own handler is set."""
    if target_of(process.current_process()) is not _worker.main:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
    util.register_after_fork(_unblock, _unblock)

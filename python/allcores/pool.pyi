# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module, with our Pool.

isinstance says that our pools and results are the standard library's, and so do the types: an
allcores.Pool may be passed where a multiprocessing.pool.Pool is asked for.
"""

from _typeshed import SupportsWrite
from multiprocessing import pool as _stdlib
from multiprocessing.pool import CLOSE as CLOSE
from multiprocessing.pool import INIT as INIT
from multiprocessing.pool import RUN as RUN
from multiprocessing.pool import TERMINATE as TERMINATE
from multiprocessing.pool import ApplyResult as ApplyResult
from multiprocessing.pool import AsyncResult as AsyncResult
from multiprocessing.pool import IMapIterator as IMapIterator
from multiprocessing.pool import IMapUnorderedIterator as IMapUnorderedIterator
from multiprocessing.pool import MapResult as MapResult
from multiprocessing.pool import ThreadPool as ThreadPool

__all__ = ["Pool", "ThreadPool"]

class Pool(_stdlib.Pool):
    def dump(self, file: SupportsWrite[str] | None = None) -> None: ...

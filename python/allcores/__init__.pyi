# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module, with our contexts and additions."""

from multiprocessing import *
from typing import Any, Literal

from . import context as context
from . import errors as errors
from . import pool as pool
from .errors import BrokenPool as BrokenPool
from .errors import StartError as StartError
from .errors import TaskCancelled as TaskCancelled
from .errors import WorkerDied as WorkerDied

__version__: str
engine: Literal["allcores", "stdlib"]
engine_reason: str

def cpus(leave: int = 0) -> int: ...
def __getattr__(name: str) -> Any: ...

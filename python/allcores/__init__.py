# SPDX-License-Identifier: MIT
"""Every core at work: `import allcores as multiprocessing`.

The standard library's multiprocessing, with a Pool that is faster and does not hang.
allcores.engine says which pool is in use: "allcores", or "stdlib" where the engine cannot be used
(allcores.engine_reason says why).
"""

from __future__ import annotations

import importlib
import multiprocessing as _multiprocessing
import os as _os
import sys as _sys

from . import _stdlib, errors
from .errors import BrokenPool, StartError, TaskCancelled, WorkerDied

__version__ = "0.1.0"


def _choose_engine() -> tuple[str, str]:
    wanted = _os.environ.get("ALLCORES_ENGINE", "")
    if wanted not in ("", "allcores", "stdlib"):
        raise ImportError(f"ALLCORES_ENGINE is {wanted!r}: it must be 'allcores' or 'stdlib'")
    if wanted == "stdlib":
        return "stdlib", "ALLCORES_ENGINE=stdlib"
    try:
        from . import _core
    except ImportError as error:
        if wanted == "allcores":
            raise
        return "stdlib", f"the extension cannot be imported: {error}"
    return "allcores", f"liballcores {_core.version()}"


engine, engine_reason = _choose_engine()

_stdlib.install()

if engine == "allcores":
    from . import context
    from ._core import cpus

    _default = context._default_context
    for _name in dir(_default):
        if not _name.startswith("_"):
            globals()[_name] = getattr(_default, _name)
else:
    # The package's own modules of these names need the engine.
    for _name in ("context", "pool"):
        _module = importlib.import_module("multiprocessing." + _name)
        globals()[_name] = _sys.modules[f"{__name__}.{_name}"] = _module
    for _name in _multiprocessing.__all__:
        globals()[_name] = getattr(_multiprocessing, _name)

    def cpus(leave: int = 0) -> int:
        """The number of processors that this process may use, less leave; at least one."""
        try:
            usable = len(_os.sched_getaffinity(0))
        except AttributeError:
            usable = _os.cpu_count() or 1
        return max(usable - leave, 1)


__all__ = [  # noqa: PLE0604
    *_multiprocessing.__all__,
    "BrokenPool",
    "StartError",
    "TaskCancelled",
    "WorkerDied",
    "cpus",
    "engine",
    "engine_reason",
    "errors",
]


def __getattr__(name: str) -> object:
    """Import a submodule, of this package or of multiprocessing, on its first use."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

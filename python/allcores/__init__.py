# SPDX-License-Identifier: MIT
"""Every core at work: `import allcores as multiprocessing`.

The standard library's multiprocessing, with a Pool that is faster and does not hang. Beside its
names there are

    cpus(leave=0)       the number of processors that this process may use
    WorkerDied, StartError, TaskCancelled, BrokenPool
                        what fails beside your own functions: see allcores.errors
    engine              which pool is in use: "allcores", or "stdlib" where that cannot be used
    engine_reason       why
"""

from __future__ import annotations

import multiprocessing as _multiprocessing
import os as _os
import sys as _sys

from . import _stdlib_modules, _stdlib_private, errors
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

        _check_gil()
    except ImportError as error:
        from . import _missing_extension  # here, since hardly a program needs it

        reason = _missing_extension.explain(error)
        if wanted == "allcores":
            raise ImportError(reason) from error
        _missing_extension.warn(reason)
        return "stdlib", f"the extension cannot be imported: {reason}"
    return "allcores", f"liballcores {_core.version()}"


def _check_gil() -> None:
    """Importing the extension has switched the GIL on, unless the user forbids that."""
    if not _stdlib_private.is_gil_enabled():
        raise ImportError("it needs the GIL, which -X gil=0 or PYTHON_GIL=0 keeps off")


engine, engine_reason = _choose_engine()

_stdlib_modules.install()

if engine == "allcores":
    from . import context
    from ._core import cpus

    if not _stdlib_private.is_helper_process():  # such a one will hardly open a pool of its own
        from . import pool  # here, so that a program's first pool is not slow

    Pool = context._default_context.Pool
    get_context = context._default_context.get_context
else:
    # The package's own modules of these names need the engine.
    from multiprocessing import context, pool  # type: ignore[no-redef]

    _sys.modules[f"{__name__}.context"] = context
    _sys.modules[f"{__name__}.pool"] = pool

    def cpus(leave: int = 0) -> int:
        """The number of processors that this process may use: those of its affinity mask.

        leave: how many of them to leave to others. The result is at least one.
        """
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
    """A submodule, imported on its first use. All other names are multiprocessing's own objects,
    and never kept here: PyInstaller and others put functions of theirs in place of them."""
    if not name.startswith("_"):
        if name not in __all__:
            from importlib import import_module  # here, since most programs never need it

            try:
                return import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":  # a module that this one imports
                    raise
        try:
            return getattr(_multiprocessing, name)
        except AttributeError:
            pass
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

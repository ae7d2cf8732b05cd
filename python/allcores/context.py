# SPDX-License-Identifier: MIT
"""The standard library's contexts, with the Pool of allcores.

The default start method is the standard library's own setting: whether a program sets it there or
here, it is set in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import context as _stdlib

from ._stdlib_private import default_context

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any

    from .pool import Pool


def __getattr__(name: str) -> Any:
    """Other names of the standard library's module: Process, TimeoutError..."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_stdlib, name)


class BaseContext(_stdlib.BaseContext):
    """What all contexts of allcores share."""

    def Pool(  # type: ignore[override]
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """A pool of worker processes: see allcores.pool.Pool."""
        from .pool import Pool  # here: see __init__.py

        return Pool(
            processes, initializer, initargs, maxtasksperchild, context=self.get_context()
        )

    def get_context(self, method: str | None = None) -> Any:
        """This context, or the one that starts processes by that method."""
        if method is None:
            return self
        theirs = super().get_context(method)  # refuses what this Python does not have
        return _contexts[theirs.get_start_method()]


class ForkContext(BaseContext, _stdlib.ForkContext):
    """Processes are forked."""


class SpawnContext(BaseContext, _stdlib.SpawnContext):
    """Processes start as new interpreters."""


class ForkServerContext(BaseContext, _stdlib.ForkServerContext):
    """Processes are forked from a server process, which starts as a new interpreter."""


class DefaultContext(BaseContext, _stdlib.DefaultContext):
    """The context that is used if a program names none: the standard library's own says which."""

    def __init__(self) -> None:
        """Without the standard library's, which keeps a method of its own."""

    def get_context(self, method: str | None = None) -> Any:
        """The default, or the context that starts processes by that method."""
        if method is None:
            method = default_context().get_start_method()
        return super().get_context(method)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the default start method. Only once, unless force is true."""
        default_context().set_start_method(method, force)

    def get_start_method(  # type: ignore[override]
        self, allow_none: bool = False
    ) -> str | None:
        """The default start method."""
        return default_context().get_start_method(allow_none)

    def get_all_start_methods(self) -> list[str]:
        """The start methods of this Python, its default first."""
        return default_context().get_all_start_methods()


_contexts: dict[str, Any] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
_default_context = DefaultContext()

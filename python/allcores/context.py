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
        """Start a pool of worker processes, which run functions on all processors.

            with allcores.Pool() as pool:
                squares = pool.map(square, range(100))

        processes: how many workers; None: one for each processor that this process may use
            (allcores.cpus()).
        initializer, initargs: initializer(*initargs) runs in each worker before its first call;
            None: nothing runs.
        maxtasksperchild: a worker is replaced after so many calls (a chunk of a map is one);
            None: never.

        Returns an allcores.pool.Pool. Its methods:
            map, starmap                one call for each item; a list of the values
            imap, imap_unordered        the same, with the values one by one
            apply                       one call
            map_async, starmap_async, apply_async
                                        return at once; get() of what they return waits
            dump                        write what each worker is doing
            close, join                 accept no more work; wait for the end of all work
            terminate                   stop now; also at the end of a with block
        help(allcores.pool.Pool) says more, and what happens when something fails.

        Raises:
            ValueError: processes or maxtasksperchild is less than 1.
            TypeError: initializer cannot be called.
            OSError: no worker can be started; a note says which limit was reached.
            By spawn and forkserver also what pickling initializer and initargs raises, and
                AssertionError in a daemonic process.
        """
        from .pool import Pool  # here: see __init__.py

        return Pool(
            processes, initializer, initargs, maxtasksperchild, context=self.get_context()
        )

    def get_context(self, method: str | None = None) -> Any:
        """Return a context: an object with this module's functions and one start method.

        method: "fork", "spawn", "forkserver", or a name that another library has registered;
            None: this context.

        Raises:
            ValueError: there is no such method here.
        """
        if method is None:
            return self
        return _replace(super().get_context(method))  # refuses what this Python does not have


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
        """Return a context: an object with this module's functions and one start method.

        method: "fork", "spawn", "forkserver", or a name that another library has registered;
            None: the default, which from then on cannot be changed without force.

        Raises:
            ValueError: there is no such method here.
        """
        return _replace(default_context().get_context(method))

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the default start method, here and in multiprocessing.

        method: "fork", "spawn", "forkserver"; None, with force: as if it had never been set.
        force: whether to set it also if it is set already.

        Raises:
            RuntimeError: it is set already, and force is false.
            ValueError: there is no such method here.
        """
        default_context().set_start_method(method, force)

    def get_start_method(  # type: ignore[override]
        self, allow_none: bool = False
    ) -> str | None:
        """Return the name of the default start method.

        allow_none: return None, and set nothing, if no method is set yet. Otherwise the system's
            default is set and returned.
        """
        return default_context().get_start_method(allow_none)

    def get_all_start_methods(self) -> list[str]:
        """Return the names of the start methods of this Python, the system's default first."""
        return default_context().get_all_start_methods()


# By the class that each replaces. Contexts of other classes, which programs and other packages
# register in the standard library, are used as they are.
_contexts: dict[type, BaseContext] = {
    _stdlib.ForkContext: ForkContext(),
    _stdlib.SpawnContext: SpawnContext(),
    _stdlib.ForkServerContext: ForkServerContext(),
}


def _replace(theirs: _stdlib.BaseContext) -> _stdlib.BaseContext:
    """Our context for one of the standard library's own."""
    return _contexts.get(type(theirs), theirs)


_default_context = DefaultContext()

# SPDX-License-Identifier: MIT
"""Pools of ours in programs that know multiprocessing.pool's: isinstance, methods that a program adds
to the classes there, results that a program makes itself.

isinstance never imports multiprocessing.pool: nobody can have asked for its classes before somebody has
imported it.
"""

from __future__ import annotations

import itertools
import sys
from abc import ABCMeta

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from typing import Any


def _theirs(name: str | None) -> type | None:
    """The class of that name in multiprocessing.pool, if that is imported."""
    found = getattr(sys.modules.get("multiprocessing.pool"), name or "", None)
    return found if isinstance(found, type) else None


class _Quiet:
    """The first base of a class that is made for isinstance: no __init_subclass__ runs for it."""

    def __init_subclass__(cls, **keywords: object) -> None:
        pass


_classes: dict[tuple[type, type], type] = {}


def _with_theirs(cls: type, theirs: type) -> type:
    """A subclass of both, of which there is never an object."""
    if (cls, theirs) not in _classes:
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _classes[cls, theirs] = type(cls)(cls.__name__, (_Quiet, cls, theirs), names)
    return _classes[cls, theirs]


_numbers = itertools.count(-1, -1)


class LikeStdlib(metaclass=ABCMeta):
    """The base of our classes that stand in for one of multiprocessing.pool: isinstance takes objects
    of either for objects of the other."""

    _stdlib_name: str | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        cls = type(self)
        theirs = _theirs(cls._stdlib_name)
        return cls if theirs is None or issubclass(cls, theirs) else _with_theirs(cls, theirs)

    @property
    def _job(self) -> int:
        """A number of its own, as results have one there. Programs number theirs from 0 on."""
        return self.__dict__.setdefault("_number", next(_numbers))  # type: ignore[no-any-return]

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        theirs = _theirs(cls.__dict__.get("_stdlib_name"))
        return True if theirs is not None and theirs in other.__mro__ else NotImplemented


def _find_added(instance: LikeStdlib, name: str) -> Any:
    """An attribute that our class lacks: what a program has added to the standard library's class."""
    theirs = _theirs(instance._stdlib_name)
    for cls in theirs.__mro__[:-1] if theirs else ():
        if name in cls.__dict__:
            found = cls.__dict__[name]
            bind = getattr(type(found), "__get__", None)
            return bind(found, instance, type(instance)) if bind else found
    raise AttributeError(f"{type(instance).__name__!r} object has no attribute {name!r}")


def find_added_in(cls: type[LikeStdlib]) -> None:
    """Let objects of our class have what a program adds to the standard library's. All attributes of a
    class with __getattr__ take longer to find, so it gets one only when that can have happened."""
    if "multiprocessing.pool" in sys.modules and "__getattr__" not in cls.__dict__:
        cls.__getattr__ = _find_added  # type: ignore[attr-defined]


def made_by_hand(name: str, *args: Any) -> Any:
    """An object of the standard library's class: a program makes it, and puts it into Pool._cache."""
    from multiprocessing import pool

    return getattr(pool, name)(*args)

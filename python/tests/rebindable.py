# SPDX-License-Identifier: MIT
"""Names that tests give another meaning, in the owner or in a worker; importing it costs little."""
import importlib
import sys
import types


def name_me(x=None):
    return "first", x


def other(x=None):
    return "second", x


class Value:
    def __init__(self, x=None):
        self.x = x

    def __eq__(self, other):
        return type(other).__qualname__ == type(self).__qualname__ and other.x == self.x


class Named(Value):
    """Its name is rebound, and names within it."""

    class Inner(Value):
        @staticmethod
        def deep(x=None):
            return "first", x

        @classmethod
        def of_class(cls, x=None):
            return "first", x

        def method(self, x=None):
            return "first", x


class Deeper(Value):
    @staticmethod
    def deep(x=None):
        return "second", x

    @classmethod
    def of_class(cls, x=None):
        return "second", x

    def method(self, x=None):
        return "second", x


class Looked(type):
    """Whoever looks up a name in a class of this type runs what waits in looks."""

    looks = []

    def __getattribute__(cls, name):
        if name == "looked_up" and Looked.looks:
            Looked.looks.pop()()
        return super().__getattribute__(name)


class LookedUp(metaclass=Looked):
    @staticmethod
    def looked_up(x=None):
        return "first", x


def find(path):
    """The object that a dotted path below this module means."""
    found = sys.modules[__name__]
    for name in path.split("."):
        found = getattr(found, name)
    return found


def rebind(path, new):
    """In a worker: from now on path means what new means. None: it means nothing."""
    where, _, name = path.rpartition(".")
    holder = find(where) if where else sys.modules[__name__]
    if new is None:
        delattr(holder, name)
    else:
        setattr(holder, name, find(new))


ORIGINALS = {path: find(path) for path in ("name_me", "Named.Inner.deep", "Named")}


def restore(path):
    """In a worker: undo rebind(path, ...)."""
    where, _, name = path.rpartition(".")
    setattr(find(where) if where else sys.modules[__name__], name, ORIGINALS[path])


def replace_module():
    """In a worker: another module takes this one's name."""
    module = types.ModuleType(__name__)
    module.name_me = other
    sys.modules[__name__] = module


def reload_module():
    importlib.reload(sys.modules[__name__])


def is_current(x=None):
    """Whether the code that runs is what the module's name means."""
    return sys._getframe().f_code is sys.modules[__name__].is_current.__code__, x


def rebind_builtin():
    import math
    math.floor = other

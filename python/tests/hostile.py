# SPDX-License-Identifier: MIT
"""Objects whose methods raise when somebody asks what they are; the workers import it, too."""
import sys
import threading


class Unpicklable:
    """A result whose pickling raises, and whose repr does, too."""

    def __init__(self, how="AttributeError"):
        self.how = how

    def __reduce__(self):
        raise RuntimeError("cannot be pickled")

    def __repr__(self):
        return fail(self.how)


class UnpicklableError(Exception):
    def __init__(self, how="AttributeError"):
        super().__init__(how)
        self.how = how
        self.lock = threading.Lock()

    def __repr__(self):
        return fail(self.how)

    __str__ = __repr__


class PlainErrorWithoutText(Exception):
    """Can be pickled, but not be shown."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Reduces(Exception):
    """Its pickling raises an exception that cannot be shown either."""

    def __reduce__(self):
        raise UnpicklableError(self.args[0])


class Shameless(type):
    """A class whose name raises."""

    def __getattribute__(cls, name):
        if name in ("__name__", "__qualname__", "__module__"):
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Shameless):
    def __reduce__(self):
        raise RuntimeError("cannot be pickled")


class Pretender:
    """Says that it is of another class, or raises when asked."""

    def __reduce__(self):
        raise RuntimeError("cannot be pickled")

    @property
    def __class__(self):
        raise RuntimeError("no class")


class NotAText:
    def __reduce__(self):
        raise RuntimeError("cannot be pickled")

    def __repr__(self):
        return 5


def fail(how):
    if how == "recursion":
        return fail(how)
    if how == "exit":
        sys.exit(3)
    if how == "generator":
        raise GeneratorExit
    if how == "long":
        return "x" * 50_000_000
    if how == "surrogates":
        return "\udcff\0\ud800"
    if how == "itself":
        raise UnpicklableError(how)
    raise AttributeError(how)


HOWS = ("AttributeError", "recursion", "exit", "generator", "long", "surrogates",
        "itself")


def give(how):
    return Unpicklable(how)


def give_other(name):
    return globals()[name]()


def raise_(how):
    raise UnpicklableError(how)


def raise_reducing(how):
    raise Reduces(how)


def raise_nameless(_=None):
    raise Nameless


def raise_without_text(_=None):
    raise PlainErrorWithoutText("args are there")


def knot(_=None):
    """An exception that contains itself."""
    error = ValueError()
    error.args = (error,)
    raise error


def deep_knot(_=None):
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def raise_with_hostile_cause(how):
    """The exception is harmless, what it came from is not."""
    try:
        raise_(how)
    except BaseException as cause:
        raise ValueError("harmless") from cause


def raise_with_hostile_notes(_=None):
    error = ValueError("harmless")
    error.__notes__ = [Unpicklable(), 5, None]
    raise error


def raise_with_hostile_local(how):
    """A traceback may show locals."""
    hostile = Unpicklable(how)
    raise ValueError("harmless", type(hostile).__name__)


class Callable_:
    """Is called, and fails everyone who asks for anything else."""

    def __call__(self, x=None):
        return x

    def __getattr__(self, name):
        if name.startswith("__") and "reduce" in name or "state" in name:
            raise AttributeError(name)
        raise RuntimeError("not for you")

    def __repr__(self):
        raise RuntimeError("not for you")

    def __bool__(self):
        raise RuntimeError("neither true nor false")

    def __eq__(self, other):
        raise RuntimeError("equals nothing")

    __hash__ = None


class FailingCallable(Callable_):
    def __call__(self, x=None):
        raise ValueError("harmless")


class HostileValue(Callable_):
    """A value that can be pickled, and is hostile in all else."""

    def __iter__(self):
        raise RuntimeError("no items")

    def __len__(self):
        raise RuntimeError("no length")

    def __del__(self):
        raise RuntimeError("no end")

# SPDX-License-Identifier: MIT
"""Objects whose special methods raise, each in its own way. For test_failing_objects."""
import sys
import threading


def leave(*args):
    """What such a method does: it would end the process."""
    sys.exit(3)


def recurse(*args):
    return recurse(*args)


def nest(depth):
    nested = []
    for _ in range(depth):
        nested = [nested]
    return nested


class HostileText(str):
    """A text that can't be handled as one."""

    __len__ = __getitem__ = __format__ = __str__ = __repr__ = __add__ = encode = leave


class HostileMeta(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__name__", "__module__"):
            leave()
        return super().__getattribute__(name)


class Locked:
    """Can't be pickled."""

    def __init__(self):
        self.lock = threading.Lock()


class ReprRaises(Locked):
    def __repr__(self):
        return self.no_such_attribute


class ReprLeaves(Locked):
    __repr__ = leave


class ReprRecurses(Locked):
    __repr__ = recurse


class ReprIsNoText(Locked):
    def __repr__(self):
        return 3


class ReprIsHostile(Locked):
    def __repr__(self):
        return HostileText("hostile")


class ReprIsNoUtf8(Locked):
    def __repr__(self):
        return "\udcff\0\ud800"


class ReprStopsGenerators(Locked):
    def __repr__(self):
        raise GeneratorExit


class ReprRaisesItsLike(Locked):
    """What its repr raises has a text that raises the same."""

    def __repr__(self):
        raise ErrorTextRaisesItsLike


class ReprIsLong(Locked):
    def __repr__(self):
        return "long " * 2_000_000


class ClassRaises(Locked):
    __class__ = property(leave)


class AllAttributesRaise:
    __getattribute__ = leave


class OfHostileMeta(Locked, metaclass=HostileMeta):
    __repr__ = leave


class ReduceRaises:
    def __reduce__(self):
        raise ValueError("not this one")


class ReduceLeaves:
    __reduce_ex__ = leave


class ReduceRecurses:
    __reduce_ex__ = recurse


class ReduceRaisesItsLike:
    def __reduce__(self):
        raise ErrorTextRaisesItsLike


class ReduceIsGarbage:
    def __reduce__(self):
        return 1, 2, 3


class ReduceIsEndless:
    def __reduce__(self):
        return ReduceIsEndless, (ReduceIsEndless(),)


class StateRaises:
    def __getstate__(self):
        raise BaseException("neither an Exception nor a SystemExit")


VALUES = dict(enumerate((
    ReprRaises, ReprLeaves, ReprRecurses, ReprIsNoText, ReprIsHostile, ReprIsNoUtf8,
    ReprStopsGenerators, ReprRaisesItsLike, ReprIsLong, ClassRaises, AllAttributesRaise,
    OfHostileMeta, ReduceRaises, ReduceRaisesItsLike, ReduceLeaves, ReduceRecurses,
    ReduceIsGarbage, ReduceIsEndless, StateRaises)))
VALUES["nested"] = lambda: nest(100_000)


def make_value(name):
    return VALUES[name]()


# ---- exceptions ----


class Error(Exception):
    """Can't be pickled."""

    def __init__(self, *args):
        super().__init__(*args)
        self.lock = threading.Lock()


class ErrorReprRaises(Error):
    __repr__ = __str__ = ReprRaises.__repr__


class ErrorReprLeaves(Error):
    __repr__ = __str__ = leave


class ErrorReprRecurses(Error):
    __repr__ = __str__ = recurse


class ErrorTextIsNoUtf8(Error):
    __repr__ = __str__ = ReprIsNoUtf8.__repr__


class ErrorTextStopsGenerators(Error):
    __repr__ = __str__ = ReprStopsGenerators.__repr__


class ErrorTextRaisesItsLike(Error):
    __repr__ = __str__ = ReprRaisesItsLike.__repr__


class ErrorStrLeaves(Exception):
    __str__ = leave


class ErrorStrIsHostile(Exception):
    def __str__(self):
        return HostileText("hostile")


class ErrorReduceLeaves(Exception):
    __reduce_ex__ = leave


class ErrorReduceRaisesItsLike(Exception):
    __reduce__ = ReduceRaisesItsLike.__reduce__


class ErrorClassRaises(Exception):
    __class__ = property(leave)


class ErrorClassRaisesInTheOwner(ErrorClassRaises):
    def __reduce_ex__(self, protocol):
        return ErrorClassRaisesInTheOwner, ()


class FailingCallback:
    __repr__ = leave

    def __call__(self, value):
        raise ErrorReprLeaves


class ErrorOfHostileMeta(Exception, metaclass=HostileMeta):
    pass


class ErrorTracebackRaises(Exception):
    __traceback__ = property(leave)


class ErrorCauseRaises(Exception):
    __cause__ = __context__ = property(leave, leave)


class ErrorNotesRaise(Exception):
    __notes__ = property(leave)


class ErrorNeedsArguments(Exception):
    def __init__(self, one, two):
        super().__init__("not both")


class ErrorUnpickledLeaves(Exception):
    def __reduce__(self):
        return leave, ()


class ErrorUnpickledIsNone(Exception):
    def __reduce__(self):
        return print, ()


class ErrorUnpickledIsHostile(Exception):
    def __reduce__(self):
        return ClassRaises, ()


class ErrorSetstateLeaves(Exception):
    __setstate__ = leave

    def __init__(self):
        super().__init__()
        self.state = 1


def knot():
    error = ValueError()
    error.args = (error,)
    return error


def knot_of_causes():
    first, second = ValueError(1), KeyError(2)
    first.__cause__, second.__cause__ = second, first
    return first


def group():
    return ExceptionGroup("of hostile ones", [ErrorReprLeaves(), ErrorStrLeaves(), knot()])


class HostileNames:
    __dir__ = __getattr__ = leave


def missing_attribute():
    return AttributeError("where the traceback looks for names like it", name="nam",
                          obj=HostileNames())


def notes_of_hostile_objects():
    error = ValueError(1)
    error.__notes__ = [ReprLeaves(), HostileText("note"), 5, None]
    return error


def long_message():
    return ValueError("long " * 2_000_000, Locked())


EXCEPTIONS = {maker.__name__: maker for maker in (
    knot, knot_of_causes, group, missing_attribute, notes_of_hostile_objects, long_message,
    ErrorReprRaises, ErrorReprLeaves, ErrorReprRecurses, ErrorTextIsNoUtf8,
    ErrorTextStopsGenerators, ErrorTextRaisesItsLike, ErrorStrLeaves, ErrorStrIsHostile,
    ErrorReduceRaisesItsLike, ErrorReduceLeaves, ErrorClassRaises, ErrorClassRaisesInTheOwner,
    ErrorTracebackRaises, ErrorCauseRaises, ErrorNotesRaise,
    ErrorUnpickledLeaves, ErrorUnpickledIsNone, ErrorUnpickledIsHostile, ErrorSetstateLeaves)}
EXCEPTIONS["ErrorOfHostileMeta"] = ErrorOfHostileMeta
EXCEPTIONS["ErrorNeedsArguments"] = lambda: ErrorNeedsArguments(1, 2)
EXCEPTIONS["RecursionError"] = recurse


def raise_error(name):
    raise EXCEPTIONS[name]()


# Some whose text can't be made, or is long.
TEXTLESS = ("ErrorReprRaises", "ErrorReprLeaves", "ErrorReprRecurses", "ErrorTextIsNoUtf8",
            "ErrorTextStopsGenerators", "ErrorTextRaisesItsLike", "long_message")


def raise_from(name):
    """The exception is harmless, what it came from is not."""
    try:
        raise_error(name)
    except Exception as cause:
        raise ValueError("harmless") from cause


def raise_beside(name):
    """A traceback may show locals."""
    local = EXCEPTIONS[name]()
    raise ValueError("harmless", type(local).__name__)


class PlainErrorWithoutText(Exception):
    """Can be pickled, but not be shown."""

    __str__ = __repr__ = ReprRaises.__repr__


def raise_without_text(_):
    raise PlainErrorWithoutText("args are there")


# ---- arguments and functions ----


class UnpickledLeaves:
    """In the worker."""

    def __reduce__(self):
        return leave, ()


def make_unpickled_leaves():
    return UnpickledLeaves()


class UnpickledRecurses:
    def __reduce__(self):
        return recurse, ()


class IterationLeaves:
    __iter__ = leave


class MappingLeaves:
    keys = __getitem__ = leave


class Callable:
    """Called, it returns its argument."""

    def __call__(self, x):
        return x


class CallableNamesLeave(Callable):
    def __getattribute__(self, name):
        if name in ("__qualname__", "__module__"):
            leave()
        return super().__getattribute__(name)


class CallableClassLeaves(Callable):
    __class__ = property(leave)

    def __reduce_ex__(self, protocol):
        return make_callable, ("CallableClassLeaves",)


class CallableOfHostileMeta(Callable, metaclass=HostileMeta):
    def __reduce__(self):
        return make_callable, ("CallableOfHostileMeta",)


class CallableNamesAreHostile(Callable):
    def __init__(self):
        self.__qualname__ = HostileText("name")
        self.__module__ = HostileText("module")

    def __reduce__(self):
        return CallableNamesAreHostile, ()


class CallableNameIsLong(Callable):
    def __init__(self):
        self.__qualname__ = "long " * 2_000_000


CALLABLES = {"CallableOfHostileMeta": CallableOfHostileMeta}
CALLABLES.update((cls.__name__, cls) for cls in (
    CallableNamesLeave, CallableClassLeaves, CallableNamesAreHostile, CallableNameIsLong))


class HostileCallable:
    """Is called, and fails everyone who asks for anything else."""

    def __call__(self, x):
        return x

    def refuse(self, *args):
        raise RuntimeError("not for you")

    def __getattr__(self, name):
        if name.startswith("__") and "reduce" in name or "state" in name:
            raise AttributeError(name)
        self.refuse()

    __repr__ = __bool__ = __eq__ = refuse
    __hash__ = None


class FailingHostileCallable(HostileCallable):
    def __call__(self, x):
        raise ValueError("harmless")


class HostileValue(HostileCallable):
    """A value that can be pickled, and is hostile in all else."""

    __iter__ = __len__ = __del__ = HostileCallable.refuse


class Finalized:
    __del__ = leave


def make_finalized():
    Finalized()


class StreamLeaves:
    reconfigure = leave

    def write(self, text):
        pass

    def flush(self):
        pass


def make_callable(name):
    return CALLABLES[name]()


class UnpickledFunction(Callable):
    def __reduce__(self):
        return leave, ()


def lower_recursion_limit():
    sys.setrecursionlimit(len(list(frames())) + 8)


def frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back

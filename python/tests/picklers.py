# SPDX-License-Identifier: MIT
"""Picklers and types for test_own_picklers; the workers import it, too."""
import io
import marshal
import pickle
import types
from multiprocessing import reduction


def rebuild(code):
    return types.FunctionType(marshal.loads(code), globals())


class OwnPickler(reduction.ForkingPickler):
    """Pickles lambdas by value, as dill and cloudpickle do it."""

    def reducer_override(self, obj):
        if isinstance(obj, types.FunctionType) and obj.__name__ == "<lambda>":
            return rebuild, (marshal.dumps(obj.__code__),)
        return NotImplemented

    @classmethod
    def dumps(cls, obj, protocol=None):
        buffer = io.BytesIO()
        cls(buffer, protocol).dump(obj)
        return buffer.getbuffer()


class OwnReducer(reduction.AbstractReducer):
    ForkingPickler = OwnPickler
    HAVE_SEND_HANDLE = reduction.HAVE_SEND_HANDLE  # forkserver's context asks for it
    register = OwnPickler.register

    def dump(self, obj, file, protocol=None):
        OwnPickler(file, protocol).dump(obj)


# A bound method: whoever sets it as an attribute of another class does not change its cls.
own_dumps = OwnPickler.dumps


def tagged_dumps(obj, protocol=None):
    """A format that pickle does not read."""
    return b"tag" + pickle.dumps(obj, protocol)


def tag_loads(data, **kwds):
    data = bytes(data)
    assert data.startswith(b"tag"), data[:20]
    return pickle.loads(data[3:], **kwds)


def install():
    """In a worker."""
    reduction.ForkingPickler.dumps = own_dumps


def return_lambda(_=None):
    return lambda x: x + 1


class Registered:
    def __init__(self, x):
        self.x = x


class Handle(Registered):
    """What comes in place of a Registered."""

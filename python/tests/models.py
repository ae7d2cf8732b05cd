# SPDX-License-Identifier: MIT
"""Callables that carry data, for test_bound_data; the workers import it, too."""
import functools
import os
import signal
import time

pickled = 0  # how often a Model was pickled in this process


class Model:
    """Its pickling is counted. Each call changes it."""

    def __init__(self, data=b""):
        self.data = data
        self.seen = []

    def __getstate__(self):
        global pickled
        pickled += 1
        return dict(self.__dict__)

    def count(self, x):
        """How many calls this copy has seen, and the item."""
        self.seen.append(x)
        return len(self.seen), x

    __call__ = count

    def count_two(self, x, y):
        return self.count((x, y))

    def length(self, x):
        return len(self.data), x

    def get(self, key):
        return self.data[key]

    def die_once(self, path, x):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return len(self.data), x
        os.kill(os.getpid(), signal.SIGKILL)


class Brittle(Model):
    """Cannot be rebuilt, or cannot be pickled."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def __getstate__(self):
        if self.stage == "pickled":
            raise RuntimeError("cannot be pickled")
        return super().__getstate__()

    def __setstate__(self, state):
        raise RuntimeError("cannot be rebuilt")


def count_in(seen, x):
    seen.append(x)
    return len(seen), x


def length_of(data, x):
    return len(data), x


def look_up(table, key):
    return table[key]


def forms():
    """By name, functions that carry data: each counts its copy's calls."""
    model = Model()
    nested = functools.partial(functools.partial(Model.count, model))
    return {"bound method": model.count, "callable instance": model,
            "partial": functools.partial(count_in, []),
            "partial of a bound method": functools.partial(model.count),
            "partial with a model": functools.partial(Model.count, model),
            "partial of a partial": nested}


def nap_and_length(data, seconds, x):
    time.sleep(seconds)
    return len(data), x

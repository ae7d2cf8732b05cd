# SPDX-License-Identifier: MIT
"""One face for all pools that are compared.

Each contestant opens a pool and does with it what its documentation recommends; what it
cannot do at all is absent, and the table says "-". Every import is inside a method, and few
are made here: nobody pays for another's modules, nor finds his own imported already.
"""
import os
import sys


def load(module: str):
    """importlib.import_module without importing that."""
    __import__(module)
    return sys.modules[module]


class Contestant:
    """An open pool. map and the like return lists, in order where the name says nothing else."""

    bulk = 3_000        # items of a long map: where each item is a message, it need not be longer
    few = 3_000         # items of the other rows
    methods: tuple[str, ...] = ("fork", "spawn", "forkserver")
    module = ""

    def __init__(self, workers: int, method: str):
        raise NotImplementedError

    @classmethod
    def load(cls) -> None:
        """Import what a program imports that opens a pool."""
        load(cls.module)

    @classmethod
    def version(cls) -> str:
        """Import all that opening a pool needs. ImportError says that it is not here."""
        return getattr(load(cls.module), "__version__", "")


class Pools(Contestant):
    """multiprocessing.Pool, and those who have its interface."""

    bulk = 1_000_000
    few = 20_000

    def __init__(self, workers, method):
        self.pool = load(self.module).get_context(method).Pool(workers)

    def map(self, function, items, chunksize=None):
        return self.pool.map(function, items, chunksize)

    def starmap(self, function, items, chunksize=None):
        return self.pool.starmap(function, items, chunksize)

    def imap(self, function, items, chunksize=1):
        return list(self.pool.imap(function, items, chunksize))

    def imap_unordered(self, function, items, chunksize=1):
        return list(self.pool.imap_unordered(function, items, chunksize))

    def submit_all(self, function, items):
        tasks = [self.pool.apply_async(function, (item,)) for item in items]
        return [task.get() for task in tasks]

    def submit_all_callback(self, function, items):
        results = []
        tasks = [self.pool.apply_async(function, (item,), callback=results.append)
                 for item in items]
        for task in tasks:
            task.wait()
        return results

    def apply(self, function, *args):
        return self.pool.apply(function, args)

    def submit(self, function, *args):
        """A function that waits so many seconds for the result, or raises."""
        return self.pool.apply_async(function, args).get

    def submit_map(self, function, items):
        return self.pool.map_async(function, items).get

    def close(self):
        self.pool.close()
        self.pool.join()


class Stdlib(Pools):
    module = "multiprocessing.pool"

    def __init__(self, workers, method):
        import multiprocessing

        self.pool = multiprocessing.get_context(method).Pool(workers)

    @classmethod
    def version(cls):
        import platform

        super().version()
        return platform.python_version()


class Ours(Pools):
    module = os.environ.get("POOL_BENCH_OURS", "allcores")

    @classmethod
    def version(cls):
        """With the engine: a fallback must not pass for ours."""
        module = load(cls.module)
        load(f"{cls.module}.pool")
        return f"{super().version()} engine {getattr(module, 'engine', '?')}".strip()


class Executor(Contestant):
    module = "concurrent.futures.process"

    def __init__(self, workers, method):
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method))

    def map(self, function, items, chunksize=None):
        return list(self.pool.map(function, items, chunksize=chunksize or 1))

    def imap(self, function, items, chunksize=1):
        return list(self.pool.map(function, items, chunksize=chunksize))

    def imap_unordered(self, function, items):
        from concurrent.futures import as_completed

        futures = [self.pool.submit(function, item) for item in items]
        return [future.result() for future in as_completed(futures)]

    def submit_all(self, function, items):
        futures = [self.pool.submit(function, item) for item in items]
        return [future.result() for future in futures]

    def apply(self, function, *args):
        return self.pool.submit(function, *args).result()

    def submit(self, function, *args):
        return self.pool.submit(function, *args).result

    def close(self):
        self.pool.shutdown(wait=True)


class Loky(Executor):
    module = "loky"
    methods = ("spawn",)    # a start method of its own, nearest to spawn

    def __init__(self, workers, _method):
        import loky

        self.pool = loky.ProcessPoolExecutor(workers)


class Joblib(Contestant):
    module = "joblib"
    bulk = 200_000
    methods = ("spawn",)    # loky's

    def __init__(self, workers, _method):
        from joblib import Parallel

        self.workers = workers
        self.single = Parallel(n_jobs=workers, batch_size=1)
        self.single.__enter__()     # keeps its workers between calls

    @staticmethod
    def run(parallel, function, items):
        from joblib import delayed

        return list(parallel(delayed(function)(item) for item in items))

    def map(self, function, items, chunksize=None):
        from joblib import Parallel

        parallel = self.single if chunksize == 1 else Parallel(n_jobs=self.workers)
        return self.run(parallel, function, items)

    def imap(self, function, items, return_as="generator"):
        from joblib import Parallel

        parallel = Parallel(n_jobs=self.workers, batch_size=1, return_as=return_as)
        return self.run(parallel, function, items)

    def imap_unordered(self, function, items):
        return self.imap(function, items, "generator_unordered")

    def apply(self, function, *args):
        return self.run(self.single, function, args)[0]

    def close(self):
        from joblib.externals.loky import get_reusable_executor

        self.single.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True)


class Mpire(Contestant):
    module = "mpire"
    bulk = 200_000

    def __init__(self, workers, method):
        from mpire import WorkerPool

        self.pool = WorkerPool(n_jobs=workers, start_method=method, keep_alive=True)

    def map(self, function, items, chunksize=None):
        return self.pool.map(function, items, chunk_size=chunksize)

    def imap(self, function, items):
        return list(self.pool.imap(function, items, chunk_size=1))

    def imap_unordered(self, function, items):
        return list(self.pool.imap_unordered(function, items, chunk_size=1))

    def submit_all(self, function, items):
        tasks = [self.pool.apply_async(function, item) for item in items]
        return [task.get() for task in tasks]

    def apply(self, function, *args):
        return self.pool.apply(function, args)

    def close(self):
        self.pool.stop_and_join()


class Pebble(Contestant):
    module = "pebble"

    def __init__(self, workers, method):
        import multiprocessing
        from pebble import ProcessPool

        self.pool = ProcessPool(max_workers=workers, context=multiprocessing.get_context(method))

    def map(self, function, items, chunksize=None):
        return list(self.pool.map(function, items, chunksize=chunksize or 1).result())

    imap = map

    def submit_all(self, function, items):
        futures = [self.pool.schedule(function, args=(item,)) for item in items]
        return [future.result() for future in futures]

    def apply(self, function, *args):
        return self.pool.schedule(function, args=args).result()

    def submit(self, function, *args):
        return self.pool.schedule(function, args=args).result

    def close(self):
        self.pool.close()
        self.pool.join()


CONTESTANTS: dict[str, type[Contestant]] = {
    "ours": Ours, "stdlib": Stdlib, "executor": Executor, "joblib": Joblib, "loky": Loky,
    "mpire": Mpire, "pebble": Pebble,
}
PEERS = tuple(name for name in CONTESTANTS if name not in ("ours", "stdlib"))

# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's contexts, with our Pool."""

from collections.abc import Callable, Iterable
from multiprocessing import context as _stdlib
from multiprocessing.context import AuthenticationError as AuthenticationError
from multiprocessing.context import BufferTooShort as BufferTooShort
from multiprocessing.context import ForkProcess as ForkProcess
from multiprocessing.context import ForkServerProcess as ForkServerProcess
from multiprocessing.context import Process as Process
from multiprocessing.context import ProcessError as ProcessError
from multiprocessing.context import SpawnProcess as SpawnProcess
from multiprocessing.context import TimeoutError as TimeoutError
from multiprocessing.context import assert_spawning as assert_spawning
from multiprocessing.context import get_spawning_popen as get_spawning_popen
from multiprocessing.context import set_spawning_popen as set_spawning_popen
from typing import Any, Literal, overload

from . import pool

class BaseContext(_stdlib.BaseContext):
    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> pool.Pool: ...
    @overload
    def get_context(self, method: None = None) -> DefaultContext: ...
    @overload
    def get_context(self, method: Literal["spawn"]) -> SpawnContext: ...
    @overload
    def get_context(self, method: Literal["fork"]) -> ForkContext: ...
    @overload
    def get_context(self, method: Literal["forkserver"]) -> ForkServerContext: ...
    @overload
    def get_context(self, method: str) -> BaseContext: ...

class ForkContext(BaseContext, _stdlib.ForkContext): ...
class SpawnContext(BaseContext, _stdlib.SpawnContext): ...
class ForkServerContext(BaseContext, _stdlib.ForkServerContext): ...

class DefaultContext(BaseContext, _stdlib.DefaultContext):
    def __init__(self) -> None: ...

_default_context: DefaultContext

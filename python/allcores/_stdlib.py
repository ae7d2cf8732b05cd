# SPDX-License-Identifier: MIT
"""The rest of multiprocessing under our name: `import allcores.managers` is
`import multiprocessing.managers`, the same module object."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from importlib.machinery import ModuleSpec, PathFinder

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PACKAGE = __package__ + "."


def real_name(name: str) -> str:
    """The name in the standard library for one of ours."""
    return "multiprocessing." + name.removeprefix(PACKAGE)


class Finder:
    """Finds what this package has not, and the standard library's has."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib asks for it; last of all finders."""
        if not name.startswith(PACKAGE):
            return None
        if PathFinder.find_spec(real_name(name), multiprocessing.__path__) is None:
            return None
        return ModuleSpec(name, Finder)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """A stand-in: exec_module puts the real one in its place."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Import the real one and let it be found under our name, too."""
        name = module.__spec__.name if module.__spec__ else module.__name__
        sys.modules[name] = importlib.import_module(real_name(name))


def install() -> None:
    """Once: ask us after everybody else."""
    sys.meta_path.append(Finder)

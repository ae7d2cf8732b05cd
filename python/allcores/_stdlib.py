# SPDX-License-Identifier: MIT
"""The rest of multiprocessing under our name: `import allcores.managers` is
`import multiprocessing.managers`, the same module object."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = __package__ + "."


def real_name(name: str) -> str:
    """The name in the standard library for one of ours."""
    return "multiprocessing." + name.removeprefix(PACKAGE)


class Finder(MetaPathFinder, Loader):
    """Finds what this package has not, and the standard library's has."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib asks for it; last of all finders."""
        if not name.startswith(PACKAGE):
            return None
        try:
            if importlib.util.find_spec(real_name(name)) is None:
                return None
        except ModuleNotFoundError:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> None:
        """A stand-in: exec_module puts the real one in its place."""

    def exec_module(self, module: ModuleType) -> None:
        """Import the real one and let it be found under our name, too."""
        name = module.__spec__.name if module.__spec__ else module.__name__
        sys.modules[name] = importlib.import_module(real_name(name))


def install() -> None:
    """Once: ask us after everybody else."""
    sys.meta_path.append(Finder())

# SPDX-License-Identifier: MIT
"""The other modules of multiprocessing under the name of this package: `import allcores.managers`
imports multiprocessing.managers, the same module object.

importlib's modules are imported where they are used: most programs never need them.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes its time to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = __package__ + "."


def real_name(name: str) -> str:
    """The standard library's name for a module of this package."""
    return "multiprocessing." + name.removeprefix(PACKAGE)


class Finder:
    """Finds modules that multiprocessing has and this package does not have."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by importlib, after all other finders."""
        if not name.startswith(PACKAGE):
            return None
        from importlib.machinery import ModuleSpec
        from importlib.util import find_spec

        # All finders are asked: PyInstaller's programs have a finder of their own.
        if find_spec(real_name(name)) is None:
            return None
        return ModuleSpec(name, Finder)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Let importlib make an empty module, which exec_module replaces."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Import the standard library's module, and register it under this package's name."""
        from importlib import import_module

        name = module.__spec__.name if module.__spec__ else module.__name__
        sys.modules[name] = import_module(real_name(name))


def install() -> None:
    """Register the finder, behind all others."""
    sys.meta_path.append(Finder)

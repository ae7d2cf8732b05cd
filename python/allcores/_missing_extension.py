# SPDX-License-Identifier: MIT
"""Why the extension cannot be imported, in words that help. Imported only in that case."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from multiprocessing import parent_process

from ._stdlib_private import is_helper_process

# Where the engine serves nobody, by design: no installation would help.
UNSUPPORTED = ("does not support loading in subinterpreters", "it needs the GIL")

FOLDER = os.path.dirname(os.path.abspath(__file__))


def explain(error: ImportError) -> str:
    """The true reason. Where no file fits this Python, Python itself suspects a circular import."""
    files = _extensions()
    if any("_core" + suffix in files for suffix in EXTENSION_SUFFIXES):
        return str(error)
    version = ".".join(platform.python_version_tuple()[:2])
    this = f"this is {platform.python_implementation()} {version}"
    needed = "_core" + EXTENSION_SUFFIXES[0]
    if not files:
        return f"no _core*.so in {FOLDER}; {this}, which needs {needed}"
    verb = "was" if len(files) == 1 else "were"
    names = ", ".join(os.path.join(FOLDER, name) for name in files)
    return f"{names} {verb} built for another Python; {this}, which needs {needed}"


def _extensions() -> list[str]:
    try:
        names = os.listdir(FOLDER)
    except OSError:  # in a zip file, which cannot hold an extension
        return []
    return sorted(name for name in names if name.startswith("_core.") and name.endswith(".so"))


def warn(reason: str) -> None:
    """Say once for each program which pool it gets, and what to do. Not in processes that
    multiprocessing has started: what started them has said it."""
    if is_helper_process() or parent_process() is not None:
        return
    if any(words in reason for words in UNSUPPORTED):
        return
    warnings.warn(
        f"allcores uses the standard library's pool, since its extension cannot be imported: "
        f"{reason}. Install allcores with {sys.executable} -m pip, or build it in its checkout: "
        f"make PYTHON={sys.executable}. ALLCORES_ENGINE=stdlib chooses the standard library's pool "
        "without this warning.",
        RuntimeWarning,
        stacklevel=4,  # the line that imports allcores: importlib's own frames do not count
    )

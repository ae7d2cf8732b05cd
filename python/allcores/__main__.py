# SPDX-License-Identifier: MIT
"""python -m allcores: what was found on this machine, and what was chosen."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import sysconfig
from multiprocessing import get_all_start_methods, get_start_method

import allcores


def _affinity() -> str:
    try:
        return str(len(os.sched_getaffinity(0)))
    except AttributeError:
        return "not known here"


def _free_threading() -> str:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "not supported (this Python has the GIL)"
    if allcores.engine == "allcores":
        return "not supported (importing allcores has switched the GIL on)"
    return "not supported by allcores's own engine"


def _info() -> list[tuple[str, str]]:
    override = os.environ.get("ALLCORES_CPUS")
    return [
        ("allcores", allcores.__version__),
        ("engine", f"{allcores.engine} ({allcores.engine_reason})"),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("free threading", _free_threading()),
        ("subinterpreters", "not supported (in them the standard library's pool is used)"),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("processors of the machine", str(os.cpu_count())),
        ("of those in the affinity mask", _affinity()),
        ("ALLCORES_CPUS", override or "not set"),
        (
            "a pool's default size",
            f"{allcores.cpus()} (the least of affinity, the control groups' quotas "
            "rounded up, and ALLCORES_CPUS)"
            if allcores.engine == "allcores"
            else f"{os.cpu_count()} (the standard library's)",
        ),
        (
            "start method",
            f"{get_start_method()} (of {', '.join(get_all_start_methods())})",
        ),
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m allcores", description=__doc__)
    parser.add_argument("--version", action="version", version=f"allcores {allcores.__version__}")
    parser.add_argument(
        "--info", action="store_true", help="print what was probed and chosen, and why (default)"
    )
    parser.parse_args()
    rows = _info()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

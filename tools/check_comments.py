#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every public function has its contract above it; every source file says
first under which licence, and then what, it is."""
import pathlib
import re
import sys

LICENCE = "/* SPDX-License-Identifier: MIT */"
FUNCTION = re.compile(r"^AC_API .*?(ac_\w+)\(")


def header_complaints(path):
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        found = FUNCTION.match(line)
        if found and not lines[number - 2].rstrip().endswith("*/"):
            yield f"{path}:{number}: {found[1]} has no comment above it"


def file_complaints(path):
    lines = path.read_text().splitlines()
    if not lines or lines[0] != LICENCE:
        yield f"{path}:1: is not {LICENCE}"
    elif len(lines) < 2 or not lines[1].startswith("/*"):
        yield f"{path}:2: does not say what the file is for"


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    complaints = list(header_complaints(root / "include/allcores.h"))
    for folder in "include", "src", "tests", "examples", "bench":
        for path in sorted((root / folder).rglob("*.[ch]")):
            complaints += file_complaints(path)
    print("\n".join(complaints).replace(f"{root}/", "") or "comments: in order")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())

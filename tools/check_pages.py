#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/python.md names each file of the Python package in a table, and nothing that is not there: no
file, no function."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = "docs/python.md"
SOURCES = ("python/allcores/*.py*", "python/ext/*.[ch]", "include/allcores.h", "src/*.[ch]",
           "python/tests/*.py", "tools/*.py")
ROW = re.compile(r"^\| `([^`|]+)` \|", re.M)
QUOTED = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"\w+(\.\w+)*")


def files_to_name():
    """As the tables name them: a C module is its .c and .h, and all stubs are one row."""
    names = {path.name for path in (ROOT / "python/allcores").glob("*.py")}
    return names | {path.stem for path in (ROOT / "python/ext").glob("*.[ch]")} | {"*.pyi"}


def sources():
    return [path for pattern in SOURCES for path in ROOT.glob(pattern) if path.suffix != ".pyc"]


def is_there(quoted, words):
    """Whether a path exists, or each part of a name is a word of the sources."""
    if "/" in quoted:
        return (ROOT / quoted).exists() or quoted.startswith("/")
    return not NAME.fullmatch(quoted) or set(quoted.split(".")) <= words


def complaints():
    text = (ROOT / PAGE).read_text()
    rows, files = set(ROW.findall(text)), files_to_name()
    words = {word for path in sources() for word in re.findall(r"\w+", path.read_text())}
    words |= {part for path in sources() for part in path.name.split(".")}
    yield from (f"{PAGE}: no table names {name}" for name in sorted(files - rows))
    yield from (f"{PAGE}: a table names {name}, which is not there" for name in sorted(rows - files))
    quoted = set(QUOTED.findall(text)) - rows
    yield from (f"{PAGE}: {name} is nowhere in the sources" for name in sorted(quoted)
                if not is_there(name, words))


def main():
    found = list(complaints())
    print("\n".join(found) or "pages: in order")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

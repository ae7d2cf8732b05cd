#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A file knows the floors below it, never one above.

Each source file stands on a floor; what it includes of ours must stand on a
lower one. Files of one house (on one floor, named in one string) may include
each other; neighbours on the same floor may not.
"""
import pathlib
import re
import sys

FLOORS = [
    (0, ["base word"]),
    (1, ["err", "opts", "output", "sys sys_memory sys_fault"]),
    (2, ["forkguard", "bell", "ending"]),
    (3, ["cgroup cpus", "fd"]),
    (4, ["region", "socket", "lifeline"]),
    (5, ["arena seat", "process"]),
    (6, ["block block_trim", "ring"]),
    (7, ["worker call"]),
    (8, ["template"]),
    (9, ["pool books crew wait death helper task"]),
    (10, ["map", "stream", "stat"]),
]

# python/ext, the lowest file first: a file includes only files in front of it, so there is no circle.
EXTENSION = "ext errors waiting codec outcome dropped task stream worker starter pool module".split()

HOUSE = {stem: (floor, house) for floor, houses in FLOORS
         for house in houses for stem in house.split()}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
DECLARATION = re.compile(r"^(?!static|typedef|struct \w+;)\w[^:;{}=]*?\b(\w+)(?:\([^;{}]*\))?;", re.M)
PUBLIC = "allcores.h"


def complaints_of(path):
    if path.stem not in HOUSE:
        yield f"src/{path.name}: stands on no floor: add it to tools/check_floors.py"
        return
    floor, house = HOUSE[path.stem]
    for name in INCLUDE.findall(path.read_text()):
        stem = pathlib.Path(name).stem
        if name == PUBLIC or stem == path.stem:
            continue
        if stem not in HOUSE:
            yield f"src/{path.name}: includes {name}, which stands on no floor"
            continue
        below, other = HOUSE[stem]
        if below >= floor and other != house:
            yield f"src/{path.name}: floor {floor} includes {name} of floor {below}"


def extension_complaints_of(path):
    where, text = f"python/ext/{path.name}", path.read_text()
    if path.stem not in EXTENSION:
        yield f"{where}: stands on no floor: add it to tools/check_floors.py"
        return
    for name in INCLUDE.findall(text):
        stem = name.removesuffix(".h")
        if name == PUBLIC or stem == path.stem:
            continue
        if stem not in EXTENSION:
            yield f"{where}: includes {name}, which stands on no floor"
        elif EXTENSION.index(stem) > EXTENSION.index(path.stem):
            yield f"{where}: includes {name} of a higher floor"
    # A declaration of another file's name would get around the order.
    definitions = DECLARATION.sub("", path.with_suffix(".c").read_text())
    for name in DECLARATION.findall(text):
        if not re.search(rf"^\w[^;\n]*\b{name}(\(| = )", definitions, re.M):
            yield f"{where}: declares {name}, which {path.stem}.c does not define"


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    complaints = [c for path in sorted((root / "src").glob("*.[ch]"))
                  for c in complaints_of(path)]
    complaints += [c for path in sorted((root / "python" / "ext").glob("*.[ch]"))
                   for c in extension_complaints_of(path)]
    print("\n".join(complaints) or "floors: in order")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())

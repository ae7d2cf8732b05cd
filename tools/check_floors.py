#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A file knows the files below it, never one above, so there is no circle.

LAYERS lists the files of src/, the lowest first. A file includes only what stands on a line in
front of its own. Files on one line are one module in several files, and may include each other;
nobody else does so.
"""
import pathlib
import re
import sys

LAYERS = """
    base
    word
    err
    opts
    sys sys_memory sys_fault
    procfs
    output
    forkguard
    bell
    ending
    cgroup
    cpus
    fd
    region
    socket
    lifeline
    arena
    process
    block block_trim
    ring
    worker call
    template template_server
    pool_memory
    bound
    callbacks
    turns
    window
    slots
    audit
    overdue
    workers
    workers_kill
    workers_start
    workers_end
    strikes
    sleep
    engine
    wait
    task
    helper
    submit
    cut
    map_job
    map
    stream
    stat
    worker_process
    pool
"""

# python/ext, the lowest file first: a file includes only files in front of it, so there is no circle.
EXTENSION = ("ext errors records sliced_wait undisturbed sink small reducers codec function outcome dropped_calls task stream "
             "worker starter runtime pool module").split()

LAYER = {stem: number for number, line in enumerate(LAYERS.split("\n"))
         for stem in line.split()}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
DECLARATION = re.compile(r"^(?!static|typedef|struct \w+;)\w[^:;{}=]*?\b(\w+)(?:\([^;{}]*\))?;", re.M)
PUBLIC = "allcores.h"


def complaints_of(path):
    if path.stem not in LAYER:
        yield f"src/{path.name}: stands nowhere: add it to tools/check_floors.py"
        return
    for name in INCLUDE.findall(path.read_text()):
        stem = pathlib.Path(name).stem
        if name == PUBLIC:
            continue
        if stem not in LAYER:
            yield f"src/{path.name}: includes {name}, which stands nowhere"
        elif LAYER[stem] > LAYER[path.stem]:
            yield f"src/{path.name}: includes {name}, which stands above it"


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

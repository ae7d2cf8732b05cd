#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is a typed program with multiprocessing is one with allcores. Prints TAP.

    python3 python/tests/typed/check.py FOLDER

mypy and pyright check the programs beside this file, as they are and with multiprocessing in
the place of allcores. Each checker must find an error in each line that ends with "# error", and
in no other. The programs that have no such lines, or have them where they are not called, must run.

The checkers are the mypy in the path, and those that pip can install into FOLDER, where they stay
for the next time. What cannot be had is skipped.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent.parent  # the folder of the package allcores
STUBS = [str(path) for path in sorted((PACKAGE / "allcores").glob("*.pyi"))]
FROM_PIP = ("mypy==2.4.1", "pyright[nodejs]==1.1.414")
FLOOR = "3.11"  # the version of Python for which the programs are checked
PATIENCE = 120  # seconds after which an installation or a checker hangs
WITH_BOTH = ("program.py", "wrong.py")
OURS = ("additions.py",)
RUNNABLE = ("program.py", "std_program.py", "additions.py")


def run(command, folder, **env):
    """(exit code, what was printed)"""
    try:
        done = subprocess.run(command, cwd=folder, env=dict(os.environ, **env), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return 1, f"no end after {PATIENCE} s"
    return done.returncode, done.stdout


def write_programs(folder):
    """Copies of the programs, and those of the standard library's: std_*.py."""
    for name in WITH_BOTH + OURS:
        text = (HERE / name).read_text()
        (folder / name).write_text(text)
        if name in WITH_BOTH:
            (folder / f"std_{name}").write_text(text.replace("allcores", "multiprocessing"))
    (folder / "pyrightconfig.json").write_text(json.dumps({
        "strict": ["*.py"], "pythonVersion": FLOOR, "extraPaths": [str(PACKAGE)]}))
    return sorted(path.name for path in folder.glob("*.py"))


def marked_lines(path):
    """The numbers of the lines in which an error must be found."""
    lines = path.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


# ---- the checkers: each returns [(file, line, message)] ----


def run_mypy(mypy, folder, names):
    command = [mypy, "--strict", "--python-version", FLOOR, "--cache-dir", folder / "cache"]
    _, text = run([*command, *names, *STUBS], folder, MYPYPATH=str(PACKAGE))
    found = re.findall(r"^(\S+?):(\d+): error: (.*)", text, re.M)
    if "checked" not in text:  # its last line, since wrong.py has errors
        raise RuntimeError(text)
    return [(name, int(line), message) for name, line, message in found]


def run_pyright(pyright, folder, names):
    _, text = run([pyright, "--outputjson", *names, *STUBS], folder)
    try:
        rows = json.loads(text[text.index("{"):])["generalDiagnostics"]
    except ValueError:
        raise RuntimeError(text) from None
    return [(pathlib.Path(row["file"]).name, row["range"]["start"]["line"] + 1, row["message"])
            for row in rows if row["severity"] == "error"]


def version_of(command):
    """Its name and version, or None if it does not run."""
    try:
        code, text = run([command, "--version"], None)
    except OSError:
        return None
    return None if code else " ".join(text.split()[:2])


def install(folder):
    """Install the checkers that pip has. Return the folder, and why that failed, or None."""
    home = folder / "-".join(re.sub(r"\W+", "_", package) for package in FROM_PIP)
    done = home / "complete"
    if not done.exists():
        shutil.rmtree(home, ignore_errors=True)
        pip = [home / "bin/python", "-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20"]
        for command in [sys.executable, "-m", "venv", home], [*pip, *FROM_PIP]:
            code, text = run(command, None)
            if code:
                return home, (text.strip().splitlines() or [f"exit code {code}"])[-1]
        done.touch()
    return home, None


def find_checkers(folder):
    """[(function, command, its name and version, or why it is skipped)]"""
    home, why_not = install(folder)
    wanted = [
        (run_mypy, shutil.which("mypy"), "no mypy in the path"),
        (run_mypy, home / "bin/mypy", f"pip cannot install mypy: {why_not}"),
        (run_pyright, home / "bin/pyright", f"pip cannot install pyright: {why_not}"),
    ]
    for check, command, reason in wanted:
        version = command and version_of(command)
        yield check, command, version, None if version else reason


# ---- TAP ----


class Tap:
    def __init__(self):
        self.count = self.failed = 0

    def say(self, name, trouble=(), why_skipped=None):
        self.count += 1
        self.failed += bool(trouble)
        for line in trouble:
            print(f"# {line}")
        skip = f" # SKIP {why_skipped}" if why_skipped else ""
        print(f"{'not ok' if trouble else 'ok'} {self.count} - {name}{skip}", flush=True)


def compare(folder, name, found):
    """Complaints about the errors that a checker found in one program."""
    wanted = marked_lines(folder / name)
    here = {line: message for file, line, message in found if file == name}
    for line in sorted(wanted - set(here)):
        yield f"{name}:{line}: no error was found"
    for line in sorted(set(here) - wanted):
        yield f"{name}:{line}: {here[line]}"


def check_all(tap, folder, venvs):
    names = write_programs(folder)
    for check, command, version, why_not in find_checkers(venvs):
        if why_not:
            tap.say("types", why_skipped=why_not)
            continue
        found = check(command, folder, names)
        for name in names:
            tap.say(f"{version}: {name}", list(compare(folder, name, found)))
        others = [f"{file}:{line}: {text}" for file, line, text in found if file not in names]
        tap.say(f"{version}: the stubs themselves", others)


def run_all(tap, folder):
    for name in RUNNABLE:
        code, text = run([sys.executable, name], folder, PYTHONPATH=str(PACKAGE))
        tap.say(f"{name} runs", text.splitlines() if code else ())


def main():
    tap = Tap()
    with tempfile.TemporaryDirectory() as folder:
        check_all(tap, pathlib.Path(folder), pathlib.Path(sys.argv[1]).resolve())
        run_all(tap, pathlib.Path(folder))
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Imports that fail: of the extension, and inside of a submodule. With copies of the package."""
import os
import shutil
import subprocess
import sys
import textwrap
import unittest
from importlib.machinery import EXTENSION_SUFFIXES

import allcores
from support import PATIENCE, Case, engine_only

OTHER = "_core.cpython-27-x86_64-linux-gnu.so"
NEEDED = "_core" + EXTENSION_SUFFIXES[0]
THIS = f"this is CPython {sys.version_info[0]}.{sys.version_info[1]}, which needs {NEEDED}"


@engine_only
class Copies(Case):
    """A copy of the package in a folder of its own."""

    def setUp(self):
        super().setUp()
        self.package = self.path("allcores")
        shutil.copytree(os.path.dirname(allcores.__file__), self.package,
                        ignore=shutil.ignore_patterns("__pycache__", "_core*.so"))

    def add(self, name, text=""):
        with open(os.path.join(self.package, name), "w") as file:
            file.write(textwrap.dedent(text))
        return os.path.join(self.package, name)

    def run_copy(self, *args, **env):
        """(exit code, stdout, stderr) of Python, which finds the copy."""
        env = dict(os.environ, PYTHONPATH=self.folder, ALLCORES_ENGINE="") | env
        done = subprocess.run([sys.executable, *args], env=env, cwd=self.folder, text=True,
                              capture_output=True, timeout=PATIENCE)
        return done.returncode, done.stdout, done.stderr

    def run_text(self, text, **env):
        path = self.path("program.py")
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))
        return self.run_copy(path, **env)


class MissingExtension(Copies, unittest.TestCase):
    """The standard library's pool, with one RuntimeWarning that has the true reason."""

    program = "import allcores\nprint(allcores.engine, allcores.engine_reason, sep=': ')\n"

    def check(self, reason):
        code, out, err = self.run_text(self.program)
        self.assertEqual((code, out),
                         (0, f"stdlib: the extension cannot be imported: {reason}\n"))
        self.assertEqual(err.count("RuntimeWarning"), 1, err)
        self.assertIn(f"program.py:1: RuntimeWarning: allcores uses the standard library's pool, "
                      f"since its extension cannot be imported: {reason}. Install", err)
        self.assertIn(f"make PYTHON={sys.executable}", err)
        self.assertIn("ALLCORES_ENGINE=stdlib", err)
        self.assertNotIn("circular", err)
        code, out, err = self.run_text(self.program, ALLCORES_ENGINE="allcores")
        self.assertEqual((code, out), (1, ""))
        self.assertIn(f"ImportError: {reason}\n", err)

    def test_none(self):
        self.check(f"no _core*.so in {self.package}; {THIS}")

    def test_of_another_python(self):
        first = self.add(OTHER)
        self.check(f"{first} was built for another Python; {THIS}")
        second = self.add("_core.cpython-28-x86_64-linux-gnu.so")
        self.check(f"{first}, {second} were built for another Python; {THIS}")

    def test_damaged(self):
        path = self.add(NEEDED, "nothing")
        self.add(OTHER)
        self.check(f"{path}: file too short")

    def test_without_initialization(self):
        """As a library of another kind under its name."""
        library = next(path for path in (line.split()[-1] for line in open("/proc/self/maps"))
                       if "/libc" in path and ".so" in path)
        shutil.copy(library, os.path.join(self.package, NEEDED))
        self.check("dynamic module does not define module export function (PyInit__core)")

    def test_wanted(self):
        code, out, err = self.run_text(self.program, ALLCORES_ENGINE="stdlib")
        self.assertEqual((code, out, err), (0, "stdlib: ALLCORES_ENGINE=stdlib\n", ""))

    def test_command_line(self):
        path = self.add(OTHER)
        code, out, err = self.run_copy("-m", "allcores")
        self.assertEqual(code, 0)
        self.assertRegex(out, rf"(?m)^engine +stdlib \(.*{path} was built for another Python; ")
        self.assertEqual(err.count("RuntimeWarning"), 1)

    def test_once_in_a_program_with_workers(self):
        """Whose workers import the package, too: at once, or in a task."""
        for method in ("fork", "spawn", "forkserver"):
            for when in ("", "    "):
                with self.subTest(f"{method}, {when!r}"):
                    code, out, err = self.run_text(f"""\
                        import sys
                        if {when!r} == "" or __name__ == "__main__":
                            import allcores

                        def task(x):
                            import allcores
                            return allcores.engine

                        if __name__ == "__main__":
                            with allcores.get_context({method!r}).Pool(2) as pool:
                                print(*pool.map(task, range(2), 1))
                    """)
                    self.assertEqual((code, out), (0, "stdlib stdlib\n"), err)
                    self.assertEqual(err.count("RuntimeWarning"), 1, err)

    def test_once_however_often_it_is_imported(self):
        code, out, err = self.run_text("""\
            import allcores, allcores.pool, allcores.managers
            from allcores import Pool
            import allcores.context
            print(allcores.context.__name__)
        """)
        self.assertEqual((code, out), (0, "multiprocessing.context\n"), err)
        self.assertEqual(err.count("RuntimeWarning"), 1)

    def test_filtered(self):
        """By its category, as any warning."""
        for arguments in (("-W", "ignore::RuntimeWarning"), ("-W", "ignore")):
            code, out, err = self.run_copy(*arguments, "-c", self.program)
            self.assertEqual((code, err), (0, ""))
        code, _, err = self.run_copy("-W", "error::RuntimeWarning", "-c", self.program)
        self.assertEqual(code, 1)
        self.assertIn("RuntimeWarning: allcores uses", err)

    def test_no_warning_with_the_extension(self):
        shutil.copy(allcores._core.__file__, self.package)
        self.add(OTHER)
        code, out, err = self.run_text(self.program)
        self.assertRegex(out, r"^allcores: liballcores \d")
        self.assertEqual((code, err), (0, ""))


class MissingModules(Copies, unittest.TestCase):
    """What is missing inside of a submodule is not the submodule."""

    def setUp(self):
        super().setUp()
        shutil.copy(allcores._core.__file__, self.package)

    def test_own_submodule(self):
        self.add("inner.py", "import nonsense.deep\n")
        self.add("outer.py", "from . import inner\n")
        for engine in ("", "stdlib"):
            for name in ("inner", "outer"):
                for text in (f"allcores.{name}", f"hasattr(allcores, {name!r})",
                             f"getattr(allcores, {name!r}, None)"):
                    code, _, err = self.run_text(f"import allcores\n{text}\n",
                                                 ALLCORES_ENGINE=engine)
                    self.assertEqual(code, 1)
                    self.assertTrue(
                        err.endswith("ModuleNotFoundError: No module named 'nonsense'\n"), err)

    def test_the_standard_librarys_submodule(self):
        code, out, err = self.run_text("""\
            import sys
            sys.modules["mmap"] = None  # as if it were not installed
            import allcores
            try:
                allcores.heap
            except ModuleNotFoundError as error:
                print(error.name)
            try:
                import allcores.heap
            except ModuleNotFoundError as error:
                print(error.name)
        """)
        self.assertEqual((code, out, err), (0, "mmap\nmmap\n", ""))

    def test_submodule_that_raises_something_else(self):
        self.add("inner.py", "raise AttributeError('of its own')\n")
        self.add("outer.py", "1 / 0\n")
        code, out, err = self.run_text("""\
            import allcores
            for name in "inner", "outer":
                try:
                    getattr(allcores, name)
                except Exception as error:
                    print(repr(error))
        """)
        self.assertEqual((code, out, err), (
            0, "AttributeError('of its own')\nZeroDivisionError('division by zero')\n", ""))

    def test_missing_submodule(self):
        code, out, err = self.run_text("""\
            import allcores
            for get in (lambda: allcores.nonsense, lambda: allcores._nonsense,
                        lambda: allcores.pool.nonsense, lambda: allcores.context.nonsense):
                try:
                    get()
                except AttributeError as error:
                    print(error)
            print(hasattr(allcores, "nonsense"), getattr(allcores, "nonsense", 5))
            try:
                from allcores import nonsense
            except ImportError as error:
                print(type(error).__name__)
            try:
                import allcores.nonsense
            except ModuleNotFoundError as error:
                print(error.name)
        """)
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0], "module 'allcores' has no attribute 'nonsense'")
        self.assertEqual(lines[4:], ["False 5", "ImportError", "allcores.nonsense"])


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What help() shows: the standard library's signatures, and docstrings that say what goes in, what
comes out and what is raised."""
import inspect
import multiprocessing.context
import multiprocessing.pool
import pydoc
import re
import unittest

import allcores
from support import engine_only

CLASSES = (
    (allcores.pool, "Pool"),
    (allcores.pool, "AsyncResult"),
    (allcores.pool, "MapResult"),
    (allcores.pool, "IMapIterator"),
    (allcores.pool, "IMapUnorderedIterator"),
)
START_METHODS = ("get_context", "set_start_method", "get_start_method", "get_all_start_methods")
RAISE_NOTHING = {"Process", "ready", "get_start_method", "get_all_start_methods"}


def public_methods(cls):
    """[(name, function)] of the methods that the standard library's class has, too, and dump."""
    theirs = getattr(multiprocessing.pool, cls.__name__, None) or cls
    names = {name for name in dir(theirs) if not name.startswith("_")} | {"dump"} & set(dir(cls))
    return [(name, getattr(cls, name)) for name in sorted(names) if callable(getattr(cls, name))]


def parameters(function):
    """{name: default} of a function's parameters, without self."""
    found = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in found if one.name != "self"}


@engine_only
class Help(unittest.TestCase):
    maxDiff = None

    def check_text(self, name, function):
        text = inspect.getdoc(function) or ""
        self.assertGreater(len(text), 20, f"{name} has no docstring")
        for parameter in parameters(function):
            self.assertRegex(text, rf"\b{parameter}\b", f"{name}: a parameter is not explained")
        if function.__name__ not in RAISE_NOTHING:
            self.assertRegex(text, re.compile("^Raises", re.M), f"{name}: what it raises")

    def test_methods_name_their_parameters_and_what_they_raise(self):
        for module, class_name in CLASSES:
            cls = getattr(module, class_name)
            methods = public_methods(cls)
            self.assertTrue(methods, class_name)
            for name, function in methods:
                with self.subTest(f"{class_name}.{name}"):
                    self.check_text(f"{class_name}.{name}", function)

    def test_functions_of_the_module(self):
        self.check_text("cpus", allcores.cpus)
        self.check_text("Pool", allcores.Pool)
        for name in START_METHODS:
            with self.subTest(name):
                self.check_text(name, getattr(allcores.context.DefaultContext, name))

    def test_classes(self):
        classes = [getattr(module, name) for module, name in CLASSES]
        classes += [getattr(allcores, name) for name in allcores.errors.__all__]
        for cls in classes:
            with self.subTest(cls.__name__):
                self.assertIn("__doc__", vars(cls))
                self.assertGreater(len(cls.__doc__ or ""), 40)

    def test_signatures_are_the_standard_librarys(self):
        for module, class_name in CLASSES:
            theirs = getattr(multiprocessing.pool, class_name)
            for name, function in public_methods(getattr(module, class_name)):
                if hasattr(theirs, name):
                    with self.subTest(f"{class_name}.{name}"):
                        self.assertEqual(parameters(function), parameters(getattr(theirs, name)))
        self.assertEqual(parameters(allcores.Pool), parameters(multiprocessing.Pool))

    def test_help_of_pool_names_all_methods(self):
        for shown in allcores.Pool, allcores.pool.Pool:
            text = pydoc.render_doc(shown, renderer=pydoc.plaintext)
            for name, _ in public_methods(allcores.pool.Pool):
                if name != "Process":
                    self.assertRegex(text, rf"\b{name}\b")


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib_modules.py imports it)."""

from multiprocessing.heap import *
from multiprocessing.heap import Arena as Arena
from multiprocessing.heap import Heap as Heap

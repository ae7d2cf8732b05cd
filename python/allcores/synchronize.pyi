# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib_modules.py imports it)."""

from multiprocessing.synchronize import *
from multiprocessing.synchronize import Barrier as Barrier
from multiprocessing.synchronize import SemLock as SemLock

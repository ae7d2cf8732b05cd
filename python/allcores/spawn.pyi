# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib_modules.py imports it)."""

from multiprocessing.spawn import *
from multiprocessing.spawn import is_forking as is_forking
from multiprocessing.spawn import prepare as prepare
from multiprocessing.spawn import spawn_main as spawn_main

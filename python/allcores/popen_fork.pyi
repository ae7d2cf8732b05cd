# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib.py imports it)."""

from multiprocessing.popen_fork import *

# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib_modules.py imports it)."""

from multiprocessing.connection import *
from multiprocessing.connection import Connection as Connection
from multiprocessing.connection import answer_challenge as answer_challenge
from multiprocessing.connection import deliver_challenge as deliver_challenge

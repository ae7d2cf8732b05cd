# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib_modules.py imports it)."""

from multiprocessing.sharedctypes import *
from multiprocessing.sharedctypes import Synchronized as Synchronized
from multiprocessing.sharedctypes import SynchronizedArray as SynchronizedArray
from multiprocessing.sharedctypes import SynchronizedBase as SynchronizedBase
from multiprocessing.sharedctypes import SynchronizedString as SynchronizedString

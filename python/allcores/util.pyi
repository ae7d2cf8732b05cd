# SPDX-License-Identifier: MIT
"""What type checkers see: the standard library's module (_stdlib_modules.py imports it)."""

from multiprocessing.util import *
from multiprocessing.util import DEBUG as DEBUG
from multiprocessing.util import DEFAULT_LOGGING_FORMAT as DEFAULT_LOGGING_FORMAT
from multiprocessing.util import INFO as INFO
from multiprocessing.util import LOGGER_NAME as LOGGER_NAME
from multiprocessing.util import NOTSET as NOTSET

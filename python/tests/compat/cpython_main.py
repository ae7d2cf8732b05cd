# SPDX-License-Identifier: MIT
"""test.test_multiprocessing_main_handling, on allcores: pools in every kind of program."""
from compat.borrow import borrow

borrow("test.test_multiprocessing_main_handling", globals())

# SPDX-License-Identifier: MIT
"""test._test_multiprocessing, on allcores. Workers import it by this name."""
from compat.borrow import borrow

borrow("test._test_multiprocessing", globals())

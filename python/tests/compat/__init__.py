# SPDX-License-Identifier: MIT
"""CPython's own tests of its pool, run on ours: see run.py."""

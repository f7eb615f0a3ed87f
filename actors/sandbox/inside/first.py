# ruff: noqa: PTH100, PTH120 -- pathlib costs 5 ms
"""The first program inside a sandbox: makes the jail complete, then becomes the program that the supervisor names.

Started as ``python -I -S first.py DESCRIPTOR``, where DESCRIPTOR is the channel. The supervisor's first frame says how to confine
this process, its second what to run; a child of the warm pool waits between the two.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from inside import bootstrap  # type: ignore[import-not-found]

del sys.path[0]
bootstrap.main(int(sys.argv[1]))

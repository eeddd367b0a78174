"""What some tests need of the machine; each says so where it is skipped. CI has all of it."""

from __future__ import annotations

import os
import sys

import pytest

#: Files of another user cannot be made by anyone else.
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make what belongs to another user"
)
#: The memory of a process is read from /proc.
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")

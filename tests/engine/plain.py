"""Agents of an ordinary user, also where the tests are run by root."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

#: For `plant`. Without any capability root is nobody special, except that it owns what is there.
PLAIN = """
def _plain():
    import ctypes, os, struct
    call = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        call.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
    if call.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "the capabilities could not be dropped")
    del call
_plain()
"""

#: Marks what has files of another user made.
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="another user's files: this needs root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_all(*roots: Path) -> None:
    """Have pytest remove what is there, whoever runs it."""
    for root in roots:
        for above, _, _ in os.walk(root):
            os.chmod(above, 0o755)


def give_to_another(path: Path) -> None:
    os.chown(path, 12345, 12345)

"""Where the tests' folders are: in memory where that has room, for what they write is much.

The suite writes and removes some 40 GB and several hundred thousand files. A disk takes half
of the run's time for that, and no test needs a disk: what Postgres, Valkey, sshd and the
workers keep for themselves stays on it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.rig.facts import acl_support, xattr_support

#: Room for the largest trees and their archives, of two tests at a time; and as much memory
#: beside it as the programs want.
NEEDED_BYTES = 14 << 30
SPARE_BYTES = 2 << 30
MEMORY = Path("/dev/shm")


def in_memory(folder: Path = MEMORY) -> Path | None:
    """The folder, if it has the room and can all that the disk can; else nothing."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    room = min(shutil.disk_usage(folder).free, available() - SPARE_BYTES)
    return folder if room >= NEEDED_BYTES and _is_able(folder) else None


def _is_able(folder: Path) -> bool:
    """Whether no test would have to be skipped there for want of attributes.

    Asked in a folder of this run: the other one is root's, and other runs ask at the same time.
    Without `setfacl` tests of access lists are skipped anywhere.
    """
    with tempfile.TemporaryDirectory(prefix="ketter-probe-", dir=folder) as own:
        lists = shutil.which("setfacl") is None or acl_support(Path(own))
        return lists and xattr_support(Path(own))


def available() -> int:
    """Bytes of memory that programs could have now; none where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line), 0)

"""FUSE programs that show a folder at another place."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def missing(*programs: str) -> str:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "this needs /dev/fuse"
    gone = [program for program in programs if not shutil.which(program)]
    return f"this needs {', '.join(gone)}" if gone else ""


@contextlib.contextmanager
def mounted(command: list[str], mount: Path) -> Iterator[None]:
    """A FUSE program that shows something at a folder."""
    mount.mkdir(exist_ok=True)
    subprocess.run([*command, str(mount)], check=True, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=True)

"""Whether a tool delivered what it was given."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

_PIECE = 4 << 20


class Totals(NamedTuple):
    """What a tree or a file amounts to; bytes are those of regular files."""

    entries: int
    bytes: int


def totals(root: Path | str) -> Totals:
    """Count everything below a folder, or one file; nothing where nothing is."""
    try:
        info = os.lstat(root)
    except FileNotFoundError:
        return Totals(0, 0)
    if not stat.S_ISDIR(info.st_mode):
        return Totals(1, info.st_size)
    entries = size = 0
    waiting = [os.fspath(root)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return Totals(entries, size)


def difference(source: Path, target: Path, content: bool) -> str:
    """What is wrong at the target, in a few words; empty if it is as it should be.

    Entries and bytes are counted; with `content` every file is read at both ends.
    """
    ours, theirs = totals(source), totals(target)
    if ours != theirs:
        return (
            f"{theirs.entries:,} entries and {theirs.bytes:,} bytes arrived "
            f"of {ours.entries:,} and {ours.bytes:,}"
        )
    if not content:
        return ""
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and not _same(path, target / name):
            return f"{name} arrived with another content"
    return ""


def _same(one: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    with open(one, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
        while True:
            piece = left.read(_PIECE)
            if piece != right.read(_PIECE):
                return False
            if not piece:
                return True

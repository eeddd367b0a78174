"""Transfers that are interrupted half-way, and what is found at the target then."""

from __future__ import annotations

import mmap
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine
from engine import SilentObserver
from tests.rig.trees import MTIME, Entry, snapshot

MIB = 1 << 20
#: What may be lost of one large file, whatever is killed.
LOST_OF_A_FILE = 64 * MIB


def build_many(root: Path, files: int = 1200, size: int = 32 << 10) -> None:
    """Fill `root` with files of one size and random content, in some folders of odd modes."""
    dice = random.Random(files)
    for number in range(files):
        folder = root / f"reel_{number % 5}" / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{number:05}.dpx"
        file.write_bytes(dice.randbytes(size))
        os.utime(file, ns=(MTIME, MTIME + number))
    (root / "empty").mkdir()
    (root / "link").symlink_to("reel_0/0")
    for number, folder in enumerate(sorted(root.rglob("*"), reverse=True)):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o751)
            os.utime(folder, ns=(MTIME, MTIME + number))


def build_large(path: Path, size: int) -> None:
    """Write a file of random content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dice = random.Random(size)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.write(dice.randbytes(min(MIB, size - at)))
    os.utime(path, ns=(MTIME, MTIME))


def staging(target: Path) -> list[Path]:
    """The staging folders at a target."""
    return list(target.glob(".ketter-*.part"))


def staged(target: Path) -> int:
    """Bytes on the disk that have arrived so far, as blocks: slices leave holes."""
    found = 0
    for folder in staging(target):
        for tree in folder.glob("a[0-9]*"):
            for above, _, names in os.walk(tree):
                for name in names:
                    try:
                        found += os.lstat(os.path.join(above, name)).st_blocks * 512
                    except FileNotFoundError:
                        continue  # It is being worked on.
    return found


class Held:
    """Keeps what was staged when a transfer was interrupted, to tell what was sent anew.

    Each file is mapped into memory, so its inode is not used again; not opened, they are
    too many, nor given a second name, which the receiver refuses to write through.
    """

    def __init__(self, target: Path) -> None:
        self._mapped: list[mmap.mmap] = []
        self._files: dict[str, int] = {}
        for tree in target.glob(".ketter-*.part/a[0-9]*"):
            for file in tree.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    if file.stat().st_size:
                        with file.open("rb") as opened:
                            self._mapped.append(mmap.mmap(opened.fileno(), 1, prot=mmap.PROT_READ))
                    self._files[file.relative_to(tree).as_posix()] = file.stat().st_ino

    def kept(self, target: Path) -> set[str]:
        """The files at the target that are those which had been staged."""
        return {
            path
            for path, inode in self._files.items()
            if (target / path).exists() and (target / path).stat().st_ino == inode
        }


class Stop(SilentObserver):
    """Stops a transfer to be gone on with, as soon as it is time."""

    def __init__(self, due: Callable[[], bool]) -> None:
        self._due = due

    def checkpoint(self) -> None:
        if self._due():
            raise engine.Interrupted("enough for today")


class Warnings(SilentObserver):
    """Keeps what a transfer has to say."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, Any]]] = []

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        self.said.append((code, message, data))


def whole(root: Path) -> dict[bytes, Entry]:
    """A tree, and its top, which is no part of a snapshot."""
    top = root.stat()
    mode = stat.S_IMODE(top.st_mode)
    return {**snapshot(root), b".": Entry("folder", 0, mode, top.st_mtime_ns, "", b"")}

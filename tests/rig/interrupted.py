"""Transfers that are interrupted half-way, and what is found at the target then."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import re
import stat
from collections.abc import Collection
from pathlib import Path

from engine.agent.digests import digest_file
from engine.agent.inspect import machine
from engine.agent.target.journal import Journal
from engine.agent.tree import Tree
from engine.agent.wire import pack_entries
from tests.rig.trees import MTIME, Entry, snapshot

MIB = 1 << 20
#: Where entries lie in a staging folder: a folder for each attempt.
_ATTEMPT = re.compile(r"a[0-9]")
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
        # `os.walk` passes over a folder that goes meanwhile, and one that a FUSE file system
        # lists before it can be opened; `Path.glob` raises.
        for above, _, names in os.walk(folder):
            if not _ATTEMPT.match(os.path.relpath(above, folder)):
                continue
            for name in names:
                try:
                    found += os.lstat(os.path.join(above, name)).st_blocks * 512
                except FileNotFoundError:
                    continue  # The agent renames or removes it.
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


def whole(root: Path) -> dict[bytes, Entry]:
    """A tree, and its top, which is no part of a snapshot."""
    top = root.stat()
    mode = stat.S_IMODE(top.st_mode)
    return {**snapshot(root), b".": Entry("folder", 0, mode, top.st_mtime_ns, "", b"")}


def forge(folder: Path, only: Collection[str] = ()) -> None:
    """Give what was staged (`only` these files) other bytes, and the journal the digests of these.

    Sizes and times stay: as another program of the target's account can do it.
    """
    fd = os.open(folder, os.O_RDONLY)
    tree, journal = Tree(os.open(folder / "a1", os.O_RDONLY)), Journal(fd, machine())
    forged = 0
    try:
        records = [journal.record(at) for at, body in journal.records() if "parcel" in body]
        for entry, _ in itertools.chain.from_iterable(map(Journal.proven, records)):
            if entry.kind != "f" or entry.size > MIB or (only and entry.path not in only):
                continue
            path = folder / "a1" / entry.path
            path.chmod(0o600)
            path.write_bytes(b"F" * entry.size)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
            blob = pack_entries([entry])
            digest = digest_file(tree, entry, lambda _: None, medium=False)
            journal.add({"parcel": 1, "list": len(blob)}, blob + digest)
            forged += 1
    finally:
        journal.close()
        tree.close()
        os.close(fd)
    assert forged, "nothing was proven when it was interrupted"

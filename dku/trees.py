"""The smoke transfer's trees: how they are made, and a fingerprint of any tree.

The fingerprint is DKU's own and shares no code with the engine: a check must
not rely on the code that it checks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

MANY_FILES = 3000
MANY_FOLDERS = 30
LARGE_BYTES = 64 * 1024 * 1024
CHUNK = 1024 * 1024
#: Bytes that one case needs at most: the source, the staged files and the published ones.
ROOM_BYTES = 3 * LARGE_BYTES
#: A time long past (ns), so that a lost time stamp cannot look right by chance.
OLD_NS = 1_000_000_000_123_456_789


def write_small(root: Path) -> None:
    """A small folder with entries that are easily lost: hidden, empty, executable, oddly named."""
    (root / "take 01" / "empty folder").mkdir(parents=True)
    (root / "take 01" / "açúcar é doce.txt").write_text("maçã\n", encoding="utf-8")
    (root / ".hidden").write_bytes(b"seen")
    (root / "empty.bin").touch()
    (root / "camera.raw").write_bytes(os.urandom(CHUNK + 1))
    script = root / "run.sh"
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    script.chmod(0o750)
    os.utime(script, ns=(OLD_NS, OLD_NS))


def write_many(root: Path) -> None:
    """A folder of thousands of small files."""
    for number in range(MANY_FOLDERS):
        (root / f"roll_{number:02}").mkdir()
    for number in range(MANY_FILES):
        folder = root / f"roll_{number % MANY_FOLDERS:02}"
        (folder / f"frame_{number:05}.dat").write_bytes(os.urandom(number % 4096))


def write_large(root: Path) -> None:
    """A folder with one large file that does not compress."""
    with (root / "large.mov").open("wb") as file:
        for _ in range(LARGE_BYTES // CHUNK):
            file.write(os.urandom(CHUNK))


@dataclass(frozen=True)
class Tree:
    """The entries below a folder: relative path -> kind, mode, time and SHA-256."""

    entries: dict[str, str]
    files: int
    bytes: int

    def differences(self, other: Tree) -> list[str]:
        """The paths that are missing on one side or differ, sorted."""
        paths = self.entries.keys() | other.entries.keys()
        return sorted(p for p in paths if self.entries.get(p) != other.entries.get(p))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tree(root: Path) -> Tree:
    """The fingerprint of everything below a folder; a folder that is not there is empty."""
    entries: dict[str, str] = {}
    files = size = 0
    for folder, folders, names in os.walk(root):
        for name in folders:
            entries[os.path.relpath(os.path.join(folder, name), root)] = "folder"
        for name in names:
            path = Path(folder, name)
            stat = path.lstat()
            entries[os.path.relpath(path, root)] = (
                f"file {stat.st_mode:o} {stat.st_mtime_ns} {_sha256(path)}"
            )
            files += 1
            size += stat.st_size
    return Tree(entries, files, size)


def empty_folder(root: Path) -> None:
    """Make the folder if it is missing, and remove everything in it."""
    root.mkdir(parents=True, exist_ok=True)
    for entry in root.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

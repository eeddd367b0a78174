"""Trees to transfer, and the one way to tell whether two of them are equal."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path
from typing import NamedTuple

#: How many differences a failed comparison names.
SHOWN = 8
MTIME = 1_600_000_000_123_456_789


class Entry(NamedTuple):
    """What a transfer must keep of one entry; folders keep no size, links no mode."""

    kind: str
    size: int
    mode: int
    mtime_ns: int
    sha256: str
    link: bytes


def build_small(root: Path, files: int = 200, seed: int = 1) -> None:
    """Fill `root` with many small files in some folders, the same ones for the same seed."""
    dice = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        folder = root / f"reel_{number % 7:02}" / f"clip_{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"frame_{number:06}.dpx"
        path.write_bytes(dice.randbytes(dice.randrange(4096)))
        _set_mtime(path, MTIME + number * 1_000_000_007)


def build_mixed(root: Path, large_bytes: int = 5 * 1024 * 1024 + 17) -> None:
    """Fill `root` with one of everything a transfer must carry; ends with one larger file."""
    root.mkdir(parents=True, exist_ok=True)
    base = os.fsencode(root)
    names = (
        b".hidden",
        b".hidden_folder/.inside",
        b"deep/er/and/deeper/still/leaf.txt",
        b"zero.bin",
        "umlaut \u00e4\u00f6\u00fc \u6620\u753b \U0001f3ac.txt".encode(),
        "nfd e\u0301.txt".encode(),
        b"new\nline.txt",
        b"tab\tand 'quotes' \"both\" $(echo no) `no` \\ back.txt",
        b"-dash",
        b" spaces around ",
        b"n" * 255,
        b"not utf-8 \xff\xfe.raw",
    )
    for number, name in enumerate(names):
        path = os.path.join(base, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = b"" if name == b"zero.bin" else hashlib.sha512(name).digest() * (number + 1)
        Path(os.fsdecode(path)).write_bytes(content)
    (root / "empty" / "emptier").mkdir(parents=True)
    (root / "tool.sh").write_bytes(b"#!/bin/sh\n")
    (root / "large.mov").write_bytes(random.Random(2).randbytes(large_bytes))
    (root / "link_to_file").symlink_to("zero.bin")
    (root / "link_to_folder").symlink_to("deep/er")
    (root / "link_dangling").symlink_to("nowhere/at all")
    _set_modes_and_times(root)


def _set_modes_and_times(root: Path) -> None:
    modes = {"tool.sh": 0o755, "zero.bin": 0o600, "-dash": 0o444, "large.mov": 0o640}
    for name, mode in modes.items():
        (root / name).chmod(mode)
    (root / "empty" / "emptier").chmod(0o700)
    _set_mtime(root / "zero.bin", 1)  # 1970, long before zip's calendar begins.
    _set_mtime(root / "tool.sh", 4_500_000_000_000_000_001)  # 2112, after it has ended.
    _set_mtime(root / "large.mov", MTIME)
    _set_mtime(root / "deep" / "er", MTIME + 1)
    _set_mtime(root / "empty" / "emptier", MTIME + 2)
    _set_mtime(root / "empty", MTIME + 3)


def _set_mtime(path: Path, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns))


def put(path: Path, content: str = "content", mtime_ns: int = 5) -> None:
    """Write a small file, and the folders above it, with that time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    _set_mtime(path, mtime_ns)


def spoil(path: Path) -> None:
    """Change a byte of a file, and let nothing else show it."""
    times = path.stat()
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def snapshot(root: Path) -> dict[bytes, Entry]:
    """Everything below `root` by its name in bytes; `root` itself is not in it."""
    found: dict[bytes, Entry] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, base)] = entry_of(path)
    return found


def tree(root: Path) -> dict[str, bytes | None]:
    """All there is below a folder: content of files, None for folders."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def entry_of(path: bytes) -> Entry:
    """One entry as it is; a link is not followed."""
    info = os.lstat(path)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return Entry("link", 0, 0, 0, "", os.readlink(path))
    if stat.S_ISDIR(info.st_mode):
        return Entry("folder", 0, mode, info.st_mtime_ns, "", b"")
    if not stat.S_ISREG(info.st_mode):
        return Entry("special", 0, mode, info.st_mtime_ns, "", b"")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry("file", info.st_size, mode, info.st_mtime_ns, digest, b"")


def assert_equal_trees(a: Path | dict[bytes, Entry], b: Path | dict[bytes, Entry]) -> None:
    """Fail unless two trees (or snapshots of them) are equal, naming the first differences."""
    left = snapshot(a) if isinstance(a, Path) else a
    right = snapshot(b) if isinstance(b, Path) else b
    lines = [
        line for name in sorted(left.keys() | right.keys()) for line in _differ(name, left, right)
    ]
    if lines:
        shown = "\n  ".join(lines[:SHOWN])
        raise AssertionError(
            f"the trees differ in {len(lines)} places "
            f"({len(left)} entries against {len(right)}):\n  {shown}"
        )


def _differ(name: bytes, left: dict[bytes, Entry], right: dict[bytes, Entry]) -> list[str]:
    if name not in right:
        return [f"{name!r}: only in the first"]
    if name not in left:
        return [f"{name!r}: only in the second"]
    pairs = zip(Entry._fields, left[name], right[name], strict=True)
    return [
        f"{name!r}: {what} is {one!r} against {two!r}" for what, one, two in pairs if one != two
    ]

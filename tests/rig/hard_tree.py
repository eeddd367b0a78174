"""A tree made to be hard to carry; `assert_same` compares it and `remove_hard` takes it away.

`tests.rig.trees` has what every transfer meets, here is what one meets in ten
years. It needs a file system that takes any bytes as a name, as Linux has them.
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

from tests.rig.facts import (
    TOP,
    Description,
    Facts,
    above_modes,
    acl_support,
    assert_same,
    describe,
    differences,
    walk,
    xattr_support,
)
from tests.rig.trees import MTIME, build_mixed

__all__ = [
    "TOP",
    "Description",
    "Facts",
    "above_modes",
    "acl_support",
    "assert_same",
    "build_hard",
    "describe",
    "differences",
    "remove_hard",
    "walk",
    "xattr_support",
]

MIB = 1 << 20
SECOND = 1_000_000_000
#: Where chunks, parcels and buffers end, here or in some tool on the way.
BOUNDARIES = (MIB, 4 * MIB, 8 * MIB)
LARGE_BOUNDARY = 64 * MIB
#: One more than four bytes can count, and a bit.
LARGE_BYTES = (4 << 30) + MIB + 17
#: More than two bytes can count.
MANY = 65_600
#: Levels and length of name that take a path past the 4096 bytes of PATH_MAX.
DEEP_LEVELS, DEEP_NAME = 21, 200
LINK_MAX = 4095

NAMES = (
    b"new\nline",
    b"\n",
    b"trailing newline\n",
    b"Icon\r",
    b"tab\there",
    b"-leading dash",
    b"--delete",
    b"-",
    b"\"double\" 'single' `true`",
    b"$(true) $HOME ${x} %41 %s %d",
    b" ",
    b" leading space",
    b"trailing space ",
    b"trailing dot.",
    b"...",
    b"a..b",
    b"..a",
    b".. ",
    b"back\\slash",
    b"..\\up",
    b"C:\\windows",
    b"colon:semi;hash#amp&pipe|star*ask?<>[a]{b}~!",
    b"CON",
    b"\x01\x02 control \x1b[31m \x7f",
    b"\xff\xfe not utf-8",
    b"\xc0\xaf overlong slash",
    b"\xed\xa0\x80 a surrogate",
    b"cut \xe6\x98",
    "\u0085 \u2028 \u202e right to left \u200b".encode(),
    b"a" * 255,
    b"." + b"h" * 254,
    b"\xff" * 255,
    "\u00e4".encode() * 127 + b"a",
    "\u6620".encode() * 85,
    "\U0001f3ac".encode() * 63 + b"abc",
    "twin \u00e9".encode(),
    "twin e\u0301".encode(),
    b"A.mov",
    b"a.mov",
    # Nearly names of a staging folder.
    b".ketter-x.part.txt",
    b".ketter-x.part ",
    b".ketter-.par",
    b"x.ketter-x.part",
    b".ketter",
    b".KETTER-x.part",
)

TIMES = {
    "1901": -((1 << 31) * SECOND),
    "1969_last_ns": -1,
    "1969": -86_400 * SECOND + 123_456_789,
    "1970": 0,
    "1970_first_ns": 1,
    "1979_last_ns": 315_532_800 * SECOND - 1,
    "1980_odd_second": 315_532_801 * SECOND + 999_999_999,
    "2001": 1_000_000_000 * SECOND + 1,
    "2038_last": ((1 << 31) - 1) * SECOND + 999_999_999,
    "2038_after": (1 << 31) * SECOND + 1,
    "2106_after": (1 << 32) * SECOND + 2,
    "2107_last": 4_354_819_199 * SECOND + 999_999_999,
    "2108": 4_354_819_200 * SECOND + 3,
    "2200": 7_258_118_400 * SECOND + 4,
}

FILE_MODES = (0o444, 0o400, 0o666, 0o777, 0o4755, 0o2755, 0o6755, 0o1644, 0o7777)
#: Only who is above modes can compare what even its owner may not read.
UNREADABLE = (0o000, 0o200, 0o111, 0o6311)
FOLDER_MODES = (0o555, 0o500, 0o700, 0o777, 0o1777, 0o2775, 0o4755, 0o7555)

ATTRIBUTES = {
    b"user.ketter.binary": bytes(range(256)),
    b"user.ketter.empty": b"",
    b"user.ketter.long": b"\x00\xff" * 500,
    "user.\u00e4 \n".encode(): "\u6620".encode(),
}
ACCESS = "u:4321:rw,g:4322:r,m::rwx"


def build_hard(
    root: Path, *, large: bool = False, many: bool = False, special: bool = True, seed: int = 1
) -> None:
    """Fill `root` with everything that is hard to carry, the same for the same seed.

    `large` adds sparse files around 64 MiB and above 4 GiB, `many` a folder of
    more than 65,535 files, `special` what is no file, folder or link. What only
    root may make is there if root builds; attributes and access lists, if the
    file system takes them. `remove_hard` takes it away.
    """
    dice = random.Random(seed)
    build_mixed(root / "mixed", large_bytes=MIB + 17)
    _names(root / "names")
    _sizes(root / "sizes", dice)
    _holes(root / "holes")
    _times(root / "times")
    _folders(root / "folders")
    _deep(root / "deep")
    _symlinks(root / "links", root)
    _hard_links(root / "hard", dice)
    _modes(root / "modes")
    _attributes(root / "attributes")
    if special:
        _specials(root / "special")
    if large:
        _large(root / "large")
    if many:
        (root / "many").mkdir()
        for number in range(MANY):
            (root / "many" / f"{number:05}").write_bytes(b"%d" % number if number % 10 else b"")
    _set_times(root)


def _names(here: Path) -> None:
    here.mkdir()
    for number, name in enumerate(NAMES):
        Path(os.fsdecode(os.path.join(os.fsencode(here), name))).write_bytes(b"%d" % number)
        folder = os.path.join(os.fsencode(here), b"as folders", name)
        os.makedirs(folder)
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(b"inside %d" % number)


def _sizes(here: Path, dice: random.Random) -> None:
    here.mkdir()
    for size in (0, 1, *(at + off for at in BOUNDARIES for off in (-1, 0, 1))):
        (here / f"{size}.bin").write_bytes(dice.randbytes(size))
    # Look like parts of an archive, and must be taken for content; one is large, one small.
    signatures = b"PK\x07\x08PK\x03\x04PK\x01\x02PK\x05\x06PK\x06\x06PK\x06\x07"
    for times in (1000, 200_000):
        (here / f"{times} signatures.bin").write_bytes(signatures * times)


def _holes(here: Path) -> None:
    here.mkdir()
    _sparse(here / "at the start", 3 * MIB, 2 * MIB)
    _sparse(here / "in the middle", 3 * MIB, 0, 3 * MIB - 4)
    _sparse(here / "at the end", 3 * MIB + 1, 0)
    _sparse(here / "all of it", 3 * MIB)


def _large(here: Path) -> None:
    here.mkdir()
    for off in (-1, 0, 1):
        size = LARGE_BOUNDARY + off
        _sparse(here / f"{size}.bin", size, 0, size - 4)
    _sparse(here / "over 4 GiB", LARGE_BYTES, 0, (4 << 30) - 2, LARGE_BYTES - 4)


def _sparse(path: Path, size: int, *marks: int) -> None:
    """A file that is all hole but for four bytes at each mark."""
    with path.open("wb") as file:
        for mark in marks:
            file.seek(mark)
            file.write(b"data")
        file.truncate(size)


def _times(here: Path) -> None:
    here.mkdir()
    for name in TIMES:
        (here / name).write_bytes(name.encode())
        (here / f"folder {name}").mkdir()
        (here / f"link {name}").symlink_to(name)


def _folders(here: Path) -> None:
    (here / "empty").mkdir(parents=True)
    (here / "nested" / "empty" / "folders").mkdir(parents=True)
    (here / ".hidden" / ".empty").mkdir(parents=True)
    (here / ".hidden" / ".file").write_bytes(b"hidden")
    closed = here / "read-only" / "inner"
    closed.mkdir(parents=True)
    (closed / "clip").write_bytes(b"frames")
    (here / "read-only" / "clip").write_bytes(b"frames")
    (here / "read-only" / "link").symlink_to("clip")
    closed.chmod(0o555)
    closed.parent.chmod(0o555)


def _deep(here: Path) -> None:
    here.mkdir()
    folder = os.open(here, os.O_RDONLY)
    for level in range(DEEP_LEVELS):
        name = f"{level:03}".ljust(DEEP_NAME, "d")
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.mkdir("empty", dir_fd=folder)
    os.symlink("leaf", "link", dir_fd=folder)
    leaf = os.open("leaf", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
    os.write(leaf, b"deep")
    os.close(leaf)
    os.close(folder)


def _symlinks(here: Path, root: Path) -> None:
    (here / "folder").mkdir(parents=True)
    (here / "file").write_bytes(b"what links lead to")
    (here / "folder" / "inner").write_bytes(b"in a folder that links lead to")
    targets = {
        b"relative": b"file",
        b"absolute": os.path.join(os.fsencode(root.absolute()), b"links", b"file"),
        b"broken": b"nothing/here",
        b"loop": b"loop",
        b"pair 1": b"pair 2",
        b"pair 2": b"pair 1",
        b"to a folder": b"folder",
        b"to a folder, with a slash": b"folder/",
        b"to here": b".",
        b"to above": b"..",
        b"to a link": b"relative",
        b"out": b"../../..",
        b"out, absolute": b"/",
        b"out, to a file": b"/etc/passwd",
        b"newline": b"new\nline",
        b"not utf-8": b"\xff\xfe",
        b"like a staging folder": b".ketter-x.part",
    }
    for name, target in targets.items():
        os.symlink(target, os.path.join(os.fsencode(here), name))
    # XFS stops at 1023.
    for size in (LINK_MAX, 1023):
        with suppress(OSError):
            (here / f"long {size}").symlink_to(("t/" * LINK_MAX)[:size])


def _hard_links(here: Path, dice: random.Random) -> None:
    for folder in ("one", "two/deeper", "three"):
        (here / folder).mkdir(parents=True)
    groups = {
        "small": ("one/small", "one/another name"),
        "empty": ("one/empty", "three/empty"),
        "large": ("one/large", "two/deeper/large", "three/another large"),
    }
    sizes = {"small": 10, "empty": 0, "large": 2 * MIB}
    for group, (first, *others) in groups.items():
        (here / first).write_bytes(dice.randbytes(sizes[group]))
        for other in others:
            os.link(here / first, here / other)


def _modes(here: Path) -> None:
    here.mkdir()
    unreadable = UNREADABLE if above_modes(here) else ()
    for mode in (*FILE_MODES, *unreadable):
        path = here / f"file {mode:04o}"
        path.write_bytes(b"mode")
        path.chmod(mode)
    for mode in (*FOLDER_MODES, *unreadable):
        path = here / f"folder {mode:04o}"
        # What is in a setgid folder must not inherit anything.
        (path / "plain folder").mkdir(parents=True)
        (path / "plain file").write_bytes(b"mode")
        (path / "plain folder").chmod(0o751)
        (path / "plain file").chmod(0o640)
        path.chmod(mode)


def _attributes(here: Path) -> None:
    (here / "folder").mkdir(parents=True)
    (here / "inherits").mkdir()
    for name in ("file", "folder/inner", "inherits/nothing", "read-only"):
        (here / name).write_bytes(b"attributes")
    if xattr_support(here):
        for name in ("file", "folder", "folder/inner", "read-only"):
            for attribute, value in ATTRIBUTES.items():
                os.setxattr(here / name, attribute, value)
    if acl_support(here):
        _setfacl("-m", ACCESS, str(here / "file"), str(here / "folder"))
        # A target that sets this before it fills the folder gives it to what is inside.
        _setfacl("-d", "-m", "u:4321:rwx", str(here / "inherits"))
    (here / "read-only").chmod(0o444)


def _setfacl(*arguments: str) -> None:
    subprocess.run(["setfacl", *arguments], check=True, capture_output=True)


def _specials(here: Path) -> None:
    (here / "deeper").mkdir(parents=True)
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "deeper" / "new\npipe")
    (here / "link to pipe").symlink_to("pipe")
    (here / "deeper" / "file").write_bytes(b"beside a pipe")
    # Unlike bind(), this takes a path of any length. Only root may make a device.
    with suppress(PermissionError):
        os.mknod(here / "socket", stat.S_IFSOCK | 0o600)
        os.mknod(here / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _set_times(root: Path) -> None:
    """Times that depend on names only, but for those that were chosen; folders last."""
    kinds = ("", "folder ", "link ")
    chosen = {f"times/{kind}{name}".encode(): at for name, at in TIMES.items() for kind in kinds}
    top = os.open(root, os.O_RDONLY)
    for folder, name, path, _ in walk(top):
        at = chosen.get(path, MTIME + zlib.crc32(path) * 31_000_007)
        os.utime(name, ns=(at, at), dir_fd=folder, follow_symlinks=False)
    os.utime(top, ns=(MTIME, MTIME))
    os.close(top)


def remove_hard(root: Path) -> None:
    """Remove a hard tree, or what a transfer made of it, if it is there."""
    if not root.is_dir():
        return
    root.chmod(0o700)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _empty(top)
    finally:
        os.close(top)
    root.rmdir()


def _empty(folder: int) -> None:
    for name in os.listdir(folder):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        os.chmod(name, 0o700, dir_fd=folder)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        try:
            _empty(below)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=folder)

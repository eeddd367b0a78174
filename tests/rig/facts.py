"""All there is to know of a tree, entry by entry, and a comparison that overlooks nothing of it.

`tests.rig.trees.snapshot` keeps what every transfer must keep; this keeps what
a transfer can be asked for as well, and reaches paths longer than PATH_MAX.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.rig.trees import SHOWN

#: The tree's own top in a description.
TOP = b"."

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
#: Attributes somebody set; others (security.*) are the system's own affair.
_ATTRIBUTES = (b"user.", b"system.posix_acl_")
#: Told where trees differ, but no difference: how a file is laid out is the file system's choice.
_ONLY_TOLD = "allocated"


class Facts(NamedTuple):
    """One entry; what means nothing for its kind is zero or empty.

    `mode` has all twelve bits, `hard_links` the other names of the same file in
    this tree, `xattrs` the user's attributes and the access lists, `allocated`
    the bytes on the disk.
    """

    kind: str
    size: int = 0
    sha256: str = ""
    mode: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    hard_links: tuple[bytes, ...] = ()
    allocated: int = 0

    @property
    def carried(self) -> bool:
        """Whether it is of a kind that a transfer carries."""
        return self.kind in ("file", "folder", "link")


Description = dict[bytes, Facts]


def walk(folder: int, above: bytes = b"") -> Iterator[tuple[int, bytes, bytes, os.stat_result]]:
    """Everything below an open folder, as its folder, name, path and stat.

    In byte order; what is in a folder comes before the folder. Only the name in
    its folder is good for use: a path may be longer than the system takes.
    """
    for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        path = above + name
        if stat.S_ISDIR(found.st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            below = os.open(name, flags, dir_fd=folder)
            try:
                yield from walk(below, path + b"/")
            finally:
                os.close(below)
        yield folder, name, path, found


def describe(root: Path, *, xattrs: bool = False) -> Description:
    """Everything below `root` by its path in bytes, and `root` itself as `TOP`."""
    described: Description = {}
    names: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder, name, path, found in walk(top):
            described[path] = _facts(folder, name, found, xattrs)
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                names[found.st_dev, found.st_ino].append(path)
        described[TOP] = _facts(top, b".", os.fstat(top), xattrs)
    finally:
        os.close(top)
    for group in names.values():
        for path in group:
            others = tuple(other for other in group if other != path)
            described[path] = described[path]._replace(hard_links=others)
    return described


def _facts(folder: int, name: bytes, found: os.stat_result, xattrs: bool) -> Facts:
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    facts = Facts(
        kind,
        mode=stat.S_IMODE(found.st_mode),
        mtime_ns=found.st_mtime_ns,
        device=found.st_rdev,
        xattrs=_xattrs(folder, name) if xattrs else (),
    )
    if kind == "link":
        # Its mode is the system's choice.
        return facts._replace(mode=0, link=os.readlink(name, dir_fd=folder))
    if kind != "file":
        return facts
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return facts._replace(size=found.st_size, sha256=digest, allocated=found.st_blocks * 512)


def _xattrs(folder: int, name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if not hasattr(os, "listxattr"):
        return ()
    # There is no call that takes a folder and a name, and a file need not be ours to open.
    path = b"/proc/self/fd/%d/%b" % (folder, name)
    found = (os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(found)
        if name.startswith(_ATTRIBUTES)
    )


def differences(
    a: Path | Description, b: Path | Description, *, ignore: Collection[str] = ()
) -> list[str]:
    """Every difference between two trees (or descriptions), as a line that names entry and fact.

    `ignore` holds names of facts that may differ. Trees given by their paths are
    compared with their attributes, unless these are ignored.
    """
    if unknown := set(ignore) - set(Facts._fields):
        raise ValueError(f"there is no such fact: {', '.join(sorted(unknown))}")
    left, right = (_described(tree, ignore) for tree in (a, b))
    passed_over = {*ignore, _ONLY_TOLD}
    paths = sorted(left.keys() | right.keys())
    return [line for path in paths for line in _differ(path, left, right, passed_over)]


def assert_same(
    a: Path | Description, b: Path | Description, *, ignore: Collection[str] = ()
) -> None:
    """Fail unless there are no `differences`, naming the first ones."""
    left, right = (_described(tree, ignore) for tree in (a, b))
    if lines := differences(left, right, ignore=ignore):
        allocated = [sum(facts.allocated for facts in tree.values()) for tree in (left, right)]
        shown = "\n  ".join(lines[:SHOWN])
        raise AssertionError(
            f"the trees differ in {len(lines)} places "
            f"({len(left)} entries against {len(right)}, "
            f"{allocated[0]:,} bytes allocated against {allocated[1]:,}):\n  {shown}"
        )


def _described(tree: Path | Description, ignore: Collection[str]) -> Description:
    return describe(tree, xattrs="xattrs" not in ignore) if isinstance(tree, Path) else tree


def _differ(
    path: bytes, left: Description, right: Description, ignore: Collection[str]
) -> list[str]:
    where = repr(path if len(path) < 300 else path[:100] + b" ... " + path[-100:])
    if path not in right:
        return [f"{where}: only in the first"]
    if path not in left:
        return [f"{where}: only in the second"]
    pairs = zip(Facts._fields, left[path], right[path], strict=True)
    return [
        f"{where}: {what} is {_shown(what, one)} against {_shown(what, two)}"
        for what, one, two in pairs
        if one != two and what not in ignore
    ]


def _shown(what: str, value: object) -> str:
    if what == "mode":
        return f"{value:04o}"
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."


def above_modes(folder: Path) -> bool:
    """Whether modes do not stop us, as they do not stop root."""
    with _probe(folder) as path:
        path.chmod(0)
        return os.access(path, os.R_OK)


def xattr_support(folder: Path) -> bool:
    """Whether files in `folder` can have attributes of the user's own."""
    if not hasattr(os, "setxattr"):
        return False
    with _probe(folder) as path:
        try:
            os.setxattr(path, "user.ketter", b"")
            return True
        except OSError:
            return False


def acl_support(folder: Path) -> bool:
    """Whether `setfacl` is installed and files in `folder` can have access lists."""
    if shutil.which("setfacl") is None:
        return False
    with _probe(folder) as path:
        command = ["setfacl", "-m", "u:4321:r", str(path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    times = folder.stat()
    path = folder / "probe"
    path.touch()
    try:
        yield path
    finally:
        path.unlink()
        # Who asks must not be seen in the folder.
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))


def keeps_attributes(fd: int) -> bool:
    """True if a file system keeps user attributes, as far as reading one shows."""
    try:
        os.getxattr(fd, b"user.ketter")
    except OSError as error:
        return error.errno == errno.ENODATA
    return True

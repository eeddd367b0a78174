"""The file systems of the contract: how each is made, what it keeps, what a transfer says of it.

`table()` is the table in docs/engine.md; `tests/filesystems/test_table.py` compares them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.filesystems import mounts
from tests.filesystems.mounts import STRANGER, Fill, Mount, put_on, run

SOURCE, TARGET = "source", "target"
SECOND = 10**9
#: A grain: no time that is given is kept.
NEVER = 0
#: Characters that Windows shares refuse in names.
WINDOWS = ':?*<>|"\\'


@dataclass(frozen=True)
class Kind:
    """A file system, and what it keeps of what is written to it.

    `grain` is that of its times, in ns; `words` are of a shim (`shims`); `says` are the codes with
    which a transfer to it says what is not kept, each once. `below` is mounted at a folder below
    the place, `lacks` are characters that no name has there.
    """

    mount: Mount
    programs: tuple[str, ...] = ()
    words: str = ""
    roles: tuple[str, ...] = (SOURCE, TARGET)
    keeps_owners: bool = True
    grain: int = 1
    modes: bool = True
    symlinks: bool = True
    hard_links: bool = True
    lacks: str = ""
    folds: bool = False
    read_only: bool = False
    says: frozenset[str] = frozenset()
    below: str = ""


def _says(*codes: str) -> frozenset[str]:
    return frozenset(codes)


def _no_locks(number: int) -> Kind:
    return Kind(mounts.plain, ("cc",), f"NO_LOCKS={number}", says=_says("NO_LOCKS"))


def _no_names(number: int) -> Kind:
    return Kind(mounts.plain, ("cc",), f"NAMES={number}:{WINDOWS}", lacks=WINDOWS)


_EXT4 = mounts.disk("mkfs.ext4", "-q", "-F")
_BTRFS = mounts.disk("mkfs.btrfs", "-q", "-f")
_ROUNDED, _MODES = "TIMES_ROUNDED", "MODES_NOT_KEPT"

DISKS = {
    "ext4": Kind(_EXT4, ("mkfs.ext4",)),
    "ext4, inodes of 128 bytes": Kind(
        mounts.disk("mkfs.ext4", "-q", "-F", "-I", "128"),
        ("mkfs.ext4",),
        grain=SECOND,
        says=_says(_ROUNDED),
    ),
    "XFS": Kind(mounts.disk("mkfs.xfs", "-q", "-f"), ("mkfs.xfs",)),
    "Btrfs": Kind(_BTRFS, ("mkfs.btrfs",)),
    "Btrfs, a subvolume below": Kind(_BTRFS, ("mkfs.btrfs",), below="subvolume"),
    "tmpfs": Kind(mounts.in_memory("tmpfs")),
    "tmpfs, a tmpfs below": Kind(mounts.in_memory("tmpfs"), below="tmpfs"),
    "tmpfs, a bind mount below": Kind(mounts.in_memory("tmpfs"), below="bind"),
    "ramfs": Kind(mounts.in_memory("ramfs"), says=_says("SPACE_UNKNOWN")),
    "overlayfs": Kind(mounts.overlay),
    "squashfs": Kind(mounts.squashfs, ("mksquashfs",), roles=(SOURCE,), read_only=True),
}
FUSE = {
    "bindfs": Kind(mounts.bindfs(), ("bindfs",)),
    "bindfs of a fixed owner": Kind(
        mounts.bindfs(f"--force-user={STRANGER}", f"--force-group={STRANGER}", "-p", "0777"),
        ("bindfs",),
        keeps_owners=False,
        modes=False,
        says=_says(_MODES),
    ),
    "bindfs of our own": Kind(
        mounts.bindfs(f"--force-user={os.geteuid()}"), ("bindfs",), keeps_owners=False
    ),
    "ntfs-3g": Kind(
        mounts.fuse_disk("mkfs.ntfs", ["-qfF"], "ntfs-3g"),
        ("mkfs.ntfs", "ntfs-3g"),
        keeps_owners=False,
        grain=100,
        modes=False,
        says=_says(_ROUNDED, _MODES),
    ),
    "exfat-fuse": Kind(
        mounts.fuse_disk("mkfs.exfat", [], "mount.exfat-fuse"),
        ("mkfs.exfat", "mount.exfat-fuse"),
        keeps_owners=False,
        grain=2 * SECOND,
        modes=False,
        symlinks=False,
        hard_links=False,
        lacks=WINDOWS,
        folds=True,
        says=_says(_ROUNDED, _MODES),
    ),
    "mergerfs": Kind(mounts.mergerfs, ("mergerfs",)),
    "sshfs": Kind(mounts.sshfs, ("sshfs",), grain=SECOND, says=_says(_ROUNDED)),
}
AS_NFS = {
    "NFS: silly rename": Kind(mounts.plain, ("cc",), "SILLY"),
    "NFS: no flock (ENOLCK)": _no_locks(errno.ENOLCK),
    "NFS: root_squash": Kind(mounts.plain, ("cc",), "SQUASH=65534", keeps_owners=False),
    "NFS: ESTALE once": Kind(mounts.plain, ("cc",), "ESTALE"),
    "NFS: utime refused": Kind(
        mounts.plain,
        ("cc",),
        f"NO_TIMES={errno.EPERM}",
        grain=NEVER,
        says=_says("TIMES_NOT_KEPT"),
    ),
    "NFS: inode numbers change": Kind(mounts.plain, ("cc",), "INODES"),
}
AS_SMB = {
    "SMB": Kind(
        mounts.plain,
        ("cc",),
        f"NAMES={errno.EINVAL}:{WINDOWS};FOLD;NO_LINKS={errno.EOPNOTSUPP};"
        f"NO_SYMLINKS={errno.EOPNOTSUPP};MODE=0755;GRAIN=2;NO_LOCKS={errno.EOPNOTSUPP};NO_RENAME2",
        keeps_owners=False,
        grain=2 * SECOND,
        modes=False,
        symlinks=False,
        hard_links=False,
        lacks=WINDOWS,
        folds=True,
        says=_says(_ROUNDED, _MODES, "NO_LOCKS"),
    ),
}
ODD = {
    "flock: ENOSYS": _no_locks(errno.ENOSYS),
    "flock: EOPNOTSUPP": _no_locks(errno.EOPNOTSUPP),
    "rename: EXDEV on one device": Kind(mounts.plain, ("cc",), below="wall"),
    "names: EINVAL": _no_names(errno.EINVAL),
    "names: EBADMSG": _no_names(errno.EBADMSG),
    "names: EILSEQ": _no_names(errno.EILSEQ),
    "utime: ignored": Kind(
        mounts.plain, ("cc",), "IGNORE_TIMES", grain=NEVER, says=_says("TIMES_NOT_KEPT")
    ),
    "fsync and syncfs: EINVAL": Kind(mounts.plain, ("cc",), f"NO_SYNC={errno.EINVAL}"),
    "no sparse files": Kind(mounts.plain, ("cc",), "NO_HOLES"),
    "statfs: 0": Kind(mounts.plain, ("cc",), "NO_SPACE", says=_says("SPACE_UNKNOWN")),
}
KINDS = {**DISKS, **FUSE, **AS_NFS, **AS_SMB, **ODD}


def missing(kind: Kind) -> str:
    """Why a kind cannot be had here; "" if it can."""
    return mounts.missing(kind.programs)


@contextmanager
def mounted(kind: Kind, folder: Path, fill: Fill = lambda _: None) -> Iterator[Path]:
    """A folder with that file system, made in another folder."""
    at = folder / "mounted"
    at.mkdir()
    with ExitStack() as stack:
        kind.mount(stack, folder, at, fill)
        yield at


def put_below(stack: ExitStack, kind: Kind, folder: Path, spare: Path) -> str:
    """Have another file system begin at a folder, which must not exist; words for the shim."""
    if kind.below == "subvolume":
        run("btrfs", "-q", "subvolume", "create", folder)
        return ""
    folder.mkdir(parents=True)
    if kind.below == "tmpfs":
        put_on(stack, folder, "mount", "-t", "tmpfs", "none", folder)
    elif kind.below == "bind":
        spare.mkdir()
        put_on(stack, folder, "mount", "--bind", spare, folder)
    return f"EXDEV={folder}" if kind.below == "wall" else ""


def table() -> list[str]:
    """The lines of the table in docs/engine.md."""
    lines = [
        "| target | times | modes | symlinks | hard links | names | said |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, kind in KINDS.items():
        if TARGET not in kind.roles:
            continue
        times = {1: "ns", 100: "100 ns", SECOND: "1 s", 2 * SECOND: "2 s", NEVER: "-"}[kind.grain]
        names = "Windows'" if kind.lacks else "any bytes"
        names += ", case folded" if kind.folds else ""
        kept = ["yes" if flag else "-" for flag in (kind.modes, kind.symlinks, kind.hard_links)]
        said = ", ".join(f"`{code}`" for code in sorted(kind.says)) or "-"
        lines.append(f"| {name} | {times} | {' | '.join(kept)} | {names} | {said} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))

"""Decides if a file system keeps the numbers of its inodes, and finds a substitute if not.

Linux makes up a number each time it reads a file of FAT, exFAT or 9p into its cache. FUSE
programs (sshfs, mergerfs, ntfs-3g) and SMB do so too, or may. There the number does not show if a
file is the one that was seen before: its size, mtime and ctime have to.
"""

from __future__ import annotations

import os
import stat
import sys
import time

from engine.agent.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Sequence

#: File systems that may show another number for the same file; so may all of FUSE.
_FORGETFUL = frozenset(
    ("9p", "cifs", "exfat", "msdos", "prl_fs", "smb3", "smbfs", "vboxsf", "vfat", "vmhgfs")
)
#: Begins of the types of FUSE file systems on Linux, macOS and FreeBSD.
_FUSE = ("fuse", "osxfuse", "macfuse", "lifs", "fskit", "webdav")
_PASS = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC
#: The bit that marks a number as a substitute; the other bits are the ctime in ns.
_STAMP = 1 << 63
#: A time that is a multiple of _FINE ns may be rounded, to _COARSE seconds at most.
_FINE, _COARSE = 10_000_000, 2.0
#: Where macOS's `struct statfs` has the file system's name, and its size (bytes).
_NAME_AT, _NAME_SIZE = 72, 16

#: If numbers are kept, by device; found once.
_kept: dict[int, bool] = {}
#: By device: an open folder, and the number that it had when it was opened.
_watched: dict[int, tuple[int, int]] = {}


def number_of(found: os.stat_result, folder: int, name: str) -> int:
    """The number that identifies a file later: that of its inode, if the file system keeps it.

    Otherwise the file's ctime, marked as such. 0 for a folder, and for a file with several names:
    their ctime changes with what the folder holds, or with the other names.
    """
    if keeps(found.st_dev, folder, name):
        return found.st_ino
    if stat.S_ISDIR(found.st_mode) or found.st_nlink > 1:
        return 0
    return stamp(found)


def stamp(found: os.stat_result) -> int:
    """The substitute for an inode's number."""
    return _STAMP | found.st_ctime_ns & (_STAMP - 1)


def is_stamp(number: int) -> bool:
    """True if an entry's number is not an inode's."""
    return not number or number >= _STAMP


def settle(number: int, mtime_ns: int) -> None:
    """Wait until another change of a file that is about to be read would change its mtime.

    Without inode numbers only the mtime shows a change; FAT counts it in 2 s, SFTP in 1 s.
    """
    if is_stamp(number) and mtime_ns % _FINE == 0:
        left = mtime_ns / 1e9 + _COARSE - time.time()
        if 0 < left <= 2 * _COARSE:  # If more is left, a clock is wrong.
            time.sleep(left)


def keeps(device: int, folder: int, name: str) -> bool:
    """True if the file system of a name keeps its inodes' numbers; found once per device."""
    known = _kept.get(device)
    if known is None:
        # The name may vanish meanwhile; its folder is nearly always on the same file system.
        kind = type_of(folder, name) or type_of(folder, ".")
        known = _kept[device] = not is_forgetful(kind)
    return known


def watch(folder: int) -> None:
    """Watch the number of a folder of this file system, which the agent has open."""
    found = os.fstat(folder)
    if found.st_dev not in _watched:
        _watched[found.st_dev] = (os.dup(folder), found.st_ino)


def renumbers(device: int) -> bool:
    """True if an open folder has another number by now: the file system keeps none, whatever it is.

    Some network shares do that, though their type promises numbers.
    """
    folder, number = _watched.get(device, (-1, 0))
    if folder < 0 or os.fstat(folder).st_ino == number:
        return False
    _kept[device] = False
    return True


def is_forgetful(kind: str) -> bool:
    """True if a file system of this type may show other numbers for the same file."""
    return kind in _FORGETFUL or kind.startswith(_FUSE)


def place_of(real: str, found: os.stat_result) -> list[Any]:
    """Identify a folder on this machine: by its device and its inode's number.

    Where the number is not kept: by its device and its path in that file system.
    """
    above, name = os.path.split(real)
    try:
        folder = os.open(above, _PASS)
    except OSError:  # Without it, the type of the file system cannot be found.
        return [found.st_dev, found.st_ino]
    try:
        if keeps(found.st_dev, folder, name or "."):
            return [found.st_dev, found.st_ino]
        mount = _mount_of(folder, name or ".")
    finally:
        os.close(folder)
    if not mount:
        return [found.st_dev, real]
    top, point = map(plain, mount[3:5])
    return [found.st_dev, os.path.normpath(f"{top}/{real[len(point.rstrip('/')) :]}").lstrip("/")]


def type_of(folder: int, name: str) -> str:
    """The type of the file system of a name; "" if unknown."""
    if sys.platform == "darwin":
        return _apple_type(folder)
    mount = _mount_of(folder, name)
    return mount[mount.index("-") + 1] if "-" in mount else ""


def _mount_of(folder: int, name: str) -> Sequence[str]:
    """The fields of the mount of a name, see proc(5), mountinfo; none if unknown.

    Not found by the device: those of Btrfs and of overlays are in no such list.
    """
    try:
        fd = os.open(name, _PASS, dir_fd=folder)
        try:
            with open(f"/proc/self/fdinfo/{fd}") as lines:
                ids = [line.split()[1] for line in lines if line.startswith("mnt_id:")]
        finally:
            os.close(fd)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split(" ")
                if fields[:1] == ids:
                    return fields
    except OSError:
        pass  # Not Linux, or no /proc: then numbers count as kept, as most file systems do.
    return ()


def mount_points() -> set[str] | None:
    """The folders on which something is mounted; None if unknown."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            return {plain(line.split(" ")[4]) for line in mounts}
    except (OSError, IndexError):
        return None


def plain(field: str) -> str:
    r"""A path as mountinfo and fstab(5) have it, with its escapes (\040 is a blank) replaced."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        field = field.replace(code, chr(int(code[1:], 8)))
    return field


def _apple_type(folder: int) -> str:
    import ctypes  # Not at the top: it costs every start some milliseconds.

    room = ctypes.create_string_buffer(4096)  # Twice the size of the struct.
    library = ctypes.CDLL(None)
    call = getattr(library, "fstatfs$INODE64", None) or library.fstatfs
    if call(folder, room):
        return ""
    return room.raw[_NAME_AT : _NAME_AT + _NAME_SIZE].split(b"\0")[0].decode("ascii", "replace")

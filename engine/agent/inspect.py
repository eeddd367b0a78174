"""The commands of both ends: inspect a place, open it, read it; they change nothing."""

from __future__ import annotations

import os
import stat
import struct
from itertools import islice

from engine.agent.context import Context
from engine.agent.inodes import keeps, mount_points, number_of, place_of, plain
from engine.agent.tree import entry_from, holes_of
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import pack_entries

if TYPE_CHECKING:
    from typing import Any

#: Where a system lists what it mounts, see fstab(5).
FSTAB = "/etc/fstab"
#: The most names of a folder to try, to find if it folds cases.
_TRIED = 50
#: The most exposed folders in a reply.
_EXPOSED = 5
#: A POSIX ACL, as Linux returns it: bytes before the first entry; an entry (its tag, its bits, the
#: number of a user or a group); the tags of entries that name a user or a group.
_ACL_HEAD, _ACL_ENTRY, _ACL_NAMED = 4, struct.Struct("<HHI"), (0x02, 0x08)


class Inspector:
    """The commands that both ends have; a method `do_<op>` each."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def do_inspect(
        self, root: str, path: str, blob: bytes, staging: str = "", exposed: bool = False
    ) -> dict[str, Any]:
        """Inspect a place, see `inspect_place`; with `exposed` also `exposed_to`.

        `linked` is true if the path's last name is a symlink.
        """
        real = self._context.place(root, path)
        found = inspect_place(self._context.real_root, real, staging)
        linked = bool(path) and os.path.islink(os.path.join(root, path.rstrip("/")))
        return {**found, "linked": linked, "exposed": exposed_to(real) if exposed else []}

    def do_open(
        self,
        root: str,
        path: str,
        blob: bytes,
        sibling: tuple[int, str] = (0, ""),
        removes: bool = False,
    ) -> dict[str, Any]:
        """Use a folder as the tree of the next commands; `sibling` see `sibling_pid`.

        `removes` is for the agent's `Charge`.
        """
        self._context.watch_sibling(sibling_pid(*sibling))
        return {"made": self._context.open(root, path, make=False)}

    def do_stat(self, path: str, blob: bytes) -> dict[str, Any]:
        """Return the entry of one name in the tree."""
        folder, name = self._context.tree.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        entry = entry_from(found, folder, name, path)
        if entry:
            entry = entry._replace(ino=number_of(found, folder, name))
        blob = pack_entries([entry] if entry else [])
        return {"holes": holes_of(found) if entry else 0, "blob": blob}

    def do_hash(self, blob: bytes, at_source: bool = False, whole: str = "") -> dict[str, Any]:
        """Return digests and ids of entries, see `digests_of`; `whole` comes back as it is."""
        from engine.agent.digests import digests_of  # It loads OpenSSL, which takes 5 ms.

        ids, digests, gone = digests_of(self._context, self._context.tree, blob, at_source)
        return {"ids": ids, "whole": whole, "gone": gone, "blob": digests}

    def do_sync(self, blob: bytes) -> dict[str, Any]:
        """Make everything in the tree durable, names included; see `check_in_place`."""
        from engine.agent.digests import make_durable

        tree = self._context.tree
        for path in ("", *self._context.mounts):
            make_durable(tree.folder(path))
        self._context.check_in_place()
        return {}


def inspect_place(real_root: str, real: str, staging: str) -> dict[str, Any]:
    """Describe a place below a root, both real paths: kind, space, limits of names, machine.

    Space is in bytes and in inodes. `left` is true if a folder with the name `staging` lies in the
    place, or beside it; `foreign` see `_is_foreign`, `unmounted` see `unmounted_above`.
    """
    try:
        found = os.stat(real)
    except FileNotFoundError:
        found = None
    folder = real
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if found and stat.S_ISREG(found.st_mode):
        folder = os.path.dirname(real)
    space = os.statvfs(folder)
    return {
        "real": real,
        "root": real_root,
        "has_root": os.path.isdir(real_root),
        "below_root": real[len(real_root) :].strip("/"),
        "kind": _kind(found),
        "mode": stat.S_IMODE(found.st_mode) if found else 0,
        "mtime_ns": found.st_mtime_ns if found else 0,
        "writable": os.access(folder, os.W_OK | os.X_OK),
        "free": space.f_bavail * space.f_frsize,
        "size": space.f_blocks * space.f_frsize,
        "read_only": bool(space.f_flag & os.ST_RDONLY),
        "unmounted": unmounted_above(real),
        "free_inodes": space.f_favail if space.f_files else -1,
        "name_max": space.f_namemax,
        "case_folding": _case_folding(folder),
        "foreign": _is_foreign(folder),
        "left": bool(staging) and os.path.isdir(os.path.join(folder, staging)),
        "cores": os.cpu_count() or 1,
        "host": os.uname().nodename,
        "machine": machine(),
        "ancestor_ids": _ancestor_ids(real),
    }


def unmounted_above(real: str) -> list[str]:
    """The innermost folder on the way to a place on which FSTAB mounts something, if it is not.

    [] if there is none, or it is mounted.
    """
    points = [p for p in _points_of_fstab() if f"{real}/".startswith(f"{p.rstrip('/')}/")]
    innermost = max(points, key=len, default="/")
    mounted = mount_points()
    is_there = innermost in mounted if mounted is not None else os.path.ismount(innermost)
    return [] if innermost == "/" or is_there else [innermost]


def _points_of_fstab() -> list[str]:
    try:
        with open(FSTAB, encoding="utf-8", errors="surrogateescape") as table:
            lines = [line.split() for line in table]
    except OSError:
        return []
    points = [plain(line[1]) for line in lines if len(line) > 2 and line[0][:1] != "#"]
    return [os.path.realpath(point) for point in points if point.startswith("/")]


def exposed_to(real: str) -> list[str]:
    """The folders above a place, outermost first, in which other users could replace it.

    Other users are all but root and this user; in a sticky folder, only the owner of the place.
    A group with this user's own number counts as this user's alone, as most systems make it.
    """
    ours, found = (0, os.geteuid()), []
    while real != "/":
        above = os.path.dirname(real)
        try:
            info, inner = os.stat(above), os.stat(real)
        except OSError:
            return []
        shared = bool(info.st_mode & stat.S_IWOTH)
        if info.st_mode & stat.S_IWGRP:  # Where a folder has an ACL, that is the ACL's mask.
            writers = _named_writers(above)
            shared |= any(number not in ours for number in [info.st_gid, *writers])
        if info.st_mode & stat.S_ISVTX and inner.st_uid in ours:
            shared = False
        if shared or info.st_uid not in ours:
            found.append(above)
        real = above
    return found[::-1][:_EXPOSED]


def _named_writers(path: str) -> list[int]:
    """The users and groups, by number, that a folder's POSIX ACL names and lets write (Linux)."""
    try:
        acl = os.getxattr(path, "system.posix_acl_access")
    except (AttributeError, OSError):
        return []  # There are none on this system, on this file system, or on this folder.
    whole = len(acl) - (len(acl) - _ACL_HEAD) % _ACL_ENTRY.size
    entries = _ACL_ENTRY.iter_unpack(acl[_ACL_HEAD:whole])
    return [number for tag, bits, number in entries if tag in _ACL_NAMED and bits & os.W_OK]


def sibling_pid(pid: int, at: str) -> int:
    """The process for `Context.watch_sibling`; 0 if it runs on another machine."""
    return pid if pid and at == machine() else 0


def machine() -> str:
    """A text that names this machine since its last start, as far as the platform tells."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as source:
            return source.read().strip()
    except OSError:
        return f"{os.uname().nodename} {os.uname().version}"


def _kind(found: os.stat_result | None) -> str:
    if found is None:
        return "absent"
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    return "file" if stat.S_ISREG(found.st_mode) else "other"


def _case_folding(folder: str) -> bool | None:
    """True if the folder takes names that differ only by case for one; None if unknown."""
    try:
        with os.scandir(folder) as listing:
            names = [item.name for item in islice(listing, _TRIED)]
    except OSError:
        return None
    for name in names:
        other = name.swapcase()
        if other != name and other not in names:
            try:
                return os.path.samefile(os.path.join(folder, name), os.path.join(folder, other))
            except OSError:
                return False
    return None


def _is_foreign(folder: str) -> bool:
    """True if the file system may be one of another system, with that one's rules for names."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not keeps(os.fstat(fd).st_dev, fd, ".")
    finally:
        os.close(fd)


def _ancestor_ids(real: str) -> list[list[Any]]:
    """Identify the place and each folder above it, innermost first; [0, 0] if one is missing."""
    ancestors = []
    while True:
        try:
            found = os.stat(real)
            ancestors.append(place_of(real, found))
        except FileNotFoundError:
            ancestors.append([0, 0])
        if real == "/":
            return ancestors
        real = os.path.dirname(real)

"""The commands of both ends: look at a place, open it, read it; nothing is changed."""

from __future__ import annotations

import os
import stat
from itertools import islice
from typing import Any

from engine.agent.desk import Desk
from engine.agent.stage import digests_of, make_durable
from engine.agent.tree import entry_of, resolve
from engine.agent.wire import pack_entries

#: Names of a folder that are tried to learn whether it tells cases apart.
_TRIED = 50


class Looker:
    """A place that is looked at; a method `do_<op>` per command."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def do_look(self, root: str, path: str, blob: bytes, staging: str = "") -> dict[str, Any]:
        """Say what is at a place; see `look`."""
        return look(root, path, staging)

    def do_open(
        self, root: str, path: str, blob: bytes, beside: tuple[int, str] = (0, "")
    ) -> dict[str, Any]:
        """Use a folder as the tree of the commands that follow; `beside` see `neighbour`."""
        self._desk.watch(neighbour(*beside))
        return {"made": self._desk.open(root, path, make=False)}

    def do_stat(self, path: str, blob: bytes) -> dict[str, Any]:
        """The entry of one name in the tree."""
        folder, name = self._desk.tree.parent(path)
        entry = entry_of(folder, name, path)
        return {"blob": pack_entries([entry] if entry else [])}

    def do_hash(self, blob: bytes, at_source: bool = False, whole: str = "") -> dict[str, Any]:
        """The digests and ids of entries, see `digests_of`; `whole` comes back as it is."""
        ids, digests, gone = digests_of(self._desk, self._desk.tree, blob, at_source)
        return {"ids": ids, "whole": whole, "gone": gone, "blob": digests}

    def do_sync(self, blob: bytes) -> dict[str, Any]:
        """Make everything in the tree durable, names included."""
        make_durable(self._desk.tree.fd)
        return {}


def look(root: str, path: str, staging: str) -> dict[str, Any]:
    """What is at a place: kind, space (bytes, inodes), limits of names, and which machine it is.

    `left` says whether there is a folder of the name `staging` in it, or beside it.
    """
    real = resolve(root, path)
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
        "has_root": os.path.isdir(root),
        "below_root": real[len(os.path.realpath(root)) :].strip("/"),
        "kind": _kind(found),
        "mode": stat.S_IMODE(found.st_mode) if found else 0,
        "mtime_ns": found.st_mtime_ns if found else 0,
        "writable": os.access(folder, os.W_OK | os.X_OK),
        "free": space.f_bavail * space.f_frsize,
        "size": space.f_blocks * space.f_frsize,
        "free_inodes": space.f_favail if space.f_files else -1,
        "name_max": space.f_namemax,
        "case_folding": _case_folding(folder),
        "left": bool(staging) and os.path.isdir(os.path.join(folder, staging)),
        "cores": os.cpu_count() or 1,
        "host": os.uname().nodename,
        "machine": machine(),
        "chain": _chain(real),
    }


def neighbour(pid: int, at: str) -> int:
    """The process to have an eye on, see `Desk.watch`; 0 if it is at another machine."""
    return pid if pid and at == machine() else 0


def machine() -> str:
    """The same text on the same running machine only, as far as the platform tells."""
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
    """Whether names that differ only by case are one in the folder; None where nothing tells."""
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


def _chain(real: str) -> list[list[int]]:
    """Device and inode of the place and of each folder above it, innermost first."""
    chain = []
    while True:
        try:
            found = os.stat(real)
            chain.append([found.st_dev, found.st_ino])
        except FileNotFoundError:
            chain.append([0, 0])
        if real == "/":
            return chain
        real = os.path.dirname(real)

"""Compares entries of the source with what the target tree holds in their places.

A module of its own with few imports: where nothing is sent the target's agent loads no more.
"""

from __future__ import annotations

import errno
import os
import stat

from engine.agent import write_access
from engine.agent.context import Context
from engine.agent.inodes import mount_points
from engine.agent.target.staging.kept import KeptTimes
from engine.agent.tree import Tree, entry_from
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    ABSENT,
    ALIKE,
    DIFFERENT,
    FILE,
    FOLDER,
    HARD_LINK,
    HIDDEN,
    OLDER,
    OTHER_KIND,
    SAME,
    UNCHANGED,
    AgentError,
    Entry,
    brief,
    explain,
    show,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Any, Iterator


#: Errors by which a file system says that it has no such name: what is written there says so.
_NO_NAME = (errno.EINVAL, errno.EILSEQ, errno.EBADMSG, errno.ENAMETOOLONG)

#: Folders at which other file systems begin: as many are staged there, and named in one reply.
_MOST_MOUNTS, _NAMED = 100, 20
#: Free bytes where a file system does not say how many there are.
_NOT_KNOWN = 1 << 60
#: Codes of errors that are about one entry, not about its whole file system.
_OF_ENTRY = ("PERMISSION_DENIED", "DISK_ERROR", "IO_ERROR")


class Comparison:
    """The command of a target that changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._times: KeptTimes | None = None
        self._mounted: set[str] | None = None

    def do_compare(
        self, keep_both: bool, by_content: bool, blob: bytes, guess: bool = False
    ) -> dict[str, Any]:
        """Compare entries with what the target holds in their places; see `compare`.

        Where only the times of files differ, try in the target how it keeps times; with `guess`,
        change nothing there.
        """
        write_access.recover(self._context.tree.fd)
        if self._mounted is None:
            self._mounted = mounted_below(self._context.real)
        if self._times is None:
            self._times = KeptTimes(guess)
        try:
            entries = unpack_entries(blob)
            states, others, errors = compare(
                self._context.tree, entries, keep_both, by_content, self._times
            )
        finally:
            self._times.close()
        mounts = [
            entry.path
            for entry, state in zip(entries, states)
            if entry.kind == FOLDER and state in (SAME, UNCHANGED) and self._is_mount(entry.path)
        ]
        room = self._found(mounts)
        return {
            "states": states, "others": others, "errors": errors,
            "mounts": [show(path) for path in mounts[:_NAMED]], "room": room,
        }  # fmt: skip

    def _is_mount(self, path: str) -> bool:
        """True if another file system begins at a folder: a mount, or a subvolume of Btrfs."""
        assert self._mounted is not None
        if path in self._mounted:
            return True
        folder, name = self._context.tree.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found.st_dev != os.fstat(folder).st_dev

    def _found(self, mounts: list[str]) -> int:
        """Take in the folders at which other file systems begin; return their free bytes."""
        room = 0
        for path in mounts:
            if path in self._context.mounts or len(self._context.mounts) >= _MOST_MOUNTS:
                continue
            try:
                space = os.statvfs(self._context.tree.folder(path))
            except OSError:
                continue  # This user may not enter it: publishing names what cannot go there.
            self._context.mounts.append(path)
            self._context.on_mount(path)
            room += space.f_bavail * space.f_frsize if space.f_blocks else _NOT_KNOWN
        return min(room, _NOT_KNOWN)


def mounted_below(real: str) -> set[str]:
    """The paths below a folder, relative to it, on which something is mounted."""
    top = f"{real.rstrip('/')}/"
    return {point[len(top) :] for point in mount_points() or () if point.startswith(top)}


def compare(
    target: Tree,
    entries: list[Entry],
    keep_both: bool,
    by_content: bool = False,
    times: KeptTimes | None = None,
) -> tuple[str, dict[str, str], dict[str, list[str]]]:
    """Compare each entry with what the target holds in its place; return one letter for each.

    a: nothing is there, or this user may not look. s: the same (kind, size and mtime; link text).
    d: something different, of a kind that may be replaced. o: as d, and older. t: something that
    is never replaced. u: a folder that needs nothing, for its time is the same, and it keeps its
    mode. c: a file of the same size, on a file system that keeps no times (`times`): its content
    has to be compared. x: it cannot be looked at; the third result has code and sentence by its
    index. With `by_content` files of one size count as the same: their digests will decide. With
    `keep_both` a copy under an earlier second name counts as the same; the second result maps
    indexes to such names.
    """
    states, others = [], {}
    errors: dict[str, list[str]] = {}
    for index, entry in enumerate(entries):
        try:
            state = compare_one(target, entry, entry.path, by_content, times)
        except AgentError as error:
            if error.code not in _OF_ENTRY:
                raise
            state = ABSENT  # Publishing opens the folder if it is this user's, or names the entry.
            if error.code != "PERMISSION_DENIED":
                errors[str(index)] = [error.code, brief(errors, str(error))]
                state = HIDDEN
        if keep_both and state in (DIFFERENT, OLDER, OTHER_KIND) and entry.kind != FOLDER:
            for path in second_names(entry.path):
                second = compare_one(target, entry, path, by_content, times)
                if second in (SAME, ALIKE):
                    state, others[str(index)] = second, path
                if second in (SAME, ALIKE, ABSENT):
                    break
        if state == SAME and entry.kind == FOLDER and _is_unchanged(target, entry, times):
            state = UNCHANGED
        states.append(state)
    return "".join(states), others, errors


def _is_unchanged(target: Tree, entry: Entry, times: KeptTimes | None) -> bool:
    """True if the target's folder has the entry's time, and no killed agent has left it open."""
    folder, name = target.parent(entry.path)
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if write_access.is_left_open(found):
        return False
    return found.st_mtime_ns == entry.mtime_ns or bool(
        times and times.fits(folder, found.st_dev, entry.mtime_ns, found.st_mtime_ns)
    )


def compare_one(
    target: Tree,
    entry: Entry,
    path: str,
    by_content: bool = False,
    times: KeptTimes | None = None,
) -> str:
    try:
        folder, name = target.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if entry.kind in (FILE, HARD_LINK) and stat.S_ISREG(found.st_mode):
            alike = found.st_size == entry.size
            if alike and (found.st_mtime_ns == entry.mtime_ns or by_content):
                return SAME
            if alike and times:
                fits = times.fits(folder, found.st_dev, entry.mtime_ns, found.st_mtime_ns)
                if fits is not False:
                    return SAME if fits else ALIKE
            return OLDER if found.st_mtime_ns < entry.mtime_ns else DIFFERENT
        there = entry_from(found, folder, name, path)
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):  # A symlink on the way: ELOOP on macOS.
            return OTHER_KIND
        if error.errno in _NO_NAME:
            return ABSENT
        raise explain(error, path) from error
    if there is None or (there.kind == FOLDER) != (entry.kind == FOLDER):
        return OTHER_KIND
    if there.kind == entry.kind and (entry.kind == FOLDER or there.link == entry.link):
        return SAME
    return OLDER if there.mtime_ns < entry.mtime_ns else DIFFERENT


def second_names(path: str) -> Iterator[str]:
    """The names a second copy may take: `a (2).mov`, `a (3).mov` …"""
    above, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    room = 255 - len(os.fsencode(f" (999){dot}{ending}"))
    stem = os.fsdecode(os.fsencode(stem)[:room])
    return (f"{above}{slash}{stem} ({number}){dot}{ending}" for number in range(2, 1000))

"""Parts of a staging tree that wait on another file system, which begins below the target folder.

A rename goes within one file system only. So what goes below a mounted disk or share, or into a
subvolume, waits in a folder there, which has the staging folder's name and is closed to others;
the staging tree leads into it (`Tree.grafts`). The note `grafts` in the staging folder names these
places: other agents of the attempt use them, too, and a later one resumes from them or clears up.
Where no such folder can be made, the entries wait with all others, and are copied: see
`publish.across`.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from engine.agent.target.ownership import not_ours, open_plain, open_private, write_note
from engine.agent.tree import Tree, check_path, close_all, list_names, remove_open
from engine.agent.typed import TYPE_CHECKING, NamedTuple
from engine.agent.wire import AgentError, is_staging
from engine.agent.write_access import accessed, writable

if TYPE_CHECKING:
    from typing import Iterator

NOTE = "grafts"
#: The most bytes of the note; file systems beyond that are filled by copying.
_MOST = 1 << 16
#: Errors that say that a part, or the file system under it, is gone.
_GONE = (FileNotFoundError, NotADirectoryError, AgentError)


class Graft(NamedTuple):
    """A folder of the target, and the name and inode number of the folder in it for entries.

    `before` and `after` are the outer one's times (ns) around making the inner one. `number` is 0
    until the tree leads there: if the agent is killed meanwhile, the folder is empty.
    """

    path: str
    name: str
    before: int
    after: int
    number: int


class Grafts:
    """The parts of one staging tree; the tree asks for them by path.

    One descriptor of each stays open, as of the staging folder: no part is found by its name twice.
    """

    def __init__(self, tree: Tree) -> None:
        self._open: dict[str, int] = {}
        self._tree = tree
        tree.grafts = self

    def __contains__(self, path: str) -> bool:
        return path in self._open

    def descriptors(self) -> list[int]:
        """A descriptor of each part; they belong to this object. Any thread may ask."""
        return [*self._open.values()]

    def open(self, path: str) -> int:
        """A new descriptor of the part of one place."""
        return os.dup(self._open[path])

    def paths(self) -> list[str]:
        """The places of all parts."""
        return [*self._open]

    def are_below(self, path: str) -> bool:
        """True if a part has its place at or below a path."""
        return any(f"{part}/".startswith(f"{path}/") for part in self._open)

    def add(self, folder: int, path: str, name: str, number: int = 0) -> int:
        """Have the tree lead into a part that is in an open folder; return its number.

        Raises STAGING_NOT_OURS if it is not certainly this user's alone, or has another `number`.
        """
        fd = _opened(folder, name, number)
        if len(self._open) >= Tree.CACHE or (not number and list_names(fd)):
            os.close(fd)
            raise not_ours(name, "is one of too many, or was empty when it was made, and is not")
        try:
            self._make_way(path)
        except BaseException:
            os.close(fd)
            raise
        self._tree.forget()
        self._open[path] = fd
        return os.fstat(fd).st_ino

    def _make_way(self, path: str) -> None:
        """Make the folders that lead to a part: a walk through the tree must meet them."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            above, name = self._tree.parent("/".join(parts[:end]))
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)

    def close(self) -> None:
        """Close all descriptors."""
        close_all(self.descriptors())
        self._open.clear()


def make(target: int, staging: int, tree: Tree, path: str, name: str) -> bool:
    """Have what goes below a folder of the target wait there; False if that is not possible."""
    place = Tree(os.dup(target))
    try:
        folder = place.folder(path)
        graft = Graft(path, name, os.fstat(folder).st_mtime_ns, 0, 0)
        if not _write(staging, graft):
            return False
        with writable(folder):
            os.mkdir(name, 0o700, dir_fd=folder)
            try:
                number = (tree.grafts or Grafts(tree)).add(folder, path, name)
            except BaseException:
                os.rmdir(name, dir_fd=folder)
                raise
        _write(staging, graft._replace(after=os.fstat(folder).st_mtime_ns, number=number))
        return True
    except (OSError, AgentError):
        return False
    finally:
        place.close()


def attach(target: int, staging: int, tree: Tree) -> None:
    """Have a staging tree lead into all its parts; raises an error if one is gone."""
    place = Tree(os.dup(target))
    try:
        for graft in _read(staging):
            if graft.number:
                grafts = tree.grafts or Grafts(tree)
                grafts.add(place.folder(graft.path), graft.path, graft.name, graft.number)
    finally:
        place.close()


def _opened(folder: int, name: str, number: int) -> int:
    """Open a part; raises STAGING_NOT_OURS if it is not this user's alone, or not that one."""
    fd, is_kept = open_private(folder, name)
    if is_kept and number in (0, os.fstat(fd).st_ino):
        return fd
    os.close(fd)
    raise not_ours(name, "is not certainly this user's, or another folder of the same name")


def keep(target: int, staging: int) -> None:
    """Leave only those parts in the note that are there: what the others held is sent again."""
    place, kept = Tree(os.dup(target)), []
    try:
        for graft in _read(staging):
            with suppress(OSError, AgentError):
                folder = place.folder(graft.path)
                if graft.number:
                    os.close(_opened(folder, graft.name, graft.number))
                    kept.append(graft)
                else:
                    _remove(folder, graft)
    finally:
        place.close()
    write_note(staging, NOTE, "".join(json.dumps(graft) + "\n" for graft in kept))


def clear(target: int, staging: int) -> list[int]:
    """Remove all parts; return descriptors of the folders in which they were, to be flushed."""
    place, cleared = Tree(os.dup(target)), []
    try:
        for graft in reversed(list(_read(staging))):
            with suppress(*_GONE):
                folder = place.folder(graft.path)
                _remove(folder, graft)
                cleared.append(os.dup(folder))
    finally:
        place.close()
    with suppress(FileNotFoundError):
        os.unlink(NOTE, dir_fd=staging)
    return cleared


def _remove(folder: int, graft: Graft) -> None:
    """Remove a part with all that is in it; whatever else has its name by now stays."""
    fd = _opened(folder, graft.name, graft.number)
    found = os.fstat(folder)
    try:
        with writable(folder):
            if graft.number:
                remove_open(folder, graft.name, fd)
            else:
                with suppress(OSError):
                    os.rmdir(graft.name, dir_fd=folder)
    finally:
        os.close(fd)
    if found.st_mtime_ns == graft.after:
        # Only this folder came and went: restore the time from before.
        with suppress(OSError):
            os.utime(folder, ns=(accessed(found), graft.before))


def _write(staging: int, graft: Graft) -> bool:
    """Add a line to the note; False if it would become too long."""
    fd = open_plain(staging, NOTE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        line = (json.dumps(graft) + "\n").encode("ascii")
        if os.fstat(fd).st_size + 2 * len(line) > _MOST:
            return False
        os.write(fd, line)
        os.fsync(fd)
        return True
    finally:
        os.close(fd)


def _read(staging: int) -> Iterator[Graft]:
    """Yield the parts that the note names, each with its last line, the outer ones first."""
    try:
        fd = open_plain(staging, NOTE, os.O_RDONLY)
    except FileNotFoundError:
        return
    found: dict[str, Graft] = {}
    with open(fd, "rb") as lines:
        for line in lines.read(_MOST).splitlines():
            with suppress(ValueError, TypeError, RecursionError):  # A line that was cut off.
                path, name, *numbers = json.loads(line)
                kinds = [type(value) for value in (path, name, *numbers)]
                if kinds == [str, str, int, int, int] and is_staging(name):
                    found[check_path(path)] = Graft(path, name, *numbers)
    yield from found.values()
